package node

import (
	"context"
	"fmt"
	"io"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

// command is the command line of lispmn.
var command = daemon.Command{Name: "lispmn", File: "/etc/lispd.conf", Node: true, Commands: []string{"check", "init", "cleanup", "top", "demo"}, Synopsis: `Usage: lispmn [-f FILE] [options]         run a node
       lispmn check [options] [FILE]      say what is wrong with a configuration
       lispmn init [options]              write a configuration
       lispmn cleanup [options] [FILE]    remove what a killed or graceful node left
       lispmn top [-socket SOCKET]
       lispmn demo [options]              two nodes and a Map-Server in a network of their own

lispmn makes this host a LISP mobile node, an xTR or a PxTR (RFC 9300, RFC 9301,
RFC 6832). It reads the files of LISPmob (lispd.conf) and of OpenOverlayRouter
(oor.conf), and follows its interfaces. SIGHUP has it read its file again, SIGINT
and SIGTERM withdraw its EIDs and remove its device and routes, unless it is
-graceful: then packets go on, and the next start takes over. lispconf shows what
it does.
`}

// load reads the file that the command line names.
func load(f daemon.Flags) func(context.Context) (*conf.Node, error) {
	return func(ctx context.Context) (*conf.Node, error) {
		return conf.LoadNode(ctx, f.File, conf.Options{Override: f.Settings})
	}
}

// Check is "lispmn check". It returns the exit code.
func Check(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, code, done := command.CheckArgs(args, stdout, stderr)
	if done {
		return code
	}
	cfg, err := load(f)(ctx)
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	daemon.Warn(stderr, cfg.Warnings)
	fmt.Fprintf(stdout, "%s: can be used\n", f.File)
	return daemon.ExitOK
}

// Main is the program lispmn without its other commands. It returns the exit
// code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, code, done := command.Parse(args, stdout, stderr)
	if done {
		return code
	}
	if f.Version {
		fmt.Fprintln(stdout, "lispmn", daemon.Version())
		return daemon.ExitOK
	}
	cfg, err := load(f)(ctx)
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	daemon.Warn(stderr, cfg.Warnings)
	log, err := daemon.NewLog(stderr, cfg.LogFile, f.Log, cfg.Debug)
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	// Before New: a signal while it sets things up must not leave them behind.
	made := make(chan *Node, 1)
	ctx, stop := daemon.Signals(ctx, func(ctx context.Context) {
		n := <-made
		made <- n
		defer daemon.Reloading(log.Logger)()
		r, err := n.Reload(ctx)
		if err != nil {
			fmt.Fprintf(stderr, "lispmn: all stays as it was: %v\n", err)
			return
		}
		fmt.Fprint(stderr, r)
	})
	defer stop()
	page, err := f.Page()
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	defer page.Close()
	n, err := New(ctx, Config{Conf: cfg, Load: load(f), Version: daemon.Version(), Logger: log.Logger, SetLog: log.Set})
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	made <- n
	fmt.Fprintf(stderr, "lispmn: %s is up with %v; see lispconf -s %s show\n", n.device.Name(), n.EIDs(), n.Socket())
	if err := daemon.DropCapabilities(); err != nil {
		log.Warn("goes on with all capabilities", "err", err)
	}
	page.Serve(ctx, n, stderr, log.Logger)
	defer daemon.Service(ctx, n, log.Logger)()
	if err := n.Run(ctx); err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	return daemon.ExitOK
}
