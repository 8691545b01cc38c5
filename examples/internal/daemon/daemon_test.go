package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args string
		want Flags
		code int
		done bool
		says string
	}{
		{"", Flags{File: "/etc/x.conf", Log: LogAuto}, ExitOK, false, ""},
		{"-f y.conf -d 2 -n", Flags{File: "y.conf", Log: LogAuto, Settings: []conf.Setting{{Name: "debug", Values: []string{"2"}}}}, ExitOK, false, ""},
		{"-m 192.0.2.1,192.0.2.2 -s 192.0.2.3 -e 192.0.2.4 -p 5000 -r 1 -a 6", Flags{File: "/etc/x.conf", Log: LogAuto, Settings: []conf.Setting{
			{Name: "map-resolver", Values: []string{"192.0.2.1", "192.0.2.2"}},
			{Name: conf.OverrideMapServer, Values: []string{"192.0.2.3"}},
			{Name: conf.OverrideProxyETR, Values: []string{"192.0.2.4"}},
			{Name: "control-port", Values: []string{"5000"}},
			{Name: "map-request-retries", Values: []string{"1"}},
			{Name: "rloc-family", Values: []string{"6"}},
		}}, ExitOK, false, ""},
		{"-version", Flags{File: "/etc/x.conf", Version: true, Log: LogAuto}, ExitOK, false, ""},
		{"-help", Flags{File: "/etc/x.conf", Log: LogAuto}, ExitOK, true, "Usage: x\n\nOptions (they override the file):\n"},
		{"-x", Flags{File: "/etc/x.conf", Log: LogAuto}, ExitUsage, true, "x: flag provided but not defined: -x (see x -help)\n"},
		{"-log text", Flags{File: "/etc/x.conf", Log: LogText}, ExitOK, false, ""},
		{"-log yaml", Flags{File: "/etc/x.conf", Log: LogAuto}, ExitUsage, true, `"yaml" for flag -log: it is auto, text or json`},
		{"dmeo", Flags{File: "/etc/x.conf", Log: LogAuto}, ExitUsage, true, "x: unexpected argument \"dmeo\"; did you mean \"demo\"? (see x -help)\n"},
		{"node.conf", Flags{File: "/etc/x.conf", Log: LogAuto}, ExitUsage, true, "x: unexpected argument \"node.conf\" (see x -help)\n"},
	} {
		var out bytes.Buffer
		c := Command{Name: "x", File: "/etc/x.conf", Synopsis: "Usage: x\n", Commands: []string{"check", "demo"}, Node: true}
		f, code, done := c.Parse(strings.Fields(tc.args), &out, &out)
		assert.Equal(t, tc.want, f, tc.args)
		assert.Equal(t, tc.code, code, tc.args)
		assert.Equal(t, tc.done, done, tc.args)
		assert.Contains(t, out.String(), tc.says, tc.args)
	}
	c := Command{Name: "x", File: "/etc/x.conf"}
	for args, want := range map[string]string{"": "/etc/x.conf", "y.conf": "y.conf", "-f y.conf": "y.conf", "-d=1 y.conf": "y.conf"} {
		f, _, done := c.CheckArgs(strings.Fields(args), io.Discard, io.Discard)
		assert.False(t, done)
		assert.Equal(t, want, f.File, args)
	}
	_, code, done := c.Parse([]string{"-m", "192.0.2.1"}, io.Discard, io.Discard)
	assert.True(t, done, "not for a Map-Server")
	assert.Equal(t, ExitUsage, code)
	f, _, done := c.Parse([]string{"-dataplane", "user"}, io.Discard, io.Discard)
	assert.False(t, done, "an RTR forwards")
	assert.Equal(t, []conf.Setting{{Name: "dataplane", Values: []string{"user"}}}, f.Settings)
}

func TestLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "log")
	l, err := NewLog(&out, "", LogText, 0)
	require.NoError(t, err)
	l.Info("hidden")
	require.NoError(t, l.Set("", 1))
	l.Info("shown")
	require.NoError(t, l.Set(path, 1))
	l.Info("kept")
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, l.Set(path, 1))
	l.Info("anew")
	require.ErrorContains(t, l.Set(filepath.Join(path, "below-a-file"), 1), "log-file: ")
	l.Info("still there")
	assert.NotContains(t, out.String(), "hidden")
	assert.Contains(t, out.String(), "shown")
	for file, want := range map[string][]string{path: {"anew", "still there"}, path + ".1": {"kept"}} {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, len(want), strings.Count(string(b), "\n"))
		for _, w := range want {
			assert.Contains(t, string(b), w)
		}
	}
	require.NoError(t, l.Set("", 0))
}

func TestLogForms(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for form, want := range map[string]string{LogAuto: `"msg":"hello"`, LogJSON: `"msg":"hello"`, LogText: "msg=hello"} {
		out.Reset()
		l, err := NewLog(&out, "", form, 1)
		require.NoError(t, err)
		l.Info("hello")
		assert.Contains(t, out.String(), want, form)
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	assert.Equal(t, ExitFailure, Failed(&out, "x", errors.New("no")))
	bad := &conf.Error{Problems: []conf.Problem{{File: "f", Line: 3, Text: "wrong"}}}
	assert.Equal(t, ExitUsage, Failed(&out, "x", fmt.Errorf("load: %w", bad)))
	Warn(&out, bad.Problems)
	// What may be right the next time is no mistake, after which nobody tries again.
	assert.Equal(t, ExitFailure, Failed(io.Discard, "x", &conf.Error{Passing: true}))
	_, err := conf.LoadNode(t.Context(), filepath.Join(t.TempDir(), "none"), conf.Options{})
	assert.Equal(t, ExitUsage, Failed(io.Discard, "x", err))
	assert.Equal(t, "x: no\nf:3: wrong\nf:3: wrong (warning)\n", out.String())
	assert.NotEmpty(t, Version())
}

func TestSignals(t *testing.T) {
	reloaded := make(chan struct{})
	ctx, stop := Signals(context.Background(), func(context.Context) { reloaded <- struct{}{} })
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGHUP))
	<-reloaded
	require.NoError(t, ctx.Err())
	require.NoError(t, self.Signal(syscall.SIGTERM))
	<-ctx.Done()
}
