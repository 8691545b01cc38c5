package mapcache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

func TestMarkSMR(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		key  mapcache.Key
		want string // the entry that is reported
	}{
		{"the prefix of an entry", key("10.1.0.0/16"), "10.1.0.0/16"},
		{"an EID", key("10.1.2.3/32"), "10.1.0.0/16"},
		{"not masked, IPv4-mapped", mapcache.Key{Prefix: prefix("::ffff:10.1.2.3/112")}, "10.1.0.0/16"},
		{"in an instance", mapcache.MakeKey(7, prefix("10.1.2.0/24")), "[7]10.1.0.0/16"},
		{"less specific than any", key("10.0.0.0/8"), ""},
		{"unknown instance", mapcache.MakeKey(8, prefix("10.1.2.0/24")), ""},
		{"static", key("10.2.0.0/16"), ""},
		{"gleaned", key("10.3.0.1/32"), ""},
		{"no key", mapcache.Key{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			other := positive("10.1.0.0/16", "192.0.2.1", time.Hour)
			other.IID = 7
			c := newCache(t, mapcache.Config{Gleaning: true}, positive("10.1.0.0/16", "192.0.2.1", time.Hour), other, static("10.2.0.0/16", "192.0.2.1"))
			now := t0.Add(20 * time.Minute)
			require.True(t, c.Glean(now, 0, addr("10.3.0.1"), loc("192.0.2.5")))
			advance(c, now)
			assert.Equal(t, tt.want != "", c.MarkSMR(now, tt.key))
			if tt.want == "" {
				assert.Empty(t, advance(c, now))
				return
			}
			assert.False(t, c.Deadline().After(now), "at once")
			assert.Equal(t, "192.0.2.1", via(c, "10.1.2.3"), "still in use")
			assert.Equal(t, []string{tt.want}, advance(c, now), "used or not")
			assert.Empty(t, advance(c, t0.Add(time.Hour-1)), "once")
			assert.Equal(t, 3, c.Len())
		})
	}
}

func TestMarkSMRAgain(t *testing.T) {
	t.Parallel()
	m := positive("10.1.0.0/16", "192.0.2.1", time.Hour)
	c := newCache(t, mapcache.Config{}, m)
	entry := func() mapcache.Entry {
		e, ok := c.Get(m.Key)
		require.True(t, ok)
		return e
	}
	assert.False(t, entry().Solicited)
	assert.True(t, entry().LastSMR.IsZero())
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	assert.True(t, c.MarkSMR(at(10), m.Key))
	e := entry()
	assert.True(t, e.Solicited)
	assert.Equal(t, at(10), e.LastSMR)
	assert.Len(t, advance(c, at(10)), 1)
	assert.True(t, entry().Refreshing)

	// A flood of SMRs is counted, and causes one refresh in 10 seconds.
	for s := 11; s < 20; s++ {
		assert.False(t, c.MarkSMR(at(s), m.Key))
		assert.Empty(t, advance(c, at(s)))
	}
	assert.Equal(t, uint32(10), entry().SMRs)
	assert.Equal(t, at(10), entry().LastSMR)
	assert.True(t, c.MarkSMR(at(20), m.Key), "no answer came")
	assert.Len(t, advance(c, at(20)), 1)

	// The answer clears the mark; the count stays with the entry.
	require.NoError(t, c.Insert(at(21), m))
	e = entry()
	assert.False(t, e.Solicited)
	assert.False(t, e.Refreshing)
	assert.Equal(t, uint32(11), e.SMRs)
	assert.True(t, c.MarkSMR(at(22), m.Key), "a change after the answer")

	// A mark does not keep an entry, and is not inherited.
	assert.False(t, c.MarkSMR(at(3621), m.Key), "expired")
	advance(c, at(3621))
	assert.Zero(t, c.Len())
	require.NoError(t, c.Insert(at(3622), m))
	assert.Zero(t, entry().SMRs)
	assert.False(t, entry().Solicited)
}
