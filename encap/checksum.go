package encap

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// sum adds b, as big-endian 16-bit words padded with a zero octet, to a one's
// complement sum. Eight octets at a time: a one's complement sum of 64-bit
// words folds to the same value.
func sum(acc uint64, b []byte) uint64 {
	// In the order of the machine most of the way: it gives the same sum with the
	// octets of each word swapped. Two sums, so that neither waits for the other.
	if len(b) >= 128 {
		var one, two uint64
		for len(b) >= 128 {
			w := (*[128]byte)(b)
			var c uint64
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[0:]), 0)
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[8:]), c)
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[16:]), c)
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[24:]), c)
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[32:]), c)
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[40:]), c)
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[48:]), c)
			one, c = bits.Add64(one, binary.NativeEndian.Uint64(w[56:]), c)
			one, c = bits.Add64(one, 0, c)
			one += c
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[64:]), 0)
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[72:]), c)
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[80:]), c)
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[88:]), c)
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[96:]), c)
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[104:]), c)
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[112:]), c)
			two, c = bits.Add64(two, binary.NativeEndian.Uint64(w[120:]), c)
			two, c = bits.Add64(two, 0, c)
			two += c
			b = b[128:]
		}
		native, c := bits.Add64(one, two, 0)
		native += c
		var words [2]byte
		binary.NativeEndian.PutUint16(words[:], fold(native))
		acc, c = bits.Add64(acc, uint64(binary.BigEndian.Uint16(words[:])), 0)
		acc += c
	}
	for len(b) >= 8 {
		var carry uint64
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		var carry uint64
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(tail[:]), 0)
		acc += carry
	}
	return acc
}

// fold reduces a sum to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// checksum is the Internet checksum of b (RFC 1071).
func checksum(b []byte) uint16 { return ^fold(sum(0, b)) }

// headerOK verifies the checksum of the IPv4 header of n octets at the start of b.
func headerOK(b []byte, n int) bool {
	if n != ipv4HeaderLen {
		return fold(sum(0, b[:n])) == 0xffff
	}
	b = b[:ipv4HeaderLen]
	v, w := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	s := v>>32 + v&0xffffffff + w>>32 + w&0xffffffff + uint64(binary.BigEndian.Uint32(b[16:]))
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return s>>16+s&0xffff == 0xffff
}

// pseudoSum is the sum of the IPv4 or IPv6 pseudo-header.
func pseudoSum(src, dst netip.Addr, proto uint8, length int) uint64 {
	var acc uint64
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		acc = sum(sum(0, s[:]), d[:])
	} else {
		s, d := src.As16(), dst.As16()
		acc = sum(sum(0, s[:]), d[:])
	}
	var tail [8]byte
	binary.BigEndian.PutUint32(tail[:], uint32(length))
	tail[7] = proto
	return sum(acc, tail[:])
}
