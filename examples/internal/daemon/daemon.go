// Package daemon is what the command lines of lispmn and lispms share: flags,
// version, log, problems of a configuration file, signals and exit codes.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
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

// Flags are the options on the command line.
type Flags struct {
	File    string
	Debug   int // -1: as in the file
	Check   bool
	Version bool
	HTTP    string // where the status page is served; empty: nowhere
	Pprof   bool   // with Go's profiles
}

// Parse reads the command line. done says that there is nothing left to do but
// to exit with code.
func Parse(name, defaultFile, synopsis string, args []string, stderr io.Writer) (f Flags, code int, done bool) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&f.File, "f", defaultFile, "read the configuration from `FILE`")
	fs.IntVar(&f.Debug, "d", -1, "level of detail of the log, 0 to 3; overrides debug in the file")
	fs.BoolVar(&f.Check, "check", false, "read the configuration, say what is wrong with it, and exit")
	fs.BoolVar(&f.Version, "version", false, "print the version and exit")
	fs.StringVar(&f.HTTP, "http", "", "serve a status page, /metrics and /healthz at `ADDRESS`, such as 127.0.0.1:8080")
	fs.BoolVar(&f.Pprof, "pprof", false, "serve Go's profiles there too")
	fs.Usage = func() {
		fmt.Fprint(stderr, synopsis, "\nOptions:\n")
		fs.PrintDefaults()
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return f, ExitOK, true
	case err != nil:
		return f, ExitUsage, true
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q (see %s -help)\n", name, fs.Arg(0), name)
		return f, ExitUsage, true
	}
	return f, ExitOK, false
}

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

// Logger writes to w what a debug level asks for.
func Logger(w io.Writer, level int) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: conf.LogLevel(level)}))
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
		return ExitUsage
	}
	fmt.Fprintf(w, "%s: %v\n", name, err)
	return ExitFailure
}

// Signals returns a context that ends with SIGINT or SIGTERM, and has reload called for
// every SIGHUP until stop.
func Signals(ctx context.Context, reload func()) (_ context.Context, stop func()) {
	ctx, cancel := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hup:
				reload()
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
