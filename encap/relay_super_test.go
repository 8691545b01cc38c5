package encap

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRelayUnfinished: what a tunnel of the kernel on the same host has left to the
// receiver is done before a packet is sent on, since nobody behind the RTR can tell.
func TestRelayUnfinished(t *testing.T) {
	for _, proto := range []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP} {
		for _, room := range []bool{false, true} {
			x := newRelay(t)
			spec := packetSpec{src: natted1, dst: natted2v4, ttl: 64, proto: proto, payloadLen: 501}
			out := x.relayed(received(from(nat1, rtr4, encapsulated(0, 0, 0, leaveUnfinished(t, spec.build()))), room))
			require.Len(t, out, 1)
			spec.ttl = 63
			assert.Equal(t, encapsulated(0, 0, 0, spec.build()), out[0].Bytes)
			assert.EqualValues(t, 1, x.Stats().Finished)
			wrong := spec.build()
			wrong[len(wrong)-1] ^= 1
			x.relayed(from(nat1, rtr4, encapsulated(0, 0, 0, wrong)))
			assert.EqualValues(t, 1, x.Stats().Finished, "what is finished, right or wrong, is not touched")
			assert.Empty(t, x.drops())
		}
	}
}

// TestRelaySuperPackets: several segments of a flow behind one header leave as
// packets that fit any of our links, or as large as the kernel says.
func TestRelaySuperPackets(t *testing.T) {
	const perSegment = 1500 - overhead6 // the smallest that is left of our links
	for _, tt := range []struct {
		name, src, dst string
		proto          layers.IPProtocol
		segment, size  int
	}{
		{"TCP over IPv4", natted1, natted2v4, layers.IPProtocolTCP, 0, perSegment - 40},
		{"TCP over IPv6", natted2, natted2, layers.IPProtocolTCP, 0, perSegment - 60},
		{"TCP, the kernel tells the size", natted1, natted2v4, layers.IPProtocolTCP, 1000, 1000},
		{"TCP, the kernel tells one that does not fit", natted1, natted2v4, layers.IPProtocolTCP, 2000, perSegment - 40},
		{"UDP", natted1, natted2v4, layers.IPProtocolUDP, 1200, 1200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newRelay(t)
			n := min(100*tt.size+7, 60000) // more packets than the RTR sends at once
			whole := packetSpec{src: tt.src, dst: tt.dst, ttl: 64, tos: 2, df: true, proto: tt.proto, payloadLen: n}.build()
			header := len(whole) - n
			in := from(nat1, rtr4, encapsulated(0, 0, 0, leaveUnfinished(t, clone(whole))))
			in.Segment, in.TTL, in.TOS = tt.segment, 9, 0xb8|ecnCE
			out := x.relayed(in)
			require.Len(t, out, (n+tt.size-1)/tt.size)
			var payload []byte
			for i := range out {
				b := out[i].Bytes[dataHeaderLen:]
				checksumsOK(t, b)
				var p inner
				require.Equal(t, DropNone, parseInner(b, &p))
				assert.EqualValues(t, 8, p.ttl)
				assert.EqualValues(t, 0xb8|ecnCE, p.tos)
				assert.Equal(t, netip.MustParseAddrPort("198.51.100.2:20002"), out[i].Remote)
				if tt.proto == layers.IPProtocolTCP {
					at := p.headerLen + 4
					assert.Equal(t, binary.BigEndian.Uint32(whole[at:])+uint32(len(payload)), binary.BigEndian.Uint32(b[at:]))
				}
				payload = append(payload, b[header:]...)
			}
			assert.Equal(t, whole[header:], payload)
			assert.EqualValues(t, 1, x.Stats().Segmented)
			assert.EqualValues(t, len(out), x.Stats().Encapsulated.Packets)
			assert.Empty(t, x.drops())
		})
	}
}

// TestRelaySuperPacketsRefused: damaged ones are dropped as one.
func TestRelaySuperPacketsRefused(t *testing.T) {
	whole := packetSpec{src: natted1, dst: natted2v4, ttl: 64, proto: layers.IPProtocolTCP, payloadLen: 8000}.build()
	wrong := clone(whole)
	wrong[5000] ^= 1
	header := leaveUnfinished(t, clone(whole))
	header[32] = 0x40 // a TCP header of 16 octets
	other := packetSpec{src: public, dst: public, ttl: 64, proto: layers.IPProtocolTCP, payloadLen: 8000}.build()
	for _, tt := range []struct {
		name string
		b    []byte
		want DropReason
	}{{"checksum", wrong, DropChecksum}, {"header", header, DropSuperPacket}, {"not registered", other, DropNotRelayed}} {
		x := newRelay(t)
		assert.Empty(t, x.relayed(from(nat1, rtr4, encapsulated(0, 0, 0, tt.b))), tt.name)
		assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops(), tt.name)
	}
}
