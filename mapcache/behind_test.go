package mapcache_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

func TestBehindNAT(t *testing.T) {
	nat := static("192.0.2.1/32", "198.51.100.7")
	nat.RLOCs[0].NAT = true
	mixed := static("192.0.2.2/32", "198.51.100.8")
	mixed.RLOCs = append(mixed.RLOCs, mapcache.RLOC{Locator: loc("198.51.100.9"), Priority: 2})
	mixed.RLOCs[1].NAT = true
	c := newCache(t, mapcache.Config{}, nat, mixed, static("192.0.2.3/32", "198.51.100.7"), negative("192.0.2.4/32", 0, mapcache.TTLForever))
	c.SetReachable(nat.RLOCs[0].Locator, false)
	c.Publish()
	v := c.View()
	for eid, want := range map[string]bool{
		"192.0.2.1": true, "::ffff:192.0.2.1": true, "192.0.2.2": true, "192.0.2.3": false, "192.0.2.4": false, "192.0.2.5": false,
	} {
		assert.Equal(t, want, v.BehindNAT(0, addr(eid)), eid)
	}
	assert.False(t, v.BehindNAT(7, addr("192.0.2.1")), "another instance")
	require.Zero(t, testing.AllocsPerRun(10, func() { v.BehindNAT(0, addr("192.0.2.2")) }))
}
