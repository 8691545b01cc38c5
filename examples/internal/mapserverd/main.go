package mapserverd

import (
	"context"
	"fmt"
	"io"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

const synopsis = `Usage: lispms [-f FILE] [-d LEVEL] [-http ADDRESS] [-check] [-version]

lispms is a LISP Map-Server and Map-Resolver (RFC 9301). It reads files like
those of an OpenOverlayRouter with operating-mode = MS. SIGINT and SIGTERM end it.
`

// Main is the program lispms. It returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, code, done := daemon.Parse("lispms", "/etc/lispms.conf", synopsis, args, stderr)
	if done {
		return code
	}
	if f.Version {
		fmt.Fprintln(stdout, "lispms", daemon.Version())
		return daemon.ExitOK
	}
	cfg, err := conf.LoadMapServer(ctx, f.File, conf.Options{})
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	daemon.Warn(stderr, cfg.Warnings)
	if f.Check {
		fmt.Fprintf(stdout, "%s: can be used\n", f.File)
		return daemon.ExitOK
	}
	if f.Debug >= 0 {
		cfg.Debug = f.Debug
	}
	log := daemon.Logger(stderr, cfg.Debug)
	ctx, stop := daemon.Signals(ctx, func() { log.Info("nothing to read again: restart to change sites") })
	defer stop()
	page, err := f.Page()
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	defer page.Close()
	s, err := New(ctx, Config{Conf: cfg, Version: daemon.Version(), Logger: log})
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	fmt.Fprintf(stderr, "lispms: serves %d sites; its status: curl -s --unix-socket %s http://x/status\n", len(cfg.Sites), s.Socket())
	page.Serve(ctx, s, stderr, log)
	if err := s.Run(ctx); err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	return daemon.ExitOK
}
