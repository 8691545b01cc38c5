package netsim

import (
	"fmt"
	"net/netip"
	"time"
)

// NATKind is the behaviour of a NAT, by its traditional name (RFC 3489 §5): what
// a binding belongs to (RFC 4787 mapping) and who may use it from outside
// (filtering).
type NATKind uint8

// Kinds of NAT.
const (
	FullCone       NATKind = iota // one binding per inside endpoint, open to all
	Restricted                    // open to addresses that it has sent to
	PortRestricted                // open to endpoints that it has sent to
	Symmetric                     // one binding per pair of endpoints, open to that pair
)

func (k NATKind) String() string {
	switch k {
	case FullCone:
		return "full cone"
	case Restricted:
		return "restricted"
	case PortRestricted:
		return "port-restricted"
	case Symmetric:
		return "symmetric"
	}
	return fmt.Sprintf("NAT kind %d", uint8(k))
}

// NATConfig configures a NAT.
type NATConfig struct {
	Kind NATKind
	// Timeout of a binding without outbound datagrams; default two minutes, the
	// least that RFC 4787 allows. Permissions of a restricted NAT time out alike.
	Timeout time.Duration
	// InboundRefresh has datagrams from outside refresh a binding too.
	InboundRefresh bool
	// KeepPort tries the inside port first. The default is to count up.
	KeepPort  bool
	FirstPort uint16 // where counting starts, default 20000
	// Hairpin lets inside hosts reach each other by the public address. Most NATs
	// drop that.
	Hairpin bool
}

// NAT translates addresses and ports between an inside segment and another. A
// NAT inside of a NAT is possible.
type NAT struct {
	net     *Network
	name    string
	cfg     NATConfig
	inside  *Segment
	outside *Interface
	next    uint16
	out     map[natKey]*binding
	in      map[uint16]*binding
}

// natKey names a binding from inside. remote is zero except for Symmetric.
type natKey struct{ inside, remote netip.AddrPort }

type binding struct {
	key     natKey
	port    uint16
	expires int64
	allowed map[netip.AddrPort]int64 // who may use it until when; port 0: any port
}

// AddNAT makes a NAT with the address public on segment outside.
func (n *Network) AddNAT(name string, outside *Segment, link Link, public netip.Addr, cfg NATConfig) *NAT {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.FirstPort == 0 {
		cfg.FirstPort = 20000
	}
	t := &NAT{net: n, name: name, cfg: cfg, next: cfg.FirstPort}
	t.inside = n.newSegment(name + " inside")
	t.inside.nat = t
	t.outside = outside.attach(link, []netip.Addr{public})
	t.outside.nat, t.outside.index = t, 1
	t.Flush()
	return t
}

// Inside is the segment behind the NAT.
func (t *NAT) Inside() *Segment { return t.inside }

// Outside is the interface in front of it.
func (t *NAT) Outside() *Interface { return t.outside }

// Flush forgets all bindings, as a restart does.
func (t *NAT) Flush() {
	t.out, t.in = make(map[natKey]*binding), make(map[uint16]*binding)
}

// Renumber gives the NAT another public address; its bindings are gone.
func (t *NAT) Renumber(public netip.Addr) {
	t.outside.SetAddrs(public)
	t.Flush()
}

// Bindings is how many bindings are alive.
func (t *NAT) Bindings() int {
	alive := 0
	for _, b := range t.out {
		if b.expires > t.net.now {
			alive++
		}
	}
	return alive
}

func (t *NAT) outbound(p *packet) {
	key := natKey{inside: p.from}
	if t.cfg.Kind == Symmetric {
		key.remote = p.to
	}
	b := t.out[key]
	if b == nil || b.expires <= t.net.now {
		if b = t.bind(key); b == nil {
			t.net.drop(NATBlocked, t.name, p)
			return
		}
	}
	b.expires = t.net.now + int64(t.cfg.Timeout)
	switch t.cfg.Kind {
	case Restricted:
		b.allowed[netip.AddrPortFrom(p.to.Addr(), 0)] = b.expires
	case PortRestricted, Symmetric:
		b.allowed[p.to] = b.expires
	case FullCone:
	}
	public := t.outside.addrs
	if len(public) == 0 || public[0].Is4() != p.to.Addr().Is4() {
		t.net.drop(NoRoute, t.name, p)
		return
	}
	p.from = netip.AddrPortFrom(public[0], b.port)
	if p.to.Addr() == public[0] {
		if t.cfg.Hairpin {
			t.inbound(p)
		} else {
			t.net.drop(NATBlocked, t.name, p)
		}
		return
	}
	t.outside.leave(p)
}

func (t *NAT) inbound(p *packet) {
	b := t.in[p.to.Port()]
	if b == nil || b.expires <= t.net.now || !b.permits(t.cfg.Kind, p.from, t.net.now) {
		t.net.drop(NATBlocked, t.name, p)
		return
	}
	if t.cfg.InboundRefresh {
		b.expires = t.net.now + int64(t.cfg.Timeout)
	}
	p.to = b.key.inside
	t.inside.route(p)
}

func (b *binding) permits(k NATKind, from netip.AddrPort, now int64) bool {
	switch k {
	case Restricted:
		return b.allowed[netip.AddrPortFrom(from.Addr(), 0)] > now
	case PortRestricted, Symmetric:
		return b.allowed[from] > now
	case FullCone:
	}
	return true
}

// bind makes a binding on a free port; one that has expired is free.
func (t *NAT) bind(key natKey) *binding {
	if old := t.out[key]; old != nil {
		delete(t.in, old.port)
		delete(t.out, key)
	}
	port, ok := key.inside.Port(), t.cfg.KeepPort
	if ok {
		ok = t.freePort(port)
	}
	for tries := 0; !ok && tries < 1<<16; tries++ {
		port = t.next
		if t.next++; t.next < t.cfg.FirstPort {
			t.next = t.cfg.FirstPort
		}
		ok = t.freePort(port)
	}
	if !ok {
		return nil
	}
	b := &binding{key: key, port: port, allowed: make(map[netip.AddrPort]int64)}
	t.out[key], t.in[port] = b, b
	return b
}

func (t *NAT) freePort(port uint16) bool {
	b := t.in[port]
	if b == nil {
		return port != 0
	}
	if b.expires > t.net.now {
		return false
	}
	delete(t.in, port)
	delete(t.out, b.key)
	return true
}
