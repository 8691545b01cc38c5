package mapcache_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// expires returns in how long entries end, by key; 0 is never.
func expires(c *mapcache.Cache) map[string]time.Duration {
	out := make(map[string]time.Duration)
	for e := range c.All() {
		out[e.String()] = 0
		if !e.Expires.IsZero() {
			out[e.String()] = e.Expires.Sub(t0)
		}
	}
	return out
}

func asked(m mapcache.Mapping, eid string) mapcache.Mapping {
	m.Asked = prefix(eid)
	return m
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	const h = time.Hour
	type ends map[string]time.Duration
	tests := []struct {
		name  string
		first []mapcache.Mapping // at t0
		then  mapcache.Mapping   // a minute later
		want  ends               // since t0
	}{
		{
			"a less-specific one lives no longer than a more-specific one", // RFC 9301-5.5-4
			[]mapcache.Mapping{positive("10.1.0.0/16", "192.0.2.1", h), positive("10.2.0.0/16", "192.0.2.2", 2*h)},
			positive("10.0.0.0/8", "192.0.2.3", 9*h),
			ends{"10.0.0.0/8": h, "10.1.0.0/16": h, "10.2.0.0/16": 2 * h},
		},
		{
			"unless its own TTL is shorter",
			[]mapcache.Mapping{positive("10.1.0.0/16", "192.0.2.1", h)},
			positive("10.0.0.0/8", "192.0.2.3", time.Minute),
			ends{"10.0.0.0/8": 2 * time.Minute, "10.1.0.0/16": h},
		},
		{
			"a more-specific one is added beside", // RFC 9301-5.5-s2
			[]mapcache.Mapping{positive("10.0.0.0/8", "192.0.2.1", h)},
			positive("10.1.0.0/16", "192.0.2.2", 9*h),
			ends{"10.0.0.0/8": h, "10.1.0.0/16": 9*h + time.Minute},
		},
		{
			"and bounds the less-specific one",
			[]mapcache.Mapping{positive("10.0.0.0/8", "192.0.2.1", h)},
			negative("10.1.0.0/16", lisp.ActionNativelyForward, time.Minute),
			ends{"10.0.0.0/8": 2 * time.Minute, "10.1.0.0/16": 2 * time.Minute},
		},
		{
			"a less-specific answer replaces those that cover what was asked for", // RFC 9301-5.5-s2
			[]mapcache.Mapping{
				positive("10.1.0.0/16", "192.0.2.1", h), positive("10.1.1.0/24", "192.0.2.1", h),
				positive("10.1.1.7/32", "192.0.2.1", h), positive("10.2.0.0/16", "192.0.2.1", 2*h),
			},
			asked(positive("10.0.0.0/8", "192.0.2.3", 9*h), "10.1.1.1/32"),
			ends{"10.0.0.0/8": h, "10.1.1.7/32": h, "10.2.0.0/16": 2 * h},
		},
		{
			"asked for a prefix",
			[]mapcache.Mapping{positive("10.1.0.0/16", "192.0.2.1", h), positive("10.1.1.0/24", "192.0.2.1", h)},
			asked(positive("10.0.0.0/8", "192.0.2.3", 9*h), "10.1.0.0/16"),
			ends{"10.0.0.0/8": h, "10.1.1.0/24": h},
		},
		{
			"asked for something else",
			[]mapcache.Mapping{positive("10.1.0.0/16", "192.0.2.1", h)},
			asked(positive("10.0.0.0/8", "192.0.2.3", 9*h), "11.0.0.1/32"),
			ends{"10.0.0.0/8": h, "10.1.0.0/16": h},
		},
		{
			"static ones are neither replaced nor bound",
			[]mapcache.Mapping{static("10.1.0.0/16", "192.0.2.1"), static("0.0.0.0/0", "192.0.2.9")},
			asked(positive("10.0.0.0/8", "192.0.2.3", 9*h), "10.1.0.1/32"),
			ends{"0.0.0.0/0": 0, "10.0.0.0/8": 9*h + time.Minute, "10.1.0.0/16": 0},
		},
		{
			"a refresh of the more-specific one lets the other live on",
			[]mapcache.Mapping{positive("10.0.0.0/8", "192.0.2.1", 3*h), positive("10.1.0.0/16", "192.0.2.1", h), positive("10.2.0.0/16", "192.0.2.2", 2*h)},
			positive("10.1.0.0/16", "192.0.2.1", h+h/2),
			ends{"10.0.0.0/8": h + h/2 + time.Minute, "10.1.0.0/16": h + h/2 + time.Minute, "10.2.0.0/16": 2 * h},
		},
		{
			"so does its withdrawal",
			[]mapcache.Mapping{positive("10.0.0.0/8", "192.0.2.1", 3*h), positive("10.1.0.0/16", "192.0.2.1", h), positive("10.2.0.0/16", "192.0.2.2", 2*h)},
			positive("10.1.0.0/16", "192.0.2.1", 0),
			ends{"10.0.0.0/8": 2 * h, "10.2.0.0/16": 2 * h},
		},
		{
			"through levels",
			[]mapcache.Mapping{positive("10.0.0.0/8", "192.0.2.1", 3*h), positive("10.1.0.0/16", "192.0.2.1", 2*h)},
			positive("10.1.1.0/24", "192.0.2.1", h),
			ends{"10.0.0.0/8": h + time.Minute, "10.1.0.0/16": h + time.Minute, "10.1.1.0/24": h + time.Minute},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, mapcache.Config{}, tt.first...)
			require.NoError(t, c.Insert(t0.Add(time.Minute), tt.then))
			assert.Equal(t, tt.want, ends(expires(c)))
		})
	}
}

// The records of one Map-Reply may come in any order: what is stored at the same
// now is not replaced.
func TestOverlapInOneReply(t *testing.T) {
	t.Parallel()
	less, more := positive("10.0.0.0/8", "192.0.2.1", time.Hour), positive("10.1.0.0/16", "192.0.2.2", time.Hour)
	less, more = asked(less, "10.1.0.1/32"), asked(more, "10.1.0.1/32")
	for _, order := range [][]mapcache.Mapping{{less, more}, {more, less}} {
		c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.9", time.Hour), positive("10.1.0.0/24", "192.0.2.9", time.Hour))
		for _, m := range order {
			require.NoError(t, c.Insert(t0.Add(time.Minute), m))
		}
		assert.Equal(t, []string{"10.0.0.0/8", "10.1.0.0/16"}, keys(c))
		assert.Equal(t, "192.0.2.2", via(c, "10.1.0.1"))
	}
}

// Neither expiry nor eviction redirects traffic to a less-specific entry: not in
// any View, and not for prefixes that cover more than the cache looks at.
func TestExpiryDoesNotRedirect(t *testing.T) {
	t.Parallel()
	c := mapcache.New(mapcache.Config{})
	const n = 3000
	for i := range n {
		m := positive("10.0.0.0/32", "192.0.2.1", time.Hour-time.Duration(i)*time.Second)
		m.Key = mapcache.HostKey(0, addr4(i))
		require.NoError(t, c.Insert(t0, m))
	}
	require.NoError(t, c.Insert(t0, positive("10.0.0.0/8", "192.0.2.2", time.Hour)))
	alive := func(i int) bool { return via(c, addr4(i).String()) == "192.0.2.1" }
	require.True(t, alive(n-1))
	for d := c.Deadline(); !d.IsZero(); d = c.Deadline() {
		c.Advance(d)
		v := via(c, addr4(n-1).String()) // the first one to expire
		require.NotEqual(t, "192.0.2.2", v, "redirected at %v", d.Sub(t0))
		if v == "miss" {
			break
		}
	}
	assert.False(t, alive(n-1))
	assert.True(t, alive(0))
	assert.Equal(t, "miss", via(c, "10.200.0.1"), "the less-specific one is gone as well")
}

func TestOverlapReasons(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", time.Hour))
	require.NoError(t, c.Insert(t0.Add(time.Second), asked(positive("10.0.0.0/8", "192.0.2.1", time.Hour), "10.1.0.1/32")))
	require.NoError(t, c.Insert(t0.Add(time.Second), positive("10.0.0.0/8", "192.0.2.1", time.Hour)))
	require.NoError(t, c.Insert(t0.Add(time.Second), positive("10.0.0.0/8", "192.0.2.2", time.Hour)))
	c.Remove(t0, key("10.0.0.0/8"))
	var got []string
	for i, ch := range c.Changes() {
		assert.Equal(t, uint64(i+1), ch.Seq)
		got = append(got, fmt.Sprintf("%v %v %v>%v", ch.Reason, ch.Key, len(ch.Old.RLOCs), len(ch.New.RLOCs)))
	}
	assert.Equal(t, []string{
		"added 10.1.0.0/16 0>1", "replaced 10.1.0.0/16 1>0", "added 10.0.0.0/8 0>1",
		"refreshed 10.0.0.0/8 1>1", "updated 10.0.0.0/8 1>1", "removed 10.0.0.0/8 1>0",
	}, got)
	assert.Empty(t, c.Changes())
}

// An entry that a more-specific one had bound, up to the end almost, is refreshed
// in time again when that bound goes.
func TestRefreshAfterBound(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{},
		positive("10.0.0.0/8", "192.0.2.1", time.Hour), positive("10.1.0.0/16", "192.0.2.2", 10*time.Second))
	assert.Empty(t, advance(c, t0.Add(9900*time.Millisecond)))
	require.NoError(t, c.Insert(t0.Add(9900*time.Millisecond), positive("10.1.0.0/16", "192.0.2.2", 2*time.Hour)))
	assert.Equal(t, time.Hour, expires(c)["10.0.0.0/8"])
	assert.Empty(t, advance(c, t0.Add(58*time.Minute)))
	require.Equal(t, "192.0.2.1", via(c, "10.2.0.1"))
	assert.Equal(t, []string{"10.0.0.0/8"}, advance(c, t0.Add(time.Hour-time.Second)))
}
