package node

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

// Only packets in the kernel can go on without the node, which does not withdraw then.
func TestLingers(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	assert.Zero(t, lingers(&conf.Node{}, true, log))
	assert.Equal(t, ebpf.DefaultLinger, lingers(&conf.Node{Graceful: true}, true, log))
	assert.Empty(t, said.String())
	assert.Zero(t, lingers(&conf.Node{Graceful: true}, false, log))
	assert.Contains(t, said.String(), "packets are forwarded in user space")
	assert.Negative(t, withdrawal(time.Minute))
	assert.Zero(t, withdrawal(0))
}
