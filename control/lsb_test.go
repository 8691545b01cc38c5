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

var peerRLOC2 = netip.MustParseAddr("203.0.113.3")

// RFC 9300-13.1-3, 9300-13.1-2: no LSBs for five minutes after a locator was added
// or removed.
func TestOwnStatusBits(t *testing.T) {
	tc := newTester(t, inClosed(Closed{LocatorStatusBits: true}))
	assert.False(t, tc.local(eid4).UseLSBs)
	ls := locals()
	tc.setLocals(ls...)
	want := func(after time.Duration, use bool, lsbs uint32) {
		t.Helper()
		tc.advance(after)
		sig := tc.local(eid4)
		assert.Equal(t, use, sig.UseLSBs, tc.now.Sub(start)) // RFC 9300-13.1-3
		assert.Equal(t, lsbs, sig.LSBs)
		assert.Zero(t, sig.MapVersion)
	}
	want(5*time.Minute-1, false, 3)
	want(1, true, 3)
	// Bit i is position i of the Map-Reply: IPv4 first.
	ls[0].Up = false
	tc.setLocals(ls...)
	want(0, true, 2)
	ls[0].Up = true
	tc.setLocals(ls...)
	want(time.Minute, true, 3)
	ls[0].Priority = 7
	tc.setLocals(ls...)
	want(0, true, 3)
	// One more, and it comes first.
	ls = append(ls, mapcache.Local{IfIndex: 3, Addr: netip.MustParseAddr("192.0.3.1"), Priority: 1, Weight: 1})
	tc.setLocals(ls...)
	want(0, false, 6)
	want(5*time.Minute-1, false, 6)
	want(1, true, 6)
	tc.setLocals(ls[:2]...)
	want(0, false, 3)
	want(5*time.Minute, true, 3)

	many := make([]mapcache.Local, 40)
	for i := range many {
		many[i] = mapcache.Local{Addr: netip.AddrFrom4([4]byte{192, 0, 3, byte(i + 1)}), Priority: 1, Up: i != 3}
	}
	tc.setLocals(many...)
	want(time.Hour, true, 0xfffffff7)
}

// TestStatusBitsOfMergedSite: bit i is position i of our Map-Replies, which have the
// locators of the site's other xTRs too, in between; and no LSBs for five minutes
// after one of those came.
func TestStatusBitsOfMergedSite(t *testing.T) {
	tc := up(t, inClosed(Closed{LocatorStatusBits: true}), func(c *Config) {
		c.MapServers = []MapServer{{Addr: msAddr, Key: testKey, Merge: true}}
	})
	tc.advance(6 * time.Minute)
	require.Equal(t, mapcache.LocalSignal{Key: hostKey(eid4), LSBs: 3, UseLSBs: true}, tc.local(eid4))
	other := netip.MustParseAddr("198.51.0.1") // comes before ours
	rec := record("192.0.2.1/32", 1440, other, rloc4, rloc6)
	rec.Locators[0].Reachable = false
	require.True(t, tc.handle(msAddr, signedNotify(t, 42, rec)))
	require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32"))))
	_, m := one[*lisp.MapReply](tc)
	lsbs := uint32(0)
	for i, l := range m.Records[0].Locators {
		if l.Reachable {
			lsbs |= 1 << i
		}
	}
	assert.EqualValues(t, 6, lsbs)
	assert.Equal(t, mapcache.LocalSignal{Key: hostKey(eid4), LSBs: lsbs}, tc.local(eid4)) // RFC 9300-13.1-3
	tc.advance(5 * time.Minute)
	assert.Equal(t, mapcache.LocalSignal{Key: hostKey(eid4), LSBs: lsbs, UseLSBs: true}, tc.local(eid4))
}

// statusPeer is a tester that knows a prefix of the peer behind two locators, the
// first of which is better.
func statusPeer(t *testing.T, change ...func(*Config)) *tester {
	tc := up(t, append([]func(*Config){inClosed(Closed{LocatorStatusBits: true})}, change...)...)
	tc.learn(hostKey(peerEID), twoLocators("198.51.100.0/24"))
	return tc
}

func twoLocators(prefix string) lisp.EIDRecord {
	r := record(prefix, 10, peerRLOC, peerRLOC2)
	r.Locators[1].Priority = 2
	return r
}

// toward is where a packet goes now.
func (tc *tester) toward(a string) netip.Addr {
	tc.e.Publish()
	return tc.e.Cache().View().Forward(0, netip.MustParseAddr(a), 0).Locator.Addr
}

func status(bits uint32) mapcache.Discovery {
	return mapcache.Discovery{Kind: mapcache.DiscoveryLSBs, Key: hostKey(peerEID), LSBs: bits}
}

// RFC 9300-10-s1: 1 to 0 takes a locator out of use at once, 0 to 1 brings it back.
func TestStatusBits(t *testing.T) {
	tc := statusPeer(t, func(c *Config) { c.Probe.Interval = time.Hour })
	k := key("198.51.100.0/24")
	assert.Equal(t, mapcache.EntrySignal{EntryID: tc.entryOf(k).EntryID, LSBs: 3, Locators: 2}, tc.entryOf(k))
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7"))
	tc.discover(status(2))
	assert.Equal(t, peerRLOC2, tc.toward("198.51.100.7")) // RFC 9300-10-s1
	assert.EqualValues(t, 2, tc.entryOf(k).LSBs)
	assert.Zero(t, tc.e.Stats().ProbesSent, "before any probe")
	ev := eventsOf[StatusBits](tc)
	require.Len(t, ev, 1)
	assert.Equal(t, "locator-status-bits of 198.51.100.0/24: 10 from 203.0.113.2", ev[0].String())
	tc.advance(2 * time.Second)
	tc.discover(status(3))
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7")) // RFC 9300-10-s1
	assert.EqualValues(t, 3, tc.entryOf(k).LSBs)

	// Bits beyond the set, what is known, and what is nothing of ours.
	tc.advance(2 * time.Second)
	tc.discover(status(0xfffffff3))
	tc.discover(mapcache.Discovery{Kind: mapcache.DiscoveryLSBs, Key: key("203.0.113.77/32")})
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7"))
	assert.EqualValues(t, 3, tc.entryOf(k).LSBs)
	assert.Len(t, eventsOf[StatusBits](tc), 1)

	// With all of them down there may be a new mapping.
	take[*lisp.MapRequest](tc)
	tc.discover(status(0))
	_, m := one[*lisp.MapRequest](tc)
	assert.Equal(t, "198.51.100.0", m.Records[0].EID.String())
	assert.Equal(t, netip.Addr{}, tc.toward("198.51.100.7"))
}

// RFC 9300-3-5: a site whose bits flap is not followed more than once a second.
func TestStatusBitsRate(t *testing.T) {
	tc := statusPeer(t)
	changes := 0
	for i := range 10_000 {
		tc.discover(status(uint32(2 + i%2)))
		changes += len(eventsOf[StatusBits](tc))
		tc.advance(time.Millisecond)
	}
	assert.LessOrEqual(t, changes, 10) // RFC 9300-3-5
	assert.Greater(t, changes, 5)
	assert.NotZero(t, tc.e.Stats().Dropped[DropStatusRate])
}

// Every xTR that sends LSBs is an ETR of the site too (RFC 9300 §13.1).
func TestStatusBitsFromElsewhere(t *testing.T) {
	tc := statusPeer(t)
	d := status(2)
	d.Locator.Addr = netip.MustParseAddr("203.0.113.99")
	tc.discover(d)
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7"))
	assert.EqualValues(t, 1, tc.e.Stats().Dropped[DropForeignStatus])
	d.Locator.Addr = peerRLOC2
	tc.discover(d)
	assert.Equal(t, peerRLOC2, tc.toward("198.51.100.7"))
}

// The bits are those of one EID-Prefix, also where others have the same locators.
func TestStatusBitsOfOnePrefix(t *testing.T) {
	tc := statusPeer(t)
	tc.learn(key("198.51.101.1/32"), twoLocators("198.51.101.0/24"))
	tc.discover(status(2))
	assert.Equal(t, peerRLOC2, tc.toward("198.51.100.7"))
	assert.Equal(t, peerRLOC, tc.toward("198.51.101.1"))
}

// Until the bit is 1 again a refreshed mapping does not bring a locator back; a
// mapping with other locators begins anew.
func TestStatusBitsAndRefresh(t *testing.T) {
	tc := statusPeer(t)
	k := key("198.51.100.0/24")
	tc.discover(status(2))
	again := func(r lisp.EIDRecord) {
		t.Helper()
		tc.advance(time.Minute)
		tc.e.refresh(tc.now, k, reasons{})
		tc.drain()
		_, m := one[*lisp.MapRequest](tc)
		require.True(t, tc.answer(m.Nonce, r))
	}
	again(twoLocators("198.51.100.0/24"))
	assert.Equal(t, peerRLOC2, tc.toward("198.51.100.7")) // RFC 9300-10-s1
	assert.EqualValues(t, 2, tc.entryOf(k).LSBs)

	three := twoLocators("198.51.100.0/24")
	three.Locators = append(three.Locators, lisp.RLOCRecord{Priority: 3, Reachable: true, RLOC: lisp.AddressFrom(rloc6)})
	again(three)
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7"))
	assert.Equal(t, mapcache.EntrySignal{EntryID: tc.entryOf(k).EntryID, LSBs: 7, Locators: 3}, tc.entryOf(k))

	// R=0 takes a locator down, and a bit brings it back.
	three.Locators[0].Reachable = false
	again(three)
	assert.Equal(t, peerRLOC2, tc.toward("198.51.100.7"))
	assert.EqualValues(t, 6, tc.entryOf(k).LSBs)
	tc.discover(status(7))
	assert.Equal(t, peerRLOC, tc.toward("198.51.100.7"))

	// A negative mapping has none.
	again(negative("198.51.100.0/24", 10, lisp.ActionNativelyForward))
	assert.Zero(t, tc.entryOf(k).Locators)
	assert.Empty(t, tc.e.closed.sites)
}

// Ordinals count all locators of the record, those that we cannot use too.
func TestStatusBitsOrdinals(t *testing.T) {
	tc := up(t, inClosed(Closed{LocatorStatusBits: true}))
	r := record("198.51.100.0/24", 10, netip.MustParseAddr("224.0.0.5"), peerRLOC, peerRLOC2)
	r.Locators[2].Priority = 2
	tc.learn(hostKey(peerEID), r)
	tc.discover(status(5))
	assert.Equal(t, peerRLOC2, tc.toward("198.51.100.7")) // RFC 9300-10-s1
}

// What a probe reply says of a locator that is down by its bit is no news.
func TestStatusBitsAndProbes(t *testing.T) {
	tc := statusPeer(t, func(c *Config) { c.Probe.Interval = 30 * time.Second })
	tc.discover(status(2))
	probes := 0
	for range 120 {
		tc.advance(time.Second)
		for _, s := range take[*lisp.MapRequest](tc) {
			m := s.msg.(*lisp.MapRequest)
			require.True(t, m.Probe, "nothing is asked for")
			assert.Equal(t, peerRLOC2, s.Remote.Addr())
			probes++
			r := twoLocators("198.51.100.0/24")
			tc.handle(s.Remote, encode(t, &lisp.MapReply{Probe: true, Nonce: m.Nonce, Records: []lisp.EIDRecord{r}}))
		}
	}
	assert.Greater(t, probes, 2)
}

// RFC 9300-4.1-5: without it, nothing of it counts.
func TestStatusBitsOff(t *testing.T) {
	for _, cl := range []Closed{{}, {MapVersions: true, EchoNonce: true}} {
		tc := statusPeer(t, inClosed(cl))
		tc.discover(status(2))
		assert.Equal(t, peerRLOC, tc.toward("198.51.100.7")) // RFC 9300-4.1-5, 9300-4.1-3
		assert.Empty(t, eventsOf[StatusBits](tc))
		s := tc.e.Signals()
		for _, l := range s.Locals {
			assert.False(t, l.UseLSBs)
		}
		for _, e := range s.Entries {
			assert.Zero(t, e.Locators)
		}
		assert.Equal(t, cl == Closed{}, s.Locals == nil && s.Entries == nil && s.Locators == nil)
	}
}
