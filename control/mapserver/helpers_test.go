package mapserver

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

var (
	start   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	msAddr  = netip.MustParseAddrPort("192.0.2.1:4342")
	msAddr6 = netip.MustParseAddrPort("[2001:db8:1::1]:4342")
	etr1    = netip.MustParseAddrPort("192.0.2.11:4342")
	etr2    = netip.MustParseAddrPort("192.0.2.12:4342")
	itr     = netip.MustParseAddrPort("192.0.2.99:4342")

	key1  = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("site-a secret")}
	key1b = lisp.Key{ID: 2, Algorithm: lisp.AlgorithmHMACSHA256HKDF, Secret: []byte("site-a next secret")}
	key2  = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("site-b secret")}

	xtr1 = lisp.XTRID{15: 1}
	xtr2 = lisp.XTRID{15: 2}
)

// testSites: a has an aggregate with more specifics, b a prefix within it and an
// IPv6 one, c exact prefixes in instance 7.
func testSites() []Site {
	return []Site{
		{Name: "a", Keys: []lisp.Key{key1, key1b}, Prefixes: []SitePrefix{
			{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true},
		}},
		{Name: "b", Keys: []lisp.Key{key2}, Prefixes: []SitePrefix{
			{Prefix: netip.MustParsePrefix("10.128.0.0/16")},
			{Prefix: netip.MustParsePrefix("2001:db8:b::/48"), AcceptMoreSpecifics: true},
		}},
		{Name: "c", Keys: []lisp.Key{key1}, Prefixes: []SitePrefix{
			{IID: 7, Prefix: netip.MustParsePrefix("172.16.0.0/16")},
		}},
	}
}

// seeded is a reproducible Config.Rand.
func seeded(seed uint64) *rand.ChaCha8 {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	return rand.NewChaCha8(b)
}

// bench is a Server in virtual time.
type bench struct {
	t   testing.TB
	s   *Server
	now time.Time
}

func newBench(t testing.TB, change ...func(*Config)) *bench {
	t.Helper()
	cfg := Config{Sites: testSites(), Rand: seeded(1)}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	require.NoError(t, err)
	return &bench{t: t, s: s, now: start}
}

// put hands a datagram over and returns what comes out. A probe of determinism:
// the octets are destroyed before the answers are looked at.
func (b *bench) put(from netip.AddrPort, msg []byte) []lisp.Datagram {
	b.t.Helper()
	local := msAddr
	if from.Addr().Is6() {
		local = msAddr6
	}
	msg = append([]byte(nil), msg...)
	b.s.Handle(b.now, lisp.Datagram{Local: local, Remote: from, IfIndex: 3, Bytes: msg})
	clear(msg)
	return b.drain()
}

func (b *bench) drain() []lisp.Datagram {
	var out []lisp.Datagram
	for d, ok := b.s.Next(); ok; d, ok = b.s.Next() {
		d.Bytes = append([]byte(nil), d.Bytes...)
		out = append(out, d)
	}
	return out
}

func (b *bench) events() []Event {
	var es []Event
	for e, ok := b.s.NextEvent(); ok; e, ok = b.s.NextEvent() {
		es = append(es, e)
	}
	return es
}

// advance moves time in the steps the server asks for.
func (b *bench) advance(d time.Duration) {
	end := b.now.Add(d)
	for range 1_000_000 {
		next := b.s.Deadline()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(b.now) {
			b.now = next
		}
		b.s.Advance(b.now)
	}
	b.now = end
	b.s.Advance(b.now)
}

// lastReason is why the last message was refused or dropped.
func (b *bench) lastReason() Reason {
	b.t.Helper()
	es := b.events()
	require.NotEmpty(b.t, es)
	switch e := es[len(es)-1].(type) {
	case Refused:
		return e.Reason
	case Dropped:
		return e.Reason
	}
	require.FailNow(b.t, "not refused", "%v", es)
	return 0
}

func record(eid string, ttl uint32, rlocs ...string) lisp.EIDRecord {
	return iidRecord(0, eid, ttl, rlocs...)
}

func iidRecord(iid uint32, eid string, ttl uint32, rlocs ...string) lisp.EIDRecord {
	p := netip.MustParsePrefix(eid)
	r := lisp.EIDRecord{TTL: ttl, MaskLen: uint8(p.Bits()), Authoritative: true, EID: lisp.EIDAddress(iid, p.Addr())}
	for _, a := range rlocs {
		r.Locators = append(r.Locators, lisp.RLOCRecord{
			Priority: 1, Weight: 100, MPriority: 255, Local: true, Reachable: true,
			RLOC: lisp.AddressFrom(netip.MustParseAddr(a)),
		})
	}
	return r
}

type registerOption func(*lisp.MapRegister)

func withNonce(n lisp.Nonce) registerOption { return func(m *lisp.MapRegister) { m.Nonce = n } }
func withoutNotify(m *lisp.MapRegister)     { m.WantMapNotify = false }
func withProxy(m *lisp.MapRegister)         { m.ProxyReply = true }
func withMerge(m *lisp.MapRegister)         { m.Merge = true }
func withTTL(m *lisp.MapRegister)           { m.UseTTL = true }
func withXTR(x lisp.XTRID) registerOption {
	return func(m *lisp.MapRegister) { m.XTRIDPresent, m.XTRID, m.SiteID = true, x, 5 }
}

var testNonce lisp.Nonce

// register makes a signed Map-Register with M set and a fresh nonce.
func register(t testing.TB, key lisp.Key, r lisp.EIDRecord, opts ...registerOption) []byte {
	t.Helper()
	testNonce += 1000
	m := lisp.MapRegister{WantMapNotify: true, Nonce: testNonce, Records: []lisp.EIDRecord{r}}
	for _, o := range opts {
		o(&m)
	}
	b, err := m.AppendSigned(nil, key)
	require.NoError(t, err)
	return b
}

type requestOption func(*lisp.MapRequest)

// request makes an encapsulated Map-Request as an ITR at from sends it.
func request(t testing.TB, from netip.AddrPort, eid string, opts ...requestOption) []byte {
	t.Helper()
	return iidRequest(t, from, 0, eid, opts...)
}

func iidRequest(t testing.TB, from netip.AddrPort, iid uint32, eid string, opts ...requestOption) []byte {
	t.Helper()
	p, err := netip.ParsePrefix(eid)
	if err != nil {
		a := netip.MustParseAddr(eid)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	testNonce++
	source := netip.MustParseAddr("10.9.9.9")
	if p.Addr().Is6() {
		source = netip.MustParseAddr("2001:db8:9::9")
	}
	m := lisp.MapRequest{
		Nonce: testNonce, SourceEID: lisp.EIDAddress(iid, source), ITRRLOCs: []lisp.Address{lisp.AddressFrom(from.Addr())},
		Records: []lisp.RequestRecord{{MaskLen: uint8(p.Bits()), EID: lisp.EIDAddress(iid, p.Addr())}},
	}
	for _, o := range opts {
		o(&m)
	}
	return encapsulate(t, source, p.Addr(), from.Port(), &m)
}

func encapsulate(t testing.TB, source, destination netip.Addr, port uint16, m lisp.Message) []byte {
	t.Helper()
	payload, err := m.MarshalBinary()
	require.NoError(t, err)
	packet, err := lisp.AppendInner(nil, lisp.Inner{
		Source: netip.AddrPortFrom(source, port), Destination: netip.AddrPortFrom(destination, lisp.ControlPort), Payload: payload,
	})
	require.NoError(t, err)
	b, err := (&lisp.EncapsulatedControl{Packet: packet}).MarshalBinary()
	require.NoError(t, err)
	return b
}

func parse[M lisp.Message](t testing.TB, b []byte) M {
	t.Helper()
	m, err := lisp.Parse(b)
	require.NoError(t, err)
	v, ok := m.(M)
	require.True(t, ok, "%T", m)
	return v
}

// wantReply takes the only datagram as a Map-Reply with one record.
func wantReply(t testing.TB, out []lisp.Datagram) lisp.EIDRecord {
	t.Helper()
	require.Len(t, out, 1)
	m := parse[*lisp.MapReply](t, out[0].Bytes)
	require.Len(t, m.Records, 1)
	return m.Records[0]
}

func prefixOf(t testing.TB, r lisp.EIDRecord) string {
	t.Helper()
	_, p, ok := r.Prefix()
	require.True(t, ok)
	return p.String()
}

func rlocsOf(rs []lisp.RLOCRecord) []string {
	var s []string
	for _, r := range rs {
		s = append(s, r.RLOC.String())
	}
	return s
}
