package control

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// mapRequest asks for a prefix, to be answered at peerRLOC.
func mapRequest(prefix string, itr ...netip.Addr) *lisp.MapRequest {
	p := netip.MustParsePrefix(prefix)
	m := &lisp.MapRequest{
		Nonce:     0x0123456789abcdef,
		SourceEID: lisp.AddressFrom(peerEID.Addr()),
		Records:   []lisp.RequestRecord{{MaskLen: uint8(p.Bits()), EID: lisp.AddressFrom(p.Addr())}},
	}
	if len(itr) == 0 {
		itr = []netip.Addr{peerRLOC}
	}
	for _, a := range itr {
		m.ITRRLOCs = append(m.ITRRLOCs, lisp.AddressFrom(a))
	}
	return m
}

// ecm encapsulates a message as a Map-Server forwards it.
func ecm(t *testing.T, m lisp.Message, source netip.AddrPort, security []byte) []byte {
	t.Helper()
	dst := eid4.Addr()
	if source.Addr().Is6() {
		dst = eid6.Addr()
	}
	p, err := lisp.AppendInner(nil, lisp.Inner{Source: source, Destination: netip.AddrPortFrom(dst, 4342), Payload: encode(t, m)})
	require.NoError(t, err)
	return encode(t, &lisp.EncapsulatedControl{Packet: p, Security: security})
}

// replier is an xTR that only answers.
func replier(c *Config) {
	quiet(c)
	c.MapResolvers = nil
}

func TestMapReply(t *testing.T) {
	peer := netip.AddrPortFrom(peerRLOC, 50000)
	itr6 := netip.MustParseAddr("2001:db8:ffff::2")
	for _, c := range []struct {
		name  string
		bytes func(t *testing.T) []byte
		from  netip.AddrPort
		local string
		to    string
	}{
		// RFC 9301-5.5-s1: to an ITR-RLOC and the source port of the request.
		{"direct", func(t *testing.T) []byte { return encode(t, mapRequest("192.0.2.1/32")) }, peer, "203.0.113.1:4342", "203.0.113.2:50000"},
		{"encapsulated", func(t *testing.T) []byte {
			return ecm(t, mapRequest("192.0.2.1/32"), netip.AddrPortFrom(peerRLOC, 50001), nil)
		}, msAddr, "203.0.113.1:4342", "203.0.113.2:50001"},
		{"encapsulated, the EID as inner source", func(t *testing.T) []byte {
			return ecm(t, mapRequest("192.0.2.1/32"), netip.AddrPortFrom(peerEID.Addr(), 4342), nil)
		}, msAddr, "203.0.113.1:4342", "203.0.113.2:4342"},
		{"port rewritten by a NAT", func(t *testing.T) []byte { return encode(t, mapRequest("192.0.2.1/32")) }, netip.AddrPortFrom(peerRLOC, 1024), "203.0.113.1:4342", "203.0.113.2:1024"}, // RFC 9301-5-1
		{"the ITR-RLOC that it came from", func(t *testing.T) []byte {
			return encode(t, mapRequest("192.0.2.1/32", itr6, netip.MustParseAddr("203.0.113.77"), peerRLOC))
		}, peer, "203.0.113.1:4342", "203.0.113.2:50000"},
		{"the family that it came by", func(t *testing.T) []byte {
			return ecm(t, mapRequest("192.0.2.1/32", itr6, netip.MustParseAddr("203.0.113.77")), netip.AddrPortFrom(peerEID.Addr(), 4342), nil)
		}, msAddr, "203.0.113.1:4342", "203.0.113.77:4342"},
		{"the other family", func(t *testing.T) []byte { return encode(t, mapRequest("192.0.2.1/32", itr6)) }, peer, "[2001:db8:ffff::1]:4342", "[2001:db8:ffff::2]:50000"},
		{"an LCAF among the ITR-RLOCs", func(t *testing.T) []byte {
			m := mapRequest("192.0.2.1/32", peerRLOC)
			var key lisp.Address
			require.NoError(t, key.UnmarshalBinary([]byte{0x40, 3, 0, 0, 14, 0, 0, 2, 0, 0}))
			m.ITRRLOCs = append([]lisp.Address{key}, m.ITRRLOCs...)
			return encode(t, m)
		}, peer, "203.0.113.1:4342", "203.0.113.2:50000"},
		{"with the sender's mapping", func(t *testing.T) []byte { // RFC 9301-5.2-s4, 9301-5.3-8: it is not looked at
			m := mapRequest("192.0.2.1/32")
			r := record("198.51.100.0/24", 9, peerRLOC)
			m.MapData = &r
			return encode(t, m)
		}, peer, "203.0.113.1:4342", "203.0.113.2:50000"},
		{"several records", func(t *testing.T) []byte {
			m := mapRequest("192.0.2.1/32")
			m.Records = append(m.Records, mapRequest("198.51.100.1/32").Records[0], m.Records[0])
			return encode(t, m)
		}, peer, "203.0.113.1:4342", "203.0.113.2:50000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := up(t, replier)
			require.True(t, tc.handle(c.from, c.bytes(t)))
			s, m := one[*lisp.MapReply](tc)
			assert.Equal(t, c.local, s.Local.String())
			assert.Equal(t, c.to, s.Remote.String())
			assert.Equal(t, lisp.Nonce(0x0123456789abcdef), m.Nonce)
			assert.False(t, m.Probe)
			assert.False(t, m.EchoNonce) // RFC 9300-4.1-3
			require.Len(t, m.Records, 1)
			// Sorted, ours with the L bit, A set, R by what is up.
			assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.1(1/100 LR) 2001:db8:ffff::1(1/100 LR)", m.Records[0].String())
			assert.Zero(t, tc.e.Cache().Len())
			ev := eventsOf[MapRequestReceived](tc)
			require.Len(t, ev, 1)
			assert.Equal(t, fmt.Sprintf("Map-Request for 192.0.2.1/32 from %v answered", s.Remote.Addr()), ev[0].String())
		})
	}
}

func TestMapRequestNotAnswered(t *testing.T) {
	peer := netip.AddrPortFrom(peerRLOC, 4342)
	plain := func(change func(*lisp.MapRequest)) func(*testing.T) []byte {
		return func(t *testing.T) []byte {
			m := mapRequest("192.0.2.1/32")
			change(m)
			return encode(t, m)
		}
	}
	for _, c := range []struct {
		name    string
		bytes   func(t *testing.T) []byte
		claimed bool
		reason  DropReason
	}{
		{"not our EID", func(t *testing.T) []byte { return encode(t, mapRequest("198.51.100.1/32")) }, false, DropNotOurEID}, // RFC 9300-4.2-s1
		{"D bit", plain(func(m *lisp.MapRequest) { m.DontMapReply = true }), true, DropNoReplyWanted},                        // RFC 9301-5.2-s3
		{"no ITR-RLOC", plain(func(m *lisp.MapRequest) { m.ITRRLOCs = []lisp.Address{{}} }), true, DropNoITRRLOC},            // RFC 9301-5.3-4
		{"multicast ITR-RLOC", plain(func(m *lisp.MapRequest) {
			m.ITRRLOCs = []lisp.Address{lisp.AddressFrom(netip.MustParseAddr("224.0.0.1")), lisp.AddressFrom(netip.MustParseAddr("255.255.255.255"))}
		}), true, DropNoITRRLOC}, // RFC 9301-5.4-13
		{"loopback ITR-RLOC", plain(func(m *lisp.MapRequest) {
			m.ITRRLOCs = []lisp.Address{lisp.AddressFrom(netip.MustParseAddr("127.0.0.1"))}
		}), true, DropNoITRRLOC},
		{"another instance", plain(func(m *lisp.MapRequest) { m.Records[0].EID = lisp.EIDAddress(9, eid4.Addr()) }), false, DropNotOurEID},
		{"encapsulated probe", func(t *testing.T) []byte { // RFC 9301-5.8-5, 9301-5.2-3
			m := mapRequest("192.0.2.1/32")
			m.Probe = true
			return ecm(t, m, peer, nil)
		}, true, DropEncapsulated},
		{"secured", func(t *testing.T) []byte {
			ad := append([]byte{1, 0, 0, 2, 0, 24, 0, 1}, make([]byte, 24)...)
			return ecm(t, mapRequest("192.0.2.1/32"), peer, append(ad, 0, 4, 0, 2))
		}, false, DropSecured},
		{"broken inner checksum", func(t *testing.T) []byte {
			b := ecm(t, mapRequest("192.0.2.1/32"), peer, nil)
			b[len(b)-1] ^= 1
			return b
		}, true, DropMalformed}, // RFC 9301-5-3
		{"cut", func(t *testing.T) []byte { b := encode(t, mapRequest("192.0.2.1/32")); return b[:len(b)-2] }, true, DropMalformed},
		{"cut ECM", func(*testing.T) []byte { return []byte{0x88, 0, 0, 0} }, true, DropMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := up(t, replier)
			assert.Equal(t, c.claimed, tc.handle(peer, c.bytes(t)))
			assert.Empty(t, tc.sent)
			assert.Equal(t, uint64(1), tc.e.Stats().Dropped[c.reason])
		})
	}
}

// TestForOthers: what an xTR is not the receiver of is left to other cores.
func TestForOthers(t *testing.T) {
	tc := up(t, replier)
	for _, m := range []lisp.Message{
		&lisp.MapRegister{}, &lisp.MapNotifyAck{}, &lisp.MapNotify{},
	} {
		assert.False(t, tc.handle(msAddr, encode(t, m)), "%v", m.Type())
	}
	assert.False(t, tc.handle(msAddr, ecm(t, &lisp.MapRegister{}, msAddr, nil)))
	assert.False(t, tc.handle(msAddr, nil))
	assert.False(t, tc.handle(msAddr, []byte{0xf0, 0, 0, 0}))
	assert.Empty(t, tc.sent)
}

// TestMapReplyOverlap is RFC 9301-5.5-2, 9301-5.5-3 and 9301-5.5-s3: the match
// with its more-specifics, not its less-specifics, with one TTL.
func TestMapReplyOverlap(t *testing.T) {
	db := func(c *Config) {
		c.Database = nil
		for i, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.2.0/24", "10.2.0.0/16", "172.16.0.0/12"} {
			c.Database = append(c.Database, DatabaseMapping{Key: key(p), TTL: time.Duration(i+1) * time.Hour})
		}
	}
	for _, c := range []struct {
		ask  string
		want string
		ttl  uint32
	}{
		{"10.1.1.7/32", "[10.1.1.0/24]", 180},
		{"10.1.3.7/32", "[10.1.0.0/16 10.1.1.0/24 10.1.2.0/24]", 120},
		{"10.3.0.1/32", "[10.0.0.0/8 10.1.0.0/16 10.1.1.0/24 10.1.2.0/24 10.2.0.0/16]", 60},
		{"10.1.1.0/24", "[10.1.1.0/24]", 180},
		{"10.1.0.0/16", "[10.1.0.0/16 10.1.1.0/24 10.1.2.0/24]", 120},
		{"10.0.0.0/8", "[10.0.0.0/8 10.1.0.0/16 10.1.1.0/24 10.1.2.0/24 10.2.0.0/16]", 60},
		{"172.16.5.0/24", "[172.16.0.0/12]", 360},
		{"10.0.0.0/7", "[10.0.0.0/8 10.1.0.0/16 10.1.1.0/24 10.1.2.0/24 10.2.0.0/16]", 60},
	} {
		t.Run(c.ask, func(t *testing.T) {
			t.Parallel()
			tc := up(t, replier, db)
			require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest(c.ask))))
			_, m := one[*lisp.MapReply](tc) // RFC 9301-5.5-2
			var got []mapcache.Key
			for i := range m.Records {
				k, ok := recordKey(&m.Records[i])
				require.True(t, ok)
				got = append(got, k)
				assert.Equal(t, c.ttl, m.Records[i].TTL) // RFC 9301-5.5-3
			}
			assert.Equal(t, c.want, fmt.Sprint(got)) // RFC 9301-5.5-s3
		})
	}
}

// TestMapReplySplit is RFC 9301-5-2: overlapping prefixes that do not fit come
// in several Map-Replies, a bounded number, and another engine takes them all.
func TestMapReplySplit(t *testing.T) {
	for _, n := range []int{50, 5000} {
		tc := up(t, replier, func(c *Config) {
			c.Database = append(manyPrefixes(n), DatabaseMapping{Key: key("10.0.0.0/8")})
		})
		itr := up(t, quiet)
		itr.resolve(key("10.200.0.1/32"))
		_, ask := one[*lisp.MapRequest](itr)
		ask.ITRRLOCs = ask.ITRRLOCs[:1]
		tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, ask))
		s := take[*lisp.MapReply](tc)
		assert.LessOrEqual(t, len(s), maxReplyMessages)
		for _, r := range s {
			assert.LessOrEqual(t, len(r.Bytes)+28, 576)
			require.True(t, itr.handle(netip.AddrPortFrom(peerRLOC, 4342), r.Bytes))
		}
		if n == 50 {
			assert.Equal(t, n+1, itr.e.Cache().Len())
		}
	}
}

// TestMapReplyRate is RFC 9301-5.4-16 and 9301-7-2: no flood of Map-Requests
// makes us send much, to one receiver or in all, and others are still served.
func TestMapReplyRate(t *testing.T) {
	t.Run("one receiver", func(t *testing.T) {
		tc := up(t, replier, func(c *Config) { c.MapReplyBurst = 10 })
		b := encode(t, mapRequest("192.0.2.1/32"))
		from := netip.AddrPortFrom(peerRLOC, 4342)
		for range 300 {
			tc.handle(from, b)
			tc.advance(100 * time.Millisecond)
		}
		n := len(take[*lisp.MapReply](tc))
		assert.LessOrEqual(t, n, 10+30/3+1) // RFC 9301-5.4-17: one in three seconds, after a burst
		assert.GreaterOrEqual(t, n, 10+30/3-1)
		assert.Equal(t, uint64(300-n), tc.e.Stats().Dropped[DropMapReplyRate])
		// Others are answered.
		tc.handle(netip.MustParseAddrPort("203.0.113.3:4342"), encode(t, mapRequest("192.0.2.1/32", netip.MustParseAddr("203.0.113.3"))))
		assert.Equal(t, 1, len(take[*lisp.MapReply](tc)))
	})
	t.Run("all", func(t *testing.T) {
		tc := up(t, replier, func(c *Config) { c.MapReplyRate = 100 })
		for i := range 20000 {
			a := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
			tc.handle(netip.AddrPortFrom(a, 4342), encode(t, mapRequest("192.0.2.1/32", a)))
			tc.advance(time.Millisecond)
		}
		assert.LessOrEqual(t, len(take[*lisp.MapReply](tc)), 100+20*100)
		assert.LessOrEqual(t, len(tc.e.rlocLimits.cur)+len(tc.e.rlocLimits.old), 2*maxLimiters)
	})
	t.Run("no amplification", func(t *testing.T) {
		tc := up(t, replier, func(c *Config) {
			c.Database = append(manyPrefixes(1000), DatabaseMapping{Key: key("10.0.0.0/8")})
		})
		in, out := 0, 0
		b := encode(t, mapRequest("10.200.0.1/32"))
		for range 10000 {
			in += len(b)
			tc.handle(netip.AddrPortFrom(peerRLOC, 4342), b)
			tc.advance(time.Millisecond)
		}
		for _, s := range take[*lisp.MapReply](tc) {
			out += len(s.Bytes)
		}
		assert.NotZero(t, out)
		assert.Less(t, out, in)
	})
}

// TestProbeReplyRate: a peer in conversation may probe several times a second for
// as long as it likes; others, and those in whose name others probe, may not.
func TestProbeReplyRate(t *testing.T) {
	for _, c := range []struct {
		name     string
		known    bool
		from, to netip.Addr
		probe    bool
		want     int
	}{
		{"a peer", true, peerRLOC, peerRLOC, true, 600},
		{"no probe", true, peerRLOC, peerRLOC, false, 64 + 19},
		{"a stranger", false, peerRLOC, peerRLOC, true, 64 + 19},
		{"a stranger about a peer", true, netip.MustParseAddr("203.0.113.66"), peerRLOC, true, 64 + 19},
	} {
		t.Run(c.name, func(t *testing.T) {
			tc := up(t, quiet)
			if c.known {
				tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
			}
			take[*lisp.MapReply](tc)
			for range 600 {
				m := mapRequest("192.0.2.1/32", c.to)
				m.Probe = c.probe
				require.True(t, tc.handleAt(rloc4, netip.AddrPortFrom(c.from, 4342), encode(t, m)))
				tc.advance(100 * time.Millisecond)
			}
			assert.InDelta(t, c.want, len(take[*lisp.MapReply](tc)), 1)
		})
	}
	t.Run("without end", func(t *testing.T) {
		tc := up(t, quiet)
		tc.learn(hostKey(peerEID), record("198.51.100.0/24", 1440, peerRLOC))
		m := mapRequest("192.0.2.1/32", peerRLOC)
		m.Probe = true
		for range 1000 {
			require.True(t, tc.handleAt(rloc4, netip.AddrPortFrom(peerRLOC, 4342), encode(t, m)))
			tc.advance(time.Millisecond)
		}
		assert.InDelta(t, 64+100, len(take[*lisp.MapReply](tc)), 2)
	})
}

func TestLimiterTableKeepsTokens(t *testing.T) {
	tab := newLimiterTable(1, 1)
	now := start
	require.True(t, tab.allow(now, peerRLOC))
	for i := range maxLimiters {
		tab.allow(now, netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}))
	}
	assert.False(t, tab.allow(now, peerRLOC), "the older generation still counts")
}

func TestProbeReply(t *testing.T) {
	from := netip.AddrPortFrom(peerRLOC, 4342)
	probe := func(prefix string) *lisp.MapRequest {
		m := mapRequest(prefix)
		m.Probe, m.SourceEID = true, lisp.Address{}
		return m
	}
	t.Run("the locator probed", func(t *testing.T) {
		tc := newTester(t, replier)
		second := netip.MustParseAddr("203.0.113.11")
		tc.setLocals(append(locals(), mapcache.Local{Addr: second, Priority: 2, Up: true})...)
		for _, a := range []netip.Addr{rloc4, second} {
			require.True(t, tc.handleAt(a, from, encode(t, probe("192.0.2.1/32"))))
			s, m := one[*lisp.MapReply](tc)
			assert.True(t, m.Probe)                                  // RFC 9301-5.2-2, 9301-5.2-1
			assert.Equal(t, lisp.Nonce(0x0123456789abcdef), m.Nonce) // RFC 9301-5.2-2
			assert.Equal(t, netip.AddrPortFrom(a, 4342), s.Local)    // RFC 9301-7.1-s2
			assert.Equal(t, from, s.Remote)
			require.Len(t, m.Records, 1) // RFC 9301-7.1-2
			assert.True(t, m.Records[0].Authoritative)
			for _, l := range m.Records[0].Locators {
				ip, _ := l.RLOC.IP()
				assert.Equal(t, ip == a, l.Probed, ip) // RFC 9301-5.4-s5
			}
		}
		// The database itself has no p bit.
		tc.handle(from, encode(t, mapRequest("192.0.2.1/32")))
		_, m := one[*lisp.MapReply](tc)
		_, probed := probedLocator(m.Records)
		assert.False(t, probed)
	})
	t.Run("another locator is down", func(t *testing.T) {
		tc := newTester(t, replier)
		second := netip.MustParseAddr("203.0.113.11")
		for _, up := range []bool{true, false} {
			tc.setLocals(append(locals()[:1], mapcache.Local{Addr: second, Priority: 2, Up: up})...)
			for _, m := range []*lisp.MapRequest{probe("192.0.2.1/32"), mapRequest("192.0.2.1/32")} {
				require.True(t, tc.handleAt(rloc4, from, encode(t, m)))
				_, r := one[*lisp.MapReply](tc)
				require.Len(t, r.Records[0].Locators, 2)
				assert.True(t, r.Records[0].Locators[0].Reachable)
				assert.Equal(t, up, r.Records[0].Locators[1].Reachable) // RFC 9300-11-s1
			}
		}
	})
	t.Run("an EID that is not here", func(t *testing.T) {
		tc := up(t, replier)
		require.True(t, tc.handle(from, encode(t, probe("198.51.100.1/32"))))
		_, m := one[*lisp.MapReply](tc)
		assert.True(t, m.Probe) // RFC 9301-5.2-2
		assert.Empty(t, m.Records)
	})
	t.Run("no EID", func(t *testing.T) {
		tc := up(t, replier)
		p := probe("192.0.2.1/32")
		p.SourceEID, p.Records[0] = lisp.AddressFrom(peerEID.Addr()), lisp.RequestRecord{}
		require.True(t, tc.handle(from, encode(t, p)))
		_, m := one[*lisp.MapReply](tc)
		assert.Len(t, m.Records, 1)
	})
	t.Run("D bit", func(t *testing.T) {
		tc := up(t, replier)
		p := probe("192.0.2.1/32")
		p.DontMapReply = true
		require.True(t, tc.handle(from, encode(t, p)))
		assert.Empty(t, tc.sent)
	})
	t.Run("unknown local address", func(t *testing.T) {
		tc := up(t, replier)
		require.True(t, tc.handleAt(netip.Addr{}, from, encode(t, probe("192.0.2.1/32"))))
		_, m := one[*lisp.MapReply](tc)
		a, ok := probedLocator(m.Records)
		assert.True(t, ok)
		assert.Equal(t, rloc4, a)
	})
}

func TestConfigErrors(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no prefix":               func(c *Config) { c.Database[0].Prefix = netip.Prefix{} },
		"same prefix twice":       func(c *Config) { c.Database = append(c.Database, c.Database[0]) },
		"instance ID":             func(c *Config) { c.Database[0].IID = 1 << 24 }, // RFC 8060-4.1-1
		"TTL":                     func(c *Config) { c.Database[0].TTL = time.Second },
		"locator without address": func(c *Config) { c.Database[0].RLOCs = []DatabaseRLOC{{}} },
		"Map-Server address":      func(c *Config) { c.MapServers[0].Addr = netip.AddrPort{} },
		"no key":                  func(c *Config) { c.MapServers[0].Key.Secret = nil },  // RFC 9301-8.2-1
		"algorithm none":          func(c *Config) { c.MapServers[0].Key.Algorithm = 0 }, // RFC 9301-1.1-4
		"Map-Resolver address":    func(c *Config) { c.MapResolvers[0] = netip.AddrPort{} },
		"Map-Resolver is an EID":  func(c *Config) { c.MapResolvers[0] = netip.AddrPortFrom(eid4.Addr(), 0) }, // RFC 9301-8.1-1
		"Map-Server is an EID":    func(c *Config) { c.MapServers[0].Addr = netip.AddrPortFrom(eid4.Addr(), 0) },
		"Proxy-ETR":               func(c *Config) { c.ProxyETRs = make([]mapcache.RLOC, 1) },
		"static mapping":          func(c *Config) { c.StaticMappings = make([]mapcache.Mapping, 1) },
		"path MTU":                func(c *Config) { c.PathMTU = 500 },
		"negative limit":          func(c *Config) { c.MaxPending = -1 },
		"probe timeout":           func(c *Config) { c.Probe.Timeout = time.Hour },
		"registration interval":   func(c *Config) { c.RegisterInterval = time.Millisecond },
	} {
		cfg := testConfig()
		change(&cfg)
		_, err := New(cfg)
		require.ErrorIs(t, err, ErrConfig, name)
		assert.NotContains(t, err.Error(), "lisp-test-key")
	}
	cfg := testConfig()
	cfg.MapServers[0].Addr = netip.AddrPortFrom(msAddr.Addr(), 0)
	cfg.Database[0].Prefix = netip.MustParsePrefix("::ffff:192.0.2.99/120")
	cfg.Rand = nil
	e, err := New(cfg)
	require.NoError(t, err)
	e.SetLocals(start, locals())
	d, ok := e.Next()
	require.True(t, ok)
	assert.Equal(t, msAddr, d.Remote)
	_, ok = e.Database().Get(key("192.0.2.0/24"))
	assert.True(t, ok)
	assert.Len(t, e.Locals(), 2)
}

// TestNonceSource: nonces come from the configured source, and are good even
// when it fails.
func TestNonceSource(t *testing.T) {
	draw := func(seed byte) lisp.Nonce {
		tc := up(t, quiet, func(c *Config) { c.Rand = rand.NewChaCha8([32]byte{seed}) })
		tc.resolve(hostKey(peerEID))
		_, m := one[*lisp.MapRequest](tc)
		return m.Nonce
	}
	assert.Equal(t, draw(1), draw(1))
	assert.NotEqual(t, draw(1), draw(2))
	tc := up(t, quiet, func(c *Config) { c.Rand = new(emptyReader) })
	tc.resolve(hostKey(peerEID))
	_, m := one[*lisp.MapRequest](tc)
	assert.NotZero(t, m.Nonce) // RFC 9301-5.2-9
}

type emptyReader struct{}

func (*emptyReader) Read([]byte) (int, error) { return 0, fmt.Errorf("dry") }
