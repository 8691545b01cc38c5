package encap

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leaveUnfinished makes the transport checksum of a packet what a kernel leaves
// for a network card to finish: the sum of the pseudo-header.
func leaveUnfinished(t testing.TB, b []byte) []byte {
	t.Helper()
	var p inner
	var tr transport
	require.Equal(t, DropNone, parseInner(b, &p))
	require.True(t, tr.find(b, &p))
	binary.BigEndian.PutUint16(b[tr.checksum:], fold(pseudoSum(p.src, p.dst, tr.proto, p.length-tr.at)))
	return b
}

// checksumsOK verifies the header and transport checksums of a packet.
func checksumsOK(t testing.TB, b []byte) {
	t.Helper()
	var p inner
	require.Equal(t, DropNone, parseInner(b, &p))
	require.Len(t, b, p.length)
	at := p.headerLen
	proto := p.proto
	if p.v6 {
		proto, at, _ = ipv6Transport(b)
	} else {
		assert.EqualValues(t, 0xffff, fold(sum(0, b[:at])), "header checksum")
	}
	assert.EqualValues(t, 0xffff, fold(sum(pseudoSum(p.src, p.dst, proto, p.length-at), b[at:])), "transport checksum")
}

func TestUnfinishedChecksum(t *testing.T) {
	// options puts a destination options header in front of the payload.
	options := func(b []byte) []byte {
		out := append(clone(b[:40]), b[6], 0, 1, 4, 0, 0, 0, 0)
		out = append(out, b[40:]...)
		out[6] = 60
		binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
		return out
	}
	tcp4 := packetSpec{src: eidB4, dst: eidA4, proto: layers.IPProtocolTCP, payloadLen: 501}.build()
	for _, tt := range []struct {
		name   string
		packet []byte
	}{
		{"TCP over IPv4", tcp4},
		{"TCP over IPv6", packetSpec{src: eidB6, dst: eidA6, proto: layers.IPProtocolTCP, payloadLen: 501}.build()},
		{"UDP over IPv4", packetSpec{src: eidB4, dst: eidA4, payloadLen: 20}.build()},
		{"UDP over IPv6", packetSpec{src: eidB6, dst: eidA6, payloadLen: 21}.build()},
		{"UDP without payload", packetSpec{src: eidB4, dst: eidA4}.build()},
		{"TCP behind an extension header", options(packetSpec{src: eidB6, dst: eidA6, proto: layers.IPProtocolTCP, payloadLen: 9}.build())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			got := x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, clone(tt.packet)))))
			assert.Equal(t, [][]byte{tt.packet}, got)
			assert.EqualValues(t, 1, x.Stats().Finished)
			// With other outer values too, which change the header.
			in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, clone(tt.packet))))
			in.TTL, in.TOS = 3, 0xb8
			got = x.pull(in)
			require.Len(t, got, 1)
			checksumsOK(t, got[0])

			// What is finished, right or wrong, is not touched.
			wrong := clone(tt.packet)
			wrong[len(wrong)-1] ^= 0x40
			assert.Equal(t, [][]byte{tt.packet, wrong}, x.pull(
				from(rlocB4, rlocA4, encapsulated(0, 0, 0, tt.packet)), from(rlocB4, rlocA4, encapsulated(0, 0, 0, wrong))))
			assert.EqualValues(t, 2, x.Stats().Finished)
			assert.Empty(t, x.drops())
		})
	}

	t.Run("no checksum field to look at", func(t *testing.T) {
		none := packetSpec{src: eidB4, dst: eidA4, payloadLen: 20}.build()
		none[26], none[27] = 0, 0 // UDP without a checksum
		fragment := leaveUnfinished(t, clone(tcp4))
		fragment[6] |= 0x20 // more to come
		binary.BigEndian.PutUint16(fragment[10:], 0)
		binary.BigEndian.PutUint16(fragment[10:], checksum(fragment[:20]))
		short := packetSpec{src: eidB4, dst: eidA4, proto: 200, payloadLen: 7}.build()
		cut := clone(tcp4[:24])
		binary.BigEndian.PutUint16(cut[2:], 24)
		binary.BigEndian.PutUint16(cut[10:], 0)
		binary.BigEndian.PutUint16(cut[10:], checksum(cut[:20]))
		for _, b := range [][]byte{none, fragment, short, cut} {
			x := newA(t, &memNet{}, "")
			assert.Equal(t, [][]byte{b}, x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, b))))
			assert.Zero(t, x.Stats().Finished)
		}
	})
}

// firstSeq makes sequence numbers wrap.
const firstSeq uint32 = 0xfffff000

// superTCP returns a TCP packet of many segments, as one.
func superTCP(src, dst string, n int, flags byte) []byte {
	b := packetSpec{src: src, dst: dst, proto: layers.IPProtocolTCP, id: 0xfffe, df: true, payloadLen: n, ttl: 64}.build()
	at := 20
	if b[0]>>4 == 6 {
		at = 40
	}
	binary.BigEndian.PutUint32(b[at+4:], firstSeq)
	b[at+13] = flags
	return b
}

func TestSuperPacketTCP(t *testing.T) {
	const cwr, psh, ack, fin = 0x80, 0x08, 0x10, 0x01
	for _, tt := range []struct {
		name, src, dst string
		header         int
		segment, size  int // what the kernel says, and what is to come out
	}{
		{"IPv4", eidB4, eidA4, 40, 0, 1404},
		{"IPv6", eidB6, eidA6, 60, 0, 1384},
		{"IPv4, kernel tells the size", eidB4, eidA4, 40, 1000, 1000}, // old kernels do
		{"IPv6, kernel tells a size that does not fit", eidB6, eidA6, 60, 1400, 1384},
		{"kernel tells a size less than a header", eidB4, eidA4, 40, 5, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			x.device.mtu = 1444
			n := max(20*tt.size, 2000) + 100
			whole := superTCP(tt.src, tt.dst, n, cwr|psh|ack|fin)
			in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, clone(whole))))
			in.Segment, in.TTL, in.TOS = tt.segment, 60, 0xb8
			got := x.pull(in)
			require.Len(t, got, (n+tt.size-1)/tt.size)
			var payload []byte
			for i, b := range got {
				checksumsOK(t, b)
				var p inner
				require.Equal(t, DropNone, parseInner(b, &p))
				assert.LessOrEqual(t, len(b), 1444)
				assert.EqualValues(t, 60, p.ttl)
				assert.EqualValues(t, 0xb8, p.tos)
				if !p.v6 {
					assert.Equal(t, uint16(0xfffe+i), binary.BigEndian.Uint16(b[4:]), "identification")
				}
				tcp := b[p.headerLen:]
				assert.Equal(t, firstSeq+uint32(len(payload)), binary.BigEndian.Uint32(tcp[4:]), "sequence number")
				flags := byte(ack)
				if i == 0 {
					flags |= cwr
				}
				if i == len(got)-1 {
					flags |= psh | fin
				}
				assert.Equal(t, flags, tcp[13])
				payload = append(payload, b[tt.header:]...)
			}
			assert.Equal(t, whole[tt.header:], payload)
			assert.EqualValues(t, 1, x.Stats().Segmented)
			assert.EqualValues(t, len(got), x.Stats().Decapsulated.Packets)
			assert.Empty(t, x.drops())
		})
	}

	t.Run("checksum finished", func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		x.device.mtu = 1444
		b := packetSpec{src: eidB4, dst: eidA4, proto: layers.IPProtocolTCP, payloadLen: 5000}.build()
		assert.Len(t, x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, b))), 4)
		b[len(b)-1] ^= 1
		assert.Empty(t, x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, b))))
		assert.Equal(t, map[DropReason]uint64{DropChecksum: 1}, x.drops())
	})
	t.Run("impossible TCP header", func(t *testing.T) {
		for _, offset := range []byte{0x40, 0xf0} { // 16 octets; 60, more than there are
			x := newA(t, &memNet{}, "")
			x.device.mtu = 1300
			b := packetSpec{src: eidB4, dst: eidA4, proto: layers.IPProtocolTCP, payloadLen: 1290}.build()
			b[20+12] = offset
			if offset == 0xf0 {
				x.device.mtu = 70
			}
			assert.Empty(t, x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, b)))), offset)
			assert.Equal(t, map[DropReason]uint64{DropSuperPacket: 1}, x.drops())
		}
	})
}

// A UDP sender of the kernel with UDP_SEGMENT: one inner header, and the GRO
// control message has the size of the inner segments.
func TestSuperPacketUDP(t *testing.T) {
	for _, tt := range []struct {
		src, dst string
		header   int
	}{{eidB4, eidA4, 28}, {eidB6, eidA6, 48}} {
		for _, size := range []int{1, 7, 9, 50, 1200} {
			x := newA(t, &memNet{}, "")
			whole := packetSpec{src: tt.src, dst: tt.dst, sport: 5, dport: 6, payloadLen: 3*size + 1}.build()
			in := from(rlocB4, rlocA4, encapsulated(0x0c, 1, 0, leaveUnfinished(t, clone(whole))))
			if whole[0]>>4 == 6 {
				in.Bytes[3] = 2
			}
			in.Segment = size
			got := x.pull(in)
			want := []int{size, size, size, 1}
			if size == 1 {
				want = []int{1, 1, 1, 1}
			}
			require.Len(t, got, 4, size)
			var payload []byte
			for i, b := range got {
				checksumsOK(t, b)
				assert.Len(t, b, tt.header+want[i])
				assert.EqualValues(t, 8+want[i], binary.BigEndian.Uint16(b[tt.header-4:]))
				payload = append(payload, b[tt.header:]...)
			}
			assert.Equal(t, whole[tt.header:], payload)
			assert.Empty(t, x.drops())
		}
	}

	// With a finished checksum it is one packet, whatever the control message says.
	x := newA(t, &memNet{}, "")
	b := packetSpec{src: eidB4, dst: eidA4, payloadLen: 1000}.build()
	in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, b))
	in.Segment = 300
	assert.Equal(t, [][]byte{b}, x.pull(in))
	// And what claims to be longer than all that came is none.
	in.Bytes = in.Bytes[:len(in.Bytes)-1]
	assert.Empty(t, x.pull(in))
	assert.NotZero(t, x.drops()[DropTruncated])
}

// A datagram without payload in two segments is no super-packet, and not lost.
func TestSuperPacketWithoutPayload(t *testing.T) {
	x := newA(t, &memNet{}, "")
	b := packetSpec{src: eidB4, dst: eidA4}.build()
	in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, clone(b))))
	in.Segment = len(in.Bytes) - 2
	assert.Equal(t, [][]byte{b}, x.pull(in))
	assert.Zero(t, x.Stats().Segmented)
	assert.Empty(t, x.drops())
}

// More segments than the device takes at once.
func TestSuperPacketBatches(t *testing.T) {
	x := newA(t, &memNet{}, "")
	whole := packetSpec{src: eidB4, dst: eidA4, sport: 5, dport: 6, payloadLen: 60000}.build()
	in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, whole)))
	in.Segment = 100
	assert.Len(t, x.pull(in), 600)
	assert.EqualValues(t, 600, x.Stats().Decapsulated.Packets)
	assert.EqualValues(t, 600, x.Stats().Locators[0].In.Packets)
}

// What is passed over without a closer look would not change by it.
func TestOrdinary(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, proto := range []layers.IPProtocol{layers.IPProtocolUDP, layers.IPProtocolTCP, layers.IPProtocolSCTP, 0, 43, 60, 200} {
		for _, e := range [][2]string{{eidB4, eidA4}, {eidB6, eidA6}} {
			passed := 0
			for i := range 300 {
				b := packetSpec{src: e[0], dst: e[1], proto: proto, sport: uint16(r.Uint32()), payloadLen: r.IntN(1800)}.build()
				var p inner
				var tr transport
				require.Equal(t, DropNone, parseInner(b, &p))
				if i%3 == 0 && tr.find(b, &p) {
					leaveUnfinished(t, b)
				}
				if !p.ordinary(b) {
					continue
				}
				passed++
				if tr.find(b, &p) {
					require.False(t, tr.unfinished(b))
					require.False(t, tr.proto == protoTCP && p.length > minIPv6MTU)
				}
			}
			if proto != 0 && proto != 43 && proto != 60 || addr(e[0]).Is4() {
				assert.NotZero(t, passed, "%v %v", proto, e)
			}
		}
	}
}

// A checksum that comes out as 0 stays 0, but for UDP, to which 0 says that there is none.
func TestFinishedChecksumOfZero(t *testing.T) {
	for offset, want := range map[int]uint16{udpChecksum: 0xffff, 16: 0} {
		b := make([]byte, 20)
		b[0], b[1] = 0xff, 0xff // all that is summed up
		require.True(t, finishAt(b, 0, offset))
		assert.Equal(t, want, binary.BigEndian.Uint16(b[offset:])) // RFC 768
	}
	assert.False(t, finishAt(make([]byte, 20), 10, 9), "the checksum is beyond the packet")
}
