package mapcache

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// IP protocols with ports at the start of their header, and the IPv6 extension
// headers that the flow hash looks behind.
const (
	protoHopByHop = 0
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoAH       = 51
	protoDestOpts = 60
	protoSCTP     = 132
)

// maxExtensions bounds the IPv6 extension headers that FlowHash looks behind.
const maxExtensions = 6

// FlowHash returns the hash of the flow that an IPv4 or IPv6 packet belongs to
// (RFC 9300 §12). Both data planes use it, so it is defined exactly:
//
//	FlowHash = jhash2(words, seed)
//
// where jhash2 is Bob Jenkins' lookup3 over 32-bit words (hashword, Linux
// <linux/jhash.h>) and words are the network-order 32-bit words of
//
//	IPv4: source, destination, ports, protocol          (4 words)
//	IPv6: source (4), destination (4), ports, protocol  (10 words)
//
// ports is source port<<16 | destination port. For TCP, UDP and SCTP protocol is
// the IP protocol number. Everything else hashes by addresses alone, with ports
// and protocol 0: other protocols, fragments (first ones too, so that all
// fragments of a packet agree), and packets cut before the end of their ports.
//
// Behind the IPv6 header up to six Hop-by-Hop, Routing, Destination Options,
// Authentication and atomic Fragment headers (offset 0 and no more fragments)
// are skipped; a packet with more hashes by addresses.
//
// What is not IPv4 or IPv6, or shorter than its fixed header, has hash 0.
func FlowHash(seed uint32, packet []byte) uint32 {
	if len(packet) == 0 {
		return 0
	}
	switch packet[0] >> 4 {
	case 4:
		if len(packet) < 20 {
			return 0
		}
		ports, proto := ports4(packet)
		return hash4(seed, be32(packet[12:]), be32(packet[16:]), ports, proto)
	case 6:
		if len(packet) < 40 {
			return 0
		}
		ports, proto := ports6(packet)
		return hash6(seed, packet[8:24], packet[24:40], ports, proto)
	}
	return 0
}

// FlowHashTuple returns what [FlowHash] gives for a packet of that 5-tuple. Ports
// count only if proto is TCP (6), UDP (17) or SCTP (132); any other value hashes
// by addresses, as fragments do. IPv4-mapped addresses count as IPv4. Addresses
// of two families have hash 0.
func FlowHashTuple(seed uint32, src, dst netip.Addr, proto uint8, srcPort, dstPort uint16) uint32 {
	src, dst = src.Unmap(), dst.Unmap()
	ports, word := uint32(srcPort)<<16|uint32(dstPort), uint32(proto)
	if !hasPorts(proto) {
		ports, word = 0, 0
	}
	switch {
	case src.Is4() && dst.Is4():
		s, d := src.As4(), dst.As4()
		return hash4(seed, be32(s[:]), be32(d[:]), ports, word)
	case src.Is6() && dst.Is6():
		s, d := src.As16(), dst.As16()
		return hash6(seed, s[:], d[:], ports, word)
	}
	return 0
}

func hasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP
}

// ports4 returns the last two words of the hash input of an IPv4 packet.
func ports4(p []byte) (ports, proto uint32) {
	const fragmented = 0x3fff // more fragments, or an offset
	at := int(p[0]&15) * 4
	if !hasPorts(p[9]) || binary.BigEndian.Uint16(p[6:])&fragmented != 0 || at < 20 || len(p) < at+4 {
		return 0, 0
	}
	return be32(p[at:]), uint32(p[9])
}

// ports6 returns the last two words of the hash input of an IPv6 packet.
func ports6(p []byte) (ports, proto uint32) {
	next, at := p[6], 40
	for range maxExtensions + 1 {
		if hasPorts(next) {
			if len(p) < at+4 {
				return 0, 0
			}
			return be32(p[at:]), uint32(next)
		}
		if len(p) < at+8 {
			return 0, 0
		}
		switch next {
		case protoHopByHop, protoRouting, protoDestOpts:
			next, at = p[at], at+(int(p[at+1])+1)*8
		case protoAH:
			next, at = p[at], at+(int(p[at+1])+2)*4
		case protoFragment:
			if binary.BigEndian.Uint16(p[at+2:])&0xfff9 != 0 {
				return 0, 0
			}
			next, at = p[at], at+8
		default:
			return 0, 0
		}
	}
	return 0, 0
}

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// jhashInit is JHASH_INITVAL of <linux/jhash.h>.
const jhashInit = 0xdeadbeef

// hash4 is jhash2 over four words.
func hash4(seed, src, dst, ports, proto uint32) uint32 {
	a := jhashInit + 4<<2 + seed
	b, c := a, a
	a, b, c = jhashMix(a+src, b+dst, c+ports)
	return jhashFinal(a+proto, b, c)
}

// hash6 is jhash2 over ten words; src and dst have 16 octets.
func hash6(seed uint32, src, dst []byte, ports, proto uint32) uint32 {
	_, _ = src[15], dst[15]
	a := jhashInit + 10<<2 + seed
	b, c := a, a
	a, b, c = jhashMix(a+be32(src), b+be32(src[4:]), c+be32(src[8:]))
	a, b, c = jhashMix(a+be32(src[12:]), b+be32(dst), c+be32(dst[4:]))
	a, b, c = jhashMix(a+be32(dst[8:]), b+be32(dst[12:]), c+ports)
	return jhashFinal(a+proto, b, c)
}

// jhash is jhash2 over any number of words.
func jhash(seed uint32, words ...uint32) uint32 {
	a := jhashInit + uint32(len(words))<<2 + seed
	b, c := a, a
	for len(words) > 3 {
		a, b, c = jhashMix(a+words[0], b+words[1], c+words[2])
		words = words[3:]
	}
	switch len(words) {
	case 3:
		c += words[2]
		fallthrough
	case 2:
		b += words[1]
		fallthrough
	case 1:
		return jhashFinal(a+words[0], b, c)
	}
	return c
}

func jhashMix(a, b, c uint32) (uint32, uint32, uint32) {
	a -= c
	a ^= bits.RotateLeft32(c, 4)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 6)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 8)
	b += a
	a -= c
	a ^= bits.RotateLeft32(c, 16)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 19)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

func jhashFinal(a, b, c uint32) uint32 {
	c ^= b
	c -= bits.RotateLeft32(b, 14)
	a ^= c
	a -= bits.RotateLeft32(c, 11)
	b ^= a
	b -= bits.RotateLeft32(a, 25)
	c ^= b
	c -= bits.RotateLeft32(b, 16)
	a ^= c
	a -= bits.RotateLeft32(c, 4)
	b ^= a
	b -= bits.RotateLeft32(a, 14)
	c ^= b
	c -= bits.RotateLeft32(b, 24)
	return c
}
