package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestSMR: an SMR makes the mapping be asked for through the mapping system,
// rate limited; it changes nothing by itself.
func TestSMR(t *testing.T) {
	tc := up(t, quiet)
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
	tc.advance(10 * time.Second)
	smr := lisp.MapRequest{
		SMR: true, DontMapReply: true, SourceEID: lisp.AddressFrom(peerEID.Addr()),
		ITRRLOCs: []lisp.Address{lisp.AddressFrom(peerRLOC)},
		Records:  []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(eid4.Addr())}},
	}
	from := netip.MustParseAddrPort("203.0.113.200:4342") // a handover: not a cached locator
	before := tc.now
	for range 100 {
		require.True(t, tc.handle(from, encode(t, &smr)))
		tc.advance(100 * time.Millisecond)
	}
	s := take[*lisp.MapRequest](tc)
	require.NotEmpty(t, s)
	assert.LessOrEqual(t, len(s), 4)
	for i, r := range s {
		m := r.msg.(*lisp.MapRequest)
		require.NotNil(t, r.inner)                               // RFC 9301-6.1-1
		assert.Contains(t, []netip.AddrPort{mr1, mr2}, r.Remote) // RFC 9301-6.1-1
		assert.True(t, m.SMRInvoked)
		assert.Equal(t, uint8(24), m.Records[0].MaskLen)
		assert.NotZero(t, m.Nonce)
		if i > 0 {
			assert.GreaterOrEqual(t, r.at.Sub(s[i-1].at), 3*time.Second) // RFC 9301-6.1-2, 9301-6.1-4
		}
	}
	assert.Equal(t, before, s[0].at)
	assert.Empty(t, take[*lisp.MapReply](tc))
	assert.Equal(t, mapcache.Encapsulate, tc.forward(peerEID.Addr()).Verdict, "the old mapping is used meanwhile")
	require.True(t, tc.answer(s[0].msg.(*lisp.MapRequest).Nonce, record("198.51.100.0/24", 1440, from.Addr())))
	assert.Equal(t, from.Addr(), tc.forward(peerEID.Addr()).Locator.Addr)
	assert.Equal(t, "SMR for 198.51.100.0/24 from 203.0.113.200", eventsOf[MapRequestReceived](tc)[0].String())
	assert.Contains(t, eventsOf[MapRequestSent](tc)[1].String(), "solicited")

	// RFC 9301-6.1-5: of what is not cached we want to know nothing.
	tc.advance(time.Minute)
	take[*lisp.MapRequest](tc)
	smr.SourceEID, smr.Records[0].EID = lisp.AddressFrom(netip.MustParseAddr("100.64.0.1")), lisp.AddressFrom(netip.MustParseAddr("100.64.0.2"))
	require.True(t, tc.handle(from, encode(t, &smr)))
	assert.Empty(t, take[*lisp.MapRequest](tc)) // RFC 9301-6.1-5
	assert.Equal(t, uint64(1), tc.e.Stats().Dropped[DropNotCached])
	// One that names the EID in its record works as well.
	smr.SourceEID, smr.Records[0].EID = lisp.Address{}, lisp.AddressFrom(peerEID.Addr())
	require.True(t, tc.handle(from, encode(t, &smr)))
	assert.Equal(t, 1, len(take[*lisp.MapRequest](tc)))
}

// TestSMRAnswered: a solicited mapping rests for three seconds even when the
// answer comes at once.
func TestSMRAnswered(t *testing.T) {
	tc := up(t, quiet)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	tc.advance(10 * time.Second)
	smr := mapRequest("192.0.2.1/32")
	smr.SMR = true
	var asked []time.Time
	for range 100 {
		require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, smr)))
		tc.advance(100 * time.Millisecond)
		for _, s := range take[*lisp.MapRequest](tc) {
			asked = append(asked, s.at)
			tc.answer(s.msg.(*lisp.MapRequest).Nonce, rec)
		}
	}
	require.GreaterOrEqual(t, len(asked), 3)
	for i := 1; i < len(asked); i++ {
		assert.GreaterOrEqual(t, asked[i].Sub(asked[i-1]), 3*time.Second) // RFC 9301-6.1-4
	}
}

// TestSMRInvokedAgain: new locators of our own repeat the question as soon as the
// rate of SMR-invoked Map-Requests allows.
func TestSMRInvokedAgain(t *testing.T) {
	tc := up(t, quiet)
	tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
	tc.advance(10 * time.Second)
	take[*lisp.MapRequest](tc)
	smr := mapRequest("192.0.2.1/32")
	smr.SMR = true
	require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, smr)))
	require.Len(t, take[*lisp.MapRequest](tc), 1)
	asked := tc.now
	tc.advance(500 * time.Millisecond)
	moved := netip.MustParseAddr("203.0.113.77")
	tc.e.SetLocals(tc.now, []mapcache.Local{{IfIndex: 2, Addr: moved, Priority: 1, Weight: 100, Up: true}})
	tc.advance(10 * time.Second)
	for _, s := range take[*lisp.MapRequest](tc) {
		if s.inner == nil {
			continue // an SMR of our own
		}
		assert.True(t, s.msg.(*lisp.MapRequest).SMRInvoked)
		assert.GreaterOrEqual(t, s.at.Sub(asked), 3*time.Second) // RFC 9301-6.1-4
		assert.Equal(t, []lisp.Address{lisp.AddressFrom(moved)}, s.msg.(*lisp.MapRequest).ITRRLOCs)
		asked = s.at
	}
	assert.Less(t, tc.now.Sub(asked), 10*time.Second, "it was repeated")
}

// TestSMRSiblings: a node that moves takes all its EIDs along, so an SMR for one
// has the others with the same locators asked for too; a few, and through the
// mapping system as ever.
func TestSMRSiblings(t *testing.T) {
	tc := up(t, prober)
	tc.learn(hostKey(peerEID), record("198.51.100.7/32", 1440, peerRLOC))
	tc.learn(hostKey(peerEID6), record("2001:db8:2::7/128", 1440, peerRLOC))
	tc.learn(key("198.51.101.1/32"), record("198.51.101.0/24", 1440, netip.MustParseAddr("203.0.113.9")))
	tc.learn(key("198.51.102.1/32"), record("198.51.102.0/24", 1440, peerRLOC, netip.MustParseAddr("203.0.113.9")))
	tc.e.Advance(tc.now.Add(2 * time.Second))
	tc.now = tc.now.Add(2 * time.Second)
	tc.drain()
	tc.sent = nil
	smr := mapRequest("192.0.2.1/32")
	smr.SMR, smr.SourceEID = true, lisp.AddressFrom(peerEID.Addr())
	require.True(t, tc.handle(netip.MustParseAddrPort("203.0.113.50:4342"), encode(t, smr)))
	asked := make(map[string]bool)
	for _, s := range take[*lisp.MapRequest](tc) {
		m := s.msg.(*lisp.MapRequest)
		require.NotNil(t, s.inner) // RFC 9301-6.1-1
		assert.True(t, m.SMRInvoked)
		asked[m.Records[0].String()] = true
	}
	assert.Equal(t, map[string]bool{"198.51.100.7/32": true, "2001:db8:2::7/128": true}, asked)
	ent, ok := tc.e.Cache().Get(hostKey(peerEID))
	require.True(t, ok)
	assert.Equal(t, uint32(1), ent.SMRs)
	assert.True(t, ent.Solicited)

	for i := range 20 {
		tc.learn(mapcache.HostKey(0, netip.AddrFrom4([4]byte{198, 51, 103, byte(i)})),
			record(netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 103, byte(i)}), 32).String(), 1440, netip.MustParseAddr("203.0.113.77")))
	}
	tc.advance(1500 * time.Millisecond)
	tc.sent = nil
	smr.SourceEID = lisp.AddressFrom(netip.MustParseAddr("198.51.103.5"))
	require.True(t, tc.handle(netip.MustParseAddrPort("203.0.113.50:4342"), encode(t, smr)))
	assert.Len(t, take[*lisp.MapRequest](tc), 1+maxSiblings)
}

// TestSMRSiblingsOlder: of two EIDs behind the same locators one was told of a
// change that the other was not told of. The next SMR is for both all the same.
func TestSMRSiblingsOlder(t *testing.T) {
	for _, named := range []string{"198.51.100.7", "2001:db8:2::7"} {
		tc := up(t, prober)
		second := netip.MustParseAddr("203.0.113.3")
		older := record("198.51.100.7/32", 1440, peerRLOC, second)
		newer := record("2001:db8:2::7/128", 1440, peerRLOC, second)
		newer.Locators[0].Reachable = false
		tc.learn(hostKey(peerEID), older)
		tc.learn(hostKey(peerEID6), newer)
		tc.advance(1500 * time.Millisecond)
		take[*lisp.MapRequest](tc)
		smr := mapRequest("192.0.2.1/32")
		smr.SMR, smr.SourceEID = true, lisp.AddressFrom(netip.MustParseAddr(named))
		require.True(t, tc.handle(netip.MustParseAddrPort("203.0.113.50:4342"), encode(t, smr)))
		asked := map[string]int{}
		for _, s := range take[*lisp.MapRequest](tc) {
			asked[s.msg.(*lisp.MapRequest).Records[0].String()]++
		}
		assert.Equal(t, map[string]int{"198.51.100.7/32": 1, "2001:db8:2::7/128": 1}, asked, "SMR for %s", named)
	}
}
