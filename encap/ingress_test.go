package encap

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// pull takes datagrams as if they had been received, without Run, and returns
// what the device got.
func (x *node) pull(in ...Incoming) [][]byte {
	newIngress(x.Forwarder, x.underlay).receive(in)
	var got [][]byte
	for {
		select {
		case b := <-x.device.out:
			got = append(got, b)
			continue
		default:
		}
		return got
	}
}

// from returns a datagram from B as it arrives at A.
func from(remote string, local string, b []byte) Incoming {
	return Incoming{
		Bytes: b, Remote: netip.AddrPortFrom(addr(remote), 61000), Local: addr(local),
		TTL: 64, HasTOS: true, IfIndex: 1,
	}
}

func TestDecapsulate(t *testing.T) {
	for _, tt := range []struct{ name, src, dst, remote, local string }{
		{"IPv4 in IPv4", eidB4, eidA4, rlocB4, rlocA4}, // RFC 9300-5-3
		{"IPv6 in IPv4", eidB6, eidA6, rlocB4, rlocA4}, // RFC 9300-5-3
		{"IPv4 in IPv6", eidB4, eidA4, rlocB6, rlocA6}, // RFC 9300-5-3
		{"IPv6 in IPv6", eidB6, eidA6, rlocB6, rlocA6}, // RFC 9300-5-3
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			spec := packetSpec{src: tt.src, dst: tt.dst, tos: 0x02, ttl: 64, payloadLen: 30}
			in := from(tt.remote, tt.local, encapsulated(0, 0, 0, append(spec.build(), 1, 2, 3))) // with octets behind the packet
			in.TOS, in.TTL = 0xb8|ecnCE, 60
			got := x.pull(in)
			spec.tos, spec.ttl = 0xb8|ecnCE, 60
			require.Len(t, got, 1)
			assert.Equal(t, spec.build(), got[0]) // RFC 9300-5.3-16, 9300-5.3-17, 9300-5.3-18, 9300-5.3-s6
			assert.Equal(t, Counter{1, uint64(len(got[0]))}, x.Stats().Decapsulated)
			assert.Empty(t, x.drops())

			// What the socket does not tell is left alone.
			spec.tos, spec.ttl = 0x2e, 9
			in = from(tt.remote, tt.local, encapsulated(0, 0, 0, spec.build()))
			in.TTL, in.HasTOS = 0, false
			assert.Equal(t, [][]byte{spec.build()}, x.pull(in))
		})
	}
}

func TestDecapsulationChecks(t *testing.T) {
	spec := packetSpec{src: eidB4, dst: eidA4, payloadLen: 20, ttl: 64}
	ok := spec.build()
	with := func(spec packetSpec, f func([]byte)) []byte {
		b := spec.build()
		f(b)
		return b
	}
	toA := func(b []byte) Incoming { return from(rlocB4, rlocA4, b) }
	ce := func(in Incoming) Incoming {
		in.TOS = ecnCE
		return in
	}
	for _, tt := range []struct {
		name string
		in   Incoming
		want DropReason
	}{
		{"plain", toA(encapsulated(0, 0, 0, ok)), DropNone},
		// What is sent, but has no meaning on the public Internet, is ignored.
		{"nonce", toA(encapsulated(0x80, 0x123456, 0, ok)), DropNone},
		{"echo-nonce request", toA(encapsulated(0xa0, 0x123456, 0, ok)), DropNone}, // RFC 9300-10.1-6, 9300-4.1-2
		{"E without N", toA(encapsulated(0x20, 0, 0, ok)), DropNone},               // RFC 9300-5.3-10
		{"Locator-Status-Bits", toA(encapsulated(0x40, 0, 5, ok)), DropNone},       // RFC 9300-10-1, 9300-10-2, 9300-13.1-2
		{"N and V: a nonce", toA(encapsulated(0x90, 0x123456, 0, ok)), DropNone},
		{"low bits without a flag", toA(encapsulated(0, 0x123456, 77, ok)), DropNone},
		{"instance 0", toA(encapsulated(0x08, 0, 0, ok)), DropNone},
		{"GPE with IPv4", toA(encapsulated(0x04, 1, 0, ok)), DropNone},
		{"GPE ignores V", toA(encapsulated(0x14, 1, 0, ok)), DropNone},

		{"nothing", toA(nil), DropHeader},
		{"7 octets", toA(make([]byte, 7)), DropHeader},
		{"header only", toA(make([]byte, 8)), DropTruncated},
		{"cut", toA(encapsulated(0, 0, 0, ok[:len(ok)-1])), DropTruncated},
		{"version 0", toA(encapsulated(0, 0, 0, make([]byte, 40))), DropVersion},
		{"bad IHL", toA(encapsulated(0, 0, 0, with(spec, func(b []byte) { b[0] = 0x41 }))), DropMalformed},
		{"TTL 0", toA(encapsulated(0, 0, 0, with(spec, func(b []byte) { b[8] = 0 }))), DropTTL},
		{"KK", toA(encapsulated(0x01, 0, 0, ok)), DropEncrypted},
		{"KK 3", toA(encapsulated(0x03, 0, 0, ok)), DropEncrypted},
		// RFC 9302-6.1-2: no mapping of ours has a version. RFC 9302-8-1
		{"Map-Versions", toA(encapsulated(0x10, 0x001002, 0, ok)), DropMapVersion},
		{"GPE with Ethernet", toA(encapsulated(0x04, 3, 0, ok)), DropProtocol},
		{"GPE says IPv6", toA(encapsulated(0x04, 2, 0, ok)), DropProtocol},
		{"GPE shim", toA(encapsulated(0x04, 0x80, 0, ok)), DropProtocol},
		{"instance of somebody else", toA(encapsulated(0x08, 0, 7<<8, ok)), DropInstance}, // RFC 9300-8-s2
		{"instance 0xffffff", toA(encapsulated(0x08, 0, 0xffffff00, ok)), DropControl},
		{"header checksum", toA(encapsulated(0, 0, 0, with(spec, func(b []byte) { b[10] ^= 1 }))), DropChecksum},
		{"to multicast", toA(encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: "224.0.0.1"}.build())), DropScope},
		{"from loopback", toA(encapsulated(0, 0, 0, packetSpec{src: "127.0.0.1", dst: eidA4}.build())), DropScope},
		{"EID of somebody else", toA(encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: "10.9.0.1"}.build())), DropNotOurEID},
		{"CE for a flow without ECN", ce(toA(encapsulated(0, 0, 0, ok))), DropECN}, // RFC 9300-5.3-s6
		{"not our locator", from(rlocB4, "192.0.2.99", encapsulated(0, 0, 0, ok)), DropNotLocator},
		{"to a broadcast address", from(rlocB4, "192.0.2.255", encapsulated(0, 0, 0, ok)), DropNotLocator},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			got := x.pull(tt.in)
			if tt.want == DropNone {
				assert.Equal(t, [][]byte{ok}, got)
				assert.Empty(t, x.drops())
				return
			}
			assert.Empty(t, got)
			assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops())
			assert.Zero(t, x.Stats().Decapsulated)
		})
	}

	t.Run("odd ECN combinations are counted", func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		in := toA(encapsulated(0, 0, 0, ok))
		in.TOS = ecnECT0
		assert.Len(t, x.pull(in), 1)
		assert.EqualValues(t, 1, x.Stats().ECNOdd)
	})
	t.Run("no locators yet", func(t *testing.T) {
		x := newA(t, &memNet{}, "")
		require.NoError(t, x.SetLocals(nil))
		assert.Empty(t, x.pull(toA(encapsulated(0, 0, 0, ok))))
		assert.Equal(t, map[DropReason]uint64{DropNotLocator: 1}, x.drops())
	})
}

func TestControlOnDataPort(t *testing.T) {
	var got []lisp.Datagram
	x := newA(t, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(c *Config) {
			c.Control = func(d lisp.Datagram) {
				d.Bytes = clone(d.Bytes)
				got = append(got, d)
			}
		}
	})
	b := encapsulated(0x08, 0, 0xffffff00, []byte("anything"))
	x.pull(from(rlocB4, rlocA4, b))
	assert.Equal(t, []lisp.Datagram{{
		Local: netip.MustParseAddrPort("192.0.2.1:4341"), Remote: netip.MustParseAddrPort("192.0.2.2:61000"), IfIndex: 1, Bytes: b,
	}}, got)
	assert.Empty(t, x.drops())

	require.NoError(t, x.Send(lisp.Datagram{Bytes: []byte("out")}))
	assert.Len(t, x.underlay.datagrams, 1)
}

// Datagrams that arrived as one are taken apart by segment size, and a bad one
// costs only itself.
func TestSegments(t *testing.T) {
	x := newA(t, &memNet{}, "")
	var all []byte
	var want [][]byte
	for i := range 5 {
		b := packetSpec{src: eidB4, dst: eidA4, id: uint16(i), payloadLen: 100}.build()
		if i == 4 {
			b = packetSpec{src: eidB4, dst: eidA4, id: uint16(i), payloadLen: 10}.build()
		}
		d := encapsulated(0, 0, 0, b)
		if i == 2 {
			d[0] = 1 // encrypted
		} else {
			want = append(want, b)
		}
		all = append(all, d...)
	}
	in := from(rlocB4, rlocA4, all)
	in.Segment = 8 + 128
	assert.Equal(t, want, x.pull(in))
	assert.Equal(t, map[DropReason]uint64{DropEncrypted: 1}, x.drops())
}

func TestOverlays(t *testing.T) {
	var n memNet
	other := newMemDevice("lmn1")
	x := newA(t, &n, "", func(c *nodeConfig) {
		c.change = func(c *Config) {
			c.Overlays = append(c.Overlays, Overlay{InstanceID: 7, Device: other, EIDs: []netip.Prefix{prefix(eidA4 + "/32")}})
		}
	})
	b := packetSpec{src: eidB4, dst: eidA4, payloadLen: 5}.build()
	mk := func(iid uint32) Incoming { return from(rlocB4, rlocA4, encapsulated(0x08, 0, iid<<8, b)) }
	assert.Equal(t, [][]byte{b, b}, x.pull(mk(0), mk(7), mk(0), mk(8))) // RFC 9300-8-s2
	assert.Equal(t, b, <-other.out)
	assert.Equal(t, map[DropReason]uint64{DropInstance: 1}, x.drops())
	assert.EqualValues(t, 3, x.Stats().Locators[0].In.Packets)

	for _, bad := range []Overlay{
		{InstanceID: 7, Device: other, EIDs: []netip.Prefix{prefix("10.0.0.0/8")}},
		{InstanceID: 8, EIDs: []netip.Prefix{prefix("10.0.0.0/8")}},
		{InstanceID: 8, Device: other},
		{InstanceID: 0xffffff, Device: other, EIDs: []netip.Prefix{prefix("10.0.0.0/8")}},
		{InstanceID: 8, Device: other, EIDs: []netip.Prefix{{}}},
		{InstanceID: 8, Device: other, EIDs: []netip.Prefix{netip.PrefixFrom(addr("::ffff:10.0.0.0"), 104)}},
	} {
		cfg := x.cfg
		cfg.Overlays = append(cfg.Overlays[:2:2], bad)
		_, err := NewForwarder(cfg)
		assert.Error(t, err)
	}
}

// decap(encap(p)) = p, but for TTL and ECN, for random packets of all kinds.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	protos := []layers.IPProtocol{layers.IPProtocolUDP, layers.IPProtocolTCP, layers.IPProtocolSCTP, layers.IPProtocolICMPv4, layers.IPProtocolICMPv6, 200}
	for i := range 6 {
		tt := []struct{ local, remote string }{{rlocA4, rlocB4}, {rlocA6, rlocB6}}[i%2]
		format := mapcache.Format(i / 2)
		a := newA(t, &memNet{}, "", func(c *nodeConfig) { c.mtu = 65535 })
		a.learnFormat(t, 0, eidB4+"/32", tt.remote, format)
		a.learnFormat(t, 0, eidB6+"/128", tt.remote, format)
		b := newNode(t, &memNet{}, nodeConfig{eids: []string{eidB4 + "/32", eidB6 + "/128"}, rlocs: []string{tt.remote}})
		for range 200 {
			spec := packetSpec{
				src: eidA4, dst: eidB4, tos: uint8(r.Uint32()), ttl: uint8(r.Uint32())%255 + 1,
				sport: uint16(r.Uint32()), dport: uint16(r.Uint32()), df: r.IntN(2) == 0, payloadLen: r.IntN(60000),
				proto: protos[r.IntN(len(protos))],
			}
			if r.IntN(2) == 0 {
				spec.src, spec.dst = eidA6, eidB6
			}
			packet := spec.build()
			a.push(packet)
			out := a.underlay.take()
			require.Len(t, out, 1)
			in := from(tt.local, tt.remote, out[0].Bytes)
			in.TTL, in.TOS, in.Format = out[0].TTL, out[0].TOS, format
			if hops := uint8(r.IntN(10)); hops < in.TTL {
				in.TTL -= hops
			}
			if in.TOS&ecnMask != ecnNotECT && r.IntN(3) == 0 {
				in.TOS |= ecnCE
			}
			if in.TOS&ecnMask == ecnNotECT {
				require.Equal(t, spec.tos, in.TOS)
			}
			var p inner
			require.Equal(t, DropNone, parseInner(packet, &p))
			setTOSTTL(packet, &p, in.TOS, in.TTL)
			got := b.pull(in)
			require.Len(t, got, 1)
			require.Equal(t, packet, got[0])
		}
		assert.Empty(t, a.drops())
		assert.Empty(t, b.drops())
	}
}

// What was cut before encapsulation arrives, and is delivered, piece by piece.
func TestDecapsulateFragments(t *testing.T) {
	a := newA(t, &memNet{}, rlocB4)
	b := newNode(t, &memNet{}, nodeConfig{eids: []string{eidB4 + "/32"}, rlocs: []string{rlocB4}})
	whole := packetSpec{src: eidA4, dst: eidB4, payloadLen: 4000, id: 5}.build()
	a.push(whole)
	var in []Incoming
	for _, o := range a.underlay.take() {
		in = append(in, from(rlocA4, rlocB4, o.Bytes))
	}
	got := b.pull(in...)
	require.Len(t, got, 3) // RFC 9300-7.1-s3
	var f fragments
	for _, part := range got {
		f.slots = append(f.slots, append(make([]byte, Headroom), part...))
		f.sizes = append(f.sizes, len(part))
	}
	assert.Equal(t, whole[20:], reassemble(t, &f, whole))
}

// Re-encapsulation is decapsulation and encapsulation: the new outer TTL is the
// old one as it arrived, and ECN went through both rules.
func TestReencapsulation(t *testing.T) {
	x := newNode(t, &memNet{}, nodeConfig{eids: []string{"10.0.0.0/8"}, rlocs: []string{rlocA4}})
	x.learn(t, 0, "10.3.0.0/16", rlocB4)
	in := from("192.0.2.9", rlocA4, encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: "10.3.0.1", tos: ecnECT0, ttl: 64}.build()))
	in.TTL, in.TOS = 41, ecnCE
	got := x.pull(in)
	require.Len(t, got, 1)
	got[0][8]-- // the router between the two, which is the kernel's part
	got[0][10]++
	x.push(got[0])
	out := x.underlay.take()
	require.Len(t, out, 1)
	assert.EqualValues(t, 40, out[0].TTL)    // RFC 9300-5.3-s8
	assert.EqualValues(t, ecnCE, out[0].TOS) // RFC 9300-5.3-19
}

// FuzzDecapsulate feeds anything to the receiving side: nothing but whole IP
// packets to EIDs of ours may reach the device, of the public Internet and of a
// closed network.
func FuzzDecapsulate(f *testing.F) {
	v4 := packetSpec{src: eidB4, dst: eidA4, payloadLen: 20}.build()
	v6 := packetSpec{src: eidB6, dst: eidA6, payloadLen: 20}.build()
	f.Add(encapsulated(0, 0, 0, v4), uint16(0), uint8(64), uint8(3))
	f.Add(encapsulated(0, 0, 0, v6), uint16(0), uint8(1), uint8(0))
	f.Add(encapsulated(0x08, 0, 0xffffff00, v6), uint16(20), uint8(1), uint8(0))
	f.Add(append(encapsulated(0, 0, 0, v4), encapsulated(0x04, 1, 0, v4)...), uint16(len(v4)+8), uint8(1), uint8(0))
	f.Add(encapsulated(0x50, 0x005001, 2, v4), uint16(0), uint8(1), uint8(0))
	f.Add(encapsulated(0xe8, 7, 0x00000002, v4), uint16(0), uint8(1), uint8(0))
	open := newA(f, &memNet{}, "")
	closed := newClosedNode(f, allClosed)
	closed.SetSignals(mapcache.Signals{
		Locals:   []mapcache.LocalSignal{{Key: hostKey(eidA4), MapVersion: 1}, {Key: hostKey(eidA6), MapVersion: 0xfff, Oldest: 0xff0}},
		Entries:  []mapcache.EntrySignal{{EntryID: closed.entry(f, eidB4), MapVersion: 5, LSBs: 3, Locators: 2}},
		Locators: []mapcache.LocatorSignal{{Addr: addr(rlocB4), Nonce: 7, Ask: true}},
	})
	receivers := map[*node]*ingress{open: newIngress(open.Forwarder, open.underlay), closed: newIngress(closed.Forwarder, closed.underlay)}
	f.Fuzz(func(t *testing.T, b []byte, segment uint16, ttl, tos uint8) {
		for x, g := range receivers {
			decapsulateAny(t, x, g, b, segment, ttl, tos)
		}
		for d := closed.discovered(); d != (mapcache.Discovery{}); d = closed.discovered() {
			require.Equal(t, addr(rlocB4), d.Locator.Addr)
			require.True(t, d.Kind != mapcache.DiscoveryLSBs || d.LSBs <= 3)
			require.LessOrEqual(t, d.MapVersion, uint16(0xfff))
		}
	})
}

// decapsulateAny receives anything.
func decapsulateAny(t *testing.T, x *node, g *ingress, b []byte, segment uint16, ttl, tos uint8) {
	t.Helper()
	in := from(rlocB4, rlocA4, clone(b))
	in.Segment, in.TTL, in.TOS = int(segment), ttl, tos
	before := x.Stats()
	g.receive([]Incoming{in})
	after := x.Stats()
	count := after.Decapsulated.Packets - before.Decapsulated.Packets
	for range count {
		out := x.device.next(t)
		var p inner
		require.Equal(t, DropNone, parseInner(out, &p))
		require.Equal(t, len(out), p.length)
		require.Contains(t, []netip.Addr{addr(eidA4), addr(eidA6)}, p.dst)
		require.True(t, p.routable())
		if !p.v6 {
			require.EqualValues(t, 0xffff, fold(sum(0, out[:p.headerLen])))
		}
		if ttl != 0 {
			require.LessOrEqual(t, p.ttl, ttl)
		}
	}
	segments := 1
	if segment > 0 && len(b) > 0 {
		segments = (len(b) + int(segment) - 1) / int(segment)
	}
	for i := range after.Drops {
		count += after.Drops[i] - before.Drops[i]
	}
	require.LessOrEqual(t, count, uint64(segments), "each datagram is delivered or dropped, once")
	require.NotZero(t, count)
}

// FuzzEncapsulate feeds anything to the sending side.
func FuzzEncapsulate(f *testing.F) {
	f.Add(packetSpec{src: eidA4, dst: eidB4, payloadLen: 20}.build(), uint16(0))
	f.Add(packetSpec{src: eidA6, dst: eidB6, payloadLen: 20}.build(), uint16(2000))
	f.Add(packetSpec{src: eidA4, dst: eidB4, payloadLen: 1000, options: nil}.build(), uint16(500))
	x := newA(f, &memNet{}, rlocB4)
	f.Fuzz(func(t *testing.T, b []byte, path uint16) {
		x.underlay.path = int(path)
		x.paths.table.Store(nil)
		x.hold.mu.Lock()
		x.hold.expire(x.now.Add(1 << 40))
		x.hold.mu.Unlock()
		x.push(clone(b))
		for _, o := range x.underlay.take() {
			var p inner
			require.Equal(t, DropNone, parseInner(o.Bytes[8:], &p))
			require.Equal(t, len(o.Bytes)-8, p.length)
			require.Equal(t, addr(rlocB4), o.Remote.Addr())
		}
		for {
			select {
			case out := <-x.device.out: // an ICMP error
				var p inner
				require.Equal(t, DropNone, parseInner(out, &p))
				require.Equal(t, len(out), p.length)
				require.LessOrEqual(t, len(out), icmpMaxLen)
				require.Contains(t, []netip.Addr{addr(eidA4), addr(eidA6)}, p.dst)
				continue
			default:
			}
			break
		}
	})
}
