package mapserverd

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/rtrd"
)

var command = daemon.Command{Name: "lispms", File: "/etc/lispms.conf", Synopsis: `Usage: lispms [-f FILE] [options]         run a Map-Server
       lispms check [options] [FILE]      say what is wrong with a configuration

lispms is a LISP Map-Server and Map-Resolver (RFC 9301). It reads files like
those of an OpenOverlayRouter with operating-mode = MS, or RTR, which makes it an
RTR for nodes behind NATs (draft-ermagan-lisp-nat-traversal-19). SIGHUP has it open its log
file anew, SIGINT and SIGTERM end it. lispconf shows what it does.
`}

// Main is the program lispms. It returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	parse := command.Parse
	check := len(args) > 0 && args[0] == "check"
	if check {
		args, parse = args[1:], command.CheckArgs
	}
	f, code, done := parse(args, stderr)
	if done {
		return code
	}
	if f.Version {
		fmt.Fprintln(stdout, "lispms", daemon.Version())
		return daemon.ExitOK
	}
	cfg, err := conf.LoadMapServer(ctx, f.File, conf.Options{Override: f.Settings})
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	daemon.Warn(stderr, cfg.Warnings)
	if check {
		fmt.Fprintf(stdout, "%s: can be used\n", f.File)
		return daemon.ExitOK
	}
	log, err := daemon.NewLog(stderr, cfg.LogFile, f.Log, cfg.Debug)
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	ctx, stop := daemon.Signals(ctx, func(context.Context) {
		if err := log.Set(cfg.LogFile, cfg.Debug); err != nil {
			fmt.Fprintf(stderr, "lispms: %v\n", err)
		}
		log.Info("sites are not read again: restart to change them")
	})
	defer stop()
	page, err := f.Page()
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	defer page.Close()
	s, what, err := newProgram(ctx, cfg, log.Logger)
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	fmt.Fprintf(stderr, "lispms: %s; see lispconf -s %s show\n", what, s.Socket())
	if err := daemon.DropCapabilities(); err != nil {
		log.Warn("goes on with all capabilities", "err", err)
	}
	page.Serve(ctx, s, stderr, log.Logger)
	defer daemon.Service(ctx, s, log.Logger)()
	if err := s.Run(ctx); err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	return daemon.ExitOK
}

// program is what lispms is: a Map-Server or an RTR.
type program interface {
	daemon.Program
	Socket() string
	Run(ctx context.Context) error
}

// newProgram makes what the file says.
func newProgram(ctx context.Context, cfg *conf.MapServerNode, log *slog.Logger) (p program, what string, err error) {
	if cfg.RTR != nil {
		p, err = rtrd.New(ctx, rtrd.Config{Conf: cfg, Version: daemon.Version(), Logger: log})
		return p, fmt.Sprintf("relays for nodes behind NATs, for %d Map-Servers", len(cfg.RTR.MapServers)), err
	}
	p, err = New(ctx, Config{Conf: cfg, Version: daemon.Version(), Logger: log})
	return p, fmt.Sprintf("serves %d sites", len(cfg.Sites)), err
}
