package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is one network namespace: a host or a router. Its methods may be called
// from several goroutines.
type Host struct {
	lab    *Lab
	name   string
	ns     int             // file descriptor of the namespace; -1 if it was never made
	nl     *netlink.Handle // in the namespace
	starts chan func()     // to the thread that starts programs
	done   chan struct{}   // closed by close
	once   sync.Once
}

// hostSysctls make addresses usable at once, and the host's behaviour depend on
// nothing but what the lab describes: new namespaces inherit some of these from
// the machine.
var hostSysctls = [][2]string{
	{"net/ipv4/ip_forward", "0"}, // first: it resets others
	{"net/ipv6/conf/all/disable_ipv6", "0"},
	{"net/ipv6/conf/default/disable_ipv6", "0"},
	{"net/ipv6/conf/default/addr_gen_mode", "0"},
	{"net/ipv6/conf/all/forwarding", "0"},
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv6/conf/all/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv6/conf/default/autoconf", "0"},
	{"net/ipv6/conf/default/router_solicitations", "0"},
}

var routerSysctls = [][2]string{
	{"net/ipv4/ip_forward", "1"},
	{"net/ipv6/conf/all/forwarding", "1"},
	{"net/ipv6/conf/default/forwarding", "1"},
}

func (l *Lab) host(name string, router bool) *Host {
	h := &Host{lab: l, name: name, ns: -1}
	if l.tb != nil {
		l.tb.Helper()
	}
	l.build("host "+name, func() error {
		if err := h.open(); err != nil {
			return err
		}
		l.mu.Lock()
		l.hosts = append(l.hosts, h)
		l.mu.Unlock()
		return h.setUp(router)
	})
	return h
}

// open makes the namespace and the thread that stands in it.
func (h *Host) open() error {
	h.starts, h.done = make(chan func()), make(chan struct{})
	ready := make(chan error)
	onThread(func() {
		// This thread is never unlocked: it ends with this function. Programs
		// started from it die when it does, so it lives as long as the host.
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			h.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case f := <-h.starts:
				f()
			case <-h.done:
				return
			}
		}
	})
	if err := <-ready; err != nil {
		return &MissingFeatureError{Feature: NetworkNamespaces, Err: err}
	}
	var err error
	h.nl, err = netlink.NewHandleAt(netns.NsHandle(h.ns), unix.NETLINK_ROUTE)
	return err
}

// onThread runs f in a goroutine on a thread of its own that is not the
// process's first: that one cannot end, and /proc/self shows its namespaces.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f() // not unlocked: the thread ends here
			return
		}
		// While this goroutine holds the first thread, the next gets another.
		next := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(next)
			f()
		}()
		<-next
		runtime.UnlockOSThread()
	}()
}

func (h *Host) setUp(router bool) error {
	return h.Do(func() error {
		sysctls := hostSysctls
		if router {
			sysctls = append(slices.Clip(sysctls), routerSysctls...)
		}
		for _, s := range sysctls {
			if err := writeSysctl(s[0], s[1]); err != nil {
				return err
			}
		}
		return setLoopbackUp()
	})
}

// setLoopbackUp sets lo up in the current thread's namespace.
func setLoopbackUp() error {
	nlh, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nlh.Close()
	lo, err := nlh.LinkByName("lo")
	if err != nil {
		return err
	}
	return nlh.LinkSetUp(lo)
}

func (h *Host) close() {
	h.once.Do(func() {
		if h.nl != nil {
			h.nl.Close()
		}
		if h.done != nil {
			close(h.done)
		}
		if h.ns >= 0 {
			_ = unix.Close(h.ns)
		}
	})
}

// Name returns the name given to Lab.Host or Lab.Router.
func (h *Host) Name() string { return h.name }

// String returns the name.
func (h *Host) String() string { return h.name }

// Netlink returns a handle of the routing subsystem of the host's namespace. It
// is safe for concurrent use, and closed by Lab.Close. It is nil in a host that
// could not be made.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// NetNS returns the file descriptor of the host's namespace, which stays the
// lab's.
func (h *Host) NetNS() int { return h.ns }

// Enter returns a shell command that opens a shell in the host, for whoever may:
// root, or the user who runs the lab. It works as long as the lab does.
func (h *Host) Enter() string {
	if mode == modeUserns {
		return fmt.Sprintf("nsenter --preserve-credentials --user=/proc/%d/ns/user --mount=/proc/%[1]d/ns/mnt --net=/proc/%[1]d/fd/%d", os.Getpid(), h.ns)
	}
	return fmt.Sprintf("nsenter --net=/proc/%d/fd/%d", os.Getpid(), h.ns)
}

// Do runs f on the calling goroutine inside the host, and returns its error.
// Sockets that f opens stay in the host for good. Goroutines that f starts are
// not inside. f may end the goroutine, as t.FailNow does.
func (h *Host) Do(f func() error) error {
	if h.ns < 0 {
		return h.dead()
	}
	runtime.LockOSThread()
	old, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netlab: %w", err)
	}
	defer func() {
		// A thread that cannot come back must not be used again: left locked, it
		// ends with the goroutine.
		if unix.Setns(old, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = unix.Close(old)
	}()
	if err := unix.Setns(h.ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("netlab: enter %s: %w", h.name, err)
	}
	return f()
}

// dead is what a host answers that could not be made.
func (h *Host) dead() error {
	if err := h.lab.Err(); err != nil {
		return err
	}
	return errors.New("netlab: host " + h.name + " does not exist")
}

// ListenPacket is net.ListenPacket inside the host.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := h.Do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Listen is net.Listen inside the host.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = net.Listen(network, address)
		return err
	})
	return ln, err
}

// Dial is net.Dialer's DialContext inside the host. The address must be numeric.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := h.Do(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Sysctl sets a sysctl of the host, by its path below /proc/sys, as in
// "net/ipv4/ip_forward".
func (h *Host) Sysctl(path, value string) {
	if h.lab.tb != nil {
		h.lab.tb.Helper()
	}
	h.lab.build(h.name, func() error {
		return h.Do(func() error { return writeSysctl(path, value) })
	})
}

// writeSysctl sets a sysctl in the current thread's namespace.
func writeSysctl(path, value string) error {
	err := os.WriteFile("/proc/sys/"+path, []byte(value), 0)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist) && len(path) > 8 && path[:8] == "net/ipv6":
		return &MissingFeatureError{Feature: IPv6, Err: err, Hint: "kernel without IPv6, or booted with ipv6.disable=1"}
	case errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission):
		return &MissingFeatureError{Feature: WritableSysctl, Err: err, Hint: "a container may mount /proc/sys read-only"}
	}
	return err
}

// DefaultVia adds default routes via the gateways, one of each family at most.
func (h *Host) DefaultVia(gateways ...string) {
	if h.lab.tb != nil {
		h.lab.tb.Helper()
	}
	for _, gw := range gateways {
		h.AddRoute("default", gw)
	}
}

// AddRoute adds a route to prefix ("default" or "198.51.100.0/24") via a gateway.
func (h *Host) AddRoute(prefix, via string) {
	if h.lab.tb != nil {
		h.lab.tb.Helper()
	}
	h.lab.build(fmt.Sprintf("%s: route %s via %s", h.name, prefix, via), func() error {
		gw := net.ParseIP(via)
		if gw == nil {
			return fmt.Errorf("no address: %q", via)
		}
		if h.nl == nil {
			return h.dead()
		}
		r := &netlink.Route{Gw: gw, Family: nl.GetIPFamily(gw)}
		if prefix != "default" {
			dst, err := netlink.ParseIPNet(prefix)
			if err != nil {
				return err
			}
			r.Dst = dst
		}
		return h.nl.RouteAdd(r)
	})
}
