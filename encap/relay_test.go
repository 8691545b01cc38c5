package encap

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// The RTR of the tests, with two registered EIDs behind different NATs, a public
// site, and a site that is not known yet.
const (
	rtr4, rtr6           = "203.0.113.1", "2001:db8:f::1"
	natted1, natted2     = "10.1.0.1", "fd00:2::1"
	natted2v4            = "10.2.0.1"
	public, publicRLOC   = "10.3.0.1", "192.0.2.3"
	unknown, nowhere     = "10.4.0.1", "10.5.0.1"
	nat1, nat2, stranger = "198.51.100.1", "198.51.100.2", "192.0.2.66"
	natPort1, natPort2   = 20001, 20002
)

type relayNode struct {
	*node
	ingress *ingress
}

func natLocator(a string, port uint16) mapcache.Locator {
	return mapcache.Locator{Addr: addr(a), Port: port, NAT: true}
}

// newRelay returns an RTR without a device.
func newRelay(t testing.TB, change ...func(*Config)) *relayNode {
	t.Helper()
	cache := mapcache.New(mapcache.Config{})
	native := &memNative{mtu: 1500}
	u := (&memNet{}).node(addr(rtr4), addr(rtr6))
	cfg := Config{Overlays: []Overlay{{Relay: true}}, View: cache.View, Meter: cache.NewMeter, Underlay: u, Native: native, ICMPRate: 1000}
	for _, f := range change {
		f(&cfg)
	}
	f, err := NewForwarder(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, f.Close()) })
	require.NoError(t, f.SetLocals(locals(rtr4, rtr6)))
	x := &relayNode{&node{Forwarder: f, cache: cache, underlay: u, now: time.Now()}, newIngress(f, u)}
	for eid, l := range map[string]mapcache.Locator{
		natted1: natLocator(nat1, natPort1), natted2: natLocator(nat2, natPort2), natted2v4: natLocator(nat2, natPort2),
		public: {Addr: addr(publicRLOC), Port: 4341},
	} {
		require.NoError(t, cache.Insert(time.Now(), mapcache.Mapping{
			Key: mapcache.HostKey(0, addr(eid)), RLOCs: []mapcache.RLOC{{Locator: l, Priority: 1, Weight: 1}},
			TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
		}))
	}
	require.NoError(t, cache.Insert(time.Now(), mapcache.Mapping{
		Key: mapcache.HostKey(0, addr(nowhere)), Action: lisp.ActionNativelyForward, TTL: time.Hour,
	}))
	cache.Publish()
	return x
}

// relayed takes datagrams and returns what was sent on.
func (x *relayNode) relayed(in ...Incoming) []Outgoing {
	x.ingress.receive(in)
	return x.underlay.take()
}

// received puts a datagram into a buffer like that of a socket, or not.
func received(in Incoming, room bool) Incoming {
	if !room {
		return in
	}
	in.buffer = newSlots(1)[0]
	n := copy(in.buffer[receiveAtForTest:], in.Bytes)
	in.Bytes = in.buffer[receiveAtForTest : receiveAtForTest+n]
	return in
}

const receiveAtForTest = Headroom - dataHeaderLen

// TestRelay: an RTR sends on what is from or to who is registered with it, by
// the rules for decapsulation and encapsulation in one.
func TestRelay(t *testing.T) {
	for _, tt := range []struct {
		name, src, dst, from, to string
		nat                      bool
	}{
		{"NATed to NATed", natted1, natted2v4, nat1, "198.51.100.2:20002", true}, // RFC nat19i-5.3.1-1, nat19i-5.3.1-2, nat19-5.3.1-s1
		{"NATed to public", natted1, public, nat1, "192.0.2.3:4341", false},      // RFC nat19i-5.3.1-3, nat19i-5.3.1-4
		{"public to NATed", public, natted1, publicRLOC, "198.51.100.1:20001", true},
		{"unknown to NATed", unknown, natted1, stranger, "198.51.100.1:20001", true},
		{"hairpin", natted2v4, natted1, nat1, "198.51.100.1:20001", true}, // two behind one NAT
	} {
		for _, room := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				x := newRelay(t)
				spec := packetSpec{src: tt.src, dst: tt.dst, tos: 0x02, ttl: 64, payloadLen: 30}
				in := from(tt.from, rtr4, encapsulated(0xc0, 0x123456, 5, append(spec.build(), 1, 2, 3)))
				in.TOS, in.TTL = 0xb8|ecnCE, 60
				out := x.relayed(received(in, room))
				require.Len(t, out, 1)
				spec.tos, spec.ttl = 0xb8|ecnCE, 59
				assert.Equal(t, encapsulated(0, 0, 0, spec.build()), out[0].Bytes, "a new data header, and the inner packet of RFC 9300 §5.3")
				assert.Equal(t, netip.MustParseAddrPort(tt.to), out[0].Remote)
				assert.Equal(t, tt.nat, out[0].NAT)
				assert.EqualValues(t, 59, out[0].TTL, "of the old outer header, minus 1") // RFC 9300-5.3-14
				assert.EqualValues(t, 0xb8|ecnCE, out[0].TOS)
				assert.Empty(t, x.drops())
				assert.Equal(t, Counter{1, uint64(len(spec.build()))}, x.Stats().Encapsulated)
			})
		}
	}
}

// TestRelayRefuses: an RTR is no relay for everybody, and packets do not go round.
func TestRelayRefuses(t *testing.T) {
	packet := func(src, dst string) []byte {
		return encapsulated(0, 0, 0, packetSpec{src: src, dst: dst, ttl: 64, payloadLen: 20}.build())
	}
	ttl := func(n uint8) Incoming {
		in := from(nat1, rtr4, packet(natted1, natted2v4))
		in.TTL = n
		return in
	}
	for _, tt := range []struct {
		name string
		in   Incoming
		want DropReason
	}{
		{"neither registered", from(publicRLOC, rtr4, packet(public, unknown)), DropNotRelayed},
		{"neither registered, known", from(stranger, rtr4, packet(unknown, public)), DropNotRelayed},
		{"neither registered, native", from(stranger, rtr4, packet(unknown, nowhere)), DropNotRelayed},
		{"TTL ends", ttl(1), DropTTL},
		{"back to where it comes from", from(publicRLOC, rtr4, packet(natted1, public)), DropLoop},
		{"for the RTR itself", from(nat1, rtr4, packet(natted1, rtr4)), DropLoop},
		{"two data headers already", from(nat1, rtr4, encapsulated(0, 0, 0, nested(natted1, natted2v4))), DropNesting}, // RFC 9300-4-6, 9300-18-1
		{"not our locator", from(nat1, "203.0.113.9", packet(natted1, natted2v4)), DropNotLocator},
		{"another instance", from(nat1, rtr4, encapsulated(0x08, 0, 7<<8, packetSpec{src: natted1, dst: natted2v4}.build())), DropInstance},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newRelay(t)
			assert.Empty(t, x.relayed(tt.in))
			assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops())
			assert.Empty(t, x.PendingMisses(nil))
		})
	}
}

// TestRelayHolds: what is from a registered EID to an unknown one waits for its
// mapping, or is forwarded natively if there is none.
func TestRelayHolds(t *testing.T) {
	x := newRelay(t)
	var ins []Incoming
	var want [][]byte
	for i := range 3 {
		spec := packetSpec{src: natted1, dst: unknown, ttl: 64, sport: 1, dport: 2, payloadLen: 20 + i}
		ins = append(ins, received(from(nat1, rtr4, encapsulated(0, 0, 0, spec.build())), i == 0))
		spec.ttl = 63
		want = append(want, encapsulated(0, 0, 0, spec.build()))
	}
	assert.Empty(t, x.relayed(ins...))
	assert.Equal(t, []mapcache.Key{mapcache.HostKey(0, addr(unknown))}, x.PendingMisses(nil))
	for _, in := range ins {
		clear(in.Bytes) // the receiver uses the buffer again
	}
	x.learn(t, 0, unknown+"/32", "192.0.2.4")
	require.NoError(t, x.Apply(nil))
	out := x.underlay.take()
	require.Len(t, out, 3)
	for i := range out {
		assert.Equal(t, want[i], out[i].Bytes)
		assert.Equal(t, netip.MustParseAddrPort("192.0.2.4:4341"), out[i].Remote)
	}

	spec := packetSpec{src: natted1, dst: nowhere, ttl: 64, payloadLen: 20}
	assert.Empty(t, x.relayed(from(nat1, rtr4, encapsulated(0, 0, 0, spec.build())))) // RFC nat19i-5.3.1-4
	spec.ttl = 63
	assert.Equal(t, [][]byte{spec.build()}, x.cfg.Native.(*memNative).sent)
}

// TestRelayTooBig: the source of a packet that does not fit is told through its
// tunnel.
func TestRelayTooBig(t *testing.T) {
	x := newRelay(t)
	x.underlay.mtu = 1000
	require.NoError(t, x.SetLocals(nil))
	require.NoError(t, x.SetLocals(locals(rtr4, rtr6)))
	done := make(chan error, 1)
	go func() { done <- x.Run(t.Context()) }()
	spec := packetSpec{src: natted1, dst: public, ttl: 64, payloadLen: 1200, df: true}
	x.underlay.in <- from(nat1, rtr4, encapsulated(0, 0, 0, spec.build()))
	var out []Outgoing
	require.Eventually(t, func() bool { out = append(out, x.underlay.take()...); return len(out) > 0 }, waitTime, time.Millisecond)
	assert.Equal(t, netip.MustParseAddrPort("198.51.100.1:20001"), out[0].Remote, "to the source, by its relay")
	var p inner
	require.Equal(t, DropNone, parseInner(out[0].Bytes[8:], &p))
	assert.Equal(t, addr(natted1), p.dst)
	icmp := out[0].Bytes[8+ipv4HeaderLen:]
	assert.Equal(t, []byte{3, 4}, icmp[:2])
	assert.EqualValues(t, 1000-36, int(icmp[6])<<8|int(icmp[7]))
	require.NoError(t, x.Close())
	require.NoError(t, <-done)
}

// TestRelaySegments: segments that arrived as one leave next to each other, from
// the buffer that they are in.
func TestRelaySegments(t *testing.T) {
	x := newRelay(t)
	spec := packetSpec{src: natted1, dst: natted2v4, ttl: 64, sport: 1, dport: 2, payloadLen: 100}
	one := encapsulated(0, 0, 0, spec.build())
	last := spec
	last.payloadLen = 50
	in := received(from(nat1, rtr4, slices.Concat(one, one, one, encapsulated(0, 0, 0, last.build()))), true)
	in.Segment = len(one)
	x.ingress.receive([]Incoming{in})
	out := x.underlay.take()
	require.Len(t, out, 4)
	spec.ttl, last.ttl = 63, 63
	for i := range 3 {
		assert.Equal(t, encapsulated(0, 0, 0, spec.build()), out[i].Bytes)
	}
	assert.Equal(t, encapsulated(0, 0, 0, last.build()), out[3].Bytes)
}

func TestRelayAllocations(t *testing.T) {
	u := &discarding{memUnderlay: (&memNet{}).node(addr(rtr4), addr(rtr6))}
	x := newRelay(t, func(cfg *Config) { cfg.Underlay = u })
	spec := packetSpec{src: natted1, dst: natted2v4, ttl: 64, sport: 1, dport: 2, payloadLen: 100}
	other := spec
	other.dst = public
	var ins []Incoming
	for i := range 32 {
		s := spec
		if i%2 == 1 {
			s = other
		}
		ins = append(ins, received(from(nat1, rtr4, encapsulated(0, 0, 0, s.build())), i < 16))
	}
	fresh := make([][]byte, len(ins))
	for i := range ins {
		fresh[i] = clone(ins[i].Bytes)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		for i := range ins {
			copy(ins[i].Bytes, fresh[i])
		}
		x.ingress.receive(ins)
	}))
	assert.Positive(t, u.packets)
	assert.Empty(t, x.drops())
}

// discarding is an underlay that counts.
type discarding struct {
	*memUnderlay
	packets int
}

func (u *discarding) Open(mapcache.Local) (Path, error) { return countingPath{u}, nil }

type countingPath struct{ u *discarding }

func (p countingPath) Send(out []Outgoing) bool {
	p.u.packets += len(out)
	for i := range out {
		out[i].Err = nil
	}
	return true
}
func (countingPath) MTU() int               { return 1500 }
func (countingPath) PathMTU(netip.Addr) int { return 0 }
func (countingPath) Close() error           { return nil }

func TestRelayConfig(t *testing.T) {
	x := newRelay(t)
	assert.Equal(t, "relay", x.overlays[0].device.Name())
	_, err := NewForwarder(Config{Overlays: []Overlay{{Relay: true, EIDs: []netip.Prefix{prefix("10.0.0.0/8")}}}, View: x.cache.View, Underlay: x.underlay})
	assert.ErrorContains(t, err, "no Device")
}
