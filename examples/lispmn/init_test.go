package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

// TestInit: by options or by questions, the file is one that check has nothing to
// say about.
func TestInit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	byFlags, byAnswers := filepath.Join(dir, "flags.conf"), filepath.Join(dir, "answers.conf")
	flags := []string{"-eid", "198.51.100.1,2001:db8::1", "-map-server", "192.0.2.1", "-key", "s", "-map-resolver", "192.0.2.2,192.0.2.3", "-interface", "eth0"}
	answers := "198.51.100.1 2001:db8::1\n192.0.2.1\ns\n192.0.2.2, 192.0.2.3\neth0\n"
	run1 := func(stdin string, args ...string) (int, string) {
		var out bytes.Buffer
		return initialise(t.Context(), args, strings.NewReader(stdin), &out, &out), out.String()
	}
	code, out := run1("", append(flags, "-o", byFlags)...)
	require.Equal(t, daemon.ExitOK, code, out)
	code, out = run1(answers, "-o", byAnswers)
	require.Equal(t, daemon.ExitOK, code, out)
	assert.Equal(t, 5, strings.Count(out, ": ")-strings.Count(out, "node with: "), "questions")
	a, err := os.ReadFile(byFlags)
	require.NoError(t, err)
	b, err := os.ReadFile(byAnswers)
	require.NoError(t, err)
	assert.Equal(t, string(a), string(b))
	info, err := os.Stat(byFlags)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	// A wrong answer is asked for again, and nothing else is.
	code, out = run1(strings.Replace("x\n\n"+answers, "\n192.0.2.1\n", "\n192.0.2.300\n192.0.2.1\n", 1), "-o", "-")
	assert.Equal(t, daemon.ExitOK, code, out)
	assert.Contains(t, out, string(a))
	for question, times := range map[string]int{"EIDs of this node": 3, "Address of the Map-Server: ": 2, "Key shared with the Map-Server: ": 1} {
		assert.Equal(t, times, strings.Count(out, question), out)
	}

	// What holds a key is for nobody else, also when it was before.
	require.NoError(t, os.Chmod(byFlags, 0o644))
	code, out = run1("", append(flags, "-o", byFlags, "-force")...)
	require.Equal(t, daemon.ExitOK, code, out)
	info, err = os.Stat(byFlags)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	var said bytes.Buffer
	assert.Equal(t, daemon.ExitOK, run(t.Context(), []string{"check", byFlags}, &said, &said))
	assert.Equal(t, byFlags+": can be used\n", said.String())

	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{append(flags, "-o", byFlags), daemon.ExitFailure, "is there already (replace it with -force"},
		{append(flags, "-o", byFlags, "-force"), daemon.ExitOK, "is written"},
		{append(flags, "-o", "-"), daemon.ExitOK, "eid-prefix = 198.51.100.1/32"},
		{append(flags, "-eid", "x"), daemon.ExitUsage, "lispmn init: 'x' is not an EID-Prefix"},
		{append(flags, "-map-server", "@"), daemon.ExitUsage, "lispmn init: '@' is neither an IP address nor a host name (see"},
		{append(flags, "-map-server", "198.51.100.1"), daemon.ExitUsage, "198.51.100.1/32 holds the Map-Server 198.51.100.1, which has to be outside of it"},
		{append(flags, "-map-server", "ms.invalid", "-o", "-"), daemon.ExitOK, "address     = 'ms.invalid'"},
		{append(flags, "-key", "\xff", "-o", "-"), daemon.ExitUsage, "lispmn init: the key is not text"},
		{append(flags, "-key", "s\x00", "-o", "-"), daemon.ExitUsage, "lispmn init: the key is not text"},
		{append(flags, "-eid", "198.51.100.1,198.51.100.2"), daemon.ExitUsage, "a mobile node has one EID per address family"},
		{flags[2:], daemon.ExitFailure, "no answer (give it as an option"},
		{[]string{"-frob"}, daemon.ExitUsage, "not defined"},
		{[]string{"now"}, daemon.ExitUsage, "unexpected argument"},
		{[]string{"-help"}, daemon.ExitOK, "five questions"},
	} {
		code, out := run1("", tc.args...)
		assert.Equal(t, tc.code, code, tc.args)
		assert.Contains(t, out, tc.says, tc.args)
	}
}
