package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/socktest"
)

// TestSweepDead: what a killed demo left goes, what a running one uses stays.
func TestSweepDead(t *testing.T) {
	tmp := socktest.Dir(t)
	t.Setenv("TMPDIR", tmp)
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	dead := filepath.Join(tmp, fmt.Sprintf("%s%d-1", dirPrefix, gone.Process.Pid))
	alive := filepath.Join(tmp, fmt.Sprintf("%s%d-1", dirPrefix, os.Getpid()))
	other := filepath.Join(tmp, dirPrefix+"notes")
	for _, d := range []string{dead, alive, other} {
		require.NoError(t, os.MkdirAll(filepath.Join(d, "a.conf"), 0o700))
	}
	sweepDead()
	require.NoDirExists(t, dead)
	require.DirExists(t, alive)
	require.DirExists(t, other)
}
