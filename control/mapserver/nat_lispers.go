package mapserver

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// An ITR of lispers.net behind a NAT asks with ITR-RLOCs that nobody can reach. Its
// Info-Requests leave from the same socket as its Map-Requests, so that its
// Map-Server knows where answers have to go: it asks in its own name, and passes the
// Map-Reply on.

const (
	infoSourceLife  = 30 * time.Second // twice the interval of the Info-Requests
	proxiedLife     = 5 * time.Second  // for the Map-Reply to come
	infoSourceSlots = 1 << 12
	proxiedSlots    = 1 << 12
	proxiedReplies  = 4 // Map-Replies to one Map-Request
)

// natAskers are the sockets that Info-Requests of lispers.net came from lately, and
// the Map-Requests of theirs under way. Safe for concurrent use; memory is fixed: of
// two that share a slot by chance the later counts.
type natAskers struct {
	mu      sync.Mutex
	seed    uint64
	sources [infoSourceSlots]infoSource
	asked   [proxiedSlots]proxied
}

type infoSource struct {
	at    netip.AddrPort
	until int64 // ticks
}

type proxied struct {
	nonce lisp.Nonce
	to    netip.AddrPort
	left  int // Map-Replies
	until int64
}

func (n *natAskers) source(a netip.AddrPort) *infoSource {
	b := a.Addr().As16()
	h := mix(n.seed ^ binary.BigEndian.Uint64(b[:8]) ^ mix(binary.BigEndian.Uint64(b[8:])^uint64(a.Port())))
	return &n.sources[h%infoSourceSlots]
}

// noteInfoSource remembers where an Info-Request came from that was answered.
func (w *Worker) noteInfoSource(a netip.AddrPort) {
	n := w.set.nat.askers
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	*n.source(a) = infoSource{a, w.ticks + int64(infoSourceLife)}
}

// throughNAT has the answer to a Map-Request go to where it came from, and not to
// its ITR-RLOCs, if those can't be reached: it is from a socket that Info-Requests
// come from, and none of them is its address. port is that of its inner header; the
// one to answer is returned. What is forwarded asks in our name.
func (w *Worker) throughNAT(d lisp.Datagram, m *lisp.MapRequest, port uint16) uint16 {
	n := w.set.nat.askers
	if n == nil || len(w.ecm.Security) > 0 || slices.ContainsFunc(m.ITRRLOCs, func(a lisp.Address) bool {
		ip, ok := a.IP()
		return ok && ip.Unmap() == d.Remote.Addr()
	}) {
		return port
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.source(d.Remote); s.at != d.Remote || w.ticks > s.until {
		return port
	}
	if local := w.localFor(d.Remote.Addr(), d); local.Addr().IsValid() {
		if packet, err := inOurName(w.ecm.Packet, m, local); err == nil {
			w.ecm.Packet = packet
			n.asked[mix(n.seed^uint64(m.Nonce))%proxiedSlots] = proxied{m.Nonce, d.Remote, proxiedReplies, w.ticks + int64(proxiedLife)}
		}
	}
	m.ITRRLOCs = append(m.ITRRLOCs[:0], lisp.AddressFrom(d.Remote.Addr()))
	w.behind = true
	return d.Remote.Port()
}

// inOurName is the inner packet of a Map-Request with us as the ITR.
func inOurName(packet []byte, m *lisp.MapRequest, local netip.AddrPort) ([]byte, error) {
	in, err := (&lisp.EncapsulatedControl{Packet: packet}).Inner()
	if err != nil {
		return nil, err
	}
	ours := *m
	ours.ITRRLOCs = []lisp.Address{lisp.AddressFrom(local.Addr())}
	payload, err := ours.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	source := local
	if in.Destination.Addr().Is4() != local.Addr().Is4() {
		source = netip.AddrPortFrom(in.Source.Addr(), local.Port()) // the inner packet has one family
	}
	return lisp.AppendInner(nil, lisp.Inner{Source: source, Destination: in.Destination, TTL: in.TTL, Payload: payload})
}

// passReply passes a Map-Reply on to the node behind a NAT that has asked, and
// reports whether it is for one.
func (w *Worker) passReply(d lisp.Datagram) bool {
	const end = 12 // of the nonce
	n := w.set.nat.askers
	if n == nil || len(d.Bytes) < end {
		return false
	}
	nonce := lisp.Nonce(binary.BigEndian.Uint64(d.Bytes[end-8:]))
	n.mu.Lock()
	p := &n.asked[mix(n.seed^uint64(nonce))%proxiedSlots]
	to, ok := p.to, p.nonce == nonce && p.left > 0 && w.ticks <= p.until
	if ok {
		p.left--
	}
	n.mu.Unlock()
	if !ok {
		return false
	}
	if !w.s.limits.allow(w.ticks, d.Remote.Addr(), to.Addr()) {
		w.drop(ReasonRate, lisp.TypeMapReply, d)
		return true
	}
	start := len(w.buf)
	w.buf = append(w.buf, d.Bytes...)
	local, ifIndex := w.localFor(to.Addr(), d), d.IfIndex
	if local.Addr() != d.Local.Addr() {
		ifIndex = 0
	}
	w.send(local, to, ifIndex, start)
	return true
}
