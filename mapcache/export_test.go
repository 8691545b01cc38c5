package mapcache_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// saved exports by way of JSON.
func saved(t *testing.T, c *mapcache.Cache, now time.Time) []mapcache.Saved {
	t.Helper()
	b, err := json.Marshal(slices.Collect(c.Export(now)))
	require.NoError(t, err)
	var list []mapcache.Saved
	require.NoError(t, json.Unmarshal(b, &list))
	return list
}

func TestExportImport(t *testing.T) {
	t.Parallel()
	rich := mapcache.Mapping{
		Key:           mapcache.MakeKey(7, prefix("2001:db8:1::/48")),
		RLOCs:         []mapcache.RLOC{rloc("192.0.2.1", 1, 60), rloc("2001:db8::2", 1, 40), rloc("192.0.2.3", 255, 0)},
		TTL:           24 * time.Hour,
		Authoritative: true,
		MapVersion:    17,
	}
	rich.RLOCs[1].Port, rich.RLOCs[1].IfIndex = 5000, 3
	rich.RLOCs[2].Down, rich.RLOCs[0].MPriority, rich.RLOCs[0].MWeight = true, 2, 9
	forever := positive("10.3.0.0/16", "192.0.2.9", mapcache.TTLForever)
	short := positive("10.4.0.0/16", "192.0.2.9", time.Minute)
	neg := negative("10.5.0.0/16", lisp.ActionNativelyForward, 15*time.Minute)
	c := newCache(t, mapcache.Config{Gleaning: true}, rich, forever, short, neg, static("10.6.0.0/16", "192.0.2.9"))
	require.True(t, c.Glean(t0.Add(30*time.Second), 0, addr("10.7.0.1"), loc("192.0.2.5")))

	list := saved(t, c, t0.Add(30*time.Second))
	require.Len(t, list, 5, "all but the gleaned one")
	assert.Equal(t, t0.Add(30*time.Second), list[0].Taken)
	assert.Len(t, slices.Collect(c.Export(t0.Add(time.Minute))), 4, "without the expired one")
	for range c.Export(t0) {
		break // is allowed
	}

	tests := []struct {
		name  string
		after time.Duration // the restart, after the export
		want  map[string]time.Duration
	}{
		{"at once", 0, map[string]time.Duration{
			"10.3.0.0/16": 24*time.Hour - 30*time.Second, "10.4.0.0/16": 30 * time.Second,
			"10.5.0.0/16": 14*time.Minute + 30*time.Second, "[7]2001:db8:1::/48": 24*time.Hour - 30*time.Second,
		}},
		{"later, one has expired", 30 * time.Second, map[string]time.Duration{
			"10.3.0.0/16": 24*time.Hour - time.Minute, "10.5.0.0/16": 14 * time.Minute, "[7]2001:db8:1::/48": 24*time.Hour - time.Minute,
		}},
		{"with the clock of 1970", -1e18, map[string]time.Duration{
			"10.3.0.0/16": 24*time.Hour - 30*time.Second, "10.4.0.0/16": 30 * time.Second,
			"10.5.0.0/16": 14*time.Minute + 30*time.Second, "[7]2001:db8:1::/48": 24*time.Hour - 30*time.Second,
		}},
		{"after a year", 365 * 24 * time.Hour, map[string]time.Duration{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now := t0.Add(30*time.Second + tt.after)
			to := mapcache.New(mapcache.Config{MinTTL: time.Hour}) // what is left is not clamped
			stored := 0
			for _, s := range list {
				ok, err := to.Import(now, s)
				require.NoError(t, err)
				if ok {
					stored++
				}
			}
			assert.Equal(t, len(tt.want), stored)
			got := make(map[string]time.Duration)
			for e := range to.All() {
				got[e.String()] = e.Expires.Sub(now)
				before, ok := c.Get(e.Key)
				require.True(t, ok)
				assert.Equal(t, before.Mapping, e.Mapping)
				assert.Equal(t, now, e.Created)
			}
			assert.Equal(t, tt.want, got)
			to.Publish()
			if len(got) > 0 {
				assert.Equal(t, "192.0.2.9", via(to, "10.3.0.1"))
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	good := mapcache.Saved{Mapping: positive("10.1.0.0/16", "192.0.2.1", time.Hour), Left: time.Minute, Taken: t0}
	with := func(f func(*mapcache.Saved)) mapcache.Saved { s := good; f(&s); return s }
	tests := []struct {
		name string
		s    mapcache.Saved
		err  error
	}{
		{"no EID-Prefix", with(func(s *mapcache.Saved) { s.Key = mapcache.Key{} }), mapcache.ErrInvalid},
		{"no TTL", with(func(s *mapcache.Saved) { s.TTL = 0 }), mapcache.ErrInvalid},
		{"gleaned", with(func(s *mapcache.Saved) { s.Origin = mapcache.OriginGleaned }), mapcache.ErrInvalid},
		{"nothing left", with(func(s *mapcache.Saved) { s.Left = 0 }), nil},
		{"static", with(func(s *mapcache.Saved) { s.Origin = mapcache.OriginStatic }), nil},
		{"no room", with(func(s *mapcache.Saved) { s.Key = key("10.3.0.0/16") }), mapcache.ErrFull},
		{"has a newer one", with(func(s *mapcache.Saved) { s.Key = key("10.2.0.0/16") }), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, mapcache.Config{MaxEntries: 1}, positive("10.2.0.0/16", "192.0.2.2", time.Hour))
			ok, err := c.Import(t0, tt.s)
			assert.False(t, ok)
			require.ErrorIs(t, err, tt.err)
			assert.Equal(t, 1, c.Len())
			assert.Equal(t, "192.0.2.2", via(c, "10.2.0.1"))
		})
	}
	// A file that promises more than a mapping can have.
	c := mapcache.New(mapcache.Config{})
	ok, err := c.Import(t0, with(func(s *mapcache.Saved) { s.Left = 1e6 * time.Hour }))
	require.NoError(t, err)
	require.True(t, ok)
	e, _ := c.Get(good.Key)
	assert.Equal(t, t0.Add(time.Hour), e.Expires)
}

// A less-specific entry does not come back without the more-specific one that
// expired meanwhile, nor outlive it.
func TestImportOverlap(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{},
		positive("10.0.0.0/8", "192.0.2.1", time.Hour), positive("10.1.0.0/16", "192.0.2.2", 10*time.Minute))
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		list := saved(t, c, t0)
		for after, want := range map[time.Duration]int{10*time.Minute - 1: 2, 10 * time.Minute: 0} {
			to := mapcache.New(mapcache.Config{})
			for _, i := range order {
				_, err := to.Import(t0.Add(after), list[i])
				require.NoError(t, err)
			}
			require.Equal(t, want, to.Len())
			for e := range to.All() {
				assert.Equal(t, t0.Add(10*time.Minute), e.Expires) // RFC 9301-5.5-4
			}
		}
	}
}

// What was imported and is in use is refreshed in time; the rest just expires.
func TestImportRefresh(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", time.Hour), positive("10.2.0.0/16", "192.0.2.2", time.Hour))
	to := mapcache.New(mapcache.Config{})
	now := t0.Add(50 * time.Minute)
	for _, s := range saved(t, c, now) {
		_, err := to.Import(now, s)
		require.NoError(t, err)
	}
	to.Publish()
	assert.Empty(t, advance(to, t0.Add(58*time.Minute)))
	assert.Equal(t, "192.0.2.1", via(to, "10.1.0.1"))
	assert.Equal(t, []string{"10.1.0.0/16"}, advance(to, t0.Add(59*time.Minute)))
	advance(to, t0.Add(time.Hour))
	assert.Zero(t, to.Len())
}
