package encap

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseInner(t *testing.T) {
	v4 := packetSpec{src: "10.0.0.1", dst: "10.0.0.2", tos: 0x2e, ttl: 9, df: true, payloadLen: 10}.build()
	v6 := packetSpec{src: "fd00::1", dst: "fd00::2", tos: 0x2e, ttl: 9, payloadLen: 10}.build()
	change := func(b []byte, f func([]byte)) []byte {
		b = clone(b)
		f(b)
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want DropReason
	}{
		{"IPv4", v4, DropNone},
		{"IPv6", v6, DropNone},
		{"IPv4 with octets behind it", append(clone(v4), 1, 2, 3), DropNone},
		{"IPv6 with octets behind it", append(clone(v6), 1, 2, 3), DropNone},
		{"nothing", nil, DropTruncated},
		{"IPv4 header cut", v4[:19], DropTruncated},
		{"IPv4 payload cut", v4[:len(v4)-1], DropTruncated},
		{"IPv6 header cut", v6[:39], DropTruncated},
		{"IPv6 payload cut", v6[:len(v6)-1], DropTruncated},
		{"version 5", change(v4, func(b []byte) { b[0] = 0x55 }), DropVersion},
		{"IHL 4", change(v4, func(b []byte) { b[0] = 0x44 }), DropMalformed},
		{"total length below header", change(v4, func(b []byte) { b[2], b[3] = 0, 19 }), DropMalformed},
		{"IPv4 TTL 0", change(v4, func(b []byte) { b[8] = 0 }), DropTTL},
		{"IPv6 hop limit 0", change(v6, func(b []byte) { b[7] = 0 }), DropTTL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p inner
			require.Equal(t, tt.want, parseInner(tt.b, &p))
			if tt.want != DropNone {
				return
			}
			assert.EqualValues(t, 0x2e, p.tos)
			assert.EqualValues(t, 9, p.ttl)
			assert.EqualValues(t, protoUDP, p.proto)
			assert.True(t, p.dontFragment())
			assert.True(t, p.firstFragment())
			assert.True(t, p.routable())
			if p.v6 {
				assert.Equal(t, len(v6), p.length)
				assert.Equal(t, addr("fd00::1"), p.src)
				assert.Equal(t, addr("fd00::2"), p.dst)
			} else {
				assert.Equal(t, len(v4), p.length)
				assert.Equal(t, addr("10.0.0.1"), p.src)
				assert.Equal(t, addr("10.0.0.2"), p.dst)
			}
		})
	}
}

func TestRoutableAddr(t *testing.T) {
	for _, s := range []string{"10.0.0.1", "192.0.2.1", "240.0.0.1", "128.0.0.0", "fd00::1", "2001:db8::1", "64:ff9b::192.0.2.1", "::1:0:0:1"} {
		assert.True(t, routableAddr(addr(s)), s)
	}
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.255.255.255", "255.255.255.255",
		"::", "::1", "fe80::1", "febf::1", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1",
	} {
		assert.False(t, routableAddr(addr(s)), s)
	}
}

// TestECN is the whole table of RFC 6040 Figure 4.
func TestECN(t *testing.T) {
	const drop = 0xff
	names := map[uint8]string{0: "Not-ECT", 1: "ECT(1)", 2: "ECT(0)", 3: "CE"}
	for _, tt := range []struct {
		inner, outer, want uint8
		odd                bool
	}{
		{0, 0, 0, false},
		{0, 2, 0, true},
		{0, 1, 0, true},
		{0, 3, drop, true},
		{2, 0, 2, false},
		{2, 2, 2, false},
		{2, 1, 1, false},
		{2, 3, 3, false},
		{1, 0, 1, false},
		{1, 2, 1, true},
		{1, 1, 1, false},
		{1, 3, 3, false},
		{3, 0, 3, false},
		{3, 2, 3, false},
		{3, 1, 3, true},
		{3, 3, 3, false},
	} {
		const innerDSCP, outerDSCP = 0x20, 0xb8
		tos, odd, ok := decapTOS(innerDSCP|tt.inner, outerDSCP|tt.outer)
		name := "inner " + names[tt.inner] + " outer " + names[tt.outer]
		assert.Equal(t, tt.want != drop, ok, name) // RFC 9300-5.3-18, 9300-5.3-s6
		assert.Equal(t, tt.odd, odd, name)
		if ok {
			assert.Equal(t, outerDSCP|tt.want, tos, name) // RFC 9300-5.3-17 with the outer DSCP
		}
	}
}

func TestDecapTTL(t *testing.T) {
	for _, tt := range []struct{ inner, outer, want uint8 }{
		{64, 60, 60}, {64, 64, 64}, {64, 255, 64}, {1, 255, 1}, {255, 1, 1},
	} {
		assert.Equal(t, tt.want, decapTTL(tt.inner, tt.outer)) // RFC 9300-5.3-16
	}
}

func TestSetTOSTTL(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		spec := packetSpec{src: "10.0.0.1", dst: "10.0.0.2", tos: uint8(r.Uint32()), ttl: uint8(r.Uint32())%255 + 1, id: uint16(r.Uint32()), payloadLen: r.IntN(50)}
		if r.IntN(2) == 0 {
			spec.src, spec.dst = "fd00::1", "fd00::2"
		}
		b := spec.build()
		spec.tos, spec.ttl = uint8(r.Uint32()), uint8(r.Uint32())%255+1
		var p inner
		require.Equal(t, DropNone, parseInner(b, &p))
		setTOSTTL(b, &p, spec.tos, spec.ttl)
		want := spec.build()
		if !p.v6 {
			// 0 and ffff are the same number in one's complement.
			require.EqualValues(t, 0xffff, fold(sum(0, b[:20])))
			copy(b[10:12], want[10:12])
		}
		require.Equal(t, want, b)
		require.Equal(t, spec.tos, p.tos)
		require.Equal(t, spec.ttl, p.ttl)
	}
}

func TestChecksum(t *testing.T) {
	naive := func(b []byte) uint16 {
		var s uint32
		for i := 0; i < len(b); i += 2 {
			w := uint32(b[i]) << 8
			if i+1 < len(b) {
				w |= uint32(b[i+1])
			}
			s += w
		}
		for s > 0xffff {
			s = s>>16 + s&0xffff
		}
		return ^uint16(s)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		assert.Equal(t, naive(b), checksum(b), n)
		for i := range b {
			b[i] = 0xff
		}
		assert.Equal(t, naive(b), checksum(b), n)
	}
}

func TestLISPHeaders(t *testing.T) {
	plain := packetSpec{src: "10.0.0.1", dst: "10.0.0.2", sport: 1, dport: 2, payloadLen: 4}.build()
	wrap := func(src, dst string, port uint16, b []byte) []byte {
		payload := encapsulated(0, 0, 0, b)
		out := packetSpec{src: src, dst: dst, sport: 5, dport: port, payloadLen: len(payload)}.build()
		copy(out[len(out)-len(payload):], payload)
		return out
	}
	one := wrap("192.0.2.1", "192.0.2.2", 4341, plain)
	two := wrap("2001:db8::1", "2001:db8::2", 4341, one)
	three := wrap("198.51.100.1", "198.51.100.2", 4341, two)
	for _, tt := range []struct {
		name string
		b    []byte
		want int
	}{
		{"none", plain, 0},
		{"one", one, 1},
		{"two", two, 2},
		{"three count as two", three, 2},
		{"other port", wrap("192.0.2.1", "192.0.2.2", 4342, one), 0},
		{"other port inside", wrap("192.0.2.1", "192.0.2.2", 4341, wrap("192.0.2.3", "192.0.2.4", 53, plain)), 1},
	} {
		var p inner
		require.Equal(t, DropNone, parseInner(tt.b, &p), tt.name)
		assert.Equal(t, tt.want, lispHeaders(tt.b, &p), tt.name)
	}
}

func TestFragments(t *testing.T) {
	options := []layers.IPv4Option{
		{OptionType: 1},
		{OptionType: 0x94, OptionLength: 4, OptionData: []byte{0, 0}},       // router alert: copied
		{OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}}, // record route: first only
	}
	for _, tt := range []struct {
		name    string
		spec    packetSpec
		mtu     int
		parts   int // 0: can't be cut
		largest int
	}{
		// RFC 9300-7.1-s1, 9300-7.1-2: two equal parts.
		{"just over", packetSpec{payloadLen: 1465}, 1464, 2, 764},
		{"two parts", packetSpec{payloadLen: 2000}, 1464, 2, 1028},
		{"many parts", packetSpec{payloadLen: 65000}, 1464, 46, 1436},
		{"smallest MTU", packetSpec{payloadLen: 100}, 68, 3, 60},
		{"options", packetSpec{payloadLen: 2000, options: options}, 1464, 2, 1040},
		{"DF", packetSpec{payloadLen: 2000, df: true}, 1464, 0, 0},
		{"no room", packetSpec{payloadLen: 2000}, 27, 0, 0},
		{"negative room", packetSpec{payloadLen: 2000}, -8, 0, 0},
		{"IPv6", packetSpec{src: "fd00::1", dst: "fd00::2", payloadLen: 2000}, 1464, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.spec.src == "" {
				tt.spec.src, tt.spec.dst = "10.0.0.1", "10.0.0.2"
			}
			tt.spec.id = 77
			b := tt.spec.build()
			var p inner
			require.Equal(t, DropNone, parseInner(b, &p))
			var f fragments
			ok := f.split(b, &p, tt.mtu)
			require.Equal(t, tt.parts > 0, ok)
			require.Len(t, f.sizes, tt.parts)
			if !ok {
				return
			}
			largest := 0
			for _, n := range f.sizes {
				largest = max(largest, n)
			}
			assert.Equal(t, tt.largest, largest)
			assert.LessOrEqual(t, largest, tt.mtu)
			require.Equal(t, b[p.headerLen:], reassemble(t, &f, b))

			// Fragments of a fragment: offsets add up, MF stays.
			if len(f.sizes) < 2 || f.sizes[0] < 100 {
				return
			}
			var first, last inner
			part := clone(f.slots[0][Headroom : Headroom+f.sizes[0]])
			n := len(f.sizes) - 1
			tail := clone(f.slots[n][Headroom : Headroom+f.sizes[n]])
			require.Equal(t, DropNone, parseInner(part, &first))
			require.Equal(t, DropNone, parseInner(tail, &last))
			require.True(t, f.split(part, &first, 80))
			for i := range f.sizes {
				assert.NotZero(t, binary.BigEndian.Uint16(f.slots[i][Headroom+6:])&flagMF, "a middle fragment stays one")
			}
			require.True(t, f.split(tail, &last, 80))
			assert.Equal(t, last.fragment&0x1fff, binary.BigEndian.Uint16(f.slots[0][Headroom+6:])&0x1fff)
		})
	}
}

// A fragment that reaches beyond the largest packet is not cut: its parts would have
// offsets that begin anew, and flags that nobody set.
func TestFragmentBeyondTheLargestPacket(t *testing.T) {
	for _, tt := range []struct {
		offset, payloadLen int
		ok                 bool
	}{
		{8189, 23 - 8, true}, // to octet 65535
		{8189, 24 - 8, false},
		{8191, 1400, false},
		{8000, 2000, false},
	} {
		b := packetSpec{src: "10.0.0.1", dst: "10.0.0.2", payloadLen: tt.payloadLen}.build()
		binary.BigEndian.PutUint16(b[6:], uint16(tt.offset))
		var p inner
		require.Equal(t, DropNone, parseInner(b, &p))
		var f fragments
		require.Equal(t, tt.ok, f.split(b, &p, 28), "%+v", tt)
		for i := range f.sizes {
			fragment := binary.BigEndian.Uint16(f.slots[i][Headroom+6:])
			assert.EqualValues(t, tt.offset+i, fragment&0x1fff)
			assert.Equal(t, i < len(f.sizes)-1, fragment&flagMF != 0)
		}
	}
}

// reassemble puts fragments together and checks their headers.
func reassemble(t *testing.T, f *fragments, whole []byte) []byte {
	t.Helper()
	var payload []byte
	for i, size := range f.sizes {
		b := f.slots[i][Headroom : Headroom+size]
		var p inner
		require.Equal(t, DropNone, parseInner(b, &p))
		require.Equal(t, size, p.length)
		require.EqualValues(t, 0xffff, fold(sum(0, b[:p.headerLen])), "header checksum")
		require.EqualValues(t, len(payload)/8, p.fragment&0x1fff)
		require.Equal(t, i < len(f.sizes)-1, p.fragment&flagMF != 0)
		require.Equal(t, whole[4:6], b[4:6], "identification")
		require.Equal(t, whole[12:20], b[12:20], "addresses")
		if i > 0 && whole[0] != 0x45 {
			require.Equal(t, []byte{0x94, 4, 0, 0}, b[20:p.headerLen], "copied options only")
		}
		payload = append(payload, b[p.headerLen:]...)
	}
	return payload
}

func TestCopiedOptions(t *testing.T) {
	h := func(options ...byte) []byte {
		b := append(make([]byte, 20), options...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want int
	}{
		{"none", h(), 20},
		{"end at once", h(0, 0x94, 4, 0), 20},
		{"copied", h(0x94, 4, 0, 0), 24},
		{"not copied", h(7, 4, 4, 0), 20},
		{"length 0", h(0x94, 0, 0, 0), 20},
		{"length beyond the header", h(0x94, 40, 0, 0), 20},
		{"no length", h(1, 1, 1, 0x94), 20},
		{"padded", h(0x94, 3, 9, 1), 24},
	} {
		assert.Equal(t, tt.want, copiedOptions(tt.in), tt.name)
	}
}

func TestOverhead(t *testing.T) {
	assert.Equal(t, 36, Overhead(addr("192.0.2.1")))
	assert.Equal(t, 36, Overhead(addr("::ffff:192.0.2.1")))
	assert.Equal(t, 56, Overhead(addr("2001:db8::1")))
}

func TestSourcePort(t *testing.T) {
	seen := make([]int, 16)
	for h := range uint32(16000) {
		p := sourcePort(h<<4, len(seen))
		seen[p]++
		assert.Equal(t, p, sourcePort(h<<4, len(seen))) // RFC 9300-12-3, 9300-12-4
	}
	for _, n := range seen {
		assert.InDelta(t, 1000, n, 300)
	}
	assert.Zero(t, sourcePort(0xffffffff, 1))
}

func TestEIDSet(t *testing.T) {
	var s eidSet
	for i := range byte(20) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, 0, 0}), 16)
		s.add(p)
		for j := range byte(20) {
			assert.Equal(t, j <= i, s.contains(netip.AddrFrom4([4]byte{10, j, 1, 1})))
		}
	}
	assert.False(t, s.contains(addr("fd00::1")))
}

func TestHeaderOK(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 5000 {
		b := make([]byte, 24)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		for _, n := range []int{20, 24} {
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], checksum(b[:n]))
			require.True(t, headerOK(b, n))
			bad := clone(b)
			bad[r.IntN(n)] ^= 1 << r.IntN(8)
			require.False(t, headerOK(bad, n))
		}
	}
}
