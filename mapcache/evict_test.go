package mapcache_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func host(i int, m mapcache.Mapping) mapcache.Mapping {
	m.Key = mapcache.HostKey(0, addr4(i))
	return m
}

func TestEvictionPrefers(t *testing.T) {
	t.Parallel()
	pos := positive("10.0.0.0/32", "192.0.2.1", 24*time.Hour)
	neg := negative("10.0.0.0/32", lisp.ActionNativelyForward, 24*time.Hour)
	fixed := static("10.0.0.0/32", "192.0.2.1")
	tests := []struct {
		name    string
		entries []mapcache.Mapping
		used    []int // by packets all the time
		want    string
	}{
		{"idle", []mapcache.Mapping{pos, pos, pos}, []int{0, 2}, "10.0.0.1/32"},
		{"negative", []mapcache.Mapping{pos, neg, pos}, nil, "10.0.0.1/32"},
		{"idle positive before negative in use", []mapcache.Mapping{neg, pos, pos}, []int{0, 2}, "10.0.0.1/32"},
		{"negative in use before positive in use", []mapcache.Mapping{pos, neg, pos}, []int{0, 1, 2}, "10.0.0.1/32"},
		{"never static", []mapcache.Mapping{fixed, pos, fixed}, nil, "10.0.0.1/32"},
		{"nothing in use", []mapcache.Mapping{pos, pos, pos}, []int{0, 1, 2}, ""},
		{"nothing static", []mapcache.Mapping{fixed, fixed, fixed}, nil, ""},
		{"oldest of equals", []mapcache.Mapping{pos, pos, pos}, nil, "10.0.0.0/32"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := mapcache.New(mapcache.Config{MaxEntries: len(tt.entries)})
			for i, m := range tt.entries {
				require.NoError(t, c.Insert(t0, host(i, m)))
			}
			now := t0
			for ; now.Before(t0.Add(5 * time.Minute)); now = now.Add(time.Second) {
				c.Advance(now)
				for _, i := range tt.used {
					forward(c, addr4(i).String())
				}
			}
			c.Changes()
			err := c.Insert(now, host(100, pos))
			if tt.want == "" {
				require.ErrorIs(t, err, mapcache.ErrFull)
				assert.Equal(t, len(tt.entries), c.Len())
				return
			}
			require.NoError(t, err)
			changes := c.Changes()
			require.Len(t, changes, 2)
			assert.Equal(t, mapcache.ReasonEvicted, changes[0].Reason)
			assert.Equal(t, tt.want, changes[0].Key.String())
			assert.Equal(t, len(tt.entries), c.Len())
		})
	}
}

// A flood of packets to random destinations, each with its own Map-Reply, does
// not push out what is in use, and not even what is used once in half a minute.
func TestFloodSparesEntriesInUse(t *testing.T) {
	t.Parallel()
	const inUse, size, perSecond = 60, 300, 40
	for _, kind := range []string{"negative", "positive", "mixed"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := mapcache.New(mapcache.Config{MaxEntries: size, MaxChanges: -1})
			r := rand.New(rand.NewPCG(5, 6))
			for i := range inUse {
				require.NoError(t, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", 24*time.Hour))))
			}
			now := t0
			tick := func() {
				now = now.Add(time.Second)
				c.Advance(now)
				c.Publish()
				for i := range inUse {
					if i%2 == 0 || now.Unix()%30 == int64(i%30) {
						require.Equal(t, mapcache.Encapsulate, c.View().Forward(0, addr4(i), 0).Verdict, "entry %d is gone", i)
					}
				}
			}
			for range 65 {
				tick()
			}
			stored := 0
			for range 40 {
				tick()
				for range perSecond {
					i := 1<<20 + r.IntN(1<<22)
					m := positive("10.0.0.0/32", "192.0.2.7", 24*time.Hour)
					if kind == "negative" || kind == "mixed" && r.IntN(2) == 0 {
						m = negative("10.0.0.0/32", lisp.ActionNativelyForward, 15*time.Minute)
					}
					if c.Insert(now, host(i, m)) == nil {
						stored++
						c.Publish()
						c.View().Forward(0, addr4(i), 0) // the packet that asked
					}
					require.LessOrEqual(t, c.Len(), size)
				}
			}
			assert.Greater(t, stored, size, "the flood was served as well as room allows")
			for i := range inUse {
				_, ok := c.Get(mapcache.HostKey(0, addr4(i)))
				require.True(t, ok, "entry %d is gone", i)
			}
		})
	}
}

// An eviction takes the less-specific entries along, and what is in use protects
// the more-specific ones below.
func TestEvictionDoesNotRedirect(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{MaxEntries: 3},
		positive("10.0.0.0/8", "192.0.2.1", time.Hour),
		negative("10.1.0.0/16", lisp.ActionNativelyForward, time.Hour),
		positive("11.0.0.0/8", "192.0.2.1", time.Hour),
	)
	require.NoError(t, c.Insert(t0.Add(5*time.Minute), positive("12.0.0.0/8", "192.0.2.1", time.Hour)))
	assert.Equal(t, []string{"11.0.0.0/8", "12.0.0.0/8"}, keys(c))

	c = newCache(t, mapcache.Config{MaxEntries: 2},
		positive("10.0.0.0/8", "192.0.2.1", time.Hour),
		negative("10.1.0.0/16", lisp.ActionNativelyForward, time.Hour),
	)
	now := t0
	for ; now.Before(t0.Add(2 * time.Minute)); now = now.Add(time.Second) {
		c.Advance(now)
		forward(c, "10.2.0.1")
	}
	require.ErrorIs(t, c.Insert(now, positive("12.0.0.0/8", "192.0.2.1", time.Hour)), mapcache.ErrFull)

	// A static less-specific mapping says what to do with the rest.
	c = newCache(t, mapcache.Config{MaxEntries: 2},
		static("0.0.0.0/0", "192.0.2.9"), positive("10.1.0.0/16", "192.0.2.1", time.Hour))
	require.NoError(t, c.Insert(t0.Add(5*time.Minute), positive("12.0.0.0/8", "192.0.2.1", time.Hour)))
	assert.Equal(t, []string{"0.0.0.0/0", "12.0.0.0/8"}, keys(c))
}

// One eviction looks at a bounded number of entries, however many there are: looking
// takes note of the use.
func TestEvictionIsBounded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{500, 5_000} {
		c := mapcache.New(mapcache.Config{MaxEntries: n, MaxChanges: -1})
		for i := range n {
			require.NoError(t, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", time.Hour))))
		}
		c.Publish()
		for i := range n {
			c.View().Forward(0, addr4(i), 0)
		}
		require.NoError(t, c.Insert(t0, host(n, positive("10.0.0.0/32", "192.0.2.1", time.Hour))))
		examined := 0
		for e := range c.All() {
			if !e.LastUsed.IsZero() {
				examined++
			}
		}
		assert.Positive(t, examined)
		assert.LessOrEqual(t, examined, 128)
	}
}

func TestChangeListIsBounded(t *testing.T) {
	t.Parallel()
	c := mapcache.New(mapcache.Config{MaxChanges: 10})
	for i := range 25 {
		require.NoError(t, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", time.Hour))))
	}
	list := c.Changes()
	assert.LessOrEqual(t, len(list), 10)
	assert.Equal(t, uint64(25), list[len(list)-1].Seq, "the newest are kept")
	assert.Greater(t, list[0].Seq, uint64(1), "and the gap shows")

	c = mapcache.New(mapcache.Config{MaxChanges: -1})
	require.NoError(t, c.Insert(t0, positive("10.0.0.0/8", "192.0.2.1", time.Hour)))
	assert.Empty(t, c.Changes())
}
