package netsim

import (
	"fmt"
	"net/netip"
	"time"
)

// Link is how an interface is connected to its segment. Every datagram crosses
// the link of its sender and that of its receiver, each with these properties,
// in both directions alike. The zero value is a perfect link.
type Link struct {
	Latency time.Duration // one way
	Jitter  time.Duration // up to this is added, evenly; may reorder
	Loss    float64       // 0..1
	// Duplicate is the share of datagrams that arrive twice, the copies with a
	// delay of their own.
	Duplicate float64
	// Reorder is the share of datagrams held back by ReorderBy (default: the
	// latency and 10 ms), so that later ones overtake them.
	Reorder   float64
	ReorderBy time.Duration
	// MTU is the size of the largest IP packet, headers included; 0: any. Larger
	// ones are dropped: nothing is fragmented.
	MTU  int
	Down bool // nothing passes
}

// cross sends p over the link and calls arrive with the delay of each copy that
// comes out. It takes p over.
func (n *Network) cross(l *Link, where string, p *packet, arrive func(delay int64, p *packet)) {
	switch {
	case l.Down:
		n.drop(LinkDown, where, p)
		return
	case l.MTU > 0 && packetSize(p) > l.MTU:
		n.drop(TooBig, where, p)
		return
	case l.Loss > 0 && n.rng.Float64() < l.Loss:
		n.drop(Lost, where, p)
		return
	}
	if l.Duplicate > 0 && n.rng.Float64() < l.Duplicate {
		n.record(Duplicated, where, p)
		arrive(n.delay(l), n.newPacket(p.from, p.to, p.bytes))
	}
	arrive(n.delay(l), p)
}

func (n *Network) delay(l *Link) int64 {
	d := l.Latency
	if l.Jitter > 0 {
		d += time.Duration(n.rng.Int64N(int64(l.Jitter) + 1))
	}
	if l.Reorder > 0 && n.rng.Float64() < l.Reorder {
		by := l.ReorderBy
		if by == 0 {
			by = l.Latency + 10*time.Millisecond
		}
		d += by
	}
	return int64(d)
}

// packetSize is the size of the IP packet in octets.
func packetSize(p *packet) int {
	const udp, ipv4, ipv6 = 8, 20, 40
	if p.to.Addr().Is4() {
		return ipv4 + udp + len(p.bytes)
	}
	return ipv6 + udp + len(p.bytes)
}

func (n *Network) drop(k Kind, where string, p *packet) {
	n.record(k, where, p)
	n.release(p)
}

// Segment connects interfaces that reach each other directly: the Internet, or
// the inside of a NAT.
type Segment struct {
	net    *Network
	name   string
	ifaces map[netip.Addr]*Interface
	nat    *NAT // the way out, if there is one
}

func (n *Network) newSegment(name string) *Segment {
	return &Segment{net: n, name: name, ifaces: make(map[netip.Addr]*Interface)}
}

// route passes a packet that has come to the segment on to its destination.
func (s *Segment) route(p *packet) {
	if i := s.ifaces[p.to.Addr()]; i != nil {
		s.net.cross(&i.link, i.label(), p, func(delay int64, p *packet) {
			s.net.push(event{at: s.net.now + delay, iface: i, packet: p})
		})
		return
	}
	if s.nat != nil {
		s.nat.outbound(p)
		return
	}
	s.net.drop(NoRoute, s.name, p)
}

// Interface connects a node, or the outside of a NAT, to a segment.
type Interface struct {
	net     *Network
	segment *Segment
	node    *Node // one of node and nat
	nat     *NAT
	index   int
	link    Link
	addrs   []netip.Addr
}

func (s *Segment) attach(link Link, addrs []netip.Addr) *Interface {
	i := &Interface{net: s.net, segment: s, link: link}
	i.SetAddrs(addrs...)
	return i
}

// Index is the interface index, as in lisp.Datagram.IfIndex: 1, 2, and so on.
func (i *Interface) Index() int { return i.index }

// Addrs are the addresses of the interface. Do not modify.
func (i *Interface) Addrs() []netip.Addr { return i.addrs }

// SetAddrs renumbers the interface. Datagrams already on the way to an old
// address are lost, unless another interface has got it. It panics if an
// address is already taken.
func (i *Interface) SetAddrs(addrs ...netip.Addr) {
	for _, a := range i.addrs {
		delete(i.segment.ifaces, a)
	}
	i.addrs = nil
	for _, a := range addrs {
		a = a.Unmap()
		if i.segment.ifaces[a] != nil {
			panic(fmt.Sprintf("netsim: address %v is taken", a))
		}
		i.segment.ifaces[a] = i
		i.addrs = append(i.addrs, a)
	}
}

// Move takes the interface to another segment, with new addresses.
func (i *Interface) Move(s *Segment, addrs ...netip.Addr) {
	i.SetAddrs()
	i.segment = s
	i.SetAddrs(addrs...)
}

// Link returns the properties of the link.
func (i *Interface) Link() Link { return i.link }

// SetLink changes the properties of the link, for what crosses it from now on.
func (i *Interface) SetLink(l Link) { i.link = l }

// SetDown takes the link down or up.
func (i *Interface) SetDown(down bool) { i.link.Down = down }

func (i *Interface) label() string {
	if i.nat != nil {
		return i.nat.name
	}
	return i.node.name
}

// leave sends a packet from the interface.
func (i *Interface) leave(p *packet) {
	s := i.segment
	i.net.cross(&i.link, i.label(), p, func(delay int64, p *packet) {
		i.net.push(event{at: i.net.now + delay, segment: s, packet: p})
	})
}

// arrive takes a packet at the end of the link.
func (i *Interface) arrive(p *packet) {
	if i.segment.ifaces[p.to.Addr()] != i {
		i.net.drop(NoRoute, i.label(), p) // renumbered meanwhile
		return
	}
	if i.nat != nil {
		i.nat.inbound(p)
		return
	}
	i.node.receive(i, p)
}
