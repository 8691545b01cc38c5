package control

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// signedNotify is a Map-Notify of the Map-Server's own accord.
func signedNotify(t *testing.T, n lisp.Nonce, records ...lisp.EIDRecord) []byte {
	t.Helper()
	b, err := (&lisp.MapNotify{Nonce: n, Records: records}).AppendSigned(nil, testKey)
	require.NoError(t, err)
	return b
}

// TestDisplaced: when the Map-Server says that another xTR has taken an
// EID-Prefix over, those who still send its traffic here are told to ask again,
// once for each move.
func TestDisplaced(t *testing.T) {
	tc := talking(t)
	news := signedNotify(t, 42, record("192.0.2.1/32", 1440, peerRLOC))
	for range 3 { // its retransmissions
		require.True(t, tc.handle(msAddr, news))
		one[*lisp.MapNotifyAck](tc)
	}
	ev := eventsOf[Displaced](tc)
	require.Len(t, ev, 1)
	assert.Equal(t, "Map-Server 198.18.0.1 says that 192.0.2.1/32 is now at 203.0.113.2", ev[0].String())
	tc.advance(400 * time.Millisecond)
	require.Len(t, tc.smrs(), 1)
	tc.advance(time.Minute)
	require.Len(t, tc.smrs(), 1, "and once more")
	// An old one, replayed, is known again.
	require.True(t, tc.handle(msAddr, news))
	tc.advance(time.Minute)
	assert.Empty(t, tc.smrs())

	// News of what is as we have it, or none of ours, moves nothing.
	for i, r := range []lisp.EIDRecord{record("192.0.2.1/32", 1440, rloc4, peerRLOC), record("198.51.0.0/24", 1440, peerRLOC)} {
		require.True(t, tc.handle(msAddr, signedNotify(t, lisp.Nonce(50+i), r)))
	}
	tc.advance(time.Minute)
	assert.Empty(t, tc.smrs())
	assert.Empty(t, eventsOf[Displaced](tc))
}

// TestMerged: what other xTRs of the site have registered is in our Map-Replies,
// not in our Map-Registers; and those who know less are told.
func TestMerged(t *testing.T) {
	tc := talking(t, func(c *Config) { c.MapServers[0].Merge = true })
	other := netip.MustParseAddr("203.0.113.7")
	rec := record("192.0.2.1/32", 1440, rloc4, rloc6, other)
	rec.Locators[2].Priority = 9
	require.True(t, tc.handle(msAddr, signedNotify(t, 42, rec)))
	tc.advance(400 * time.Millisecond)
	require.Len(t, tc.smrs(), 1)
	require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32"))))
	_, m := one[*lisp.MapReply](tc)
	assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.1(1/100 LR) 203.0.113.7(9/100 R) 2001:db8:ffff::1(1/100 LR)", fmt.Sprint(&m.Records[0]))

	tc.advance(time.Minute)
	tc.smrs()
	s := take[*lisp.MapRegister](tc)
	require.NotEmpty(t, s)
	reg := s[len(s)-1].msg.(*lisp.MapRegister)
	assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.1(1/100 LR) 2001:db8:ffff::1(1/100 LR)", fmt.Sprint(&reg.Records[0]))
	// The other one leaves: the acknowledgement says so too.
	require.True(t, tc.notify(reg, testKey))
	require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32"))))
	_, m = one[*lisp.MapReply](tc)
	assert.Len(t, m.Records[0].Locators, 2)
}

// TestMergedByTwo: Map-Servers that know of different xTRs of the site don't take
// turns: what either knows of counts, and nobody is told anew at each of their
// acknowledgements.
func TestMergedByTwo(t *testing.T) {
	second := netip.MustParseAddrPort("198.18.0.3:4342")
	other := netip.MustParseAddr("203.0.113.7")
	tc := talking(t, func(c *Config) {
		c.MapServers[0].Merge = true
		c.MapServers = append(c.MapServers[:1:1], MapServer{Addr: second, Key: testKey, Merge: true})
	})
	acknowledge := func(knows ...netip.AddrPort) {
		for _, s := range take[*lisp.MapRegister](tc) {
			m := s.msg.(*lisp.MapRegister)
			n := lisp.MapNotify{Nonce: m.Nonce, Records: m.Records}
			if slices.Contains(knows, s.Remote) {
				rec := m.Records[0]
				rec.Locators = append(slices.Clone(rec.Locators), record("192.0.2.1/32", 1440, other).Locators...)
				n.Records = []lisp.EIDRecord{rec}
			}
			b, err := n.AppendSigned(nil, testKey)
			require.NoError(t, err)
			require.True(t, tc.handle(s.Remote, b))
		}
	}
	announced := func() int {
		require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32"))))
		_, m := one[*lisp.MapReply](tc)
		return len(m.Records[0].Locators)
	}
	told := 0
	for range 50 {
		tc.advance(10 * time.Second)
		tc.used(netip.MustParseAddr("203.0.113.101"))
		acknowledge(msAddr)
		told += len(tc.smrs())
	}
	assert.Equal(t, 2, told, "once, and repeated")
	assert.Equal(t, 3, announced())
	// The first one is not heard of any more: what it knew does not last forever.
	for range 50 {
		tc.advance(10 * time.Second)
		tc.sent = slices.DeleteFunc(tc.sent, func(s sent) bool { return s.Remote == msAddr })
		acknowledge()
	}
	tc.smrs()
	assert.Equal(t, 2, announced())
}

// TestNotifyOfEarlierRun: the answer to a Map-Register of an earlier run, replayed,
// is no news. It has locators that may be somebody else's by now.
func TestNotifyOfEarlierRun(t *testing.T) {
	merge := func(c *Config) { c.MapServers[0].Merge = true }
	for _, change := range []func(*Config){merge, func(*Config) {}} {
		earlier := up(t, change)
		var old [][]byte
		for _, s := range take[*lisp.MapRegister](earlier) {
			m := s.msg.(*lisp.MapRegister)
			old = append(old, signedNotify(t, m.Nonce, m.Records...))
		}
		require.NotEmpty(t, old)

		tc := newTester(t, change, func(c *Config) { c.Probe.Interval = -1; c.SMR.ProxyITRs = []netip.Addr{peerRLOC} })
		tc.now = start.Add(30 * 24 * time.Hour)
		tc.setLocals(moved()...)
		tc.ackAll()
		tc.advance(time.Minute)
		tc.ackAll()
		tc.smrs()
		for _, b := range old {
			require.True(t, tc.handle(msAddr, b))
		}
		tc.advance(10 * time.Second)
		assert.Empty(t, tc.smrs())
		assert.Empty(t, take[*lisp.MapNotifyAck](tc))
		assert.Empty(t, eventsOf[Displaced](tc))
		require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32"))))
		_, m := one[*lisp.MapReply](tc)
		assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.50(1/100 LR)", fmt.Sprint(&m.Records[0]))
	}
}

// TestNotifyForged: nothing of a Map-Notify that does not verify is used, be it
// an answer or news.
func TestNotifyForged(t *testing.T) {
	tc := talking(t)
	wrong := testKey
	wrong.Secret = []byte("guess")
	for i, n := range []lisp.MapNotify{
		{Nonce: 42, Records: []lisp.EIDRecord{record("192.0.2.1/32", 1440, peerRLOC)}},
		{Nonce: tc.e.RegisterNonce(), Records: []lisp.EIDRecord{record("192.0.2.1/32", 0, peerRLOC)}},
	} {
		b, err := n.AppendSigned(nil, wrong)
		require.NoError(t, err)
		require.True(t, tc.handle(msAddr, b))
		assert.Equal(t, uint64(i+1), tc.e.Stats().Dropped[DropAuthentication]) // RFC 9301-5.7-s4
	}
	require.False(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), signedNotify(t, 43, record("192.0.2.1/32", 1440, peerRLOC))), "not from a Map-Server")
	tc.advance(time.Minute)
	assert.Empty(t, tc.smrs())
	assert.Empty(t, take[*lisp.MapNotifyAck](tc))
	assert.Empty(t, eventsOf[Displaced](tc))
}

// TestNonceReserved: whoever keeps the reserved nonce never repeats one after a
// crash, and writes rarely (RFC 9301-5.6-4).
func TestNonceReserved(t *testing.T) {
	stored, writes := lisp.Nonce(0), 0
	var last lisp.Nonce
	for run := range 3 {
		fresh := true
		tc := newTester(t, noProbe, func(c *Config) { c.RegisterNonce = stored })
		tc.now = time.Unix(0, 0) // a host without clock: only what is kept counts
		tc.setLocals(locals()...)
		for range 2000 {
			for _, ev := range eventsOf[NonceReserved](tc) {
				stored = ev.Nonce
				writes++
			}
			for _, s := range take[*lisp.MapRegister](tc) {
				m := s.msg.(*lisp.MapRegister)
				if fresh {
					require.Greater(t, m.Nonce, last, run)
				}
				require.GreaterOrEqual(t, m.Nonce, last) // RFC 9301-5.6-s1, or sent again
				fresh = false
				require.LessOrEqual(t, m.Nonce, stored)
				last = m.Nonce
				require.True(t, tc.notify(m, testKey))
			}
			tc.advance(time.Minute)
		}
	}
	assert.Greater(t, writes, 6)
	assert.Less(t, writes, 20)
	assert.Equal(t, "Map-Register nonces up to 0x0000000000000400 are reserved", NonceReserved{Nonce: 1024}.String())
}

// TestMergedStays: what other xTRs have registered is not lost with a change of the
// database that is about something else.
func TestMergedStays(t *testing.T) {
	tc := talking(t, func(c *Config) { c.MapServers[0].Merge = true })
	rec := record("192.0.2.1/32", 1440, rloc4, rloc6, netip.MustParseAddr("203.0.113.7"))
	require.True(t, tc.handle(msAddr, signedNotify(t, 42, rec)))
	tc.setDatabase(DatabaseMapping{Key: hostKey(eid4)}, DatabaseMapping{Key: key("192.0.2.7/32")})
	tc.sent = nil
	require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32"))))
	_, m := one[*lisp.MapReply](tc)
	assert.Len(t, m.Records[0].Locators, 3)
}
