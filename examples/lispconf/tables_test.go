package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// says is what a command prints about a state.
func says(t *testing.T, st statusd.Status, args string) (code int, out string) {
	t.Helper()
	_, socket, _ := serve(t, st)
	var text bytes.Buffer
	code = run(t.Context(), append([]string{"-s", socket}, strings.Fields(args)...), &text, &text)
	return code, text.String()
}

// TestRTRSelection: -filter and list mean an RTR's tables too.
func TestRTRSelection(t *testing.T) {
	t.Parallel()
	_, out := says(t, rtrStatus(), "show map-cache -filter 153.16.0.0/16")
	assert.Contains(t, out, "153.16.10.0/24")
	assert.NotContains(t, out, "198.18.0.0/15")
	_, out = says(t, rtrStatus(), "show nat -filter 192.0.2.0/24")
	assert.NotContains(t, out, "198.51.100.7/32")
	_, out = says(t, rtrStatus(), "list eids")
	assert.Equal(t, "198.51.100.7/32\n153.16.10.0/24\n[7]198.18.0.0/15\n", out)
	_, out = says(t, rtrStatus(), "list rlocs")
	assert.Equal(t, "203.0.113.20\n2001:db8::20\n", out)
}

// TestBothStats: of an RTR that is a Map-Server, the counters of both can be seen.
func TestBothStats(t *testing.T) {
	t.Parallel()
	both := rtrStatus()
	both.MapServer = serverStatus().MapServer
	_, out := says(t, both, "show stats")
	assert.Contains(t, out, "\nMessages\n   map-registers-relayed   9\nRefused\n   rate   1\nMessages of the Map-Server\n   map-registers   7\nRefused of the Map-Server\n   wrong key   1\n")
	_, out = says(t, both, "show stats -json")
	var v struct {
		Counters  map[string]uint64
		MapServer struct{ Counters map[string]uint64 }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	assert.Equal(t, map[string]uint64{"map-registers-relayed": 9}, v.Counters)
	assert.Equal(t, map[string]uint64{"map-registers": 7}, v.MapServer.Counters)
}

// TestEmptyJSON: a table without rows is an empty list for a script, as one with rows is
// a list.
func TestEmptyJSON(t *testing.T) {
	t.Parallel()
	node := statusd.Status{Program: "lispmn", Node: &statusd.Node{}}
	server := statusd.Status{Program: "lispms", MapServer: &statusd.MapServer{}}
	rtr := statusd.Status{Program: "lispms", RTR: &statusd.RTR{}}
	for _, tc := range []struct {
		st   statusd.Status
		args string
	}{
		{node, "show map-cache"},
		{node, "show database"},
		{node, "show registrations"},
		{node, "show rlocs"},
		{node, "show interfaces"},
		{node, "show nat"},
		{node, "list eids"},
		{node, "list rlocs"},
		{server, "show sites"},
		{server, "show registrations"},
		{rtr, "show map-cache"},
		{rtr, "show nat"},
	} {
		code, out := says(t, tc.st, tc.args+" -json")
		assert.Equal(t, daemon.ExitOK, code, tc.args)
		assert.Equal(t, "[]\n", out, tc.args)
	}
}

// TestStrangers: what answers at the socket and is no program of ours is said to be that.
func TestStrangers(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"", " stats", " map-cache"} {
		code, out := says(t, statusd.Status{Program: "other"}, "show"+table)
		assert.Equal(t, daemon.ExitFailure, code)
		assert.Contains(t, out, "is neither lispmn nor lispms, or of another version")
	}
}

// TestNumbers: what does not fit is refused, not cut.
func TestNumbers(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-iid 4294967297 add map-cache 198.18.0.0/15": "-iid: 4294967297 is more than an instance can be, 16777214",
		"-iid 16777215 add map-cache 198.18.0.0/15":   "-iid: 16777215 is more",
		"-mark 4294967296 trace 192.0.2.1":            "-mark: a mark has 32 bits",
		"shwo":                                        `there is no command "shwo"; did you mean "show"?`,
	} {
		code, out := says(t, nodeStatus(), args)
		assert.Equal(t, daemon.ExitUsage, code, args)
		assert.Contains(t, out, want, args)
	}
}

// TestCaptureKeeps: a capture that does not begin leaves the file that is there.
func TestCaptureKeeps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "yesterday.pcapng")
	require.NoError(t, os.WriteFile(file, []byte("packets"), 0o600))
	var out bytes.Buffer
	assert.Equal(t, daemon.ExitFailure, run(t.Context(), []string{"-s", filepath.Join(dir, "none.sock"), "capture", file}, &out, &out))
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "packets", string(b))
}
