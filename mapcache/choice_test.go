package mapcache_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// flows returns hashes of n flows between two hosts.
func flows(n int) []uint32 {
	list := make([]uint32, n)
	src, dst := addr("10.1.0.1"), addr("10.2.0.1")
	for i := range list {
		list[i] = mapcache.FlowHashTuple(7, src, dst, 6, uint16(i), uint16(i>>16)+443)
	}
	return list
}

// share forwards flows to 10.2.0.1 and returns the locator of each and the part
// that each locator gets, "" for no locator.
func share(c *mapcache.Cache, hashes []uint32) (of []string, part map[string]float64) {
	c.Publish()
	v := c.View()
	part = make(map[string]float64)
	names := make(map[mapcache.Locator]string)
	dst := addr("10.2.0.1")
	for _, h := range hashes {
		l := ""
		if d := v.Forward(0, dst, h); d.Verdict == mapcache.Encapsulate {
			if l = names[d.Locator]; l == "" {
				l = d.Locator.String()
				names[d.Locator] = l
			}
		}
		of = append(of, l)
		part[l] += 1 / float64(len(hashes))
	}
	return of, part
}

func mapping(rlocs ...mapcache.RLOC) mapcache.Mapping {
	return mapcache.Mapping{Key: key("10.2.0.0/16"), RLOCs: rlocs, TTL: time.Hour}
}

const manyFlows = 100_000

func TestShares(t *testing.T) {
	t.Parallel()
	const a, b, c, d, six = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1"
	notReachable := rloc(a, 1, 50)
	notReachable.Down = true
	multicast := rloc("224.0.0.1", 1, 50)
	tests := []struct {
		name  string
		rlocs []mapcache.RLOC
		down  []string
		want  map[string]float64
	}{
		{"one", []mapcache.RLOC{rloc(a, 1, 100)}, nil, map[string]float64{a: 1}},
		{"lowest Priority", []mapcache.RLOC{rloc(a, 2, 50), rloc(b, 1, 50)}, nil, map[string]float64{b: 1}}, // RFC 9300-9-s1
		{"Weight", []mapcache.RLOC{rloc(a, 1, 75), rloc(b, 1, 25)}, nil, map[string]float64{a: .75, b: .25}},
		{
			"four Weights",
			[]mapcache.RLOC{rloc(a, 1, 30), rloc(b, 1, 20), rloc(c, 1, 20), rloc(d, 1, 10)},
			nil,
			map[string]float64{a: .375, b: .25, c: .25, d: .125},
		},
		{"all Weights 0", []mapcache.RLOC{rloc(a, 1, 0), rloc(b, 1, 0), rloc(c, 1, 0)}, nil, // RFC 9300-9-s1
			map[string]float64{a: 1. / 3, b: 1. / 3, c: 1. / 3}},
		{"Weight 0 beside others", []mapcache.RLOC{rloc(a, 1, 0), rloc(b, 1, 1)}, nil, map[string]float64{b: 1}},
		{
			"Weight 0 when the others are down",
			[]mapcache.RLOC{rloc(a, 1, 0), rloc(b, 1, 1), rloc(c, 2, 1)},
			[]string{b},
			map[string]float64{a: 1},
		},
		{
			"Weight 0 is the last to fall back to",
			[]mapcache.RLOC{rloc(a, 1, 0), rloc(b, 1, 1), rloc(c, 1, 1)},
			[]string{b},
			map[string]float64{c: 1},
		},
		{
			"odd Weights",
			[]mapcache.RLOC{rloc(a, 1, 255), rloc(b, 1, 254), rloc(c, 1, 1)},
			nil,
			map[string]float64{a: .5, b: .498, c: .002},
		},
		{"Priority 255", []mapcache.RLOC{rloc(a, 255, 50), rloc(b, 254, 50)}, nil, map[string]float64{b: 1}}, // RFC 9300-9-1, 9301-5.4-7
		{"Priority 255 alone", []mapcache.RLOC{rloc(a, 255, 50)}, nil, map[string]float64{"": 1}},
		{"Priority 255 is no fall-back", []mapcache.RLOC{rloc(a, 255, 50), rloc(b, 1, 50)}, // RFC 9300-9-s2
			[]string{b}, map[string]float64{"": 1}},
		{"R=0", []mapcache.RLOC{notReachable, rloc(b, 1, 50)}, nil, map[string]float64{b: 1}}, // RFC 9300-9-6
		{"R=0 alone", []mapcache.RLOC{notReachable}, nil, map[string]float64{"": 1}},          // RFC 9300-9-6
		{"R=0 of the best Priority", []mapcache.RLOC{notReachable, rloc(b, 2, 50)}, nil, map[string]float64{b: 1}},
		{"multicast address", []mapcache.RLOC{multicast, rloc(b, 2, 1)}, nil, map[string]float64{b: 1}},
		{"one down", []mapcache.RLOC{rloc(a, 1, 50), rloc(b, 1, 50)}, []string{a}, map[string]float64{b: 1}}, // RFC 9301-7-s1
		{
			"rest by Weight",
			[]mapcache.RLOC{rloc(a, 1, 60), rloc(b, 1, 30), rloc(c, 1, 10)},
			[]string{a},
			map[string]float64{b: .75, c: .25},
		},
		{
			"rest by Weight, heavy one down",
			[]mapcache.RLOC{rloc(a, 1, 250), rloc(b, 1, 3), rloc(c, 1, 1)},
			[]string{a},
			map[string]float64{b: .75, c: .25},
		},
		{"fall-back by Weight", []mapcache.RLOC{rloc(a, 1, 60), rloc(b, 2, 30), rloc(six, 2, 10)}, // RFC 9300-9-s2
			[]string{a}, map[string]float64{b: .75, six: .25}},
		{"third Priority", []mapcache.RLOC{rloc(a, 1, 1), rloc(b, 2, 1), rloc(c, 3, 1)}, []string{a, b}, map[string]float64{c: 1}},
		{"all down", []mapcache.RLOC{rloc(a, 1, 1), rloc(b, 2, 1)}, []string{a, b}, map[string]float64{"": 1}},
		{"listed twice", []mapcache.RLOC{rloc(a, 1, 1), rloc(a, 1, 1), rloc(b, 1, 1)}, nil, map[string]float64{a: 2. / 3, b: 1. / 3}},
	}
	few, many := flows(20_000), flows(manyFlows)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hashes := few
			if tt.name == "four Weights" || tt.name == "rest by Weight" {
				hashes = many
			}
			cache := newCache(t, mapcache.Config{}, mapping(tt.rlocs...))
			for _, l := range tt.down {
				cache.SetReachable(loc(l), false)
			}
			_, part := share(cache, hashes)
			for l := range part {
				assert.Contains(t, tt.want, l)
			}
			for l, want := range tt.want {
				assert.InDelta(t, want, part[l], .01, l)
			}
		})
	}
}

// A positive mapping that leaves nothing to send to is not native forwarding.
func TestNoLocator(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, mapping(rloc("192.0.2.1", 255, 0)))
	d := forward(c, "10.2.0.1")
	assert.Equal(t, mapcache.NoLocator, d.Verdict)
	assert.NotZero(t, d.EntryID)
	e, _ := c.Get(key("10.2.0.0/16"))
	assert.Equal(t, mapcache.NoLocator, c.Changes()[0].New.Verdict)
	assert.Equal(t, []mapcache.RLOC{rloc("192.0.2.1", 255, 0)}, e.RLOCs)
}

// When one of n locators goes down its flows move and no other; when it comes
// back, the same flows return.
func TestDownMovesOwnFlowsOnly(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 4, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			hashes := flows(manyFlows / n)
			var rlocs []mapcache.RLOC
			for i := range n {
				rlocs = append(rlocs, rloc(fmt.Sprintf("192.0.2.%d", i+1), 1, 10))
			}
			c := newCache(t, mapcache.Config{}, mapping(rlocs...))
			before, _ := share(c, hashes)
			for _, r := range rlocs {
				c.SetReachable(r.Locator, false)
				during, part := share(c, hashes)
				moved, stayed, others := 0, 0, 0
				for i := range hashes {
					own := before[i] == r.String()
					switch {
					case own && before[i] == during[i]:
						stayed++
					case own:
						moved++
					case before[i] != during[i]:
						others++
					}
				}
				assert.Zero(t, stayed)
				assert.Zero(t, others)
				assert.LessOrEqual(t, float64(moved)/float64(len(hashes)), 1/float64(n)+.01)
				for l, p := range part {
					assert.InDelta(t, 1/float64(n-1), p, .02, l)
				}
				c.SetReachable(r.Locator, true)
				after, _ := share(c, hashes)
				require.Equal(t, before, after)
			}
		})
	}
}

// The same holds while others are down already, and for R=0 in a new Map-Reply.
func TestSecondDownMovesOwnFlowsOnly(t *testing.T) {
	t.Parallel()
	hashes := flows(2_000)
	rlocs := []mapcache.RLOC{
		rloc("192.0.2.1", 1, 10), rloc("192.0.2.2", 1, 20), rloc("192.0.2.3", 1, 0),
		rloc("192.0.2.4", 2, 5), rloc("192.0.2.5", 2, 50),
	}
	c := newCache(t, mapcache.Config{}, mapping(rlocs...))
	r := rand.New(rand.NewPCG(3, 4))
	prev, _ := share(c, hashes)
	for range 100 {
		i := r.IntN(len(rlocs))
		name := rlocs[i].String()
		if r.IntN(2) == 0 {
			c.SetReachable(rlocs[i].Locator, !c.Reachable(rlocs[i].Locator))
		} else {
			rlocs[i].Down = !rlocs[i].Down
			require.NoError(t, c.Insert(t0, mapping(rlocs...)))
		}
		next, _ := share(c, hashes)
		for k := range hashes { // a flow moves off what went down, or on to what came up
			if prev[k] != next[k] && prev[k] != name && next[k] != name {
				t.Fatalf("flow %d moved from %q to %q when %s changed", k, prev[k], next[k], name)
			}
		}
		prev = next
	}
}

func TestSameFlowSameLocator(t *testing.T) {
	t.Parallel()
	// Two caches with another history choose alike: only the mapping counts.
	m := mapping(rloc("192.0.2.1", 1, 3), rloc("192.0.2.2", 1, 2), rloc("192.0.2.3", 1, 7))
	a := newCache(t, mapcache.Config{}, m)
	b := newCache(t, mapcache.Config{}, positive("10.9.0.0/16", "192.0.2.3", time.Hour), positive("10.8.0.0/16", "192.0.2.2", time.Hour), m)
	for _, c := range []*mapcache.Cache{a, b} {
		c.SetReachable(loc("192.0.2.3"), false)
	}
	hashes := flows(1000)
	ofA, _ := share(a, hashes)
	ofB, _ := share(b, hashes)
	assert.Equal(t, ofA, ofB)
}

func TestReachability(t *testing.T) {
	t.Parallel()
	const a, b = "192.0.2.1", "192.0.2.2"
	c := newCache(t, mapcache.Config{},
		mapping(rloc(a, 1, 1), rloc(b, 2, 1)),
		positive("10.3.0.0/16", a, time.Hour),
	)
	view := c.View()
	see := func() string { return view.Forward(0, addr("10.2.0.1"), 0).Locator.String() }
	require.Equal(t, a, see())
	c.Changes()

	assert.True(t, c.SetDown(loc(a), mapcache.CauseProbe, true))
	assert.Equal(t, b, see(), "seen by the next packet, without Publish") // RFC 9301-7-s1
	assert.Equal(t, mapcache.NoLocator, view.Forward(0, addr("10.3.0.1"), 0).Verdict, "shared by all mappings")
	assert.False(t, c.SetDown(loc(a), mapcache.CauseICMP, true))
	assert.False(t, c.SetDown(loc(a), mapcache.CauseProbe, false), "another cause is left")
	assert.False(t, c.Reachable(loc(a)))
	assert.Equal(t, b, see())
	for l, info := range c.Locators() {
		switch l {
		case loc(a):
			assert.Equal(t, []mapcache.Cause{mapcache.CauseICMP}, info.Causes)
			assert.False(t, info.Usable)
			assert.Equal(t, key("10.3.0.0/16"), info.Key)
		case loc(b):
			assert.Empty(t, info.Causes)
			assert.Equal(t, key("10.2.0.0/16"), info.Key)
		}
	}
	assert.True(t, c.SetDown(mapcache.Locator{Addr: addr("::ffff:192.0.2.1")}, mapcache.CauseICMP, false), "normalised")
	assert.Equal(t, a, see())

	changes := c.Changes()
	require.Len(t, changes, 2)
	assert.Equal(t, mapcache.ReasonLocatorDown, changes[0].Reason)
	assert.Equal(t, loc(a), changes[0].Locator)
	assert.Equal(t, mapcache.ReasonLocatorUp, changes[1].Reason)
	assert.Equal(t, changes[0].Seq+1, changes[1].Seq)

	assert.False(t, c.SetDown(loc("192.0.2.99"), mapcache.CauseProbe, true), "nobody lists it")
	assert.True(t, c.Reachable(loc("192.0.2.99")))
	assert.False(t, c.SetDown(loc(a), 200, true))
}

// State outlives a mapping as long as another lists the locator, and a refresh.
func TestReachabilityOutlivesMappings(t *testing.T) {
	t.Parallel()
	const a = "192.0.2.1"
	c := newCache(t, mapcache.Config{}, positive("10.2.0.0/16", a, time.Hour), positive("10.3.0.0/16", a, time.Hour))
	c.SetReachable(loc(a), false)
	require.NoError(t, c.Insert(t0, mapping(rloc(a, 1, 1), rloc("192.0.2.2", 1, 0))))
	assert.Equal(t, "192.0.2.2", via(c, "10.2.0.1"))
	c.Remove(t0, key("10.2.0.0/16"))
	assert.False(t, c.Reachable(loc(a)))
	c.Remove(t0, key("10.3.0.0/16"))
	assert.True(t, c.Reachable(loc(a)), "forgotten with the last mapping")
	for l := range c.Locators() {
		t.Errorf("%v is left", l)
	}
}

// A locator set may name another ETR than the one that answered, whatever it is.
func TestFamiliesThatWeCannotSource(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, mapping(rloc("2001:db8::1", 1, 1), rloc("192.0.2.1", 2, 1)))
	assert.Equal(t, "2001:db8::1", via(c, "10.2.0.1")) // RFC 9300-4.2-1, 6835i-2-5
	c.SetSourceFamilies(true, false)
	assert.Equal(t, "192.0.2.1", via(c, "10.2.0.1"))
	assert.False(t, c.Reachable(loc("2001:db8::1")))
	require.NoError(t, c.Insert(t0, positive("10.4.0.0/16", "2001:db8::4", time.Hour)))
	assert.Equal(t, "no-locator", via(c, "10.4.0.1"), "new locators as well")
	c.SetSourceFamilies(false, true)
	assert.Equal(t, "2001:db8::1", via(c, "10.2.0.1"))
	assert.Equal(t, "2001:db8::4", via(c, "10.4.0.1"))
	for l, info := range c.Locators() {
		if l.Addr.Is4() {
			require.Len(t, info.Causes, 1)
			assert.Equal(t, "no-source", info.Causes[0].String())
		}
	}
	c.SetSourceFamilies(false, false)
	assert.Equal(t, "no-locator", via(c, "10.2.0.1"))
}

// Locators that differ in port or interface are different locators: two peers
// behind one NAT.
func TestLocatorIdentity(t *testing.T) {
	t.Parallel()
	r := []mapcache.RLOC{rloc("192.0.2.1", 1, 1), rloc("192.0.2.1", 2, 1), rloc("192.0.2.1", 3, 1)}
	r[1].Port = 40000
	r[2].IfIndex = 7
	c := newCache(t, mapcache.Config{}, mapping(r...))
	assert.Equal(t, "192.0.2.1", via(c, "10.2.0.1"))
	c.SetReachable(r[0].Locator, false)
	assert.Equal(t, "192.0.2.1:40000", via(c, "10.2.0.1"))
	c.SetReachable(r[1].Locator, false)
	assert.Equal(t, "192.0.2.1%7", via(c, "10.2.0.1"))
}

func TestChooseLocal(t *testing.T) {
	t.Parallel()
	local := func(a string, ifIndex int, priority, weight uint8, up bool) mapcache.Local {
		return mapcache.Local{Addr: addr(a), IfIndex: ifIndex, Priority: priority, Weight: weight, Up: up}
	}
	ls := []mapcache.Local{
		0: local("192.0.2.1", 1, 1, 75, true),
		1: local("192.0.2.2", 2, 1, 25, true),
		2: local("192.0.2.3", 3, 2, 100, true),
		3: local("2001:db8::1", 1, 5, 1, true),
		4: local("192.0.2.4", 4, 255, 1, true),
		5: local("192.0.2.5", 5, 1, 0, true),
	}
	tests := []struct {
		name   string
		down   []int
		remote string
		want   map[int]float64
	}{
		{"best Priority by Weight", nil, "198.51.100.1", map[int]float64{0: .75, 1: .25}},
		{"mapped", nil, "::ffff:198.51.100.1", map[int]float64{0: .75, 1: .25}},
		{"other family", nil, "2001:db8::9", map[int]float64{3: 1}},
		{"one down", []int{0}, "198.51.100.1", map[int]float64{1: 1}},
		{"Weight 0 next", []int{0, 1}, "198.51.100.1", map[int]float64{5: 1}},
		{"then Priority 2", []int{0, 1, 5}, "198.51.100.1", map[int]float64{2: 1}},
		{"never 255", []int{0, 1, 2, 5}, "198.51.100.1", nil},
		{"no family", []int{3}, "2001:db8::9", nil},
	}
	hashes := flows(20_000)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			list := append([]mapcache.Local(nil), ls...)
			for _, i := range tt.down {
				list[i].Up = false
			}
			got := make(map[int]float64)
			for _, h := range hashes {
				i, ok := mapcache.ChooseLocal(list, addr(tt.remote), h)
				if ok != (len(tt.want) > 0) {
					t.Fatalf("ok is %v", ok)
				}
				if ok {
					got[i] += 1 / float64(len(hashes))
				}
			}
			for i := range got {
				assert.Contains(t, tt.want, i)
			}
			for i, want := range tt.want {
				assert.InDelta(t, want, got[i], .02, i)
			}
		})
	}
	_, ok := mapcache.ChooseLocal(nil, netip.Addr{}, 0)
	assert.False(t, ok)

	moved := 0
	without := append([]mapcache.Local(nil), ls...)
	without[1].Up = false
	for _, h := range hashes {
		i, _ := mapcache.ChooseLocal(ls, addr("198.51.100.1"), h)
		j, _ := mapcache.ChooseLocal(without, addr("198.51.100.1"), h)
		if i != j {
			require.Equal(t, 1, i)
			moved++
		}
	}
	assert.InDelta(t, .25, float64(moved)/float64(len(hashes)), .02)
}
