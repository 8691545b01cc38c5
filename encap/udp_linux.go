package encap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Socket buffers asked for; the kernel may give less. A receive buffer has to
// bear the bursts that arrive while the receiver delivers the last batch.
const (
	receiveBuffer = 4 << 20
	sendBuffer    = 1 << 20
)

// udpUnderlay is the Underlay of UDP sockets: one or two to receive with, and a
// pool per local locator to send with.
type udpUnderlay struct {
	cfg       UDPConfig
	receivers []*udpReceiver
	links     *os.File
	closeOnce sync.Once
	closeErr  error
}

// NewUDP opens the sockets that data packets arrive at and returns the Underlay
// of this machine. In a network namespace it must be called by a thread that is
// in it, and so must the Forwarder's SetLocals.
func NewUDP(cfg UDPConfig) (Underlay, error) {
	cfg.complete()
	listen, both := cfg.Listen, false
	if len(listen) == 0 {
		listen, both = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, true
	}
	u := &udpUnderlay{cfg: cfg}
	type socket struct {
		at     netip.AddrPort
		format mapcache.Format
	}
	var sockets []socket
	for _, a := range listen {
		sockets = append(sockets, socket{netip.AddrPortFrom(a.Unmap(), cfg.Port), mapcache.FormatLISP})
		if cfg.VXLANGPE {
			sockets = append(sockets, socket{netip.AddrPortFrom(a.Unmap(), lisp.VXLANGPEPort), mapcache.FormatVXLANGPE})
		}
	}
	for _, s := range sockets {
		rs, err := openReceivers(cfg, s.at, s.format)
		if err != nil {
			a := s.at.Addr()
			if both && a.Is6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
				cfg.Logger.Info("no IPv6 here, receiving over IPv4 only", "err", err)
				continue
			}
			_ = u.Close()
			if errors.Is(err, unix.EADDRINUSE) {
				err = fmt.Errorf("UDP port %d is taken; another LISP router or a VXLAN device on that port must go first (see: ss -ulpn 'sport = :%d'): %w", s.at.Port(), s.at.Port(), err)
			}
			return nil, fmt.Errorf("encap: %w", err)
		}
		u.receivers = append(u.receivers, rs...)
	}
	var err error
	if u.links, err = openLinks(); err != nil {
		_ = u.Close()
		return nil, fmt.Errorf("encap: %w", err)
	}
	return u, nil
}

// Receivers returns one receiver per socket.
func (u *udpUnderlay) Receivers() []Receiver {
	rs := make([]Receiver, len(u.receivers))
	for i, r := range u.receivers {
		rs[i] = r
	}
	return rs
}

// Close closes the sockets.
func (u *udpUnderlay) Close() error {
	u.closeOnce.Do(func() {
		errs := make([]error, 0, len(u.receivers)+1)
		for _, r := range u.receivers {
			errs = append(errs, r.conn.Close())
		}
		if u.links != nil {
			errs = append(errs, u.links.Close())
		}
		u.closeErr = errors.Join(errs...)
	})
	return u.closeErr
}

// WriteDatagram sends from the socket that data packets arrive at.
func (u *udpUnderlay) WriteDatagram(d lisp.Datagram) error {
	remote := netip.AddrPortFrom(d.Remote.Addr().Unmap(), d.Remote.Port())
	local := d.Local.Addr().Unmap()
	for _, r := range u.receivers {
		if r.format != mapcache.FormatLISP || r.addr.Is4() != remote.Addr().Is4() || !r.addr.IsUnspecified() && local.IsValid() && local != r.addr {
			continue
		}
		var control []byte
		switch {
		case local.Is4():
			control = unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(d.IfIndex), Spec_dst: local.As4()})
		case local.Is6():
			control = unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: uint32(d.IfIndex), Addr: local.As16()})
		}
		_, _, err := r.conn.WriteMsgUDPAddrPort(d.Bytes, control, remote)
		return err
	}
	return fmt.Errorf("no socket for %v from %v: %w", remote, local, unix.EADDRNOTAVAIL)
}

// openSocket binds a UDP socket; set is called before the bind.
func openSocket(addr netip.AddrPort, set func(fd int) error) (*net.UDPConn, syscall.RawConn, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = set(int(fd)) }); e != nil {
			return e
		}
		return err
	}}
	pc, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, nil, err
	}
	conn := pc.(*net.UDPConn)
	rc, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, rc, nil
}

// sockopts collects the first error of a series of socket options.
type sockopts struct {
	fd  int
	err error
}

func (s *sockopts) set(level, opt, value int, name string) {
	if s.err == nil {
		if err := unix.SetsockoptInt(s.fd, level, opt, value); err != nil {
			s.err = fmt.Errorf("socket option %s: %w", name, os.NewSyscallError("setsockopt", err))
		}
	}
}

// buffer asks for a socket buffer, past the system's limit if we may.
func buffer(fd, force, opt, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, size) // what there is then is what there is
	}
}

// Open returns the sockets to send from a locator with.
func (u *udpUnderlay) Open(l mapcache.Local) (Path, error) {
	p, err := newUDPPath(u.cfg, l)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// interfaceOf returns the interface that a locator is on.
func interfaceOf(l mapcache.Local) (*net.Interface, error) {
	if l.IfIndex != 0 {
		ifi, err := net.InterfaceByIndex(l.IfIndex)
		if err != nil {
			return nil, fmt.Errorf("interface %d: %w", l.IfIndex, err)
		}
		return ifi, nil
	}
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, ifi := range ifs {
		addrs, _ := ifi.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == l.Addr {
					return &ifi, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("no interface has the address %v", l.Addr)
}

// socketMTU returns the present MTU of an interface in the network namespace of
// a socket, whatever its name is now; 0 when that can't be told.
func socketMTU(c syscall.RawConn, index int) int {
	mtu := 0
	_ = c.Control(func(fd uintptr) {
		r, err := unix.NewIfreq("")
		if err != nil {
			return
		}
		r.SetUint32(uint32(index))
		if unix.IoctlIfreq(int(fd), unix.SIOCGIFNAME, r) == nil && unix.IoctlIfreq(int(fd), unix.SIOCGIFMTU, r) == nil {
			mtu = int(r.Uint32())
		}
	})
	return mtu
}
