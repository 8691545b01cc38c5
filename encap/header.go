package encap

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	udpHeaderLen  = 8

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	flagDF = 0x4000
	flagMF = 0x2000
)

// inner is what the data plane needs to know of an inner packet's IP header.
type inner struct {
	src, dst  netip.Addr
	length    int // octets, by the header; never more than were there
	headerLen int // octets of IPv4 header with options, or 40
	fragment  uint16
	tos, ttl  uint8
	proto     uint8 // protocol, or first next header
	v6        bool
}

// dontFragment reports whether routers must not fragment the packet: IPv4 with
// DF set, and every IPv6 packet.
func (p *inner) dontFragment() bool { return p.v6 || p.fragment&flagDF != 0 }

// firstFragment reports whether the transport header, if any, is in the packet.
func (p *inner) firstFragment() bool { return p.fragment&0x1fff == 0 }

// parseInner reads the IP header at the start of b. Octets behind the length
// that the header states are not part of the packet. The result is DropNone, or
// the reason why b is not an IP packet.
func parseInner(b []byte, p *inner) DropReason {
	if len(b) < ipv4HeaderLen {
		return DropTruncated
	}
	switch b[0] >> 4 {
	case 4:
		hl := int(b[0]&0x0f) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if hl < ipv4HeaderLen || total < hl {
			return DropMalformed
		}
		if total > len(b) {
			return DropTruncated
		}
		p.src = netip.AddrFrom4([4]byte(b[12:16]))
		p.dst = netip.AddrFrom4([4]byte(b[16:20]))
		p.length = total
		p.headerLen = hl
		p.fragment = binary.BigEndian.Uint16(b[6:])
		p.tos = b[1]
		p.ttl = b[8]
		p.proto = b[9]
		p.v6 = false
	case 6:
		if len(b) < ipv6HeaderLen {
			return DropTruncated
		}
		total := ipv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return DropTruncated
		}
		p.src = netip.AddrFrom16([16]byte(b[8:24]))
		p.dst = netip.AddrFrom16([16]byte(b[24:40]))
		p.length = total
		p.headerLen = ipv6HeaderLen
		p.fragment = 0
		p.tos = b[0]<<4 | b[1]>>4
		p.ttl = b[7]
		p.proto = b[6]
		p.v6 = true
	default:
		return DropVersion
	}
	if p.ttl == 0 {
		return DropTTL
	}
	return DropNone
}

// routable reports whether a packet with these addresses may cross an overlay:
// unicast to unicast, and neither end of link or host scope.
func (p *inner) routable() bool {
	return routableAddr(p.src) && routableAddr(p.dst)
}

func routableAddr(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		switch {
		case b[0] == 0, b[0] == 127: // "this" network, loopback
			return false
		case b[0] == 169 && b[1] == 254: // link-local
			return false
		case b[0]&0xf0 == 224, b == [4]byte{255, 255, 255, 255}: // multicast, broadcast; 240/4 is in use as EID space
			return false
		}
		return true
	}
	b := a.As16()
	if b[0] == 0xff || b[0] == 0xfe && b[1]&0xc0 == 0x80 {
		return false
	}
	// Unspecified, loopback, IPv4-mapped and IPv4-compatible addresses never
	// appear on a wire.
	return binary.BigEndian.Uint64(b[:8]) != 0 || binary.BigEndian.Uint32(b[8:12]) > 0xffff
}

// setTOSTTL rewrites the traffic class and TTL of the packet at the start of b
// and keeps an IPv4 header checksum valid (RFC 1624, equation 3).
func setTOSTTL(b []byte, p *inner, tos, ttl uint8) {
	if p.v6 {
		b[0] = b[0]&0xf0 | tos>>4
		b[1] = b[1]&0x0f | tos<<4
		b[7] = ttl
	} else {
		sum := uint32(^binary.BigEndian.Uint16(b[10:]))
		sum += uint32(^binary.BigEndian.Uint16(b[0:])) + uint32(^binary.BigEndian.Uint16(b[8:]))
		b[1] = tos
		b[8] = ttl
		sum += uint32(binary.BigEndian.Uint16(b[0:])) + uint32(binary.BigEndian.Uint16(b[8:]))
		sum = sum&0xffff + sum>>16
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	}
	p.tos, p.ttl = tos, ttl
}

// lispHeaders counts the LISP data headers that the inner packet already
// carries, as far as they can be seen: 0, 1, or 2 for two and more. RFC 9300 §4
// and §18 recommend no more than two in a packet.
func lispHeaders(b []byte, p *inner) int {
	n := 0
	var next inner
	for n < 2 && p.proto == protoUDP && p.firstFragment() {
		at := p.headerLen
		if len(b) < at+udpHeaderLen+dataHeaderLen || !carriesData(binary.BigEndian.Uint16(b[at+2:])) {
			break
		}
		n++
		b = b[at+udpHeaderLen+dataHeaderLen:]
		if parseInner(b, &next) != DropNone {
			break
		}
		p = &next
	}
	return n
}
