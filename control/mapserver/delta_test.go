package mapserver

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// state is all of a server that must converge.
func state(t testing.TB, s *Server) []string {
	t.Helper()
	var all []string
	for d := range s.Snapshot() {
		b, err := d.MarshalBinary()
		require.NoError(t, err)
		all = append(all, string(b))
	}
	slices.Sort(all)
	return all
}

// traffic lets random xTRs register random EID-Prefixes at b: new ones, changed
// ones, refreshes, withdrawals, with and without xTR-ID and merging.
func traffic(b *bench, r *rand.Rand, n int, nonce *lisp.Nonce) {
	for range n {
		b.now = b.now.Add(time.Duration(r.IntN(4_000)) * time.Millisecond)
		b.s.Advance(b.now)
		ttl := uint32(1 + r.IntN(4))
		if r.IntN(6) == 0 {
			ttl = 0
		}
		eid := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(r.IntN(4))}), 24)
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + r.IntN(3))}), 4342)
		*nonce++
		opts := []registerOption{withNonce(*nonce)}
		if r.IntN(2) == 0 {
			opts = append(opts, withXTR(lisp.XTRID{15: byte(1 + r.IntN(3))}))
		}
		if r.IntN(3) == 0 {
			opts = append(opts, withMerge)
		}
		if r.IntN(3) == 0 {
			opts = append(opts, withTTL)
		}
		key := key1
		if r.IntN(5) == 0 {
			key = key1b
		}
		b.put(from, register(b.t, key, record(eid.String(), ttl, from.Addr().String()), opts...))
	}
}

// TestDeltasConverge: servers that exchange their changes in any order, some of
// them repeatedly, end up in the same state as a third one that hears only.
func TestDeltasConverge(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		var nonce lisp.Nonce
		var origins [2]*bench
		var changes []Delta
		for i := range origins {
			origins[i] = newBench(t, func(c *Config) { c.ID, c.Journal = uint64(i+1), 1<<16 })
			traffic(origins[i], r, 60, &nonce)
			ds, complete := origins[i].s.Changes()
			require.True(t, complete)
			changes = append(changes, ds...)
		}
		now := origins[0].now
		if origins[1].now.After(now) {
			now = origins[1].now
		}
		var want []string
		for i := range 5 {
			b := newBench(t)
			if i < len(origins) {
				b = origins[i]
			}
			b.now = now
			ds := slices.Concat(changes, changes[:r.IntN(len(changes))])
			r.Shuffle(len(ds), func(i, j int) { ds[i], ds[j] = ds[j], ds[i] })
			for _, d := range ds {
				_, err := b.s.Merge(b.now, d)
				require.NoError(t, err)
			}
			for _, d := range changes {
				changed, err := b.s.Merge(b.now, d)
				require.NoError(t, err)
				require.False(t, changed, "idempotent")
			}
			got := state(t, b.s)
			if i == 0 {
				want = got
				require.NotEmpty(t, want)
			}
			require.Equal(t, want, got, "seed %d server %d", seed, i)
		}
		// And they stay the same as time goes by.
		a, b := origins[0], origins[1]
		for range 20 {
			a.advance(30 * time.Second)
			b.advance(30 * time.Second)
			require.Equal(t, a.s.Registrations(a.now), b.s.Registrations(b.now), "seed %d", seed)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	for seed := range uint64(10) {
		a := newBench(t)
		var nonce lisp.Nonce
		traffic(a, rand.New(rand.NewPCG(seed, 2)), 100, &nonce)
		var buf bytes.Buffer
		require.NoError(t, a.s.Save(a.now, &buf))
		saved := buf.Bytes()
		for _, k := range []lisp.Key{key1, key1b, key2} {
			assert.NotContains(t, string(saved), string(k.Secret))
		}
		b := newBench(t)
		b.now = a.now
		used, skipped, err := b.s.Load(b.now, bytes.NewReader(saved))
		require.NoError(t, err)
		assert.Zero(t, skipped)
		assert.Equal(t, state(t, a.s), state(t, b.s))
		assert.Len(t, state(t, a.s), used)

		// Cut anywhere: what was whole is used.
		for range 50 {
			n := int(seed*7919) % len(saved)
			_, _, err = newBench(t).s.Load(b.now, bytes.NewReader(saved[:n]))
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
				require.NoError(t, err, n)
			}
			seed += 13
		}
		// A flipped bit is noticed.
		saved[len(saved)/2] ^= 4
		_, _, err = newBench(t).s.Load(b.now, bytes.NewReader(saved))
		assert.Error(t, err)
	}
}

// TestRestart: a restarted server answers at once, and still knows the nonces.
func TestRestart(t *testing.T) {
	strict := func(c *Config) { c.Sites[0].Replay = ReplayStrict }
	a := newBench(t, strict)
	old := register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withProxy)
	require.Len(t, a.put(etr1, old), 1)
	require.Len(t, a.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr1), withProxy)), 1)
	var buf bytes.Buffer
	require.NoError(t, a.s.Save(a.now, &buf))

	b := newBench(t, strict)
	b.now = a.now.Add(time.Minute)
	_, _, err := b.s.Load(b.now, &buf)
	require.NoError(t, err)
	r := wantReplyOf(t, b, "10.1.2.3")
	assert.Equal(t, []string{"192.0.2.12"}, rlocsOf(r.Locators))
	b.events()
	assert.Empty(t, b.put(etr1, old))
	assert.Equal(t, ReasonReplay, b.lastReason()) // RFC 9301-5.6-6: saved in persistent storage
	b.advance(2 * time.Minute)
	assert.Empty(t, b.s.Registrations(b.now), "the lifetime goes on")
}

func TestLoadSkipsWhatIsNoLongerConfigured(t *testing.T) {
	a := newBench(t)
	require.Len(t, a.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
	require.Len(t, a.put(etr1, register(t, key2, record("10.128.0.0/16", 10, "192.0.2.11"))), 1)
	var buf bytes.Buffer
	require.NoError(t, a.s.Save(a.now, &buf))
	b := newBench(t, func(c *Config) { c.Sites = c.Sites[1:] })
	used, skipped, err := b.s.Load(a.now, &buf)
	require.NoError(t, err)
	assert.Equal(t, 1, used)
	assert.Equal(t, 1, skipped)
}

func TestMergeRefuses(t *testing.T) {
	a := newBench(t, func(c *Config) { c.Journal = 1 })
	require.Len(t, a.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
	require.Len(t, a.put(etr1, register(t, key1, record("10.2.0.0/16", 10, "192.0.2.11"))), 1)
	ds, complete := a.s.Changes()
	assert.False(t, complete, "the journal was too small")
	require.Len(t, ds, 1)
	ds2, complete := a.s.Changes()
	assert.True(t, complete)
	assert.Empty(t, ds2)
	good := ds[0]
	assert.Contains(t, good.String(), "10.1.0.0/16")
	rec, err := good.EIDRecord()
	require.NoError(t, err)
	assert.Equal(t, record("10.1.0.0/16", 10, "192.0.2.11"), rec)
	for name, change := range map[string]func(*Delta){
		"site":         func(d *Delta) { d.Site = "z" },
		"other site":   func(d *Delta) { d.Site = "b" },
		"instance":     func(d *Delta) { d.IID = 9 },
		"no prefix":    func(d *Delta) { d.EID = netip.Prefix{} },
		"host bits":    func(d *Delta) { d.EID = netip.MustParsePrefix("10.1.2.3/16") },
		"other prefix": func(d *Delta) { d.EID = netip.MustParsePrefix("10.2.0.0/16") },
		"record":       func(d *Delta) { d.Record = d.Record[:5] },
		"two records":  func(d *Delta) { d.Record = append(slices.Clone(d.Record), d.Record...) },
	} {
		d := good
		change(&d)
		b := newBench(t)
		_, err := b.s.Merge(b.now, d)
		assert.ErrorIs(t, err, ErrDelta, name)
		assert.Empty(t, state(t, b.s))
		assert.Zero(t, b.s.xtrs.len(), name)
	}
	b := newBench(t, func(c *Config) { c.MaxRegistrations = 1 })
	_, err = b.s.Merge(b.now, good)
	require.NoError(t, err)
	next := good
	next.XTRID = xtr1
	_, err = b.s.Merge(b.now, next)
	assert.ErrorIs(t, err, ErrDelta)
}

func FuzzDelta(f *testing.F) {
	a := newBench(f)
	a.put(etr1, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.11")))
	a.put(etr1, register(f, key2, record("2001:db8:b:1::/64", 10, "2001:db8::11"), withXTR(xtr1), withMerge))
	for d := range a.s.Snapshot() {
		b, err := d.MarshalBinary()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Delta
		if d.UnmarshalBinary(b) != nil {
			return
		}
		again, err := d.MarshalBinary()
		require.NoError(t, err)
		var e Delta
		require.NoError(t, e.UnmarshalBinary(again))
		s := newBench(t)
		if _, err := s.s.Merge(s.now, d); err != nil {
			require.ErrorIs(t, err, ErrDelta)
			return
		}
		changed, err := s.s.Merge(s.now, e)
		require.NoError(t, err)
		require.False(t, changed)
		s.s.Registrations(s.now)
		for range 100 {
			next := s.s.Deadline()
			if next.IsZero() {
				break
			}
			s.s.Advance(next)
		}
	})
}

// TestMergeKeepsTheNewestNonce: Deltas that arrive in the wrong order don't open
// the door for replays.
func TestMergeKeepsTheNewestNonce(t *testing.T) {
	strict := func(c *Config) { c.Sites[0].Replay, c.Journal = ReplayStrict, 100 }
	a := newBench(t, strict)
	put := func(b *bench, eid string, n lisp.Nonce) int {
		return len(b.put(etr1, register(t, key1, record(eid, 10, "192.0.2.11"), withXTR(xtr1), withNonce(n))))
	}
	require.Equal(t, 1, put(a, "10.1.0.0/16", 10))
	require.Equal(t, 1, put(a, "10.2.0.0/16", 20))
	ds, _ := a.s.Changes()
	slices.Reverse(ds)
	b := newBench(t, strict)
	for _, d := range ds {
		changed, err := b.s.Merge(b.now, d)
		require.NoError(t, err)
		assert.True(t, changed)
	}
	assert.Zero(t, put(b, "10.3.0.0/16", 15))
	assert.Equal(t, 1, put(b, "10.3.0.0/16", 21))
}
