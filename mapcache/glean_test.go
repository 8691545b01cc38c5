package mapcache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func TestGleaningIsOffByDefault(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{})
	assert.False(t, c.Glean(t0, 0, addr("10.1.0.1"), loc("192.0.2.1"))) // RFC 9300-4.1-4, 9300-9-5
	m := positive("10.1.0.1/32", "192.0.2.1", time.Hour)
	m.Origin = mapcache.OriginGleaned
	require.ErrorIs(t, c.Insert(t0, m), mapcache.ErrInvalid)
	assert.Zero(t, c.Len())
}

func TestGlean(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{Gleaning: true, MinTTL: time.Minute})
	eid := addr("10.1.0.1")
	require.True(t, c.Glean(t0, 0, eid, mapcache.Locator{Addr: addr("192.0.2.1")})) // RFC 9300-4.2-2
	assert.False(t, c.Glean(t0, 0, eid, loc("192.0.2.1")), "no news")
	require.True(t, c.Glean(t0.Add(time.Second), 0, eid, loc("192.0.2.2")), "the peer may send from another locator")
	e, ok := c.Get(key("10.1.0.1/32"))
	require.True(t, ok)
	assert.Equal(t, "gleaned", e.Origin.String())
	require.Len(t, e.RLOCs, 2)
	for _, r := range e.RLOCs {
		assert.Equal(t, uint8(1), r.Priority) // RFC 9300-9-2
		assert.Zero(t, r.Weight)              // RFC 9300-9-2
	}
	assert.Equal(t, t0.Add(3*time.Second), e.Expires, "counted from the first") // RFC 9300-9-3
	assert.Contains(t, []string{"192.0.2.1", "192.0.2.2"}, via(c, "10.1.0.1"))
	advance(c, t0.Add(3*time.Second))
	assert.Equal(t, "miss", via(c, "10.1.0.1"))
	assert.False(t, c.Glean(t0, 1<<24, eid, loc("192.0.2.1")))
	assert.False(t, c.Glean(t0, 0, eid, loc("224.0.0.1")))
	for i := range 20 {
		l := loc("192.0.2.1")
		l.Port = uint16(6000 + i)
		assert.Equal(t, i < 8, c.Glean(t0.Add(4*time.Second), 0, eid, l), "a spoofer cannot grow an entry for ever")
	}
}

func TestVerifiedMappingsEndGleaning(t *testing.T) {
	t.Parallel()
	now := t0.Add(time.Second)
	for name, m := range map[string]mapcache.Mapping{
		"covering": positive("10.1.0.0/16", "192.0.2.9", time.Hour),
		"same key": positive("10.1.0.1/32", "192.0.2.9", time.Hour),
		"negative": negative("10.0.0.0/8", lisp.ActionNativelyForward, time.Hour),
		"static":   static("10.1.0.1/32", "192.0.2.9"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, mapcache.Config{Gleaning: true})
			require.True(t, c.Glean(t0, 0, addr("10.1.0.1"), loc("192.0.2.1")))
			require.NoError(t, c.Insert(now, asked(m, "10.1.0.1/32")))
			assert.Equal(t, 1, c.Len(), "the gleaned entry is replaced")
			assert.NotEqual(t, "192.0.2.1", via(c, "10.1.0.1"))
			assert.False(t, c.Glean(now, 0, addr("10.1.0.1"), loc("192.0.2.1"))) // RFC 9300-9-5
			e, _ := c.LookupEntry(0, addr("10.1.0.1"))
			if !e.Expires.IsZero() {
				assert.Equal(t, now.Add(time.Hour), e.Expires)
			}
		})
	}
	// Gleaned entries neither shorten the life of what covers them nor take it along.
	c := newCache(t, mapcache.Config{Gleaning: true})
	require.True(t, c.Glean(t0, 0, addr("10.1.0.1"), loc("192.0.2.1")))
	require.NoError(t, c.Insert(t0.Add(time.Second), positive("10.0.0.0/8", "192.0.2.9", time.Hour)))
	advance(c, t0.Add(time.Minute))
	assert.Equal(t, "192.0.2.9", via(c, "10.1.0.1"))
}

func TestChooseJoin(t *testing.T) {
	t.Parallel()
	r := func(a string, mPriority, mWeight uint8) mapcache.RLOC {
		out := rloc(a, 1, 1)
		out.MPriority, out.MWeight = mPriority, mWeight
		return out
	}
	list := []mapcache.RLOC{r("192.0.2.1", 255, 100), r("192.0.2.2", 1, 75), r("192.0.2.3", 1, 25), r("192.0.2.4", 2, 100), r("192.0.2.5", 1, 0)}
	got := make(map[int]float64)
	for h := range uint32(20_000) {
		i, ok := mapcache.ChooseJoin(list, h*0x9e3779b1)
		require.True(t, ok)
		got[i] += 1. / 20_000
	}
	assert.NotContains(t, got, 0) // RFC 9301-5.4-8
	assert.NotContains(t, got, 3)
	assert.NotContains(t, got, 4)
	assert.InDelta(t, .75, got[1], .02)
	_, ok := mapcache.ChooseJoin(list[:1], 7) // RFC 9301-5.4-8
	assert.False(t, ok)

	c := newCache(t, mapcache.Config{}, mapping(list...))
	e, _ := c.Get(key("10.2.0.0/16"))
	assert.Equal(t, list, e.RLOCs, "kept")
}
