package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

// TestCleanup: what a killed node left goes by "lispmn cleanup", which touches
// nothing while a node runs, whatever socket that has.
func TestCleanup(t *testing.T) {
	d := multihomeLab(t)
	a := d.hosts["a"]
	startNodes(t, d, func(s site) string { return d.patternConfig(s, marksOn) }, multiA)
	node := d.children["a"]
	file := filepath.Join(t.TempDir(), "node.conf")
	cleanup := func(config string) (string, error) {
		require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
		cmd := a.Self(t.Context(), "cleanup", file)
		cmd.Env = append(os.Environ(), envChild+"=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	rules := ruleList(a)
	out, err := cleanup(node.config)
	require.Error(t, err)
	assert.Contains(t, out, "already running")
	out, err = cleanup(strings.Replace(node.config, node.socket(), node.socket()+"2", 1))
	require.Error(t, err)
	assert.Contains(t, out, "in use")
	assert.Equal(t, rules, ruleList(a))

	node.kill()
	require.Error(t, d.checkClean(multiA), "a killed node leaves rules")
	out, err = cleanup(node.config)
	require.NoError(t, err, out)
	assert.Contains(t, out, "nothing of a node is left")
	require.NoError(t, d.checkClean(multiA))
	assert.Empty(t, a.MustRun("ip", "route", "show", "table", "all", "proto", "245"))
	_, err = cleanup(node.config) // there is nothing to do
	require.NoError(t, err)
	require.Equal(t, daemon.ExitUsage, run(t.Context(), []string{"cleanup", file, "more"}, t.Output(), t.Output()))
}
