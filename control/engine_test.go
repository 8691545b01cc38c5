package control

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What the tests are about: a mobile node with one EID of each family, one
// locator of each family, a Map-Server and two Map-Resolvers.
var (
	eid4     = netip.MustParsePrefix("192.0.2.1/32")
	eid6     = netip.MustParsePrefix("2001:db8:1::1/128")
	rloc4    = netip.MustParseAddr("203.0.113.1")
	rloc6    = netip.MustParseAddr("2001:db8:ffff::1")
	peerEID  = netip.MustParsePrefix("198.51.100.7/32")
	peerEID6 = netip.MustParsePrefix("2001:db8:2::7/128")
	peerRLOC = netip.MustParseAddr("203.0.113.2")
	msAddr   = netip.MustParseAddrPort("198.18.0.1:4342")
	mr1      = netip.MustParseAddrPort("198.18.0.2:4342")
	mr2      = netip.MustParseAddrPort("198.18.0.3:4342")
	testKey  = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("lisp-test-key")}
	start    = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func key(s string) mapcache.Key { return mapcache.Key{Prefix: netip.MustParsePrefix(s)} }

func hostKey(p netip.Prefix) mapcache.Key { return mapcache.Key{Prefix: p} }

func locals() []mapcache.Local {
	return []mapcache.Local{
		{IfIndex: 2, Addr: rloc4, Priority: 1, Weight: 100, Up: true},
		{IfIndex: 2, Addr: rloc6, Priority: 1, Weight: 100, Up: true},
	}
}

func testConfig() Config {
	return Config{
		Database:     []DatabaseMapping{{Key: hostKey(eid4)}, {Key: hostKey(eid6)}},
		MapServers:   []MapServer{{Addr: msAddr, Key: testKey}},
		MapResolvers: []netip.AddrPort{mr1, mr2},
		Rand:         rand.NewChaCha8([32]byte{1}),
	}
}

// sent is a datagram with when it was sent and what is in it.
type sent struct {
	at time.Time
	lisp.Datagram
	msg   lisp.Message
	inner *lisp.Inner // with an ECM, whose content msg is
}

// tester steps one engine through virtual time and keeps what it says.
type tester struct {
	t      *testing.T
	e      *Engine
	now    time.Time
	sent   []sent
	events []Event
	told   told
}

func newTester(t *testing.T, change ...func(*Config)) *tester {
	t.Helper()
	cfg := testConfig()
	for _, f := range change {
		f(&cfg)
	}
	e, err := New(cfg)
	require.NoError(t, err)
	return &tester{t: t, e: e, now: start}
}

// up is newTester with locators.
func up(t *testing.T, change ...func(*Config)) *tester {
	t.Helper()
	tc := newTester(t, change...)
	tc.setLocals(locals()...)
	return tc
}

// quiet leaves registration and probing out of what is tested.
func quiet(c *Config) {
	c.MapServers = nil
	c.Probe.Interval = -1
}

func (tc *tester) setLocals(ls ...mapcache.Local) {
	tc.t.Helper()
	tc.e.SetLocals(tc.now, ls)
	tc.drain()
}

// drain takes everything out of the engine, and checks that what it sends is
// well formed.
func (tc *tester) drain() {
	tc.t.Helper()
	for d, ok := tc.e.Next(); ok; d, ok = tc.e.Next() {
		d.Bytes = append([]byte(nil), d.Bytes...)
		s := sent{at: tc.now, Datagram: d}
		m, err := lisp.Parse(d.Bytes)
		require.NoError(tc.t, err)
		s.msg = m
		if ecm, ok := m.(*lisp.EncapsulatedControl); ok {
			in, err := ecm.Inner()
			require.NoError(tc.t, err)
			s.inner = &in
			s.msg, err = lisp.Parse(in.Payload)
			require.NoError(tc.t, err)
		}
		tc.sent = append(tc.sent, s)
	}
	for ev, ok := tc.e.NextEvent(); ok; ev, ok = tc.e.NextEvent() {
		require.NotEmpty(tc.t, ev.String())
		require.NotContains(tc.t, ev.String(), "\n")
		tc.events = append(tc.events, ev)
	}
}

// advance lets d pass, stopping at every deadline.
func (tc *tester) advance(d time.Duration) {
	tc.t.Helper()
	end := tc.now.Add(d)
	for steps := 0; ; steps++ {
		require.Less(tc.t, steps, 1_000_000, "the engine never rests")
		at := tc.e.Deadline()
		if at.IsZero() || at.After(end) {
			break
		}
		if at.After(tc.now) {
			tc.now = at
		}
		tc.e.Advance(tc.now)
		tc.drain()
	}
	tc.now = end
}

// handle delivers b from a peer to our IPv4 locator.
func (tc *tester) handle(from netip.AddrPort, b []byte) bool {
	tc.t.Helper()
	return tc.handleAt(rloc4, from, b)
}

func (tc *tester) handleAt(local netip.Addr, from netip.AddrPort, b []byte) bool {
	tc.t.Helper()
	claimed := tc.e.Handle(tc.now, lisp.Datagram{
		Local: netip.AddrPortFrom(local, lisp.ControlPort), Remote: from, IfIndex: 2, Bytes: b,
	})
	tc.drain()
	return claimed
}

// take returns what was sent of a type since the last time, and forgets it.
func take[M lisp.Message](tc *tester) (out []sent) {
	rest := tc.sent[:0]
	for _, s := range tc.sent {
		if _, ok := s.msg.(M); ok {
			out = append(out, s)
		} else {
			rest = append(rest, s)
		}
	}
	tc.sent = rest
	return out
}

// one is take of exactly one.
func one[M lisp.Message](tc *tester) (sent, M) {
	tc.t.Helper()
	s := take[M](tc)
	require.Equal(tc.t, 1, len(s), "messages of type %T", *new(M))
	return s[0], s[0].msg.(M)
}

// eventsOf returns the events of a type since the last time, and forgets them.
func eventsOf[E Event](tc *tester) (out []E) {
	rest := tc.events[:0]
	for _, ev := range tc.events {
		if e, ok := ev.(E); ok {
			out = append(out, e)
		} else {
			rest = append(rest, ev)
		}
	}
	tc.events = rest
	return out
}

func (tc *tester) resolve(keys ...mapcache.Key) {
	tc.t.Helper()
	tc.e.Resolve(tc.now, keys)
	tc.drain()
}

func encode(t *testing.T, m lisp.Message) []byte {
	t.Helper()
	b, err := m.MarshalBinary()
	require.NoError(t, err)
	return b
}

// record is a mapping as an ETR sends it.
func record(prefix string, ttl uint32, rlocs ...netip.Addr) lisp.EIDRecord {
	p := netip.MustParsePrefix(prefix)
	r := lisp.EIDRecord{TTL: ttl, MaskLen: uint8(p.Bits()), Authoritative: true, EID: lisp.AddressFrom(p.Addr())}
	for _, a := range rlocs {
		r.Locators = append(r.Locators, lisp.RLOCRecord{Priority: 1, Weight: 100, MPriority: 255, Reachable: true, RLOC: lisp.AddressFrom(a)})
	}
	return r
}

func negative(prefix string, ttl uint32, act lisp.Action) lisp.EIDRecord {
	r := record(prefix, ttl)
	r.Action, r.Authoritative = act, false
	return r
}

// answer sends a Map-Reply with the nonce of s.
func (tc *tester) answer(n lisp.Nonce, records ...lisp.EIDRecord) bool {
	tc.t.Helper()
	return tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(tc.t, &lisp.MapReply{Nonce: n, Records: records}))
}

// learn resolves the peer's EID to a record.
func (tc *tester) learn(k mapcache.Key, r lisp.EIDRecord) {
	tc.t.Helper()
	tc.resolve(k)
	_, m := one[*lisp.MapRequest](tc)
	require.True(tc.t, tc.answer(m.Nonce, r))
}

// notify acknowledges a Map-Register.
func (tc *tester) notify(m *lisp.MapRegister, k lisp.Key) bool {
	tc.t.Helper()
	n := lisp.MapNotify{Nonce: m.Nonce, Records: m.Records}
	b, err := n.AppendSigned(nil, k)
	require.NoError(tc.t, err)
	return tc.handle(msAddr, b)
}
