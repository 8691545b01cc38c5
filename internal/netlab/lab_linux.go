package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Lab is a set of hosts and the links between them. Close removes it all. Its
// methods may be called from several goroutines.
type Lab struct {
	// ctx is the lab's life: programs started in it and waits for the kernel end
	// when it does.
	ctx    context.Context //nolint:containedctx // see above
	cancel context.CancelFunc
	tb     TB // nil in a lab made by New

	mu      sync.Mutex
	err     error
	hosts   []*Host
	relays  *Host // where the inner ends of delayed links are
	closers []func() error
	closed  bool
}

// New makes an empty lab. When ctx ends, the programs that run in the lab are
// killed; Close is still needed.
func New(ctx context.Context) *Lab {
	l := &Lab{}
	l.ctx, l.cancel = context.WithCancel(ctx)
	if !inside {
		l.fail(errors.New("netlab: not in namespaces of its own: call Enter or Main first"))
	}
	return l
}

// Test makes an empty lab for a test, after Require(tb, features...), and closes
// it when the test ends. Errors in building fail the test.
func Test(tb TB, features ...Feature) *Lab {
	tb.Helper()
	Require(tb, append([]Feature{Veth}, features...)...)
	l := New(context.Background())
	l.tb = tb
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// Err returns the first error in building, or nil.
func (l *Lab) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Host adds a host: loopback up, no forwarding, no other interface.
func (l *Lab) Host(name string) *Host { return l.host(name, false) }

// Router adds a host that forwards IPv4 and IPv6.
func (l *Lab) Router(name string) *Host { return l.host(name, true) }

// Hosts returns the hosts and routers in the order they were added.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hosts)
}

// Close kills the programs, ends the captures, and lets go of the namespaces. It
// is idempotent, and returns what went wrong in a program's or capture's end.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	closers := l.closers
	hosts := l.hosts
	if l.relays != nil {
		hosts = append(hosts, l.relays)
	}
	l.mu.Unlock()

	l.cancel()
	var errs []error
	for _, f := range slices.Backward(closers) {
		errs = append(errs, f())
	}
	killStrays(hosts)
	for _, h := range hosts {
		h.close()
	}
	return errors.Join(errs...)
}

// killStrays ends what others have started in the hosts, by nsenter for example:
// it would keep the namespaces.
func killStrays(hosts []*Host) {
	in := make(map[uint64]bool, len(hosts))
	for _, h := range hosts {
		var st unix.Stat_t
		if h.ns >= 0 && unix.Fstat(h.ns, &st) == nil {
			in[st.Ino] = true
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Of processes that are not ours there is nothing to see.
		if ino, err := netnsInode(p + "/ns/net"); err == nil && in[ino] {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// atClose has f run by Close, last one first; at once if that was before.
func (l *Lab) atClose(f func() error) {
	l.mu.Lock()
	if !l.closed {
		l.closers = append(l.closers, f)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	_ = f()
}

// fail records an error in building; in a test it does not return.
func (l *Lab) fail(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	if l.tb != nil {
		l.tb.Helper()
		l.tb.Fatalf("%v", err)
	}
}

// build runs one step, unless an earlier one failed.
func (l *Lab) build(what string, f func() error) {
	if l.tb != nil {
		l.tb.Helper()
	}
	l.mu.Lock()
	failed, closed := l.err != nil, l.closed
	l.mu.Unlock()
	if failed {
		return
	}
	if closed {
		l.fail(fmt.Errorf("netlab: %s: the lab is closed", what))
		return
	}
	if err := f(); err != nil {
		l.fail(fmt.Errorf("netlab: %s: %w", what, err))
	}
}
