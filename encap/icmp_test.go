package encap

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestICMP(t *testing.T) {
	for _, tt := range []struct {
		name       string
		v6         bool
		kind       icmpKind
		mtu        int
		payload    int
		typ, code  uint8
		wantMTU    int
		wantLength int
	}{
		// RFC 9300-7.1-s2, 9301-5.4-4
		{"IPv4 too big", false, icmpTooBig, 1464, 1472, 3, 4, 1464, 576},
		{"IPv4 unreachable", false, icmpUnreachable, 0, 10, 3, 1, 0, 20 + 8 + 38},
		{"IPv4 prohibited", false, icmpProhibited, 0, 10, 3, 13, 0, 20 + 8 + 38},
		{"IPv4 time exceeded", false, icmpTimeExceeded, 0, 1472, 11, 0, 0, 576},
		{"IPv6 time exceeded", true, icmpTimeExceeded, 0, 10, 3, 0, 0, 40 + 8 + 58},
		{"IPv6 too big", true, icmpTooBig, 1444, 1472, 2, 0, 1444, 1280},
		{"IPv6 too big, never below 1280", true, icmpTooBig, 1000, 1472, 2, 0, 1280, 1280},
		{"IPv6 unreachable", true, icmpUnreachable, 0, 10, 1, 3, 0, 40 + 8 + 58},
		{"IPv6 prohibited", true, icmpProhibited, 0, 10, 1, 1, 0, 40 + 8 + 58},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := packetSpec{src: "10.1.0.1", dst: "10.2.0.1", sport: 7, dport: 9, payloadLen: tt.payload, df: true}
			first := layers.LayerTypeIPv4
			if tt.v6 {
				spec.src, spec.dst = "fd00:1::1", "fd00:2::1"
				first = layers.LayerTypeIPv6
			}
			b := spec.build()
			var p inner
			require.Equal(t, DropNone, parseInner(b, &p))
			require.True(t, mayAnswer(b, &p))
			out := appendICMP(make([]byte, Headroom), b, &p, p.dst, tt.kind, tt.mtu)
			require.NotNil(t, out)
			out = out[Headroom:]
			require.Len(t, out, tt.wantLength)

			var q inner
			require.Equal(t, DropNone, parseInner(out, &q))
			assert.Equal(t, p.src, q.dst)
			assert.Equal(t, p.dst, q.src)
			pk := gopacket.NewPacket(out, first, gopacket.Default)
			require.Nil(t, pk.ErrorLayer())
			if tt.v6 {
				icmp := pk.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
				assert.Equal(t, layers.CreateICMPv6TypeCode(tt.typ, tt.code), icmp.TypeCode)
				assert.EqualValues(t, tt.wantMTU, binary.BigEndian.Uint32(icmp.Payload))
				assert.Equal(t, b[:len(out)-48], out[48:], "quoted packet")
				assert.EqualValues(t, 0xffff, fold(sum(pseudoSum(q.src, q.dst, protoICMPv6, len(out)-40), out[40:])), "checksum")
			} else {
				icmp := pk.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
				assert.Equal(t, layers.CreateICMPv4TypeCode(tt.typ, tt.code), icmp.TypeCode)
				assert.EqualValues(t, tt.wantMTU, icmp.Seq)
				assert.Equal(t, b[:len(out)-28], out[28:], "quoted packet")
				assert.EqualValues(t, 0xffff, fold(sum(0, out[:20])), "header checksum")
				assert.EqualValues(t, 0xffff, fold(sum(0, out[20:])), "checksum")
			}
		})
	}
}

// Nothing may answer an ICMP error, a later fragment, or a packet that is not
// from one host to one host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
func TestICMPNever(t *testing.T) {
	v4 := packetSpec{src: "10.1.0.1", dst: "10.2.0.1", payloadLen: 20}
	v6 := packetSpec{src: "fd00:1::1", dst: "fd00:2::1", payloadLen: 20}
	icmp4, icmp6 := v4, v6
	icmp4.proto, icmp6.proto = layers.IPProtocolICMPv4, layers.IPProtocolICMPv6
	typed := func(b []byte, at int, typ byte) []byte {
		b[at] = typ
		return b
	}
	with := func(b []byte, f func([]byte)) []byte {
		f(b)
		return b
	}
	// extended puts an extension header in front of the payload.
	extended := func(b []byte, next byte, header ...byte) []byte {
		out := append(clone(b[:40]), header...)
		out[40] = b[6]
		out[6] = next
		out = append(out, b[40:]...)
		binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
		return out
	}
	for _, tt := range []struct {
		name   string
		b      []byte
		answer bool
	}{
		{"UDP", v4.build(), true},
		{"UDP over IPv6", v6.build(), true},
		{"echo request", icmp4.build(), true},
		{"echo request over IPv6", icmp6.build(), true},
		{"echo reply", typed(icmp4.build(), 20, 0), true},
		{"unreachable", typed(icmp4.build(), 20, 3), false},
		{"redirect", typed(icmp4.build(), 20, 5), false},
		{"time exceeded", typed(icmp4.build(), 20, 11), false},
		{"unknown ICMP type", typed(icmp4.build(), 20, 200), false},
		{"ICMP without type", with(icmp4.build()[:20], func(b []byte) { b[2], b[3] = 0, 20 }), false},
		{"unreachable over IPv6", typed(icmp6.build(), 40, 1), false},
		{"too big over IPv6", typed(icmp6.build(), 40, 2), false},
		{"unknown ICMPv6 error", typed(icmp6.build(), 40, 100), false},
		{"first fragment", with(v4.build(), func(b []byte) { b[6] = 0x20 }), true},
		{"later fragment", with(v4.build(), func(b []byte) { b[7] = 1 }), false},
		{"IPv6 first fragment", extended(v6.build(), 44, 0, 0, 0, 1, 0, 0, 0, 1), true},
		{"IPv6 later fragment", extended(v6.build(), 44, 0, 0, 1, 0, 0, 0, 0, 1), false},
		{"error behind options", extended(typed(icmp6.build(), 40, 1), 60, 0, 0, 1, 4, 0, 0, 0, 0), false},
		{"echo behind options", extended(icmp6.build(), 60, 0, 0, 1, 4, 0, 0, 0, 0), true},
		{"echo behind authentication", extended(icmp6.build(), 51, 0, 0, 0, 0, 0, 0, 0, 0), true},
		{"options beyond the packet", extended(v6.build(), 60, 0, 200, 1, 4, 0, 0, 0, 0), false},
		{"from multicast", packetSpec{src: "224.0.0.1", dst: "10.2.0.1"}.build(), false},
		{"to multicast", packetSpec{src: "10.1.0.1", dst: "224.0.0.1"}.build(), false},
		{"from nowhere", packetSpec{src: "::", dst: "fd00:2::1"}.build(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p inner
			require.Equal(t, DropNone, parseInner(tt.b, &p))
			assert.Equal(t, tt.answer, mayAnswer(tt.b, &p))
		})
	}
}

// FuzzICMP makes errors about anything.
func FuzzICMP(f *testing.F) {
	f.Add(packetSpec{src: "10.1.0.1", dst: "10.2.0.1", payloadLen: 1000}.build(), 1400)
	f.Add(packetSpec{src: "fd00:1::1", dst: "fd00:2::1", proto: layers.IPProtocolICMPv6}.build(), 70000)
	f.Add(packetSpec{src: "10.1.0.1", dst: "10.2.0.1", proto: layers.IPProtocolICMPv4}.build(), -1)
	f.Fuzz(func(t *testing.T, b []byte, mtu int) {
		var p, q inner
		if parseInner(b, &p) != DropNone || !mayAnswer(b, &p) {
			return
		}
		for kind := range icmpTimeExceeded + 1 {
			out := appendICMP(nil, b, &p, p.dst, kind, mtu)
			require.Equal(t, DropNone, parseInner(out, &q))
			require.Equal(t, len(out), q.length)
			require.Equal(t, p.src, q.dst)
			require.Equal(t, p.dst, q.src)
			require.False(t, mayAnswer(out, &q), "no error about an error")
			if q.v6 {
				require.LessOrEqual(t, len(out), icmp6MaxLen)
				require.Equal(t, b[:len(out)-48], out[48:])
				require.EqualValues(t, 0xffff, fold(sum(pseudoSum(q.src, q.dst, protoICMPv6, len(out)-40), out[40:])))
			} else {
				require.LessOrEqual(t, len(out), icmp4MaxLen)
				require.Equal(t, b[:len(out)-28], out[28:])
				require.EqualValues(t, 0xffff, fold(sum(0, out[:20])))
				require.EqualValues(t, 0xffff, fold(sum(0, out[20:])))
			}
		}
	})
}
