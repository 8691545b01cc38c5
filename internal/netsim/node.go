package netsim

import (
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Node is a host.
type Node struct {
	net    *Network
	name   string
	index  int
	skew   time.Duration // of its clock
	ifaces []*Interface
	cores  []Core
	conns  map[netip.AddrPort]*PacketConn
	after  func(now time.Time)
	wakeAt int64 // of the earliest wake event in the queue; -1: none
}

// AddNode makes a host without interfaces. Names show up in the trace.
func (n *Network) AddNode(name string) *Node {
	nd := &Node{net: n, name: name, index: len(n.nodes), conns: make(map[netip.AddrPort]*PacketConn), wakeAt: -1}
	n.nodes = append(n.nodes, nd)
	return nd
}

// Name returns the name of the node.
func (nd *Node) Name() string { return nd.name }

// Index counts the nodes from 0, in the order they were added.
func (nd *Node) Index() int { return nd.index }

// Now is the time by the clock of the node.
func (nd *Node) Now() time.Time { return nd.net.Now().Add(nd.skew) }

// SetClock has the clock of the node jump to d ahead of that of the network, or
// behind it. Its cores see the new time when something happens next.
func (nd *Node) SetClock(d time.Duration) {
	nd.skew = d
	nd.wakeAt = -1 // in the time before
	nd.settle()
}

// AddInterface connects the node to a segment. Its index is one more than that
// of the node's last.
func (nd *Node) AddInterface(s *Segment, link Link, addrs ...netip.Addr) *Interface {
	i := s.attach(link, addrs)
	i.node, i.index = nd, len(nd.ifaces)+1
	nd.ifaces = append(nd.ifaces, i)
	return i
}

// Attach adds a core. A received datagram is offered to the cores in the order
// of their attachment, until one claims it.
func (nd *Node) Attach(c Core) {
	nd.cores = append(nd.cores, c)
	nd.settle()
}

// Replace puts a core in the place of another one, as a restart does.
func (nd *Node) Replace(old, c Core) {
	for i := range nd.cores {
		if nd.cores[i] == old {
			nd.cores[i] = c
		}
	}
	nd.wakeAt = -1
	nd.settle()
}

// AfterStep has f called whenever the node's cores have been stepped, before what
// they want to send is sent.
func (nd *Node) AfterStep(f func(now time.Time)) { nd.after = f }

// Step calls f, which may call methods of the cores, then sends what they have
// to send.
func (nd *Node) Step(f func(now time.Time)) {
	f(nd.Now())
	nd.settle()
}

// Send sends one datagram. Its Local address chooses the interface, else its
// IfIndex, else the first one of the family is taken; port 0 stands for 4342.
func (nd *Node) Send(d lisp.Datagram) {
	n := nd.net
	from, to := d.Local, netip.AddrPortFrom(d.Remote.Addr().Unmap(), d.Remote.Port())
	if from.Port() == 0 {
		from = netip.AddrPortFrom(from.Addr(), lisp.ControlPort)
	}
	i, addr := nd.source(from.Addr().Unmap(), d.IfIndex, to.Addr())
	p := n.newPacket(netip.AddrPortFrom(addr, from.Port()), to, d.Bytes)
	n.note(Sent, nd, nd.name, p)
	if i == nil || !to.IsValid() {
		n.drop(NoRoute, nd.name, p)
		return
	}
	for _, own := range nd.ifaces {
		for _, a := range own.addrs {
			if a == to.Addr() {
				n.push(event{at: n.now, iface: own, packet: p})
				return
			}
		}
	}
	i.leave(p)
}

// source chooses the interface and address that a datagram leaves by.
func (nd *Node) source(from netip.Addr, index int, to netip.Addr) (*Interface, netip.Addr) {
	if from.IsUnspecified() {
		from = netip.Addr{}
	}
	for _, i := range nd.ifaces {
		if !from.IsValid() && index != 0 && i.index != index || !from.IsValid() && index == 0 && i.link.Down {
			continue
		}
		for _, a := range i.addrs {
			if a == from || !from.IsValid() && a.Is4() == to.Is4() {
				return i, a
			}
		}
	}
	return nil, netip.Addr{}
}

// receive takes a packet: a PacketConn on its port has it, else the cores.
func (nd *Node) receive(i *Interface, p *packet) {
	n := nd.net
	if c := nd.conn(p.to); c != nil {
		if c.deliver(p) {
			n.note(Delivered, nd, nd.name, p)
		} else {
			n.note(QueueFull, nd, nd.name, p)
		}
		n.release(p)
		return
	}
	d := lisp.Datagram{Local: p.to, Remote: p.from, IfIndex: i.index, Bytes: p.bytes}
	n.note(Delivered, nd, nd.name, p)
	now := nd.Now()
	claimed := false
	for _, c := range nd.cores {
		if claimed = c.Handle(now, d); claimed {
			break
		}
	}
	if !claimed {
		n.note(Unclaimed, nd, nd.name, p)
	}
	n.release(p)
	nd.settle()
}

// settle sends what the cores have to send and has them woken when they ask.
func (nd *Node) settle() {
	if nd.after != nil {
		nd.after(nd.Now())
	}
	for _, c := range nd.cores {
		for d, ok := c.Next(); ok; d, ok = c.Next() {
			nd.Send(d)
		}
	}
	at := int64(-1)
	for _, c := range nd.cores {
		t := c.Deadline()
		if t.IsZero() {
			continue
		}
		d := max(int64(t.Add(-nd.skew).Sub(nd.net.start)), nd.net.now)
		if at < 0 || d < at {
			at = d
		}
	}
	if at >= 0 && (nd.wakeAt < 0 || at < nd.wakeAt) {
		nd.wakeAt = at
		nd.net.push(event{at: at, node: nd})
	}
}

// woken advances the cores that are due. An event that an earlier one has made
// superfluous is passed over.
func (nd *Node) woken(at int64) {
	if at != nd.wakeAt {
		return
	}
	nd.wakeAt = -1
	now := nd.Now()
	for _, c := range nd.cores {
		if t := c.Deadline(); !t.IsZero() && !t.After(now) {
			c.Advance(now)
		}
	}
	nd.settle()
}
