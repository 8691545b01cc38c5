package encap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/mapcache"
)

// rawSender is the NativeSender of raw sockets bound to the uplink.
type rawSender struct {
	mu      sync.Mutex // serialises SetLocals and Close
	closed  bool
	v4, v6  atomic.Pointer[rawSocket]
	uplinks atomic.Pointer[[]*rawSocket] // of every locator that is up, for ForwardBy
}

// NewNative returns native forwarding by raw sockets, which SetLocals opens; that
// takes the capability CAP_NET_RAW. In a network namespace SetLocals must be
// called by a thread that is in it.
func NewNative() (NativeSender, error) { return new(rawSender), nil }

// SetLocals chooses the uplink of each family: the interface of our best
// locator of that family, else that of our best locator.
func (n *rawSender) SetLocals(ls []mapcache.Local) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return net.ErrClosed
	}
	return errors.Join(n.choose(&n.v4, ls, false), n.choose(&n.v6, ls, true), n.openAll(ls))
}

// openAll opens the sockets of ForwardBy.
func (n *rawSender) openAll(ls []mapcache.Local) error {
	var old, next []*rawSocket
	if p := n.uplinks.Load(); p != nil {
		old = *p
	}
	var errs []error
	for _, l := range ls {
		if !l.Up || l.Priority == 255 {
			continue
		}
		i := slices.IndexFunc(old, func(s *rawSocket) bool { return s.local.Addr == l.Addr && s.local.IfIndex == l.IfIndex })
		if i >= 0 {
			next = append(next, old[i])
			continue
		}
		s, err := newRawSocket(l, l.Addr.Is6())
		if s != nil {
			next = append(next, s)
		}
		errs = append(errs, err)
	}
	n.uplinks.Store(&next)
	for _, s := range old {
		if !slices.Contains(next, s) {
			_ = s.close()
		}
	}
	return errors.Join(errs...)
}

// ForwardBy sends the packet as it is by an interface.
func (n *rawSender) ForwardBy(ifIndex int, packet []byte) (int, error) {
	if len(packet) < ipv4HeaderLen {
		return 0, unix.EINVAL
	}
	if p := n.uplinks.Load(); p != nil {
		for _, s := range *p {
			if s.local.IfIndex == ifIndex && s.v6 == (packet[0]>>4 == 6) {
				return s.forward(packet)
			}
		}
	}
	return 0, fmt.Errorf("native forwarding: %w", ErrNoUplink)
}

func (n *rawSender) choose(at *atomic.Pointer[rawSocket], ls []mapcache.Local, v6 bool) error {
	best := -1
	better := func(a, b *mapcache.Local) bool {
		if same := a.Addr.Is6() == v6; same != (b.Addr.Is6() == v6) {
			return same
		}
		return a.Priority < b.Priority
	}
	for i := range ls {
		if ls[i].Up && (best < 0 || better(&ls[i], &ls[best])) {
			best = i
		}
	}
	old := at.Load()
	if best < 0 {
		at.Store(nil)
		_ = old.close()
		return nil
	}
	l := ls[best]
	if old != nil && old.local.Addr == l.Addr && old.local.IfIndex == l.IfIndex {
		return nil
	}
	s, err := newRawSocket(l, v6)
	at.Store(s)
	_ = old.close()
	return err
}

// Close closes the sockets.
func (n *rawSender) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	errs := []error{n.v4.Swap(nil).close(), n.v6.Swap(nil).close()}
	if p := n.uplinks.Swap(nil); p != nil {
		for _, s := range *p {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// Forward sends the packet as it is.
func (n *rawSender) Forward(packet []byte) (int, error) {
	if len(packet) < ipv4HeaderLen {
		return 0, unix.EINVAL
	}
	s := n.v4.Load()
	if packet[0]>>4 == 6 {
		s = n.v6.Load()
	}
	if s == nil {
		return 0, unix.ENETUNREACH
	}
	return s.forward(packet)
}

// rawSocket sends complete IP packets of one family by one interface.
type rawSocket struct {
	local   mapcache.Local
	v6      bool
	ifIndex int // of the interface
	file    *os.File
	raw     syscall.RawConn

	mu     sync.Mutex
	packet []byte // argument and result of writeOnce
	err    error
	to4    unix.SockaddrInet4
	to6    unix.SockaddrInet6
	write  func(fd uintptr) bool
}

func newRawSocket(l mapcache.Local, v6 bool) (*rawSocket, error) {
	family, name := unix.AF_INET, "IPv4"
	if v6 {
		family, name = unix.AF_INET6, "IPv6"
	}
	fail := func(what string, err error) (*rawSocket, error) {
		return nil, fmt.Errorf("raw %s socket: %s: %w", name, what, err)
	}
	ifi, err := interfaceOf(l)
	if err != nil {
		// Unbound, packets could go by the overlay's own device, and around.
		return fail("uplink", err)
	}
	// A socket of protocol RAW sends the header that it is given, and receives
	// nothing.
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, nil // no packets of that family either
		}
		if errors.Is(err, unix.EPERM) {
			return fail("capability CAP_NET_RAW", err)
		}
		return fail("socket", err)
	}
	file := os.NewFile(uintptr(fd), "raw "+name) // non-blocking, hence pollable
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, ifi.Index); err != nil {
		_ = file.Close()
		return fail("SO_BINDTOIFINDEX", err)
	}
	// The address makes the kernel choose the route as for our own outer
	// packets, so that none leads back into the overlay's device. The header
	// keeps the source it has.
	if l.Addr.Is6() == v6 {
		if err := unix.Bind(fd, unixSockaddr(l.Addr, 0)); err != nil {
			_ = file.Close()
			return fail("bind", err)
		}
	}
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return fail("descriptor", err)
	}
	s := &rawSocket{local: l, v6: v6, ifIndex: ifi.Index, file: file, raw: raw}
	s.write = s.tryWrite
	return s, nil
}

func (s *rawSocket) close() error {
	if s == nil {
		return nil
	}
	return s.file.Close()
}

func (s *rawSocket) forward(packet []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packet, s.err = packet, nil
	if s.v6 {
		if len(packet) < ipv6HeaderLen {
			return 0, unix.EINVAL
		}
		s.to6.Addr = [16]byte(packet[24:40])
	} else {
		s.to4.Addr = [4]byte(packet[16:20])
	}
	if err := s.raw.Write(s.write); err != nil {
		return 0, err
	}
	if s.err != nil && errors.Is(s.err, unix.EMSGSIZE) {
		return s.linkMTU(), fmt.Errorf("native forwarding: %w", ErrTooBig)
	}
	return 0, s.err
}

func (s *rawSocket) tryWrite(fd uintptr) bool {
	var to unix.Sockaddr = &s.to4
	if s.v6 {
		to = &s.to6
	}
	for {
		s.err = unix.Sendto(int(fd), s.packet, unix.MSG_DONTWAIT, to)
		switch {
		case errors.Is(s.err, unix.EINTR):
			continue
		case errors.Is(s.err, unix.EAGAIN):
			return false
		}
		return true
	}
}

// linkMTU is what raw packets may have: the MTU of the interface that they
// leave by.
func (s *rawSocket) linkMTU() int {
	if mtu := socketMTU(s.raw, s.ifIndex); mtu > 0 {
		return mtu
	}
	if s.v6 {
		return minIPv6MTU
	}
	return 576 // RFC 1122 §3.3.2: every host takes that
}
