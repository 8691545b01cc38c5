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

// smrs takes the SMRs sent out, leaving other Map-Requests.
func (tc *tester) smrs() (out []sent) {
	rest := tc.sent[:0]
	for _, s := range tc.sent {
		if m, ok := s.msg.(*lisp.MapRequest); ok && m.SMR {
			out = append(out, s)
		} else {
			rest = append(rest, s)
		}
	}
	tc.sent = rest
	return out
}

// smrLine says what matters of an SMR: when, what changed, to whom, whose.
func (tc *tester) smrLines(from time.Time) (out []string) {
	for _, s := range tc.smrs() {
		m := s.msg.(*lisp.MapRequest)
		require.Nil(tc.t, s.inner, "straight to the locator")
		require.Len(tc.t, m.Records, 1) // RFC 9301-5.2-8
		out = append(out, fmt.Sprintf("%.1fs %v to %v for %v", s.at.Sub(from).Seconds(), m.SourceEID, s.Remote, &m.Records[0]))
	}
	return out
}

// used reports packets to a locator, as a data plane does.
func (tc *tester) used(as ...netip.Addr) {
	for _, a := range as {
		tc.e.AddUsage(tc.now, mapcache.Usage{Locator: mapcache.Locator{Addr: a, Port: lisp.DataPort}, PacketsOut: 1, OctetsOut: 100})
	}
}

// ackAll acknowledges all Map-Registers.
func (tc *tester) ackAll() {
	tc.t.Helper()
	for _, s := range take[*lisp.MapRegister](tc) {
		tc.notify(s.msg.(*lisp.MapRegister), testKey)
	}
}

// moved is where the node is after a handover.
func moved() []mapcache.Local {
	return []mapcache.Local{{IfIndex: 3, Addr: netip.MustParseAddr("203.0.113.50"), Priority: 1, Weight: 100, Up: true}}
}

// talking is a registered node with three peers in its map-cache, of which it
// sent data to one within the last minute.
func talking(t *testing.T, change ...func(*Config)) *tester {
	t.Helper()
	tc := up(t, append([]func(*Config){func(c *Config) {
		c.Probe.Interval = -1
		c.Database = c.Database[:1]
	}}, change...)...)
	tc.ackAll()
	for i := range 3 {
		p := fmt.Sprintf("198.51.%d.0/24", i)
		tc.learn(key(fmt.Sprintf("198.51.%d.1/32", i)), record(p, 1440, netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)})))
	}
	tc.advance(2 * time.Minute)
	tc.ackAll()
	tc.used(netip.MustParseAddr("203.0.113.101"))
	tc.advance(30 * time.Second)
	tc.ackAll()
	tc.smrs() // to Proxy-ITRs, at the start
	return tc
}

// TestSendSMR: after a handover the peer in conversation is told, straight to its
// locator, as soon as the Map-Server has acknowledged the new locators, and once
// more when it has not asked.
func TestSendSMR(t *testing.T) {
	tc := talking(t)
	moveAt := tc.now
	tc.setLocals(moved()...)
	tc.advance(50 * time.Millisecond)
	assert.Empty(t, tc.smrs(), "the mapping system does not know yet")
	_, m := one[*lisp.MapRegister](tc) // at once, though the last one was less than 20 s ago
	require.True(t, tc.notify(m, testKey))
	tc.advance(time.Millisecond)
	all := tc.smrs()
	require.Len(t, all, 1)
	s := all[0]
	q := s.msg.(*lisp.MapRequest)
	assert.Equal(t, "203.0.113.101:4342", s.Remote.String()) // RFC 9301-6.1-s1
	assert.Equal(t, netip.MustParseAddrPort("203.0.113.50:4342"), s.Local)
	assert.True(t, q.SMR)
	assert.True(t, q.DontMapReply)
	assert.False(t, q.Probe)
	assert.False(t, q.SMRInvoked)
	assert.NotZero(t, q.Nonce)
	assert.Equal(t, lisp.AddressFrom(eid4.Addr()), q.SourceEID, "what changed, never AFI 0")
	require.Len(t, q.Records, 1) // RFC 9301-5.2-8
	assert.Equal(t, "198.51.1.0/24", q.Records[0].String(), "a prefix of the peer")
	assert.Equal(t, []lisp.Address{lisp.AddressFrom(netip.MustParseAddr("203.0.113.50"))}, q.ITRRLOCs)
	assert.Equal(t, "SMR for 192.0.2.1/32 to 203.0.113.101", eventsOf[SMRSent](tc)[0].String())

	// Not answered: once more, three seconds later.
	tc.advance(10 * time.Minute)
	again := tc.smrs()
	require.Len(t, again, 1)
	assert.GreaterOrEqual(t, again[0].at.Sub(s.at), 3*time.Second) // RFC 9301-6.1-3, 9301-6.1-2
	assert.Less(t, again[0].at.Sub(s.at), 3500*time.Millisecond)
	assert.NotEqual(t, q.Nonce, again[0].msg.(*lisp.MapRequest).Nonce)
	assert.Equal(t, uint64(2), tc.e.Stats().SMRsSent)
	assert.Empty(t, tc.e.smr.peers, "nothing is kept")
	assert.Less(t, s.at.Sub(moveAt), 60*time.Millisecond)
}

// TestSMRStops: the SMR-invoked Map-Request ends it.
func TestSMRStops(t *testing.T) {
	for name, from := range map[string]string{"the peer": "203.0.113.101", "another": "203.0.113.102"} {
		t.Run(name, func(t *testing.T) {
			tc := talking(t)
			tc.setLocals(moved()...)
			tc.ackAll()
			tc.advance(time.Second)
			require.Len(t, tc.smrs(), 1)
			q := mapRequest("192.0.2.1/32", netip.MustParseAddr(from))
			q.SMRInvoked = true
			b := ecm(t, q, netip.MustParseAddrPort(from+":4342"), nil)
			require.True(t, tc.handleAt(moved()[0].Addr, msAddr, b))
			one[*lisp.MapReply](tc)
			tc.advance(time.Minute)
			if name == "another" {
				assert.Len(t, tc.smrs(), 1)
			} else {
				assert.Empty(t, tc.smrs())
			}
		})
	}
}

// TestSMRAnsweredAhead: a peer that asks for all it knows of us after the first SMR
// is not told of the rest; one that asks before it was told anything is.
func TestSMRAnsweredAhead(t *testing.T) {
	peer := netip.MustParseAddr("203.0.113.101")
	for _, tc := range []struct {
		name    string
		invoked bool
		early   bool // the request comes before the first SMR
		want    int  // SMRs that follow
	}{
		{"invoked", true, false, 0},
		{"a request like any other", false, false, 0},
		{"before any SMR", true, true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := talking(t, func(c *Config) { c.Database = []DatabaseMapping{{Key: hostKey(eid4)}, {Key: key("192.0.2.128/32")}} })
			c.setLocals(moved()...)
			ask := func() {
				for _, eid := range []string{"192.0.2.1/32", "192.0.2.128/32"} {
					q := mapRequest(eid, peer)
					q.SMRInvoked = tc.invoked
					require.True(t, c.handleAt(moved()[0].Addr, msAddr, ecm(t, q, netip.AddrPortFrom(peer, 4342), nil)))
				}
			}
			if tc.early {
				ask()
			}
			c.ackAll()
			c.advance(10 * time.Millisecond)
			require.Len(t, c.smrs(), 1, "one at a time")
			if !tc.early {
				ask()
			}
			c.advance(2 * smrInterval)
			assert.GreaterOrEqual(t, len(c.smrs()), tc.want)
			if tc.want == 0 {
				c.advance(time.Minute)
				assert.Empty(t, c.smrs())
			}
		})
	}
}

// TestSMRAudience: who is told.
func TestSMRAudience(t *testing.T) {
	p := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, n}) }
	pitr := netip.MustParseAddr("203.0.113.200")
	for _, c := range []struct {
		name   string
		change func(*Config)
		before func(tc *tester)
		want   []string
	}{
		{"data sent lately", nil, nil, []string{"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24"}},
		{"a minute ago", nil, func(tc *tester) { tc.advance(31 * time.Second) }, nil}, // RFC 9301-6.1-s1
		{"a longer window", func(c *Config) { c.SMR.Window = time.Hour }, func(tc *tester) { tc.advance(31 * time.Second) }, []string{
			"0.0s 192.0.2.1 to 203.0.113.100:4342 for 198.51.0.0/24",
			"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24",
			"0.0s 192.0.2.1 to 203.0.113.102:4342 for 198.51.2.0/24",
		}},
		{"all", func(c *Config) { c.SMR.All = true }, nil, []string{
			"0.0s 192.0.2.1 to 203.0.113.100:4342 for 198.51.0.0/24",
			"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24",
			"0.0s 192.0.2.1 to 203.0.113.102:4342 for 198.51.2.0/24",
		}},
		{"none", func(c *Config) { c.SMR.Window = -1 }, nil, nil},
		{"Proxy-ITRs", func(c *Config) { c.SMR.ProxyITRs = []netip.Addr{pitr} }, nil, []string{
			"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24",
			"0.0s 192.0.2.1 to 203.0.113.200:4342 for 192.0.2.1/32",
		}},
		{"Proxy-ITRs only", func(c *Config) { c.SMR = SMRConfig{Window: -1, ProxyITRs: []netip.Addr{pitr}} }, nil, []string{
			"0.0s 192.0.2.1 to 203.0.113.200:4342 for 192.0.2.1/32",
		}},
		{"packets in from a known one", nil, func(tc *tester) {
			tc.e.AddUsage(tc.now, mapcache.Usage{Locator: mapcache.Locator{Addr: p(102)}, PacketsIn: 1})
		}, []string{
			"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24",
			"0.0s 192.0.2.1 to 203.0.113.102:4342 for 198.51.2.0/24",
		}},
		{"packets in from elsewhere", nil, func(tc *tester) {
			tc.e.AddUsage(tc.now, mapcache.Usage{Locator: mapcache.Locator{Addr: p(99)}, PacketsIn: 1})
		}, []string{
			"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24",
			"0.0s 192.0.2.1 to 203.0.113.99:4342 for 192.0.2.1/32",
		}},
		{"just resolved for a packet", nil, func(tc *tester) {
			tc.learn(key("198.51.9.1/32"), record("198.51.9.0/24", 1440, p(109), p(110)))
		}, []string{
			"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24",
			"0.0s 192.0.2.1 to 203.0.113.109:4342 for 198.51.9.0/24",
			"0.0s 192.0.2.1 to 203.0.113.110:4342 for 198.51.9.0/24",
		}},
		{"one locator of two mappings", nil, func(tc *tester) {
			tc.learn(key("198.51.9.1/32"), record("198.51.9.0/24", 1440, p(101)))
		}, []string{"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24"}},
		{"a Proxy-ETR", func(c *Config) { c.ProxyETRs = []mapcache.RLOC{{Locator: mapcache.Locator{Addr: p(77)}}} }, func(tc *tester) {
			tc.learn(key("100.64.0.1/32"), negative("100.64.0.0/10", 15, lisp.ActionNativelyForward))
			tc.used(p(77))
		}, []string{"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24"}},
		{"no locator of the family", nil, func(tc *tester) {
			tc.learn(key("198.51.9.1/32"), record("198.51.9.0/24", 1440, netip.MustParseAddr("2001:db8:77::1")))
		}, []string{"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24"}},
		{"another family of EIDs", nil, func(tc *tester) {
			tc.learn(hostKey(peerEID6), record("2001:db8:2::/48", 1440, p(109))) // nothing of ours it could send to
		}, []string{"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24"}},
		{"not allowed that many", func(c *Config) { c.SMR.All, c.SMR.MaxPeers = true, 2 }, nil, []string{
			"0.0s 192.0.2.1 to 203.0.113.100:4342 for 198.51.0.0/24",
			"0.0s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := talking(t, func(cfg *Config) {
				if c.change != nil {
					c.change(cfg)
				}
			})
			if c.before != nil {
				c.before(tc)
			}
			at := tc.now
			tc.setLocals(moved()...)
			tc.ackAll()
			tc.advance(100 * time.Millisecond)
			assert.Equal(t, c.want, tc.smrLines(at))
		})
	}
}

// TestSMRWithoutNotify: peers are told 300 ms after the change when a Map-Server
// is silent, and not before the last of them has answered.
func TestSMRWithoutNotify(t *testing.T) {
	ms2 := netip.MustParseAddrPort("198.18.0.9:4342")
	tc := talking(t, func(c *Config) { c.MapServers = append(c.MapServers, MapServer{Addr: ms2, Key: testKey}) })
	at := tc.now
	tc.setLocals(moved()...)
	for _, s := range take[*lisp.MapRegister](tc) {
		if s.Remote == msAddr {
			require.True(t, tc.notify(s.msg.(*lisp.MapRegister), testKey))
		}
	}
	tc.advance(time.Second)
	assert.Equal(t, []string{"0.3s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24"}, tc.smrLines(at))
}

// TestSMRWithAllNotifies: peers are told as soon as the last of several Map-Servers
// has acknowledged the change.
func TestSMRWithAllNotifies(t *testing.T) {
	ms2 := netip.MustParseAddrPort("198.18.0.9:4342")
	tc := talking(t, func(c *Config) { c.MapServers = append(c.MapServers, MapServer{Addr: ms2, Key: testKey}) })
	at := tc.now
	tc.setLocals(moved()...)
	registers := take[*lisp.MapRegister](tc)
	require.Len(t, registers, 2)
	for i, s := range registers {
		tc.advance(100 * time.Millisecond)
		assert.Empty(t, tc.smrs(), "%d have acknowledged", i)
		m := s.msg.(*lisp.MapRegister)
		b, err := (&lisp.MapNotify{Nonce: m.Nonce, Records: m.Records}).AppendSigned(nil, testKey)
		require.NoError(t, err)
		require.True(t, tc.handle(s.Remote, b))
	}
	tc.advance(0)
	assert.Equal(t, []string{"0.2s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24"}, tc.smrLines(at))
}

// TestSMRCoalesced: several changes within a second, and several EID-Prefixes,
// are one SMR to each locator, and never more than one in three seconds.
func TestSMRCoalesced(t *testing.T) {
	tc := talking(t, func(c *Config) {
		c.Database = []DatabaseMapping{{Key: hostKey(eid4)}, {Key: key("192.0.2.128/25")}, {Key: hostKey(eid6)}}
	})
	tc.learn(hostKey(peerEID6), record("2001:db8:2::/48", 1440, netip.MustParseAddr("203.0.113.101")))
	at := tc.now
	for i := range 4 { // nobody acknowledges
		l := moved()
		l[0].Priority = uint8(i)
		tc.setLocals(l...)
		tc.advance(200 * time.Millisecond)
	}
	tc.advance(29 * time.Second)
	lines := tc.smrLines(at)
	require.Len(t, lines, 6, "each of three EIDs, twice")
	assert.Equal(t, "1.3s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24", lines[0], "300 ms after the last Map-Register")
	for _, want := range []string{" 192.0.2.128 to 203.0.113.101:4342 for 198.51.1.0/24", " 2001:db8:1::1 to 203.0.113.101:4342 for 2001:db8:2::/48"} {
		assert.Contains(t, lines[1]+lines[2], want, "of one family each")
	}
}

func TestSMRRate(t *testing.T) {
	tc := talking(t)
	var last time.Time
	n := 0
	for i := range 100 {
		l := moved()
		l[0].Priority = uint8(i)
		tc.setLocals(l...)
		tc.ackAll()
		tc.used(netip.MustParseAddr("203.0.113.101"))
		tc.advance(333 * time.Millisecond)
		for _, s := range tc.smrs() {
			if n++; !last.IsZero() {
				assert.GreaterOrEqual(t, s.at.Sub(last), 3*time.Second) // RFC 9301-6.1-3, 9301-6.1-2
			}
			last = s.at
		}
	}
	assert.InDelta(t, 11, n, 1, "and not fewer")
}

// TestSMRPaced: a change with many peers is no burst.
func TestSMRPaced(t *testing.T) {
	tc := talking(t, func(c *Config) { c.SMR.All = true })
	const peers = 2000
	for i := range peers {
		require.NoError(t, tc.e.Cache().Insert(tc.now, mapcache.Mapping{
			Key: mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})), TTL: time.Hour,
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.AddrFrom4([4]byte{100, 0, byte(i >> 8), byte(i)})}}},
		}))
	}
	tc.setLocals(moved()...)
	tc.ackAll()
	for range 4 {
		tc.advance(500 * time.Millisecond)
		assert.InDelta(t, 500, len(tc.smrs()), 5)
	}
	tc.advance(time.Minute)
	assert.Empty(t, tc.e.smr.peers)
}

// TestSMRNotPutOff: changes without end put the SMR off for a second and the time
// that Map-Servers have, not longer.
func TestSMRNotPutOff(t *testing.T) {
	tc := talking(t)
	at := tc.now
	for i := range 10 {
		l := moved()
		l[0].Priority = uint8(i)
		tc.setLocals(l...)
		tc.advance(200 * time.Millisecond)
	}
	lines := tc.smrLines(at)
	require.Len(t, lines, 1)
	assert.Equal(t, "1.3s 192.0.2.1 to 203.0.113.101:4342 for 198.51.1.0/24", lines[0])
}

// TestSMRRoom: SMRs that nobody answers for leave room for what expires.
func TestSMRRoom(t *testing.T) {
	tc := up(t, quiet, func(c *Config) { c.MaxPending = 10 })
	for i := range 30 {
		k := mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		require.NoError(t, tc.e.Cache().Insert(tc.now, mapcache.Mapping{
			Key: k, TTL: time.Hour, RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: peerRLOC}}},
		}))
		smr := mapRequest("192.0.2.1/32")
		smr.SMR, smr.SourceEID = true, lisp.AddressFrom(k.Prefix.Addr())
		require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, smr)))
	}
	assert.Equal(t, 5, tc.e.Stats().Pending)
	take[*lisp.MapRequest](tc)
	tc.e.refresh(tc.now, key("10.0.0.29/32"), reasons{expiring: true})
	tc.drain()
	one[*lisp.MapRequest](tc)
}
