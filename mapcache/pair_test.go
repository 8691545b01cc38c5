package mapcache_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestChooseLocalBy: which of our locators flows leave from when pairs differ.
func TestChooseLocalBy(t *testing.T) {
	t.Parallel()
	ls := []mapcache.Local{
		{Addr: addr("192.0.2.1"), Priority: 1, Weight: 75, Up: true},
		{Addr: addr("192.0.2.2"), Priority: 1, Weight: 25, Up: true},
		{Addr: addr("192.0.2.3"), Priority: 2, Weight: 50, Up: true},
		{Addr: addr("2001:db8::1"), Priority: 0, Weight: 50, Up: true},
		{Addr: addr("192.0.2.4"), Priority: 0, Weight: 50},
	}
	const down = mapcache.PairDown
	for _, tc := range []struct {
		name  string
		ranks [5]uint8
		cost  int
		parts map[int]float64
	}{
		{"nothing is said", [5]uint8{}, 0, map[int]float64{0: .75, 1: .25}},
		{"one does not answer", [5]uint8{down, 0, 0, 0, 0}, 0, map[int]float64{1: 1}},
		{"all of the best priority do not", [5]uint8{down, down, 0, 0, 0}, 256, map[int]float64{2: 1}},
		{"none does", [5]uint8{down, down, down, 0, 0}, mapcache.CostDown, map[int]float64{0: .75, 1: .25}},
		{"one is slower", [5]uint8{9, 3, 1, 0, 0}, 3, map[int]float64{1: 1}},
		{"both are as slow", [5]uint8{9, 9, 1, 0, 0}, 9, map[int]float64{0: .75, 1: .25}},
		{"the only one left is slow", [5]uint8{down, down, 200, 0, 0}, 456, map[int]float64{2: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			parts := make(map[int]float64)
			hashes := flows(20_000)
			for _, h := range hashes {
				i, cost, ok := mapcache.ChooseLocalBy(ls, addr("198.51.100.1"), h, func(i int) uint8 { return tc.ranks[i] })
				assert.True(t, ok)
				assert.Equal(t, tc.cost, cost)
				parts[i] += 1 / float64(len(hashes))
				if tc.ranks[0] == tc.ranks[1] {
					usual, _ := mapcache.ChooseLocal(ls, addr("198.51.100.1"), h)
					assert.True(t, i == usual || i == 2, "as without ranks")
				}
			}
			for i, p := range tc.parts {
				assert.InDelta(t, p, parts[i], .02)
			}
			assert.Len(t, parts, len(tc.parts))
		})
	}
	_, _, ok := mapcache.ChooseLocalBy(ls[3:], addr("198.51.100.1"), 1, func(int) uint8 { return 0 })
	assert.False(t, ok, "none of the family")
}

// TestForwardBy: which locator of a mapping flows go to when they cost something.
func TestForwardBy(t *testing.T) {
	t.Parallel()
	const a, b, c, d, e = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"
	for _, tc := range []struct {
		name  string
		costs map[string]int
		parts map[string]float64
	}{
		{"nothing", nil, map[string]float64{a: .5, b: .25, c: .25}},
		{"one is bad", map[string]int{a: mapcache.CostDown}, map[string]float64{b: .5, c: .5}},
		{"two are", map[string]int{a: mapcache.CostDown, b: 300}, map[string]float64{c: 1}},
		{"some are worse", map[string]int{a: 3, b: 1, c: 1}, map[string]float64{b: .5, c: .5}},
		{
			"all are bad",
			map[string]int{a: mapcache.CostDown, b: mapcache.CostDown, c: mapcache.CostDown, d: mapcache.CostDown},
			map[string]float64{a: .5, b: .25, c: .25},
		},
		{"all but the one without share", map[string]int{a: mapcache.CostDown, b: mapcache.CostDown, c: mapcache.CostDown}, map[string]float64{d: 1}},
		{"the one without share is best", map[string]int{a: 9, b: 9, c: 9, d: 1}, map[string]float64{a: .5, b: .25, c: .25}},
		{"a worse priority is not taken", map[string]int{a: 300, b: 300, c: 300, d: 300}, map[string]float64{a: .5, b: .25, c: .25}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cache := newCache(t, mapcache.Config{}, mapping(rloc(a, 1, 50), rloc(b, 1, 25), rloc(c, 1, 25), rloc(d, 1, 0), rloc(e, 2, 50)))
			cache.Publish()
			v := cache.View()
			parts := make(map[string]float64)
			hashes := flows(20_000)
			for _, h := range hashes {
				usual := v.Forward(0, addr("10.2.0.1"), h)
				got := v.ForwardBy(0, addr("10.2.0.1"), h, func(_ uint32, l mapcache.Locator) int { return tc.costs[l.Addr.String()] })
				assert.Equal(t, mapcache.Encapsulate, got.Verdict)
				assert.Equal(t, usual.EntryID, got.EntryID)
				assert.Equal(t, got.Locator, v.Locator(got.LocatorID))
				at := usual.Locator.Addr.String()
				if tc.parts[at] > 0 && at != got.Locator.Addr.String() {
					assert.Fail(t, "a flow moved that could stay", at)
				}
				parts[got.Locator.Addr.String()] += 1 / float64(len(hashes))
			}
			for l, p := range tc.parts {
				assert.InDelta(t, p, parts[l], .02, l)
			}
			assert.Len(t, parts, len(tc.parts))
		})
	}
	cache := newCache(t, mapcache.Config{}, negative("10.9.0.0/16", 1, 0))
	cache.Publish()
	free := func(uint32, mapcache.Locator) int { return 0 }
	assert.Equal(t, mapcache.Miss, cache.View().ForwardBy(0, addr("10.2.0.1"), 1, free).Verdict)
	assert.NotEqual(t, mapcache.Encapsulate, cache.View().ForwardBy(0, addr("10.9.0.1"), 1, free).Verdict)
}
