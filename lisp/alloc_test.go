package lisp

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNoAllocations(t *testing.T) {
	for _, name := range []string{"map-request-v4", "map-request-v6-2itr", "map-reply-2loc", "map-register-sha256-16", "map-notify"} {
		b := vector(t, name)
		m, err := Parse(b)
		require.NoError(t, err)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if m.DecodeFromBytes(b) != nil {
				panic("decode")
			}
		}), "decode %s", name)
		buf := make([]byte, 0, len(b))
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if out, err := m.AppendBinary(buf); err != nil || len(out) != len(b) {
				panic("encode")
			}
		}), "encode %s", name)
	}
	b := vector(t, "data-echo-iid")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		h, err := ParseDataHeader(b)
		if err != nil {
			panic("data header")
		}
		PutDataHeader(b, h)
	}))
}
