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

// unmoved requires that a registered node is where it was.
func (b *rtrBench) unmoved(before []Relay) {
	b.t.Helper()
	assert.Equal(b.t, before, b.r.Relays())
	assert.Empty(b.t, b.changes())
}

// victim is a registered node, and its state.
func victim(t testing.TB, change ...func(*RTRConfig)) (*rtrBench, node, []Relay) {
	b := newRTRBench(t, change...)
	n := nodeA()
	b.registered(n, 1000)
	b.changes()
	b.events()
	return b, n, b.r.Relays()
}

// TestRTRStolenXTRID: an off-path host that knows everything of a node but the
// site's key registers in its place. It is relayed, and the Map-Server doesn't
// confirm it.
func TestRTRStolenXTRID(t *testing.T) {
	b, n, before := victim(t)
	forged := n
	forged.from = attacker
	for nonce := range lisp.Nonce(3) {
		b.send(attacker, forged.registerPacket(t, 1001+nonce))
	}
	b.unmoved(before)

	// It has guessed the next nonce: which of both the Map-Server confirms cannot
	// be told, but the node is known.
	out := b.send(n.from, n.registerPacket(t, 1001))
	require.Len(t, out, 1)
	out = b.send(msPort, b.notifyPacket(n, 1001))
	require.Len(t, out, 1)
	assert.Equal(t, n.from, out[0].Remote)
	assert.Equal(t, n.from, b.r.Relays()[0].Global)
	b.advance(pendingTime)
	assert.EqualValues(t, 2, b.r.Stats().Dropped[RTRUnanswered])

	// A node that is not known loses a try by that, and nothing is believed.
	fresh := n
	fresh.eid = "172.16.3.4/32"
	forged.eid = fresh.eid
	b.send(attacker, forged.registerPacket(t, 2000))
	b.send(fresh.from, fresh.registerPacket(t, 2000))
	b.events()
	assert.Empty(t, b.send(msPort, b.notifyPacket(fresh, 2000)))
	assert.Equal(t, RTRAmbiguous, b.lastReason())
	require.Len(t, b.r.Relays(), 1)
	b.registered(fresh, 2001)

	// More sources with one nonce than that are not even relayed.
	for i := range maxAttempts + 1 {
		from := netip.AddrPortFrom(attacker.Addr(), uint16(5000+i))
		want := 1
		if i >= maxAttempts {
			want = 0
		}
		assert.Len(t, b.send(from, forged.registerPacket(t, 3000)), want)
	}
	assert.Equal(t, RTRAmbiguous, b.lastReason())
}

// TestRTRStolenXTRIDInside: an xTR of another site, which the Map-Server accepts
// for its own EID-Prefix, uses the xTR-ID of a node. The node's EID-Prefixes are
// not touched.
func TestRTRStolenXTRIDInside(t *testing.T) {
	b, _, before := victim(t)
	thief := node{xtr: xtrA, local: insideIP, from: attacker, eid: "172.16.9.0/24", ttl: 10, rtr: rtrIP}
	b.registered(thief, 1001)
	rs := b.r.Relays()
	require.Len(t, rs, 2)
	assert.Equal(t, before[0], rs[0])
	cs := b.changes()
	require.Len(t, cs, 1)
	assert.Equal(t, netip.MustParsePrefix(thief.eid), cs[0].Prefix)
	// Nor by a Map-Notify for more than was registered.
	thief.from = natPort2
	b.send(thief.from, thief.registerPacket(t, 1002))
	both := b.notifyPacket(thief, 1002, func(m *lisp.MapNotify) { m.Records = append(m.Records, nodeA().record()) })
	require.Len(t, b.send(msPort, both), 1)
	assert.Equal(t, before[0], b.r.Relays()[0])
}

// TestRTRReplay: somebody has kept a Map-Register and a Map-Notify of a node.
func TestRTRReplay(t *testing.T) {
	for name, change := range map[string]func(*RTRConfig){"with a key": func(*RTRConfig) {}, "without": withoutKey} {
		t.Run(name, func(t *testing.T) {
			b := newRTRBench(t, change)
			n := nodeA()
			reg, notify := n.registerPacket(t, 1000), b.notifyPacket(n, 1000)
			b.registered(n, 1000)
			b.changes()
			before := b.r.Relays()
			b.events()

			assert.Empty(t, b.send(attacker, reg), "not even relayed")
			assert.Equal(t, RTRReplay, b.lastReason())
			b.send(msPort, notify)
			b.unmoved(before)
			// The node itself repeats it since the Data-Map-Notify was lost.
			require.Len(t, b.send(n.from, reg), 1)
			require.Len(t, b.send(msPort, notify), 1)
			b.unmoved(before)
			// As the node moves on, what is kept is still known.
			for nonce := range lisp.Nonce(confirmedNonces - 2) {
				b.registered(n, 1001+nonce)
			}
			b.events()
			assert.Empty(t, b.send(attacker, reg))
			assert.Equal(t, RTRReplay, b.lastReason())
		})
	}
}

// TestRTRForgedNotify: nothing that an off-path host sends is a Map-Notify.
func TestRTRForgedNotify(t *testing.T) {
	wrong := rtrKey
	wrong.Secret = []byte("wrong")
	with := func(b *rtrBench, k lisp.Key, n node, nonce lisp.Nonce) []byte {
		right := b.key
		b.key = k
		defer func() { b.key = right }()
		return b.notifyPacket(n, nonce)
	}
	for _, c := range []struct {
		name   string
		change func(*RTRConfig)
		key    lisp.Key
		nonce  lisp.Nonce
		from   netip.AddrPort
		reason RTRReason
	}{
		{"wrong key", func(*RTRConfig) {}, wrong, 1001, msPort, RTRAuthentication},                                   // nat19i-5.3-4
		{"no key", func(*RTRConfig) {}, lisp.Key{}, 1001, msPort, RTRNotSecured},                                     // nat19i-5.3-5
		{"by policy", func(c *RTRConfig) { withoutKey(c); keyRequired(c) }, lisp.Key{}, 1001, msPort, RTRNotSecured}, // nat19i-5.3-6
		{"nonce", withoutKey, lisp.Key{}, 1002, msPort, RTRNonce},                                                    // nat19i-5.3-7 nat19i-5.3-8
		{"no Map-Server", func(*RTRConfig) {}, rtrKey, 1001, attacker, RTRMapServerUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRTRBench(t, c.change)
			n := nodeA()
			// The node's Map-Register is under way.
			require.Len(t, b.send(n.from, n.registerPacket(t, 1001)), 1)
			assert.Empty(t, b.send(c.from, with(b, c.key, n, c.nonce)))
			assert.Equal(t, c.reason, b.lastReason())
			b.unmoved([]Relay{})
			assert.Equal(t, 1, b.r.Stats().Pending, "still waiting for the right one")
		})
	}
	// For another xTR-ID the nonce counts as little.
	b := newRTRBench(t, withoutKey)
	n := nodeA()
	b.send(n.from, n.registerPacket(t, 1001))
	other := n
	other.xtr = xtrB
	assert.Empty(t, b.send(msPort, b.notifyPacket(other, 1001)))
	assert.Equal(t, RTRNonce, b.lastReason())
	// Nothing unsolicited without a key.
	b.registered(n, 1002)
	b.events()
	assert.Empty(t, b.send(msPort, b.notifyPacket(n, 5)))
	assert.Equal(t, RTRNonce, b.lastReason())
}

func TestRTRRefusals(t *testing.T) {
	n := nodeA()
	elsewhere, err := (&lisp.EncapsulatedControl{RTR: true}).MarshalBinary()
	require.NoError(t, err)
	msg, err := n.message(1).AppendSigned(nil, siteKey)
	require.NoError(t, err)
	to := func(server netip.AddrPort) []byte {
		return encapsulated(t, lisp.EncapsulatedControl{RTR: true}, netip.AddrPortFrom(insideIP, 4342), server, msg)
	}
	for _, c := range []struct {
		name   string
		msg    []byte
		reason RTRReason
	}{
		{"no xTR-ID", n.registerPacket(t, 1, func(m *lisp.MapRegister) { m.XTRIDPresent = false }), RTRNoXTRID},
		{"zero xTR-ID", n.registerPacket(t, 1, func(m *lisp.MapRegister) { m.XTRID = lisp.XTRID{} }), RTRNoXTRID},
		{"another Map-Server", to(netip.MustParseAddrPort("192.0.2.2:4342")), RTRMapServerUnknown},
		{"another port", to(netip.MustParseAddrPort("192.0.2.1:53")), RTRMapServerUnknown},
		{"no records", n.registerPacket(t, 1, func(m *lisp.MapRegister) { m.Records = nil }), RTRMalformed},
		{"nothing inside", elsewhere, RTRMalformed},
		{"a Map-Request", encapsulated(t, lisp.EncapsulatedControl{RTR: true}, netip.AddrPortFrom(insideIP, 4342), msPort, []byte{0x10, 0, 0, 0}), RTRInner},
		{"cut", encapsulated(t, lisp.EncapsulatedControl{RTR: true}, netip.AddrPortFrom(insideIP, 4342), msPort, msg[:30]), RTRMalformed},
		{"multicast inside", encapsulated(t, lisp.EncapsulatedControl{RTR: true}, netip.MustParseAddrPort("224.0.0.1:4342"), msPort, msg), RTRMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRTRBench(t)
			assert.Empty(t, b.send(natPort, c.msg))
			assert.Equal(t, c.reason, b.lastReason())
			assert.EqualValues(t, 1, b.r.Stats().Dropped[c.reason])
			assert.Zero(t, b.r.Stats().Pending)
		})
	}
	// What is for others is left to them.
	b := newRTRBench(t)
	for _, m := range [][]byte{
		encapsulated(t, lisp.EncapsulatedControl{}, netip.AddrPortFrom(insideIP, 4342), msPort, []byte{0x10, 0, 0, 0}),
		encapsulated(t, lisp.EncapsulatedControl{Relayed: true}, netip.AddrPortFrom(insideIP, 4342), msPort, msg),
		msg,
		{0x20},
		{},
		{0x70, 0, 0, 0},
	} {
		assert.False(t, b.r.Handle(b.now, lisp.Datagram{Local: netip.AddrPortFrom(rtrIP, 4342), Remote: natPort, Bytes: m}))
	}
	assert.False(t, b.r.Handle(b.now, lisp.Datagram{Local: netip.AddrPortFrom(rtrIP, 4341), Remote: natPort, Bytes: n.registerPacket(t, 1)}), "a data packet")
	assert.Empty(t, b.events())
}

// TestRTRWithoutM: a Map-Register that wants no Map-Notify is relayed, and can't be
// confirmed.
func TestRTRWithoutM(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	require.Len(t, b.send(n.from, n.registerPacket(t, 1, func(m *lisp.MapRegister) { m.WantMapNotify = false })), 1)
	st := b.r.Stats()
	assert.EqualValues(t, 1, st.Unconfirmable)
	assert.Zero(t, st.Pending)
	assert.Empty(t, b.r.Relays())
}

// TestRTRFlood: made-up Map-Registers of made-up nodes from made-up sources fill no
// more than there is room for, and those who are known are served.
func TestRTRFlood(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.MaxPending, c.MaxRelays, c.RegisterRate = 64, 8, 100 })
	n := nodeA()
	b.registered(n, 1)
	const flood = 10_000
	relayed := 0
	for i := range flood {
		f := nodeA()
		binary.BigEndian.PutUint64(f.xtr[:], uint64(i))
		f.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 4341)
		relayed += len(b.send(f.from, f.registerPacket(t, lisp.Nonce(i))))
		b.now = b.now.Add(100 * time.Microsecond)
		require.LessOrEqual(t, len(b.r.pending), 64)
		require.LessOrEqual(t, len(b.r.attempts), 64+1)
	}
	assert.LessOrEqual(t, relayed, 2*100+1, "in a second")
	assert.Positive(t, b.r.Stats().Dropped[RTRPendingFull])
	assert.Positive(t, b.r.Stats().Dropped[RTRRate])
	b.registered(n, 2)

	// One source alone has its own rate.
	b.advance(time.Minute)
	relayed = 0
	for i := range 1000 {
		f := nodeA()
		binary.BigEndian.PutUint64(f.xtr[:], uint64(i))
		f.from = attacker
		relayed += len(b.send(f.from, f.registerPacket(t, lisp.Nonce(i))))
	}
	assert.Equal(t, DefaultSourceRate, relayed)
}

// TestRTRTableFull: confirmed nodes beyond MaxRelays are not taken, and leave
// nothing behind.
func TestRTRTableFull(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.MaxRelays = 3 })
	for i := range 6 {
		n := nodeA()
		n.eid = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 3, byte(i)}), 32).String()
		b.registered(n, lisp.Nonce(i))
	}
	assert.Len(t, b.r.Relays(), 3)
	assert.EqualValues(t, 3, b.r.Stats().Dropped[RTRTableFull])
	assert.Len(t, b.changes(), 3)
	assert.Len(t, b.r.eids, 3)
	// Nor may one node have any number of addresses.
	b = newRTRBench(t)
	n := nodeA()
	n.locals = make(map[string][2]uint8)
	for i := range maxLocals + 3 {
		n.local = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		n.locals[n.local.String()] = [2]uint8{1, 1}
		b.registered(n, lisp.Nonce(i))
	}
	assert.Len(t, b.r.Relays(), maxLocals)
	// When all of an EID-Prefix go and nobody listens, it goes with the next look.
	b.advance(time.Hour)
	b.changes()
	assert.Zero(t, b.r.Stats().EIDs)
	assert.Empty(t, b.r.expiry)
}
