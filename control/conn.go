package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/xtrkit/xtrkit/lisp"
)

// Conn carries control datagrams for a Runner. Listen makes the usual one;
// NewConn makes one of any net.PacketConn.
type Conn interface {
	// Readers are the receiving sides. The Runner reads each from a goroutine of
	// its own.
	Readers() []Reader
	// WriteDatagrams sends what it can, and returns how many that was with the
	// first error. A datagram that cannot be sent does not keep back the others.
	// One goroutine at a time. The datagrams are not retained.
	WriteDatagrams(ds []lisp.Datagram) (int, error)
	// Close ends all reads. It is idempotent.
	Close() error
}

// Reader is one receiving side of a Conn.
type Reader interface {
	// ReadDatagrams waits for datagrams and returns how many came, at least one
	// without an error. On entry ds[i].Bytes is the room for one; on return it is
	// the datagram, in the same memory. Local has the address that it was sent
	// to and IfIndex the interface, where the system tells them. The error wraps
	// net.ErrClosed after Close.
	ReadDatagrams(ds []lisp.Datagram) (int, error)
}

// NewConn makes a Conn of sockets, one for each address family or address. Of a
// *net.UDPConn it uses control messages where the system has them, to learn
// which address a datagram was sent to and to choose the one it is sent from.
// With other kinds, those in memory for example, that is the address they are
// bound to.
func NewConn(sockets ...net.PacketConn) Conn {
	c := &packetConns{}
	for _, pc := range sockets {
		c.sockets = append(c.sockets, newSocket(pc))
	}
	return c
}

// packetConns is a Conn of several sockets.
type packetConns struct{ sockets []*socket }

func (c *packetConns) Readers() []Reader {
	rs := make([]Reader, len(c.sockets))
	for i, s := range c.sockets {
		rs[i] = connReader{s, c}
	}
	return rs
}

// connReader is a socket of a Conn that can also send.
type connReader struct {
	*socket
	conn *packetConns
}

// WriteDatagrams sends from this socket if that can be, so that those who
// receive in parallel send in parallel, and else from the one that
// Conn.WriteDatagrams would take. It may be called beside that.
func (r connReader) WriteDatagrams(ds []lisp.Datagram) (int, error) {
	if slices.ContainsFunc(ds, func(d lisp.Datagram) bool { return !r.takes(d) }) {
		return r.conn.WriteDatagrams(ds)
	}
	return r.write(ds)
}

func (c *packetConns) WriteDatagrams(ds []lisp.Datagram) (sent int, first error) {
	for len(ds) > 0 {
		s := c.socketFor(ds[0])
		n := 1
		for n < len(ds) && c.socketFor(ds[n]) == s {
			n++
		}
		var err error
		if s == nil {
			err = fmt.Errorf("control: send to %v: no socket of that address family", ds[0].Remote)
		} else {
			var ok int
			ok, err = s.write(ds[:n])
			sent += ok
		}
		if first == nil {
			first = err
		}
		ds = ds[n:]
	}
	return sent, first
}

// socketFor chooses the socket that is bound to the local address of d, else one
// bound to all addresses of the family, else any that might do.
func (c *packetConns) socketFor(d lisp.Datagram) *socket {
	var best *socket
	rank := 0
	for _, s := range c.sockets {
		a := s.local.Addr()
		r := 0
		switch {
		case a.IsValid() && a == d.Local.Addr():
			r = 4
		case a.IsUnspecified() && a.Is4() == d.Remote.Addr().Is4():
			r = 3
		case a.IsValid() && a.Is4() == d.Remote.Addr().Is4() && !d.Local.Addr().IsValid():
			r = 2
		case !a.IsValid() || a.IsUnspecified():
			r = 1 // perhaps of both families
		}
		if r > rank {
			best, rank = s, r
		}
	}
	return best
}

func (c *packetConns) Close() error {
	var errs []error
	for _, s := range c.sockets {
		if err := s.pc.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// LocalAddrs returns what the sockets are bound to.
func (c *packetConns) LocalAddrs() []netip.AddrPort {
	as := make([]netip.AddrPort, len(c.sockets))
	for i, s := range c.sockets {
		as[i] = s.local
	}
	return as
}

// socket is one net.PacketConn. v4 or v6 is there when control messages work.
type socket struct {
	pc    net.PacketConn
	local netip.AddrPort
	v4    *ipv4.PacketConn
	v6    *ipv6.PacketConn

	batch *batchConn // may do the work instead, where there is one

	// ipv4.Message and ipv6.Message are the same type.
	in, out []ipv4.Message

	writing sync.Mutex // the loop writes, and so may the goroutine that reads
}

const oobSize = 128 // room for the control messages that we ask for

func newSocket(pc net.PacketConn) *socket {
	s := &socket{pc: pc, local: addrPort(pc.LocalAddr())}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return s
	}
	defer func() {
		if s.v4 != nil || s.v6 != nil {
			s.batch = newBatchConn(udp, s.local)
		}
	}()
	if s.local.Addr().Is4() {
		p := ipv4.NewPacketConn(pc)
		if p.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true) == nil {
			s.v4 = p
		}
		return s
	}
	p := ipv6.NewPacketConn(pc)
	if p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true) == nil {
		s.v6 = p
	}
	return s
}

// ReadDatagrams implements Reader.
func (s *socket) ReadDatagrams(ds []lisp.Datagram) (int, error) {
	if s.batch != nil {
		return s.batch.read(ds)
	}
	if s.v4 == nil && s.v6 == nil {
		n, from, err := s.pc.ReadFrom(ds[0].Bytes)
		if err != nil {
			return 0, err
		}
		local := s.local
		if local.Addr().IsUnspecified() {
			local = netip.AddrPortFrom(netip.Addr{}, local.Port())
		}
		ds[0] = lisp.Datagram{Local: local, Remote: addrPort(from), Bytes: ds[0].Bytes[:n]}
		return 1, nil
	}
	for len(s.in) < len(ds) {
		s.in = append(s.in, ipv4.Message{Buffers: make([][]byte, 1), OOB: make([]byte, oobSize)})
	}
	for i := range ds {
		s.in[i].Buffers[0] = ds[i].Bytes
	}
	var n int
	var err error
	if s.v4 != nil {
		n, err = s.v4.ReadBatch(s.in[:len(ds)], 0)
	} else {
		n, err = s.v6.ReadBatch(s.in[:len(ds)], 0)
	}
	if err != nil {
		return 0, err
	}
	for i := range ds[:n] {
		m := &s.in[i]
		dst, ifIndex := s.parseControl(m.OOB[:m.NN])
		ds[i] = lisp.Datagram{
			Local:   netip.AddrPortFrom(dst, s.local.Port()),
			Remote:  addrPort(m.Addr),
			IfIndex: ifIndex,
			Bytes:   m.Buffers[0][:m.N],
		}
	}
	return n, nil
}

// takes reports whether d can be sent from this socket.
func (s *socket) takes(d lisp.Datagram) bool {
	a, from := s.local.Addr(), d.Local.Addr()
	return a.Is4() == d.Remote.Addr().Is4() && (a.IsUnspecified() || !from.IsValid() || from == a)
}

// parseControl returns the address that a datagram was sent to and its
// interface.
func (s *socket) parseControl(oob []byte) (netip.Addr, int) {
	var ip net.IP
	var ifIndex int
	if s.v4 != nil {
		var cm ipv4.ControlMessage
		if cm.Parse(oob) == nil {
			ip, ifIndex = cm.Dst, cm.IfIndex
		}
	} else {
		var cm ipv6.ControlMessage
		if cm.Parse(oob) == nil {
			ip, ifIndex = cm.Dst, cm.IfIndex
		}
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		a = s.local.Addr() // the system does not tell
		if a.IsUnspecified() {
			a = netip.Addr{}
		}
	}
	return a.Unmap(), ifIndex
}

// write sends ds, as many in one system call as the system takes.
func (s *socket) write(ds []lisp.Datagram) (sent int, first error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.batch != nil && !slices.ContainsFunc(ds, func(d lisp.Datagram) bool { return d.Remote.Addr().Is4() != (s.v4 != nil) }) {
		return s.batch.write(ds)
	}
	if s.v4 == nil && s.v6 == nil || s.v6 != nil && ds[0].Remote.Addr().Is4() {
		for _, d := range ds {
			if _, err := s.pc.WriteTo(d.Bytes, net.UDPAddrFromAddrPort(d.Remote)); err == nil {
				sent++
			} else if first == nil {
				first = fmt.Errorf("control: send to %v: %w", d.Remote, err)
			}
		}
		return sent, first
	}
	for len(s.out) < len(ds) {
		s.out = append(s.out, ipv4.Message{Buffers: make([][]byte, 1)})
	}
	for i, d := range ds {
		s.out[i].Buffers[0] = d.Bytes
		s.out[i].Addr = net.UDPAddrFromAddrPort(d.Remote)
		s.out[i].OOB = s.control(d)
	}
	for at := 0; at < len(ds); {
		var n int
		var err error
		if s.v4 != nil {
			n, err = s.v4.WriteBatch(s.out[at:len(ds)], 0)
		} else {
			n, err = s.v6.WriteBatch(s.out[at:len(ds)], 0)
		}
		n = max(n, 0)
		sent += n
		at += n
		if n == 0 {
			// The first one is refused: go on behind it.
			if first == nil {
				if err == nil {
					err = errors.New("not taken")
				}
				first = fmt.Errorf("control: send to %v: %w", ds[at].Remote, err)
			}
			if errors.Is(err, net.ErrClosed) {
				return sent, first
			}
			at++
		}
	}
	return sent, first
}

// control encodes the local address and interface of d.
func (s *socket) control(d lisp.Datagram) []byte {
	src := d.Local.Addr()
	if !src.IsValid() && d.IfIndex == 0 {
		return nil
	}
	if s.v4 != nil {
		cm := ipv4.ControlMessage{IfIndex: d.IfIndex}
		if src.Is4() {
			cm.Src = src.AsSlice()
		}
		return cm.Marshal()
	}
	cm := ipv6.ControlMessage{IfIndex: d.IfIndex}
	if src.Is6() {
		cm.Src = src.AsSlice()
	}
	return cm.Marshal()
}

// addrPort converts any address that is one of a UDP socket.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case nil:
		return ap
	case *net.UDPAddr:
		ap = a.AddrPort()
	case interface{ AddrPort() netip.AddrPort }:
		ap = a.AddrPort()
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
