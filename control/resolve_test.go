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

// forward is what a packet to a meets, after publishing.
func (tc *tester) forward(a netip.Addr) mapcache.Decision {
	tc.e.Publish()
	return tc.e.Cache().View().Forward(0, a, 0)
}

func TestMapRequestContent(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		locals []mapcache.Local
		ask    mapcache.Key
		outer  netip.AddrPort // local
		inner  string
		source string
		itr    string
	}{
		{"IPv4", nil, locals(), hostKey(peerEID), netip.AddrPortFrom(rloc4, 4342), "203.0.113.1:4342 > 198.51.100.7:4342", "192.0.2.1", "[203.0.113.1 2001:db8:ffff::1]"},
		{"IPv6", nil, locals(), hostKey(peerEID6), netip.AddrPortFrom(rloc4, 4342), "[2001:db8:ffff::1]:4342 > [2001:db8:2::7]:4342", "2001:db8:1::1", "[203.0.113.1 2001:db8:ffff::1]"},
		{"IPv6 over IPv4", nil, locals()[:1], hostKey(peerEID6), netip.AddrPortFrom(rloc4, 4342), "[2001:db8:1::1]:4342 > [2001:db8:2::7]:4342", "2001:db8:1::1", "[203.0.113.1]"},
		{"no EID of ours", func(c *Config) { c.Database = nil }, locals()[:1], hostKey(peerEID6), netip.AddrPortFrom(rloc4, 4342), "[::]:4342 > [2001:db8:2::7]:4342", "none", "[203.0.113.1]"},
		{"instance", func(c *Config) { c.Database[0].IID = 7 }, locals(), mapcache.Key{IID: 7, Prefix: peerEID}, netip.AddrPortFrom(rloc4, 4342), "203.0.113.1:4342 > 198.51.100.7:4342", "[7]192.0.2.1", "[203.0.113.1 2001:db8:ffff::1]"},
		{"IPv6 Map-Resolver", func(c *Config) { c.MapResolvers = []netip.AddrPort{netip.MustParseAddrPort("[2001:db8:5::2]:4342")} }, locals(), hostKey(peerEID), netip.AddrPortFrom(rloc6, 4342), "203.0.113.1:4342 > 198.51.100.7:4342", "192.0.2.1", "[203.0.113.1 2001:db8:ffff::1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := newTester(t, quiet, func(cfg *Config) {
				if c.change != nil {
					c.change(cfg)
				}
			})
			tc.setLocals(c.locals...)
			tc.resolve(c.ask)
			s, m := one[*lisp.MapRequest](tc)
			require.NotNil(t, s.inner, "encapsulated to the Map-Resolver")
			assert.Equal(t, tc.e.cfg.MapResolvers[0], s.Remote)
			assert.Equal(t, c.outer, s.Local)
			// RFC 9300-4-1, 9300-4-2: from an RLOC, or as a host from an EID.
			assert.Equal(t, c.inner, fmt.Sprintf("%v > %v", s.inner.Source, s.inner.Destination))
			assert.Equal(t, c.source, m.SourceEID.String()) // RFC 9301-5.2-s1
			assert.Equal(t, c.itr, fmt.Sprint(m.ITRRLOCs))  // RFC 9301-5.2-10, 9301-5.3-3: all of them, routable
			require.Len(t, m.Records, 1)
			iid, p, ok := m.Records[0].Prefix()
			require.True(t, ok)
			assert.Equal(t, c.ask, mapcache.Key{IID: iid, Prefix: p}) // RFC 9301-5.2-s2: the host
			assert.False(t, m.Probe)
			assert.False(t, m.SMR)
			assert.Nil(t, m.MapData)   // RFC 9301-5.3-7: our mappings are left out
			assert.NotZero(t, m.Nonce) // RFC 9301-5.2-9
		})
	}
}

// TestMapRequestRate is RFC 9301-5.3-5 and 9301-5.3-6: never more than one a
// second for an EID-Prefix, ten retransmissions, then 30 s of silence, however
// much the destination is wanted.
func TestMapRequestRate(t *testing.T) {
	tc := up(t, quiet)
	for tc.now.Before(start.Add(6 * time.Minute)) {
		tc.resolve(hostKey(peerEID))
		tc.advance(100 * time.Millisecond)
	}
	s := take[*lisp.MapRequest](tc)
	require.Greater(t, len(s), 22)
	nonces := make(map[lisp.Nonce]bool)
	for i := 1; i < len(s); i++ {
		gap := s[i].at.Sub(s[i-1].at)
		assert.GreaterOrEqual(t, gap, time.Second, i) // RFC 9301-5.3-5
		if i%11 == 0 {
			assert.GreaterOrEqual(t, gap, 30*time.Second, i) // RFC 9301-5.3-6
		} else {
			assert.Less(t, gap, 9*time.Second, i)
		}
		nonces[s[i].msg.(*lisp.MapRequest).Nonce] = true
	}
	assert.Len(t, nonces, len(s)-1, "a new nonce each time")
	failed := eventsOf[ResolutionFailed](tc)
	require.NotEmpty(t, failed)
	assert.Equal(t, "no Map-Reply for 198.51.100.7/32 after 11 Map-Requests", failed[0].String())
	assert.Equal(t, "Map-Request for 198.51.100.7/32 to Map-Resolver 198.18.0.3, try 2", eventsOf[MapRequestSent](tc)[1].String())
}

func TestMapRequestGivenUp(t *testing.T) {
	tc := up(t, quiet)
	tc.resolve(hostKey(peerEID))
	tc.advance(10 * time.Minute)
	assert.Equal(t, 11, len(take[*lisp.MapRequest](tc)), "not wanted any more, not asked for any more")
	assert.Zero(t, tc.e.Stats().Pending)
	assert.Empty(t, tc.e.requests)
	assert.True(t, tc.e.Deadline().IsZero())
}

func TestMapResolverFailover(t *testing.T) {
	tc := up(t, quiet)
	answered := 0
	// Only the second Map-Resolver answers.
	for i := range 20 {
		k := mapcache.Key{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32)}
		tc.resolve(k)
		for range 3 {
			for _, s := range take[*lisp.MapRequest](tc) {
				if s.Remote == mr2 {
					tc.now = tc.now.Add(10 * time.Millisecond)
					tc.answer(s.msg.(*lisp.MapRequest).Nonce, record(k.Prefix.String(), 10, peerRLOC))
					answered++
				}
			}
			tc.advance(500 * time.Millisecond)
		}
	}
	assert.GreaterOrEqual(t, answered, 19)
	rs := tc.e.Resolvers()
	assert.False(t, rs[0].Healthy)
	assert.True(t, rs[1].Healthy)
	assert.Less(t, rs[1].RTT, 50*time.Millisecond)
	assert.GreaterOrEqual(t, rs[1].RTT, 10*time.Millisecond)
	assert.Less(t, rs[0].Asked, uint64(5), "a dead one is asked only now and then")
	// It is found again when it is back.
	tc.advance(2 * time.Minute)
	take[*lisp.MapRequest](tc)
	tc.resolve(hostKey(netip.MustParsePrefix("198.51.101.1/32")))
	s, m := one[*lisp.MapRequest](tc)
	assert.Equal(t, mr1, s.Remote)
	tc.answer(m.Nonce, record("198.51.101.0/24", 10, peerRLOC))
	assert.True(t, tc.e.Resolvers()[0].Healthy)
}

func TestMapReplyLearned(t *testing.T) {
	tc := up(t, quiet)
	tc.resolve(hostKey(peerEID))
	tc.advance(20 * time.Millisecond)
	_, m := one[*lisp.MapRequest](tc)
	require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 1440, peerRLOC)))
	ent, ok := tc.e.Cache().Get(key("198.51.100.0/24"))
	require.True(t, ok)
	assert.True(t, ent.Authoritative)
	assert.Equal(t, 24*time.Hour, ent.TTL)
	d := tc.forward(peerEID.Addr())
	assert.Equal(t, mapcache.Encapsulate, d.Verdict)
	assert.Equal(t, peerRLOC, d.Locator.Addr)
	assert.Equal(t, "Map-Reply for 198.51.100.0/24: 203.0.113.2, ttl 24h0m, from 203.0.113.2 in 20ms", eventsOf[MapReplyReceived](tc)[0].String())
	assert.Equal(t, "map-cache: added 198.51.100.0/24, 203.0.113.2", eventsOf[CacheAdded](tc)[0].String())
	assert.Equal(t, uint64(1), tc.e.Stats().MapRepliesReceived)
	tc.advance(2 * time.Second)
	assert.Empty(t, take[*lisp.MapRequest](tc))
	assert.Zero(t, tc.e.Stats().Pending)
}

// TestMapReplyRefused: what does not belong to the question changes nothing
// (RFC 9301 §5.3, §5.5), and the question stays open.
func TestMapReplyRefused(t *testing.T) {
	other := record("198.51.100.0/24", 1440, peerRLOC)
	other.EID = lisp.EIDAddress(7, netip.MustParseAddr("198.51.100.0"))
	for _, c := range []struct {
		name   string
		wrong  lisp.Nonce // added to the right one
		recs   []lisp.EIDRecord
		reason DropReason
	}{
		{"unknown nonce", 1, []lisp.EIDRecord{record("198.51.100.0/24", 1440, peerRLOC)}, DropUnknownNonce}, // RFC 9301-5.3-s1
		{"another EID", 0, []lisp.EIDRecord{record("198.51.101.0/24", 1440, peerRLOC)}, DropNotAsked},
		{"another family", 0, []lisp.EIDRecord{record("2001:db8::/32", 1440, peerRLOC)}, DropNotAsked},
		{"another instance", 0, []lisp.EIDRecord{other}, DropNotAsked},
		{"only a more-specific beside it", 0, []lisp.EIDRecord{record("198.51.100.8/32", 1440, peerRLOC)}, DropNotAsked},
		{"everything", 0, []lisp.EIDRecord{record("0.0.0.0/0", 1440, peerRLOC)}, DropTooBroad},
		{"too broad", 0, []lisp.EIDRecord{record("198.0.0.0/7", 1440, peerRLOC)}, DropTooBroad},
		{"names", 0, []lisp.EIDRecord{{TTL: 9, EID: lisp.Address{}}}, DropNotAsked},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := up(t, quiet)
			tc.resolve(hostKey(peerEID))
			_, m := one[*lisp.MapRequest](tc)
			tc.answer(m.Nonce+c.wrong, c.recs...)
			assert.Equal(t, uint64(1), tc.e.Stats().Dropped[c.reason])
			assert.Zero(t, tc.e.Cache().Len())
			dropped := eventsOf[Dropped](tc)
			require.NotEmpty(t, dropped)
			assert.Equal(t, c.reason, dropped[0].Reason)
			require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 1440, peerRLOC)))
			assert.Equal(t, 1, tc.e.Cache().Len())
		})
	}
	t.Run("none asked", func(t *testing.T) {
		tc := up(t, quiet)
		assert.False(t, tc.answer(0, record("198.51.100.0/24", 1440, peerRLOC)))
	})
	t.Run("cut", func(t *testing.T) {
		tc := up(t, quiet)
		b := encode(t, &lisp.MapReply{Records: []lisp.EIDRecord{other}})
		assert.True(t, tc.handle(mr1, b[:len(b)-3]))
		assert.Equal(t, uint64(1), tc.e.Stats().Dropped[DropMalformed])
	})
	t.Run("probe reply to no probe", func(t *testing.T) {
		tc := up(t, quiet)
		tc.resolve(hostKey(peerEID))
		_, m := one[*lisp.MapRequest](tc)
		b := encode(t, &lisp.MapReply{Probe: true, Nonce: m.Nonce, Records: []lisp.EIDRecord{record("198.51.100.0/24", 9, peerRLOC)}})
		assert.False(t, tc.handle(mr1, b))
		assert.Zero(t, tc.e.Cache().Len())
	})
}

// TestMapReplyOldNonce: an answer to an earlier transmission counts.
func TestMapReplyOldNonce(t *testing.T) {
	tc := up(t, quiet)
	tc.resolve(hostKey(peerEID))
	tc.advance(5 * time.Second)
	s := take[*lisp.MapRequest](tc)
	require.Equal(t, 3, len(s))
	require.True(t, tc.answer(s[0].msg.(*lisp.MapRequest).Nonce, record("198.51.100.0/24", 9, peerRLOC)))
	assert.Equal(t, 5*time.Second, eventsOf[MapReplyReceived](tc)[0].RTT)
}

func TestMapReplyOverlapping(t *testing.T) {
	tc := up(t, quiet)
	tc.resolve(hostKey(peerEID))
	_, m := one[*lisp.MapRequest](tc)
	r2 := netip.MustParseAddr("203.0.113.3")
	require.True(t, tc.answer(m.Nonce,
		record("198.51.100.0/24", 9, peerRLOC), record("198.51.100.128/25", 9, r2), record("198.51.101.0/24", 9, r2)))
	assert.Equal(t, 2, tc.e.Cache().Len(), "the match and its more-specific")
	// What did not fit comes behind it, with the same nonce.
	require.True(t, tc.answer(m.Nonce,
		record("198.51.100.64/26", 9, r2), record("198.51.100.0/24", 9, r2), record("198.51.0.0/16", 9, r2),
		record("198.51.100.0/22", 9, r2)))
	assert.Equal(t, 3, tc.e.Cache().Len())
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr, "but the match itself is not changed any more")
	tc.advance(2 * time.Second)
	assert.False(t, tc.answer(m.Nonce, record("198.51.100.32/27", 9, r2)), "nor anything later")
}

func TestMapReplyReplacesMoreSpecific(t *testing.T) {
	tc := up(t, quiet)
	tc.learn(hostKey(peerEID), record("198.51.100.7/32", 1440, peerRLOC))
	// The refresh of the host is answered by the prefix around it.
	tc.e.refresh(tc.now.Add(time.Minute), hostKey(peerEID), reasons{})
	tc.drain()
	tc.advance(2 * time.Second)
	for _, s := range take[*lisp.MapRequest](tc) {
		tc.answer(s.msg.(*lisp.MapRequest).Nonce, record("198.51.100.0/24", 1440, netip.MustParseAddr("203.0.113.9")))
	}
	_, ok := tc.e.Cache().Get(hostKey(peerEID))
	assert.False(t, ok)
	assert.Equal(t, "203.0.113.9", tc.forward(peerEID.Addr()).Locator.Addr.String())
	removed := eventsOf[CacheRemoved](tc)
	require.Len(t, removed, 1)
	assert.Equal(t, "map-cache: replaced 198.51.100.7/32", removed[0].String())
}

func TestMapReplyTTL(t *testing.T) {
	t.Run("zero removes", func(t *testing.T) {
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
		tc.advance(10 * time.Second)
		tc.e.refresh(tc.now, key("198.51.100.0/24"), reasons{})
		tc.drain()
		_, m := one[*lisp.MapRequest](tc)
		require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 0, peerRLOC))) // RFC 9301-5.4-3
		assert.Zero(t, tc.e.Cache().Len())
		assert.Equal(t, mapcache.Miss, tc.forward(peerEID.Addr()).Verdict)
		assert.Len(t, eventsOf[CacheRemoved](tc), 1)
		// It is asked for again, though not at once.
		tc.resolve(hostKey(peerEID))
		assert.Equal(t, 1, len(take[*lisp.MapRequest](tc)))
	})
	t.Run("zero of the very EID", func(t *testing.T) {
		tc := up(t, quiet)
		tc.resolve(hostKey(peerEID))
		_, m := one[*lisp.MapRequest](tc)
		require.True(t, tc.answer(m.Nonce, record("198.51.100.7/32", 0, peerRLOC)))
		tc.resolve(hostKey(peerEID))
		assert.Empty(t, take[*lisp.MapRequest](tc)) // RFC 9301-5.3-5
		tc.advance(time.Second)
		assert.Equal(t, 1, len(take[*lisp.MapRequest](tc)))
	})
	t.Run("unlimited", func(t *testing.T) {
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), record("198.51.100.0/24", lisp.TTLUnlimited, peerRLOC))
		ent, ok := tc.e.Cache().Get(key("198.51.100.0/24"))
		require.True(t, ok)
		assert.Equal(t, tc.now.Add(24*time.Hour), ent.Expires)
	})
	t.Run("expiry", func(t *testing.T) {
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), record("198.51.100.0/24", 10, peerRLOC))
		tc.advance(9 * time.Minute)
		assert.Equal(t, 1, tc.e.Cache().Len())
		tc.advance(2 * time.Minute)
		assert.Zero(t, tc.e.Cache().Len())
		assert.Equal(t, "map-cache: expired 198.51.100.0/24", eventsOf[CacheRemoved](tc)[0].String())
		assert.Empty(t, take[*lisp.MapRequest](tc), "not in use, not refreshed")
	})
}

// TestNegativeReply: what each action makes of packets, with a Proxy-ETR and
// without (RFC 9301 §5.4, RFC 6832 §6.1).
func TestNegativeReply(t *testing.T) {
	petr := netip.MustParseAddr("203.0.113.77")
	for _, c := range []struct {
		act      lisp.Action
		plain    mapcache.Verdict
		withPETR mapcache.Verdict
	}{
		{lisp.ActionNoAction, mapcache.Drop, mapcache.Encapsulate},
		{lisp.ActionNativelyForward, mapcache.Native, mapcache.Encapsulate},
		{lisp.ActionSendMapRequest, mapcache.SendRequest, mapcache.SendRequest},
		{lisp.ActionDropNoReason, mapcache.Drop, mapcache.Drop},
		{lisp.ActionDropPolicyDenied, mapcache.Drop, mapcache.Drop},
		{lisp.ActionDropAuthFailure, mapcache.Drop, mapcache.Drop},
		{lisp.Action(6), mapcache.Drop, mapcache.Drop},
		{lisp.Action(7), mapcache.Drop, mapcache.Drop},
	} {
		t.Run(c.act.String(), func(t *testing.T) {
			t.Parallel()
			tc := up(t, quiet)
			tc.learn(hostKey(peerEID), negative("198.51.0.0/16", 15, c.act))
			assert.Equal(t, c.plain, tc.forward(peerEID.Addr()).Verdict)
			ev := eventsOf[NegativeReply](tc)
			require.Len(t, ev, 1)
			assert.Equal(t, fmt.Sprintf("negative Map-Reply for 198.51.0.0/16: %v, ttl 15m, from 203.0.113.2 in 0s", c.act), ev[0].String())

			tc = up(t, quiet, func(cfg *Config) {
				cfg.Probe.Interval = 30 * time.Second
				cfg.ProxyETRs = []mapcache.RLOC{{Locator: mapcache.Locator{Addr: petr}, Priority: 1}}
			})
			tc.learn(hostKey(peerEID), negative("198.51.0.0/16", 15, c.act))
			d := tc.forward(peerEID.Addr())
			assert.Equal(t, c.withPETR, d.Verdict)
			if d.Verdict == mapcache.Encapsulate {
				assert.Equal(t, petr, d.Locator.Addr)
				assert.Contains(t, eventsOf[NegativeReply](tc)[0].String(), "by Proxy-ETR 203.0.113.77")
			}
			tc.advance(5 * time.Minute)
			assert.Empty(t, tc.e.Paths(), "a Proxy-ETR is not probed")
		})
	}
	t.Run("everything", func(t *testing.T) {
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), negative("0.0.0.0/0", 15, lisp.ActionNativelyForward))
		assert.Equal(t, mapcache.Native, tc.forward(peerEID.Addr()).Verdict)
	})
}

// TestSendMapRequestAction: with ACT 2 every packet asks, at the rate of one a
// second for the EID-Prefix, not for each destination in it.
func TestSendMapRequestAction(t *testing.T) {
	tc := up(t, quiet)
	tc.learn(hostKey(peerEID), negative("198.51.100.0/24", 15, lisp.ActionSendMapRequest))
	tc.advance(5 * time.Second)
	for i := range 100 {
		tc.resolve(mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})))
		tc.advance(100 * time.Millisecond)
		for _, s := range tc.sent {
			m := s.msg.(*lisp.MapRequest)
			assert.Equal(t, uint8(32), m.Records[0].MaskLen)
			tc.answer(m.Nonce, negative("198.51.100.0/24", 15, lisp.ActionSendMapRequest))
		}
		n := len(take[*lisp.MapRequest](tc))
		assert.LessOrEqual(t, n, 1)
	}
	n := tc.e.Stats().MapRequestsSent - 1
	assert.GreaterOrEqual(t, n, uint64(9))
	assert.LessOrEqual(t, n, uint64(11)) // RFC 9301-5.3-5
}

func TestUnusableLocators(t *testing.T) {
	rec := record("198.51.100.0/24", 10,
		netip.MustParseAddr("255.255.255.255"), // RFC 9301-5.4-13
		netip.MustParseAddr("224.0.0.1"),       // RFC 9301-5.4-13
		netip.MustParseAddr("ff02::1"),         // RFC 9301-5.4-13
		netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fe80::1"))
	var lcaf lisp.Address
	require.NoError(t, lcaf.UnmarshalBinary([]byte{0x40, 3, 0, 0, 99, 0, 0, 2, 1, 2}))
	rec.Locators = append(rec.Locators, lisp.RLOCRecord{Priority: 1, Reachable: true, RLOC: lcaf}, lisp.RLOCRecord{})

	t.Run("beside a good one", func(t *testing.T) {
		r := rec
		good := record("198.51.100.0/24", 10, peerRLOC, peerRLOC).Locators
		r.Locators = append(append([]lisp.RLOCRecord(nil), r.Locators...), good...)
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), r)
		ent, ok := tc.e.Cache().Get(key("198.51.100.0/24"))
		require.True(t, ok)
		require.Len(t, ent.RLOCs, 1)
		assert.Equal(t, peerRLOC, ent.RLOCs[0].Addr)
	})
	t.Run("alone", func(t *testing.T) {
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), rec)
		assert.Equal(t, mapcache.Drop, tc.forward(peerEID.Addr()).Verdict, "never natively")
	})
	t.Run("R bit clear and priority 255", func(t *testing.T) {
		r := record("198.51.100.0/24", 10, peerRLOC, netip.MustParseAddr("203.0.113.3"))
		r.Locators[0].Reachable = false
		r.Locators[1].Priority = 255
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), r)
		assert.Equal(t, mapcache.NoLocator, tc.forward(peerEID.Addr()).Verdict)
	})
}

// TestRefresh: an entry in use is asked for before its TTL ends, and stays
// meanwhile.
func TestRefresh(t *testing.T) {
	tc := up(t, quiet)
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 10, peerRLOC))
	expires := tc.now.Add(10 * time.Minute)
	var asked []sent
	for tc.now.Before(expires.Add(-time.Second)) && len(asked) == 0 {
		assert.Equal(t, mapcache.Encapsulate, tc.forward(peerEID.Addr()).Verdict)
		tc.advance(5 * time.Second)
		asked = take[*lisp.MapRequest](tc)
	}
	require.NotEmpty(t, asked)
	assert.GreaterOrEqual(t, tc.now, start.Add(8*time.Minute))
	m := asked[0].msg.(*lisp.MapRequest)
	assert.True(t, m.SourceEID.IsZero())             // RFC 9301-5.2-s1
	assert.Equal(t, uint8(24), m.Records[0].MaskLen) // RFC 9301-5.2-s2
	assert.Equal(t, mr1, asked[0].Remote, "through the mapping system")
	ev := eventsOf[MapRequestSent](tc)
	assert.Contains(t, ev[len(ev)-1].String(), "refresh")
	require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 10, peerRLOC)))
	assert.Equal(t, "map-cache: refreshed 198.51.100.0/24, ttl 10m", eventsOf[CacheRefreshed](tc)[0].String())
	tc.now = expires.Add(time.Minute)
	tc.e.Advance(tc.now)
	assert.Equal(t, mapcache.Encapsulate, tc.forward(peerEID.Addr()).Verdict)

	// A refresh may bring other locators.
	tc.e.refresh(tc.now, key("198.51.100.0/24"), reasons{})
	tc.drain()
	_, m = one[*lisp.MapRequest](tc)
	require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 10, netip.MustParseAddr("203.0.113.9"))))
	changed := eventsOf[LocatorsChanged](tc)
	require.Len(t, changed, 1)
	assert.Equal(t, "map-cache: changed 198.51.100.0/24 from 203.0.113.2 to 203.0.113.9", changed[0].String())
}

// TestRefreshUnanswered: a refresh in vain leaves the entry until its TTL ends.
func TestRefreshUnanswered(t *testing.T) {
	tc := up(t, quiet)
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 20, peerRLOC))
	end := tc.now.Add(20 * time.Minute)
	for tc.now.Before(end.Add(-5 * time.Second)) {
		assert.Equal(t, mapcache.Encapsulate, tc.forward(peerEID.Addr()).Verdict)
		tc.advance(5 * time.Second)
	}
	assert.NotEmpty(t, take[*lisp.MapRequest](tc))
	tc.advance(time.Minute)
	assert.Equal(t, mapcache.Miss, tc.forward(peerEID.Addr()).Verdict)
}

func TestResolveKnown(t *testing.T) {
	tc := up(t, quiet)
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 10, peerRLOC))
	tc.e.Publish()
	// A data plane that asks for what is known missed the change: it comes again.
	tc.resolve(hostKey(peerEID))
	assert.Empty(t, take[*lisp.MapRequest](tc))
	cs := tc.e.Publish()
	require.Len(t, cs, 1)
	assert.Equal(t, key("198.51.100.0/24"), cs[0].Key)
	assert.Equal(t, mapcache.Encapsulate, cs[0].New.Verdict)
	assert.Empty(t, tc.e.Publish())
}

func TestResolveNothing(t *testing.T) {
	for name, k := range map[string]mapcache.Key{
		"invalid": {}, "multicast": key("224.0.0.1/32"), "unspecified": key("::/128"), "broadcast": key("255.255.255.255/32"),
	} {
		tc := up(t, quiet)
		tc.resolve(k)
		assert.Empty(t, tc.sent, name)
	}
	tc := up(t, quiet, func(c *Config) { c.MapResolvers = nil })
	tc.resolve(hostKey(peerEID))
	assert.Empty(t, tc.sent)
	assert.Zero(t, tc.e.Stats().Pending)
}

// TestResolveSameSite: many destinations behind one mapping end with it.
func TestResolveSameSite(t *testing.T) {
	tc := up(t, quiet)
	for i := range 50 {
		tc.resolve(mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})))
	}
	s := take[*lisp.MapRequest](tc)
	require.Equal(t, 50, len(s))
	tc.answer(s[0].msg.(*lisp.MapRequest).Nonce, record("198.51.100.0/24", 10, peerRLOC))
	tc.advance(time.Minute)
	assert.Empty(t, take[*lisp.MapRequest](tc))
	assert.Zero(t, tc.e.Stats().Pending)
}
