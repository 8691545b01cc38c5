package encap

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// push forwards packets as if the device had handed them over, without Run.
func (x *node) push(packets ...[]byte) {
	e := x.metered()
	defer x.meters.give(mapcache.Outbound, e.meter)
	e.begin()
	for _, p := range packets {
		buf := append(make([]byte, Headroom), p...)
		e.packet(x.overlays[0], buf, len(p))
	}
	e.flush()
}

// drops returns what was dropped, by reason.
func (x *node) drops() map[DropReason]uint64 {
	m := map[DropReason]uint64{}
	for i, n := range x.Stats().Drops {
		if n > 0 {
			m[DropReason(i)] = n
		}
	}
	return m
}

// icmpError returns type and code of the ICMP error that was written to the
// device; ok is false if there was none.
func (x *node) icmpError() (typ, code uint8, mtu int, ok bool) {
	select {
	case b := <-x.device.out:
		if b[0]>>4 == 6 {
			return b[40], b[41], int(binary.BigEndian.Uint32(b[44:])), true
		}
		return b[20], b[21], int(binary.BigEndian.Uint16(b[26:])), true
	default:
		return 0, 0, 0, false
	}
}

const (
	eidA4, eidB4   = "10.1.0.1", "10.2.0.1"
	eidA6, eidB6   = "fd00:1::1", "fd00:2::1"
	rlocA4, rlocB4 = "192.0.2.1", "192.0.2.2"
	rlocA6, rlocB6 = "2001:db8::1", "2001:db8::2"
)

// newA returns node A, which has both families and knows B's EIDs behind a
// locator.
func newA(t testing.TB, n *memNet, rlocB string, change ...func(*nodeConfig)) *node {
	t.Helper()
	cfg := nodeConfig{eids: []string{eidA4 + "/32", eidA6 + "/128"}, rlocs: []string{rlocA4, rlocA6}}
	for _, f := range change {
		f(&cfg)
	}
	x := newNode(t, n, cfg)
	if rlocB != "" {
		x.learn(t, 0, eidB4+"/32", rlocB)
		x.learn(t, 0, eidB6+"/128", rlocB)
	}
	return x
}

// 9300-5-3: all four combinations, and the fields of the outer header.
func TestEncapsulate(t *testing.T) {
	for _, tt := range []struct {
		name, src, dst, rloc string
		want                 netip.AddrPort
	}{
		{"IPv4 in IPv4", eidA4, eidB4, rlocB4, netip.MustParseAddrPort("192.0.2.2:4341")},     // RFC 9300-5-3, 9300-5.3-1
		{"IPv6 in IPv4", eidA6, eidB6, rlocB4, netip.MustParseAddrPort("192.0.2.2:4341")},     // RFC 9300-5-3, 9300-5.3-1
		{"IPv4 in IPv6", eidA4, eidB4, rlocB6, netip.MustParseAddrPort("[2001:db8::2]:4341")}, // RFC 9300-5-3, 9300-5.3-1
		{"IPv6 in IPv6", eidA6, eidB6, rlocB6, netip.MustParseAddrPort("[2001:db8::2]:4341")}, // RFC 9300-5-3, 9300-5.3-1
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, tt.rloc)
			for ecn := range uint8(4) {
				spec := packetSpec{src: tt.src, dst: tt.dst, tos: 0xb8 | ecn, ttl: 17, sport: 1, dport: 2, payloadLen: 10}
				b := spec.build()
				x.push(append(clone(b), 9, 9)) // a device may pad
				out := x.underlay.take()
				require.Len(t, out, 1)
				o := out[0]
				assert.Equal(t, tt.want, o.Remote)
				assert.EqualValues(t, 17, o.TTL)                     // RFC 9300-5.3-14, 9300-5.3-s7
				assert.Equal(t, 0xb8|ecn, o.TOS)                     // RFC 9300-5.3-15, 9300-5.3-s6, 9300-5.3-18
				assert.False(t, o.MayFragment)                       // RFC 9300-7.1-3, 9300-5-1
				assert.Equal(t, make([]byte, 8), o.Bytes[:8])        // RFC 9300-4.1-1, 9300-4.1-2, 9300-10-2, 9300-16-1, 9302-6.1-1, 9305-5-1, 9305-5-2
				assert.Equal(t, b, o.Bytes[8:], "inner packet kept") // RFC 9300-5.3-s5
				assert.Equal(t, mapcache.FlowHash(0, b), o.Hash)     // RFC 9300-12-3, 9300-12-4
			}
			s := x.Stats()
			require.Len(t, s.Locators, 1)
			assert.Equal(t, tt.want.Addr(), s.Locators[0].Locator.Addr)
			assert.EqualValues(t, 4, s.Locators[0].Out.Packets)
			assert.Empty(t, x.drops())
		})
	}
}

func TestEncapsulateInstance(t *testing.T) {
	x := newA(t, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(c *Config) { c.Overlays[0].InstanceID = 0xabcdef }
	})
	x.learn(t, 0xabcdef, eidB4+"/32", rlocB4)
	b := packetSpec{src: eidA4, dst: eidB4, payloadLen: 10}.build()
	x.push(b)
	out := x.underlay.take()
	require.Len(t, out, 1)
	h, err := lisp.ParseDataHeader(out[0].Bytes)
	require.NoError(t, err)
	iid, ok := h.InstanceID()
	assert.True(t, ok)
	assert.EqualValues(t, 0xabcdef, iid) // RFC 9300-8-s1
	assert.EqualValues(t, 0x08, h.Flags())
}

// The batch keeps the order of each flow, and packets of several locators part.
func TestEncapsulateBatch(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4)
	x.learn(t, 0, "10.3.0.0/16", rlocB6)
	var batch [][]byte
	for i := range 30 {
		dst := []string{eidB4, "10.3.0.1", "10.3.0.2"}[i%3]
		batch = append(batch, packetSpec{src: eidA4, dst: dst, id: uint16(i), payloadLen: 10}.build())
	}
	x.push(batch...)
	last := map[netip.Addr]uint16{}
	out := x.underlay.take()
	require.Len(t, out, 30)
	for _, o := range out {
		var p inner
		require.Equal(t, DropNone, parseInner(o.Bytes[8:], &p))
		id := binary.BigEndian.Uint16(o.Bytes[8+4:])
		assert.GreaterOrEqual(t, id, last[p.dst])
		last[p.dst] = id
		assert.Equal(t, p.dst != addr(eidB4), o.Remote.Addr().Is6())
	}
}

// What is remembered of the previous packet of a batch changes nothing.
func TestFlowsInBatch(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	x := newA(t, &memNet{}, rlocB4)
	x.learn(t, 0, "10.3.0.0/16", rlocB6)
	x.learn(t, 0, "fd00:3::/32", rlocB6)
	for range 300 {
		var batch [][]byte
		for range 20 {
			spec := packetSpec{src: eidA4, dst: eidB4, tos: uint8(r.IntN(4)), ttl: uint8(60 + r.IntN(3)), sport: 5, dport: uint16(6 + r.IntN(2)), df: r.IntN(3) > 0}
			if r.IntN(8) == 0 {
				spec.dst = "10.3.0.1"
			}
			if r.IntN(2) == 0 {
				spec.src, spec.dst = eidA6, eidB6
			}
			switch r.IntN(10) {
			case 0:
				spec.dport = 4341
			case 1:
				spec.proto = layers.IPProtocolTCP
			case 2:
				spec.payloadLen = 1440
			case 3:
				spec.src = "10.7.0.1" // not an EID
				spec.dst = eidB4
			}
			if spec.src == eidA4 && r.IntN(10) == 0 {
				spec.options = []layers.IPv4Option{{OptionType: 1}}
			}
			b := spec.build()
			if b[0]>>4 == 4 && r.IntN(10) == 0 {
				b[6] |= 0x20 // a fragment
			}
			for range r.IntN(3) + 1 {
				batch = append(batch, b)
			}
		}
		before := x.drops()
		for _, b := range batch {
			x.push(b)
		}
		single, between := x.underlay.take(), x.drops()
		x.push(batch...)
		together, after := x.underlay.take(), x.drops()
		byRemote := func(a, b Outgoing) int { return a.Remote.Compare(b.Remote) }
		slices.SortStableFunc(single, byRemote)
		slices.SortStableFunc(together, byRemote)
		require.Equal(t, single, together)
		for why, n := range after {
			require.Equal(t, between[why]-before[why], n-between[why], why)
		}
		for _, _, _, ok := x.icmpError(); ok; _, _, _, ok = x.icmpError() {
		}
	}
}

func TestSameFlow(t *testing.T) {
	base := packetSpec{src: eidA4, dst: eidB4, sport: 5, dport: 6, payloadLen: 10}
	base6 := packetSpec{src: eidA6, dst: eidB6, sport: 5, dport: 6, payloadLen: 10}
	with := func(s packetSpec, f func(*packetSpec)) []byte {
		f(&s)
		return s.build()
	}
	for _, tt := range []struct {
		name string
		a, b []byte
		want bool
	}{
		{"same", base.build(), with(base, func(s *packetSpec) { s.id, s.tos, s.ttl, s.payloadLen, s.df = 9, 1, 2, 99, true }), true},
		{"same over IPv6", base6.build(), with(base6, func(s *packetSpec) { s.tos, s.ttl, s.payloadLen = 3, 2, 99 }), true},
		{"DSCP", base.build(), with(base, func(s *packetSpec) { s.tos = 4 }), false},
		{"upper bits of the DSCP over IPv6", base6.build(), with(base6, func(s *packetSpec) { s.tos = 0x40 }), false},
		{"lower bits of the DSCP over IPv6", base6.build(), with(base6, func(s *packetSpec) { s.tos = 4 }), false},
		{"source port", base.build(), with(base, func(s *packetSpec) { s.sport++ }), false},
		{"destination port", base6.build(), with(base6, func(s *packetSpec) { s.dport++ }), false},
		{"protocol", base.build(), with(base, func(s *packetSpec) { s.proto = layers.IPProtocolTCP }), false},
		{"protocol over IPv6", base6.build(), with(base6, func(s *packetSpec) { s.proto = layers.IPProtocolTCP }), false},
		{"source", base.build(), with(base, func(s *packetSpec) { s.src = "10.1.0.2" }), false},
		{"family", base.build(), base6.build(), false},
		{"options", base.build(), with(base, func(s *packetSpec) { s.options = []layers.IPv4Option{{OptionType: 1}} }), false},
		{"cut", base.build(), base.build()[:22], false},
		{"cut IPv6", base6.build(), base6.build()[:42], false},
		{"nothing", base.build(), nil, false},
	} {
		var p inner
		require.Equal(t, DropNone, parseInner(tt.a, &p))
		require.True(t, followable(tt.a, &p), tt.name)
		assert.Equal(t, tt.want, sameFlow(tt.a, tt.b), tt.name)
	}
	fragment := base.build()
	fragment[6] = 0x20
	assert.False(t, sameFlow(base.build(), fragment))
	for _, b := range [][]byte{
		fragment,
		with(base, func(s *packetSpec) { s.dport = 4341 }),
		with(base, func(s *packetSpec) { s.proto = layers.IPProtocolICMPv4 }),
		with(base, func(s *packetSpec) { s.options = []layers.IPv4Option{{OptionType: 1}} }),
	} {
		var p inner
		require.Equal(t, DropNone, parseInner(b, &p))
		assert.False(t, followable(b, &p))
	}
}

func TestRefusals(t *testing.T) {
	negative := func(a lisp.Action) func(*testing.T, *node) {
		return func(t *testing.T, x *node) {
			x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.9.0.0/16")}, TTL: time.Hour, Action: a})
		}
	}
	unreachable := [2]uint8{3, 1}
	none := [2]uint8{}
	for _, tt := range []struct {
		name    string
		prepare func(*testing.T, *node)
		b       []byte
		want    DropReason
		icmp    [2]uint8
	}{
		{"garbage", nil, []byte{1, 2, 3}, DropTruncated, none},
		{"not IP", nil, make([]byte, 40), DropVersion, none},
		{"multicast", nil, packetSpec{src: eidA4, dst: "224.0.0.5"}.build(), DropScope, none},
		{"link-local", nil, packetSpec{src: "fe80::1", dst: "ff02::2"}.build(), DropScope, none},
		{"not from an EID", nil, packetSpec{src: "10.7.0.1", dst: eidB4}.build(), DropSource, none},
		// Loop prevention: an outer packet that strayed into the device, a
		// packet to ourselves, and a locator that is behind itself.
		{"from our locator", nil, packetSpec{src: rlocA4, dst: eidB4}.build(), DropLoop, none},
		{"to our locator", nil, packetSpec{src: eidA4, dst: rlocA4}.build(), DropLoop, none},
		{
			"to the locator it would be tunnelled to", func(t *testing.T, x *node) { x.learn(t, 0, rlocB4+"/32", rlocB4) },
			packetSpec{src: eidA4, dst: rlocB4}.build(), DropLoop, unreachable,
		},
		{
			"mapped to ourselves", func(t *testing.T, x *node) { x.learn(t, 0, "10.9.0.0/16", rlocA4) },
			packetSpec{src: eidA4, dst: "10.9.0.1"}.build(), DropLoop, unreachable,
		},
		{"two data headers already", nil, nested(eidA4, eidB4), DropNesting, none}, // RFC 9300-4-6, 9300-18-1
		// RFC 9301-5.4-4
		{"ACT 3", negative(lisp.ActionDropNoReason), packetSpec{src: eidA4, dst: "10.9.0.1"}.build(), DropAction, unreachable},
		{"ACT 0", negative(lisp.ActionNoAction), packetSpec{src: eidA4, dst: "10.9.0.1"}.build(), DropAction, unreachable},
		{"ACT 4", negative(lisp.ActionDropPolicyDenied), packetSpec{src: eidA4, dst: "10.9.0.1"}.build(), DropAction, [2]uint8{3, 13}},
		{"ACT 5", negative(lisp.ActionDropAuthFailure), packetSpec{src: eidA4, dst: "10.9.0.1"}.build(), DropAction, [2]uint8{3, 13}},
		{"ACT 2", negative(lisp.ActionSendMapRequest), packetSpec{src: eidA4, dst: "10.9.0.1"}.build(), DropRequest, none},
		{"all locators down", func(_ *testing.T, x *node) {
			x.cache.SetReachable(mapcache.Locator{Addr: addr(rlocB4), Port: 4341}, false)
		}, packetSpec{src: eidA4, dst: eidB4}.build(), DropNoLocator, unreachable},
		{
			"no source locator", func(t *testing.T, x *node) { require.NoError(t, x.SetLocals(locals(rlocA6))) },
			packetSpec{src: eidA4, dst: eidB4}.build(), DropNoSource, unreachable,
		},
		{"native forwarding fails", func(t *testing.T, x *node) {
			negative(lisp.ActionNativelyForward)(t, x)
			x.native.err = errors.New("down")
		}, packetSpec{src: eidA4, dst: "10.9.0.1"}.build(), DropNative, unreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, rlocB4)
			if tt.prepare != nil {
				tt.prepare(t, x)
			}
			x.push(tt.b)
			assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops())
			typ, code, _, ok := x.icmpError()
			assert.Equal(t, tt.icmp != none, ok)
			assert.Equal(t, tt.icmp, [2]uint8{typ, code})
			assert.Empty(t, x.underlay.take())
		})
	}
}

func TestSendMapRequestAction(t *testing.T) {
	x := newA(t, &memNet{}, "")
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.9.0.0/16")}, TTL: time.Hour, Action: lisp.ActionSendMapRequest})
	x.push(packetSpec{src: eidA4, dst: "10.9.0.1"}.build())
	assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoveryRequest, Key: mapcache.Key{Prefix: prefix("10.9.0.1/32")}}, <-x.Discoveries())
	for range 100 {
		x.push(packetSpec{src: eidA4, dst: "10.9.0.1"}.build())
	}
	assert.EqualValues(t, 100-cap(x.discoveries), x.Stats().DiscoveryDrops)
}

func TestICMPRate(t *testing.T) {
	x := newA(t, &memNet{}, "", func(c *nodeConfig) { c.change = func(c *Config) { c.ICMPRate = 10 } })
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.9.0.0/16")}, TTL: time.Hour, Action: lisp.ActionDropNoReason})
	for range 1000 {
		x.push(packetSpec{src: eidA4, dst: "10.9.0.1"}.build())
	}
	s := x.Stats()
	assert.EqualValues(t, 1000, s.Drop(DropAction))
	assert.EqualValues(t, 1000, s.ICMPSent+s.ICMPLimited)
	assert.NotZero(t, s.ICMPSent)
	assert.NotZero(t, s.ICMPLimited)

	off := newA(t, &memNet{}, "", func(c *nodeConfig) { c.change = func(c *Config) { c.ICMPRate = -1 } })
	off.push(packetSpec{src: eidA4, dst: eidA4}.build())
	assert.Zero(t, off.Stats().ICMPSent)
}

// The stateless rule of RFC 9300 §7.1, with L the MTU of the link: RFC 9300-7-1.
func TestMTU(t *testing.T) {
	for _, tt := range []struct {
		name    string
		rloc    string
		spec    packetSpec
		sent    int // datagrams
		icmpMTU int
	}{
		{"fits IPv4", rlocB4, packetSpec{src: eidA4, dst: eidB4, payloadLen: 1464 - 28, df: true}, 1, 0},
		{"fits IPv6", rlocB6, packetSpec{src: eidA6, dst: eidB6, payloadLen: 1444 - 48}, 1, 0},
		// RFC 9300-7.1-1, 9300-7.1-2, 9300-7.1-s1, 9300-5-2
		{"cut", rlocB4, packetSpec{src: eidA4, dst: eidB4, payloadLen: 1464 - 27}, 2, 0},
		{"cut for IPv6", rlocB6, packetSpec{src: eidA4, dst: eidB4, payloadLen: 1444 - 27}, 2, 0},
		// RFC 9300-7.1-s2
		{"DF", rlocB4, packetSpec{src: eidA4, dst: eidB4, payloadLen: 1464 - 27, df: true}, 0, 1464},
		{"DF for IPv6", rlocB6, packetSpec{src: eidA4, dst: eidB4, payloadLen: 1464 - 27, df: true}, 0, 1444},
		{"IPv6", rlocB4, packetSpec{src: eidA6, dst: eidB6, payloadLen: 1464 - 47}, 0, 1464},
		{"IPv6 in IPv6", rlocB6, packetSpec{src: eidA6, dst: eidB6, payloadLen: 1444 - 47}, 0, 1444},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, tt.rloc) // 1500, RFC 9300-7.1-5
			small := packetSpec{src: tt.spec.src, dst: tt.spec.dst, payloadLen: 1, df: true}.build()
			big := tt.spec.build()
			x.push(small, big, small)
			out := x.underlay.take()
			require.Len(t, out, 2+tt.sent)
			assert.Equal(t, small, out[0].Bytes[8:], "what came before leaves before")
			assert.Equal(t, small, out[len(out)-1].Bytes[8:])
			for _, o := range out {
				assert.LessOrEqual(t, len(o.Bytes)-8+Overhead(o.Remote.Addr()), 1500)
				assert.Equal(t, out[0].Remote, o.Remote)
				assert.EqualValues(t, 64, o.TTL)
			}
			typ, _, mtu, ok := x.icmpError()
			assert.Equal(t, tt.icmpMTU > 0, ok)
			if tt.icmpMTU > 0 {
				assert.Equal(t, map[DropReason]uint64{DropTooBig: 1}, x.drops())
				assert.Equal(t, tt.icmpMTU, mtu)
				assert.Contains(t, []uint8{3, 2}, typ)
			}
			if tt.sent == 2 {
				assert.EqualValues(t, 1, x.Stats().Fragmented)
				assert.InDelta(t, len(out[1].Bytes), len(out[2].Bytes), 16, "equal fragments")
			}
		})
	}
}

// No link carries an outer packet of more than 65535 octets, whatever its MTU.
func TestMTUBeyondIP(t *testing.T) {
	for _, change := range []func(*nodeConfig){
		func(c *nodeConfig) { c.mtu = 65536 }, // as that of lo
		func(c *nodeConfig) { c.mtu, c.change = -1, func(c *Config) { c.MTU = 1 << 20 } },
	} {
		x := newA(t, &memNet{}, rlocB4, change)
		x.push(packetSpec{src: eidA4, dst: eidB4, df: true, payloadLen: 65535 - 36 - 28}.build())
		assert.Len(t, x.underlay.take(), 1)
		x.push(packetSpec{src: eidA4, dst: eidB4, df: true, payloadLen: 65535 - 36 - 28 + 1}.build())
		assert.Empty(t, x.underlay.take())
		_, _, mtu, ok := x.icmpError()
		assert.True(t, ok)
		assert.Equal(t, 65535-36, mtu)
	}
}

// A path that carries less than the link is learned from what the kernel
// refuses (RFC 9300 §7.2), and forgotten after a while.
func TestPathMTU(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4, func(c *nodeConfig) { c.pathMTU = 1400 })
	b := packetSpec{src: eidA4, dst: eidB4, payloadLen: 1400, df: true}.build()
	for range 2 { // refused by the path; then not even tried
		x.push(b)
		_, _, mtu, ok := x.icmpError()
		require.True(t, ok)
		assert.Equal(t, 1400-36, mtu) // RFC 9300-7.2-s1
		assert.Empty(t, x.underlay.take())
	}
	x.push(packetSpec{src: eidA4, dst: eidB4, payloadLen: 1400}.build())
	assert.Len(t, x.underlay.take(), 2, "cut to fit")
	x.push(packetSpec{src: eidA6, dst: eidB6, payloadLen: 1400}.build())
	_, _, mtu, _ := x.icmpError()
	assert.Equal(t, 1364, mtu)

	at := x.paths.expire(time.Now())
	assert.False(t, at.IsZero())
	assert.Zero(t, x.paths.expire(at))
	x.underlay.path = 0
	x.push(b)
	assert.Len(t, x.underlay.take(), 1, "tried again")
}

// Over a path of less than 1280 + H, IPv6 packets up to 1280 octets still pass.
func TestSmallPathIPv6(t *testing.T) {
	for _, cfg := range []func(*nodeConfig){
		func(c *nodeConfig) { c.pathMTU = 1280 },
		func(c *nodeConfig) { c.mtu = 1280 },
	} {
		for _, rloc := range []string{rlocB4, rlocB6} {
			x := newA(t, &memNet{}, rloc, cfg)
			b := packetSpec{src: eidA6, dst: eidB6, payloadLen: 1280 - 48}.build()
			x.push(b)
			out := x.underlay.take()
			require.Len(t, out, 1)
			assert.True(t, out[0].MayFragment) // RFC 9300-7.1-4
			assert.Equal(t, b, out[0].Bytes[8:])
			assert.EqualValues(t, 1, x.Stats().OuterFragmented)

			x.push(packetSpec{src: eidA6, dst: eidB6, payloadLen: 1281 - 48}.build())
			_, _, mtu, ok := x.icmpError()
			assert.True(t, ok)
			assert.Equal(t, 1280, mtu)
		}
	}
}

func TestNativeForwarding(t *testing.T) {
	x := newA(t, &memNet{}, "")
	for _, p := range []string{"0.0.0.0/1", "2000::/3"} {
		x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix(p)}, TTL: time.Hour, Action: lisp.ActionNativelyForward})
	}
	v4 := packetSpec{src: eidA4, dst: "10.9.0.1", tos: 3, ttl: 1, payloadLen: 20}.build()
	v6 := packetSpec{src: eidA6, dst: "2001:db8:9::1", payloadLen: 20}.build()
	x.push(v4, v6)
	assert.Equal(t, [][]byte{v4, v6}, x.native.sent, "unmodified")
	assert.Equal(t, Counter{2, uint64(len(v4) + len(v6))}, x.Stats().Native)
	assert.Empty(t, x.underlay.take())

	// The MTU of the uplink is obeyed.
	x.native.sent, x.native.mtu = nil, 1000
	x.push(packetSpec{src: eidA4, dst: "10.9.0.1", payloadLen: 1400}.build())
	assert.Len(t, x.native.sent, 2)
	x.push(packetSpec{src: eidA4, dst: "10.9.0.1", payloadLen: 1400, df: true}.build())
	_, _, mtu, ok := x.icmpError()
	assert.True(t, ok)
	assert.Equal(t, 1000, mtu)
	x.push(packetSpec{src: eidA6, dst: "2001:db8:9::1", payloadLen: 1400}.build())
	_, _, mtu, ok = x.icmpError()
	assert.True(t, ok)
	assert.Equal(t, 1280, mtu)
	assert.Len(t, x.native.sent, 2)
	assert.Equal(t, map[DropReason]uint64{DropTooBig: 2}, x.drops())

	// A Proxy-ETR takes such packets instead, over either family.
	x.learn(t, 0, "0.0.0.0/1", rlocB6)
	x.push(v4)
	out := x.underlay.take()
	require.Len(t, out, 1)
	assert.Equal(t, addr(rlocB6), out[0].Remote.Addr()) // RFC 6832-6.1-s1, 6832-6.1-s2, 6832i-6.1-1
}

// failing is an Underlay whose sends fail.
type failing struct {
	*memUnderlay
	err error
}

func (u failing) Open(l mapcache.Local) (Path, error) {
	p, err := u.memUnderlay.Open(l)
	return failingPath{p, u.err}, err
}

type failingPath struct {
	Path
	err error
}

func (p failingPath) Send(out []Outgoing) bool {
	for i := range out {
		out[i].Err = p.err
	}
	return false
}

func TestSendErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want DropReason
		icmp bool
	}{
		{syscall.ENOBUFS, DropSend, false},
		{syscall.ENETUNREACH, DropSend, true},
		{syscall.EHOSTUNREACH, DropSend, true},
		{ErrTooBig, DropTooBig, false}, // and the path does not know why
	} {
		x := newA(t, &memNet{}, rlocB4, func(c *nodeConfig) {
			c.change = func(c *Config) { c.Underlay = failing{c.Underlay.(*memUnderlay), tt.err} }
		})
		x.push(packetSpec{src: eidA4, dst: eidB4}.build())
		assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops())
		_, _, _, ok := x.icmpError()
		assert.Equal(t, tt.icmp, ok)
		assert.Zero(t, x.Stats().Encapsulated)
	}
}
