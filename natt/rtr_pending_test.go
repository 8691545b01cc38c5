package natt

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestRTRManyPending: Map-Registers of many nodes are under way at the same time.
// Each is confirmed by its own Map-Notify, in whatever order they come, and none is
// given up before its time because another one is done.
func TestRTRManyPending(t *testing.T) {
	const nodes = 100
	for _, step := range []int{1, nodes - 1, 37} {
		b := newRTRBench(t)
		var all []node
		for i := range nodes {
			n := nodeA()
			n.xtr[0] = byte(i)
			n.eid = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 4, byte(i)}), 32).String()
			n.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 4341)
			all = append(all, n)
			b.advance(10 * time.Millisecond)
			require.Len(t, b.send(n.from, n.registerPacket(t, lisp.Nonce(i))), 1)
		}
		for k := range nodes - 1 {
			i := k * step % nodes
			b.advance(10 * time.Millisecond)
			require.Len(t, b.send(msPort, b.notifyPacket(all[i], lisp.Nonce(i))), 1, "node %d", i)
			require.Equal(t, nodes-1-k, b.r.Stats().Pending)
		}
		assert.Len(t, b.r.Relays(), nodes-1)
		assert.Zero(t, b.r.Stats().Dropped)
		deadline := b.r.Deadline()
		assert.False(t, deadline.IsZero())
		b.advance(pendingTime)
		assert.Equal(t, RTRUnanswered, b.lastReason(), "the one that nobody answered")
		assert.Zero(t, b.r.Stats().Pending)
		assert.Empty(t, b.r.attempts)
	}
}

// TestRTRPendingFullSameNonce: the Map-Register that is forgotten for want of room
// has the nonce of the one that comes.
func TestRTRPendingFullSameNonce(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.MaxPending = 2 })
	n := nodeA()
	b.send(attacker, n.registerPacket(t, 1))
	b.send(n.from, n.registerPacket(t, 2))
	b.send(n.from, n.registerPacket(t, 1)) // the attacker's is the oldest
	assert.Equal(t, RTRPendingFull, b.lastReason())
	b.send(natPort2, n.registerPacket(t, 1))
	assert.Equal(t, 2, b.r.Stats().Pending)
	b.advance(time.Minute)
	assert.Zero(t, b.r.Stats().Pending)
	assert.Empty(t, b.r.pending)
	b.registered(n, 3)
}

// TestRTRManyRecords: as many EID-Prefixes as a Map-Register can have, and all that
// wait are only so many.
func TestRTRManyRecords(t *testing.T) {
	const records = 255 // the Record Count has 8 bits
	b := newRTRBench(t, func(c *RTRConfig) { c.MaxPending = 8 })
	n := nodeA()
	var all []lisp.EIDRecord
	for i := range records {
		r := n.record()
		r.EID = lisp.AddressFrom(netip.AddrFrom4([4]byte{172, 17, 0, byte(i)}))
		all = append(all, r)
	}
	register := func(nonce lisp.Nonce) []lisp.Datagram {
		return b.send(n.from, n.registerPacket(t, nonce, func(m *lisp.MapRegister) { m.Records = all }))
	}
	require.Len(t, register(1), 1)
	require.Len(t, b.send(msPort, b.notifyPacket(n, 1, func(m *lisp.MapNotify) { m.Records = all })), 1)
	assert.Len(t, b.r.Relays(), records)
	assert.Zero(t, b.r.wanted)
	b.events()
	for i := range lisp.Nonce(5) {
		require.Len(t, register(2+i), 1)
		assert.LessOrEqual(t, b.r.wanted, pendingEIDs*b.r.cfg.MaxPending)
	}
	assert.Equal(t, 2, b.r.Stats().Pending)
	assert.EqualValues(t, 3, b.r.Stats().Dropped[RTRPendingFull])
	b.advance(time.Minute)
	assert.Zero(t, b.r.wanted)
}
