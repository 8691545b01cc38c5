package natt

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestRTRRegistration follows a registration through the RTR and back.
func TestRTRRegistration(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	n.locals = map[string][2]uint8{"10.0.0.2": {3, 50}}
	in := n.registerPacket(t, 1)
	out := b.send(natPort, in)
	require.Len(t, out, 1)
	d := out[0]
	assert.Equal(t, netip.AddrPortFrom(rtrIP, 4342), d.Local)
	assert.Equal(t, msPort, d.Remote)
	assert.Equal(t, uint32(0x80200000), binary.BigEndian.Uint32(d.Bytes)) // nat19i-4.3-5 N = 1, R = 0
	assert.Equal(t, in[4:], d.Bytes[4:], "the Map-Register goes on as it came")

	// Not before the Map-Server has confirmed it.
	assert.Empty(t, b.r.Relays()) // nat19-5.3-s1: unverified
	assert.Empty(t, b.changes())
	assert.Equal(t, 1, b.r.Stats().Pending)

	notify := b.notifyPacket(n, 1)
	out = b.send(msPort, notify)
	require.Len(t, out, 1)
	d = out[0]
	assert.Equal(t, netip.AddrPortFrom(rtrIP, 4342), d.Local, "RTR port 4342") // nat19-4.5-s1
	assert.Equal(t, natPort, d.Remote, "translated address and port")
	assert.Equal(t, 3, d.IfIndex)
	h, err := lisp.ParseDataHeader(d.Bytes)
	require.NoError(t, err)
	iid, ok := h.InstanceID()
	assert.True(t, ok)
	assert.Equal(t, uint32(0xffffff), iid) // nat19i-4.5-1
	inner, m := dataNotify(t, d.Bytes)
	assert.Equal(t, msPort, inner.Source)
	assert.Equal(t, netip.AddrPortFrom(insideIP, 4342), inner.Destination)
	assert.Equal(t, lisp.Nonce(1), m.Nonce)
	require.NoError(t, lisp.Verify(inner.Payload, siteKey))

	want := Relay{
		Prefix: netip.MustParsePrefix("172.16.3.3/32"), XTRID: xtrA, SiteID: 7, Local: insideIP, Global: natPort, RTR: rtrIP, IfIndex: 3,
		Priority: 3, Weight: 50, MapServer: msIP, Verified: b.now, Expires: b.now.Add(DefaultRelayLifetime),
	}
	assert.Equal(t, []Relay{want}, b.r.Relays()) // nat19-5.3-s1 nat19-5.3-s2 nat19i-5-3
	assert.Equal(t, []RelayChange{{Prefix: want.Prefix, Relays: []Relay{want}}}, b.changes())
	es := b.events()
	require.Len(t, es, 1)
	assert.Equal(t, "172.16.3.3/32 is behind NAT 198.51.100.7:49152, local 10.0.0.2, RTR 203.0.113.9, confirmed by Map-Server 192.0.2.1", es[0].String())
	st := b.r.Stats()
	assert.EqualValues(t, 1, st.Registers)
	assert.EqualValues(t, 1, st.Relayed)
	assert.EqualValues(t, 1, st.Notifies)
	assert.EqualValues(t, 1, st.DataMapNotifies)
	assert.Equal(t, 1, st.Relays)
	assert.Zero(t, st.Pending)
	assert.Zero(t, st.Dropped)
}

// TestRTRRefresh: a refresh changes nothing but the lifetime; another translated
// port counts from its Map-Notify on.
func TestRTRRefresh(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	b.registered(n, 1)
	b.changes()
	b.events()
	b.advance(time.Minute)
	b.registered(n, 2)
	assert.Empty(t, b.changes(), "nothing new")
	assert.Empty(t, b.events())
	require.Len(t, b.r.Relays(), 1)
	assert.Equal(t, b.now.Add(DefaultRelayLifetime), b.r.Relays()[0].Expires)

	n.from = natPort2
	require.Len(t, b.send(n.from, n.registerPacket(t, 3)), 1)
	assert.Equal(t, natPort, b.r.Relays()[0].Global, "not confirmed yet")
	require.Len(t, b.send(msPort, b.notifyPacket(n, 3)), 1)
	assert.Equal(t, natPort2, b.r.Relays()[0].Global)
	cs := b.changes()
	require.Len(t, cs, 1)
	require.Len(t, cs[0].Relays, 1)
	assert.Equal(t, natPort2, cs[0].Relays[0].Global)
	es := b.events()
	require.Len(t, es, 1)
	assert.Equal(t, natPort, es[0].(RelayVerified).Before)
}

// TestRTRLifetime: a node that goes silent is forgotten with its registration.
func TestRTRLifetime(t *testing.T) {
	for _, c := range []struct {
		name   string
		ttl    uint32
		useTTL bool
		want   time.Duration
	}{
		{"as a registration", 10, false, DefaultRelayLifetime},
		{"short Record TTL", 2, false, 2 * time.Minute},
		{"T bit", 10, true, 10 * time.Minute},
		{"T bit, no limit", lisp.TTLUnlimited, true, 24 * time.Hour},
		{"no limit", lisp.TTLUnlimited, false, DefaultRelayLifetime},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRTRBench(t)
			n := nodeA()
			n.ttl = c.ttl
			b.send(natPort, n.registerPacket(t, 1, func(m *lisp.MapRegister) { m.UseTTL = c.useTTL }))
			b.send(msPort, b.notifyPacket(n, 1))
			b.changes()
			b.events()
			require.Equal(t, b.now.Add(c.want), b.r.Deadline()) // nat19-5.3-s2: for the TTL
			b.advance(c.want - time.Second)
			require.Len(t, b.r.Relays(), 1)
			b.advance(time.Second)
			assert.Empty(t, b.r.Relays())
			assert.Equal(t, []RelayChange{{Prefix: netip.MustParsePrefix(n.eid)}}, b.changes())
			es := b.events()
			require.Len(t, es, 1)
			assert.Equal(t, RelayExpired, es[0].(RelayGone).Why)
			assert.Zero(t, b.r.Stats().EIDs)
			assert.True(t, b.r.Deadline().IsZero())
		})
	}
}

func TestRTRWithdrawal(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	b.registered(n, 1)
	b.changes()
	b.events()
	n.ttl = 0
	b.registered(n, 2)
	assert.Empty(t, b.r.Relays())
	cs := b.changes()
	require.Len(t, cs, 1)
	assert.Empty(t, cs[0].Relays)
	assert.Equal(t, RelayWithdrawn, b.events()[0].(RelayGone).Why)
}

// TestRTRMultihomed: one xTR with two addresses behind NATs.
func TestRTRMultihomed(t *testing.T) {
	b := newRTRBench(t)
	one, two := nodeA(), nodeA()
	one.locals = map[string][2]uint8{"10.0.0.2": {1, 25}, "10.9.9.2": {1, 75}}
	two.locals, two.local, two.from = one.locals, inside2, natPort2
	b.registered(one, 1)
	require.Len(t, b.r.Relays(), 1, "the other one has not registered from there") // nat19-5.3-s3
	b.advance(30 * time.Second)
	at := b.now
	b.registered(two, 2)
	rs := b.r.Relays()
	require.Len(t, rs, 2)
	assert.Equal(t, []uint8{25, 75}, []uint8{rs[0].Weight, rs[1].Weight})
	assert.Equal(t, at.Add(DefaultRelayLifetime-30*time.Second), rs[0].Expires, "only refreshed from its own address")
	b.changes()

	// Weights and priorities of all follow every Map-Register of the xTR.
	one.locals = map[string][2]uint8{"10.0.0.2": {2, 10}, "10.9.9.2": {1, 90}}
	b.registered(one, 3)
	rs = b.r.Relays()
	assert.Equal(t, []uint8{2, 1}, []uint8{rs[0].Priority, rs[1].Priority}) // nat19-5.3-s3
	assert.Equal(t, []uint8{10, 90}, []uint8{rs[0].Weight, rs[1].Weight})
	require.Len(t, b.changes(), 1)

	// One that is not listed any more is gone.
	two.locals = map[string][2]uint8{"10.9.9.2": {1, 100}}
	b.events()
	b.registered(two, 4)
	rs = b.r.Relays()
	require.Len(t, rs, 1) // nat19i-5.3-2 nat19i-5.3-3
	assert.Equal(t, inside2, rs[0].Local)
	assert.Equal(t, RelayReplaced, b.events()[0].(RelayGone).Why)

	// Priority 255 is kept, and not used.
	two.locals = map[string][2]uint8{"10.9.9.2": {255, 100}}
	b.changes()
	b.registered(two, 5)
	require.Len(t, b.r.Relays(), 1)
	cs := b.changes()
	require.Len(t, cs, 1)
	assert.Empty(t, cs[0].Relays)
}

// TestRTROtherXTR: another xTR that the Map-Server accepts for the EID-Prefix
// leaves the first one's state alone. Traffic goes to the last one, or to both if
// both merge.
func TestRTROtherXTR(t *testing.T) {
	for _, merge := range []bool{false, true} {
		b := newRTRBench(t)
		one, two := nodeA(), nodeA()
		one.merge, two.merge = merge, merge
		two.xtr, two.local, two.from = xtrB, inside2, natPort2
		b.registered(one, 1)
		before := b.r.Relays()
		b.registered(two, 1)
		rs := b.r.Relays()
		require.Len(t, rs, 2)
		assert.Equal(t, before[0], rs[0]) // nat19-5.3-s3: other xTR-IDs are untouched
		cs := b.changes()
		require.Len(t, cs, 1)
		if merge {
			assert.Len(t, cs[0].Relays, 2)
		} else {
			require.Len(t, cs[0].Relays, 1)
			assert.Equal(t, natPort2, cs[0].Relays[0].Global)
		}
	}
}

// TestRTRUnsolicited: news for a node go to where it is; that it is elsewhere has
// the mapping system asked.
func TestRTRUnsolicited(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	b.registered(n, 1)
	b.changes()
	b.events()

	elsewhere := n
	elsewhere.rtr = rtrIP2
	// The Map-Server addresses it to whatever it knows.
	news := func(n node, to netip.Addr, nonce lisp.Nonce) []byte {
		n.local = to
		return b.notifyPacket(n, nonce)
	}
	out := b.send(msPort, news(n, netip.MustParseAddr("10.99.99.99"), 77)) // nat19i-5.3-9 nat19i-5.5-5
	require.Len(t, out, 1)
	assert.Equal(t, natPort, out[0].Remote)
	assert.Equal(t, netip.AddrPortFrom(rtrIP, 4342), out[0].Local)
	inner, m := dataNotify(t, out[0].Bytes)
	assert.Equal(t, netip.AddrPortFrom(insideIP, 4342), inner.Destination, "rewritten") // nat19-5.3-s4
	assert.Equal(t, lisp.Nonce(77), m.Nonce)
	assert.EqualValues(t, 1, b.r.Stats().Unsolicited)
	assert.Empty(t, b.changes())

	assert.Empty(t, b.send(msPort, news(elsewhere, insideIP, 78))) // nat19i-5.3-10 nat19-5.3-s4
	assert.Equal(t, RTRElsewhere, b.lastReason())
	cs := b.changes()
	require.Len(t, cs, 1)
	assert.True(t, cs[0].Resolve)
	assert.Len(t, cs[0].Relays, 1, "until the mapping system has answered")

	b.r.Moved(b.now, b.now.Add(-time.Second), 0, netip.MustParsePrefix(n.eid))
	cs = b.changes()
	require.Len(t, cs, 1, "confirmed since the mapping system was asked: its answer may be older")
	assert.Len(t, cs[0].Relays, 1)
	assert.Len(t, b.r.Relays(), 1)

	b.r.Moved(b.now, b.now, 0, netip.MustParsePrefix(n.eid))
	assert.Empty(t, b.r.Relays())
	assert.Equal(t, RelayMoved, b.events()[0].(RelayGone).Why)
	cs = b.changes()
	require.Len(t, cs, 1)
	assert.Empty(t, cs[0].Relays)

	assert.Empty(t, b.send(msPort, news(n, insideIP, 79)))
	assert.Equal(t, RTRNotServed, b.lastReason())
	b.r.Moved(b.now, b.now, 0, netip.MustParsePrefix(n.eid))
	assert.Empty(t, b.changes())
}

// TestRTROtherAddress: nodes may register at any address of the RTR, and are
// reached from the one they know.
func TestRTROtherAddress(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	n.rtr = rtrIP2
	b.registered(n, 1)
	assert.Equal(t, rtrIP2, b.r.Relays()[0].RTR)
	out := b.send(msPort, b.notifyPacket(n, 50)) // known as an address of ours
	require.Len(t, out, 1)
	assert.Equal(t, rtrIP2, out[0].Local.Addr())
}

func TestNewRTR(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  RTRConfig
	}{
		{"no Map-Server", RTRConfig{}},
		{"no address", RTRConfig{MapServers: []RTRMapServer{{}}}},
		{"multicast", RTRConfig{MapServers: []RTRMapServer{{Addr: netip.MustParseAddr("224.0.0.1")}}}},
		{"variant", RTRConfig{MapServers: []RTRMapServer{{Addr: msIP, Variant: LispersNet}}}},
		{"key", RTRConfig{MapServers: []RTRMapServer{{Addr: msIP, Key: lisp.Key{Algorithm: lisp.AlgorithmHMACSHA256HKDF, Secret: []byte("x")}}}}},
		{"limit", RTRConfig{MapServers: []RTRMapServer{{Addr: msIP}}, MaxRelays: -1}},
	} {
		_, err := NewRTR(c.cfg)
		require.ErrorIs(t, err, ErrConfig, c.name)
	}
}
