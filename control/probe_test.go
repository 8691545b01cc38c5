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

func prober(c *Config) { c.MapServers = nil }

// probes takes the probes sent.
func (tc *tester) probes() (out []sent) {
	rest := tc.sent[:0]
	for _, s := range tc.sent {
		if m, ok := s.msg.(*lisp.MapRequest); ok && m.Probe {
			out = append(out, s)
		} else {
			rest = append(rest, s)
		}
	}
	tc.sent = rest
	return out
}

// answerProbe answers as the ETR at the probed address would.
func (tc *tester) answerProbe(s sent, recs ...lisp.EIDRecord) bool {
	tc.t.Helper()
	m := s.msg.(*lisp.MapRequest)
	probed := s.Remote.Addr()
	recs = slices.Clone(recs)
	for i := range recs {
		recs[i].Locators = slices.Clone(recs[i].Locators)
		for j := range recs[i].Locators {
			ip, _ := recs[i].Locators[j].RLOC.IP()
			recs[i].Locators[j].Probed = ip == probed
		}
	}
	return tc.handle(s.Remote, encode(tc.t, &lisp.MapReply{Probe: true, Nonce: m.Nonce, Records: recs}))
}

func TestProbe(t *testing.T) {
	tc := up(t, prober)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	var p []sent
	for len(p) == 0 {
		tc.advance(tc.e.Deadline().Sub(tc.now))
		p = tc.probes()
	}
	s := p[0]
	assert.LessOrEqual(t, s.at.Sub(start), 1100*time.Millisecond, "soon")
	m := s.msg.(*lisp.MapRequest)
	assert.Nil(t, s.inner)                                        // RFC 9301-5.8-5
	assert.Equal(t, netip.AddrPortFrom(peerRLOC, 4342), s.Remote) // RFC 9301-5.2-3, 9301-7.1-s1: to the locator itself
	assert.Equal(t, netip.AddrPortFrom(rloc4, 4342), s.Local)     // RFC 9301-7.1-s1
	assert.True(t, m.SourceEID.IsZero())                          // RFC 9301-5.2-s1
	assert.Equal(t, []lisp.Address{lisp.AddressFrom(rloc4)}, m.ITRRLOCs)
	assert.Equal(t, uint8(24), m.Records[0].MaskLen) // RFC 9301-5.2-s2
	assert.Nil(t, m.MapData)                         // RFC 9301-7.1-1
	tc.advance(30 * time.Millisecond)
	require.True(t, tc.answerProbe(s, rec))
	upEv := eventsOf[ProbeUp](tc)
	require.Len(t, upEv, 1)
	assert.Equal(t, "RLOC-probe: 203.0.113.2 is up from 203.0.113.1, rtt 30ms", upEv[0].String())
	paths := tc.e.Paths()
	require.Len(t, paths, 1)
	assert.Equal(t, Path{
		Local: rloc4, Locator: mapcache.Locator{Addr: peerRLOC, Port: 4341}, EIDs: 1, Known: true,
		RTT: 30 * time.Millisecond, Sent: paths[0].Sent, Answered: 1,
	}, paths[0])
	info, ok := tc.e.Cache().LocatorInfo(mapcache.Locator{Addr: peerRLOC})
	require.True(t, ok)
	assert.Equal(t, 30*time.Millisecond, info.RTT)

	// Every 30 s, jittered, as long as it answers: no news.
	var gaps []time.Duration
	last := s.at
	for range 20 {
		for len(tc.probes()) == 0 {
			tc.advance(tc.e.Deadline().Sub(tc.now))
			for _, s := range tc.sent {
				if tc.answerProbe(s, rec) {
					gaps = append(gaps, s.at.Sub(last))
					last = s.at
				}
			}
		}
	}
	require.Len(t, gaps, 20)
	for _, g := range gaps {
		assert.GreaterOrEqual(t, g, 27*time.Second)
		assert.LessOrEqual(t, g, 33*time.Second)
	}
	slices.Sort(gaps)
	assert.Less(t, gaps[0], gaps[19]-time.Second, "jittered") // RFC 9301-7.1-s1
	assert.Empty(t, eventsOf[ProbeUp](tc))
	assert.Empty(t, eventsOf[ProbeDown](tc))
}

// TestProbeDown: two probes a second apart without an answer, and the locator
// is down; it is still probed, and an answer brings it back.
func TestProbeDown(t *testing.T) {
	tc := up(t, prober)
	other := netip.MustParseAddr("203.0.113.3")
	rec := record("198.51.100.0/24", 1440, peerRLOC, other)
	rec.Locators[1].Priority = 2
	tc.learn(hostKey(peerEID), rec)
	for tc.now.Before(start.Add(3 * time.Minute)) {
		tc.advance(100 * time.Millisecond)
		for _, s := range tc.sent {
			if s.Remote.Addr() == other {
				tc.answerProbe(s, rec)
			}
		}
		kept := tc.sent[:0]
		for _, s := range tc.sent {
			if s.Remote.Addr() != other {
				kept = append(kept, s)
			}
		}
		tc.sent = kept
	}
	p := tc.probes()
	require.GreaterOrEqual(t, len(p), 8)
	assert.Equal(t, time.Second, p[1].at.Sub(p[0].at))
	assert.InDelta(t, 30*time.Second, p[2].at.Sub(p[0].at), float64(3*time.Second))
	down := eventsOf[ProbeDown](tc)
	require.Len(t, down, 1)
	assert.Equal(t, p[0].at.Add(2*time.Second), down[0].At)
	assert.Equal(t, "RLOC-probe: 203.0.113.2 is down from 203.0.113.1, 2 probes unanswered", down[0].String())
	assert.False(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC})) // RFC 9300-10-5, 9300-10-4
	assert.Equal(t, other, tc.forward(peerEID.Addr()).Locator.Addr)
	assert.Equal(t, 1, tc.e.Stats().PathsDown)
	assert.Empty(t, take[*lisp.MapRequest](tc), "the other locator serves")

	tc.advance(31 * time.Second)
	eventsOf[ProbeUp](tc)
	for _, s := range tc.probes() {
		tc.answerProbe(s, rec)
	}
	assert.True(t, slices.ContainsFunc(eventsOf[ProbeUp](tc), func(e ProbeUp) bool { return e.Locator.Addr == peerRLOC }))
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
}

// TestProbeAllDown: with all locators down the mapping is asked for again, at
// the rate for Map-Requests.
func TestProbeAllDown(t *testing.T) {
	tc := up(t, prober)
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
	tc.advance(10 * time.Second)
	require.Len(t, eventsOf[ProbeDown](tc), 1)
	tc.probes()
	s := take[*lisp.MapRequest](tc)
	require.NotEmpty(t, s)
	for i := 1; i < len(s); i++ {
		assert.GreaterOrEqual(t, s[i].at.Sub(s[i-1].at), time.Second) // RFC 9301-7-2
	}
	assert.Equal(t, uint8(24), s[0].msg.(*lisp.MapRequest).Records[0].MaskLen)
	next := netip.MustParseAddr("203.0.113.9")
	require.True(t, tc.answer(s[0].msg.(*lisp.MapRequest).Nonce, record("198.51.100.0/24", 1440, next)))
	d := tc.forward(peerEID.Addr())
	assert.Equal(t, mapcache.Encapsulate, d.Verdict)
	assert.Equal(t, next, d.Locator.Addr)
	paths := tc.e.Paths()
	require.Len(t, paths, 1, "the old locator is not probed any more")
	assert.Equal(t, next, paths[0].Locator.Addr)
}

// TestProbeAnotherEID: a miss is tried again with another EID-Prefix, since the
// first one may have moved away.
func TestProbeAnotherEID(t *testing.T) {
	tc := up(t, prober)
	recs := map[string]lisp.EIDRecord{}
	for _, p := range []string{"198.51.100.0/24", "198.51.101.0/24"} {
		recs[p] = record(p, 1440, peerRLOC)
		tc.learn(hostKey(netip.PrefixFrom(netip.MustParsePrefix(p).Addr().Next(), 32)), recs[p])
	}
	require.Len(t, tc.e.Paths(), 1, "one path, however many EID-Prefixes")
	assert.Equal(t, 2, tc.e.Paths()[0].EIDs)
	for range 100 {
		tc.advance(time.Second)
		for _, s := range tc.probes() {
			if s.msg.(*lisp.MapRequest).Records[0].String() == "198.51.101.0/24" {
				tc.answerProbe(s, recs["198.51.101.0/24"])
			}
		}
	}
	assert.Empty(t, eventsOf[ProbeDown](tc))
	assert.Len(t, eventsOf[ProbeUp](tc), 1)
}

func TestProbeReplyRefused(t *testing.T) {
	rec := record("198.51.100.0/24", 1440, peerRLOC, netip.MustParseAddr("203.0.113.3"))
	for _, c := range []struct {
		name    string
		change  func(m *lisp.MapReply)
		from    netip.AddrPort
		reason  DropReason
		refused bool
	}{
		{"not authoritative", func(m *lisp.MapReply) { m.Records[0].Authoritative = false }, msAddr, DropNotAuthoritative, true},                                          // RFC 9301-5.4-1
		{"one of two not authoritative", func(m *lisp.MapReply) { m.Records = append(m.Records, negative("198.51.100.0/25", 9, 0)) }, msAddr, DropNotAuthoritative, true}, // RFC 9301-5.4-1
		{"another locator", func(m *lisp.MapReply) { m.Records[0].Locators[1].Probed = true }, msAddr, DropWrongLocator, true},                                            // RFC 9301-5.4-9
		{"two p bits, the first counts", func(m *lisp.MapReply) { m.Records[0].Locators[0].Probed, m.Records[0].Locators[1].Probed = true, true }, msAddr, 0, false},      // RFC 9301-5.4-10
		{"two p bits, the first is wrong", func(m *lisp.MapReply) {
			l := m.Records[0].Locators
			l[0], l[1] = l[1], l[0]
			l[0].Probed, l[1].Probed = true, true
		}, msAddr, DropWrongLocator, true}, // RFC 9301-5.4-10
		{"wrong nonce", func(m *lisp.MapReply) { m.Nonce++ }, msAddr, DropUnknownNonce, true},
		{"not a probe reply", func(m *lisp.MapReply) { m.Probe = false }, msAddr, DropUnknownNonce, true},
		{"from another address", func(m *lisp.MapReply) { m.Records[0].Locators[0].Probed = true }, msAddr, 0, false}, // RFC 9301-5.4-9: the source does not matter
		{"no records", func(m *lisp.MapReply) { m.Records = nil }, msAddr, 0, false},
		{"no p bit", func(*lisp.MapReply) {}, msAddr, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := up(t, prober)
			tc.learn(hostKey(peerEID), rec)
			var s sent
			for s.msg == nil {
				tc.advance(tc.e.Deadline().Sub(tc.now))
				for _, p := range tc.probes() {
					if p.Remote.Addr() == peerRLOC {
						s = p
					}
				}
			}
			r := rec
			r.Locators = slices.Clone(rec.Locators)
			m := lisp.MapReply{Probe: true, Nonce: s.msg.(*lisp.MapRequest).Nonce, Records: []lisp.EIDRecord{r}}
			c.change(&m)
			before := tc.e.Stats()
			tc.handle(c.from, encode(t, &m))
			if c.refused {
				assert.Equal(t, before.Dropped[c.reason]+1, tc.e.Stats().Dropped[c.reason])
				assert.Equal(t, before.ProbeRepliesRecv, tc.e.Stats().ProbeRepliesRecv)
			} else {
				assert.Equal(t, before.ProbeRepliesRecv+1, tc.e.Stats().ProbeRepliesRecv)
				// The same again is nothing outstanding.
				assert.False(t, tc.handle(c.from, encode(t, &m)))
			}
		})
	}
}

// TestProbeLate: on a path slower than the time-out the first cycle is lost;
// then its round-trip time is known.
func TestProbeLate(t *testing.T) {
	tc := up(t, prober)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	const rtt = 4 * time.Second
	var waiting []sent
	for tc.now.Before(start.Add(10 * time.Minute)) {
		tc.advance(100 * time.Millisecond)
		waiting = append(waiting, tc.probes()...)
		take[*lisp.MapRequest](tc)
		for len(waiting) > 0 && tc.now.Sub(waiting[0].at) >= rtt {
			tc.answerProbe(waiting[0], rec)
			waiting = waiting[1:]
		}
	}
	assert.Len(t, eventsOf[ProbeDown](tc), 1)
	assert.Len(t, eventsOf[ProbeUp](tc), 1)
	assert.False(t, tc.e.Paths()[0].Down)
	assert.InDelta(t, rtt, tc.e.Paths()[0].RTT, float64(200*time.Millisecond))
}

// TestProbeMappingChanged: the mapping in a probe reply is not believed, but
// makes the mapping system be asked.
func TestProbeMappingChanged(t *testing.T) {
	tc := up(t, prober)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	tc.advance(3 * time.Second)
	tc.sent = nil
	tc.advance(30 * time.Second)
	p := tc.probes()
	require.NotEmpty(t, p)
	take[*lisp.MapRequest](tc)
	require.True(t, tc.answerProbe(p[len(p)-1], record("198.51.100.0/24", 1440, peerRLOC, netip.MustParseAddr("203.0.113.66"))))
	ent, _ := tc.e.Cache().Get(key("198.51.100.0/24"))
	assert.Len(t, ent.RLOCs, 1)
	tc.advance(2 * time.Second)
	assert.NotEmpty(t, take[*lisp.MapRequest](tc))
}

// TestProbeAddressOfAnother: an xTR that has got the address of our peer answers
// probes, but not for the EID-Prefix of the peer: that is asked for again.
func TestProbeAddressOfAnother(t *testing.T) {
	for name, records := range map[string][]lisp.EIDRecord{
		"nothing":       nil,
		"other mapping": {record("198.51.99.0/24", 1440, peerRLOC)},
	} {
		t.Run(name, func(t *testing.T) {
			tc := up(t, prober)
			tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
			tc.advance(1100 * time.Millisecond)
			p := tc.probes()
			require.NotEmpty(t, p)
			take[*lisp.MapRequest](tc)
			require.True(t, tc.answerProbe(p[len(p)-1], records...))
			s := take[*lisp.MapRequest](tc)
			require.Len(t, s, 1)
			require.NotNil(t, s[0].inner, "through the mapping system")
			assert.Equal(t, "198.51.100.0/24", s[0].msg.(*lisp.MapRequest).Records[0].String())
		})
	}
}

func TestProbeLocals(t *testing.T) {
	tc := up(t, prober)
	peer6 := netip.MustParseAddr("2001:db8:ffff::2")
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC, peer6))
	locs := func() (out []string) {
		for _, p := range tc.e.Paths() {
			out = append(out, p.Local.String()+">"+p.Locator.Addr.String())
		}
		return out
	}
	assert.Equal(t, []string{"203.0.113.1>203.0.113.2", "2001:db8:ffff::1>2001:db8:ffff::2"}, locs())
	// A pair for each locator that traffic leaves by.
	second, backup := netip.MustParseAddr("203.0.113.11"), netip.MustParseAddr("203.0.113.12")
	tc.setLocals(append(locals(), mapcache.Local{Addr: second, Priority: 1, Up: true}, mapcache.Local{Addr: backup, Priority: 9, Up: true})...)
	assert.Equal(t, []string{"203.0.113.1>203.0.113.2", "203.0.113.11>203.0.113.2", "2001:db8:ffff::1>2001:db8:ffff::2"}, locs())
	// One path that answers is enough.
	tc.advance(50 * time.Second)
	for range 100 {
		tc.advance(time.Second)
		for _, s := range tc.probes() {
			if s.Local.Addr() == second {
				tc.answerProbe(s)
			}
		}
	}
	assert.True(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	assert.False(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peer6}))
	// When that goes, the other one decides.
	tc.setLocals(locals()[:1]...)
	assert.Equal(t, []string{"203.0.113.1>203.0.113.2"}, locs())
	assert.False(t, tc.e.Cache().Reachable(mapcache.Locator{Addr: peerRLOC}))
	tc.setLocals()
	assert.Empty(t, tc.e.Paths())
	assert.False(t, tc.e.targets[mapcache.Locator{Addr: peerRLOC, Port: 4341}].down, "nothing is known")
}

func TestProbeNot(t *testing.T) {
	t.Run("priority 255, R bit clear, ourselves", func(t *testing.T) {
		tc := up(t, prober)
		r := record("198.51.100.0/24", 1440, peerRLOC, netip.MustParseAddr("203.0.113.3"), rloc4)
		r.Locators[0].Priority = 255
		r.Locators[1].Reachable = false
		tc.learn(hostKey(peerEID), r)
		assert.Empty(t, tc.e.Paths())
	})
	t.Run("disabled", func(t *testing.T) {
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
		assert.Empty(t, tc.e.Paths())
	})
	t.Run("too many", func(t *testing.T) {
		tc := up(t, prober, func(c *Config) { c.Probe.MaxPaths = 1 })
		tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC, netip.MustParseAddr("203.0.113.3")))
		assert.Len(t, tc.e.Paths(), 1)
		assert.Equal(t, uint64(1), tc.e.Stats().Dropped[DropTooManyPaths])
	})
	t.Run("expired", func(t *testing.T) {
		tc := up(t, prober)
		tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1, peerRLOC))
		assert.Len(t, tc.e.Paths(), 1)
		tc.advance(20 * time.Minute)
		assert.Empty(t, tc.e.Paths())
		assert.Empty(t, tc.e.targets)
		assert.Empty(t, tc.e.requests)
	})
}

// TestProbeSpread: many locators learned at once are probed at a flat rate.
func TestProbeSpread(t *testing.T) {
	const n = 3000
	tc := up(t, prober, func(c *Config) {
		for i := range n {
			c.StaticMappings = append(c.StaticMappings, mapcache.Mapping{
				Key:   mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})),
				RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})}}},
			})
		}
	})
	perSecond := make([]int, 30)
	for i := range perSecond {
		tc.advance(time.Second)
		for _, s := range tc.probes() {
			if s.msg != nil {
				perSecond[i]++
			}
		}
	}
	assert.Equal(t, n, len(tc.e.Paths()))
	for i, p := range perSecond {
		assert.Less(t, p, 3*2*n/30, i)
	}
}

func TestKeySet(t *testing.T) {
	var s keySet
	k := func(i int) mapcache.Key {
		return mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	for i := range 100 {
		s.add(k(i))
		s.add(k(i))
	}
	assert.Equal(t, 100, s.len())
	for i := 0; i < 100; i += 2 {
		s.remove(k(i))
		s.remove(k(i))
	}
	assert.Equal(t, 50, s.len())
	for i := range 100 {
		assert.Equal(t, i%2 == 1, s.find(k(i)) >= 0, i)
	}
	assert.Equal(t, s.at(3), s.at(53))
}

// TestProbeHint: a locator that is down and asks us something is probed soon,
// not at the end of the interval.
func TestProbeHint(t *testing.T) {
	tc := up(t, prober)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	tc.advance(10 * time.Second)
	require.Len(t, eventsOf[ProbeDown](tc), 1)
	tc.probes()
	ask := func() {
		tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, &lisp.MapRequest{
			Nonce: 7, ITRRLOCs: []lisp.Address{lisp.AddressFrom(peerRLOC)},
			Records: []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(tc.e.db[0].Prefix.Addr())}},
		}))
	}
	for range 5 {
		ask()
	}
	tc.advance(2 * time.Millisecond)
	p := tc.probes()
	require.Len(t, p, 1)
	tc.answerProbe(p[0], rec)
	assert.Len(t, eventsOf[ProbeUp](tc), 1)
	ask()
	tc.advance(5 * time.Second)
	assert.Empty(t, tc.probes(), "it is up")
}
