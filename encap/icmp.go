package encap

import (
	"encoding/binary"
	"net/netip"
)

// icmpKind is what an ICMP error says; the wire values differ by family.
type icmpKind uint8

const (
	icmpUnreachable  icmpKind = iota // host or address unreachable
	icmpProhibited                   // the mapping system denies the flow
	icmpTooBig                       // Fragmentation Needed, Packet Too Big
	icmpTimeExceeded                 // TTL or hop limit exceeded in transit
)

// Most octets of an ICMP error: RFC 1812 §4.3.2.3 and RFC 4443 §2.4 (c).
const (
	icmp4MaxLen = 576
	icmp6MaxLen = 1280
	icmpMaxLen  = icmp6MaxLen
)

// icmpTTL is the TTL and hop limit of ICMP errors made here.
const icmpTTL = 64

// Multicast destinations may still cause a Packet Too Big (RFC 4443 §2.4 (e)),
// but they never enter the overlay, so they need no exception here.

// mayAnswer reports whether an ICMP error about the packet is allowed: never
// about an ICMP error, a fragment other than the first, or a packet that does
// not come from and go to a single host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
func mayAnswer(b []byte, p *inner) bool {
	if !p.routable() || !p.firstFragment() {
		return false
	}
	if !p.v6 {
		if p.proto != protoICMP {
			return true
		}
		if p.length <= p.headerLen {
			return false
		}
		switch b[p.headerLen] {
		case 0, 8, 9, 10, 13, 14, 15, 16, 17, 18: // queries and replies
			return true
		}
		return false
	}
	proto, at, ok := ipv6Transport(b[:p.length])
	if !ok {
		return false
	}
	if proto != protoICMPv6 {
		return true
	}
	return at < p.length && b[at]&0x80 != 0 // errors are types 0..127
}

// ipv6Transport walks the extension headers of the IPv6 packet b. It returns
// the first header that is not one, and its offset; ok is false for a fragment
// other than the first and for a chain that ends outside b or is absurdly long.
func ipv6Transport(b []byte) (proto uint8, at int, ok bool) {
	proto, at = b[6], ipv6HeaderLen
	for range 16 {
		switch proto {
		case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination options, mobility, HIP, shim6
			if at+8 > len(b) {
				return 0, 0, false
			}
			proto, at = b[at], at+8+int(b[at+1])*8
		case 44: // fragment
			if at+8 > len(b) || binary.BigEndian.Uint16(b[at+2:])&0xfff8 != 0 {
				return 0, 0, false
			}
			proto, at = b[at], at+8
		case 51: // authentication
			if at+8 > len(b) {
				return 0, 0, false
			}
			proto, at = b[at], at+8+int(b[at+1])*4
		default:
			return proto, at, at <= len(b)
		}
	}
	return 0, 0, false
}

// appendICMP appends to out a complete IP packet with an ICMP error about the
// packet b, which must be one that mayAnswer allows, and returns it. from must be of
// its family. mtu is only used with icmpTooBig.
func appendICMP(out []byte, b []byte, p *inner, from netip.Addr, kind icmpKind, mtu int) []byte {
	b = b[:p.length]
	if p.v6 {
		return appendICMPv6(out, b, p, from, kind, mtu)
	}
	quote := b[:min(len(b), icmp4MaxLen-ipv4HeaderLen-8)]
	start := len(out)
	src, dst := from.As4(), p.src.As4()
	out = append(out,
		0x45, 0xc0, 0, 0, // precedence internetwork control (RFC 1812 §4.3.2.5)
		0, 0, 0, 0,
		icmpTTL, protoICMP, 0, 0)
	out = append(out, src[:]...)
	out = append(out, dst[:]...)
	typ, code := byte(3), byte(0)
	switch kind {
	case icmpUnreachable:
		code = 1 // host unreachable
	case icmpProhibited:
		code = 13
	case icmpTooBig:
		code = 4
	case icmpTimeExceeded:
		typ = 11
	}
	out = append(out, typ, code, 0, 0, 0, 0, 0, 0)
	out = append(out, quote...)
	ip := out[start:]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:ipv4HeaderLen]))
	msg := ip[ipv4HeaderLen:]
	if kind == icmpTooBig {
		binary.BigEndian.PutUint16(msg[6:], uint16(min(max(mtu, minIPv4MTU), 0xffff))) // RFC 1191 §4
	}
	binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	return out
}

func appendICMPv6(out []byte, b []byte, p *inner, from netip.Addr, kind icmpKind, mtu int) []byte {
	quote := b[:min(len(b), icmp6MaxLen-ipv6HeaderLen-8)]
	start := len(out)
	src, dst := from.As16(), p.src.As16()
	out = append(out, 0x60, 0, 0, 0, 0, 0, protoICMPv6, icmpTTL)
	out = append(out, src[:]...)
	out = append(out, dst[:]...)
	typ, code := byte(1), byte(0)
	switch kind {
	case icmpUnreachable:
		code = 3 // address unreachable
	case icmpProhibited:
		code = 1
	case icmpTooBig:
		typ, code = 2, 0
	case icmpTimeExceeded:
		typ, code = 3, 0
	}
	out = append(out, typ, code, 0, 0, 0, 0, 0, 0)
	out = append(out, quote...)
	ip := out[start:]
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ipv6HeaderLen))
	msg := ip[ipv6HeaderLen:]
	if kind == icmpTooBig {
		binary.BigEndian.PutUint32(msg[4:], uint32(max(mtu, minIPv6MTU)))
	}
	binary.BigEndian.PutUint16(msg[2:], ^fold(sum(pseudoSum(from, p.src, protoICMPv6, len(msg)), msg)))
	return out
}
