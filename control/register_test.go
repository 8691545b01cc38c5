package control

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// noProbe leaves resolution and probing out of what is tested.
func noProbe(c *Config) {
	c.Probe.Interval = -1
	c.MapResolvers = nil
}

func TestRegisterContent(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		check  func(t *testing.T, s sent, m *lisp.MapRegister)
	}{
		{"plain", func(*Config) {}, func(t *testing.T, s sent, m *lisp.MapRegister) {
			assert.False(t, m.ProxyReply)
			assert.False(t, m.XTRIDPresent)
			assert.False(t, m.UseTTL)
			assert.True(t, m.WantMapNotify) // RFC 9301-8.2-5
			require.Len(t, m.Records, 2)
			r := m.Records[0]
			assert.Equal(t, uint32(1440), r.TTL)
			assert.Equal(t, uint8(32), r.MaskLen)
			assert.True(t, r.Authoritative) // RFC 9301-5.4-5
			assert.Zero(t, r.MapVersion)    // RFC 9302-6-4: versions are not made up
			require.Len(t, r.Locators, 2)
			for i, a := range []netip.Addr{rloc4, rloc6} {
				l := r.Locators[i]
				assert.Equal(t, lisp.RLOCRecord{
					Priority: 1, Weight: 100, MPriority: 255, Local: true, Reachable: true, RLOC: lisp.AddressFrom(a),
				}, l)
			}
		}},
		{"proxy reply", func(c *Config) { c.MapServers[0].ProxyReply = true }, func(t *testing.T, _ sent, m *lisp.MapRegister) {
			assert.True(t, m.ProxyReply) // RFC 9301-8.2-6, 9301-3-1
		}},
		{"identity", func(c *Config) { c.XTRID, c.SiteID = lisp.XTRID{15: 7}, 9 }, func(t *testing.T, _ sent, m *lisp.MapRegister) {
			assert.True(t, m.XTRIDPresent) // RFC 9301-5.6-1
			assert.Equal(t, lisp.XTRID{15: 7}, m.XTRID)
			assert.Equal(t, lisp.SiteID(9), m.SiteID)
		}},
		{"instance", func(c *Config) { c.Database = []DatabaseMapping{{Key: mapcache.Key{IID: 7, Prefix: eid4}}} }, func(t *testing.T, _ sent, m *lisp.MapRegister) {
			assert.Equal(t, lisp.EIDAddress(7, eid4.Addr()), m.Records[0].EID)
		}},
		{"another port", func(c *Config) { c.Port = 14342 }, func(t *testing.T, s sent, _ *lisp.MapRegister) {
			assert.Equal(t, netip.AddrPortFrom(rloc4, 14342), s.Local)
		}},
		{"sites with other ETRs", func(c *Config) {
			c.Database = c.Database[:1]
			c.Database[0].RLOCs = []DatabaseRLOC{
				{IfIndex: 2, Priority: 3, Weight: 30},
				{Addr: netip.MustParseAddr("203.0.113.9"), Priority: 4, Weight: 40, Remote: true},
				{Addr: netip.MustParseAddr("203.0.113.10"), Priority: 5},
			}
		}, func(t *testing.T, _ sent, m *lisp.MapRegister) {
			// RFC 9301-8.2-8: those of other ETRs are there too, and not as ours.
			got := fmt.Sprint(&m.Records[0])
			assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.1(3/30 LR) 203.0.113.9(4/40 R) 2001:db8:ffff::1(3/30 LR)", got)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := up(t, noProbe, c.change)
			s, m := one[*lisp.MapRegister](tc)
			assert.Equal(t, msAddr, s.Remote)
			assert.Equal(t, rloc4, s.Local.Addr())
			assert.Equal(t, 2, s.IfIndex)
			require.NoError(t, lisp.Verify(s.Bytes, testKey)) // RFC 9301-8.2-1
			c.check(t, s, m)
		})
	}
}

func TestRegisterAndNotify(t *testing.T) {
	tc := up(t, noProbe)
	_, m := one[*lisp.MapRegister](tc)
	tc.advance(50 * time.Millisecond)
	require.True(t, tc.notify(m, testKey))
	ev := eventsOf[Registered](tc)
	require.Len(t, ev, 1)
	assert.Equal(t, "registered 192.0.2.1/32 2001:db8:1::1/128 at 203.0.113.1 2001:db8:ffff::1 with Map-Server 198.18.0.1 in 50ms", ev[0].String())
	reg := tc.e.Registrations()
	require.Len(t, reg, 1)
	assert.Equal(t, StateRegistered, reg[0].State)
	assert.Equal(t, tc.now, reg[0].LastAck)
	assert.Equal(t, 50*time.Millisecond, reg[0].RTT)
	assert.Equal(t, 1, tc.e.Stats().Registered)

	// The periodic ones are no news.
	tc.advance(tc.e.Deadline().Sub(tc.now))
	_, m2 := one[*lisp.MapRegister](tc)
	assert.Equal(t, m.Nonce+1, m2.Nonce) // RFC 9301-5.6-s1
	require.True(t, tc.notify(m2, testKey))
	assert.Empty(t, eventsOf[Registered](tc))
}

// TestRegisterRetransmission is RFC 9301-5.7-1: the same message after one
// second, then two, the wait doubling up to a minute; the message is a new one
// after two retransmissions.
func TestRegisterRetransmission(t *testing.T) {
	tc := up(t, noProbe)
	tc.advance(15 * time.Minute)
	s := take[*lisp.MapRegister](tc)
	require.Greater(t, len(s), 15)
	wait := time.Second
	for i := 1; i < len(s); i++ {
		gap := s[i].at.Sub(s[i-1].at)
		if wait < time.Minute {
			assert.GreaterOrEqual(t, gap, wait, i)
			assert.LessOrEqual(t, gap, min(wait*11/10, time.Minute), i)
		} else {
			assert.GreaterOrEqual(t, gap, 54*time.Second, i)
			assert.LessOrEqual(t, gap, time.Minute, i) // RFC 9301-5.7-1
		}
		wait = min(2*wait, time.Minute)
		if i%3 != 0 {
			assert.Equal(t, s[i-1].Bytes, s[i].Bytes, "the original message") // RFC 9301-5.7-1
		} else {
			assert.Equal(t, s[i-1].msg.(*lisp.MapRegister).Nonce+1, s[i].msg.(*lisp.MapRegister).Nonce)
		}
	}
	ev := eventsOf[RegisterUnanswered](tc)
	require.Equal(t, len(s)-1, len(ev))
	assert.Equal(t, "no Map-Notify from Map-Server 198.18.0.1 for 192.0.2.1/32 2001:db8:1::1/128 after 1 Map-Register; sent again, next check in 2.1s", ev[0].String())
	for i, e := range ev {
		assert.Equal(t, i+1 >= registerSends, strings.HasSuffix(e.String(), unansweredHint), i)
	}
	reg := tc.e.Registrations()[0]
	assert.Equal(t, StateUnanswered, reg.State)
	assert.Equal(t, "no Map-Notify", reg.LastError)
}

// TestRegisterAfterOutage: a Map-Server that was dead for ten minutes is
// registered with again within a minute.
func TestRegisterAfterOutage(t *testing.T) {
	tc := up(t, noProbe)
	_, m := one[*lisp.MapRegister](tc)
	require.True(t, tc.notify(m, testKey))
	eventsOf[Registered](tc)
	tc.advance(10 * time.Minute)
	take[*lisp.MapRegister](tc)
	tc.advance(time.Minute)
	s, m := one[*lisp.MapRegister](tc)
	require.NoError(t, lisp.Verify(s.Bytes, testKey))
	require.True(t, tc.notify(m, testKey))
	ev := eventsOf[Registered](tc)
	require.Len(t, ev, 1)
	assert.True(t, ev[0].Again)
	assert.Contains(t, ev[0].String(), "registered again")
	assert.Empty(t, tc.e.Registrations()[0].LastError)
}

// TestRegisterPeriod is RFC 9301-8.2-4 and 9301-8.2-s1: at most every 20 s for
// at most five minutes, then every 60 s; a change of locators starts over.
func TestRegisterPeriod(t *testing.T) {
	tc := up(t, noProbe)
	check := func(from time.Time) {
		t.Helper()
		last := from
		for tc.now.Before(from.Add(20 * time.Minute)) {
			_, m := one[*lisp.MapRegister](tc)
			if gap := tc.now.Sub(last); gap > 0 {
				if last.Before(from.Add(5 * time.Minute)) {
					assert.GreaterOrEqual(t, gap, 20*time.Second)
					assert.LessOrEqual(t, gap, 22*time.Second)
				} else {
					assert.GreaterOrEqual(t, gap, 54*time.Second)
					assert.LessOrEqual(t, gap, 60*time.Second)
				}
			}
			last = tc.now
			require.True(t, tc.notify(m, testKey))
			tc.advance(tc.e.Deadline().Sub(tc.now))
		}
	}
	check(tc.now)
	take[*lisp.MapRegister](tc)
	tc.setLocals(locals()[0])
	check(tc.now)
	assert.Len(t, eventsOf[Registered](tc), 2)
	assert.Empty(t, eventsOf[RegisterUnanswered](tc))
}

func TestRegisterLocals(t *testing.T) {
	tc := newTester(t, noProbe)
	assert.True(t, tc.e.Deadline().IsZero(), "nothing to do without locators")
	assert.Empty(t, tc.e.Registrations())

	// A locator that is down is announced, as unreachable, but not used.
	l := locals()
	l[0].Up = false
	tc.setLocals(l...)
	assert.Empty(t, take[*lisp.MapRegister](tc), "the Map-Server is IPv4")
	assert.Equal(t, StateIdle, tc.e.Registrations()[0].State)
	assert.Equal(t, uint64(1), tc.e.Stats().Dropped[DropNoLocal])

	l[0].Up, l[1].Up = true, false
	tc.advance(time.Second)
	tc.setLocals(l...)
	_, m := one[*lisp.MapRegister](tc)
	assert.True(t, m.Records[0].Locators[0].Reachable)
	assert.False(t, m.Records[0].Locators[1].Reachable) // RFC 9300-11-s1

	// The same ones again are no change.
	tc.setLocals(l...)
	assert.Empty(t, take[*lisp.MapRegister](tc))

	// RFC 9300-4-3: an EID is no RLOC. Nor is a multicast address.
	tc.advance(time.Second)
	take[*lisp.MapRegister](tc)
	tc.setLocals(
		mapcache.Local{Addr: eid4.Addr(), Up: true}, mapcache.Local{Addr: netip.MustParseAddr("224.0.0.1"), Up: true},
		mapcache.Local{Addr: netip.MustParseAddr("::ffff:203.0.113.5"), Up: true})
	_, m = one[*lisp.MapRegister](tc)
	assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.5(0/0 LR)", fmt.Sprint(&m.Records[0]))
	assert.Equal(t, "own locators: 203.0.113.5", eventsOf[LocalsChanged](tc)[2].String())

	tc.setLocals()
	assert.Equal(t, StateIdle, tc.e.Registrations()[0].State)
	assert.Equal(t, "own locators: none", eventsOf[LocalsChanged](tc)[0].String())
}

// TestChangesCoalesced: a few changes of our locators are registered at once,
// many of them once a second.
func TestChangesCoalesced(t *testing.T) {
	tc := up(t, noProbe)
	require.True(t, tc.notify(take[*lisp.MapRegister](tc)[0].msg.(*lisp.MapRegister), testKey))
	tc.advance(5 * time.Second)
	at := tc.now
	registered := func(wait time.Duration, priority uint8) (out []string) {
		l := locals()
		l[0].Priority = priority
		tc.setLocals(l...)
		for range wait / (50 * time.Millisecond) {
			tc.advance(50 * time.Millisecond)
			for _, s := range take[*lisp.MapRegister](tc) {
				m := s.msg.(*lisp.MapRegister)
				out = append(out, fmt.Sprintf("%.2fs %d", s.at.Sub(at).Seconds(), m.Records[0].Locators[0].Priority))
				require.True(t, tc.notify(m, testKey))
			}
		}
		return out
	}
	assert.Equal(t, []string{"0.00s 2"}, registered(100*time.Millisecond, 2))
	assert.Equal(t, []string{"0.10s 3"}, registered(100*time.Millisecond, 3))
	assert.Equal(t, []string{"0.20s 4"}, registered(100*time.Millisecond, 4))
	assert.Empty(t, registered(300*time.Millisecond, 5))
	assert.Empty(t, registered(300*time.Millisecond, 6))
	assert.Equal(t, []string{"1.00s 6"}, registered(150*time.Millisecond, 6), "the last state, nothing new")
	assert.Equal(t, []string{"2.00s 7"}, registered(5*time.Second, 7), "a second after the last")
	assert.Equal(t, []string{"6.05s 8"}, registered(10*time.Second, 8), "at once after a time of quiet")

	var all []string
	for i := range 160 { // interfaces that flap
		all = append(all, registered(50*time.Millisecond, uint8(10+i))...)
	}
	all = append(all, registered(time.Second, 169)...)
	assert.Len(t, all, 3+8, "in eight seconds")
	assert.Contains(t, all[len(all)-1], " 169", "the last state")
}

func TestMapNotifyRefused(t *testing.T) {
	wrong := testKey
	wrong.Secret = []byte("another")
	wrongID := testKey
	wrongID.ID = 2
	sha1 := testKey
	sha1.Algorithm = lisp.AlgorithmHMACSHA1
	none := lisp.Key{ID: 1}
	for _, c := range []struct {
		name    string
		from    netip.AddrPort
		key     lisp.Key
		mangle  func([]byte) []byte
		claimed bool
		reason  DropReason
		event   bool
	}{
		{"wrong key", msAddr, wrong, nil, true, DropAuthentication, true},      // RFC 9301-5.7-s4
		{"wrong Key ID", msAddr, wrongID, nil, true, DropAuthentication, true}, // RFC 9301-5.7-s4
		{"other algorithm", msAddr, sha1, nil, true, DropAuthentication, true},
		{"algorithm none", msAddr, none, nil, true, DropAuthentication, true},
		{"changed octet", msAddr, testKey, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, true, DropAuthentication, true},
		{"octet appended", msAddr, testKey, func(b []byte) []byte { return append(b, 0) }, true, DropAuthentication, true},
		{"cut", msAddr, testKey, func(b []byte) []byte { return b[:30] }, true, DropMalformed, false},
		{"other sender", mr1, testKey, nil, false, DropUnknownSender, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := up(t, noProbe)
			_, m := one[*lisp.MapRegister](tc)
			n := lisp.MapNotify{Nonce: m.Nonce, Records: m.Records}
			b, err := n.AppendSigned(nil, c.key)
			require.NoError(t, err)
			if c.mangle != nil {
				b = c.mangle(b)
			}
			assert.Equal(t, c.claimed, tc.handle(c.from, b))
			assert.Equal(t, StateWaiting, tc.e.Registrations()[0].State)
			assert.Equal(t, uint64(1), tc.e.Stats().Dropped[c.reason])
			assert.Zero(t, tc.e.Stats().MapNotifiesReceived)
			assert.Empty(t, eventsOf[Registered](tc))
			failed := eventsOf[RegisterFailed](tc)
			if c.event {
				require.Len(t, failed, 1)
				assert.Equal(t, failed[0].Reason, tc.e.Registrations()[0].LastError)
				// The same again is counted, and no news.
				tc.handle(c.from, b)
				assert.Empty(t, eventsOf[RegisterFailed](tc))
			} else {
				assert.Empty(t, failed)
			}
			// The right one still counts.
			require.True(t, tc.notify(m, testKey))
			assert.Equal(t, StateRegistered, tc.e.Registrations()[0].State)
		})
	}
}

func TestMapNotifyLeavesOut(t *testing.T) {
	tc := up(t, noProbe)
	_, m := one[*lisp.MapRegister](tc)
	m.Records = m.Records[:1]
	require.True(t, tc.notify(m, testKey))
	ev := eventsOf[RegisterFailed](tc)
	require.Len(t, ev, 1)
	assert.Equal(t, "registration of 2001:db8:1::1/128 with Map-Server 198.18.0.1 failed: the Map-Notify leaves out 2001:db8:1::1/128", ev[0].String())
	assert.Empty(t, eventsOf[Registered](tc))
}

func TestMapNotifyDuplicate(t *testing.T) {
	tc := up(t, noProbe)
	_, m := one[*lisp.MapRegister](tc)
	require.True(t, tc.notify(m, testKey))
	next := tc.e.Deadline()
	require.True(t, tc.notify(m, testKey))
	assert.Equal(t, next, tc.e.Deadline())
	assert.Empty(t, take[*lisp.MapNotifyAck](tc)) // RFC 9301-5.7-s3: it was solicited
	assert.Empty(t, eventsOf[UnsolicitedNotify](tc))
}

// TestMapNotifyUnsolicited is RFC 9301-5.7-s3.
func TestMapNotifyUnsolicited(t *testing.T) {
	tc := up(t, noProbe)
	_, m := one[*lisp.MapRegister](tc)
	require.True(t, tc.notify(m, testKey))
	n := lisp.MapNotify{Nonce: 42, Records: []lisp.EIDRecord{record("192.0.2.1/32", 1440, peerRLOC)}}
	b, err := n.AppendSigned(nil, testKey)
	require.NoError(t, err)
	for range 2 { // each that comes is acknowledged once
		require.True(t, tc.handle(msAddr, b))
		s, ack := one[*lisp.MapNotifyAck](tc)
		assert.Equal(t, msAddr, s.Remote)                 // RFC 9301-5-s1
		require.NoError(t, lisp.Verify(s.Bytes, testKey)) // RFC 9301-5.7-s4
		assert.Equal(t, lisp.Nonce(42), ack.Nonce)
		assert.Equal(t, n.Records, ack.Records)
		ev := eventsOf[UnsolicitedNotify](tc)
		require.Len(t, ev, 1)
		assert.Equal(t, "Map-Server 198.18.0.1 notifies of a change of 192.0.2.1/32", ev[0].String())
	}
	tc.advance(time.Hour)
	assert.Empty(t, take[*lisp.MapNotifyAck](tc)) // RFC 9301-5.7-s3: never again by itself

	// A forged one changes nothing and gets nothing.
	b[len(b)-1] ^= 1
	require.True(t, tc.handle(msAddr, b))
	assert.Empty(t, take[*lisp.MapNotifyAck](tc)) // RFC 9301-5.7-s4
	assert.Equal(t, uint64(1), tc.e.Stats().Dropped[DropAuthentication])
}

func TestRegisterWrongKeyBesideRightOne(t *testing.T) {
	wrong := testKey
	wrong.Secret = []byte("wrong")
	tc := up(t, noProbe, func(c *Config) {
		c.MapServers = append(c.MapServers, MapServer{Addr: msAddr, Key: wrong})
	})
	s := take[*lisp.MapRegister](tc)
	require.Len(t, s, 2)
	require.NoError(t, lisp.Verify(s[1].Bytes, wrong))
	require.True(t, tc.notify(s[0].msg.(*lisp.MapRegister), testKey))
	tc.advance(10 * time.Second)
	reg := tc.e.Registrations()
	assert.Equal(t, StateRegistered, reg[0].State)
	assert.Equal(t, StateUnanswered, reg[1].State)
}

// TestMapNotifyOfAnotherServer: the answer must come from the Map-Server that
// was asked, even when another one has the same key.
func TestMapNotifyOfAnotherServer(t *testing.T) {
	tc := up(t, noProbe, func(c *Config) { c.MapServers = append(c.MapServers, MapServer{Addr: mr1, Key: testKey}) })
	m := take[*lisp.MapRegister](tc)[0].msg.(*lisp.MapRegister)
	n := lisp.MapNotify{Nonce: m.Nonce, Records: m.Records}
	b, err := n.AppendSigned(nil, testKey)
	require.NoError(t, err)
	require.True(t, tc.handle(mr1, b))
	assert.Equal(t, StateWaiting, tc.e.Registrations()[0].State)
	assert.Equal(t, StateWaiting, tc.e.Registrations()[1].State)
}

// manyPrefixes is a database of n IPv4 prefixes.
func manyPrefixes(n int) []DatabaseMapping {
	db := make([]DatabaseMapping, n)
	for i := range db {
		db[i].Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { db[i], db[j] = db[j], db[i] })
	return db
}

// TestRegisterSplit is RFC 9301-5-2: many EID-Prefixes take several
// Map-Registers, each within the size of a packet and acknowledged by itself.
func TestRegisterSplit(t *testing.T) {
	ms6 := netip.MustParseAddrPort("[2001:db8:5::1]:4342")
	for _, c := range []struct {
		name   string
		server netip.AddrPort
		mtu    int
		limit  int // octets of the IP packet
		header int
	}{
		{"IPv4", msAddr, 0, 576, 28},
		{"IPv6", ms6, 0, 1280, 48},
		{"path MTU", msAddr, 20000, 20000, 28},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const prefixes = 5000
			tc := up(t, noProbe, func(cfg *Config) {
				cfg.Database = manyPrefixes(prefixes)
				cfg.MapServers[0].Addr = c.server
				cfg.PathMTU = c.mtu
			})
			tc.advance(10 * time.Second)
			seen := make(map[mapcache.Key]bool)
			outstanding := make(map[int]*lisp.MapRegister)
			for _, s := range take[*lisp.MapRegister](tc) {
				assert.LessOrEqual(t, len(s.Bytes)+c.header, c.limit)
				m := s.msg.(*lisp.MapRegister)
				assert.LessOrEqual(t, len(m.Records), 255)
				for i := range m.Records {
					k, ok := recordKey(&m.Records[i])
					require.True(t, ok)
					seen[k] = true
				}
				outstanding[int(m.Nonce)] = m
			}
			assert.Len(t, seen, prefixes)
			regs := tc.e.Registrations()
			if c.mtu != 0 {
				assert.Equal(t, 20, len(regs)) // 255 records at most
			}
			// One unacknowledged message each; all but the first are acknowledged.
			for i, r := range regs {
				m := outstanding[int(r.Nonce)]
				require.NotNil(t, m)
				if i > 0 {
					n := lisp.MapNotify{Nonce: m.Nonce, Records: m.Records}
					b, err := n.AppendSigned(nil, testKey)
					require.NoError(t, err)
					require.True(t, tc.handle(c.server, b))
				}
			}
			assert.Equal(t, len(regs)-1, tc.e.Stats().Registered)
			tc.advance(9 * time.Second)
			assert.Len(t, take[*lisp.MapRegister](tc), 1, "only the first is sent again")
		})
	}
}

func TestRegisterManyLocators(t *testing.T) {
	tc := newTester(t, noProbe)
	var ls []mapcache.Local
	for i := range 60 {
		ls = append(ls, mapcache.Local{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), Priority: uint8(60 - i), Up: true})
	}
	tc.setLocals(ls...)
	m := take[*lisp.MapRegister](tc)[0].msg.(*lisp.MapRegister)
	n := len(m.Records[0].Locators)
	assert.Less(t, n, 60) // RFC 9301-5-2: more would not fit
	assert.Equal(t, lisp.AddressFrom(netip.MustParseAddr("203.0.113.60")), m.Records[0].Locators[n-1].RLOC, "the best are kept")
}

func TestWithdraw(t *testing.T) {
	tc := up(t, noProbe)
	_, m := one[*lisp.MapRegister](tc)
	require.True(t, tc.notify(m, testKey))
	assert.False(t, tc.e.WithdrawDone())
	tc.e.Withdraw(tc.now)
	tc.drain()
	s, w := one[*lisp.MapRegister](tc)
	require.NoError(t, lisp.Verify(s.Bytes, testKey))
	assert.Equal(t, m.Nonce+1, w.Nonce)
	for _, r := range w.Records {
		assert.Zero(t, r.TTL)
	}
	assert.False(t, tc.e.WithdrawDone())
	tc.advance(1500 * time.Millisecond)
	again, _ := one[*lisp.MapRegister](tc)
	assert.Equal(t, s.Bytes, again.Bytes)
	require.True(t, tc.notify(w, testKey))
	assert.True(t, tc.e.WithdrawDone())
	assert.Equal(t, StateWithdrawn, tc.e.Registrations()[0].State)
	assert.Len(t, eventsOf[Withdrawn](tc), 1)
	tc.e.Withdraw(tc.now)
	tc.setLocals(locals()[0])
	tc.advance(time.Hour)
	assert.Empty(t, take[*lisp.MapRegister](tc))
}

func TestWithdrawNothing(t *testing.T) {
	tc := newTester(t)
	tc.e.Withdraw(tc.now)
	assert.True(t, tc.e.WithdrawDone())
	tc.setLocals(locals()...)
	assert.Empty(t, take[*lisp.MapRegister](tc))
}

// TestRegisterNonce is RFC 9301-5.6-4 and 9301-5.6-5: nonces grow across
// restarts, with the stored one and, while the clock goes on, without.
func TestRegisterNonce(t *testing.T) {
	first := func(at time.Time, stored lisp.Nonce) (lisp.Nonce, *Engine) {
		tc := newTester(t, noProbe, func(c *Config) { c.RegisterNonce = stored })
		tc.now = at
		tc.setLocals(locals()...)
		tc.advance(time.Minute)
		return take[*lisp.MapRegister](tc)[0].msg.(*lisp.MapRegister).Nonce, tc.e
	}
	n1, e := first(start, 0)
	stored := e.RegisterNonce()
	assert.Greater(t, stored, n1)
	for _, c := range []struct {
		name   string
		at     time.Time
		stored lisp.Nonce
	}{
		{"later, lost", start.Add(2 * time.Second), 0},
		{"later, stored", start.Add(2 * time.Second), stored},
		{"clock back, stored", start.Add(-time.Hour), stored},
		{"no clock, stored", time.Unix(0, 0), stored},
	} {
		n, _ := first(c.at, c.stored)
		assert.Greater(t, n, stored, c.name)
	}
	n, _ := first(time.Unix(0, 0), 0)
	assert.Equal(t, lisp.Nonce(1), n)
}
