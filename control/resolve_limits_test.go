package control

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

func TestMissFlood(t *testing.T) {
	tc := up(t, quiet, func(c *Config) { c.MaxPending = 100; c.MapRequestRate = 50 })
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 10, peerRLOC))
	take[*lisp.MapRequest](tc)
	n := 0
	for sec := range 10 {
		for i := range 200 {
			tc.resolve(mapcache.HostKey(0, netip.AddrFrom4([4]byte{100, byte(sec), byte(i >> 8), byte(i)})))
		}
		tc.advance(time.Second)
		n += len(take[*lisp.MapRequest](tc))
		assert.LessOrEqual(t, tc.e.Stats().Pending, 100)
	}
	assert.LessOrEqual(t, n, 50*11)
	assert.LessOrEqual(t, len(tc.e.requests), 1100)
	assert.NotZero(t, tc.e.Stats().Dropped[DropPendingFull])
	assert.NotZero(t, tc.e.Stats().Dropped[DropMapRequestRate])
	// A refresh still finds room.
	tc.advance(time.Second)
	tc.e.refresh(tc.now, key("198.51.100.0/24"), reasons{})
	tc.drain()
	found := false
	for range 20 {
		tc.advance(time.Second)
		for _, s := range take[*lisp.MapRequest](tc) {
			found = found || s.msg.(*lisp.MapRequest).Records[0].MaskLen == 24
		}
	}
	assert.True(t, found)
	assert.LessOrEqual(t, len(eventsOf[Dropped](tc)), 200, "drops are reported a few a second")
}

func TestResolveNeedsLocals(t *testing.T) {
	tc := newTester(t, quiet)
	tc.resolve(hostKey(peerEID))
	tc.advance(3 * time.Second)
	assert.Empty(t, tc.sent)
	assert.NotZero(t, tc.e.Stats().Dropped[DropNoLocal])
	tc.setLocals(locals()...)
	tc.advance(0)
	_, m := one[*lisp.MapRequest](tc)
	assert.Equal(t, "[203.0.113.1 2001:db8:ffff::1]", fmt.Sprint(m.ITRRLOCs))

	// New locators make what is under way be asked again, a second apart.
	tc.advance(200 * time.Millisecond)
	tc.setLocals(mapcache.Local{Addr: netip.MustParseAddr("203.0.113.50"), Up: true})
	tc.advance(time.Second)
	s, m := one[*lisp.MapRequest](tc)
	assert.Equal(t, "[203.0.113.50]", fmt.Sprint(m.ITRRLOCs))
	assert.Equal(t, "203.0.113.50:4342", s.Local.String())
}

// TestResolveForgetsWithoutLocals: what cannot be asked for is not tried for
// ever. It fails like what is not answered, and then costs nothing any more.
func TestResolveForgetsWithoutLocals(t *testing.T) {
	tc := newTester(t, quiet)
	tc.resolve(hostKey(peerEID))
	tc.advance(2 * time.Minute)
	assert.Len(t, eventsOf[ResolutionFailed](tc), 1)
	assert.Empty(t, tc.e.pending)
	assert.True(t, tc.e.Deadline().IsZero(), "nothing left to do")
	assert.Empty(t, tc.sent)

	tc.setLocals(locals()...)
	tc.advance(0)
	tc.resolve(hostKey(peerEID))
	one[*lisp.MapRequest](tc)
}

func TestStaticMappings(t *testing.T) {
	static := mapcache.Mapping{Key: key("198.51.100.0/24"), RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.99")}}}}
	tc := up(t, quiet, func(c *Config) { c.StaticMappings = []mapcache.Mapping{static} })
	assert.Equal(t, "203.0.113.99", tc.forward(peerEID.Addr()).Locator.Addr.String())
	tc.advance(100 * time.Hour)
	assert.Equal(t, "203.0.113.99", tc.forward(peerEID.Addr()).Locator.Addr.String())
	// What is learned does not replace it.
	tc.e.request(tc.now, hostKey(peerEID), hostKey(peerEID), reasons{})
	tc.drain()
	_, m := one[*lisp.MapRequest](tc)
	require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 10, peerRLOC)))
	assert.Equal(t, "203.0.113.99", tc.forward(peerEID.Addr()).Locator.Addr.String())
}

// TestClock: a clock that is set back or ahead shortens no interval, and nothing
// waits for it to catch up.
func TestClock(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, -24 * 365 * time.Hour, 24 * time.Hour} {
		tc := up(t, func(c *Config) { c.Probe.Interval = -1 })
		tc.ackAll()
		tc.advance(time.Hour)
		tc.ackAll()
		tc.advance(30 * time.Second)
		tc.resolve(hostKey(peerEID))
		one[*lisp.MapRequest](tc)

		tc.now = tc.now.Add(jump)
		tc.e.Advance(tc.now)
		tc.drain()
		if jump < 0 {
			assert.Empty(t, take[*lisp.MapRequest](tc)) // RFC 9301-5.3-5
		}
		assert.WithinDuration(t, tc.now, tc.e.Deadline(), 3*time.Second, "%v", jump)
		take[*lisp.MapRequest](tc)
		var last time.Time
		registers := 0
		for range 300 {
			tc.advance(time.Second)
			for _, s := range take[*lisp.MapRequest](tc) {
				if !last.IsZero() {
					assert.GreaterOrEqual(t, s.at.Sub(last), time.Second) // RFC 9301-5.3-5
				}
				last = s.at
			}
			registers += len(tc.registers())
		}
		assert.False(t, last.IsZero())
		assert.InDelta(t, 6, registers, 3, "%v: as ever", jump)
	}
	// What comes a little out of order is no such thing.
	tc := up(t, quiet)
	tc.advance(time.Minute)
	tc.e.Advance(tc.now)
	tc.e.SetLocals(tc.now.Add(-time.Second), locals()[:1])
	assert.Zero(t, tc.e.skew)
}

func TestQueueLimits(t *testing.T) {
	tc := up(t, quiet, func(c *Config) { c.MaxPending = 20000; c.MapRequestRate = 20000 })
	var keys []mapcache.Key
	for i := range 10000 {
		keys = append(keys, mapcache.HostKey(0, netip.AddrFrom4([4]byte{100, 1, byte(i >> 8), byte(i)})))
	}
	tc.e.Resolve(tc.now, keys)
	assert.Equal(t, uint64(10000-maxQueue), tc.e.Stats().Dropped[DropQueueFull])
	assert.NotZero(t, tc.e.Stats().EventsLost)
	tc.events = nil
	tc.drain()
	assert.LessOrEqual(t, len(tc.events), maxEvents)
	assert.Equal(t, maxQueue, len(tc.sent))
}
