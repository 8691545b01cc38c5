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

// echoing is a tester that knows the peer behind two locators, whose Map-Reply
// has the E bit or not.
func echoing(t *testing.T, e bool, change ...func(*Config)) *tester {
	tc := up(t, append([]func(*Config){inClosed(Closed{EchoNonce: true})}, change...)...)
	tc.resolve(hostKey(peerEID))
	tc.reply(e)
	return tc
}

// reply answers the Map-Request for the peer.
func (tc *tester) reply(e bool) {
	tc.t.Helper()
	_, m := one[*lisp.MapRequest](tc)
	r := lisp.MapReply{EchoNonce: e, Nonce: m.Nonce, Records: []lisp.EIDRecord{twoLocators("198.51.100.0/24")}}
	require.True(tc.t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(tc.t, &r)))
}

// packets reports traffic with a locator.
func (tc *tester) packets(a netip.Addr, in, out uint64) {
	tc.e.AddUsage(tc.now, mapcache.Usage{Locator: mapcache.Locator{Addr: a}, PacketsIn: in, PacketsOut: out})
}

// flow lets time pass with traffic with a locator, reported every five seconds.
func (tc *tester) flow(d time.Duration, a netip.Addr, in, out uint64) {
	for end := tc.now.Add(d); tc.now.Before(end); {
		tc.packets(a, in, out)
		tc.advance(min(5*time.Second, end.Sub(tc.now)))
	}
}

// asks is the nonce that packets to a carry with N and E, 0 if they do not.
func (tc *tester) asks(a netip.Addr) uint32 {
	tc.signals()
	if s := tc.told.locators[a]; s.Ask {
		return s.Nonce
	}
	return 0
}

// untilAsked lets traffic flow until the test of a locator begins.
func (tc *tester) untilAsked(a netip.Addr) {
	tc.t.Helper()
	for i := 0; tc.asks(a) == 0; i++ {
		require.Less(tc.t, i, 100)
		tc.flow(time.Second, a, 1, 1)
	}
}

func usable(tc *tester, a netip.Addr) bool {
	return tc.e.Cache().Reachable(mapcache.Locator{Addr: a})
}

func echo(kind mapcache.DiscoveryKind, a netip.Addr) mapcache.Discovery {
	return mapcache.Discovery{Kind: kind, Locator: mapcache.Locator{Addr: a}}
}

// RFC 9300-10.1-5: only a locator whose site said so is asked, and only while
// traffic flows both ways. We say so ourselves.
func TestEchoNonceWhen(t *testing.T) {
	for _, tt := range []struct {
		e       bool
		in, out uint64
		want    bool
	}{{true, 1, 1, true}, {false, 1, 1, false}, {true, 0, 1, false}, {true, 1, 0, false}, {true, 0, 0, false}} {
		tc := echoing(t, tt.e)
		asked := false
		for range 60 {
			tc.flow(5*time.Second, peerRLOC, tt.in, tt.out)
			asked = asked || tc.asks(peerRLOC) != 0
			assert.Zero(t, tc.asks(peerRLOC2), "without traffic")
		}
		assert.Equal(t, tt.want, asked, "%+v", tt) // RFC 9300-10.1-5, 9300-10-4
	}
	tc := echoing(t, true)
	tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32")))
	_, r := one[*lisp.MapReply](tc)
	assert.True(t, r.EchoNonce) // RFC 9300-10.1-5

	off := up(t, inClosed(Closed{LocatorStatusBits: true}))
	off.resolve(hostKey(peerEID))
	off.reply(true)
	off.flow(5*time.Minute, peerRLOC, 1, 1)
	assert.Zero(t, off.asks(peerRLOC)) // RFC 9300-10.1-6
}

func TestEchoNonceEchoed(t *testing.T) {
	tc := echoing(t, true)
	for range 5 {
		tc.untilAsked(peerRLOC)
		tc.flow(2*time.Second, peerRLOC, 1, 1)
		tc.discover(echo(mapcache.DiscoveryEchoed, peerRLOC))
		assert.Zero(t, tc.asks(peerRLOC))
		assert.Zero(t, tc.told.locators[peerRLOC].Nonce)
	}
	assert.EqualValues(t, 5, tc.e.Stats().NoncesEchoed)
	assert.True(t, usable(tc, peerRLOC))
	assert.GreaterOrEqual(t, tc.now.Sub(start), 5*27*time.Second, "not one test after the other")
	tc.discover(echo(mapcache.DiscoveryEchoed, peerRLOC)) // late
	tc.discover(echo(mapcache.DiscoveryEchoed, netip.MustParseAddr("203.0.113.99")))
	assert.EqualValues(t, 5, tc.e.Stats().NoncesEchoed)
	assert.Empty(t, eventsOf[EchoNonce](tc))
}

// Packets come, and none has the echo: the locator is not used, until an
// RLOC-probe, which goes out at once, finds otherwise (RFC 9300-10.1-1).
func TestEchoNonceUnanswered(t *testing.T) {
	tc := echoing(t, true, func(c *Config) { c.Probe.Interval = 10 * time.Minute })
	answer := func(s sent) {
		r := lisp.MapReply{Probe: true, Nonce: s.msg.(*lisp.MapRequest).Nonce, Records: []lisp.EIDRecord{twoLocators("198.51.100.0/24")}}
		tc.handle(s.Remote, encode(t, &r))
	}
	for range 20 {
		tc.advance(100 * time.Millisecond)
		for _, s := range take[*lisp.MapRequest](tc) {
			answer(s)
		}
	}
	tc.untilAsked(peerRLOC)
	begun := tc.now
	tc.flow(14*time.Second, peerRLOC, 1, 1)
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7"))
	tc.flow(3*time.Second, peerRLOC, 1, 1)
	assert.Equal(t, peerRLOC2, tc.toward("198.51.100.7"), "%v", tc.now.Sub(begun))
	assert.Zero(t, tc.asks(peerRLOC))
	ev := eventsOf[EchoNonce](tc)
	require.Len(t, ev, 1)
	assert.Equal(t, "echo-nonce: 203.0.113.2 does not echo, held for unreachable", ev[0].String())

	var probe sent
	for _, s := range take[*lisp.MapRequest](tc) {
		if s.Remote.Addr() == peerRLOC {
			probe = s
		}
	}
	require.NotNil(t, probe.msg, "RLOC-probing is asked")
	answer(probe)
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7")) // RFC 9300-10.1-1
	assert.Len(t, eventsOf[EchoNonce](tc), 1)

	// It is tested again, though later.
	before := tc.now
	tc.untilAsked(peerRLOC)
	assert.Greater(t, tc.now.Sub(before), 50*time.Second)
}

// RFC 9300-10-4: what is not there to see says nothing.
func TestEchoNonceNoConclusion(t *testing.T) {
	for _, tt := range []struct{ in, out uint64 }{{0, 1}, {1, 0}, {0, 0}} {
		tc := echoing(t, true)
		tc.untilAsked(peerRLOC)
		tc.advance(5 * time.Second) // what was under way
		tc.flow(time.Minute, peerRLOC, tt.in, tt.out)
		assert.True(t, usable(tc, peerRLOC), "%+v", tt)     // RFC 9300-10-4
		assert.Empty(t, eventsOf[EchoNonce](tc), "%+v", tt) // nor was it in between
		assert.Zero(t, tc.asks(peerRLOC))
		assert.Zero(t, tc.told.locators[peerRLOC].Nonce)
	}
}

// Without RLOC-probing a locator gets another chance after a while.
func TestEchoNonceWithoutProbes(t *testing.T) {
	tc := echoing(t, true)
	tc.untilAsked(peerRLOC)
	tc.flow(16*time.Second, peerRLOC, 1, 1)
	assert.False(t, usable(tc, peerRLOC))
	tc.advance(28 * time.Second)
	assert.False(t, usable(tc, peerRLOC))
	tc.advance(5 * time.Second)
	assert.True(t, usable(tc, peerRLOC))
	tc.untilAsked(peerRLOC)
}

// RFC 9300-10.1-s2, 9300-10.1-3: when both ask we stop, and go on when the timer
// expires.
func TestEchoNonceBothAsk(t *testing.T) {
	tc := echoing(t, true)
	tc.untilAsked(peerRLOC)
	nonce := tc.asks(peerRLOC)
	tc.flow(time.Second, peerRLOC, 1, 1)
	tc.discover(echo(mapcache.DiscoveryEchoAsked, peerRLOC))
	assert.Zero(t, tc.asks(peerRLOC))                        // RFC 9300-10.1-s2, 9300-10.1-3
	assert.Equal(t, nonce, tc.told.locators[peerRLOC].Nonce) // an echo on its way is still good
	tc.discover(echo(mapcache.DiscoveryEchoAsked, peerRLOC)) // once
	tc.flow(tc.e.cfg.Closed.EchoPause-time.Second, peerRLOC, 1, 1)
	assert.Zero(t, tc.asks(peerRLOC)) // RFC 9300-10.1-s2
	tc.flow(2*time.Second, peerRLOC, 1, 1)
	assert.Equal(t, nonce, tc.asks(peerRLOC)) // RFC 9300-10.1-s2
	tc.flow(20*time.Second, peerRLOC, 1, 1)
	assert.False(t, usable(tc, peerRLOC), "the whole time to wait begins anew, and ends")

	tc = echoing(t, true)
	tc.untilAsked(peerRLOC)
	tc.discover(echo(mapcache.DiscoveryEchoAsked, peerRLOC))
	tc.discover(echo(mapcache.DiscoveryEchoed, peerRLOC))
	assert.EqualValues(t, 1, tc.e.Stats().NoncesEchoed)
	tc.flow(5*time.Second, peerRLOC, 1, 1)
	assert.Zero(t, tc.asks(peerRLOC))
}

// RFC 9300-5.3-s4: two locators never get the same nonce.
func TestEchoNoncesDiffer(t *testing.T) {
	tc := up(t, inClosed(Closed{EchoNonce: true}), func(c *Config) {
		c.Rand = &fewNonces{}
	})
	var rlocs []netip.Addr
	for i := range 12 {
		p := fmt.Sprintf("198.51.%d.0/24", i)
		rlocs = append(rlocs, netip.AddrFrom4([4]byte{203, 0, 113, byte(50 + i)}))
		tc.resolve(mapcache.HostKey(0, netip.MustParsePrefix(p).Addr()))
		_, m := one[*lisp.MapRequest](tc)
		r := lisp.MapReply{EchoNonce: true, Nonce: m.Nonce, Records: []lisp.EIDRecord{record(p, 1440, rlocs[i])}}
		require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, &r)))
	}
	most := 0
	for range 50 {
		for _, a := range rlocs {
			tc.packets(a, 1, 1)
		}
		tc.advance(time.Second)
		seen := map[uint32]bool{}
		for _, a := range rlocs {
			if n := tc.asks(a); n != 0 {
				assert.False(t, seen[n]) // RFC 9300-5.3-s4
				assert.Less(t, n, uint32(1<<24))
				seen[n] = true
			}
		}
		most = max(most, len(seen))
	}
	assert.Equal(t, len(rlocs), most)
}

// fewNonces is a source of randomness that has only sixteen 24-bit numbers, in
// turn, two of each after the other.
type fewNonces struct{ n uint64 }

func (f *fewNonces) Read(b []byte) (int, error) {
	for i := 0; i+8 <= len(b); i += 8 {
		f.n++
		copy(b[i:], []byte{byte(f.n >> 24), byte(f.n >> 16), byte(f.n >> 8), byte(f.n), 1, 0, 0, byte(f.n / 2 % 16)})
	}
	return len(b) / 8 * 8, nil
}

// A site that no longer echoes, and one that is gone, are forgotten.
func TestEchoNonceForgotten(t *testing.T) {
	tc := echoing(t, true)
	tc.untilAsked(peerRLOC)
	tc.flow(16*time.Second, peerRLOC, 1, 1)
	require.False(t, usable(tc, peerRLOC))
	take[*lisp.MapRequest](tc)
	tc.e.refresh(tc.now, key("198.51.100.0/24"), reasons{})
	tc.drain()
	tc.reply(false)
	assert.True(t, usable(tc, peerRLOC))
	assert.Empty(t, tc.e.closed.echoes)
	assert.Empty(t, tc.e.closed.nonces)

	tc = echoing(t, true)
	tc.untilAsked(peerRLOC)
	assert.Len(t, tc.e.closed.echoes, 2)
	tc.e.Cache().Remove(tc.now, key("198.51.100.0/24"))
	tc.advance(time.Minute)
	assert.Empty(t, tc.e.closed.echoes)
	assert.Empty(t, tc.e.closed.nonces)
	assert.Zero(t, tc.asks(peerRLOC))
}
