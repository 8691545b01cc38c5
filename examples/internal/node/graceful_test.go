package node

import (
	"bytes"
	"log/slog"
	"os"
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
	possible := func(string) error { return nil }
	assert.Zero(t, lingers(&conf.Node{}, true, possible, log))
	assert.Equal(t, ebpf.DefaultLinger, lingers(&conf.Node{Graceful: true}, true, possible, log))
	assert.Empty(t, said.String())
	assert.Zero(t, lingers(&conf.Node{Graceful: true}, false, possible, log))
	assert.Contains(t, said.String(), "packets are forwarded in user space")
	assert.Zero(t, lingers(&conf.Node{Graceful: true}, true, func(string) error { return os.ErrPermission }, log))
	assert.Contains(t, said.String(), "graceful is not possible here")
	assert.Contains(t, said.String(), os.ErrPermission.Error())
	assert.Negative(t, withdrawal(time.Minute))
	assert.Zero(t, withdrawal(0))
}
