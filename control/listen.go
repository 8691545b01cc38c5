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
			_ = u.SetReadBuffer(1 << 20)
		}
		c.sockets = append(c.sockets, newSocket(pc))
	}
	if len(c.sockets) == 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// LocalAddrs returns what the sockets are bound to.
func (c *UDPConn) LocalAddrs() []netip.AddrPort { return c.packetConns.LocalAddrs() }

func listenError(a netip.AddrPort, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("control: UDP port %d is in use, perhaps by another LISP program (see: ss -ulpn 'sport = :%d'); stop that, or use another port: %w", a.Port(), a.Port(), err)
	}
	return fmt.Errorf("control: listen on %v: %w", a, err)
}
