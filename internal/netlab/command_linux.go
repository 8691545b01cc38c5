package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cmd is an exec.Cmd whose program runs in a host. Its fields may be set as those
// of an exec.Cmd until it is started.
type Cmd struct {
	*exec.Cmd
	host *Host
	once sync.Once
	err  error
}

// Command prepares a program to run in the host. It is killed when ctx or the
// lab's context ends, at Lab.Close, and when this process ends in whatever way.
// Programs are found in PATH as by exec.Command.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(h.lab.ctx, cancel)
	c := &Cmd{Cmd: exec.CommandContext(ctx, name, args...), host: h}
	// Grandchildren that hold the output open must not hold up Wait.
	c.WaitDelay = 2 * time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return c
}

// Start starts the program.
func (c *Cmd) Start() error {
	h := c.host
	if h.ns < 0 {
		return h.dead()
	}
	// Started from a thread that stays: the death signal comes when the thread
	// that started the program ends, not the process.
	result := make(chan error, 1)
	select {
	case h.starts <- func() { result <- c.Cmd.Start() }:
	case <-h.done:
		return h.dead()
	case <-h.lab.ctx.Done():
		return fmt.Errorf("netlab: %s: %s: %w", h.name, c.Path, h.lab.ctx.Err())
	}
	if err := <-result; err != nil {
		return fmt.Errorf("netlab: %s: %w", h.name, err)
	}
	h.lab.atClose(func() error {
		_ = c.Process.Kill()
		_ = c.Wait()
		return nil
	})
	return nil
}

// Wait waits for the program to end, as exec.Cmd.Wait does. It may be called more
// than once, and from several goroutines.
func (c *Cmd) Wait() error {
	c.once.Do(func() { c.err = c.Cmd.Wait() })
	return c.err
}

// Run starts the program and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out strings.Builder
	c.Stdout = &out
	err := c.Run()
	return []byte(out.String()), err
}

// CombinedOutput runs the program and returns its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return []byte(out.String()), err
}

// Self prepares this program itself, /proc/self/exe, to run in the host with
// other arguments, as Command does.
func (h *Host) Self(ctx context.Context, args ...string) *Cmd {
	c := h.Command(ctx, "/proc/self/exe", args...)
	if exe, err := os.Executable(); err == nil {
		c.Args[0] = exe
	}
	return c
}

// Run runs a program in the host and returns what it printed. The error of a
// failed program has its output.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := h.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %s %s: %w\n%s", h.name, name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// MustRun is Run whose error counts as one in building: it fails the test.
func (h *Host) MustRun(name string, args ...string) string {
	if h.lab.tb != nil {
		h.lab.tb.Helper()
	}
	var out string
	h.lab.build("run", func() (err error) {
		out, err = h.Run(h.lab.ctx, name, args...)
		return err
	})
	return out
}

// ErrNoProgram is wrapped by errors of programs that are not installed.
var ErrNoProgram = exec.ErrNotFound

// RequireProgram skips the test if a program is not installed. Tests that can do
// without a program should.
func RequireProgram(tb TB, name string) {
	tb.Helper()
	if _, err := exec.LookPath(name); errors.Is(err, ErrNoProgram) {
		tb.Skipf("needs the program %s: %v", name, err)
	}
}
