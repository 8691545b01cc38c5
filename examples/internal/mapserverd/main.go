package mapserverd

import (
	"context"
	"fmt"
	"io"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

var command = daemon.Command{Name: "lispms", File: "/etc/lispms.conf", Commands: []string{"check", "cleanup"}, Synopsis: `Usage: lispms [-f FILE] [options]         run a Map-Server
       lispms check [options] [FILE]      say what is wrong with a configuration
       lispms cleanup                     end what a killed or graceful RTR left

lispms is a LISP Map-Server and Map-Resolver (RFC 9301). It reads files like
those of an OpenOverlayRouter with operating-mode = MS, or RTR, which makes it an
RTR for nodes behind NATs (draft-ermagan-lisp-nat-traversal-19), and with sites both.
SIGHUP has it read its file again, and what is registered stays; SIGINT and SIGTERM
end it, unless it is a -graceful RTR: then packets go on, and the next start takes
over. lispconf shows what it does.
`}

// Main is the program lispms. It returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "cleanup" {
		return cleanup(ctx, args[1:], stdout, stderr)
	}
	parse := command.Parse
	check := len(args) > 0 && args[0] == "check"
	if check {
		args, parse = args[1:], command.CheckArgs
	}
	f, code, done := parse(args, stdout, stderr)
	if done {
		return code
	}
	if f.Version {
		fmt.Fprintln(stdout, "lispms", daemon.Version())
		return daemon.ExitOK
	}
	load := func(ctx context.Context) (*conf.MapServerNode, error) {
		return conf.LoadMapServer(ctx, f.File, conf.Options{Override: f.Settings})
	}
	cfg, err := load(ctx)
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
	made := make(chan *Server, 1)
	ctx, stop := daemon.Signals(ctx, func(ctx context.Context) {
		s := <-made
		made <- s
		defer daemon.Reloading(log.Logger)()
		r, err := s.Reload(ctx)
		if err != nil {
			fmt.Fprintf(stderr, "lispms: all stays as it was: %v\n", err)
			return
		}
		fmt.Fprint(stderr, r)
	})
	defer stop()
	page, err := f.Page()
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	defer page.Close()
	s, err := New(ctx, Config{Conf: cfg, Load: load, Version: daemon.Version(), Logger: log.Logger, SetLog: log.Set})
	if err != nil {
		return daemon.Failed(stderr, "lispms", err)
	}
	made <- s
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
