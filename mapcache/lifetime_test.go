package mapcache_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func TestRecordTTL(t *testing.T) {
	t.Parallel()
	tests := []struct {
		minutes uint32
		want    time.Duration
	}{
		{0, 0},
		{1, time.Minute}, // RFC 9301-5.4-s1
		{1440, 24 * time.Hour},
		{lisp.TTLUnlimited, mapcache.TTLForever}, // RFC 9301-5.4-s1
		{lisp.TTLUnlimited - 1, 365 * 24 * time.Hour},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, mapcache.RecordTTL(tt.minutes))
	}
}

func TestLifetimes(t *testing.T) {
	t.Parallel()
	forever := static("10.1.0.0/16", "192.0.2.1")
	staticTTL := static("10.1.0.0/16", "192.0.2.1")
	staticTTL.TTL = time.Minute
	tests := []struct {
		name string
		cfg  mapcache.Config
		m    mapcache.Mapping
		want time.Duration // 0: never
	}{
		{"as the record says", mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", 10*time.Minute), 10 * time.Minute}, // RFC 9300-6-s1
		{"not a LISP site", mapcache.Config{}, // RFC 9301-8.1-s1
			negative("10.1.0.0/16", lisp.ActionNativelyForward, mapcache.RecordTTL(15)), 15 * time.Minute},
		{"not registered", mapcache.Config{}, // RFC 9301-8.1-s1
			negative("10.1.0.0/16", lisp.ActionNativelyForward, mapcache.RecordTTL(1)), time.Minute},
		{"receiver decides", mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", mapcache.TTLForever), 24 * time.Hour}, // RFC 9301-5.4-s1
		{
			"receiver decides otherwise",
			mapcache.Config{UnlimitedTTL: time.Hour},
			positive("10.1.0.0/16", "192.0.2.1", mapcache.TTLForever), time.Hour,
		},
		{"clamped down", mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", mapcache.RecordTTL(1<<31)), 7 * 24 * time.Hour},
		{"clamped up", mapcache.Config{MinTTL: time.Minute}, positive("10.1.0.0/16", "192.0.2.1", time.Second), time.Minute},
		{"static", mapcache.Config{}, forever, 0},
		{"static with a TTL for others", mapcache.Config{}, staticTTL, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, tt.cfg, tt.m)
			k := key("10.1.0.0/16")
			e, ok := c.Get(k)
			require.True(t, ok)
			assert.Equal(t, tt.m.TTL, e.TTL, "kept as given")
			if tt.want == 0 {
				assert.True(t, e.Expires.IsZero())
				assert.True(t, c.Deadline().IsZero())
				advance(c, t0.Add(100*365*24*time.Hour))
				assert.Equal(t, 1, c.Len())
				return
			}
			assert.Equal(t, t0.Add(tt.want), e.Expires)
			advance(c, t0.Add(tt.want-1))
			assert.Equal(t, 1, c.Len())
			assert.Equal(t, t0.Add(tt.want), c.Deadline())
			view := c.View()
			advance(c, t0.Add(tt.want))
			assert.Zero(t, c.Len())
			assert.True(t, c.Deadline().IsZero())
			assert.NotEqual(t, mapcache.Miss, view.Forward(0, addr("10.1.0.1"), 0).Verdict, "a View does not change")
			assert.Equal(t, "miss", via(c, "10.1.0.1"))
			changes := c.Changes()
			last := changes[len(changes)-1]
			assert.Equal(t, mapcache.ReasonExpired, last.Reason)
			assert.True(t, last.Old.Present)
			assert.False(t, last.New.Present)
		})
	}
}

func TestTTLZeroRemoves(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", time.Hour))
	require.NoError(t, c.Insert(t0, positive("10.1.0.0/16", "192.0.2.1", 0)))
	assert.Equal(t, "miss", via(c, "10.1.0.1")) // RFC 9301-5.4-3
	require.NoError(t, c.Insert(t0, positive("10.1.0.0/16", "192.0.2.1", 0)), "nothing to remove")
	require.NoError(t, c.Insert(t0, static("10.1.0.0/16", "192.0.2.1")))
	gone := static("10.1.0.0/16", "192.0.2.1")
	gone.TTL = 0
	require.NoError(t, c.Insert(t0, gone))
	assert.Zero(t, c.Len())
	assert.False(t, c.Remove(t0, key("10.1.0.0/16")))
}

func TestActions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		act  lisp.Action
		want mapcache.Verdict
	}{
		{lisp.ActionNoAction, mapcache.Drop},              // RFC 9301-5.4-s3
		{lisp.ActionNativelyForward, mapcache.Native},     // RFC 9301-5.4-s3, 6832-5.2-s1
		{lisp.ActionSendMapRequest, mapcache.SendRequest}, // RFC 9301-5.4-s3
		{lisp.ActionDropNoReason, mapcache.Drop},          // RFC 9301-5.4-s3
		{lisp.ActionDropPolicyDenied, mapcache.Drop},
		{lisp.ActionDropAuthFailure, mapcache.Drop},
		{6, mapcache.Drop},
		{7, mapcache.Drop},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.act), func(t *testing.T) {
			t.Parallel()
			c := newCache(t, mapcache.Config{}, negative("10.1.0.0/16", tt.act, time.Hour))
			d := forward(c, "10.1.0.1")
			assert.Equal(t, tt.want, d.Verdict)
			assert.Equal(t, tt.act, d.Action, "for the ICMP message")
			assert.Zero(t, d.LocatorID)
			ch := c.Changes()[0]
			assert.Equal(t, mapcache.Forwarding{Present: true, Verdict: tt.want, Action: tt.act}, ch.New)
			assert.Equal(t, ch.New.Verdict, d.Verdict)

			// The ACT of a positive mapping means nothing, but is kept.
			m := positive("10.1.0.0/16", "192.0.2.1", time.Hour)
			m.Action = tt.act
			require.NoError(t, c.Insert(t0, m))
			assert.Equal(t, mapcache.Encapsulate, forward(c, "10.1.0.1").Verdict)
			e, _ := c.Get(m.Key)
			assert.Equal(t, tt.act, e.Action)
			assert.False(t, e.Negative())
		})
	}
}

// Entries in use are reported once, in time; idle ones just expire.
func TestRefresh(t *testing.T) {
	t.Parallel()
	const ttl = 10 * time.Minute
	at := func(d time.Duration) time.Time { return t0.Add(d) }
	tests := []struct {
		name string
		uses []time.Duration // by packets
		want time.Duration   // when it is reported, 0: never
	}{
		{"idle", nil, 0},
		{"only by the packet that asked", []time.Duration{0}, 0},
		{"long ago", []time.Duration{0, time.Minute, 7 * time.Minute}, 0},
		{"in the last minute before", []time.Duration{0, 8*time.Minute + time.Second}, 9 * time.Minute},
		{"all the time", []time.Duration{0, time.Minute, 5 * time.Minute, 8*time.Minute + 30*time.Second, 8*time.Minute + 59*time.Second}, 9 * time.Minute},
		{"just too late for the first look", []time.Duration{9*time.Minute + time.Second}, 9*time.Minute + 30*time.Second},
		{"shortly before the end", []time.Duration{9*time.Minute + 50*time.Second}, 9*time.Minute + 52500*time.Millisecond},
		{"too late", []time.Duration{ttl - time.Second}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", ttl))
			var reported []time.Duration
			run := func(until time.Time) {
				for d := c.Deadline(); !d.IsZero() && !d.After(until); d = c.Deadline() {
					for range c.Advance(d) {
						reported = append(reported, d.Sub(t0))
					}
				}
			}
			for _, use := range tt.uses {
				run(at(use))
				require.Equal(t, "192.0.2.1", via(c, "10.1.0.1"))
			}
			run(at(ttl - 1))
			assert.Equal(t, 1, c.Len())
			if tt.want == 0 {
				assert.Empty(t, reported)
			} else {
				assert.Equal(t, []time.Duration{tt.want}, reported)
			}
			run(at(ttl))
			assert.Zero(t, c.Len())
		})
	}
}

// Traffic through refreshes never meets a miss, whatever the TTL.
func TestRefreshKeepsTrafficGoing(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{10 * time.Second, time.Minute, 15 * time.Minute, 24 * time.Hour} {
		t.Run(ttl.String(), func(t *testing.T) {
			t.Parallel()
			m := positive("10.1.0.0/16", "192.0.2.1", ttl)
			c := newCache(t, mapcache.Config{}, m)
			refreshed := 0
			for now := t0; now.Before(t0.Add(5 * ttl)); now = now.Add(min(ttl/100, 20*time.Second)) {
				require.Equal(t, "192.0.2.1", via(c, "10.1.0.1"))
				for _, k := range c.Advance(now) {
					require.NoError(t, c.Insert(now, mapcache.Mapping{Key: k, RLOCs: m.RLOCs, TTL: ttl}))
					refreshed++
				}
			}
			assert.GreaterOrEqual(t, refreshed, 4)
			assert.LessOrEqual(t, refreshed, 7)
			e, _ := c.Get(m.Key)
			assert.Equal(t, t0, e.Created)
			assert.True(t, e.Updated.After(t0))
			assert.False(t, e.LastUsed.IsZero())
		})
	}
}

// A data plane that forwards by a mirror of its own reports use by Used.
func TestUsed(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", 10*time.Minute))
	assert.Empty(t, advance(c, t0.Add(8*time.Minute)))
	now := t0.Add(8*time.Minute + time.Second)
	c.Used(now, mapcache.HostKey(0, addr("10.1.2.3"))) // by destination
	c.Used(now, mapcache.HostKey(0, addr("10.9.2.3"))) // gone meanwhile
	c.Used(now, mapcache.HostKey(5, addr("10.1.2.3")))
	e, _ := c.Get(key("10.1.0.0/16"))
	assert.Equal(t, now, e.LastUsed)
	assert.Equal(t, []string{"10.1.0.0/16"}, advance(c, t0.Add(9*time.Minute)))
	e, _ = c.Get(key("10.1.0.0/16"))
	assert.True(t, e.Refreshing)
}

// Many entries that end together are removed in parts, so that the loop that owns
// the cache gets to do something else in between: what one call does, counted in
// entries, is the same at ten times the size.
func TestAdvanceIsBounded(t *testing.T) {
	t.Parallel()
	const perCall = 8
	work := func(n int) (most, calls int) {
		c := mapcache.New(mapcache.Config{MaxChanges: 1 << 20})
		for i := range n {
			require.NoError(t, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", time.Minute))))
		}
		c.Publish()
		advance(c, t0.Add(time.Minute-1))
		c.Changes()
		for now := t0.Add(time.Minute); !c.Deadline().IsZero(); calls++ {
			require.False(t, c.Deadline().After(now))
			c.Advance(now)
			c.Publish()
			most = max(most, len(c.Changes()))
		}
		assert.Zero(t, c.Len())
		return most, calls
	}
	for _, n := range []int{500, 5_000} {
		most, calls := work(n)
		assert.Equal(t, perCall, most)
		assert.Equal(t, (n+perCall-1)/perCall, calls)
	}
}

// An update comes in between two parts: it waits for one of them, not for all.
func TestUpdateBetweenParts(t *testing.T) {
	t.Parallel()
	const n = 1000
	c := mapcache.New(mapcache.Config{})
	for i := range n {
		require.NoError(t, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", time.Minute))))
	}
	now := t0.Add(time.Minute)
	c.Advance(t0.Add(time.Minute - 1))
	c.Advance(now)
	left := c.Len()
	require.NoError(t, c.Insert(now, positive("11.0.0.1/32", "192.0.2.2", time.Minute)))
	c.Publish()
	assert.Equal(t, "192.0.2.2", via(c, "11.0.0.1"))
	assert.Equal(t, left+1, c.Len())
	advance(c, now)
	assert.Equal(t, 1, c.Len())
}

// Entries nested in each other that end together go least specific first, over
// several calls if need be: no packet meets a less-specific entry whose
// more-specific one is gone.
func TestExpireNested(t *testing.T) {
	t.Parallel()
	c := mapcache.New(mapcache.Config{})
	for bits := range 129 {
		m := positive("::/0", "192.0.2.1", time.Minute)
		m.Key = mapcache.MakeKey(0, netip.PrefixFrom(addr("2001:db8::1"), bits))
		require.NoError(t, c.Insert(t0, m))
	}
	advance(c, t0.Add(time.Minute-1))
	calls := 0
	for ; !c.Deadline().IsZero(); calls++ {
		before := c.Len()
		c.Advance(t0.Add(time.Minute))
		assert.LessOrEqual(t, before-c.Len(), 8)
		n := 128 - c.Len()
		for e := range c.All() {
			n++
			assert.Equal(t, n, e.Prefix.Bits(), "the least specific ones have gone") // RFC 9301 5.5
		}
	}
	assert.Equal(t, 17, calls)
	assert.Zero(t, c.Len())
}
