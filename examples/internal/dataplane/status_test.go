package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func TestEntry(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0).UTC()
	up := mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.1"), Port: 4341}
	down := mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.2"), Port: 4341}
	e := mapcache.Entry{Mapping: mapcache.Mapping{
		Key: mapcache.Key{IID: 7, Prefix: netip.MustParsePrefix("198.51.100.0/24")}, TTL: time.Hour,
		RLOCs: []mapcache.RLOC{
			{Locator: up, Priority: 1, Weight: 100},
			{Locator: down, Priority: 2},
			{Locator: mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.3"), Port: 4341}, Priority: 3, Down: true},
		},
	}, Created: now, PacketsIn: 3, OctetsOut: 4}
	cache := mapcache.New(mapcache.Config{})
	require.NoError(t, cache.Insert(now, e.Mapping))
	cache.SetReachable(down, false)
	cache.SetRTT(up, 12*time.Millisecond)
	got := Entry(e, cache)
	assert.Equal(t, []string{"up", "down", "down"}, []string{got.RLOCs[0].State, got.RLOCs[1].State, got.RLOCs[2].State})
	assert.Equal(t, 12*time.Millisecond, got.RLOCs[0].RTT)
	assert.Equal(t, statusd.Counter{Packets: 3}, got.In)
	assert.Equal(t, statusd.Counter{Octets: 4}, got.Out)
	assert.Empty(t, got.Action)
	e.RLOCs, e.Action = nil, lisp.ActionNativelyForward
	assert.NotEmpty(t, Entry(e, nil).Action)
}

func TestTraffic(t *testing.T) {
	t.Parallel()
	l := mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.2"), Port: 4341}
	s := encap.Stats{Held: 3, Released: 2, Locators: []encap.LocatorStats{{Locator: l, Out: encap.Counter{Packets: 5, Octets: 500}}}}
	s.Drops[encap.DropTTL] = 4
	got := traffic(s)
	assert.Equal(t, map[string]uint64{"ttl": 4}, got.Drops)
	assert.Equal(t, []statusd.LocatorTraffic{{Addr: l.Addr, Out: statusd.Counter{Packets: 5, Octets: 500}}}, got.Locators)
}
