package main

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// TestTrafficByEID: two EIDs behind one locator, with different traffic, have counters
// of their own, which sum up to those of the locator.
func TestTrafficByEID(t *testing.T) { onBoth(t, testTrafficByEID) }

func testTrafficByEID(t *testing.T, plane string) {
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer)
	startNodes(t, d, func(s site) string { return d.nodeConfig(s, ipv4) + plane }, siteA, siteB)
	pings := map[netip.Prefix]uint64{}
	for family, n := range []uint64{ipv4: 1, ipv6: 3} {
		to := siteB.eidAddr(family)
		for range n {
			r, err := d.ping(t.Context(), "a", "b", to, "")
			require.NoError(t, err)
			require.Equal(t, r.Sent, r.Received)
			pings[netip.PrefixFrom(to, to.BitLen())] += uint64(r.Sent)
		}
	}
	st, err := d.children["a"].ready(t.Context())
	require.NoError(t, err)
	assertKernel(t, plane, st.Node.Traffic, 0)
	var out, in statusd.Counter
	seen := 0
	for _, e := range st.Node.MapCache {
		want, ok := pings[e.Prefix]
		if !ok {
			continue
		}
		seen++
		assert.Equal(t, want, e.Out.Packets, e.Prefix)
		assert.Equal(t, want, e.In.Packets, e.Prefix)
		assert.Equal(t, e.Out.Octets, e.In.Octets, "an echo is as long as the request")
		out.Packets, out.Octets = out.Packets+e.Out.Packets, out.Octets+e.Out.Octets
		in.Packets, in.Octets = in.Packets+e.In.Packets, in.Octets+e.In.Octets
		require.Len(t, e.RLOCs, 1)
		assert.Equal(t, siteB.rlocAddr(ipv4), e.RLOCs[0].Addr)
	}
	assert.Equal(t, 2, seen)
	require.Len(t, st.Node.Traffic.Locators, 1)
	assert.Equal(t, statusd.LocatorTraffic{Addr: siteB.rlocAddr(ipv4), Out: out, In: in}, st.Node.Traffic.Locators[0])
}
