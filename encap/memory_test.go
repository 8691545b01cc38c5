package encap

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// memDevice is a Device in memory: what a test sends is read by the Forwarder,
// what the Forwarder writes is received by the test.
type memDevice struct {
	name   string
	mtu    int           // 0: 65535
	in     chan [][]byte // each element is what one Read returns
	out    chan []byte
	closed chan struct{}
	once   sync.Once
}

func newMemDevice(name string) *memDevice {
	return &memDevice{name: name, in: make(chan [][]byte, 64), out: make(chan []byte, 4096), closed: make(chan struct{})}
}

func (d *memDevice) Name() string { return d.name }

func (d *memDevice) MTU() int {
	if d.mtu > 0 {
		return d.mtu
	}
	return 65535
}

func (d *memDevice) BatchSize() int { return 128 }

func (d *memDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case packets := <-d.in:
		for i, p := range packets {
			sizes[i] = copy(bufs[i][offset:], p)
		}
		return len(packets), nil
	case <-d.closed:
		return 0, os.ErrClosed
	}
}

func (d *memDevice) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		select {
		case d.out <- append([]byte(nil), b[offset:]...):
		default:
			return 0, fmt.Errorf("%s: full", d.name)
		}
		clear(b[:cap(b)]) // a device may use all of the buffer
	}
	return len(bufs), nil
}

func (d *memDevice) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

func (d *memDevice) send(packets ...[]byte) { d.in <- packets }

// next returns the next packet that the Forwarder wrote.
func (d *memDevice) next(t testing.TB) []byte {
	t.Helper()
	select {
	case p := <-d.out:
		return p
	case <-time.After(waitTime):
		require.FailNow(t, "no packet came out of the device")
		return nil
	}
}

// memNet carries outer packets between memUnderlays, by address.
type memNet struct {
	mu    sync.Mutex
	nodes map[netip.Addr]*memUnderlay
}

// memUnderlay is an Underlay in memory. It is also its own Path and Receiver.
type memUnderlay struct {
	net    *memNet
	mtu    int // of the link
	path   int // of the path, smaller than the link; 0: the same
	in     chan Incoming
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	sent      []Outgoing // copies
	datagrams []lisp.Datagram
	openErr   error
}

func (n *memNet) node(addrs ...netip.Addr) *memUnderlay {
	u := &memUnderlay{net: n, mtu: 1500, in: make(chan Incoming, 4096), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes = make(map[netip.Addr]*memUnderlay)
	}
	for _, a := range addrs {
		n.nodes[a] = u
	}
	return u
}

type memPath struct {
	u     *memUnderlay
	local netip.Addr
}

func (u *memUnderlay) Open(l mapcache.Local) (Path, error) {
	if u.openErr != nil {
		return nil, u.openErr
	}
	return &memPath{u, l.Addr}, nil
}

func (u *memUnderlay) Receivers() []Receiver { return []Receiver{u} }
func (u *memUnderlay) BatchSize() int        { return 16 }

func (u *memUnderlay) Receive(batch []Incoming) (int, error) {
	select {
	case in := <-u.in:
		batch[0] = in
	case <-u.closed:
		return 0, net.ErrClosed
	}
	n := 1
	for n < len(batch) {
		select {
		case batch[n] = <-u.in:
			n++
			continue
		default:
		}
		break
	}
	return n, nil
}

func (u *memUnderlay) WriteDatagram(d lisp.Datagram) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	d.Bytes = append([]byte(nil), d.Bytes...)
	u.datagrams = append(u.datagrams, d)
	return nil
}

func (u *memUnderlay) Close() error {
	u.once.Do(func() { close(u.closed) })
	return nil
}

// take returns what was sent since the last call.
func (u *memUnderlay) take() []Outgoing {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sent
	u.sent = nil
	return s
}

func (p *memPath) Send(out []Outgoing) bool {
	ok := true
	for i := range out {
		o := &out[i]
		o.Err = nil
		outer := len(o.Bytes) + len(o.Payload) + Overhead(p.local) - dataHeaderLen
		switch {
		case o.MayFragment:
		case p.u.mtu > 0 && outer > p.u.mtu, p.u.path > 0 && outer > p.u.path:
			o.Err = ErrTooBig
			ok = false
			continue
		}
		c := *o
		c.Bytes, c.Payload = slices.Concat(o.Bytes, o.Payload), nil
		p.u.mu.Lock()
		p.u.sent = append(p.u.sent, c)
		p.u.mu.Unlock()
		p.u.net.mu.Lock()
		to := p.u.net.nodes[o.Remote.Addr()]
		p.u.net.mu.Unlock()
		if to != nil {
			to.in <- Incoming{
				Bytes: c.Bytes, Local: o.Remote.Addr(), Remote: netip.AddrPortFrom(p.local, 61000+uint16(o.Hash%16)),
				TTL: o.TTL - 1, TOS: o.TOS, HasTOS: true, // one router on the way
			}
		}
	}
	return ok
}

func (p *memPath) MTU() int { return p.u.mtu }

func (p *memPath) PathMTU(netip.Addr) int {
	if p.u.path > 0 {
		return p.u.path
	}
	return p.u.mtu
}

func (p *memPath) Close() error { return nil }

// memNative is a NativeSender in memory.
type memNative struct {
	mtu  int
	err  error
	mu   sync.Mutex
	sent [][]byte
}

func (n *memNative) SetLocals([]mapcache.Local) error { return nil }
func (n *memNative) Close() error                     { return nil }

func (n *memNative) Forward(packet []byte) (int, error) {
	if n.err != nil {
		return 0, n.err
	}
	if len(packet) > n.mtu {
		return n.mtu, ErrTooBig
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent = append(n.sent, append([]byte(nil), packet...))
	return 0, nil
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// locals returns one usable locator per address.
func locals(addrs ...string) []mapcache.Local {
	var ls []mapcache.Local
	for i, a := range addrs {
		ls = append(ls, mapcache.Local{IfIndex: i + 1, Addr: addr(a), Priority: 1, Weight: 1, Up: true})
	}
	return ls
}
