package mapcache_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestNATLocator: that a NAT is on the way is part of what a locator is.
func TestNATLocator(t *testing.T) {
	plain := loc("198.51.100.7")
	nat := plain
	nat.NAT = true
	eids := []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")}
	c := newCache(t, mapcache.Config{})
	for i, l := range []mapcache.Locator{plain, nat} {
		m := static(eids[i].String()+"/32", "198.51.100.7")
		m.RLOCs[0].Locator = l
		require.NoError(t, c.Insert(t0, m))
	}
	c.Publish()
	v := c.View()
	out := make([]mapcache.Decision, 2)
	v.ForwardBatch(0, eids, []uint32{0, 0}, out)
	for i, l := range []mapcache.Locator{plain, nat} {
		d := v.Forward(0, eids[i], 0)
		assert.Equal(t, l, d.Locator)
		assert.Equal(t, d, out[i])
		assert.Equal(t, l, v.Locator(d.LocatorID))
	}
	assert.NotEqual(t, out[0].LocatorID, out[1].LocatorID, "they do not share what is known of them")

	c.SetReachable(nat, false)
	assert.Equal(t, mapcache.Encapsulate, v.Forward(0, eids[0], 0).Verdict)
	assert.Equal(t, mapcache.NoLocator, v.Forward(0, eids[1], 0).Verdict)
	assert.Equal(t, "198.51.100.7(nat)", nat.String())
	assert.Equal(t, "198.51.100.7", plain.String())
}
