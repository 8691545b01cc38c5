package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
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
		{"", Flags{File: "/etc/x.conf", Debug: -1}, ExitOK, false, ""},
		{"-f y.conf -d 2", Flags{File: "y.conf", Debug: 2}, ExitOK, false, ""},
		{"-check", Flags{File: "/etc/x.conf", Debug: -1, Check: true}, ExitOK, false, ""},
		{"-version", Flags{File: "/etc/x.conf", Debug: -1, Version: true}, ExitOK, false, ""},
		{"-help", Flags{File: "/etc/x.conf", Debug: -1}, ExitOK, true, "Usage: x\n\nOptions:\n"},
		{"-x", Flags{File: "/etc/x.conf", Debug: -1}, ExitUsage, true, "not defined"},
		{"dmeo", Flags{File: "/etc/x.conf", Debug: -1}, ExitUsage, true, `unexpected argument "dmeo"`},
	} {
		var out bytes.Buffer
		f, code, done := Parse("x", "/etc/x.conf", "Usage: x\n", strings.Fields(tc.args), &out)
		assert.Equal(t, tc.want, f, tc.args)
		assert.Equal(t, tc.code, code, tc.args)
		assert.Equal(t, tc.done, done, tc.args)
		assert.Contains(t, out.String(), tc.says, tc.args)
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	assert.Equal(t, ExitFailure, Failed(&out, "x", errors.New("no")))
	bad := &conf.Error{Problems: []conf.Problem{{File: "f", Line: 3, Text: "wrong"}}}
	assert.Equal(t, ExitUsage, Failed(&out, "x", fmt.Errorf("load: %w", bad)))
	Warn(&out, bad.Problems)
	assert.Equal(t, "x: no\nf:3: wrong\nf:3: wrong (warning)\n", out.String())
	Logger(&out, 0).Info("hidden")
	Logger(&out, 1).Info("shown")
	assert.NotContains(t, out.String(), "hidden")
	assert.Contains(t, out.String(), "shown")
	assert.NotEmpty(t, Version())
}

func TestSignals(t *testing.T) {
	reloaded := make(chan struct{})
	ctx, stop := Signals(context.Background(), func() { reloaded <- struct{}{} })
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGHUP))
	<-reloaded
	require.NoError(t, ctx.Err())
	require.NoError(t, self.Signal(syscall.SIGTERM))
	<-ctx.Done()
}
