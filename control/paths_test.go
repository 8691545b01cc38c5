package control

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// pairRanks takes what a PairPlane is to be told, as one that keeps it.
func (tc *tester) pairRanks(known map[string]uint8) map[string]uint8 {
	tc.t.Helper()
	changes := tc.e.PairChanges()
	assert.True(tc.t, slices.IsSortedFunc(changes, func(a, b mapcache.Pair) int { return compareLocators(a.Remote, b.Remote) }))
	for _, p := range changes {
		k := p.Local.String() + ">" + p.Remote.Addr.String()
		assert.NotEqual(tc.t, known[k], p.Rank, "%s: only what has changed", k)
		known[k] = p.Rank
		if p.Rank == 0 {
			delete(known, k)
		}
	}
	assert.Empty(tc.t, tc.e.PairChanges(), "told once")
	return known
}

// TestPairDown: one peer does not answer the better uplink. The pair is avoided,
// and neither the peer nor the uplink counts as down.
func TestPairDown(t *testing.T) {
	tc, recs := silence(t)
	known := map[string]uint8{}
	tc.run(5*time.Minute, everyPath, recs)
	assert.Empty(t, tc.pairRanks(known))
	one := func(local, peer netip.Addr) bool { return peer != peerRLOC || local == secondUplink }
	tc.run(2*time.Minute, one, recs)
	assert.Equal(t, map[string]uint8{"203.0.113.60>203.0.113.2": mapcache.PairDown}, tc.pairRanks(known))
	assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	assert.Len(t, tc.upLocals(), 2)
	tc.run(time.Minute, everyPath, recs)
	assert.Empty(t, tc.pairRanks(known))

	// What goes away is forgotten, also if nobody was told.
	tc.run(2*time.Minute, one, recs)
	require.NotEmpty(t, tc.e.pairs.dirty)
	tc.setLocals(twoUplinks()[1:]...)
	assert.Empty(t, tc.pairRanks(known))
	assert.Empty(t, tc.e.pairs.dirty)
	tc.setLocals(twoUplinks()...)
	tc.run(2*time.Minute, one, recs)
	require.Len(t, tc.pairRanks(known), 1)
	require.True(t, tc.e.Cache().Remove(tc.now, key("198.51.100.0/24")))
	tc.run(time.Minute, one, recs)
	assert.Empty(t, tc.pairRanks(known))
	assert.Empty(t, tc.e.pairs.told)
}

// onePeer is a node with two uplinks, a Map-Server and one peer.
func onePeer(t *testing.T) *tester {
	tc := up(t)
	tc.e.PairChanges() // as a Runner with a PairPlane
	tc.setLocals(twoUplinks()...)
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
	return tc
}

// runPeer steps the node for a time, in which the peer and the Map-Server answer
// what alive lets through.
func (tc *tester) runPeer(d time.Duration, alive func(local, remote netip.Addr) bool) {
	tc.t.Helper()
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	for end := tc.now.Add(d); tc.now.Before(end); {
		step := end.Sub(tc.now)
		if next := tc.e.Deadline(); !next.IsZero() {
			step = min(step, max(next.Sub(tc.now), time.Microsecond))
		}
		tc.advance(step)
		for _, s := range tc.probes() {
			if alive(s.Local.Addr(), s.Remote.Addr()) {
				require.True(tc.t, tc.answerProbe(s, rec))
			}
		}
		for _, s := range take[*lisp.MapRegister](tc) {
			if alive(s.Local.Addr(), s.Remote.Addr()) {
				require.True(tc.t, tc.notify(s.msg.(*lisp.MapRegister), testKey))
			}
		}
	}
}

// TestSilentOnlyForThePeer: the only peer that is known does not answer the better
// uplink. The Map-Server, which is asked, does: the uplink is fine.
func TestSilentOnlyForThePeer(t *testing.T) {
	tc := onePeer(t)
	tc.runPeer(6*time.Minute, everyPath)
	before := tc.e.Stats().MapRegistersSent
	tc.runPeer(75*time.Second, func(local, remote netip.Addr) bool { return remote != peerRLOC || local == secondUplink })
	assert.Empty(t, eventsOf[LocatorSilent](tc))
	assert.Len(t, tc.upLocals(), 2)
	assert.Equal(t, map[string]uint8{"203.0.113.60>203.0.113.2": mapcache.PairDown}, tc.pairRanks(map[string]uint8{}))
	assert.InDelta(t, 2, tc.e.Stats().MapRegistersSent-before, 1, "asked once, and the usual one a minute")
	tc.runPeer(10*time.Minute, func(local, remote netip.Addr) bool { return remote != peerRLOC || local == secondUplink })
	assert.Empty(t, eventsOf[LocatorSilent](tc))
	assert.LessOrEqual(t, tc.e.Stats().MapRegistersSent-before, uint64(14), "the usual ones")
}

// TestSilentWithoutPairs: as nobody asks for pairs, nothing but the uplink can be
// avoided.
func TestSilentWithoutPairs(t *testing.T) {
	tc := onePeer(t)
	tc.e.pairs.taken = false
	tc.runPeer(6*time.Minute, everyPath)
	tc.runPeer(75*time.Second, func(local, remote netip.Addr) bool { return remote != peerRLOC || local == secondUplink })
	assert.Equal(t, []netip.Addr{secondUplink}, tc.upLocals())
}

// TestSilentForThePeerAndTheMapServer: neither the only peer nor the Map-Server
// answers the better uplink, both answer the other.
func TestSilentForThePeerAndTheMapServer(t *testing.T) {
	tc := onePeer(t)
	tc.runPeer(6*time.Minute, everyPath)
	began := tc.now
	second := func(local, _ netip.Addr) bool { return local == secondUplink }
	for tc.now.Sub(began) < 2*time.Minute && len(eventsOf[LocatorSilent](tc)) == 0 {
		tc.runPeer(time.Second, second)
	}
	t.Logf("silent %v after the last answer", tc.now.Sub(began))
	assert.Equal(t, []netip.Addr{secondUplink}, tc.upLocals())
	assert.Less(t, tc.now.Sub(began), 45*time.Second, "a probe interval and the time-outs of both")
	assert.Equal(t, StateRegistered, tc.e.Registrations()[0].State)
	tc.runPeer(2*time.Minute, everyPath)
	assert.Len(t, tc.upLocals(), 2)
	assert.Empty(t, tc.e.unheard)
}

// TestRegisterInTurn: nobody is known who could be probed. What goes to the
// mapping system in vain by one uplink goes by the other.
func TestRegisterInTurn(t *testing.T) {
	tc := up(t)
	tc.setLocals(twoUplinks()...)
	tc.runPeer(30*time.Second, func(local, _ netip.Addr) bool { return local == secondUplink })
	assert.Equal(t, StateRegistered, tc.e.Registrations()[0].State)
	assert.Len(t, tc.upLocals(), 2, "one alone decides nothing")
	assert.True(t, tc.e.unheard[firstUplink])
	tc.runPeer(30*time.Second, everyPath)
	assert.Empty(t, tc.e.unheard, "the best one is tried first again")

	take[*lisp.MapRequest](tc)
	tc.e.Resolve(tc.now, []mapcache.Key{key("198.51.100.9/32")})
	var from []string
	for range 12 {
		tc.advance(time.Second)
		for _, s := range take[*lisp.MapRequest](tc) {
			from = append(from, s.Local.Addr().String()+">"+s.Remote.Addr().String())
		}
	}
	// Each Map-Resolver by each uplink, in four requests.
	require.GreaterOrEqual(t, len(from), 4)
	slices.Sort(from[:4])
	assert.Equal(t, []string{"203.0.113.60>198.18.0.2", "203.0.113.60>198.18.0.3", "203.0.113.61>198.18.0.2", "203.0.113.61>198.18.0.3"}, from[:4])
}

// TestRegisterNotInTurn: what is never to be sent from is not tried either.
func TestRegisterNotInTurn(t *testing.T) {
	tc := up(t)
	ls := twoUplinks()
	ls[1].Priority = 255
	tc.setLocals(ls...)
	take[*lisp.MapRegister](tc)
	tc.advance(time.Minute)
	sent := take[*lisp.MapRegister](tc)
	require.Greater(t, len(sent), registerSends)
	for _, s := range sent {
		assert.Equal(t, firstUplink, s.Local.Addr())
	}
	ls[0].Priority = 255
	tc.setLocals(ls...)
	assert.NotEmpty(t, take[*lisp.MapRegister](tc), "better than nothing")
}

// TestPreferRTT: pairs are ranked by their round-trip time, and do not go to and fro.
func TestPreferRTT(t *testing.T) {
	tc := up(t, prober, func(c *Config) { c.Probe.PreferRTT = true; c.Probe.Interval = 5 * time.Second })
	locals := twoUplinks()
	locals[1].Priority = 1
	tc.setLocals(locals...)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	const first, second = "203.0.113.60>203.0.113.2", "203.0.113.61>203.0.113.2"
	known := tc.pairRanks(map[string]uint8{})
	assert.Equal(t, map[string]uint8{first: unmeasured, second: unmeasured}, known)

	type due struct {
		at time.Time
		s  sent
	}
	var answers []due
	changes := 0
	run := func(d time.Duration, rtt func(local netip.Addr) time.Duration) {
		for end := tc.now.Add(d); tc.now.Before(end); {
			next := end
			for _, a := range answers {
				next = earliest(next, a.at)
			}
			if at := tc.e.Deadline(); !at.IsZero() {
				next = earliest(next, at)
			}
			tc.advance(max(next.Sub(tc.now), time.Microsecond))
			for _, s := range tc.probes() {
				answers = append(answers, due{tc.now.Add(rtt(s.Local.Addr())), s})
			}
			answers = slices.DeleteFunc(answers, func(a due) bool {
				if tc.now.Before(a.at) {
					return false
				}
				tc.answerProbe(a.s, rec)
				return true
			})
			was := known[first] < known[second]
			if tc.pairRanks(known); was != (known[first] < known[second]) {
				changes++
			}
		}
	}
	by := func(a, b time.Duration) func(netip.Addr) time.Duration {
		return func(local netip.Addr) time.Duration {
			if local == firstUplink {
				return a
			}
			return b
		}
	}
	run(2*time.Minute, by(10*time.Millisecond, 40*time.Millisecond))
	assert.Less(t, known[first], known[second])
	assert.Equal(t, 1, changes)
	run(4*time.Minute, by(40*time.Millisecond, 10*time.Millisecond))
	assert.Greater(t, known[first], known[second], "it follows")
	assert.Equal(t, 2, changes)

	// Nearly the same, and noisy: it does not matter which, but it stays.
	i := 0
	run(4*time.Minute, func(netip.Addr) time.Duration {
		i++
		return time.Duration(19+i%4) * time.Millisecond
	})
	changes = 0
	run(10*time.Minute, func(netip.Addr) time.Duration {
		i++
		return time.Duration(19+i%4) * time.Millisecond
	})
	assert.Zero(t, changes)

	// A pair that fails comes last, whatever it was.
	tc.run(time.Minute, func(local, _ netip.Addr) bool { return local == firstUplink }, map[netip.Addr]lisp.EIDRecord{peerRLOC: rec})
	tc.pairRanks(known)
	assert.EqualValues(t, mapcache.PairDown, known[second])
	assert.Less(t, known[first], uint8(unmeasured))

	// Without the preference all that answer are alike.
	tc.reconfigure(func(c *Config) { c.Probe.PreferRTT = false })
	assert.Equal(t, map[string]uint8{second: mapcache.PairDown}, tc.pairRanks(known))
	tc.reconfigure(func(c *Config) { c.Probe.PreferRTT = true })
	assert.Equal(t, map[string]uint8{first: unmeasured, second: mapcache.PairDown}, tc.pairRanks(known))
}

// TestRTTClasses: where classes end, and how far a path must go to leave its own.
func TestRTTClasses(t *testing.T) {
	assert.EqualValues(t, 1, classOf(time.Nanosecond))
	assert.EqualValues(t, 2, classOf(time.Millisecond))
	assert.EqualValues(t, rttClasses, classOf(24*time.Hour))
	assert.Less(t, rttClasses, unmeasured)
	for class := uint8(2); class < rttClasses; class++ {
		low, high := classBounds(class)
		assert.Equal(t, class, classOf(low))
		assert.Equal(t, class, classOf(high-1))
		e := &Engine{cfg: Config{Probe: ProbeConfig{PreferRTT: true}}}
		const never, before, just = -1, rttHold, rttHold - 1
		for _, tc := range []struct {
			rtt    time.Duration
			turned time.Duration // ago, or never
			slower bool
			stays  bool
		}{
			{high * 119 / 100, never, false, true},
			{high * 121 / 100, never, false, false},
			{low * 84 / 100, never, false, true},
			{low * 83 / 100, never, false, false},
			// On in the same direction, and round.
			{high * 119 / 100, just, true, true},
			{high * 121 / 100, just, true, false},
			{low * 83 / 100, just, true, true},
			{low * 83 / 100, before, true, false},
			{low * 84 / 100, just, false, true},
			{low * 83 / 100, just, false, false},
			{high * 121 / 100, just, false, true},
			{high * 121 / 100, before, false, false},
		} {
			p := &path{class: class, slower: tc.slower, rtt: tc.rtt}
			if tc.turned != never {
				p.classAt = start.Add(-tc.turned)
			}
			e.classify(start, p)
			assert.Equal(t, tc.stays, p.class == class, "%v in %v to %v", tc.rtt, low, high)
			if !tc.stays {
				assert.Equal(t, start, p.classAt)
				assert.Equal(t, tc.rtt > high, p.slower)
			}
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
