package netsim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// connQueue is how many datagrams wait in a PacketConn for being read.
const connQueue = 256

// PacketConn is a UDP socket of a node, for code that wants a net.PacketConn. It
// is safe for concurrent use while Network.Serve runs. Made in a synctest bubble,
// all that it waits for is durably blocking.
type PacketConn struct {
	node   *Node
	local  netip.AddrPort
	queue  chan received
	closed chan struct{}
	close  sync.Once
	read   deadline
}

type received struct {
	from  netip.AddrPort
	bytes []byte
}

var _ net.PacketConn = (*PacketConn)(nil)

// ListenPacket opens a socket at local, one of the node's addresses, or an
// unspecified one for all addresses of the family. The error wraps
// syscall.EADDRINUSE if there is one already. Datagrams for its port no longer
// go to the node's cores.
func (nd *Node) ListenPacket(local netip.AddrPort) (*PacketConn, error) {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	if nd.conns[local] != nil {
		return nil, fmt.Errorf("netsim: listen %s %v: %w", nd.name, local, syscall.EADDRINUSE)
	}
	c := &PacketConn{
		node: nd, local: local, queue: make(chan received, connQueue), closed: make(chan struct{}),
		read: deadline{reached: make(chan struct{})},
	}
	nd.conns[local] = c
	return c, nil
}

// conn finds the socket for a destination: the address itself, else all addresses.
func (nd *Node) conn(to netip.AddrPort) *PacketConn {
	if c := nd.conns[to]; c != nil {
		return c
	}
	all := netip.IPv6Unspecified()
	if to.Addr().Is4() {
		all = netip.IPv4Unspecified()
	}
	return nd.conns[netip.AddrPortFrom(all, to.Port())]
}

// deliver queues a copy of p.
func (c *PacketConn) deliver(p *packet) bool {
	select {
	case c.queue <- received{p.from, append([]byte(nil), p.bytes...)}:
		return true
	default:
		return false
	}
}

// ReadFrom implements net.PacketConn.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	reached := c.read.wait()
	select { // what has ended goes before what is there
	case <-c.closed:
		return 0, nil, c.opError("read", net.ErrClosed)
	case <-reached:
		return 0, nil, c.opError("read", os.ErrDeadlineExceeded)
	default:
	}
	select {
	case r := <-c.queue:
		return copy(b, r.bytes), net.UDPAddrFromAddrPort(r.from), nil
	case <-c.closed:
		return 0, nil, c.opError("read", net.ErrClosed)
	case <-reached:
		return 0, nil, c.opError("read", os.ErrDeadlineExceeded)
	}
}

// WriteTo implements net.PacketConn. It never waits.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, c.opError("write", net.ErrClosed)
	default:
	}
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", errors.New("not a UDP address"))
	}
	n := c.node.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.catchUp()
	c.node.Send(lisp.Datagram{Local: c.local, Remote: u.AddrPort(), Bytes: b})
	return len(b), nil
}

// Close implements net.PacketConn. It is idempotent.
func (c *PacketConn) Close() error {
	c.close.Do(func() {
		c.node.net.mu.Lock()
		delete(c.node.conns, c.local)
		c.node.net.mu.Unlock()
		close(c.closed)
		c.read.set(time.Time{})
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (c *PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// SetDeadline implements net.PacketConn.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	c.read.set(t)
	return nil
}

// SetWriteDeadline implements net.PacketConn. Writing never waits.
func (c *PacketConn) SetWriteDeadline(time.Time) error { return nil }

func (c *PacketConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "netsim", Source: c.LocalAddr(), Err: err}
}

// deadline closes a channel when a time has come.
type deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	reached chan struct{}
}

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reached
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.reached // it is closing, or has closed, the channel
	}
	d.timer = nil
	select {
	case <-d.reached:
		d.reached = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		close(d.reached)
		return
	}
	reached := d.reached
	d.timer = time.AfterFunc(wait, func() { close(reached) })
}

// Serve drives the network by the clock until ctx ends. Config.Start must be the
// time at which it begins, as it is by default when Serve follows New at once.
func (n *Network) Serve(ctx context.Context) {
	n.mu.Lock()
	n.serving = true
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.serving = false
		n.mu.Unlock()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-n.wake:
		}
		n.mu.Lock()
		n.runTo(int64(time.Since(n.start)))
		wait := time.Duration(-1)
		if len(n.queue) > 0 {
			wait = time.Duration(n.queue[0].at - n.now)
		}
		n.mu.Unlock()
		if wait >= 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
}

// Do calls f while Serve is held, so that f may change the network.
func (n *Network) Do(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.catchUp()
	f()
}

// catchUp sets the time to that of the clock while Serve runs. What is due and
// has not happened yet happens late.
func (n *Network) catchUp() {
	if n.serving {
		n.advance(int64(time.Since(n.start)))
	}
}
