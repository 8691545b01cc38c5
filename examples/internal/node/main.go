package node

import (
	"context"
	"fmt"
	"io"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
)

const synopsis = `Usage: lispmn [-f FILE] [-d LEVEL] [-http ADDRESS] [-check] [-version]
       lispmn demo [-json] [-keep] [-capture DIR]

lispmn makes this host a LISP mobile node (RFC 9300, RFC 9301): it keeps its
address, the EID, wherever it is. It reads the files of LISPmob (lispd.conf) and
of OpenOverlayRouter (oor.conf), and follows its interfaces. SIGHUP puts back
routes and rules that others removed, SIGINT and SIGTERM withdraw its EIDs and
remove its device and routes.

lispmn demo shows two such nodes talk, in a network of its own.
`

// Main is the program lispmn without the demo. It returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, code, done := daemon.Parse("lispmn", "/etc/lispd.conf", synopsis, args, stderr)
	if done {
		return code
	}
	if f.Version {
		fmt.Fprintln(stdout, "lispmn", daemon.Version())
		return daemon.ExitOK
	}
	cfg, err := conf.LoadNode(ctx, f.File, conf.Options{})
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
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
	// Before New: a signal while it sets things up must not leave them behind.
	made := make(chan *Node, 1)
	ctx, stop := daemon.Signals(ctx, func() {
		n := <-made
		made <- n
		if err := n.Reload(); err != nil {
			log.Error("not all could be read again", "err", err)
		}
	})
	defer stop()
	page, err := f.Page()
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	defer page.Close()
	n, err := New(ctx, Config{Conf: cfg, Version: daemon.Version(), Logger: log})
	if err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	made <- n
	fmt.Fprintf(stderr, "lispmn: %s is up with %v; its status: curl -s --unix-socket %s http://x/status\n", n.device.Name(), n.eids, n.Socket())
	page.Serve(ctx, n, stderr, log)
	if err := n.Run(ctx); err != nil {
		return daemon.Failed(stderr, "lispmn", err)
	}
	return daemon.ExitOK
}
