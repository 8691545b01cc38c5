package mapserver

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestRefreshIsThatOfTheLongWay: what handleRefresh takes on, handleRegister
// would have answered with the same octets and the same state; the rest it leaves.
func TestRefreshIsThatOfTheLongWay(t *testing.T) {
	two := func(m *lisp.MapRegister) {
		m.Records = append(m.Records, record("10.2.0.0/16", 10, "192.0.2.11", "2001:db8::11"))
	}
	otherSite := func(m *lisp.MapRegister) {
		m.Records = append(m.Records, record("2001:db8:b:1::/64", 10, "192.0.2.11"))
	}
	both := func(c *Config) {
		c.Sites[1].Keys = append(c.Sites[1].Keys, lisp.Key{ID: key1.ID, Algorithm: key1.Algorithm, Secret: key1.Secret})
	}
	truncated := key1
	truncated.Truncate = true
	short := key2
	short.Truncate = true
	for name, tc := range map[string]struct {
		key  lisp.Key
		rec  lisp.EIDRecord
		opts []registerOption
		fast bool
	}{
		"plain":            {key1, record("10.1.0.0/16", 10, "192.0.2.11"), nil, true},
		"host bits":        {key1, record("10.1.2.3/16", 10, "192.0.2.11"), nil, true},
		"truncated digest": {truncated, record("10.1.0.0/16", 10, "192.0.2.11"), nil, true},
		"sha-1":            {key2, record("10.128.0.0/16", 10, "192.0.2.11"), nil, true},
		"short sha-1":      {short, record("10.128.0.0/16", 10, "192.0.2.11"), nil, true},
		"hkdf":             {key1b, record("10.1.0.0/16", 10, "192.0.2.11"), nil, true},
		"xtr-id":           {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{withXTR(xtr1)}, true},
		"xtr-id of zeros":  {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{withXTR(lisp.XTRID{})}, false},
		"flags":            {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{withProxy, withMerge, withTTL}, true},
		"no notify":        {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{withoutNotify}, true},
		"ipv6":             {key2, record("2001:db8:b:1::/64", 10, "2001:db8::11"), nil, true},
		"instance":         {key1, iidRecord(7, "172.16.0.0/16", 10, "192.0.2.11"), nil, true},
		"no locator":       {key1, record("10.1.0.0/16", 10), nil, true},
		"two records":      {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{two}, true},
		"two sites":        {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{otherSite}, false},
		"reserved bits":    {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{func(m *lisp.MapRegister) { m.Reserved = 1 }}, false},
		"trailer":          {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{func(m *lisp.MapRegister) { m.Trailer = []byte{1} }}, false},
		"withdrawn":        {key1, record("10.1.0.0/16", 0, "192.0.2.11"), nil, false},
		"record changed":   {key1, record("10.1.0.0/16", 10, "192.0.2.11"), []registerOption{func(m *lisp.MapRegister) { m.Records[0].TTL = 10 + uint32(m.Nonce/1000%2) }}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newBench(t, both), newBench(t, both)
			first := register(t, tc.key, tc.rec, tc.opts...)
			require.Equal(t, a.put(etr1, first), b.put(etr1, first))
			a.events()
			msg := register(t, tc.key, tc.rec, tc.opts...)
			d := lisp.Datagram{Local: msAddr, Remote: etr1, IfIndex: 3, Bytes: msg}

			// Straight to the long way.
			w := b.s.worker
			w.Handle(b.now, lisp.Datagram{}) // which clears it and takes the time
			w.takeApart(d)
			long := w.result
			require.NotNil(t, long.Update)
			longOut := append([]lisp.Datagram(nil), long.Out...)
			b.s.Apply(b.now, long.Update)

			w = a.s.worker
			w.Handle(a.now, lisp.Datagram{})
			require.Equal(t, tc.fast, w.handleRefresh(d))
			if !tc.fast {
				assert.Nil(t, w.result.Update)
				assert.Empty(t, w.result.Out)
				assert.EqualValues(t, 1, a.s.Stats().Registers, "not counted twice")
				return
			}
			assert.Equal(t, longOut, w.result.Out)
			a.s.Apply(a.now, w.result.Update)
			assert.Equal(t, b.s.Stats(), a.s.Stats())
			assert.Equal(t, b.s.Registrations(b.now), a.s.Registrations(a.now))
			assert.Equal(t, state(t, b.s), state(t, a.s))
		})
	}
}

// TestRefreshOfStrangers: what is not signed, not newer, from elsewhere or for
// something else is left to the long way, which refuses it or takes it as a change.
func TestRefreshOfStrangers(t *testing.T) {
	b := newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))), 1)
	good := register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))
	fast := func(msg []byte) bool {
		w := b.s.worker
		w.Handle(b.now, lisp.Datagram{})
		return w.handleRefresh(lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: msg})
	}
	for i := range good {
		msg := append([]byte(nil), good...)
		msg[i] ^= 1
		require.False(t, fast(msg), "octet %d", i)
		require.False(t, fast(good[:i]), "cut at %d", i)
	}
	w := b.s.worker
	w.Handle(b.now, lisp.Datagram{})
	assert.False(t, w.handleRefresh(lisp.Datagram{Local: msAddr, Remote: etr2, Bytes: good}), "another source")
	assert.True(t, fast(good))
	assert.False(t, fast(good), "the same again, before the first is applied")
	assert.False(t, fast(register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withNonce(1))), "an old nonce")
	b.advance(4 * b.s.cfg.RegisterTimeout)
	assert.False(t, fast(register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))), "expired")
}

// TestRefreshAllocatesNothing, verification, Map-Notify and stamp included.
func TestRefreshAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, key := range []lisp.Key{key1, key2} {
		b := newBench(t, func(c *Config) { c.EventBuffer = -1 })
		rec := record("10.1.0.0/16", 10, "192.0.2.11")
		if key.Algorithm == lisp.AlgorithmHMACSHA1 {
			rec = record("10.128.0.0/16", 10, "192.0.2.11")
		}
		const runs = 200
		msgs := make([][]byte, 0, 2*runs)
		for range cap(msgs) {
			msgs = append(msgs, register(t, key, rec, withXTR(xtr1)))
		}
		next := func() {
			b.s.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: msgs[0]})
			msgs = msgs[1:]
			n := 0
			for _, ok := b.s.Next(); ok; _, ok = b.s.Next() {
				n++
			}
			if n != 1 {
				panic("no map-notify")
			}
		}
		for range runs / 2 {
			next()
		}
		assert.Zero(t, testing.AllocsPerRun(runs, next), "%v", key)
		assert.EqualValues(t, 1, b.s.Stats().Accepted-b.s.Stats().Refreshes)
	}
}
