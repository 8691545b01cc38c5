// Package daemon is what the command lines of lispmn and lispms share: flags,
// version, log, problems of a configuration file, signals and exit codes.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailure = 1 // something did not work
	ExitUsage   = 2 // the command line or the configuration file is wrong
)

// Version tells where the running program comes from, by its build information.
func Version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := bi.Main.Version
	if v == "" {
		v = "(devel)"
	}
	for _, s := range bi.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			v += " " + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			v += " modified"
		}
	}
	return v + " " + bi.GoVersion
}

// Warn prints what a configuration file asks for and does not get.
func Warn(w io.Writer, warnings []conf.Problem) {
	for _, p := range warnings {
		fmt.Fprintf(w, "%s (warning)\n", p)
	}
}

// Failed prints an error and returns the exit code for it.
func Failed(w io.Writer, name string, err error) int {
	if bad, ok := errors.AsType[*conf.Error](err); ok {
		fmt.Fprintln(w, bad)
		if bad.Passing {
			return ExitFailure
		}
		return ExitUsage
	}
	fmt.Fprintf(w, "%s: %v\n", name, err)
	if _, ok := errors.AsType[usageError](err); ok || errors.Is(err, conf.ErrFile) {
		return ExitUsage
	}
	return ExitFailure
}

// usageError is an error of the command line.
type usageError struct{ error }

// Signals returns a context that ends with SIGINT or SIGTERM, and has reload called for
// every SIGHUP until stop.
func Signals(ctx context.Context, reload func(context.Context)) (_ context.Context, stop func()) {
	ctx, cancel := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hup:
				reload(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(hup)
		cancel()
	}
}
