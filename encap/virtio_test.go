package encap

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/virtio"
)

// memVirtio is a VirtioDevice in memory.
type memVirtio struct {
	*memDevice
	written [][]byte // with their virtio headers
	refuse  bool     // super-packets
	discard bool

	refusals int
	behind   int // packets that Write had taken, at the last of written
}

func (*memVirtio) HasVirtio() bool { return true }

func (d *memVirtio) ReadVirtio(bufs [][]byte, sizes []int, offset int) (int, error) {
	return d.Read(bufs, sizes, offset)
}

func (d *memVirtio) WriteVirtio(parts [][]byte) error {
	if d.discard {
		return nil
	}
	b := slices.Concat(parts...)
	if d.refuse && virtio.Get(b).GSO != virtio.GSONone {
		d.refusals++
		return errors.New("refused")
	}
	d.written, d.behind = append(d.written, b), len(d.out)
	return nil
}

// take returns the packets written, which must be whole, and how many super-packets
// were among them.
func (d *memVirtio) take() (packets [][]byte, super int) {
	for _, w := range d.written {
		if virtio.Get(w).GSO != virtio.GSONone {
			super++
		}
		packets = append(packets, w[virtio.HeaderLen:])
	}
	d.written = nil
	return packets, super
}

// newVirtio is a node with a VirtioDevice.
func newVirtio(t testing.TB, rlocB string, change ...func(*nodeConfig)) (*node, *memVirtio) {
	d := &memVirtio{memDevice: newMemDevice("lmn0")}
	x := newA(t, &memNet{}, rlocB, append(change, func(c *nodeConfig) {
		inner := c.change
		c.change = func(cfg *Config) {
			if inner != nil {
				inner(cfg)
			}
			cfg.Overlays[0].Device = d
		}
	})...)
	return x, d
}

// stream is a packet of a large send, or the whole of it: made by gopacket.
type stream struct {
	src, dst string
	udp      bool
	id       uint16
	seq, ack uint32
	psh, fin bool
	window   uint16
	tos      uint8
	mayFrag  bool
	zeroSum  bool
	ts       byte // of the timestamp option
	payload  []byte
}

func (s stream) build(t testing.TB) []byte {
	src, dst := netip.MustParseAddr(s.src), netip.MustParseAddr(s.dst)
	proto := layers.IPProtocolTCP
	if s.udp {
		proto = layers.IPProtocolUDP
	}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	if src.Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 64, TOS: s.tos, Id: s.id, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		if !s.mayFrag {
			v4.Flags = layers.IPv4DontFragment
		}
		ip = v4
	} else {
		ip = &layers.IPv6{Version: 6, HopLimit: 64, TrafficClass: s.tos, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	var l4 gopacket.SerializableLayer
	if s.udp {
		udp := &layers.UDP{SrcPort: 1000, DstPort: 2000}
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
		l4 = udp
	} else {
		tcp := &layers.TCP{
			SrcPort: 1000, DstPort: 2000, Seq: s.seq, Ack: s.ack, ACK: true, PSH: s.psh, FIN: s.fin, Window: s.window,
			Options: []layers.TCPOption{
				{OptionType: layers.TCPOptionKindNop},
				{OptionType: layers.TCPOptionKindNop},
				{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{s.ts, 2, 3, 4, 5, 6, 7, 8}},
			},
		}
		require.NoError(t, tcp.SetNetworkLayerForChecksum(ip))
		l4 = tcp
	}
	buf := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, l4, gopacket.Payload(s.payload)))
	b := clone(buf.Bytes())
	if s.zeroSum {
		binary.BigEndian.PutUint16(b[len(b)-len(s.payload)-2:], 0)
	}
	return b
}

// cut returns the segments of s as a host would send them one by one.
func (s stream) cut(t testing.TB, size int) (segments [][]byte) {
	for i, at := 0, 0; at < len(s.payload); i, at = i+1, at+size {
		end := min(at+size, len(s.payload))
		x := s
		x.id += uint16(i)
		x.seq += uint32(at)
		x.payload = s.payload[at:end]
		if end < len(s.payload) {
			x.psh, x.fin = false, false
		}
		segments = append(segments, x.build(t))
	}
	return segments
}

// super returns the buffer in which a device hands over s in one piece.
func (s stream) super(t testing.TB, size int) (buf []byte, n int) {
	b := leaveUnfinished(t, s.build(t))
	h := virtio.Header{Flags: virtio.NeedsChecksum, SegmentSize: uint16(size), ChecksumStart: 20, ChecksumOffset: 16, GSO: virtio.GSOTCPv4}
	if b[0]>>4 == 6 {
		h.ChecksumStart, h.GSO = 40, virtio.GSOTCPv6
	}
	if s.udp {
		h.ChecksumOffset, h.GSO = 6, virtio.GSOUDP
	}
	buf = make([]byte, Headroom, Headroom+len(b))
	h.Put(buf[Headroom-virtio.HeaderLen:])
	return append(buf, b...), len(b)
}

func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// sends are large sends of all kinds from A to B.
func sends() map[string]stream {
	return map[string]stream{
		"TCP, IPv4":  {src: eidA4, dst: eidB4, id: 0xfffe, seq: 0xfffffff0, ack: 9, psh: true, window: 77, tos: 2, payload: bytesOf(4*1001 + 13)},
		"TCP, IPv6":  {src: eidA6, dst: eidB6, seq: 5, ack: 9, window: 77, fin: true, payload: bytesOf(4 * 1001)},
		"UDP, IPv4":  {src: eidA4, dst: eidB4, id: 3, udp: true, payload: bytesOf(4*1001 + 1)},
		"UDP, IPv6":  {src: eidA6, dst: eidB6, udp: true, payload: bytesOf(4 * 1001)},
		"fragmented": {src: eidA4, dst: eidB4, id: 3, udp: true, mayFrag: true, payload: bytesOf(3 * 1001)},
	}
}

// payloads returns the inner packets that were sent.
func payloads(sent []Outgoing) (packets [][]byte) {
	for _, o := range sent {
		packets = append(packets, o.Bytes[dataHeaderLen:])
	}
	return packets
}

// A large send in one piece leaves as the packets that it would have been.
func TestSuperPacketLeaves(t *testing.T) {
	for name, s := range sends() {
		t.Run(name, func(t *testing.T) {
			x, _ := newVirtio(t, rlocB4)
			e := newEgress(x.Forwarder)
			want := s.cut(t, 1001)
			e.begin()
			for range 3 { // the second and third follow the first
				buf, n := s.super(t, 1001)
				e.virtioPacket(x.overlays[0], buf, n)
			}
			e.flush()
			sent := x.underlay.take()
			assert.Equal(t, slices.Concat(want, want, want), payloads(sent))
			for _, o := range sent {
				assert.Equal(t, sent[0].Hash, o.Hash)
				assert.EqualValues(t, 64, o.TTL)
				assert.Equal(t, s.tos, o.TOS)
			}
			assert.EqualValues(t, 3*len(want), x.Stats().Encapsulated.Packets)
			octets := 0
			for _, b := range want {
				octets += 3 * len(b)
			}
			assert.EqualValues(t, octets, x.Stats().Encapsulated.Octets)
			assert.Equal(t, [NumDropReasons]uint64{}, x.Stats().Drops)
		})
	}
}

// What is not simply encapsulated goes its way segment by segment.
func TestSuperPacketSplit(t *testing.T) {
	s := sends()["TCP, IPv4"]
	t.Run("held", func(t *testing.T) {
		x, _ := newVirtio(t, "")
		e := newEgress(x.Forwarder)
		buf, n := s.super(t, 1001)
		e.begin()
		e.virtioPacket(x.overlays[0], buf, n)
		e.flush()
		assert.Empty(t, x.underlay.take())
		assert.Equal(t, 5, x.Stats().HeldNow)
		x.learn(t, 0, eidB4+"/32", rlocB4)
		assert.Equal(t, s.cut(t, 1001), payloads(x.underlay.take()))
	})
	t.Run("too big", func(t *testing.T) {
		x, d := newVirtio(t, rlocB4, func(c *nodeConfig) { c.mtu = 1000 })
		e := newEgress(x.Forwarder)
		buf, n := s.super(t, 1001)
		e.begin()
		e.virtioPacket(x.overlays[0], buf, n)
		e.flush()
		assert.Equal(t, s.cut(t, 1001)[4:], payloads(x.underlay.take()), "the last one is short")
		answer := d.next(t)
		assert.EqualValues(t, 1000-36, binary.BigEndian.Uint16(answer[26:]))
		assert.EqualValues(t, 4, x.Stats().Drops[DropTooBig])
	})
	t.Run("path MTU learned on sending", func(t *testing.T) {
		x, d := newVirtio(t, rlocB4, func(c *nodeConfig) { c.pathMTU = 1000 })
		e := newEgress(x.Forwarder)
		buf, n := s.super(t, 1001)
		e.begin()
		e.virtioPacket(x.overlays[0], buf, n)
		e.flush()
		answer := d.next(t)
		assert.Equal(t, s.cut(t, 1001)[0][:500], answer[28:][:500], "the whole packet is quoted")
	})
	t.Run("more segments than slots", func(t *testing.T) {
		x, _ := newVirtio(t, "")
		s := stream{src: eidA4, dst: eidB4, id: 7, udp: true, payload: bytesOf(maxPieces*30 + 7)}
		e := newEgress(x.Forwarder)
		x.learn(t, 0, eidB4+"/32", rlocB4)
		buf, n := s.super(t, 30)
		e.begin()
		require.Equal(t, DropNone, e.super.parse(buf[Headroom:Headroom+n], virtio.Get(buf[Headroom-virtio.HeaderLen:])))
		e.splitSuper(x.overlays[0])
		assert.Equal(t, s.cut(t, 30), payloads(x.underlay.take()))
	})
}

// A single packet's checksum is finished; nonsense is dropped.
func TestVirtioHeaders(t *testing.T) {
	x, _ := newVirtio(t, rlocB4)
	e := newEgress(x.Forwarder)
	s := stream{src: eidA4, dst: eidB4, udp: true, payload: bytesOf(99)}
	send := func(change func(h *virtio.Header, b []byte)) [][]byte {
		buf, n := s.super(t, 10)
		h := virtio.Get(buf[Headroom-virtio.HeaderLen:])
		change(&h, buf[Headroom:])
		h.Put(buf[Headroom-virtio.HeaderLen:])
		e.begin()
		e.virtioPacket(x.overlays[0], buf, n)
		e.flush()
		return payloads(x.underlay.take())
	}
	assert.Equal(t, [][]byte{s.build(t)}, send(func(h *virtio.Header, _ []byte) { h.GSO = virtio.GSONone }))
	for i, tt := range []struct {
		change func(h *virtio.Header, b []byte)
		why    DropReason
	}{
		{func(h *virtio.Header, _ []byte) { h.GSO, h.ChecksumStart = virtio.GSONone, 0xffff }, DropMalformed},
		{func(h *virtio.Header, _ []byte) { h.GSO = 3 }, DropSuperPacket},
		{func(h *virtio.Header, _ []byte) { h.GSO = virtio.GSOTCPv4 }, DropSuperPacket},
		{func(h *virtio.Header, _ []byte) { h.SegmentSize = 0 }, DropSuperPacket},
		{func(_ *virtio.Header, b []byte) { b[3]++ }, DropTruncated},
		{func(_ *virtio.Header, b []byte) { b[9] = 47 }, DropSuperPacket},
		{func(_ *virtio.Header, b []byte) { b[2], b[3] = 0, 28 }, DropSuperPacket},
	} {
		before := x.Stats().Drops[tt.why]
		assert.Empty(t, send(tt.change), "case %d", i)
		assert.Equal(t, before+1, x.Stats().Drops[tt.why], "case %d", i)
	}
	s.udp = false
	before := x.Stats().Drops[DropSuperPacket]
	assert.Empty(t, send(func(_ *virtio.Header, b []byte) { b[32] = 0 }), "TCP header length 0")
	assert.Empty(t, send(func(h *virtio.Header, _ []byte) { h.GSO = virtio.GSOTCPv6 }))
	assert.Equal(t, before+2, x.Stats().Drops[DropSuperPacket])
}

// reverse makes what A sends what A gets.
func (s stream) reverse() stream {
	s.src, s.dst = s.dst, s.src
	return s
}

// arrive has packets arrive in one piece of n octets each, from B.
func arrive(x *node, packets ...[]byte) {
	g := newIngress(x.Forwarder, x.underlay)
	in := from(rlocB4, rlocA4, nil)
	for _, p := range packets {
		in.Bytes = append(in.Bytes, encapsulated(0, 0, 0, p)...)
	}
	in.Segment, in.HasTOS = dataHeaderLen+len(packets[0]), false
	g.receive([]Incoming{in})
}

// Segments that arrive together are written as the large send that they were.
func TestMerge(t *testing.T) {
	for name, s := range sends() {
		s = s.reverse()
		s.fin = false
		for _, forwards := range []bool{false, true} {
			x, d := newVirtio(t, "", func(c *nodeConfig) {
				if forwards {
					c.eids = []string{eidA4 + "/24", eidA6 + "/64"}
				}
			})
			arrive(x, s.cut(t, 1001)...)
			require.Len(t, d.written, 1, name)
			h, b := virtio.Get(d.written[0]), d.written[0][virtio.HeaderLen:]
			assert.EqualValues(t, 1001, h.SegmentSize)
			if s.udp || forwards {
				assert.EqualValues(t, virtio.NeedsChecksum, h.Flags)
				require.True(t, finishAt(b, int(h.ChecksumStart), int(h.ChecksumOffset)))
			} else {
				assert.Zero(t, h.Flags, "the host verifies")
			}
			assert.Equal(t, s.build(t), b, name)
			assert.EqualValues(t, len(s.cut(t, 1001)), x.Stats().Decapsulated.Packets)
			assert.Equal(t, [NumDropReasons]uint64{}, x.Stats().Drops)
		}
	}
}

// A wrong checksum never becomes right by merging.
func TestMergeKeepsWrongChecksums(t *testing.T) {
	for name, s := range sends() {
		s = s.reverse()
		s.fin = false
		for which := range 3 {
			for _, forwards := range []bool{false, true} {
				x, d := newVirtio(t, "", func(c *nodeConfig) {
					if forwards {
						c.eids = []string{eidA4 + "/24", eidA6 + "/64"}
					}
				})
				segments := s.cut(t, 1001)
				segments[which][len(segments[which])-5] ^= 0x10
				arrive(x, segments...)
				if s.udp || forwards {
					packets, _ := d.take()
					assert.Contains(t, packets, segments[which], "%s %d: as it came", name, which)
					continue
				}
				require.Len(t, d.written, 1)
				b := d.written[0][virtio.HeaderLen:]
				var p inner
				var tr transport
				require.Equal(t, DropNone, parseInner(b, &p))
				require.True(t, tr.find(b, &p))
				assert.False(t, tr.valid(b), "%s %d", name, which)
			}
		}
	}
}

func TestNotMerged(t *testing.T) {
	tcp := stream{src: eidB4, dst: eidA4, id: 7, seq: 100, ack: 9, window: 77, payload: bytesOf(500)}
	udp := stream{src: eidB4, dst: eidA4, id: 7, udp: true, payload: bytesOf(500)}
	next := func(s stream, change func(*stream)) stream {
		s.id++
		s.seq += uint32(len(s.payload))
		change(&s)
		return s
	}
	for i, tt := range []struct {
		first, second stream
		merged        bool
	}{
		{tcp, next(tcp, func(*stream) {}), true},
		{tcp, next(tcp, func(s *stream) { s.id = 99 }), true}, // means nothing beside DF
		{tcp, next(tcp, func(s *stream) { s.seq++ }), false},
		{tcp, next(tcp, func(s *stream) { s.ack++ }), false},
		{tcp, next(tcp, func(s *stream) { s.window++ }), false},
		{tcp, next(tcp, func(s *stream) { s.ts++ }), false},
		{tcp, next(tcp, func(s *stream) { s.fin = true }), false},
		{tcp, next(tcp, func(s *stream) { s.tos = 2 }), false},
		{tcp, next(tcp, func(s *stream) { s.mayFrag = true }), false},
		{tcp, next(tcp, func(s *stream) { s.payload = bytesOf(501) }), false},
		{tcp, next(tcp, func(s *stream) { s.payload = nil }), false},
		{tcp, next(udp, func(*stream) {}), false},
		{next(tcp, func(s *stream) { s.psh = true }), next(next(tcp, func(*stream) {}), func(*stream) {}), false},
		{udp, next(udp, func(*stream) {}), true},
		{udp, next(udp, func(s *stream) { s.zeroSum = true }), false},
		{next(udp, func(s *stream) { s.mayFrag = true }), next(next(udp, func(s *stream) { s.mayFrag = true }), func(s *stream) { s.id = 99 }), false},
	} {
		x, d := newVirtio(t, "")
		a, b := tt.first.build(t), tt.second.build(t)
		g := newIngress(x.Forwarder, x.underlay)
		g.receive([]Incoming{from(rlocB4, rlocA4, encapsulated(0, 0, 0, clone(a))), from(rlocB4, rlocA4, encapsulated(0, 0, 0, clone(b)))})
		packets, super := d.take()
		if tt.merged {
			assert.Equal(t, 1, super, "case %d", i)
			assert.Len(t, packets, 1, "case %d", i)
			continue
		}
		require.Len(t, packets, 2, "case %d", i)
		assert.Zero(t, super)
		assert.Equal(t, a[len(a)-500:], packets[0][len(a)-500:], "case %d", i)
		assert.Len(t, packets[1], len(b), "case %d", i)
	}
}

// A device that refuses super-packets gets the packets one by one.
func TestMergeRefused(t *testing.T) {
	s := sends()["TCP, IPv4"].reverse()
	x, d := newVirtio(t, "")
	d.refuse = true
	arrive(x, s.cut(t, 1001)...)
	packets, super := d.take()
	assert.Zero(t, super)
	assert.Equal(t, s.cut(t, 1001), packets)
	assert.Equal(t, [NumDropReasons]uint64{}, x.Stats().Drops)

	// After some time it is not tried any more, for this protocol.
	g := newIngress(x.Forwarder, x.underlay)
	in := func(s stream) Incoming {
		in := from(rlocB4, rlocA4, nil)
		for _, p := range s.cut(t, 1001) {
			in.Bytes = append(in.Bytes, encapsulated(0, 0, 0, p)...)
		}
		in.Segment, in.HasTOS = len(encapsulated(0, 0, 0, s.cut(t, 1001)[0])), false
		return in
	}
	tries := 0
	for range maxRefused + 3 {
		d.refusals = 0
		g.receive([]Incoming{in(s)})
		tries += d.refusals
	}
	assert.Equal(t, maxRefused, tries)
	d.take()
	d.refuse = false
	udp := sends()["UDP, IPv4"].reverse()
	g.receive([]Incoming{in(s), in(udp)})
	packets, super = d.take()
	assert.Equal(t, 1, super)
	assert.Len(t, packets, len(s.cut(t, 1001))+1)
}

// What a kernel's tunnel leaves to its receiver is left to the host.
func TestUnfinishedToVirtio(t *testing.T) {
	for name, s := range sends() {
		s = s.reverse()
		x, d := newVirtio(t, "", func(c *nodeConfig) { c.mtu = 1500 })
		d.mtu = 1460
		g := newIngress(x.Forwarder, x.underlay)
		in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, s.build(t))))
		in.Segment, in.HasTOS = 1001, false
		g.receive([]Incoming{in})
		require.Len(t, d.written, 1, name)
		h, b := virtio.Get(d.written[0]), d.written[0][virtio.HeaderLen:]
		assert.EqualValues(t, 1001, h.SegmentSize, name)
		require.True(t, finishAt(b, int(h.ChecksumStart), int(h.ChecksumOffset)))
		assert.Equal(t, s.build(t), b, name)
		assert.EqualValues(t, 1, x.Stats().Segmented)
		assert.EqualValues(t, len(s.cut(t, 1001)), x.Stats().Decapsulated.Packets)
	}
}

// A device that refuses super-packets gets the segments of what a kernel's tunnel
// leaves to its receiver, in order with what comes after, and in the end at once.
func TestUnfinishedToVirtioRefused(t *testing.T) {
	for name, s := range sends() {
		s = s.reverse()
		x, d := newVirtio(t, "", func(c *nodeConfig) { c.mtu = 1500 })
		d.mtu, d.refuse = 1460, true
		g := newIngress(x.Forwarder, x.underlay)
		in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, leaveUnfinished(t, s.build(t))))
		in.Segment, in.HasTOS = 1001, false
		want := s.cut(t, 1001)
		for i := range maxRefused + 3 {
			one := in
			one.Bytes = clone(in.Bytes)
			g.receive([]Incoming{one, from(rlocB4, rlocA4, encapsulated(0, 0, 0, want[0]))})
			after, _ := d.take()
			assert.Equal(t, want[:1], after, name)
			assert.Equal(t, len(want), d.behind, name)
			var got [][]byte
			for range want {
				got = append(got, d.next(t))
			}
			require.Equal(t, want, got, name)
			assert.Equal(t, min(i+1, maxRefused), d.refusals, name)
		}
		assert.Empty(t, x.drops(), name)
		assert.EqualValues(t, maxRefused+3, x.Stats().Segmented, name)
		assert.EqualValues(t, (maxRefused+3)*(len(want)+1), x.Stats().Decapsulated.Packets, name)
	}
}

func TestVirtioAllocatesNothing(t *testing.T) {
	s := sends()["TCP, IPv4"]
	x, d := newVirtio(t, rlocB4, func(c *nodeConfig) {
		c.change = func(cfg *Config) { cfg.Underlay = sink{cfg.Underlay.(*memUnderlay)} }
	})
	d.discard = true
	e := newEgress(x.Forwarder)
	buf, n := s.super(t, 1001)
	out := func() {
		e.begin()
		e.virtioPacket(x.overlays[0], buf, n)
		e.flush()
	}
	out()
	out()
	assert.Zero(t, testing.AllocsPerRun(100, out))

	g := newIngress(x.Forwarder, x.underlay)
	in := from(rlocB4, rlocA4, nil)
	for _, p := range s.reverse().cut(t, 1001) {
		in.Bytes = append(in.Bytes, encapsulated(0, 0, 0, p)...)
	}
	in.Segment, in.HasTOS = dataHeaderLen+52+1001, false
	batch := []Incoming{in}
	receive := func() { g.receive(batch) }
	receive()
	receive()
	assert.Zero(t, testing.AllocsPerRun(100, receive))
	assert.Equal(t, [NumDropReasons]uint64{}, x.Stats().Drops)
}
