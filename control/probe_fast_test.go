package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestProbeFast: a path in use is found down in less than a second, one that is
// idle is probed as ever, and so is one that is no longer used.
func TestProbeFast(t *testing.T) {
	idle := netip.MustParseAddr("203.0.113.3")
	tc := up(t, prober, func(c *Config) { c.Probe.Fast = 200 * time.Millisecond })
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	other := record("198.51.101.0/24", 1440, idle)
	tc.learn(hostKey(peerEID), rec)
	tc.learn(key("198.51.101.1/32"), other)
	dead := false
	count := make(map[netip.Addr]int)
	run := func(d time.Duration, used bool) {
		clear(count)
		for end := tc.now.Add(d); tc.now.Before(end); {
			if used && tc.now.Sub(start)%(5*time.Second) == 0 {
				tc.used(peerRLOC)
			}
			tc.advance(10 * time.Millisecond)
			for _, s := range tc.probes() {
				count[s.Remote.Addr()]++
				if !dead && s.Remote.Addr() == peerRLOC {
					tc.answerProbe(s, rec)
				} else if !dead {
					tc.answerProbe(s, other)
				}
			}
		}
	}
	run(time.Minute, false)
	assert.LessOrEqual(t, count[peerRLOC], 3)
	run(time.Minute, true)
	assert.InDelta(t, 300, count[peerRLOC], 35) // jittered by a tenth
	assert.LessOrEqual(t, count[idle], 3)

	require.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	dead = true
	failed := tc.now
	for tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}) && tc.now.Sub(failed) < 5*time.Second {
		run(10*time.Millisecond, false)
	}
	assert.Less(t, tc.now.Sub(failed), time.Second)

	dead = false
	run(30*time.Second, false)
	assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	run(time.Minute, false)
	assert.LessOrEqual(t, count[peerRLOC], 3, "no longer used")
}

// TestProbeFastSlowPath: twice the round-trip time is waited for, however fast.
func TestProbeFastSlowPath(t *testing.T) {
	tc := up(t, prober, func(c *Config) { c.Probe.Fast = 100 * time.Millisecond })
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	for range 40 {
		tc.used(peerRLOC)
		tc.advance(350 * time.Millisecond)
		for _, s := range tc.probes() {
			if d := s.at.Add(350 * time.Millisecond).Sub(tc.now); d > 0 {
				tc.advance(d)
			}
			tc.answerProbe(s, rec)
		}
	}
	assert.Empty(t, eventsOf[ProbeDown](tc))
}

// TestProbeExclude: a locator can be left out by its address; it stays usable.
func TestProbeExclude(t *testing.T) {
	tc := up(t, prober, func(c *Config) { c.Probe.Exclude = []netip.Prefix{netip.MustParsePrefix("203.0.113.2/31")} })
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC, netip.MustParseAddr("203.0.113.9")))
	require.Len(t, tc.e.Paths(), 1)
	assert.Equal(t, "203.0.113.9", tc.e.Paths()[0].Locator.Addr.String())
	tc.advance(10 * time.Minute)
	for _, s := range tc.probes() {
		assert.NotEqual(t, peerRLOC, s.Remote.Addr())
	}
	assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	assert.False(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.9")}))
}

// TestProbeLoss: what Paths tells of round-trip time and loss.
func TestProbeLoss(t *testing.T) {
	tc := up(t, prober)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	sent, answered := 0, 0
	for range 600 {
		tc.advance(time.Second / 2)
		for _, s := range tc.probes() {
			if sent++; sent%3 != 0 {
				tc.advance(s.at.Add(520 * time.Millisecond).Sub(tc.now))
				tc.answerProbe(s, rec)
				answered++
			}
		}
	}
	p := tc.e.Paths()[0]
	assert.Equal(t, uint64(sent), p.Sent)
	assert.Equal(t, uint64(answered), p.Answered)
	assert.Less(t, answered, sent)
	assert.InDelta(t, 520, p.RTT.Milliseconds(), 20)
	assert.False(t, p.Down)
}
