package encap

import (
	"encoding/binary"

	"github.com/xtrkit/xtrkit/internal/virtio"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// maxPieces is how many segments of a super-packet are forwarded one by one at once.
const maxPieces = 64

// superPacket is a large TCP or UDP send in one piece, as a VirtioDevice hands it
// over: one decision is made for all its segments, and each gets headers of its
// own while the payload stays where it is.
type superPacket struct {
	b      []byte // with the IP header
	p      inner
	t      transport
	header int // octets before the payload
	size   int // octets of payload in a segment
}

// parse takes b apart as its virtio header says.
func (s *superPacket) parse(b []byte, h virtio.Header) DropReason {
	if why := parseInner(b, &s.p); why != DropNone {
		return why
	}
	b = b[:s.p.length]
	proto, v6 := uint8(protoTCP), s.p.v6
	switch h.GSO {
	case virtio.GSOTCPv4:
		v6 = false
	case virtio.GSOTCPv6:
		v6 = true
	case virtio.GSOUDP:
		proto = protoUDP
	default:
		return DropSuperPacket
	}
	if !s.t.find(b, &s.p) || s.t.proto != proto || s.p.v6 != v6 {
		return DropSuperPacket
	}
	s.b, s.size = b, int(h.SegmentSize)
	if s.header = s.t.at + udpHeaderLen; proto == protoTCP {
		s.header = s.t.at + int(b[s.t.at+12]>>4)*4
		if s.header < s.t.at+20 {
			return DropSuperPacket
		}
	}
	if s.size == 0 || s.header >= len(b) {
		return DropSuperPacket
	}
	return DropNone
}

// segment makes h, a copy of the header of the super-packet, that of its segment
// number i.
func (s *superPacket) segment(h []byte, i int) (payload []byte) {
	at := i * s.size
	payload = s.b[s.header+at:]
	last := len(payload) <= s.size
	if !last {
		payload = payload[:s.size]
	}
	s.t.segment(h, payload, &s.p, i, at, last)
	return payload
}

// segments returns how many segments there are.
func (s *superPacket) segments() int { return (len(s.b) - s.header + s.size - 1) / s.size }

// virtioPacket forwards the packet of n octets at buf[Headroom:], with its virtio
// header before. The buffer must not change until flush.
func (e *egress) virtioPacket(o *overlay, buf []byte, n int) {
	h := virtio.Get(buf[Headroom-virtio.HeaderLen:])
	if h.GSO == virtio.GSONone {
		if h.Flags&virtio.NeedsChecksum != 0 && !finishAt(buf[Headroom:Headroom+n], int(h.ChecksumStart), int(h.ChecksumOffset)) {
			e.f.drop(DropMalformed)
			return
		}
		e.packet(o, buf, n)
		return
	}
	e.lookup() // what came before leaves before
	s := &e.super
	if why := s.parse(buf[Headroom:Headroom+n], h); why != DropNone {
		e.f.drop(why)
		return
	}
	if !e.sendSuper(o) {
		e.splitSuper(o)
	}
}

// udpChecksum is where the checksum is in a UDP header.
const udpChecksum = 6

// finishAt adds what follows start to the checksum, which holds the sum of the
// pseudo-header, as the flag NEEDS_CSUM of virtio wants.
func finishAt(b []byte, start, offset int) bool {
	if start+offset+2 > len(b) {
		return false
	}
	c := ^fold(sum(0, b[start:]))
	if c == 0 && offset == udpChecksum {
		c = 0xffff // 0 says that there is none; to all others it is a checksum like others
	}
	binary.BigEndian.PutUint16(b[start+offset:], c)
	return true
}

// sendSuper adds the segments of e.super to the batch of a locator. It does
// nothing and returns false if they are not simply to be encapsulated.
func (e *egress) sendSuper(o *overlay) bool {
	s := &e.super
	whole := s.header + min(s.size, len(s.b)-s.header)
	out, local := e.last.out, e.last.local
	if !e.last.matches(o, s.b) || whole > e.last.room {
		e.last.packet = nil
		if e.admit(o, s.b, &s.p) != DropNone {
			return false
		}
		hash := mapcache.FlowHash(e.f.cfg.FlowSeed, s.b)
		d := e.view.Forward(o.iid, s.p.dst, hash)
		if d.Verdict != mapcache.Encapsulate {
			return false
		}
		if e.f.hold.busy.Load() != 0 {
			e.letGo(o, s.p.dst)
		}
		w, why := e.way(o, &s.p, hash, &d)
		if why != DropNone || whole > w.room {
			return false
		}
		out, local = &e.alone, w.local
		e.put(out, &w, o, &s.p, hash, &d)
		if followable(s.b, &s.p) && !e.strayed {
			e.last.packet, e.last.local, e.last.room = s.b, local, w.room
		}
	}
	n, size := s.segments(), dataHeaderLen+s.header
	if cap(e.arena)-len(e.arena) < n*size {
		e.arena = make([]byte, 0, max(2*cap(e.arena), n*size)) // earlier headers keep the old one
	}
	for i := range n {
		at := len(e.arena)
		e.arena = e.arena[:at+size]
		b := e.arena[at : at+size : at+size]
		x := e.next(local)
		*x = *out
		lisp.PutDataHeader(b, x.header)
		copy(b[dataHeaderLen:], s.b[:s.header])
		x.Bytes, x.Payload = b, s.segment(b[dataHeaderLen:], i)
		x.TTL, x.TOS = s.p.ttl, s.p.tos
		x.inner = s.header + len(x.Payload)
		e.last.out = x
	}
	return true
}

// splitSuper forwards the segments of e.super one by one.
func (e *egress) splitSuper(o *overlay) {
	s := &e.super
	if e.pieces == nil {
		e.pieces = newSlots(maxPieces)
	}
	for i := range s.segments() {
		slot := e.pieces[i%len(e.pieces)]
		if i > 0 && i%len(e.pieces) == 0 {
			e.flush()
		}
		b := slot[Headroom:]
		n := copy(b, s.b[:s.header])
		n += copy(b[n:], s.segment(b[:s.header], i))
		e.packet(o, slot, n)
	}
	// The next one uses the same slots.
	e.flush()
}

// join puts a packet in two parts into one.
func (o *Outgoing) join(buf []byte) {
	if len(o.Payload) == 0 {
		return
	}
	const at = Headroom - dataHeaderLen
	n := at + copy(buf[at:], o.Bytes)
	n += copy(buf[n:], o.Payload)
	o.Bytes, o.Payload = buf[at:n], nil
}
