package control

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// What an earlier process knew is in the map-cache before the first packet, is handed to
// the data plane, and does not replace what is known already.
func TestImport(t *testing.T) {
	static := mapcache.Mapping{Key: key("192.0.2.2/32"), RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.1")}}}}
	e, err := New(Config{StaticMappings: []mapcache.Mapping{static}})
	require.NoError(t, err)
	now := time.Unix(1e9, 0)
	saved := func(eid string, ttl time.Duration) mapcache.Saved {
		m := mapcache.Mapping{Key: key(eid), RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.9")}}}, TTL: ttl}
		return mapcache.Saved{Mapping: m, Left: ttl, Taken: now}
	}
	n, err := e.Import(now, slices.Values([]mapcache.Saved{saved("192.0.2.1/32", time.Minute), saved("192.0.2.2/32", time.Minute)}))
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	changes := e.Publish()
	require.Len(t, changes, 2)
	assert.Equal(t, "192.0.2.1/32", changes[1].Key.String())
	ent, ok := e.Cache().Get(key("192.0.2.2/32"))
	require.True(t, ok)
	assert.Equal(t, netip.MustParseAddr("203.0.113.1"), ent.RLOCs[0].Addr)

	_, err = e.Import(now, slices.Values([]mapcache.Saved{saved("192.0.2.3/32", 0)}))
	require.ErrorIs(t, err, mapcache.ErrInvalid)
	// It is gone when its time is over.
	e.Advance(now.Add(time.Minute + time.Second))
	_, ok = e.Cache().Get(key("192.0.2.1/32"))
	assert.False(t, ok)
}
