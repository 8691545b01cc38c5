package encap

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Packets of one flow have one hash, and so one source port, whatever else
// differs; where there are no ports to see, a flow is a pair of addresses.
func TestHashOfFlows(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4, func(c *nodeConfig) { c.mtu = 9000 })
	hash := func(b []byte) uint32 {
		t.Helper()
		x.push(b)
		out := x.underlay.take()
		require.Len(t, out, 1)
		return out[0].Hash
	}
	for _, e := range [][2]string{{eidA4, eidB4}, {eidA6, eidB6}} {
		base := packetSpec{src: e[0], dst: e[1], sport: 1, dport: 2, payloadLen: 40}
		with := func(change func(*packetSpec)) uint32 {
			s := base
			change(&s)
			return hash(s.build())
		}
		for _, proto := range []layers.IPProtocol{layers.IPProtocolUDP, layers.IPProtocolTCP} {
			base.proto = proto
			want := hash(base.build())
			assert.Equal(t, want, with(func(s *packetSpec) { s.id, s.ttl, s.tos, s.payloadLen = 9, 9, 9, 900 })) // RFC 9300-12-3, 9300-12-4
			assert.NotEqual(t, want, with(func(s *packetSpec) { s.sport = 3 }))
			assert.NotEqual(t, want, with(func(s *packetSpec) { s.dport = 3 }))
		}
		// SCTP: ports are the first four octets.
		base.proto = layers.IPProtocolSCTP
		sctp := base.build()
		at := len(sctp) - 40
		want := hash(sctp)
		other := clone(sctp)
		other[at+30]++
		assert.Equal(t, want, hash(other))
		other[at+1]++
		assert.NotEqual(t, want, hash(other))
		// ICMP, unknown protocols and fragments: addresses.
		base.proto = 200
		want = hash(base.build())
		assert.Equal(t, want, with(func(s *packetSpec) { s.payloadLen = 8 }))
		assert.Equal(t, want, with(func(s *packetSpec) { s.proto, s.id = layers.IPProtocolICMPv4, 5 }))
		base.proto = layers.IPProtocolUDP
		for i, offset := range []uint16{0, 3} {
			b := base.build()
			if b[0]>>4 == 4 {
				binary.BigEndian.PutUint16(b[6:], []uint16{flagMF, offset}[i])
				binary.BigEndian.PutUint16(b[10:], 0)
				binary.BigEndian.PutUint16(b[10:], checksum(b[:20]))
			} else {
				b = append(append(clone(b[:40]), protoUDP, 0, 0, byte(offset<<3)|byte(1-i), 0, 0, 0, 7), b[40:]...)
				b[6] = 44
				binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
			}
			assert.Equal(t, want, hash(b), "fragment %d", i)
		}
	}
	assert.Empty(t, x.drops())
}

// Encapsulation copies the ECN field in every combination, the normal mode of
// RFC 6040 §4.1, and leaves the inner header alone.
func TestECNOfOuterHeader(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	for tos := range 256 {
		for _, e := range [][2]string{{eidA4, eidB4}, {eidA6, eidB6}} {
			b := packetSpec{src: e[0], dst: e[1], tos: uint8(tos), payloadLen: 4}.build()
			x.push(b)
			out := x.underlay.take()
			require.Len(t, out, 1)
			assert.EqualValues(t, tos, out[0].TOS) // RFC 9300-5.3-s6, 9300-5.3-15
			assert.Equal(t, b, out[0].Bytes[8:])
		}
	}
}
