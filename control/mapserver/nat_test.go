package mapserver

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

var (
	rtr1    = netip.MustParseAddrPort("203.0.113.9:4342")
	rtr2    = netip.MustParseAddrPort("203.0.113.10:4342")
	rtr6    = netip.MustParseAddr("2001:db8:9::9")
	rtrKey1 = lisp.Key{ID: 9, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("Map-Server and RTR")}
	inside  = netip.MustParseAddrPort("192.168.1.2:4342")
	natted  = netip.MustParseAddrPort("198.51.100.7:49152")
)

// withRTRs configures an RTR with a key, one without, and one of IPv6.
func withRTRs(c *Config) {
	c.NAT = NAT{RTRs: []RTR{{Addr: rtr1.Addr(), Key: rtrKey1}, {Addr: rtr2.Addr()}, {Addr: rtr6}}}
}

func infoRequest(t testing.TB, key lisp.Key, eid string) []byte {
	t.Helper()
	p := netip.MustParsePrefix(eid)
	testNonce++
	m := lisp.InfoRequest{Nonce: testNonce, MaskLen: uint8(p.Bits()), EID: lisp.AddressFrom(p.Addr())}
	b, err := m.AppendSigned(nil, key)
	require.NoError(t, err)
	return b
}

// relayed is a Map-Register as an RTR relays it.
func relayed(t testing.TB, local netip.AddrPort, register []byte) []byte {
	t.Helper()
	server := msAddr
	if local.Addr().Is6() {
		server = msAddr6
	}
	packet, err := lisp.AppendInner(nil, lisp.Inner{Source: local, Destination: server, Payload: register})
	require.NoError(t, err)
	b, err := (&lisp.EncapsulatedControl{Relayed: true, Packet: packet}).MarshalBinary()
	require.NoError(t, err)
	return b
}

// natRecord is what a node behind a NAT registers: the RTR, and its own locator
// with R = 0.
func natRecord(eid string, rtr netip.Addr) lisp.EIDRecord {
	r := record(eid, 10, rtr.String(), inside.Addr().String())
	r.Locators[0].Local, r.Locators[1].Reachable = false, false
	return r
}

// relayedNotify takes apart what an RTR gets.
func relayedNotify(t testing.TB, d lisp.Datagram) (*lisp.EncapsulatedControl, lisp.Inner, *lisp.MapNotify) {
	t.Helper()
	e := parse[*lisp.EncapsulatedControl](t, d.Bytes)
	in, err := e.Inner()
	require.NoError(t, err)
	return e, in, parse[*lisp.MapNotify](t, in.Payload)
}

func TestInfoRequest(t *testing.T) {
	b := newBench(t, withRTRs, func(c *Config) { c.NAT.TTL = 90 * time.Minute })
	for _, key := range []lisp.Key{key1, key1b} {
		msg := infoRequest(t, key, "10.1.2.0/24")
		out := b.put(natted, msg)
		require.Len(t, out, 1)
		assert.Equal(t, msAddr, out[0].Local) // nat19-4.2-s1: port 4342
		assert.Equal(t, natted, out[0].Remote)
		require.NoError(t, lisp.Verify(out[0].Bytes, key))
		m := parse[*lisp.InfoReply](t, out[0].Bytes)
		assert.Equal(t, testNonce, m.Nonce)
		assert.EqualValues(t, 90, m.TTL)
		_, p, ok := m.Prefix()
		require.True(t, ok)
		assert.Equal(t, netip.MustParsePrefix("10.1.2.0/24"), p)
		n, err := m.Traversal()
		require.NoError(t, err)
		assert.Equal(t, &lisp.NATTraversal{ // nat19-5.2-s1 nat19-4.2-s1 nat19i-5.2-1
			MSPort: 4342, ETRPort: natted.Port(), GlobalETR: lisp.AddressFrom(natted.Addr()), MS: lisp.AddressFrom(msAddr.Addr()),
			RTRs: []lisp.Address{lisp.AddressFrom(rtr1.Addr()), lisp.AddressFrom(rtr2.Addr())},
		}, n)
		es := b.events()
		require.Len(t, es, 1)
		assert.Equal(t, "told 10.1.2.0/24 of site a that it comes from 198.51.100.7:49152, and of 2 RTRs", es[0].String())
	}
	// By IPv6 the IPv6 ones.
	out := b.put(netip.MustParseAddrPort("[2001:db8:4::1]:5000"), infoRequest(t, key1, "10.1.2.0/24"))
	require.Len(t, out, 1)
	n, err := parse[*lisp.InfoReply](t, out[0].Bytes).Traversal()
	require.NoError(t, err)
	assert.Equal(t, []lisp.Address{lisp.AddressFrom(rtr6)}, n.RTRs)
	st := b.s.Stats()
	assert.EqualValues(t, 3, st.InfoRequests)
	assert.EqualValues(t, 3, st.InfoReplies)
	assert.Zero(t, st.Dropped)
}

func TestInfoRequestRefused(t *testing.T) {
	wrong := key1
	wrong.Secret = []byte("wrong")
	unknown := key1
	unknown.ID = 77
	forged := infoRequest(t, key1, "10.1.2.0/24")
	forged[len(forged)-3] ^= 1
	named := lisp.InfoRequest{Nonce: 1}
	require.NoError(t, named.Host.UnmarshalBinary([]byte{0, 17, 'v', 'm', 0}))
	name, err := named.MarshalBinary()
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		msg    []byte
		reason Reason
	}{
		{"wrong key", infoRequest(t, wrong, "10.1.2.0/24"), ReasonAuth}, // nat19-5.2-s1: verified first
		{"unknown key", infoRequest(t, unknown, "10.1.2.0/24"), ReasonKey},
		{"another EID", forged, ReasonAuth},
		{"nobody's EID", infoRequest(t, key1, "11.0.0.0/24"), ReasonNotConfigured},
		{"key of another site", infoRequest(t, key2, "10.1.2.0/24"), ReasonKey},
		{"none", infoRequest(t, lisp.Key{}, "10.1.2.0/24"), ReasonKey},
		{"malformed", []byte{0x70, 0, 0, 0}, ReasonMalformed},
		{"lispers.net", name, ReasonVariant},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, withRTRs)
			assert.Empty(t, b.put(natted, c.msg))
			es := b.events()
			require.Len(t, es, 1)
			assert.Equal(t, c.reason, es[0].(Refused).Reason)
			assert.Contains(t, es[0].String(), "refused info-request")
			assert.EqualValues(t, 1, b.s.Stats().Dropped[c.reason])
			require.Len(t, b.s.History(), 1, "for people who look why")
		})
	}
}

// TestInfoRequestFlood: one that was seen on its way and is repeated with the
// source of a victim makes no more answers than the rate of a source.
func TestInfoRequestFlood(t *testing.T) {
	b := newBench(t, withRTRs, func(c *Config) { c.RatePerSource = 10 })
	msg := infoRequest(t, key1, "10.1.2.0/24")
	sent := 0
	for range 1000 {
		for _, d := range b.put(natted, msg) {
			sent++
			assert.LessOrEqual(t, len(d.Bytes), 2*len(msg))
		}
	}
	assert.LessOrEqual(t, sent, 10)
	assert.GreaterOrEqual(t, sent, 1)
	assert.EqualValues(t, 1000-sent, b.s.Stats().Dropped[ReasonRate])
}

func TestInfoRequestOfSite(t *testing.T) {
	b := newBench(t, withRTRs, func(c *Config) { c.Sites[0].RTRs = []netip.Addr{rtr2.Addr()} })
	for eid, want := range map[string]int{"10.1.2.0/24": 1, "10.128.0.0/16": 2} {
		key := key1
		if want == 2 {
			key = key2
		}
		out := b.put(natted, infoRequest(t, key, eid))
		require.Len(t, out, 1)
		n, err := parse[*lisp.InfoReply](t, out[0].Bytes).Traversal()
		require.NoError(t, err)
		assert.Len(t, n.RTRs, want)
	}
	// Without RTRs a node still learns that it is behind a NAT.
	b = newBench(t)
	out := b.put(natted, infoRequest(t, key1, "10.1.2.0/24"))
	require.Len(t, out, 1)
	n, err := parse[*lisp.InfoReply](t, out[0].Bytes).Traversal()
	require.NoError(t, err)
	assert.Equal(t, []lisp.Address{{}}, n.RTRs)
	// What comes to the data port is for an RTR, and an Info-Reply for an xTR.
	d := lisp.Datagram{Local: netip.AddrPortFrom(msAddr.Addr(), 4341), Remote: natted, Bytes: infoRequest(t, key1, "10.1.2.0/24")}
	assert.False(t, b.s.Handle(b.now, d))
}

// TestRelayedRegister: what an RTR relays is registered, and acknowledged by it.
// The second time it takes the path of a refresh.
func TestRelayedRegister(t *testing.T) {
	for _, c := range []struct {
		name   string
		from   netip.AddrPort
		secure bool
	}{{"with a key", rtr1, true}, {"without", rtr2, false}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, withRTRs)
			for i := range 3 {
				msg := relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", c.from.Addr()), withXTR(xtr1)))
				out := b.put(c.from, msg)
				require.Len(t, out, 1, "%v", b.events())
				assert.Equal(t, msAddr, out[0].Local)
				assert.Equal(t, c.from, out[0].Remote)
				e, in, m := relayedNotify(t, out[0]) // nat19i-4.4-1: in an ECM
				assert.True(t, e.RTR)                // nat19i-4.4-2 nat19-5.2-s2
				assert.False(t, e.Relayed)
				if c.secure {
					assert.EqualValues(t, lisp.ADTypeRTR, e.Security[0]) // nat19i-4.4-3
					require.NoError(t, e.VerifyRTR(rtrKey1))
				} else {
					assert.Empty(t, e.Security)
				}
				assert.Equal(t, msAddr, in.Source) // nat19-4.4-s1
				assert.Equal(t, inside, in.Destination)
				require.NoError(t, lisp.Verify(in.Payload, key1))
				assert.True(t, m.XTRIDPresent) // nat19-4.4-1 nat19-4.3-2
				assert.Equal(t, xtr1, m.XTRID)
				assert.Equal(t, lisp.SiteID(5), m.SiteID)
				assert.Equal(t, testNonce, m.Nonce)
				require.Len(t, m.Records, 1)
				assert.Len(t, m.Records[0].Locators, 2, "the RTR takes the node's own locator from it")
				st := b.s.Stats()
				assert.EqualValues(t, i+1, st.Relayed)
				assert.EqualValues(t, i+1, st.Notifies)
				assert.EqualValues(t, i, st.Refreshes)
			}
			rs := b.s.Registrations(b.now)
			require.Len(t, rs, 1)
			assert.True(t, rs[0].Proxy)
			assert.True(t, rs[0].XTRs[0].Relayed)
			assert.Equal(t, c.from.Addr(), rs[0].XTRs[0].From)
			require.Len(t, rs[0].RLOCs, 1, "not the one behind the NAT")

			// Nothing can be forwarded to the node, and its own locator is nobody's
			// business.
			out := b.put(itr, request(t, itr, "10.1.2.3"))
			require.Len(t, out, 1)
			assert.Equal(t, itr, out[0].Remote)
			reply := parse[*lisp.MapReply](t, out[0].Bytes)
			require.Len(t, reply.Records[0].Locators, 1)
			assert.Equal(t, lisp.AddressFrom(c.from.Addr()), reply.Records[0].Locators[0].RLOC)
		})
	}
}

// TestRelayedRegisterInWorkers: a Worker makes the same of it.
func TestRelayedRegisterInWorkers(t *testing.T) {
	b := newBench(t, withRTRs)
	w := b.s.NewWorker()
	for i := range 3 {
		msg := relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1)))
		d := lisp.Datagram{Local: msAddr, Remote: rtr1, IfIndex: 3, Bytes: msg}
		require.True(t, w.Step(b.now, d))
		require.True(t, w.Step(b.now, lisp.Datagram{Local: msAddr, Remote: natted, Bytes: infoRequest(t, key1, "10.1.2.0/24")}))
		out, apply := w.Flush()
		sent := append([]lisp.Datagram(nil), out...)
		require.NotNil(t, apply)
		if i == 0 {
			require.Len(t, sent, 1, "a new registration is acknowledged by the writer")
		}
		apply(b.now)
		sent = append(sent, b.drain()...)
		require.Len(t, sent, 2)
		for _, d := range sent {
			if lisp.TypeOf(d.Bytes) == lisp.TypeEncapsulatedControl {
				e, _, _ := relayedNotify(t, d)
				require.NoError(t, e.VerifyRTR(rtrKey1))
				assert.Equal(t, rtr1, d.Remote)
			} else {
				assert.Equal(t, natted, d.Remote)
			}
		}
	}
	assert.Zero(t, b.s.Stats().Dropped)
}

func TestRelayedRegisterRefused(t *testing.T) {
	wrong := key1
	wrong.Secret = []byte("wrong")
	rec := natRecord("10.1.2.3/32", rtr1.Addr())
	for _, c := range []struct {
		name   string
		from   netip.AddrPort
		msg    []byte
		reason Reason
	}{
		{"unknown RTR", etr1, relayed(t, inside, register(t, key1, rec, withXTR(xtr1))), ReasonRTR},
		{"no xTR-ID", rtr1, relayed(t, inside, register(t, key1, rec)), ReasonNoXTRID},
		{"wrong key", rtr1, relayed(t, inside, register(t, wrong, rec, withXTR(xtr1))), ReasonAuth},
		{"unknown RTR of early drafts", etr1, register(t, key1, rec, withXTR(xtr1), func(m *lisp.MapRegister) { m.RTR = true }), ReasonRTR},
		{"malformed", rtr1, relayed(t, inside, register(t, key1, rec, withXTR(xtr1))[:40]), ReasonMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, withRTRs)
			assert.Empty(t, b.put(c.from, c.msg))
			assert.Equal(t, c.reason, b.lastReason())
			assert.Empty(t, b.s.Registrations(b.now))
			require.Len(t, b.s.History(), 1)
		})
	}
	// Without a set of RTRs anybody may relay: the site's key counts.
	b := newBench(t)
	require.Len(t, b.put(etr1, relayed(t, inside, register(t, key1, rec, withXTR(xtr1)))), 1)
}

// TestRelayedRepetition: an RTR must not believe a node to be where somebody sends
// from who has kept its Map-Register.
func TestRelayedRepetition(t *testing.T) {
	b := newBench(t, withRTRs)
	msg := relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1)))
	require.Len(t, b.put(rtr1, msg), 1)
	assert.Empty(t, b.put(rtr1, msg))
	assert.Empty(t, b.put(rtr2, msg))
	assert.EqualValues(t, 2, b.s.Stats().Duplicates)
}

// TestNotifyThroughRTR: a node behind a NAT, and the RTR that it has left, hear of
// a change by the RTR.
func TestNotifyThroughRTR(t *testing.T) {
	b := newBench(t, withRTRs)
	require.Len(t, b.put(rtr1, relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1)))), 1)
	// Another xTR takes the EID-Prefix over.
	out := b.put(etr2, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.12"), withXTR(xtr2)))
	require.Len(t, out, 2)
	assert.Equal(t, etr2, out[0].Remote)
	d := out[1]
	assert.Equal(t, rtr1, d.Remote) // nat19i-5.5-4
	e, in, m := relayedNotify(t, d)
	assert.True(t, e.RTR)
	require.NoError(t, e.VerifyRTR(rtrKey1))
	assert.Equal(t, inside, in.Destination)
	require.NoError(t, lisp.Verify(in.Payload, key1))
	assert.Equal(t, xtr1, m.XTRID) // nat19i-4.3-1 nat19i-4.3-3
	assert.Equal(t, lisp.SiteID(5), m.SiteID)
	require.Len(t, m.Records[0].Locators, 1)
	assert.Equal(t, lisp.AddressFrom(netip.MustParseAddr("192.0.2.12")), m.Records[0].Locators[0].RLOC)

	// It is repeated the same way until the node acknowledges it, from wherever.
	b.advance(3 * time.Second)
	out = b.drain()
	require.Len(t, out, 1)
	assert.Equal(t, d.Bytes, out[0].Bytes)
	ack := lisp.MapNotifyAck(*m)
	msg, err := ack.AppendSigned(nil, key1)
	require.NoError(t, err)
	b.put(natted, msg)
	b.advance(time.Minute)
	assert.Empty(t, b.drain())
	assert.EqualValues(t, 1, b.s.Stats().NotifyAcks)

	// The node comes back by another RTR: the xTR that is displaced hears of it as it
	// is, and when it moves on to the second RTR the first one hears.
	b.put(rtr1, relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1))))
	b.events()
	out = b.put(rtr2, relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", rtr2.Addr()), withXTR(xtr1))))
	remotes := map[netip.AddrPort]int{}
	for _, d := range out {
		remotes[d.Remote]++
	}
	assert.Equal(t, 1, remotes[rtr2], "its own")
	assert.Equal(t, 1, remotes[rtr1], "the one it left")
}

// TestRelayedMoves: the node's own idea of its address is no part of the mapping.
func TestRelayedMoves(t *testing.T) {
	b := newBench(t, withRTRs)
	rec := natRecord("10.1.2.3/32", rtr1.Addr())
	b.put(rtr1, relayed(t, inside, register(t, key1, rec, withXTR(xtr1))))
	b.events()
	rec.Locators[1].RLOC = lisp.AddressFrom(netip.MustParseAddr("172.20.0.5"))
	other := netip.MustParseAddrPort("172.20.0.5:4342")
	out := b.put(rtr1, relayed(t, other, register(t, key1, rec, withXTR(xtr1))))
	require.Len(t, out, 1)
	_, in, _ := relayedNotify(t, out[0])
	assert.Equal(t, other, in.Destination)
	es := b.events()
	require.Len(t, es, 1)
	assert.Equal(t, ChangeRefreshed, es[0].(Registered).Change)
}

// TestRelayedReload: after a restart it is known that a node came by an RTR, and
// nothing is sent to the RTR as if it were the node.
func TestRelayedReload(t *testing.T) {
	a := newBench(t, withRTRs)
	a.put(rtr1, relayed(t, inside, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1))))
	b := newBench(t, withRTRs)
	for d := range a.s.Snapshot() {
		assert.True(t, d.Relayed)
		bin, err := d.MarshalBinary()
		require.NoError(t, err)
		var back Delta
		require.NoError(t, back.UnmarshalBinary(bin))
		_, err = b.s.Merge(b.now, back)
		require.NoError(t, err)
	}
	out := b.put(etr2, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.12"), withXTR(xtr2)))
	require.Len(t, out, 1)
	assert.Equal(t, etr2, out[0].Remote)
}

// TestOldDraftRTR: early drafts have the RTR pass the Map-Register on as it is, and
// its own authentication record behind the Map-Notify.
func TestOldDraftRTR(t *testing.T) {
	b := newBench(t, withRTRs)
	old := func(m *lisp.MapRegister) { m.RTR = true }
	out := b.put(rtr1, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1), old))
	require.Len(t, out, 1)
	assert.Equal(t, rtr1, out[0].Remote)
	assert.EqualValues(t, 0x4c, out[0].Bytes[0])
	require.NoError(t, lisp.VerifyRTRAuthentication(out[0].Bytes, rtrKey1))
	require.NoError(t, lisp.Verify(out[0].Bytes, key1))
	// Without a key it is a Map-Notify like any other.
	out = b.put(rtr2, register(t, key1, natRecord("10.1.2.3/32", rtr2.Addr()), withXTR(xtr1), old))
	require.NotEmpty(t, out)
	assert.Equal(t, rtr2, out[0].Remote)
	assert.EqualValues(t, 0x48, out[0].Bytes[0])
	require.NoError(t, lisp.Verify(out[0].Bytes, key1))
	// Unsolicited ones have the record too.
	b = newBench(t, withRTRs)
	b.put(rtr1, register(t, key1, natRecord("10.1.2.3/32", rtr1.Addr()), withXTR(xtr1), old))
	out = b.put(etr2, register(t, key1, record("10.1.2.3/32", 10, "192.0.2.12"), withXTR(xtr2)))
	require.Len(t, out, 2)
	assert.Equal(t, rtr1, out[1].Remote)
	require.NoError(t, lisp.VerifyRTRAuthentication(out[1].Bytes, rtrKey1))
}

// TestLispersNetMapServer: a host name is answered, and mappings are told in parts.
func TestLispersNetMapServer(t *testing.T) {
	b := newBench(t, withRTRs, func(c *Config) { c.NAT.LispersNet, c.Sites[0].ProxyReply = true, true })
	m := lisp.InfoRequest{Nonce: 1}
	require.NoError(t, m.Host.UnmarshalBinary([]byte{0, 17, 'v', 'm', 0}))
	msg, err := m.MarshalBinary()
	require.NoError(t, err)
	out := b.put(natted, msg)
	require.Len(t, out, 1)
	assert.EqualValues(t, 16, binary.BigEndian.Uint16(out[0].Bytes[30:]), "their LCAF length")
	n, err := parse[*lisp.InfoReply](t, out[0].Bytes).Traversal()
	require.NoError(t, err)
	assert.Len(t, n.RTRs, 2)
	assert.Equal(t, m.Host, n.PrivateETR)
	assert.Contains(t, b.events()[0].String(), "host vm")

	rec := record("10.1.2.3/32", 3, natted.Addr().String(), rtr1.Addr().String())
	rec.Locators[0].Priority, rec.Locators[1].Priority = 0, natt.PriorityRTR
	require.Len(t, b.put(natted, register(t, key1, rec, withXTR(xtr1))), 1)
	for from, want := range map[netip.AddrPort]netip.Addr{itr: rtr1.Addr(), rtr1: natted.Addr()} {
		out = b.put(from, request(t, from, "10.1.2.3"))
		require.Len(t, out, 1)
		ls := parse[*lisp.MapReply](t, out[0].Bytes).Records[0].Locators
		require.Len(t, ls, 1)
		assert.Equal(t, lisp.AddressFrom(want), ls[0].RLOC)
	}
}

func TestNATConfig(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"RTR address", func(c *Config) { c.NAT.RTRs = []RTR{{}} }},
		{"twice", func(c *Config) { c.NAT.RTRs = []RTR{{Addr: rtr6}, {Addr: rtr6}} }},
		{"key", func(c *Config) { c.NAT.RTRs = []RTR{{Addr: rtr6, Key: key1b}} }},
		{"TTL", func(c *Config) { c.NAT.TTL = time.Second }},
		{"site's RTR", func(c *Config) { c.Sites[0].RTRs = []netip.Addr{rtr6} }},
	} {
		_, err := New(Config{Sites: testSites(), NAT: NAT{}, Rand: seeded(1)})
		require.NoError(t, err)
		cfg := Config{Sites: testSites(), Rand: seeded(1)}
		c.change(&cfg)
		_, err = New(cfg)
		require.ErrorIs(t, err, ErrConfig, c.name)
	}
}
