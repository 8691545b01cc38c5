package mapserverd

import (
	"context"
	"fmt"
	"io"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

var command = daemon.Command{Name: "lispms", File: "/etc/lispms.conf", Synopsis: `Usage: lispms [-f FILE] [options]         run a Map-Server
       lispms check [options] [FILE]      say what is wrong with a configuration

lispms is a LISP Map-Server and Map-Resolver (RFC 9301). It reads files like
those of an OpenOverlayRouter with operating-mode = MS, or RTR, which makes it an
RTR for nodes behind NATs (draft-ermagan-lisp-nat-traversal-19), and with sites both.
SIGHUP has it open its log file anew, SIGINT and SIGTERM end it. lispconf shows what
it does.
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
	s, err := New(ctx, Config{Conf: cfg, Version: daemon.Version(), Logger: log.Logger})
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	fmt.Fprintf(stderr, "lispms: %s; see lispconf -s %s show\n", s.what(), s.Socket())
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

// what says what the server does, for the one who has started it.
func (s *Server) what() string {
	sites := fmt.Sprintf("serves %d sites", len(s.cfg.Conf.Sites))
	if s.rtr == nil {
		return sites
	}
	relays := fmt.Sprintf("relays for nodes behind NATs, for %d Map-Servers", len(s.cfg.Conf.RTR.MapServers))
	switch {
	case s.core == nil:
		return relays
	case len(s.cfg.Conf.RTR.MapServers) == 0:
		return sites + ", and relays for their nodes behind NATs"
	}
	return sites + ", and " + relays + " and itself"
}
