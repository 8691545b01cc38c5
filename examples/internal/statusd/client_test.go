package statusd

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHangs: who asks a program that takes the connection and says nothing is told so.
func TestHangs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "s")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer ln.Close()
	c := NewClient(path)
	c.patience = time.Millisecond
	_, err = c.Status(t.Context())
	assert.EqualError(t, err, "what runs at "+path+" does not answer within 1ms")
}
