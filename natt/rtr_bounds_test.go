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

// TestRTRKnownInFlood: a flood of unknown nodes has used up all there is for those;
// one that is known is relayed.
func TestRTRKnownInFlood(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.RegisterRate = 10 })
	n := nodeA()
	b.registered(n, 1)
	for i := range 100 {
		f := nodeA()
		binary.BigEndian.PutUint64(f.xtr[:], uint64(i))
		f.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), 4341)
		b.send(f.from, f.registerPacket(t, lisp.Nonce(i)))
	}
	assert.Positive(t, b.r.Stats().Dropped[RTRRate])
	b.registered(n, 2)
	// A clock that is set back refills nothing.
	b.now = b.now.Add(-time.Hour)
	f := nodeA()
	f.xtr, f.from = xtrB, attacker
	assert.Empty(t, b.send(f.from, f.registerPacket(t, 7)))
	b.now = b.now.Add(time.Second)
	assert.Len(t, b.send(f.from, f.registerPacket(t, 8)), 1)
}

// TestRTRForgedFlags: a Map-Register with the nonce of another one of the same
// node, which only one of both can be, adds nothing to what both ask for.
func TestRTRForgedFlags(t *testing.T) {
	for _, forgedFirst := range []bool{true, false} {
		b := newRTRBench(t)
		n := nodeA()
		forged := func() {
			b.send(n.from, n.registerPacket(t, 1, func(m *lisp.MapRegister) { m.UseTTL, m.Merge = true, true }))
		}
		if forgedFirst {
			forged()
		}
		b.send(n.from, n.registerPacket(t, 1))
		if !forgedFirst {
			forged()
		}
		b.send(msPort, b.notifyPacket(n, 1))
		require.Len(t, b.r.Relays(), 1)
		assert.Equal(t, b.now.Add(DefaultRelayLifetime), b.r.Relays()[0].Expires)
		assert.False(t, b.r.eids[eidKey{0, netip.MustParsePrefix(n.eid)}].claims[0].merge)
	}
}

// TestRTROtherFamily: a node reaches the RTR by IPv6, its Map-Server is reached by
// IPv4.
func TestRTROtherFamily(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	n.from = netip.MustParseAddrPort("[2001:db8:7::7]:49152")
	out := b.sendTo(netip.MustParseAddrPort("[2001:db8:9::9]:4342"), n.from, n.registerPacket(t, 1))
	require.Len(t, out, 1)
	assert.Equal(t, netip.AddrPortFrom(rtrIP, 4342), out[0].Local)
	assert.Zero(t, out[0].IfIndex)
	out = b.send(msPort, b.notifyPacket(n, 1))
	require.Len(t, out, 1)
	assert.Equal(t, n.from, out[0].Remote)
	assert.Equal(t, netip.MustParseAddr("2001:db8:9::9"), out[0].Local.Addr())
}

// TestRTRInnerDestination: a Map-Server that addresses its Map-Notify to something
// else than the node's own address has it rewritten.
func TestRTRInnerDestination(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	b.send(n.from, n.registerPacket(t, 1))
	wrong := n
	wrong.local = inside2
	out := b.send(msPort, b.notifyPacket(wrong, 1))
	require.Len(t, out, 1)
	in, _ := dataNotify(t, out[0].Bytes)
	assert.Equal(t, netip.AddrPortFrom(insideIP, 4342), in.Destination)
}

// TestRTRUnsolicitedRate and by the best way.
func TestRTRUnsolicitedRate(t *testing.T) {
	b := newRTRBench(t)
	one, two := nodeA(), nodeA()
	one.locals = map[string][2]uint8{"10.0.0.2": {2, 50}, "10.9.9.2": {1, 50}}
	two.locals, two.local, two.from = one.locals, inside2, natPort2
	b.registered(one, 1)
	b.registered(two, 2)
	news := b.notifyPacket(one, 99)
	sent := 0
	for range 10 * unsolicitedRate {
		for _, d := range b.send(msPort, news) {
			assert.Equal(t, natPort2, d.Remote, "priority 1")
			sent++
		}
	}
	assert.Equal(t, unsolicitedRate, sent)
	// One that merely covers what the node has, with the RTR's own locator listed as
	// not reachable, is one that comes here too.
	b.advance(time.Minute)
	down := b.notifyPacket(one, 100, func(m *lisp.MapNotify) { m.Records[0].Locators[0].Reachable = false })
	assert.Len(t, b.send(msPort, down), 1)
}

// TestRTRPolicyOfOwn: a locator with R = 1 at the node's own address, as one that is
// public announces, says nothing about the way behind the NAT.
func TestRTRPolicyOfOwn(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	b.send(n.from, n.registerPacket(t, 1))
	b.send(msPort, b.notifyPacket(n, 1, func(m *lisp.MapNotify) {
		l := m.Records[0].Locators[0]
		l.Priority, l.Weight, l.RLOC = 200, 3, lisp.AddressFrom(insideIP)
		m.Records[0].Locators = append(m.Records[0].Locators, l)
	}))
	require.Len(t, b.r.Relays(), 1)
	assert.EqualValues(t, defaultPriority, b.r.Relays()[0].Priority)
}

// TestRTRFullLeavesNothing: an xTR that there is no room for leaves no trace.
func TestRTRFullLeavesNothing(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.MaxRelays = 1 })
	n := nodeA()
	b.registered(n, 1)
	other := n
	other.xtr = xtrB
	b.send(other.from, other.registerPacket(t, 2))
	b.send(msPort, b.notifyPacket(other, 2))
	require.Len(t, b.r.eids, 1)
	assert.Len(t, b.r.eids[eidKey{0, netip.MustParsePrefix(n.eid)}].claims, 1)
	// The node itself comes from another address: the old one is gone, the new one has
	// its place.
	n.local, n.from = inside2, natPort2
	b.registered(n, 3)
	assert.Len(t, b.r.Relays(), 1)
}

// TestRTROldKeyRequired: the policy holds for early drafts too.
func TestRTROldKeyRequired(t *testing.T) {
	b := newRTRBench(t, oldVariant, withoutKey, keyRequired)
	n := nodeA()
	b.send(n.from, n.registerPacket(t, 1))
	assert.Empty(t, b.send(msPort, b.oldNotify(n, 1)))
	assert.Equal(t, RTRNotSecured, b.lastReason())
	assert.Empty(t, b.r.Relays())
}

// TestRTRNamesBounded: neither one host nor one source has more than its share.
func TestRTRNamesBounded(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.LispersNet, c.SourceRate, c.RegisterRate = true, 5, 100 })
	data := netip.AddrPortFrom(rtrIP, 4341)
	for i := range 2 * nameAddrs {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), 4341)
		b.r.Handle(b.now, lisp.Datagram{Local: data, Remote: from, Bytes: namePacket(t, "vm")})
	}
	assert.Equal(t, nameAddrs, b.r.Stats().Names)
	for i := range 20 {
		b.r.Handle(b.now, lisp.Datagram{Local: data, Remote: attacker, Bytes: namePacket(t, string(rune('a'+i)))})
	}
	assert.Equal(t, nameAddrs+5, b.r.Stats().Names)
	assert.EqualValues(t, 15, b.r.Stats().Dropped[RTRRate])
}

// TestRTRQueues: who takes neither datagrams nor events loses the newer ones.
func TestRTRQueues(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.RegisterRate, c.SourceRate, c.MaxPending = 1e9, 1e9, 1e6 })
	n := nodeA()
	for i := range maxRTRQueue + 10 {
		b.r.Handle(b.now, lisp.Datagram{Local: netip.AddrPortFrom(rtrIP, 4342), Remote: n.from, Bytes: n.registerPacket(t, lisp.Nonce(i))})
	}
	assert.EqualValues(t, 10, b.r.Stats().Dropped[RTRQueueFull])
	assert.Len(t, b.drain(), maxRTRQueue)
	b.advance(time.Minute)
	assert.Len(t, b.events(), maxRTREvents)
	assert.EqualValues(t, maxRTRQueue+10-maxRTREvents, b.r.Stats().EventsLost)
}

// TestIPv6Sources: an IPv6 /64 is one source, IPv4 addresses are one each.
func TestIPv6Sources(t *testing.T) {
	s := sourceBuckets{rate: 3}
	count := func(addr func(i byte) netip.Addr) (n int) {
		for i := range byte(20) {
			if s.allow(rtrStart, addr(i)) {
				n++
			}
		}
		return n
	}
	assert.Equal(t, 3, count(func(i byte) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 1, 15: i}) }))
	assert.Equal(t, 20, count(func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, i}) }))
}

// TestRTRSettledGo: one Map-Register that is never answered does not keep those
// that were answered after it.
func TestRTRSettledGo(t *testing.T) {
	b := newRTRBench(t)
	lost := nodeA()
	lost.xtr, lost.from = xtrB, attacker
	b.send(lost.from, lost.registerPacket(t, 1))
	for i := range 10 * squeezeAt {
		b.registered(nodeA(), lisp.Nonce(i+10))
		require.LessOrEqual(t, len(b.r.attempts), 2+squeezeAt+1)
	}
	assert.Equal(t, 1, b.r.Stats().Pending)
	b.advance(pendingTime)
	assert.EqualValues(t, 1, b.r.Stats().Dropped[RTRUnanswered])
	assert.Empty(t, b.r.attempts)
}
