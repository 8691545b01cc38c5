package control

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestMapServerDead: ten minutes without a Map-Server, and it is registered with
// at most a minute after it is back, by few messages.
func TestMapServerDead(t *testing.T) {
	tc := up(t, noProbe)
	tc.registers()
	tc.advance(10 * time.Minute)
	lost := take[*lisp.MapRegister](tc)
	assert.Less(t, len(lost), 20, "no storm")
	back := tc.now
	for tc.e.Registrations()[0].State != StateRegistered {
		tc.advance(100 * time.Millisecond)
		tc.registers()
		require.Less(t, tc.now.Sub(back), 61*time.Second)
	}
}

// TestGarbageResolver: a Map-Resolver that answers with garbage is one that does
// not answer; the other one is asked, and what it says counts.
func TestGarbageResolver(t *testing.T) {
	tc := up(t, quiet)
	rng := rand.New(rand.NewPCG(1, 2))
	resolved := 0
	for i := range 20 {
		k := mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
		tc.resolve(k)
		for range 10 {
			for _, s := range take[*lisp.MapRequest](tc) {
				m := s.msg.(*lisp.MapRequest)
				if s.Remote == mr2 {
					require.True(t, tc.answer(m.Nonce, record(k.Prefix.String(), 10, peerRLOC)))
					continue
				}
				good := encode(t, &lisp.MapReply{Nonce: m.Nonce, Records: []lisp.EIDRecord{record(k.Prefix.String(), 10, peerRLOC)}})
				for _, b := range [][]byte{
					good[:len(good)-1-rng.IntN(len(good)-12)], // cut
					append(good[:4:4], good[12:]...),          // without a nonce
					encode(t, &lisp.MapReply{Nonce: m.Nonce}), // of nothing
					{0x20}, // a type and no more
					binary.BigEndian.AppendUint64([]byte{0x20, 0, 0, 255}, uint64(m.Nonce)), // of 255 records that are not there
					s.Bytes, // our own question
				} {
					tc.handle(mr1, b)
				}
			}
			tc.advance(200 * time.Millisecond)
		}
		if tc.forward(k.Prefix.Addr()).Verdict == mapcache.Encapsulate {
			resolved++
		}
	}
	assert.Equal(t, 20, resolved)
	rs := tc.e.Resolvers()
	assert.False(t, rs[0].Healthy)
	assert.Zero(t, rs[0].Answers)
	assert.True(t, rs[1].Healthy)
	assert.NotZero(t, tc.e.Stats().Dropped[DropMalformed])
}

// TestForgedMapReplies: nothing gets into the map-cache without the nonce of a
// Map-Request under way, and with one nothing but what was asked for.
func TestForgedMapReplies(t *testing.T) {
	evil := netip.MustParseAddr("203.0.113.66")
	tc := up(t, quiet)
	tc.learn(key("198.51.101.1/32"), record("198.51.101.0/24", 1440, peerRLOC))
	tc.advance(2 * time.Second)
	tc.resolve(hostKey(peerEID))
	_, m := one[*lisp.MapRequest](tc)
	tc.resolve(key("198.51.102.1/32"))
	_, m2 := one[*lisp.MapRequest](tc)
	forge := func(n lisp.Nonce, probe bool, r ...lisp.EIDRecord) {
		tc.handle(netip.AddrPortFrom(evil, 4342), encode(t, &lisp.MapReply{Probe: probe, Nonce: n, Records: r}))
	}
	for range 1000 { // guesses
		forge(lisp.Nonce(rand.Uint64()), false, record("198.51.100.7/32", 1440, evil))
	}
	assert.Equal(t, uint64(1000), tc.e.Stats().Dropped[DropUnknownNonce])
	forge(m.Nonce, true, record("198.51.100.7/32", 1440, evil))   // as if it were a probe's
	forge(m2.Nonce, false, record("198.51.100.7/32", 1440, evil)) // of another question
	forge(m.Nonce, false, record("198.51.101.0/24", 1440, evil))  // a mapping that is known
	forge(m.Nonce, false, record("0.0.0.0/0", 1440, evil))        // everything
	forge(m.Nonce, false, record("198.0.0.0/7", 1440, evil))
	forge(m.Nonce, false, record("192.0.2.1/32", 1440, evil)) // ourselves
	assert.Equal(t, 1, tc.e.Cache().Len())
	for _, a := range []string{"198.51.100.7", "198.51.102.1", "100.64.0.1", "192.0.2.1"} {
		assert.Equal(t, mapcache.Miss, tc.forward(netip.MustParseAddr(a)).Verdict, a)
	}
	assert.Equal(t, peerRLOC, tc.forward(netip.MustParseAddr("198.51.101.1")).Locator.Addr)
	// The true answer is still taken, and a second one after it is not.
	require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 1440, peerRLOC)))
	forge(m.Nonce, false, record("198.51.100.0/24", 1440, evil))
	forge(m.Nonce, false, record("198.51.100.0/24", 0))
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
	tc.advance(3 * time.Second)
	forge(m.Nonce, false, record("198.51.100.0/24", 1440, evil))
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
}

// TestSMRFlood: SMRs for everything in the map-cache, from everywhere. What they
// make us send is bounded, the old mappings are used meanwhile, and other
// destinations are resolved as ever.
func TestSMRFlood(t *testing.T) {
	const n = 2000
	tc := up(t, quiet, func(c *Config) { c.MapRequestRate, c.MaxPending = 100, 200 })
	for i := range n {
		require.NoError(t, tc.e.Cache().Insert(tc.now, mapcache.Mapping{
			Key: mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})), TTL: 24 * time.Hour,
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: peerRLOC}}},
		}))
	}
	last := make(map[string]time.Time)
	invoked, misses := 0, 0
	for i := range 20_000 {
		smr := mapRequest("192.0.2.1/32", netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}))
		smr.SMR, smr.SourceEID = true, lisp.AddressFrom(netip.AddrFrom4([4]byte{10, 0, byte(i % n >> 8), byte(i % n)}))
		tc.handle(netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), 4342), encode(t, smr))
		if i%500 == 0 {
			tc.resolve(mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 100, byte(i / 500)})))
		}
		tc.advance(time.Millisecond)
		for _, s := range take[*lisp.MapRequest](tc) {
			m := s.msg.(*lisp.MapRequest)
			k := m.Records[0].String()
			if !m.SMRInvoked {
				misses++
				tc.answer(m.Nonce, record(k, 10, peerRLOC))
				continue
			}
			invoked++
			require.NotNil(t, s.inner) // RFC 9301-6.1-1
			if at, ok := last[k]; ok {
				require.GreaterOrEqual(t, s.at.Sub(at), 3*time.Second) // RFC 9301-6.1-4, 9301-6.1-2
			}
			last[k] = s.at
		}
	}
	assert.LessOrEqual(t, invoked, 21*100/4+100*11/2, "a quarter of the rate, and their retransmissions")
	assert.NotZero(t, invoked)
	assert.Equal(t, 40, misses, "each resolved at the first try")
	assert.NotZero(t, tc.e.Stats().Dropped[DropSMRRate])
	assert.LessOrEqual(t, tc.e.Stats().Pending, 400)
	assert.LessOrEqual(t, len(tc.e.smrSources.cur)+len(tc.e.smrSources.old), 2*maxLimiters)
	assert.Equal(t, peerRLOC, tc.forward(netip.AddrFrom4([4]byte{10, 0, 3, 3})).Locator.Addr)
}

// TestMapRequestFlood: Map-Requests with made-up ITR-RLOCs get answers by the
// limits, and make no more octets than they are; peers that we talk to are
// answered all the while.
func TestMapRequestFlood(t *testing.T) {
	tc := up(t, quiet, func(c *Config) { c.MapReplyRate = 100 })
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
	take[*lisp.MapRequest](tc)
	in, out, known := 0, 0, 0
	for i := range 30_000 {
		a := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
		if i%5000 == 4999 {
			a = peerRLOC
		}
		b := encode(t, mapRequest("192.0.2.1/32", a))
		in += len(b)
		tc.handle(netip.AddrPortFrom(a, 4342), b)
		tc.advance(100 * time.Microsecond)
	}
	for _, s := range take[*lisp.MapReply](tc) {
		out += len(s.Bytes)
		if s.Remote.Addr() == peerRLOC {
			known++
		}
	}
	assert.Equal(t, 6, known)
	assert.Less(t, out, in/10)
	assert.LessOrEqual(t, int(tc.e.Stats().MapRepliesSent), 100+3*100)
	assert.LessOrEqual(t, len(tc.e.rlocLimits.cur)+len(tc.e.rlocLimits.old), 2*maxLimiters)
}

// TestMissFloodUseful: while packets to thousands of destinations without an
// answer come in, those with one are resolved.
func TestMissFloodUseful(t *testing.T) {
	tc := up(t, quiet, func(c *Config) { c.MaxPending = 500 })
	resolved := 0
	for i := range 40_000 {
		tc.resolve(mapcache.HostKey(0, netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})))
		if i%1000 == 999 {
			k := mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 100, byte(i / 1000)}))
			for range 12 { // its packets go on
				tc.resolve(k)
				tc.advance(500 * time.Millisecond)
				for _, s := range take[*lisp.MapRequest](tc) {
					m := s.msg.(*lisp.MapRequest)
					if r := m.Records[0].String(); r == k.String() {
						tc.answer(m.Nonce, record(r, 10, peerRLOC))
					}
				}
			}
			if tc.forward(k.Prefix.Addr()).Verdict == mapcache.Encapsulate {
				resolved++
			}
		}
		if i%10 == 0 {
			tc.advance(time.Millisecond)
		}
		take[*lisp.MapRequest](tc)
		require.LessOrEqual(t, tc.e.Stats().Pending, 500)
	}
	assert.GreaterOrEqual(t, resolved, 38)
}
