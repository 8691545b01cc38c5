package daemon

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFullDisk: what the log file has no room for is not lost.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l, err := NewLog(&out, "/dev/full", LogText, 1)
	require.NoError(t, err)
	l.Info("hello")
	assert.Contains(t, out.String(), "msg=hello")
	require.NoError(t, l.Set("", 0))
}
