// Package socktest helps tests that make sockets.
package socktest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// Dir returns a directory of the test's own, whose name is short enough for sockets in
// it however long those of the test and of the system's temporary directory are. It is
// removed when the test has ended.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(statusd.TempDir(), "xtrkit-") //nolint:usetesting // that has a long name
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}
