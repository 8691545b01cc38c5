package mapcache_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestForwardVia: which locator of a mapping packets go to that have to leave by
// an uplink of some address families.
func TestForwardVia(t *testing.T) {
	const a, b, c, six, six2 = "192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"
	v4, v6, both := mapcache.Via{IfIndex: 3, IPv4: true}, mapcache.Via{IfIndex: 3, IPv6: true}, mapcache.Via{IfIndex: 3, IPv4: true, IPv6: true}
	bound := rloc(c, 1, 50)
	bound.IfIndex = 9
	down := rloc(a, 1, 50)
	down.Down = true
	for _, tc := range []struct {
		name  string
		rlocs []mapcache.RLOC
		via   mapcache.Via
		want  map[string]float64
	}{
		{"as without, where that fits", []mapcache.RLOC{rloc(a, 1, 75), rloc(b, 1, 25)}, v4, map[string]float64{a: .75, b: .25}},
		{"the other family has a worse priority", []mapcache.RLOC{rloc(a, 1, 50), rloc(six, 2, 50)}, v6, map[string]float64{six: 1}},
		{"a better priority first", []mapcache.RLOC{rloc(a, 1, 50), rloc(six, 3, 50), rloc(six2, 2, 50)}, v6, map[string]float64{six2: 1}},
		{"by weight among those that fit", []mapcache.RLOC{rloc(a, 1, 50), rloc(six, 2, 75), rloc(six2, 2, 25)}, v6, map[string]float64{six: .75, six2: .25}},
		{"weight 0 comes last", []mapcache.RLOC{rloc(a, 1, 50), rloc(six, 2, 0), rloc(six2, 2, 25)}, v6, map[string]float64{six2: 1}},
		{"weight 0 comes last, in whatever order", []mapcache.RLOC{rloc(a, 1, 50), rloc(six, 2, 25), rloc(six2, 2, 0)}, v6, map[string]float64{six: 1}},
		{"weight 0 alone", []mapcache.RLOC{rloc(a, 1, 50), rloc(six, 2, 0)}, v6, map[string]float64{six: 1}},
		{"both families", []mapcache.RLOC{rloc(a, 1, 50), rloc(six, 1, 50)}, both, map[string]float64{a: .5, six: .5}},
		{"flows of the other family join the rest", []mapcache.RLOC{rloc(a, 1, 50), rloc(b, 1, 50), rloc(six, 1, 100)}, v4, map[string]float64{a: .5, b: .5}},
		{"another interface's", []mapcache.RLOC{bound, rloc(b, 2, 50)}, v4, map[string]float64{b: 1}},
		{"our own interface's", []mapcache.RLOC{bound}, mapcache.Via{IfIndex: 9, IPv4: true}, map[string]float64{c: 1}},
		{"none fits", []mapcache.RLOC{rloc(a, 1, 50), bound}, v6, map[string]float64{"": 1}},
		{"none that fits is up", []mapcache.RLOC{down, rloc(b, 255, 50), rloc(six, 1, 50)}, v4, map[string]float64{"": 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cache := mapcache.New(mapcache.Config{})
			require.NoError(t, cache.Insert(time.Now(), mapping(tc.rlocs...)))
			cache.Publish()
			v, got := cache.View(), map[string]float64{}
			hashes := flows(20_000)
			for _, h := range hashes {
				d := v.ForwardVia(0, addr("10.2.0.1"), h, tc.via)
				plain := v.Forward(0, addr("10.2.0.1"), h)
				assert.Equal(t, plain.EntryID, d.EntryID)
				name := ""
				if d.Verdict == mapcache.Encapsulate {
					name = d.Locator.Addr.String()
					assert.Equal(t, v.Locator(d.LocatorID), d.Locator)
					if tc.via.Carries(&plain.Locator) {
						assert.Equal(t, plain, d, "a flow that may stay stays")
					}
				} else {
					assert.Equal(t, mapcache.NoLocator, d.Verdict)
					assert.Zero(t, d.LocatorID)
				}
				got[name] += 1 / float64(len(hashes))
			}
			assert.Len(t, got, len(tc.want))
			for name, part := range tc.want {
				assert.InDelta(t, part, got[name], .02, name)
			}
		})
	}

	cache := mapcache.New(mapcache.Config{})
	m := mapping()
	m.Action = lisp.ActionNativelyForward
	require.NoError(t, cache.Insert(time.Now(), m))
	require.NoError(t, cache.Insert(time.Now(), mapcache.Mapping{
		Key: key("10.3.0.0/16"), TTL: time.Hour, RLOCs: []mapcache.RLOC{rloc(a, 1, 1), rloc(b, 2, 1), rloc(six, 3, 1)},
	}))
	cache.SetReachable(mapcache.Locator{Addr: addr(a)}, false)
	cache.Publish()
	v := cache.View()
	assert.Equal(t, mapcache.Native, v.ForwardVia(0, addr("10.2.0.1"), 1, v4).Verdict)
	assert.Equal(t, mapcache.Miss, v.ForwardVia(0, addr("10.9.0.1"), 1, v4).Verdict)
	assert.Equal(t, mapcache.Miss, v.ForwardVia(7, addr("10.2.0.1"), 1, v4).Verdict)
	assert.Equal(t, addr(b), v.ForwardVia(0, addr("::ffff:10.3.0.1"), 1, v4).Locator.Addr, "the other one is not reachable")
	assert.Equal(t, addr(six), v.ForwardVia(0, addr("10.3.0.1"), 1, v6).Locator.Addr)
	assert.Zero(t, testing.AllocsPerRun(100, func() { v.ForwardVia(0, addr("10.3.0.1"), 1, v6) }))

	// Some of those that could be reached are not.
	bad := map[netip.Addr]bool{addr(b): true}
	both.Except = func(id uint32, l mapcache.Locator) bool {
		assert.Equal(t, v.Locator(id), l)
		return bad[l.Addr]
	}
	assert.Equal(t, addr(six), v.ForwardVia(0, addr("10.3.0.1"), 1, both).Locator.Addr)
	bad[addr(six)] = true
	assert.Equal(t, mapcache.NoLocator, v.ForwardVia(0, addr("10.3.0.1"), 1, both).Verdict)
}
