package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// envChild marks processes that the demo starts: a test binary, which is this
// program then, takes it as a sign to be lispmn.
const envChild = "XTRKIT_LISPMN_CHILD"

// stopLimit is how long a program may take to end after SIGTERM.
const stopLimit = 10 * time.Second

// child is a program in a host of the demo: lispmn or a Map-Server.
type child struct {
	demo   *demoLab
	name   string
	args   []string // before -f FILE
	config string

	cmd    *netlab.Cmd
	exited chan struct{} // closed when cmd has ended
	err    error         // of cmd; to be read after exited
	cancel context.CancelFunc
}

func (c *child) file(ext string) string { return filepath.Join(c.demo.dir, c.name+ext) }
func (c *child) socket() string         { return c.file(".sock") }
func (c *child) client() *statusd.Client {
	return statusd.NewClient(c.socket())
}

// start writes the configuration and starts the program. Its events come to the
// demo's log from then on.
func (d *demoLab) start(ctx context.Context, name, config string, args ...string) (*child, error) {
	c := &child{demo: d, name: name, args: args, config: config}
	d.children[name] = c
	return c, c.start(ctx)
}

func (c *child) start(ctx context.Context) error {
	if err := os.WriteFile(c.file(".conf"), []byte(c.config), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(c.file(".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// The program lives as long as the lab, not as the step that starts it.
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.cmd = c.demo.hosts[c.name].Self(ctx, append(c.args, "-f", c.file(".conf"))...)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.Env = append(os.Environ(), envChild+"=1")
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	exited := make(chan struct{})
	c.exited = exited
	go func() {
		c.err = c.cmd.Wait()
		close(exited)
	}()
	go c.follow(ctx, exited)
	return nil
}

// follow takes the events of the program until it ends.
func (c *child) follow(ctx context.Context, exited <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seq uint64
	for {
		// The server is not there yet when the program has just been started.
		_ = c.client().Events(ctx, seq, func(e statusd.Event) error {
			seq = e.Seq
			c.demo.log.add(c.name, e)
			return nil
		})
		select {
		case <-exited:
			return
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ready waits until the program answers, and returns its status.
func (c *child) ready(ctx context.Context) (statusd.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		st, err := c.client().Status(ctx)
		if err == nil {
			return st, nil
		}
		select {
		case <-c.exited:
			return st, fmt.Errorf("%s ended: %w: %s", c.name, errOr(c.err), c.logTail(3))
		case <-ctx.Done():
			return st, fmt.Errorf("%s does not answer: %w", c.name, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

var errEnded = errors.New("exit status 0")

func errOr(err error) error {
	if err == nil {
		return errEnded
	}
	return err
}

// ended reports whether the program has ended.
func (c *child) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// commandLine is what starts the program by hand.
func (c *child) commandLine() string {
	return strings.Join(c.cmd.Args, " ")
}

// stop ends the program as an operator would, and waits for its end.
func (c *child) stop() error {
	defer c.cancel()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	select {
	case <-c.exited:
	case <-time.After(stopLimit):
		return fmt.Errorf("%s has not ended %v after SIGTERM", c.name, stopLimit)
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w: %s", c.name, c.err, c.logTail(3))
	}
	return nil
}

// kill ends the program without a chance to clean up.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.exited
	c.cancel()
}

// forget stops following the program; the lab ends it.
func (c *child) forget() {
	if c.cancel != nil {
		c.cancel()
	}
}

// logTail returns the last lines of the program's log.
func (c *child) logTail(lines int) string {
	b, err := os.ReadFile(c.file(".log"))
	if err != nil {
		return ""
	}
	ls := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(ls[max(0, len(ls)-lines):], "\n")
}

// nodeConfig is the configuration of a mobile node that is reached at locators of
// one family.
func (d *demoLab) nodeConfig(s site, family int) string {
	priority := [2]int{-1, -1}
	priority[family] = 1
	var b strings.Builder
	fmt.Fprintf(&b, "# host %s of lispmn demo\n", s.name)
	fmt.Fprintf(&b, "debug = 1\ncontrol-socket = %q\n", filepath.Join(d.dir, s.name+".sock"))
	fmt.Fprintf(&b, "state-file = %q\n", filepath.Join(d.dir, s.name+".state"))
	fmt.Fprintf(&b, "map-resolver = { %s }\n", siteMS.rloc[family])
	fmt.Fprintf(&b, "map-server {\n    address = %s\n    key-type = 2    # HMAC-SHA-256-128\n    key = %q\n}\n", siteMS.rloc[family], s.key)
	for _, eid := range s.eid {
		fmt.Fprintf(&b, "database-mapping {\n    eid-prefix = %s\n    interface = eth0\n    priority_v4 = %d\n    priority_v6 = %d\n}\n", eid, priority[ipv4], priority[ipv6])
	}
	return b.String()
}

// mapServerConfig is the configuration of the Map-Server.
func (d *demoLab) mapServerConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# host ms of lispmn demo\noperating-mode = MS\ndebug = 1\ncontrol-socket = %q\n", filepath.Join(d.dir, siteMS.name+".sock"))
	for _, s := range []site{siteA, siteB} {
		for _, eid := range s.eid {
			fmt.Fprintf(&b, "lisp-site {\n    name = %s\n    eid-prefix = %s\n    key-type = 2\n    key = %q\n}\n", s.registered, eid, s.key)
		}
	}
	return b.String()
}
