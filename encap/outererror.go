package encap

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// ICMPReceiver gets the ICMP errors that the network sends about our outer
// packets. The kernel itself ignores those for a source port without a socket,
// and tells nobody of the others.
type ICMPReceiver interface {
	// Receive waits for an ICMP or ICMPv6 message, without IP header, and returns
	// it; it is valid until the next call. An error ends the receiver.
	Receive() (message []byte, v6 bool, err error)
	// Close ends a waiting Receive. It is idempotent.
	Close() error
}

// outerErrorRate bounds the ICMP errors about outer packets that are looked into,
// per second: anybody can send them.
const outerErrorRate = 200

// outerError is what an ICMP error says about an outer packet.
type outerError struct {
	kind          icmpKind // icmpTooBig, icmpUnreachable or icmpProhibited
	mtu           int      // with icmpTooBig: of the next hop, 0 if it did not say
	length        int      // of the outer packet
	local, remote netip.AddrPort
	data          []byte // what is quoted behind the UDP header, maybe nothing
}

// parseOuterError reads an ICMP error about a UDP datagram.
func parseOuterError(b []byte, v6 bool, e *outerError) bool {
	if len(b) < 8 {
		return false
	}
	if v6 {
		switch {
		case b[0] == 2:
			e.kind, e.mtu = icmpTooBig, int(min(binary.BigEndian.Uint32(b[4:]), 0xffff))
		case b[0] == 1 && (b[1] == 1 || b[1] == 5 || b[1] == 6):
			e.kind = icmpProhibited
		case b[0] == 1:
			e.kind = icmpUnreachable
		default:
			return false
		}
		return e.quoted6(b[8:])
	}
	if b[0] != 3 || checksum(b) != 0 {
		return false // the kernel checks ICMPv6 only
	}
	switch b[1] {
	case 4:
		e.kind, e.mtu = icmpTooBig, int(binary.BigEndian.Uint16(b[6:]))
	case 9, 10, 13:
		e.kind = icmpProhibited
	case 0, 1, 3, 6, 7, 11, 12:
		e.kind = icmpUnreachable
	default:
		return false
	}
	return e.quoted4(b[8:])
}

func (e *outerError) quoted4(b []byte) bool {
	if len(b) < ipv4HeaderLen || b[0]>>4 != 4 || b[9] != protoUDP || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return false
	}
	e.length = int(binary.BigEndian.Uint16(b[2:]))
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	header := int(b[0]&15) * 4
	if header < ipv4HeaderLen || len(b) < header {
		return false
	}
	return e.quotedUDP(src, dst, b[header:])
}

func (e *outerError) quoted6(b []byte) bool {
	if len(b) < ipv6HeaderLen || b[0]>>4 != 6 {
		return false
	}
	proto, at, ok := ipv6Transport(b)
	if !ok || proto != protoUDP {
		return false
	}
	e.length = ipv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	return e.quotedUDP(netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[at:])
}

func (e *outerError) quotedUDP(src, dst netip.Addr, b []byte) bool {
	if len(b) < udpHeaderLen {
		return false
	}
	e.local = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	e.remote = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	e.data = b[udpHeaderLen:]
	return true
}

// plateaus are the usual MTUs (RFC 1191 §7.1), for routers that do not tell
// theirs.
var plateaus = []int{32000, 17914, 8166, 4352, 2002, 1492, 1280, 1006, 508, 296, minIPv4MTU}

// pathMTU returns the path MTU that the error tells; 0 if that is not to be
// believed.
func (e *outerError) pathMTU() int {
	mtu := e.mtu
	v6 := e.remote.Addr().Is6()
	if mtu == 0 && !v6 {
		for _, p := range plateaus {
			if p < e.length {
				mtu = p
				break
			}
		}
	}
	// An outer packet that fits is no reason for an error. IPv6 has no links
	// below 1280 octets (RFC 8201 §4); over IPv4 the kernel goes no further
	// down either, so that nobody can make us send crumbs.
	const leastIPv4 = 552
	switch {
	case mtu == 0, mtu >= e.length, v6 && mtu < minIPv6MTU:
		return 0
	case !v6:
		return max(mtu, leastIPv4)
	}
	return mtu
}

// receiveICMP takes ICMP errors about outer packets.
func (f *Forwarder) receiveICMP(r ICMPReceiver) error {
	e := newEgress(f)
	for {
		b, v6, err := r.Receive()
		if err != nil {
			return err
		}
		var o outerError
		if !parseOuterError(b, v6, &o) || !f.outerLimit.Allow() {
			continue
		}
		e.begin()
		if e.outerError(time.Now(), &o) {
			f.c.outerErrors.Add(1)
		} else {
			f.c.outerErrorsIgnored.Add(1)
		}
	}
}

// outerError does what an ICMP error about an outer packet asks for, if it can be
// one of ours: anybody may have made it up, but must know our locator, source
// port and remote locator, and, where as much is quoted, EIDs behind both.
func (e *egress) outerError(now time.Time, o *outerError) bool {
	f := e.f
	local := -1
	for i := range e.locals.locals {
		if l := &e.locals.locals[i]; l.Up && l.Addr == o.local.Addr() {
			local = i
			break
		}
	}
	if local < 0 {
		return false
	}
	if p, ok := e.locals.paths[local].(interface{ SendsFrom(port uint16) bool }); ok && !p.SendsFrom(o.local.Port()) {
		return false
	}
	remote, ok := f.remotes.live(e.view, o.remote)
	if !ok && f.offload != nil {
		remote, ok = f.offload.SendsTo(o.remote)
	}
	if !ok {
		return false
	}
	var p inner
	overlay, quote := f.quotedInner(o.data, &p)
	if quote != nil && (overlay == nil || !e.carries(overlay, &p) ||
		e.view.MatchSource(overlay.iid, p.dst, remote.Addr) != mapcache.SourceMatches) {
		return false
	}
	room := 0
	if o.kind == icmpTooBig {
		mtu := o.pathMTU()
		if mtu == 0 {
			return false
		}
		if mtu < f.paths.limit(remote.Addr, e.locals.mtus[local]) {
			f.paths.learn(now, remote.Addr, mtu)
			f.wakeHouse()
		}
		room = mtu - Overhead(remote.Addr)
		if !p.dontFragment() || p.v6 && room < minIPv6MTU {
			quote = nil // the next one will be cut
		}
	} else {
		f.discover(mapcache.Discovery{Kind: mapcache.DiscoveryUnreachable, Locator: remote})
	}
	if quote != nil { // RFC 9301 §7: tell the host that sent the inner packet
		e.answer(overlay, quote, &p, o.kind, room)
	}
	return true
}

// carries reports whether packets with these addresses leave from here: those of our
// EIDs, of everybody, or of and to whom an RTR serves.
func (e *egress) carries(o *overlay, p *inner) bool {
	return o.proxyITR && !o.answers || o.isOurs(p.src) || o.relay && (e.view.BehindNAT(o.iid, p.src) || e.view.BehindNAT(o.iid, p.dst))
}

// quotedInner returns what is quoted of an inner packet, nil if too little, and
// its overlay, nil if there is none.
func (f *Forwarder) quotedInner(b []byte, p *inner) (*overlay, []byte) {
	h, err := lisp.ParseDataHeader(b)
	if err != nil {
		return nil, nil
	}
	if next, ok := h.NextProtocol(); ok && next != lisp.NextIPv4 && next != lisp.NextIPv6 {
		return nil, nil // such as a frame
	}
	b = b[dataHeaderLen:]
	if !parseQuoted(b, p) {
		return nil, nil
	}
	iid, tagged := h.InstanceID()
	if !tagged {
		iid = 0 // these bits are Locator-Status-Bits, then
	}
	return f.overlay(iid), b[:p.length]
}

// parseQuoted is parseInner for a packet of which only the beginning is there: at
// least its header and eight octets.
func parseQuoted(b []byte, p *inner) bool {
	h := append([]byte(nil), b[:min(len(b), 60)]...)
	stated := 0
	switch {
	case len(h) >= ipv4HeaderLen+8 && h[0]>>4 == 4:
		stated = int(binary.BigEndian.Uint16(h[2:]))
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	case len(h) >= ipv6HeaderLen+8 && h[0]>>4 == 6:
		stated = ipv6HeaderLen + int(binary.BigEndian.Uint16(h[4:]))
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-ipv6HeaderLen))
	default:
		return false
	}
	if parseInner(h, p) != DropNone {
		return false
	}
	p.length = min(len(b), stated)
	return p.length >= p.headerLen+8
}
