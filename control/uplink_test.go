package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

var (
	firstUplink  = netip.MustParseAddr("203.0.113.60")
	secondUplink = netip.MustParseAddr("203.0.113.61")
)

func twoUplinks() []mapcache.Local {
	return []mapcache.Local{
		{IfIndex: 2, Addr: firstUplink, Priority: 1, Weight: 100, Up: true},
		{IfIndex: 3, Addr: secondUplink, Priority: 2, Weight: 100, Up: true},
	}
}

// run steps the node for a time, in which the peers answer the probes that alive
// lets through.
func (tc *tester) run(d time.Duration, alive func(local, peer netip.Addr) bool, recs map[netip.Addr]lisp.EIDRecord) {
	tc.t.Helper()
	for end := tc.now.Add(d); tc.now.Before(end); {
		step := end.Sub(tc.now)
		if next := tc.e.Deadline(); !next.IsZero() {
			step = min(step, max(next.Sub(tc.now), time.Microsecond))
		}
		tc.advance(step)
		for _, s := range tc.probes() {
			if peer := s.Remote.Addr(); alive(s.Local.Addr(), peer) {
				require.True(tc.t, tc.answerProbe(s, recs[peer]))
			}
		}
	}
}

// silence is a node with two uplinks and two peers.
func silence(t *testing.T) (*tester, map[netip.Addr]lisp.EIDRecord) {
	tc := up(t, prober)
	tc.setLocals(twoUplinks()...)
	other := netip.MustParseAddr("203.0.113.70")
	recs := map[netip.Addr]lisp.EIDRecord{
		peerRLOC: record("198.51.100.0/24", 1440, peerRLOC),
		other:    record("198.51.101.0/24", 1440, other),
	}
	tc.learn(hostKey(peerEID), recs[peerRLOC])
	tc.learn(key("198.51.101.1/32"), recs[other])
	return tc, recs
}

func everyPath(netip.Addr, netip.Addr) bool { return true }

// upLocals are our locators that count as up.
func (tc *tester) upLocals() (out []netip.Addr) {
	for _, l := range tc.e.locals {
		if l.Up {
			out = append(out, l.Addr)
		}
	}
	return out
}

// TestSilentUplink: the better uplink stops to be answered, though its link is up.
func TestSilentUplink(t *testing.T) {
	tc, recs := silence(t)
	tc.run(5*time.Minute, everyPath, recs)
	require.Len(t, tc.e.Paths(), 2, "only what traffic leaves from is probed")
	require.Empty(t, eventsOf[LocatorSilent](tc))

	tc.run(2*time.Minute, func(local, _ netip.Addr) bool { return local == secondUplink }, recs)
	silent := eventsOf[LocatorSilent](tc)
	require.Len(t, silent, 1)
	assert.Equal(t, "own locator 203.0.113.60 is silent: only probes from others are answered", silent[0].String())
	assert.Equal(t, []netip.Addr{secondUplink}, tc.upLocals())
	for _, r := range []netip.Addr{peerRLOC, netip.MustParseAddr("203.0.113.70")} {
		assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: r}), "by the other uplink")
	}
	assert.False(t, tc.e.withoutSilent(twoUplinks())[0].Up, "what the data plane is told")
	locators := tc.e.db[0].record.Locators
	require.Len(t, locators, 2)
	assert.False(t, locators[0].Reachable, "and others")
	assert.True(t, locators[1].Reachable)

	// It goes on being probed, and is used again.
	tc.run(2*time.Minute, everyPath, recs)
	silent = eventsOf[LocatorSilent](tc)
	require.Len(t, silent, 1)
	assert.False(t, silent[0].Silent)
	assert.Equal(t, []netip.Addr{firstUplink, secondUplink}, tc.upLocals())
	tc.run(2*time.Minute, everyPath, recs)
	assert.Len(t, tc.e.Paths(), 2, "as before")
	assert.Empty(t, eventsOf[LocatorSilent](tc))
}

// TestSilentPeer: a peer that answers nobody is down, and no uplink is to blame.
func TestSilentPeer(t *testing.T) {
	tc, recs := silence(t)
	tc.run(5*time.Minute, everyPath, recs)
	others := func(_, peer netip.Addr) bool { return peer != peerRLOC }
	tc.run(3*time.Minute, others, recs)
	assert.False(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	assert.Len(t, tc.upLocals(), 2)
	assert.Empty(t, eventsOf[LocatorSilent](tc))

	// Nor when it is everybody.
	tc.run(3*time.Minute, func(netip.Addr, netip.Addr) bool { return false }, recs)
	assert.Len(t, tc.upLocals(), 2)
	assert.Empty(t, eventsOf[LocatorSilent](tc))

	tc.run(3*time.Minute, everyPath, recs)
	assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	assert.Len(t, tc.e.Paths(), 2)
}

// TestSilentForOne: one peer does not answer by the better uplink, the other does:
// the uplink works, and both peers are reachable.
func TestSilentForOne(t *testing.T) {
	tc, recs := silence(t)
	tc.run(5*time.Minute, everyPath, recs)
	tc.run(5*time.Minute, func(local, peer netip.Addr) bool { return peer != peerRLOC || local == secondUplink }, recs)
	assert.Empty(t, eventsOf[LocatorSilent](tc))
	assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
}

// TestSilentUplinkGoes: silence ends with the link, and with the address.
func TestSilentUplinkGoes(t *testing.T) {
	for name, change := range map[string]func([]mapcache.Local) []mapcache.Local{
		"link down": func(ls []mapcache.Local) []mapcache.Local { ls[0].Up = false; return ls },
		"gone":      func(ls []mapcache.Local) []mapcache.Local { return ls[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			tc, recs := silence(t)
			tc.run(5*time.Minute, everyPath, recs)
			tc.run(2*time.Minute, func(local, _ netip.Addr) bool { return local == secondUplink }, recs)
			require.Len(t, tc.upLocals(), 1)
			tc.setLocals(change(twoUplinks())...)
			assert.False(t, tc.e.isSilent(firstUplink))
			tc.setLocals(twoUplinks()...)
			assert.Len(t, tc.upLocals(), 2, "it gets another chance")
			tc.run(5*time.Minute, everyPath, recs)
			assert.Len(t, tc.e.Paths(), 2)
			assert.Len(t, tc.e.uplinks, 1, "nothing is kept of what is not probed")
		})
	}
}

// TestSilentUplinkForgotten: silence is about probes. When there are none any more,
// or no other uplink that they can be compared with, it must not outlive them: a
// node without a locator that is up can't ask for the mappings to probe.
func TestSilentUplinkForgotten(t *testing.T) {
	onlySecond := func(local, _ netip.Addr) bool { return local == secondUplink }

	t.Run("no peers left", func(t *testing.T) {
		tc, recs := silence(t)
		tc.run(5*time.Minute, everyPath, recs)
		tc.run(2*time.Minute, onlySecond, recs)
		require.Equal(t, []netip.Addr{secondUplink}, tc.upLocals())
		for _, eid := range []mapcache.Key{key("198.51.100.0/24"), key("198.51.101.0/24")} {
			require.True(t, tc.e.Cache().Remove(tc.now, eid))
		}
		tc.run(time.Minute, onlySecond, recs)
		require.Empty(t, tc.e.Paths())
		assert.Equal(t, []netip.Addr{firstUplink, secondUplink}, tc.upLocals())
		assert.Empty(t, tc.e.uplinks)
	})
	t.Run("the other uplink goes down", func(t *testing.T) {
		tc, recs := silence(t)
		tc.run(5*time.Minute, everyPath, recs)
		tc.run(2*time.Minute, onlySecond, recs)
		require.Equal(t, []netip.Addr{secondUplink}, tc.upLocals())
		ls := twoUplinks()
		ls[1].Up = false
		tc.setLocals(ls...)
		assert.Equal(t, []netip.Addr{firstUplink}, tc.upLocals(), "better than none")
		assert.True(t, tc.e.withoutSilent(ls)[0].Up)
		tc.run(time.Second, everyPath, recs)
		assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}), "found out at once")
	})
}

// TestAddressMoves: what was found of a locator by one interface says nothing of it by
// another, as when two modems give out the same address.
func TestAddressMoves(t *testing.T) {
	tc, recs := silence(t)
	tc.run(5*time.Minute, everyPath, recs)
	tc.run(5*time.Minute, func(netip.Addr, netip.Addr) bool { return false }, recs)
	require.False(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	moved := twoUplinks()[:1]
	moved[0].IfIndex = 9
	tc.setLocals(moved...)
	assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}), "nothing is known yet")
	tc.advance(2 * time.Second)
	probes := tc.probes()
	require.NotEmpty(t, probes)
	for _, s := range probes {
		assert.Equal(t, 9, s.IfIndex)
		assert.Equal(t, firstUplink, s.Local.Addr())
	}
	assert.Empty(t, eventsOf[LocatorSilent](tc))
}
