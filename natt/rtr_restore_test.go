package natt

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// restoredRelay is n, as the next process of its RTR knows it.
func restoredRelay(n node) Relay {
	return Relay{Prefix: netip.MustParsePrefix(n.eid), Global: n.from, IfIndex: 3, Priority: 1, Weight: 100}
}

// way is where packets to an EID-Prefix go.
func way(c RelayChange) (to []netip.AddrPort) {
	for _, r := range c.Relays {
		to = append(to, r.Global)
	}
	return to
}

// TestRTRRestore: what an earlier process knew of a node holds until a Map-Server
// confirms one for the EID-Prefix, the node withdraws, or it was silent for as long as any
// other.
func TestRTRRestore(t *testing.T) {
	b, n := newRTRBench(t), nodeA()
	require.True(t, b.r.Restore(b.now, restoredRelay(n)))
	cs := b.changes()
	require.Len(t, cs, 1)
	assert.Equal(t, []netip.AddrPort{natPort}, way(cs[0]))
	assert.True(t, cs[0].Resolve, "it may have moved meanwhile")
	require.Len(t, b.r.Relays(), 1)
	assert.Zero(t, b.r.Relays()[0].Verified)

	// Confirmed, from another port of the NAT: that counts, alone.
	moved := n
	moved.from = natPort2
	b.registered(moved, 1)
	cs = b.changes()
	require.Len(t, cs, 1)
	assert.Equal(t, []netip.AddrPort{natPort2}, way(cs[0]))
	require.Len(t, b.r.Relays(), 1)
	assert.Equal(t, xtrA, b.r.Relays()[0].XTRID)
	assert.False(t, b.r.Restore(b.now, restoredRelay(n)), "what is confirmed is newer")

	b = newRTRBench(t)
	require.True(t, b.r.Restore(b.now, restoredRelay(n)))
	gone := n
	gone.ttl = 0
	b.registered(gone, 2)
	assert.Empty(t, b.r.Relays(), "withdrawn")
	cs = b.changes()
	require.Len(t, cs, 1)
	assert.Empty(t, cs[0].Relays)

	b = newRTRBench(t)
	require.True(t, b.r.Restore(b.now, restoredRelay(n)))
	b.advance(DefaultRelayLifetime - time.Second)
	assert.Len(t, b.r.Relays(), 1)
	b.advance(time.Second)
	assert.Empty(t, b.r.Relays(), "silent")
	b.changes()
	assert.Empty(t, b.r.eids)

	b = newRTRBench(t)
	require.True(t, b.r.Restore(b.now, restoredRelay(n)))
	b.r.Moved(b.now, b.now, 0, netip.MustParsePrefix(n.eid))
	assert.Empty(t, b.r.Relays(), "moved")
}

// TestRTRRestoredUnsolicited: a Map-Notify without an xTR-ID, or with none that is one,
// is not for a node that is restored, whose xTR-ID is not known.
func TestRTRRestoredUnsolicited(t *testing.T) {
	for _, present := range []bool{false, true} {
		var log bytes.Buffer
		b, n := newRTRBench(t, func(c *RTRConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }), nodeA()
		require.True(t, b.r.Restore(b.now, restoredRelay(n)))
		assert.Empty(t, b.send(msPort, b.notifyPacket(n, 1, func(m *lisp.MapNotify) { m.XTRIDPresent, m.XTRID = present, lisp.XTRID{} })))
		assert.Empty(t, log.String())
		assert.EqualValues(t, 1, b.r.Stats().Dropped[RTRElsewhere])
	}
}

// TestRTRRestoreBounds: the table stays bounded, and what cannot be a node is none.
func TestRTRRestoreBounds(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.MaxRelays = maxLocals + 1 })
	relay := restoredRelay(nodeA())
	for _, global := range []string{"0.0.0.0:1", "224.0.0.1:1", "198.51.100.7:0"} {
		bad := relay
		bad.Global = netip.MustParseAddrPort(global)
		assert.False(t, b.r.Restore(b.now, bad), global)
	}
	assert.False(t, b.r.Restore(b.now, Relay{Global: natPort}))
	for i := range maxLocals + 1 {
		relay.Global = netip.AddrPortFrom(natPort.Addr(), uint16(1+i))
		assert.Equal(t, i < maxLocals, b.r.Restore(b.now, relay), "%d at once", i)
	}
	for i, eid := range []string{"172.16.3.4/32", "172.16.3.5/32"} {
		relay.Prefix = netip.MustParsePrefix(eid)
		assert.Equal(t, i == 0, b.r.Restore(b.now, relay), "room for %d", maxLocals+1)
	}
	assert.Len(t, b.r.Relays(), maxLocals+1)
}
