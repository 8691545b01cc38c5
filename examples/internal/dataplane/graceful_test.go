package dataplane

import (
	"bytes"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/encap/ebpf"
)

// Only packets in the kernel can go on without who controls them.
func TestLinger(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	possible := func(string) error { return nil }
	assert.Zero(t, Linger(false, true, possible, log))
	assert.Equal(t, ebpf.DefaultLinger, Linger(true, true, possible, log))
	assert.Empty(t, said.String())
	assert.Zero(t, Linger(true, false, possible, log))
	assert.Contains(t, said.String(), "packets are forwarded in user space")
	assert.Zero(t, Linger(true, true, func(string) error { return os.ErrPermission }, log))
	assert.Contains(t, said.String(), "graceful is not possible here")
	assert.Contains(t, said.String(), os.ErrPermission.Error())
}
