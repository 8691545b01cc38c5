package mapcache_test

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// Nothing on the way of a packet allocates. Not parallel: AllocsPerRun counts
// for the whole process.
func TestForwardDoesNotAllocate(t *testing.T) { //nolint:paralleltest // AllocsPerRun
	c := newCache(t, mapcache.Config{},
		mapping(rloc("192.0.2.1", 1, 99), rloc("192.0.2.2", 1, 1), rloc("2001:db8::1", 2, 50), rloc("2001:db8::2", 2, 50)),
		positive("2001:db8::/32", "192.0.2.3", time.Hour),
		negative("10.9.0.0/16", 1, time.Hour),
	)
	in7 := positive("10.2.0.0/16", "192.0.2.7", time.Hour)
	in7.IID = 7
	require.NoError(t, c.Insert(t0, in7))
	require.NoError(t, c.Insert(t0, macMapping(t, 7, "02:00:00:00:00:01", "192.0.2.7")))
	c.Publish()
	ls := []mapcache.Local{{Addr: addr("192.0.2.1"), Up: true, Weight: 1}, {Addr: addr("192.0.2.2"), Up: true, Weight: 2}}
	packet := make([]byte, 40)
	packet[0] = 0x45
	v4, v6, neg, miss := addr("10.2.0.1"), addr("2001:db8::1"), addr("10.9.0.1"), addr("172.16.0.1")
	hash := uint32(0)
	var destinations mapcache.DestinationCache
	batch, hashes, decisions := []netip.Addr{v4, v6, neg, miss}, make([]uint32, 4), make([]mapcache.Decision, 4)
	tests := []struct {
		name string
		f    func()
	}{
		{"IPv4", func() { c.View().Forward(0, v4, hash) }},
		{"IPv6", func() { c.View().Forward(0, v6, hash) }},
		{"negative", func() { c.View().Forward(0, neg, hash) }},
		{"miss", func() { c.View().Forward(0, miss, hash) }},
		{"instance", func() { c.View().Forward(7, v4, hash) }},
		{"MAC", func() { c.View().ForwardMAC(7, mapcache.MAC{2, 5: 1}, hash) }},
		{"choose", func() { c.View().Locator(c.View().Choose(0, v4, hash).LocatorID) }},
		{"first choice down", func() {
			c.SetReachable(loc("192.0.2.1"), false)
			c.View().Forward(0, v4, hash)
		}},
		{"fall-back", func() {
			c.SetReachable(loc("192.0.2.2"), false)
			c.SetReachable(loc("2001:db8::1"), false)
			c.View().Forward(0, v4, hash)
		}},
		{"hash", func() { mapcache.FlowHash(hash, packet) }},
		{"hash of a tuple", func() { mapcache.FlowHashTuple(hash, v4, neg, 6, 1, 2) }},
		{"local", func() { mapcache.ChooseLocal(ls, v4, hash) }},
		{"local by rank", func() {
			mapcache.ChooseLocalBy(ls, v4, hash, func(i int) uint8 { return uint8(int(hash)+i) % 2 })
		}},
		{"by cost", func() {
			c.View().ForwardBy(0, v4, hash, func(id uint32, _ mapcache.Locator) int { return int(hash+id) % 3 })
		}},
		{"batch", func() { c.View().ForwardBatch(0, batch, hashes, decisions) }},
		{"destination cache", func() { destinations.ForwardBatch(c.View(), 0, batch, hashes, decisions) }},
		{"idle Advance", func() { c.Advance(t0) }},
		{"idle Publish", func() { c.Publish() }},
	}
	for _, tt := range tests {
		c.Changes()
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			hash += 0x9e3779b1
			tt.f()
		}), tt.name)
	}
}

// The cost of an update, in octets allocated, hardly grows with the cache.
func TestUpdateCostIsBounded(t *testing.T) { //nolint:paralleltest // counts octets of the process
	cost := func(n int, kind setKind) float64 {
		r := rand.New(rand.NewPCG(1, 2))
		ps := population(r, n, false)
		c := loaded(t, ps, kind)
		const updates = 300
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range updates {
			require.NoError(t, c.Insert(t0, mapcache.Mapping{
				Key: mapcache.MakeKey(0, ps[r.IntN(n)]), RLOCs: kind.choose(r.IntN(n) + i), TTL: time.Hour,
			}))
			c.Publish()
		}
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / updates
	}
	for _, kind := range setKinds {
		small, large := cost(11_000, kind), cost(44_000, kind)
		t.Logf("%s: %.0f octets per update at 11,000 entries, %.0f at 44,000", kind.name, small, large)
		assert.Less(t, large, 1.5*small, kind.name)
		assert.Less(t, large, 40_000., kind.name)
	}
}

// An entry with two locators takes some 400 octets, even if nobody shares them.
func TestMemoryPerEntry(t *testing.T) { //nolint:paralleltest // counts octets of the process
	const n = 50_000
	ps := population(rand.New(rand.NewPCG(1, 2)), n, false)
	for _, kind := range setKinds {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := loaded(t, ps, kind)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(c)
		octets := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / n
		t.Logf("%s: %.0f octets per entry", kind.name, octets)
		assert.Less(t, octets, 440., kind.name) // the trie of few prefixes is less dense than that of a million
	}
}

// Whether 10 or 10,000 mappings use a locator makes no difference to SetDown.
func TestSetDownIsConstant(t *testing.T) {
	t.Parallel()
	changes := func(n int) int {
		c := mapcache.New(mapcache.Config{})
		for i := range n {
			require.NoError(t, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", time.Hour))))
		}
		c.Publish()
		c.Changes()
		v := c.View()
		require.True(t, c.SetDown(loc("192.0.2.1"), mapcache.CauseProbe, true))
		for i := range n {
			require.Equal(t, mapcache.NoLocator, v.Forward(0, addr4(i), 0).Verdict)
		}
		assert.Same(t, v, c.View(), "no new View")
		c.Publish()
		assert.Same(t, v, c.View(), "nothing to publish")
		return len(c.Changes())
	}
	assert.Equal(t, 1, changes(10))
	assert.Equal(t, 1, changes(3_000))
}
