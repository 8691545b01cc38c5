package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/xtrkit/xtrkit/lisp"
)

// ListenConfig says where Listen listens. The zero value is UDP port 4342 on all
// IPv4 and IPv6 addresses.
type ListenConfig struct {
	// Port is used with all addresses, when Addrs is empty. Default 4342.
	Port uint16
	// Addrs are the addresses to listen on. Port 0 lets the system choose one.
	Addrs []netip.AddrPort
	// Sockets is how many sockets share each address, so that as many Workers of
	// a Runner receive in parallel; the system spreads the peers over them. Linux
	// only, default 1.
	Sockets int
	// SharePort lets the data plane of this process send from these ports, as an
	// RTR must (draft-ermagan-lisp-nat-traversal-19 §5.3.1; encap.UDPConfig.NATPort).
	// What arrives comes here all the same. Linux only.
	SharePort bool
}

// UDPConn is the Conn that Listen makes.
type UDPConn struct{ packetConns }

// Listen opens the control sockets. A system without IPv6, or without IPv4, gets
// the other one alone.
func Listen(ctx context.Context, cfg ListenConfig) (*UDPConn, error) {
	def(&cfg.Port, lisp.ControlPort)
	addrs := cfg.Addrs
	everything := len(addrs) == 0
	if everything {
		addrs = []netip.AddrPort{
			netip.AddrPortFrom(netip.IPv4Unspecified(), cfg.Port),
			netip.AddrPortFrom(netip.IPv6Unspecified(), cfg.Port),
		}
	}
	c := &UDPConn{}
	var errs []error
	for _, a := range addrs {
		network := "udp4"
		if a.Addr().Is6() {
			network = "udp6" // which is for IPv6 only, so that it does not take the IPv4 port
		}
		var lc net.ListenConfig
		pc, err := lc.ListenPacket(ctx, network, a.String())
		if err == nil && cfg.SharePort {
			pc, err = listenShared(ctx, pc, network)
		}
		if err != nil {
			err = listenError(a, err)
			if everything && !errors.Is(err, syscall.EADDRINUSE) && ctx.Err() == nil {
				errs = append(errs, err)
				continue
			}
			return nil, errors.Join(err, c.Close())
		}
		if u, ok := pc.(*net.UDPConn); ok {
			// A burst of answers should fit. The system may give less.
			receiveBuffer(u, readBuffer)
		}
		c.sockets = append(c.sockets, newSocket(pc))
		if err := c.share(ctx, pc, network, cfg.Sockets-1); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if cfg.SharePort {
			if err := keepReceiving(pc, max(1, cfg.Sockets), network == "udp6"); err != nil {
				return nil, errors.Join(err, c.Close())
			}
		}
	}
	if len(c.sockets) == 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

const readBuffer = 4 << 20

// share opens n more sockets at the address of first. That one was bound alone,
// so that a port that somebody else has is noticed.
func (c *UDPConn) share(ctx context.Context, first net.PacketConn, network string, n int) error {
	if n <= 0 {
		return nil
	}
	address := first.LocalAddr().String()
	var err error
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error { return sharePort(rc) }}
	if u, ok := first.(*net.UDPConn); ok {
		var rc syscall.RawConn
		if rc, err = u.SyscallConn(); err == nil {
			err = sharePort(rc)
		}
	}
	for i := 0; i < n && err == nil; i++ {
		var pc net.PacketConn
		if pc, err = lc.ListenPacket(ctx, network, address); err == nil {
			if u, ok := pc.(*net.UDPConn); ok {
				receiveBuffer(u, readBuffer)
			}
			c.sockets = append(c.sockets, newSocket(pc))
		}
	}
	if err != nil {
		return fmt.Errorf("control: share %s among %d sockets: %w", address, n+1, err)
	}
	return nil
}

// LocalAddrs returns what the sockets are bound to.
func (c *UDPConn) LocalAddrs() []netip.AddrPort { return c.packetConns.LocalAddrs() }

func listenError(a netip.AddrPort, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("control: UDP port %d is in use, perhaps by another LISP program (see: ss -ulpn 'sport = :%d'); stop that, or use another port: %w", a.Port(), a.Port(), err)
	}
	return fmt.Errorf("control: listen on %v: %w", a, err)
}
