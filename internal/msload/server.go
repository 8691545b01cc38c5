package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/lisp"
)

// serve is the server, until standard input ends.
func serve(ctx context.Context, o *options, stdin io.Reader, stdout io.Writer) error {
	runtime.GOMAXPROCS(o.workers)
	keys := make([]lisp.Key, 0, len(algorithms))
	for _, alg := range algorithms {
		keys = append(keys, lisp.Key{ID: uint8(o.keyID), Algorithm: alg, Secret: []byte(o.key)})
	}
	core, err := mapserver.New(mapserver.Config{
		Sites: []mapserver.Site{{Name: "load", Keys: keys, Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true},
		}}},
		// One address makes all the load.
		RatePerSource: -1, RateTotal: -1, EventBuffer: -1, MaxRegistrations: -1,
	})
	if err != nil {
		return err
	}
	conn, err := control.Listen(ctx, control.ListenConfig{
		Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Sockets: o.workers,
	})
	if err != nil {
		return err
	}
	runner, err := control.NewRunner(control.RunnerConfig{
		Conn: conn, Cores: map[control.Role]control.Core{control.RoleMapServer: core},
		NewWorker: func() control.Worker { return core.NewWorker() },
	})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	fmt.Fprintln(stdout, conn.LocalAddrs()[0])
	return runner.Run(ctx)
}

// child is our server in a process of its own. A nil child is somebody else's.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  netip.AddrPort
}

func startChild(ctx context.Context, o *options) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, exe, "-serve",
		"-workers", strconv.Itoa(o.workers), "-key", o.key, "-key-id", strconv.FormatUint(uint64(o.keyID), 10))}
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		c.addr, err = netip.ParseAddrPort(strings.TrimSpace(line))
	}
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("server did not start: %w", err)
	}
	return c, nil
}

func (c *child) stop() {
	_ = c.stdin.Close()
	_ = c.cmd.Wait()
}
