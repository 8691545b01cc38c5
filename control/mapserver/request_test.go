package mapserver

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestNegativeReplies: RFC 9301-8.3-s1, 9301-8.4-1, 9301-8.4-s1. Site a has 10/8 with
// 10.1.2.0/24 registered, b has 10.128/16 and 2001:db8:b::/48 not registered.
func TestNegativeReplies(t *testing.T) {
	for _, tc := range []struct {
		iid    uint32
		asked  string
		prefix string
		ttl    uint32
	}{
		// No EID of anybody: the least-specific prefix without one, 15 minutes.
		{0, "198.51.100.1", "128.0.0.0/1", 15},
		{0, "11.0.0.1", "11.0.0.0/8", 15},
		{0, "8.8.8.8", "8.0.0.0/7", 15},
		{0, "12.0.0.0/14", "12.0.0.0/6", 15},
		{0, "2001:db9::1", "2001:db9::/32", 15},
		{0, "::/0", "::/3", 15}, // a refresh broader than the hole: its first address decides
		{7, "10.1.2.3", "0.0.0.0/1", 15},
		{7, "172.17.0.1", "172.17.0.0/16", 15},
		{8, "10.1.2.3", "0.0.0.0/0", 15},
		// An EID of a site that is not registered: the hole within the site, 1 minute.
		{0, "10.1.3.1", "10.1.3.0/24", 1},
		{0, "10.64.0.1", "10.64.0.0/10", 1},
		{0, "10.128.9.9", "10.128.0.0/16", 1},
		{0, "10.129.0.1", "10.129.0.0/16", 1},
		{0, "2001:db8:b:1::1", "2001:db8:b::/48", 1},
		{7, "172.16.1.1", "172.16.0.0/16", 1},
	} {
		t.Run(fmt.Sprintf("[%d]%s", tc.iid, tc.asked), func(t *testing.T) {
			b := newBench(t)
			require.Len(t, b.put(etr1, register(t, key1, record("10.1.2.0/24", 10, "192.0.2.11"))), 1)
			b.events()
			from := netip.AddrPortFrom(itr.Addr(), 40000)
			out := b.put(from, iidRequest(t, from, tc.iid, tc.asked))
			r := wantReply(t, out)
			assert.Equal(t, tc.prefix, prefixOf(t, r))
			assert.Equal(t, tc.ttl, r.TTL)
			assert.Equal(t, lisp.ActionNativelyForward, r.Action)
			assert.False(t, r.Authoritative)
			assert.Empty(t, r.Locators)
			iid, _, _ := r.Prefix()
			assert.Equal(t, tc.iid, iid)
			// RFC 9301-5.5-s1
			assert.Equal(t, from, out[0].Remote)
			assert.Equal(t, msAddr, out[0].Local)
			assert.Equal(t, testNonce, parse[*lisp.MapReply](t, out[0].Bytes).Nonce)
			es := b.events()
			require.Len(t, es, 1)
			assert.Contains(t, es[0].String(), fmt.Sprintf(" to 192.0.2.99:40000: %s natively-forward for %dm0s",
				eidString(tc.iid, netip.MustParsePrefix(tc.prefix)), tc.ttl))
		})
	}
}

func TestPolicy(t *testing.T) {
	for deny, want := range map[Deny]struct {
		action lisp.Action
		ttl    uint32
	}{
		DenyPolicy:    {lisp.ActionDropPolicyDenied, 15}, // RFC 9301-8.3-s1
		DenyTemporary: {lisp.ActionSendMapRequest, 1},    // RFC 9301-8.3-1
	} {
		b := newBench(t, func(c *Config) { c.Sites[0].Deny = deny })
		require.Len(t, b.put(etr1, register(t, key1, record("10.1.2.0/24", 10, "192.0.2.11"))), 1)
		r := wantReply(t, b.put(itr, request(t, itr, "10.1.2.3")))
		assert.Equal(t, want.action, r.Action)
		assert.Equal(t, want.ttl, r.TTL)
		assert.Equal(t, "10.0.0.0/9", prefixOf(t, r))
	}
}

func TestProxyReply(t *testing.T) {
	rec := record("10.1.0.0/16", 1440, "192.0.2.12", "192.0.2.11", "2001:db8::11")
	rec.Locators[0].Reachable = false
	rec.Locators[0].Priority = 5
	for name, bench := range map[string]*bench{
		"asked by the ETR":    newBench(t),
		"configured for site": newBench(t, func(c *Config) { c.Sites[0].ProxyReply = true }),
	} {
		t.Run(name, func(t *testing.T) {
			var opts []registerOption
			if name == "asked by the ETR" {
				opts = append(opts, withProxy)
			}
			require.Len(t, bench.put(etr1, register(t, key1, rec, opts...)), 1)
			bench.events()
			out := bench.put(itr, request(t, itr, "10.1.2.3"))
			r := wantReply(t, out) // RFC 9301-8.3-s2, 6835i-2-1: learned from the ETR
			assert.Equal(t, itr, out[0].Remote)
			assert.Equal(t, "10.1.0.0/16", prefixOf(t, r))
			assert.EqualValues(t, 1440, r.TTL)
			assert.False(t, r.Authoritative) // RFC 9301-5.4-6
			assert.Equal(t, []string{"192.0.2.11", "192.0.2.12", "2001:db8::11"}, rlocsOf(r.Locators))
			for _, l := range r.Locators {
				assert.False(t, l.Local) // RFC 9301-5.4-s4, 9301-8.2-7
				assert.False(t, l.Probed)
			}
			assert.False(t, r.Locators[1].Reachable)
			assert.EqualValues(t, 5, r.Locators[1].Priority)
			es := bench.events()
			require.Len(t, es, 1)
			assert.Equal(t, "map-reply for 10.1.2.3/32 to 192.0.2.99:4342: 10.1.0.0/16 with 3 locators (site a)", es[0].String())
		})
	}
}

// TestMoreSpecificsAreNotHidden: RFC 9301-5.5-s3, for a proxy reply.
func TestMoreSpecificsAreNotHidden(t *testing.T) {
	setup := func(n int) *bench {
		b := newBench(t)
		require.Len(t, b.put(etr1, register(t, key1, record("10.0.0.0/9", 20, "192.0.2.11"), withProxy)), 1)
		for i := range n {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i)}), 24)
			require.Len(t, b.put(etr2, register(t, key1, record(p.String(), 10, "192.0.2.12"), withProxy)), 1)
		}
		return b
	}
	b := setup(3)
	out := b.put(itr, request(t, itr, "10.2.0.1"))
	require.Len(t, out, 1)
	rs := parse[*lisp.MapReply](t, out[0].Bytes).Records
	require.Len(t, rs, 4)
	assert.Equal(t, "10.0.0.0/9", prefixOf(t, rs[0]))
	for _, r := range rs {
		assert.EqualValues(t, 10, r.TTL, "all live equally long")
	}
	assert.Equal(t, "10.1.2.0/24", prefixOf(t, wantReplyOf(t, b, "10.1.2.3")))

	b = setup(200)
	assert.Equal(t, "10.2.0.0/15", prefixOf(t, wantReplyOf(t, b, "10.2.0.1")), "too many: the part without them")

	// 10.128/16 of site b is not registered: an answer for 10/8 must not cover it.
	b = newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.0.0.0/8", 20, "192.0.2.11"), withProxy)), 1)
	assert.Equal(t, "10.0.0.0/9", prefixOf(t, wantReplyOf(t, b, "10.2.0.1")))
	assert.Equal(t, "10.192.0.0/10", prefixOf(t, wantReplyOf(t, b, "10.200.0.1")))
}

func wantReplyOf(t testing.TB, b *bench, eid string) lisp.EIDRecord {
	t.Helper()
	return wantReply(t, b.put(itr, request(t, itr, eid)))
}

func TestForward(t *testing.T) {
	b := newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
	b.events()
	msg := request(t, itr, "10.1.2.3")
	out := b.put(itr, msg)
	require.Len(t, out, 1)
	assert.Equal(t, etr1, out[0].Remote)
	assert.Equal(t, msAddr, out[0].Local)
	// RFC 9301-8.3-s2: unaltered but for the outer headers.
	assert.Equal(t, msg[4:], out[0].Bytes[4:])
	in, err := parse[*lisp.EncapsulatedControl](t, out[0].Bytes).Inner()
	require.NoError(t, err)
	assert.Equal(t, "10.1.2.3:4342", in.Destination.String())
	es := b.events()
	require.Len(t, es, 1)
	assert.Equal(t, "map-request for 10.1.2.3/32 from 192.0.2.99:4342 forwarded to 192.0.2.11:4342 (site a)", es[0].String())
	// Also when no reply is wanted: that is the ETR's business.
	out = b.put(itr, request(t, itr, "10.1.2.3", func(m *lisp.MapRequest) { m.DontMapReply = true }))
	require.Len(t, out, 1)
	assert.Equal(t, etr1, out[0].Remote)
}

func TestForwardChoosesRLOC(t *testing.T) {
	itr6 := netip.MustParseAddrPort("[2001:db8:2::99]:4342")
	lcaf := lisp.EIDAddress(5, netip.MustParseAddr("192.0.2.50"))
	for name, tc := range map[string]struct {
		rlocs  []lisp.RLOCRecord
		locals []netip.Addr
		from   netip.AddrPort
		want   []string // in the course of several requests
	}{
		"family of the request": {
			rlocs: record("::/0", 1, "192.0.2.11", "2001:db8::11").Locators, from: itr6, want: []string{"2001:db8::11"},
		},
		"other family": {rlocs: record("::/0", 1, "2001:db8::11").Locators, from: itr, want: []string{"2001:db8::11"}},
		"family not there": {
			rlocs: record("::/0", 1, "2001:db8::11").Locators, locals: []netip.Addr{msAddr.Addr()}, from: itr,
		},
		"two of equal priority": {
			rlocs: record("::/0", 1, "192.0.2.11", "192.0.2.12").Locators, from: itr, want: []string{"192.0.2.11", "192.0.2.12"},
		},
		"priority": {
			rlocs: []lisp.RLOCRecord{
				{Priority: 2, Reachable: true, RLOC: lisp.AddressFrom(etr1.Addr())},
				{Priority: 1, Reachable: true, RLOC: lisp.AddressFrom(etr2.Addr())},
			}, from: itr, want: []string{"192.0.2.12"},
		},
		"unreachable": {
			rlocs: []lisp.RLOCRecord{
				{Priority: 1, RLOC: lisp.AddressFrom(etr1.Addr())},
				{Priority: 255, Reachable: true, RLOC: lisp.AddressFrom(etr2.Addr())},
			}, from: itr, want: []string{"192.0.2.12"},
		},
		"only what can't be sent to": {
			rlocs: []lisp.RLOCRecord{
				{Priority: 1, Reachable: true, RLOC: lcaf},
				{Priority: 1, Reachable: true},
				{Priority: 1, Reachable: true, RLOC: lisp.AddressFrom(netip.MustParseAddr("127.0.0.1"))},
				{Priority: 1, Reachable: true, RLOC: lisp.AddressFrom(netip.MustParseAddr("224.0.0.1"))},
				{Priority: 1, Reachable: true, RLOC: lisp.AddressFrom(netip.MustParseAddr("255.255.255.255"))},
			}, from: itr,
		},
		"none": {from: itr},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.Locals = tc.locals })
			rec := record("10.1.0.0/16", 10)
			rec.Locators = tc.rlocs
			require.Len(t, b.put(etr1, register(t, key1, rec)), 1)
			seen := map[string]bool{}
			for range 20 {
				for _, d := range b.put(tc.from, request(t, tc.from, "10.1.2.3")) {
					seen[d.Remote.Addr().String()] = true
					assert.EqualValues(t, lisp.ControlPort, d.Remote.Port())
					if d.Local.Addr().IsValid() {
						assert.Equal(t, d.Remote.Addr().Is4(), d.Local.Addr().Is4())
					}
				}
			}
			assert.Len(t, seen, len(tc.want))
			for _, w := range tc.want {
				assert.True(t, seen[w], w)
			}
			if len(tc.want) == 0 {
				assert.Equal(t, ReasonNoRLOC, b.lastReason())
			}
		})
	}
}

func TestITRRLOCs(t *testing.T) {
	unknown := lisp.EIDAddress(5, netip.MustParseAddr("192.0.2.50"))
	v4, v6 := lisp.AddressFrom(itr.Addr()), lisp.AddressFrom(netip.MustParseAddr("2001:db8::99"))
	itr6 := netip.MustParseAddrPort("[2001:db8:2::99]:4342")
	for name, tc := range map[string]struct {
		rlocs  []lisp.Address
		locals []netip.Addr
		from   netip.AddrPort
		want   string
	}{
		"unknown LCAF first":    {[]lisp.Address{unknown, v4}, nil, itr, "192.0.2.99"},
		"family of the request": {[]lisp.Address{v4, v6}, nil, itr6, "2001:db8::99"},
		"the other family":      {[]lisp.Address{v6}, nil, itr, "2001:db8::99"},
		"family not there":      {[]lisp.Address{v6}, []netip.Addr{msAddr.Addr()}, itr, ""},
		"second family":         {[]lisp.Address{v6, v4}, []netip.Addr{msAddr.Addr()}, itr, "192.0.2.99"},
		"only LCAFs":            {[]lisp.Address{unknown}, nil, itr, ""},
		"none at all":           {[]lisp.Address{{}}, nil, itr, ""}, // RFC 9301-5.3-4
		"loopback":              {[]lisp.Address{lisp.AddressFrom(netip.MustParseAddr("127.0.0.1"))}, nil, itr, ""},
		"multicast":             {[]lisp.Address{lisp.AddressFrom(netip.MustParseAddr("ff02::1"))}, nil, itr, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.Locals = tc.locals })
			out := b.put(tc.from, request(t, itr, "198.51.100.1", func(m *lisp.MapRequest) { m.ITRRLOCs = tc.rlocs }))
			if tc.want == "" {
				assert.Empty(t, out)
				assert.Equal(t, ReasonNoITRRLOC, b.lastReason())
				return
			}
			require.Len(t, out, 1)
			assert.Equal(t, tc.want, out[0].Remote.Addr().String())
			if l := out[0].Local.Addr(); l.IsValid() {
				assert.Equal(t, out[0].Remote.Addr().Is4(), l.Is4())
			}
		})
	}
}

func TestNotAnswered(t *testing.T) {
	bare := func(m lisp.Message) []byte {
		b, err := m.MarshalBinary()
		require.NoError(t, err)
		return b
	}
	asks := []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(netip.MustParseAddr("10.1.2.3"))}}
	badSum := request(t, itr, "10.1.2.3")
	badSum[len(badSum)-1] ^= 1
	cut := request(t, itr, "10.1.2.3")
	for name, tc := range map[string]struct {
		msg     []byte
		reason  Reason
		claimed bool
	}{
		"probe":           {request(t, itr, "10.1.2.3", func(m *lisp.MapRequest) { m.Probe = true }), ReasonProbe, true}, // RFC 9301-5.2-4
		"not in an ECM":   {bare(&lisp.MapRequest{ITRRLOCs: []lisp.Address{lisp.AddressFrom(itr.Addr())}, Records: asks}), ReasonNotEncapsulated, false},
		"bare probe":      {bare(&lisp.MapRequest{Probe: true, ITRRLOCs: []lisp.Address{lisp.AddressFrom(itr.Addr())}, Records: asks}), ReasonNotEncapsulated, false}, // RFC 9301-5.2-4
		"map-reply":       {bare(&lisp.MapReply{Records: []lisp.EIDRecord{record("10.0.0.0/8", 1, "192.0.2.66")}}), ReasonUnexpected, false},                          // RFC 9301-8.3-2
		"no reply wanted": {request(t, itr, "10.1.2.3", func(m *lisp.MapRequest) { m.DontMapReply = true }), ReasonNoReply, true},                                     // RFC 9301-5.2-s3
		"checksum":        {badSum, ReasonInner, true},
		"cut inner":       {cut[:30], ReasonInner, true},
		"no records":      {request(t, itr, "10.1.2.3", func(m *lisp.MapRequest) { m.Records = nil }), ReasonNoRecords, true},
		"name":            {request(t, itr, "10.1.2.3", func(m *lisp.MapRequest) { m.Records[0] = lisp.RequestRecord{} }), ReasonEID, true},
		"other content":   {encapsulate(t, itr.Addr(), msAddr.Addr(), 4342, &lisp.MapReply{}), ReasonInner, false},
		"port 0":          {request(t, netip.AddrPortFrom(itr.Addr(), 0), "10.1.2.3"), ReasonNoITRRLOC, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			assert.Equal(t, tc.claimed, b.s.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: tc.msg}))
			assert.Empty(t, b.drain())
			es := b.events()
			require.Len(t, es, 1)
			assert.Equal(t, tc.reason, es[0].(Dropped).Reason)
			assert.Contains(t, es[0].String(), " from 192.0.2.99:4342: "+tc.reason.String())
			assert.EqualValues(t, 1, b.s.Stats().Dropped[tc.reason])
			assert.Empty(t, b.s.Registrations(b.now))
		})
	}
	b := newBench(t)
	for _, msg := range [][]byte{nil, {0xf0}, {0x78, 0, 0, 0}} {
		assert.False(t, b.s.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: msg}))
	}
}

// TestETRInTheSameProcess leaves the request to it instead of sending it to itself.
func TestETRInTheSameProcess(t *testing.T) {
	for name, locals := range map[string][]netip.Addr{"address it came to": nil, "configured": {msAddr.Addr(), netip.MustParseAddr("192.0.2.2")}} {
		b := newBench(t, func(c *Config) { c.Locals = locals })
		rloc := "192.0.2.1"
		if locals != nil {
			rloc = "192.0.2.2"
		}
		require.Len(t, b.put(msAddr, register(t, key1, record("10.1.0.0/16", 10, rloc))), 1)
		assert.False(t, b.s.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: request(t, itr, "10.1.2.3")}), name)
		assert.Empty(t, b.drain())
	}
}

// TestSeveralRecords: RFC 9301-5.2-8. Each is answered; what has to be forwarded is
// forwarded once; large answers are split.
func TestSeveralRecords(t *testing.T) {
	b := newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
	require.Len(t, b.put(etr1, register(t, key1, record("10.2.0.0/16", 10, "192.0.2.11"), withProxy)), 1)
	out := b.put(itr, request(t, itr, "10.1.2.3", func(m *lisp.MapRequest) {
		for _, a := range []string{"10.1.2.4", "10.2.0.1", "198.51.100.1"} {
			m.Records = append(m.Records, lisp.RequestRecord{MaskLen: 32, EID: lisp.AddressFrom(netip.MustParseAddr(a))})
		}
	}))
	require.Len(t, out, 2)
	assert.Equal(t, etr1, out[0].Remote)
	rs := parse[*lisp.MapReply](t, out[1].Bytes).Records
	require.Len(t, rs, 2)
	assert.Equal(t, "10.2.0.0/16", prefixOf(t, rs[0]))
	assert.Equal(t, "128.0.0.0/1", prefixOf(t, rs[1]))

	out = b.put(itr, request(t, itr, "198.51.100.1", func(m *lisp.MapRequest) {
		for i := range 200 {
			m.Records = append(m.Records, lisp.RequestRecord{MaskLen: 32, EID: lisp.AddressFrom(netip.AddrFrom4([4]byte{198, 51, byte(i)}))})
		}
	}))
	n := 0
	for _, d := range out {
		assert.LessOrEqual(t, len(d.Bytes), maxPayloadIPv4) // RFC 9301-5-2
		n += len(parse[*lisp.MapReply](t, d.Bytes).Records)
	}
	assert.Equal(t, 201, n)
}

// TestRegisteredPrefixOfAnotherSite: 10/8 of a is registered, 10.128/16 of b is
// not, and a's locators say nothing about it.
func TestRegisteredPrefixOfAnotherSite(t *testing.T) {
	b := newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.0.0.0/8", 10, "192.0.2.11"))), 1)
	r := wantReplyOf(t, b, "10.128.0.1")
	assert.Equal(t, "10.128.0.0/16", prefixOf(t, r))
	assert.EqualValues(t, 1, r.TTL)
}

func TestExpiredMoreSpecificDoesNotHide(t *testing.T) {
	b := newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.2.0/24", 10, "192.0.2.11"), withProxy)), 1)
	b.now = b.now.Add(time.Minute)
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withProxy)), 1)
	b.now = b.now.Add(2*time.Minute + time.Second) // the /24 is over, but nobody called Advance
	r := wantReplyOf(t, b, "10.1.2.3")
	assert.Equal(t, []string{"192.0.2.12"}, rlocsOf(r.Locators))
}

func TestAmplificationIsLimited(t *testing.T) {
	victim := netip.MustParseAddrPort("203.0.113.9:53")
	b := newBench(t, func(c *Config) { c.RatePerSource, c.RateTotal = 10, 1000 })
	send := func(n int, from func(i int) netip.AddrPort, itr netip.AddrPort) int {
		sent := 0
		for i := range n {
			sent += len(b.put(from(i), request(t, itr, "198.51.100.1")))
		}
		return sent
	}
	spoofed := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), 4342)
	}
	assert.LessOrEqual(t, send(500, spoofed, victim), 10, "one victim, many spoofed sources")
	b.now = b.now.Add(time.Second)
	assert.LessOrEqual(t, send(500, spoofed, victim), 10)
	b.now = b.now.Add(time.Second)
	sent := 0
	for i := range 500 {
		sent += send(1, func(int) netip.AddrPort { return itr }, spoofed(i))
	}
	assert.LessOrEqual(t, sent, 10, "one source, many victims")
	b.now = b.now.Add(time.Second)
	assert.LessOrEqual(t, send(5000, spoofed, netip.AddrPortFrom(netip.Addr{}, 4342)), 0)
	sent = 0
	for i := range 5000 {
		sent += send(1, spoofed, spoofed(i))
	}
	assert.LessOrEqual(t, sent, 1000, "in total")
	// Others are served again a second later.
	b.now = b.now.Add(time.Second)
	assert.Equal(t, 1, send(1, func(int) netip.AddrPort { return itr }, itr))
	assert.Positive(t, b.s.Stats().Dropped[ReasonRate])

	b = newBench(t, func(c *Config) { c.RatePerSource, c.RateTotal = -1, -1 })
	assert.Equal(t, 3000, send(3000, spoofed, victim), "turned off")
}

func TestQueuesAreBounded(t *testing.T) {
	b := newBench(t, func(c *Config) { c.RatePerSource, c.RateTotal = -1, -1 })
	msg := request(t, itr, "198.51.100.1")
	for range maxQueue + 10 {
		b.s.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: msg})
	}
	st := b.s.Stats()
	assert.EqualValues(t, 10, st.Dropped[ReasonQueue])
	assert.EqualValues(t, maxQueue+10-DefaultEventBuffer, st.EventsLost)
	assert.Len(t, b.events(), DefaultEventBuffer)
	assert.Len(t, b.drain(), maxQueue)
}
