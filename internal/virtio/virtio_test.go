package virtio

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestHeader(t *testing.T) {
	b := make([]byte, HeaderLen+1)
	h := Header{NeedsChecksum, GSOTCPv6, 0x102, 0x304, 0x506, 0x708}
	h.Put(b)
	assert.Equal(t, h, Get(b))
	assert.Zero(t, b[HeaderLen])
	assert.Panics(t, func() { Get(b[:HeaderLen-1]) })
}
