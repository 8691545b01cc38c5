package natt

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
	rtrStart = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

	msIP     = netip.MustParseAddr("192.0.2.1")
	rtrIP    = netip.MustParseAddr("203.0.113.9")
	rtrIP2   = netip.MustParseAddr("203.0.113.10")
	natPort  = netip.MustParseAddrPort("198.51.100.7:49152")
	natPort2 = netip.MustParseAddrPort("198.51.100.7:49153")
	attacker = netip.MustParseAddrPort("198.51.100.66:4341")
	insideIP = netip.MustParseAddr("10.0.0.2")
	inside2  = netip.MustParseAddr("10.9.9.2")

	siteKey = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("site")}
	rtrKey  = lisp.Key{ID: 2, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("between Map-Server and RTR")}

	xtrA = lisp.XTRID{15: 0xa}
	xtrB = lisp.XTRID{15: 0xb}
)

// rtrBench is an RTR in virtual time, with what a node and a Map-Server send.
type rtrBench struct {
	t   testing.TB
	r   *RTR
	now time.Time
	key lisp.Key // of the Map-Server; no Secret: none
}

func newRTRBench(t testing.TB, change ...func(*RTRConfig)) *rtrBench {
	t.Helper()
	var seed [32]byte
	cfg := RTRConfig{
		MapServers: []RTRMapServer{{Addr: msIP, Key: rtrKey}}, RLOCs: []netip.Addr{rtrIP}, Rand: rand.NewChaCha8(seed),
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := NewRTR(cfg)
	require.NoError(t, err)
	b := &rtrBench{t: t, r: r, now: rtrStart}
	if len(cfg.MapServers) > 0 {
		b.key = cfg.MapServers[0].Key
	}
	return b
}

func withoutKey(c *RTRConfig)  { c.MapServers[0].Key = lisp.Key{} }
func oldVariant(c *RTRConfig)  { c.MapServers[0].Variant = Old }
func keyRequired(c *RTRConfig) { c.RequireKey = true }

// node is who registers.
type node struct {
	xtr    lisp.XTRID
	local  netip.Addr
	from   netip.AddrPort
	eid    string
	ttl    uint32
	merge  bool
	locals map[string][2]uint8 // R = 0
	rtr    netip.Addr
}

func nodeA() node {
	return node{xtr: xtrA, local: insideIP, from: natPort, eid: "172.16.3.3/32", ttl: 10, rtr: rtrIP}
}

// record is the EID-Record that n registers.
func (n node) record() lisp.EIDRecord {
	p := netip.MustParsePrefix(n.eid)
	r := lisp.EIDRecord{TTL: n.ttl, MaskLen: uint8(p.Bits()), EID: lisp.AddressFrom(p.Addr()), Authoritative: true}
	r.Locators = append(r.Locators, lisp.RLOCRecord{
		Priority: 1, Weight: 100, MPriority: 255, Reachable: true, RLOC: lisp.AddressFrom(n.rtr),
	})
	for a, p := range n.locals {
		r.Locators = append(r.Locators, lisp.RLOCRecord{
			Priority: p[0], Weight: p[1], MPriority: 255, Local: true, RLOC: lisp.AddressFrom(netip.MustParseAddr(a)),
		})
	}
	return r
}

func (n node) message(nonce lisp.Nonce) *lisp.MapRegister {
	return &lisp.MapRegister{
		ProxyReply: true, XTRIDPresent: true, WantMapNotify: true, Merge: n.merge, Nonce: nonce,
		Records: []lisp.EIDRecord{n.record()}, XTRID: n.xtr, SiteID: 7,
	}
}

// encapsulated is a message in an ECM.
func encapsulated(t testing.TB, m lisp.EncapsulatedControl, from, to netip.AddrPort, payload []byte) []byte {
	t.Helper()
	packet, err := lisp.AppendInner(nil, lisp.Inner{Source: from, Destination: to, Payload: payload})
	require.NoError(t, err)
	m.Packet = packet
	b, err := m.MarshalBinary()
	require.NoError(t, err)
	return b
}

// registerPacket is the Encapsulated Map-Register of n, signed.
func (n node) registerPacket(t testing.TB, nonce lisp.Nonce, change ...func(*lisp.MapRegister)) []byte {
	t.Helper()
	m := n.message(nonce)
	for _, f := range change {
		f(m)
	}
	msg, err := m.AppendSigned(nil, siteKey)
	require.NoError(t, err)
	return encapsulated(t, lisp.EncapsulatedControl{RTR: true}, netip.AddrPortFrom(n.local, 4342), netip.AddrPortFrom(msIP, 4342), msg)
}

// send hands a datagram to the control port of the RTR and returns what comes out.
func (b *rtrBench) send(from netip.AddrPort, msg []byte) []lisp.Datagram {
	b.t.Helper()
	return b.sendTo(netip.AddrPortFrom(rtrIP, 4342), from, msg)
}

func (b *rtrBench) sendTo(to, from netip.AddrPort, msg []byte) []lisp.Datagram {
	b.t.Helper()
	msg = append([]byte(nil), msg...)
	b.r.Handle(b.now, lisp.Datagram{Local: to, Remote: from, IfIndex: 3, Bytes: msg})
	clear(msg)
	return b.drain()
}

func (b *rtrBench) drain() []lisp.Datagram {
	var out []lisp.Datagram
	for d, ok := b.r.Next(); ok; d, ok = b.r.Next() {
		d.Bytes = append([]byte(nil), d.Bytes...)
		out = append(out, d)
	}
	return out
}

// notifyPacket is what the Map-Server sends for n.
func (b *rtrBench) notifyPacket(n node, nonce lisp.Nonce, change ...func(*lisp.MapNotify)) []byte {
	b.t.Helper()
	m := lisp.MapNotify{XTRIDPresent: true, Nonce: nonce, Records: []lisp.EIDRecord{n.record()}, XTRID: n.xtr, SiteID: 7}
	for _, f := range change {
		f(&m)
	}
	msg, err := m.AppendSigned(nil, siteKey)
	require.NoError(b.t, err)
	p := Path{RTR: rtrIP, Local: n.local}
	out, err := p.Append(nil, msIP, msg, b.key)
	require.NoError(b.t, err)
	return out
}

var msPort = netip.AddrPortFrom(msIP, 4342)

// registered has n registered: both ways through the RTR.
func (b *rtrBench) registered(n node, nonce lisp.Nonce) {
	b.t.Helper()
	out := b.sendTo(netip.AddrPortFrom(n.rtr, 4342), n.from, n.registerPacket(b.t, nonce))
	require.Len(b.t, out, 1, "%v", b.r.events)
	require.Equal(b.t, msPort, out[0].Remote)
	out = b.send(msPort, b.notifyPacket(n, nonce))
	require.Len(b.t, out, 1, "%v", b.r.events)
	require.Equal(b.t, n.from, out[0].Remote)
}

func (b *rtrBench) events() []RTREvent {
	var es []RTREvent
	for e, ok := b.r.NextEvent(); ok; e, ok = b.r.NextEvent() {
		es = append(es, e)
	}
	return es
}

func (b *rtrBench) changes() []RelayChange {
	var cs []RelayChange
	for c, ok := b.r.NextChange(); ok; c, ok = b.r.NextChange() {
		cs = append(cs, c)
	}
	return cs
}

// advance moves time in the steps that the RTR asks for.
func (b *rtrBench) advance(d time.Duration) {
	b.t.Helper()
	end := b.now.Add(d)
	for range 100_000 {
		next := b.r.Deadline()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(b.now) {
			b.now = next
		}
		b.r.Advance(b.now)
		require.NotEqual(b.t, b.now, b.r.Deadline(), "still due")
	}
	b.now = end
	b.r.Advance(b.now)
}

// lastReason is why the last message went no further.
func (b *rtrBench) lastReason() RTRReason {
	b.t.Helper()
	es := b.events()
	require.NotEmpty(b.t, es)
	e, ok := es[len(es)-1].(RegisterRefused)
	require.True(b.t, ok, "%v", es)
	require.NotEmpty(b.t, e.String())
	return e.Reason
}

// dataNotify takes a Data-Map-Notify apart.
func dataNotify(t testing.TB, b []byte) (lisp.Inner, *lisp.MapNotify) {
	t.Helper()
	require.Greater(t, len(b), lisp.DataHeaderLen)
	require.Equal(t, uint64(0x08000000_ffffff00), binary.BigEndian.Uint64(b))
	e := lisp.EncapsulatedControl{Packet: b[lisp.DataHeaderLen:]}
	in, err := e.Inner()
	require.NoError(t, err)
	m := new(lisp.MapNotify)
	require.NoError(t, m.DecodeFromBytes(in.Payload))
	return in, m
}
