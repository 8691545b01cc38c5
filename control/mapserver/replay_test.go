package mapserver

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func TestDuplicateRegisterGetsTheSameNotify(t *testing.T) {
	for _, mode := range []ReplayMode{ReplayAuto, ReplayStrict, ReplayOff} {
		b := newBench(t, func(c *Config) { c.Sites[0].Replay = mode })
		msg := register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))
		first := b.put(etr1, msg)
		require.Len(t, first, 1)
		b.events()
		b.advance(time.Minute)
		assert.Equal(t, first, b.put(etr1, msg), "its Map-Notify was lost") // RFC 9301-5.7-1
		es := b.events()
		require.Len(t, es, 1)
		assert.Equal(t, ChangeDuplicate, es[0].(Registered).Change)
		assert.EqualValues(t, 1, b.s.Stats().Duplicates)
		// It changes nothing, not even the lifetime.
		b.advance(2 * time.Minute)
		assert.Empty(t, b.s.Registrations(b.now), mode)
	}
}

func TestRepetitionIsRateLimited(t *testing.T) {
	b := newBench(t, func(c *Config) { c.RatePerSource = 5 })
	msg := register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))
	sent := 0
	for range 100 {
		sent += len(b.put(etr1, msg))
	}
	assert.LessOrEqual(t, sent, 6)
}

// TestReplay: RFC 9301-5.6-6, 9301-5.6-7.
func TestReplay(t *testing.T) {
	hkdf := key1b
	for name, tc := range map[string]struct {
		mode   ReplayMode
		key    lisp.Key
		xtr    lisp.XTRID
		nonces []lisp.Nonce // accepted in this order
		then   lisp.Nonce
		reason Reason // NumReasons: accepted
	}{
		"auto, no xTR-ID":           {ReplayAuto, key1, lisp.XTRID{}, seq(100, 20, 1), 50, NumReasons},
		"auto, few":                 {ReplayAuto, key1, xtr1, seq(100, 10, 1), 50, NumReasons},
		"auto, counting":            {ReplayAuto, key1, xtr1, seq(100, 11, 1), 50, ReasonReplay},
		"auto, counting, gap":       {ReplayAuto, key1, xtr1, append(seq(100, 11, 1), 200, 201), 150, ReasonReplay},
		"auto, several Map-Servers": {ReplayAuto, key1, xtr1, seq(100, 11, 3), 50, ReasonReplay},
		"auto, the largest steps":   {ReplayAuto, key1, xtr1, seq(100, 11, countingStep), 50, ReasonReplay},
		"auto, larger steps":        {ReplayAuto, key1, xtr1, seq(100, 11, countingStep+1), 50, NumReasons},
		"auto, random":              {ReplayAuto, key1, xtr1, []lisp.Nonce{9, 3, 7, 1, 8, 5, 2, 6, 4, 99, 55, 77}, 50, NumReasons},
		"auto, all zero-like":       {ReplayAuto, key1, xtr1, []lisp.Nonce{5}, 5, NumReasons},
		"auto, algorithm 3":         {ReplayAuto, hkdf, xtr1, []lisp.Nonce{100}, 99, ReasonReplay},
		"auto, algorithm 3, equal":  {ReplayAuto, hkdf, xtr1, []lisp.Nonce{100}, 100, ReasonReplay},
		"strict":                    {ReplayStrict, key1, xtr1, []lisp.Nonce{100}, 99, ReasonReplay},
		"strict, higher":            {ReplayStrict, key1, xtr1, []lisp.Nonce{100}, 1000, NumReasons},
		"strict, without an xTR-ID": {ReplayStrict, key1, lisp.XTRID{}, []lisp.Nonce{100}, 99, ReasonReplay},
		"off":                       {ReplayOff, hkdf, xtr1, seq(100, 20, 1), 50, NumReasons},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.Sites[0].Replay = tc.mode })
			weight := uint8(0)
			put := func(n lisp.Nonce) []lisp.Datagram {
				weight++ // no two messages are equal
				r := record("10.1.0.0/16", 10, "192.0.2.11")
				r.Locators[0].Weight = weight
				opts := []registerOption{withNonce(n)}
				if tc.xtr != (lisp.XTRID{}) {
					opts = append(opts, withXTR(tc.xtr))
				}
				return b.put(etr1, register(t, tc.key, r, opts...))
			}
			for _, n := range tc.nonces {
				require.Len(t, put(n), 1, n)
			}
			b.events()
			out := put(tc.then)
			if tc.reason == NumReasons {
				assert.Len(t, out, 1)
				return
			}
			assert.Empty(t, out, "no Map-Notify")
			assert.Equal(t, tc.reason, b.lastReason())
			regs := b.s.Registrations(b.now)
			require.Len(t, regs, 1)
			assert.EqualValues(t, weight-1, regs[0].RLOCs[0].Weight, "unchanged")
		})
	}
}

func seq(first lisp.Nonce, n int, step lisp.Nonce) []lisp.Nonce {
	s := make([]lisp.Nonce, n)
	for i := range s {
		s[i] = first + lisp.Nonce(i)*step
	}
	return s
}

// TestRestartOfACountingXTR: it lost its nonce; it is refused at first, and let
// in when its old registration is over. One with Algorithm 3 never is.
func TestRestartOfACountingXTR(t *testing.T) {
	for _, tc := range []struct {
		key     lisp.Key
		forever bool
	}{{key1, false}, {key1b, true}} {
		b := newBench(t)
		put := func(n lisp.Nonce) bool {
			return len(b.put(etr1, register(t, tc.key, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withNonce(n)))) > 0
		}
		for _, n := range seq(1000, 12, 1) {
			require.True(t, put(n))
		}
		b.advance(time.Minute)
		assert.False(t, put(1))
		b.advance(3 * time.Minute)
		assert.Equal(t, !tc.forever, put(2))
		assert.Equal(t, !tc.forever, put(3))
		b.advance(24 * time.Hour)
		assert.Equal(t, !tc.forever, put(1))
		assert.True(t, put(5000))
	}
}

// TestRelaxationIsLogged: by the replay and by letting off after a restart.
func TestRelaxationIsLogged(t *testing.T) {
	var log strings.Builder
	b := newBench(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	put := func(n lisp.Nonce) {
		b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withNonce(n)))
	}
	for _, n := range seq(100, 12, 1) {
		put(n)
	}
	assert.NotContains(t, log.String(), "nonce")
	put(3)
	assert.Contains(t, log.String(), "possibly replayed") // RFC 9301-5.6-7
	assert.NotContains(t, log.String(), "no longer enforced")
	b.advance(3 * time.Minute)
	put(3)
	assert.Contains(t, log.String(), "no longer enforced")
	assert.NotContains(t, log.String(), string(key1.Secret))
	put(2) // it has to count again first
	assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(b.s.Registrations(b.now)[0].RLOCs))
	assert.EqualValues(t, 1, b.s.Stats().Dropped[ReasonReplay])
}

// TestReorderedRegistersOfACountingXTR: nothing older than the newest counts
// once it is seen to count; one that doesn't count can't be helped.
func TestReorderedRegistersOfACountingXTR(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxNotifies = -1 })
	put := func(n lisp.Nonce, rloc string) int {
		return len(b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, rloc), withXTR(xtr1), withNonce(n))))
	}
	for _, n := range seq(100, 12, 1) {
		require.Equal(t, 1, put(n, "192.0.2.11"))
	}
	assert.Equal(t, 1, put(115, "192.0.2.13")) // some are still on the way
	assert.Zero(t, put(113, "192.0.2.12"))
	assert.Zero(t, put(114, "192.0.2.12"))
	assert.Equal(t, 1, put(116, "192.0.2.13"))
	assert.Equal(t, []string{"192.0.2.13"}, rlocsOf(b.s.Registrations(b.now)[0].RLOCs))
}

// TestReorderedRegisters of a peer that counts: the late one is refused, the
// newest stays.
func TestReorderedRegisters(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Sites[0].Replay = ReplayStrict })
	one := register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withNonce(1))
	two := register(t, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr1), withNonce(2))
	require.Len(t, b.put(etr1, two), 1)
	assert.Empty(t, b.put(etr1, one))
	assert.Equal(t, []string{"192.0.2.12"}, rlocsOf(b.s.Registrations(b.now)[0].RLOCs))
	assert.Len(t, b.put(etr1, two), 1, "a repetition is answered all the same")
}

func TestOnlyTheLastRegistersAreRemembered(t *testing.T) {
	b := newBench(t)
	first := register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))
	require.Len(t, b.put(etr1, first), 1)
	for range 31 {
		b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11")))
	}
	b.put(etr1, first)
	assert.EqualValues(t, 1, b.s.Stats().Duplicates)
	b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11")))
	b.put(etr1, first)
	assert.EqualValues(t, 1, b.s.Stats().Duplicates)
	for x := range b.s.xtrs.all() {
		assert.EqualValues(t, recentRegisters, x.count)
	}
}

// TestIdleXTRsAreBounded: a site that makes up xTR-IDs takes no room from
// others, and keeps the nonces of xTRs that have something registered.
func TestIdleXTRsAreBounded(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Sites[0].Replay = ReplayStrict })
	const extra = 100
	var last []byte
	for i := range maxIdle + maxClaimsPerEID + extra {
		x := lisp.XTRID{byte(i >> 8), byte(i), 1}
		last = register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(x), withNonce(lisp.Nonce(i+10)))
		b.put(etr1, last)
		b.advance(time.Millisecond)
	}
	assert.LessOrEqual(t, b.s.xtrs.len(), maxIdle+maxClaimsPerEID)
	assert.Greater(t, b.s.xtrs.len(), maxIdle/2)
	idle := 0
	for x := range b.s.xtrs.all() {
		if x.idle {
			idle++
			assert.Zero(t, x.claims)
		}
	}
	assert.Equal(t, idle, b.s.set().sites["a"].idle)

	// The newest is still protected against a replay with an older nonce.
	x := lisp.XTRID{byte((maxIdle + maxClaimsPerEID + extra - 1) >> 8), byte((maxIdle + maxClaimsPerEID + extra - 1) & 0xff), 1}
	assert.Empty(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.66"), withXTR(x), withNonce(1))))
}

func TestVersionOlder(t *testing.T) {
	for _, tc := range []struct {
		v, than uint16
		older   bool
	}{
		{1, 2, true},
		{2, 1, false},
		{2, 2, false},
		{0, 2, false},
		{2, 0, false},
		{4095, 1, true},
		{1, 4095, false},
		{69, 69 + 2048, true},
		{69 + 2048, 69, false},
		{69 + 2049, 69, true},
	} {
		assert.Equal(t, tc.older, versionOlder(tc.v, tc.than), "%d %d", tc.v, tc.than)
	}
}
