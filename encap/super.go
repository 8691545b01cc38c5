package encap

import (
	"encoding/binary"

	"github.com/xtrkit/xtrkit/internal/virtio"
)

// A tunnel of the kernel on the same host, also in another network namespace or
// virtual machine, leaves work to the receiver's network card: the transport
// checksum of an inner packet holds only the sum of its pseudo-header, and
// several segments of a flow share one inner header and one data header. Both
// reach our socket as they are.

// transport is where the TCP or UDP header of an inner packet is.
type transport struct {
	at       int // offset in the packet
	checksum int // offset of the checksum in the packet
	proto    uint8
	pseudo   uint64 // sum of the pseudo-header
}

// ordinary reports whether the packet b, as almost all, is to be delivered as it
// is: no TCP or UDP packet, or a short one with something else in its checksum
// field than the sum of the pseudo-header. It says no where it would take long
// to tell.
func (p *inner) ordinary(b []byte) bool {
	at := p.headerLen
	switch {
	case p.proto == protoUDP && p.length >= at+udpHeaderLen:
		at += 6
	case p.proto == protoTCP && p.length <= minIPv6MTU && p.length >= at+20:
		at += 16
	default:
		return p.proto != protoTCP && p.proto != protoUDP && (!p.v6 || p.proto != 0 && p.proto != 43 && p.proto != 60)
	}
	s := uint64(p.proto) + uint64(p.length-p.headerLen)
	if p.v6 {
		a := b[8:40:40]
		w, x, y, z := binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(a[16:]), binary.BigEndian.Uint64(a[24:])
		s += w>>32 + w&0xffffffff + x>>32 + x&0xffffffff + y>>32 + y&0xffffffff + z>>32 + z&0xffffffff
	} else {
		a := binary.BigEndian.Uint64(b[12:])
		s += a>>32 + a&0xffffffff
	}
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s) != binary.BigEndian.Uint16(b[at:])
}

// find looks for the TCP or UDP header of the whole packet b. Fragments have
// none here: their checksum was finished when they were cut.
func (t *transport) find(b []byte, p *inner) bool {
	t.proto, t.at = p.proto, p.headerLen
	switch {
	case p.proto == protoTCP || p.proto == protoUDP:
		if p.fragment&^flagDF != 0 {
			return false
		}
	case p.v6 && (p.proto == 0 || p.proto == 43 || p.proto == 60):
		var ok bool
		if t.proto, t.at, ok = ipv6Transport(b); !ok || t.proto != protoTCP && t.proto != protoUDP {
			return false
		}
	default:
		return false
	}
	minLen := udpHeaderLen
	if t.checksum = t.at + 6; t.proto == protoTCP {
		t.checksum, minLen = t.at+16, 20
	}
	if p.length < t.at+minLen {
		return false
	}
	sum := uint64(t.proto) + uint64(p.length-t.at)
	addrs := b[12:20]
	if p.v6 {
		addrs = b[8:40]
	}
	for len(addrs) >= 8 {
		sum += uint64(binary.BigEndian.Uint32(addrs)) + uint64(binary.BigEndian.Uint32(addrs[4:]))
		addrs = addrs[8:]
	}
	t.pseudo = sum
	return true
}

// unfinished reports whether the checksum field holds the sum of the
// pseudo-header alone. By accident so does one checksum in 65536, which is right
// when finished, too.
func (t *transport) unfinished(b []byte) bool {
	return binary.BigEndian.Uint16(b[t.checksum:]) == fold(t.pseudo)
}

// finish computes the checksum of the packet b.
func (t *transport) finish(b []byte) {
	b[t.checksum], b[t.checksum+1] = 0, 0
	c := ^fold(sum(t.pseudo, b[t.at:]))
	if c == 0 && t.proto == protoUDP {
		c = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(b[t.checksum:], c)
}

// deliverVirtio delivers a packet to a VirtioDevice, which finishes checksums and
// takes super-packets as they are.
func (g *ingress) deliverVirtio(o *overlay, b []byte, p *inner) DropReason {
	var t transport
	if !t.find(b, p) {
		g.keepVirtio(o, b, p, nil)
		return DropNone
	}
	unfinished := t.unfinished(b)
	switch {
	case t.proto == protoTCP && p.length > minIPv6MTU && p.length > o.device.MTU():
		if !unfinished && !t.valid(b) {
			return DropChecksum
		}
		header := t.at + int(b[t.at+12]>>4)*4
		size := o.device.MTU() - header
		if g.segment > 0 {
			size = min(size, g.segment)
		}
		if header < t.at+20 || header >= p.length || size <= 0 {
			return DropSuperPacket
		}
		g.writeSuper(o, b, p, &t, header, size)
	case t.proto == protoUDP && g.segment > 0 && unfinished:
		g.writeSuper(o, b, p, &t, t.at+udpHeaderLen, g.segment)
	default:
		if unfinished {
			t.finish(b)
			g.f.c.finished.Add(1)
		}
		g.keepVirtio(o, b, p, &t)
	}
	return DropNone
}

// writeSuper writes the super-packet b, whose payload starts at header and comes
// in segments of size octets, to a VirtioDevice: in its segments if the device takes
// no super-packets of this protocol.
func (g *ingress) writeSuper(o *overlay, b []byte, p *inner, t *transport, header, size int) {
	g.flushMerger()
	h := virtio.Header{
		Flags: virtio.NeedsChecksum, HeaderLen: uint16(header), SegmentSize: uint16(size),
		ChecksumStart: uint16(t.at), ChecksumOffset: uint16(t.checksum - t.at),
	}
	n := (len(b) - header + size - 1) / size
	switch {
	case n <= 1:
		h.HeaderLen, h.SegmentSize = 0, 0
	case t.proto == protoUDP:
		h.GSO = virtio.GSOUDP
	case p.v6:
		h.GSO = virtio.GSOTCPv6
	default:
		h.GSO = virtio.GSOTCPv4
	}
	refusals := g.merge.refusals(t.proto)
	if n <= 1 || *refusals < maxRefused {
		h.Put(g.virtioHead[:])
		binary.BigEndian.PutUint16(b[t.checksum:], fold(t.pseudo))
		g.virtioParts = [2][]byte{g.virtioHead[:], b}
		err := g.writer(o).writeVirtio(g.virtioParts[:])
		switch {
		case err == nil:
			if n > 1 {
				*refusals = 0
			}
			octets := len(b) + (n-1)*header
			g.f.c.segmented.Add(1)
			g.f.c.decapsulated.add(n, octets)
			g.arrived(n, octets)
			return
		case n <= 1:
			g.f.drop(DropDevice)
			return
		}
		*refusals++
	}
	g.deliverSegments(o, b, p, t, header, size, p.tos, p.ttl)
	g.deliver() // before what else is written of the flow
}

// keepVirtio delivers one packet, as a part of a larger one where that is
// possible. t is nil if it is neither TCP nor UDP.
func (g *ingress) keepVirtio(o *overlay, b []byte, p *inner, t *transport) {
	if t == nil || !g.merge.add(o, b, p, t) {
		g.flushMerger()
		g.merge.start(o, b, p, t)
	}
	g.arrived(1, len(b))
}

// flushMerger writes the packets that were merged.
func (g *ingress) flushMerger() {
	m := &g.merge
	if m.to == nil {
		return
	}
	g.f.c.decapsulated.add(len(m.packets), m.octets)
	for range m.flush(g.writer(m.to)) {
		g.f.drop(DropDevice)
	}
}

// deliverTransport delivers a TCP or UDP packet: as it is, with its checksum
// finished, or cut into segments.
func (g *ingress) deliverTransport(o *overlay, b []byte, p *inner, t *transport, tos, ttl uint8) DropReason {
	unfinished := t.unfinished(b)
	switch {
	case t.proto == protoTCP && p.length > minIPv6MTU && p.length > o.device.MTU():
		if !unfinished && fold(sum(t.pseudo, b[t.at:])) != 0xffff {
			return DropChecksum
		}
		header := t.at + int(b[t.at+12]>>4)*4
		size := o.device.MTU() - header
		if g.segment > 0 {
			size = min(size, g.segment)
		}
		if header < t.at+20 || header >= p.length || size <= 0 {
			return DropSuperPacket
		}
		g.deliverSegments(o, b, p, t, header, size, tos, ttl)
	case t.proto == protoUDP && g.segment > 0 && unfinished && p.length > t.at+udpHeaderLen:
		g.deliverSegments(o, b, p, t, t.at+udpHeaderLen, g.segment, tos, ttl)
	default:
		slot := g.deliverLater(o, b, p, tos, ttl)
		if unfinished {
			t.finish(slot)
			g.f.c.finished.Add(1)
		}
	}
	return DropNone
}

// deliverSegments delivers the packet b, whose payload starts at header, in
// segments of size octets of payload.
func (g *ingress) deliverSegments(o *overlay, b []byte, p *inner, t *transport, header, size int, tos, ttl uint8) {
	g.f.c.segmented.Add(1)
	payload := b[header:]
	for i, at := 0, 0; at < len(payload); i++ {
		end := min(at+size, len(payload))
		slot := g.nextSlot(o)[Headroom:]
		n := copy(slot, b[:header])
		n += copy(slot[n:], payload[at:end])
		s := slot[:n]
		part := *p
		part.length = n
		t.segment(s[:header], s[header:], p, i, at, end == len(payload))
		setTOSTTL(s, &part, tos, ttl)
		g.keep(n)
		at = end
	}
}

// segment makes h, a copy of the headers of a super-packet, those of its segment
// number i, whose payload starts at an offset in that of the super-packet.
func (t *transport) segment(h, payload []byte, super *inner, i, at int, last bool) {
	const flagsFINPSH, flagsCWR = 0x09, 0x80
	n := len(h) + len(payload)
	if super.v6 {
		binary.BigEndian.PutUint16(h[4:], uint16(n-ipv6HeaderLen))
	} else {
		binary.BigEndian.PutUint16(h[2:], uint16(n))
		binary.BigEndian.PutUint16(h[4:], binary.BigEndian.Uint16(h[4:])+uint16(i))
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], checksum(h[:super.headerLen]))
	}
	if t.proto == protoTCP {
		binary.BigEndian.PutUint32(h[t.at+4:], binary.BigEndian.Uint32(h[t.at+4:])+uint32(at))
		if !last {
			h[t.at+13] &^= flagsFINPSH
		}
		if i > 0 {
			h[t.at+13] &^= flagsCWR // one reaction to one mark (RFC 3168 §6.1.2)
		}
	} else {
		binary.BigEndian.PutUint16(h[t.at+4:], uint16(n-t.at))
	}
	h[t.checksum], h[t.checksum+1] = 0, 0
	c := ^fold(sum(sum(t.pseudo-uint64(super.length-n), h[t.at:]), payload))
	if c == 0 && t.proto == protoUDP {
		c = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(h[t.checksum:], c)
}
