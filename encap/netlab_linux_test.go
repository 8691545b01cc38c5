package encap

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// wire is the network of the tests in namespaces: a -- r -- b, with our data
// plane on a and b and its frames between r and b on record.
type wire struct {
	lab     *netlab.Lab
	a, r, b *netlab.Host
	toA, b0 *netlab.Link

	mu     sync.Mutex
	frames [][]byte
}

func newWire(t *testing.T, mtu int) *wire {
	t.Helper()
	w := &wire{lab: netlab.Test(t, netlab.IPv6)}
	w.a, w.r, w.b = w.lab.Host("a"), w.lab.Router("r"), w.lab.Host("b")
	w.toA = w.lab.Link(w.a, w.r, netlab.LinkConfig{
		A: netlab.At("198.51.100.2/24", "2001:db8:a::2/64"), B: netlab.At("198.51.100.1/24", "2001:db8:a::1/64"),
	})
	w.b0 = w.lab.Link(w.b, w.r, netlab.LinkConfig{
		A: netlab.At("203.0.113.2/24", "2001:db8:b::2/64"), B: netlab.At("203.0.113.1/24", "2001:db8:b::1/64"),
		MTU: mtu, Drop: func(_ bool, frame []byte) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.frames = append(w.frames, clone(frame))
			return false
		},
	})
	w.a.DefaultVia("198.51.100.1", "2001:db8:a::1")
	w.b.DefaultVia("203.0.113.1", "2001:db8:b::1")
	return w
}

// seen returns the frames on record that match.
func (w *wire) seen(match func(gopacket.Packet) bool) []gopacket.Packet {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ps []gopacket.Packet
	for _, f := range w.frames {
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		if match(p) {
			ps = append(ps, p)
		}
	}
	return ps
}

func isData(p gopacket.Packet) bool {
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	return ok && udp.DstPort == 4341
}

// start runs a Forwarder on a host.
func (w *wire) start(t *testing.T, link *netlab.Link, eids []string, udp UDPConfig, mappings ...mapcache.Mapping) (*memDevice, *Forwarder) {
	t.Helper()
	cache := mapcache.New(mapcache.Config{})
	for _, m := range mappings {
		m.TTL = time.Hour
		require.NoError(t, cache.Insert(time.Now(), m))
	}
	cache.Publish()
	dev := newMemDevice("lmn0")
	var f *Forwarder
	require.NoError(t, link.A.Host.Do(func() error {
		u, err := NewUDP(udp)
		require.NoError(t, err)
		native, err := NewNative()
		require.NoError(t, err)
		o := Overlay{Device: dev}
		for _, e := range eids {
			o.EIDs = append(o.EIDs, prefix(e))
		}
		icmp, err := NewICMP()
		require.NoError(t, err)
		f, err = NewForwarder(Config{Overlays: []Overlay{o}, View: cache.View, Underlay: u, Native: native, ICMP: icmp})
		require.NoError(t, err)
		var ls []mapcache.Local
		for _, s := range map[*netlab.Host][]string{w.a: {"198.51.100.2", "2001:db8:a::2"}, w.b: {"203.0.113.2", "2001:db8:b::2"}}[link.A.Host] {
			ls = append(ls, mapcache.Local{IfIndex: link.A.Index, Addr: addr(s), Priority: 1, Weight: 1, Up: true})
		}
		return f.SetLocals(ls)
	}))
	ended := make(chan error, 1)
	go func() { ended <- f.Run(t.Context()) }()
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		require.NoError(t, <-ended)
	})
	return dev, f
}

func mapTo(eid, rloc string) mapcache.Mapping {
	return mapcache.Mapping{
		Key:   mapcache.Key{Prefix: prefix(eid)},
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rloc)}, Priority: 1, Weight: 1}},
	}
}

// The wire shows what RFC 9300 §5.3 wants, whoever computes the checksum.
func TestOnTheWire(t *testing.T) {
	for _, policy := range []ChecksumPolicy{ChecksumAuto, ChecksumZero} {
		w := newWire(t, 1500)
		b, fb := w.start(t, w.b0, []string{"10.2.0.1/32", "fd00:2::1/128", "10.4.0.1/32", "fd00:4::1/128"}, UDPConfig{})
		a, _ := w.start(t, w.toA, []string{"10.1.0.1/32", "fd00:1::1/128"}, UDPConfig{Checksum: policy},
			mapTo("10.2.0.0/16", "203.0.113.2"), mapTo("fd00:2::/32", "203.0.113.2"),
			mapTo("10.4.0.0/16", "2001:db8:b::2"), mapTo("fd00:4::/32", "2001:db8:b::2"))
		flows := []packetSpec{
			{src: "10.1.0.1", dst: "10.2.0.1"},
			{src: "fd00:1::1", dst: "fd00:2::1"},
			{src: "10.1.0.1", dst: "10.4.0.1"},
			{src: "fd00:1::1", dst: "fd00:4::1"},
		}
		for i := range flows {
			flows[i].tos, flows[i].ttl, flows[i].payloadLen, flows[i].sport = 0xb9, 33, 500, 77
			batch := [][]byte{flows[i].build(), flows[i].build(), flows[i].build()}
			a.send(batch...)
			flows[i].ttl = 32 // one router on the way
			for range batch {
				assert.Equal(t, flows[i].build(), b.next(t)) // RFC 9300-5-3, 9300-5.3-16, 9300-5.3-3
			}
		}
		data := w.seen(isData)
		require.Len(t, data, 12)
		ports := map[string]layers.UDPPort{}
		for i, p := range data {
			udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			assert.EqualValues(t, 4341, udp.DstPort) // RFC 9300-5.3-1
			assert.NotContains(t, []layers.UDPPort{4341, 4342}, udp.SrcPort)
			var ip gopacket.NetworkLayer
			if v4, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
				ip = v4
				assert.Equal(t, layers.IPv4DontFragment, v4.Flags) // RFC 9300-7.1-3
				assert.EqualValues(t, 32, v4.TTL)                  // RFC 9300-5.3-14
				assert.EqualValues(t, 0xb9, v4.TOS)                // RFC 9300-5.3-15
			} else {
				v6 := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
				ip = v6
				assert.EqualValues(t, 32, v6.HopLimit)       // RFC 9300-5.3-14
				assert.EqualValues(t, 0xb9, v6.TrafficClass) // RFC 9300-5.3-15
			}
			if policy == ChecksumZero {
				assert.Zero(t, udp.Checksum) // RFC 9300-5.3-2
			} else {
				assert.NotZero(t, udp.Checksum)
				assert.True(t, udpChecksumOK(ip, udp), "packet %d", i) // RFC 9300-5.3-4
			}
			assert.Equal(t, make([]byte, 8), udp.Payload[:8])
			var in inner
			require.Equal(t, DropNone, parseInner(udp.Payload[8:], &in))
			assert.EqualValues(t, 33, in.ttl, "the inner header as it was")
			assert.EqualValues(t, in.length+16, udp.Length) // RFC 9300-5.3-s5
			flow := in.dst.String()
			if port, ok := ports[flow]; ok {
				assert.Equal(t, port, udp.SrcPort) // RFC 9300-12-3
			}
			ports[flow] = udp.SrcPort
		}
		assert.Equal(t, [NumDropReasons]uint64{}, fb.Stats().Drops)
	}
}

// udpChecksumOK verifies the checksum of a UDP datagram.
func udpChecksumOK(ip gopacket.NetworkLayer, udp *layers.UDP) bool {
	src, _ := netip.AddrFromSlice(ip.NetworkFlow().Src().Raw())
	dst, _ := netip.AddrFromSlice(ip.NetworkFlow().Dst().Raw())
	return fold(sum(sum(pseudoSum(src, dst, protoUDP, int(udp.Length)), udp.Contents), udp.Payload)) == 0xffff
}

// A datagram with a wrong UDP checksum is dropped, one without is not.
func TestOuterChecks(t *testing.T) {
	w := newWire(t, 1500)
	b, fb := w.start(t, w.b0, []string{"10.2.0.1/32"}, UDPConfig{})
	var raw NativeSender
	require.NoError(t, w.a.Do(func() (err error) {
		raw, err = NewNative()
		require.NoError(t, err)
		return raw.SetLocals([]mapcache.Local{{IfIndex: w.toA.A.Index, Addr: addr("198.51.100.2"), Up: true}})
	}))
	t.Cleanup(func() { raw.Close() })
	send := func(src, dst string, id uint16, change func(checksum []byte)) {
		payload := encapsulated(0, 0, 0, packetSpec{src: "10.1.0.1", dst: "10.2.0.1", id: id}.build())
		outer := packetSpec{src: src, dst: dst, sport: 5000, dport: 4341, payloadLen: len(payload)}.build()
		udp := outer[len(outer)-len(payload)-8:]
		copy(udp[8:], payload)
		udp[6], udp[7] = 0, 0
		s, d := addr(src), addr(dst)
		binary.BigEndian.PutUint16(udp[6:], ^fold(sum(pseudoSum(s, d, protoUDP, len(udp)), udp)))
		change(udp[6:8])
		_, err := raw.Forward(outer)
		require.NoError(t, err)
	}
	n := uint16(0)
	for _, a := range []struct{ src, dst string }{{"198.51.100.2", "203.0.113.2"}, {"2001:db8:a::2", "2001:db8:b::2"}} {
		send(a.src, a.dst, n+1, func([]byte) {})
		send(a.src, a.dst, n+2, func(c []byte) { c[0] ^= 0x55 })      // RFC 9300-5.3-5, 9300-5.3-6
		send(a.src, a.dst, n+3, func(c []byte) { c[0], c[1] = 0, 0 }) // RFC 9300-5.3-3
		for _, want := range []uint16{n + 1, n + 3} {                 // RFC 9300-5.3-7
			assert.Equal(t, want, binary.BigEndian.Uint16(b.next(t)[4:]))
		}
		n += 3
	}
	assert.Equal(t, [NumDropReasons]uint64{}, fb.Stats().Drops, "the kernel dropped what was wrong")
}

// A router on the way with a smaller MTU: its ICMP errors make us tell the
// source, cut what may be cut, and let the outer packets of small IPv6 packets
// be fragmented.
func TestSmallRouterMTU(t *testing.T) {
	for _, rloc := range []string{"203.0.113.2", "2001:db8:b::2"} {
		w := newWire(t, 1280)
		b, _ := w.start(t, w.b0, []string{"10.2.0.1/32", "fd00:2::1/128"}, UDPConfig{})
		a, fa := w.start(t, w.toA, []string{"10.1.0.1/32", "fd00:1::1/128"}, UDPConfig{}, mapTo("10.2.0.0/16", rloc), mapTo("fd00:2::/32", rloc))

		big := packetSpec{src: "10.1.0.1", dst: "10.2.0.1", payloadLen: 1400, df: true}.build()
		var answer []byte
		for tick := time.NewTicker(20 * time.Millisecond); answer == nil; { // like the retransmissions of a source
			a.send(big)
			select {
			case answer = <-a.out:
				tick.Stop()
			case <-tick.C:
			}
		}
		assert.EqualValues(t, protoICMP, answer[9])
		assert.EqualValues(t, 1280-Overhead(addr(rloc)), binary.BigEndian.Uint16(answer[26:]), "RFC 9300 §7.2")

		a.send(packetSpec{src: "10.1.0.1", dst: "10.2.0.1", payloadLen: 1400}.build())
		first, second := b.next(t), b.next(t)
		assert.Equal(t, 20+20+8+1400, len(first)+len(second))

		v6 := packetSpec{src: "fd00:1::1", dst: "fd00:2::1", payloadLen: 1280 - 48}.build()
		a.send(v6)
		got := b.next(t)
		assert.Len(t, got, 1280)
		assert.Equal(t, v6[40:], got[40:])
		assert.EqualValues(t, 1, fa.Stats().OuterFragmented)
		require.Eventually(t, func() bool { return fa.Stats().OuterErrors > 0 }, waitTime, time.Millisecond)
	}
}

// The network says that a locator is not reachable: the control plane is told,
// and so is the host whose packet it was.
func TestOuterUnreachableOnTheWire(t *testing.T) {
	w := newWire(t, 1500)
	w.r.MustRun("ip", "route", "add", "unreachable", "203.0.113.99/32")
	w.r.MustRun("ip", "-6", "route", "add", "unreachable", "2001:db8:b::99/128")
	a, fa := w.start(t, w.toA, []string{"10.1.0.1/32", "fd00:1::1/128"}, UDPConfig{}, mapTo("10.2.0.0/16", "203.0.113.99"), mapTo("fd00:2::/32", "2001:db8:b::99"))
	for _, tt := range []struct{ src, dst, rloc string }{
		{"10.1.0.1", "10.2.0.1", "203.0.113.99"},
		{"fd00:1::1", "fd00:2::1", "2001:db8:b::99"},
	} {
		b := packetSpec{src: tt.src, dst: tt.dst, payloadLen: 100}.build()
		a.send(b)
		answer := a.next(t)
		var p inner
		require.Equal(t, DropNone, parseInner(answer, &p))
		assert.Equal(t, addr(tt.src), p.dst)
		assert.Equal(t, b[:100], answer[p.headerLen+8:][:100]) // RFC 9301-7-1
		assert.Equal(t, mapcache.Discovery{
			Kind: mapcache.DiscoveryUnreachable, Locator: mapcache.Locator{Addr: addr(tt.rloc), Port: 4341},
		}, <-fa.Discoveries())
	}
}

// What is not for an EID leaves by the uplink as it is.
func TestNativeOnTheWire(t *testing.T) {
	w := newWire(t, 1500)
	native := func(p string) mapcache.Mapping {
		return mapcache.Mapping{Key: mapcache.Key{Prefix: prefix(p)}, Action: lisp.ActionNativelyForward}
	}
	a, fa := w.start(t, w.toA, []string{"10.1.0.1/32", "fd00:1::1/128"}, UDPConfig{}, native("203.0.113.0/24"), native("2001:db8:b::/64"))
	for i, spec := range []packetSpec{
		{src: "10.1.0.1", dst: "203.0.113.2", tos: 0xb9, ttl: 9, id: 4242, dport: 5353, payloadLen: 300, df: true},
		{src: "fd00:1::1", dst: "2001:db8:b::2", tos: 0xb9, ttl: 9, dport: 5353, payloadLen: 300},
	} {
		a.send(spec.build())
		spec.ttl--
		want := spec.build()
		require.Eventually(t, func() bool {
			return len(w.seen(func(p gopacket.Packet) bool {
				return p.NetworkLayer() != nil && string(append(p.NetworkLayer().LayerContents(), p.NetworkLayer().LayerPayload()...)) == string(want)
			})) == 1
		}, waitTime, time.Millisecond, "packet %d", i)

		// Larger than the link: the source is told.
		spec.payloadLen = 1500
		a.send(spec.build())
		answer := a.next(t)
		if answer[0]>>4 == 4 {
			assert.EqualValues(t, 1500, binary.BigEndian.Uint16(answer[26:]))
		} else {
			assert.EqualValues(t, 1500, binary.BigEndian.Uint32(answer[44:]))
		}
	}
	a.send(packetSpec{src: "10.1.0.1", dst: "203.0.113.2", payloadLen: 2000}.build())
	require.Eventually(t, func() bool { return fa.Stats().Native.Packets == 4 }, waitTime, time.Millisecond)
	assert.EqualValues(t, 1, fa.Stats().Fragmented)

	// No uplink of the family: unreachable.
	require.NoError(t, fa.SetLocals(nil))
	a.send(packetSpec{src: "10.1.0.1", dst: "203.0.113.2"}.build())
	answer := a.next(t)
	assert.Equal(t, []byte{3, 1}, answer[20:22])
}
