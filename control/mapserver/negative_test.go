package mapserver

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRefreshOfAHole: an ITR that asks for the EID-Prefix of a negative Map-Reply
// again is not told that nobody is there when somebody has come meanwhile.
func TestRefreshOfAHole(t *testing.T) {
	ask := func(b *bench, eid string) netip.Prefix {
		from := netip.AddrPortFrom(itr.Addr(), 40000)
		r := wantReply(t, b.put(from, iidRequest(t, from, 0, eid)))
		assert.Empty(t, r.Locators)
		return netip.MustParsePrefix(prefixOf(t, r))
	}
	for _, tc := range []struct{ asked, comes, then string }{
		{"10.1.0.9", "10.1.0.9/32", "10.0.0.0/16"},
		{"10.1.0.9", "10.0.0.1/32", "10.0.0.0/32"},
		{"10.200.0.1", "10.192.0.0/32", ""}, // the first address of the hole
		{"2001:db8:b::8", "2001:db8:b::9/128", "2001:db8:b::/125"},
	} {
		t.Run(tc.asked+" "+tc.comes, func(t *testing.T) {
			b := newBench(t)
			hole := ask(b, tc.asked)
			k := key1
			if hole.Addr().Is6() {
				k = key2
			}
			require.True(t, hole.Overlaps(netip.MustParsePrefix(tc.comes)), hole)
			require.Len(t, b.put(etr1, register(t, k, record(tc.comes, 10, "192.0.2.11"))), 1)
			if tc.then == "" {
				from := netip.AddrPortFrom(itr.Addr(), 40000)
				out := b.put(from, iidRequest(t, from, 0, hole.String()))
				require.Len(t, out, 1)
				assert.Equal(t, etr1, out[0].Remote, "forwarded")
				return
			}
			assert.Equal(t, netip.MustParsePrefix(tc.then), ask(b, hole.String()))
		})
	}
}
