package natt

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// oldNotify is the Map-Notify of a Map-Server of early drafts.
func (b *rtrBench) oldNotify(n node, nonce lisp.Nonce) []byte {
	b.t.Helper()
	m := lisp.MapNotify{
		XTRIDPresent: true, RTRAuth: len(b.key.Secret) > 0, Nonce: nonce, Records: []lisp.EIDRecord{n.record()}, XTRID: n.xtr, SiteID: 7,
	}
	msg, err := m.AppendSigned(nil, siteKey)
	require.NoError(b.t, err)
	out, err := Path{Variant: Old, RTR: rtrIP}.Append(nil, msIP, msg, b.key)
	require.NoError(b.t, err)
	return out
}

// TestRTROld relays as early drafts do.
func TestRTROld(t *testing.T) {
	for name, change := range map[string]func(*RTRConfig){"with a key": oldVariant, "without": func(c *RTRConfig) { oldVariant(c); withoutKey(c) }} {
		t.Run(name, func(t *testing.T) {
			b := newRTRBench(t, change)
			n := nodeA()
			packet := n.registerPacket(t, 1)
			e := new(lisp.EncapsulatedControl)
			require.NoError(t, e.DecodeFromBytes(packet))
			in, err := e.Inner()
			require.NoError(t, err)
			out := b.send(n.from, packet)
			require.Len(t, out, 1)
			assert.Equal(t, in.Payload, out[0].Bytes, "bare")
			notify := b.oldNotify(n, 1)
			out = b.send(msPort, notify)
			require.Len(t, out, 1)
			assert.Equal(t, n.from, out[0].Remote)
			inner, m := dataNotify(t, out[0].Bytes)
			assert.Equal(t, netip.AddrPortFrom(insideIP, 4342), inner.Destination)
			require.NoError(t, lisp.Verify(inner.Payload, siteKey))
			if len(b.key.Secret) > 0 {
				a, ok := m.RTRAuthentication()
				require.True(t, ok)
				assert.Zero(t, a.KeyID)
				assert.Empty(t, a.Data, "not passed on")
			} else {
				assert.Equal(t, notify, inner.Payload)
			}
			require.Len(t, b.r.Relays(), 1)
		})
	}
}

func TestRTROldRefused(t *testing.T) {
	b := newRTRBench(t, oldVariant)
	n := nodeA()
	b.send(n.from, n.registerPacket(t, 1))
	wrong := newRTRBench(t, oldVariant, func(c *RTRConfig) { c.MapServers[0].Key.Secret = []byte("wrong") })
	assert.Empty(t, b.send(msPort, wrong.oldNotify(n, 1)))
	assert.Equal(t, RTRAuthentication, b.lastReason())
	none := newRTRBench(t, oldVariant, withoutKey)
	assert.Empty(t, b.send(msPort, none.oldNotify(n, 1)))
	assert.Equal(t, RTRNotSecured, b.lastReason())
	// A Map-Notify for an xTR in the same process, and those of other Map-Servers.
	d := lisp.Datagram{Local: netip.AddrPortFrom(rtrIP, 4342), Remote: msPort, Bytes: none.oldNotify(n, 99)}
	assert.False(t, b.r.Handle(b.now, d))
	d.Bytes, d.Remote = b.oldNotify(n, 1), attacker
	assert.False(t, b.r.Handle(b.now, d))
	assert.Empty(t, b.r.Relays())
}

// namePacket is the Info-Request of lispers.net to an RTR.
func namePacket(t testing.TB, name string) []byte {
	t.Helper()
	m := lisp.InfoRequest{Nonce: 1, Host: hostAddress(name)}
	b, err := m.AppendBinary([]byte{0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0})
	require.NoError(t, err)
	return b
}

// TestRTRLispersNet: hosts are known by name and global address, and the port that
// they come from.
func TestRTRLispersNet(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.LispersNet, c.MaxRelays = true, 4 })
	data := netip.AddrPortFrom(rtrIP, 4341)
	handle := func(from netip.AddrPort, msg []byte) bool {
		return b.r.Handle(b.now, lisp.Datagram{Local: data, Remote: from, Bytes: msg})
	}
	names := func() (out []NameChange) {
		for c, ok := b.r.NextName(); ok; c, ok = b.r.NextName() {
			out = append(out, c)
		}
		return out
	}
	require.True(t, handle(natPort, namePacket(t, "vm")))
	assert.Empty(t, b.drain(), "it is not answered")
	at, ok := b.r.Host("vm", natPort.Addr())
	require.True(t, ok)
	assert.Equal(t, natPort, at)
	assert.Equal(t, []NameChange{{Name: "vm", Since: natPort}}, names())
	b.advance(15 * time.Second)
	require.True(t, handle(natPort, namePacket(t, "vm")))
	assert.Empty(t, names())
	require.True(t, handle(natPort2, namePacket(t, "vm")))
	assert.Equal(t, []NameChange{{"vm", natPort, natPort2}}, names())
	b.advance(29 * time.Second)
	_, ok = b.r.Host("vm", natPort.Addr())
	assert.True(t, ok)
	b.advance(time.Second)
	_, ok = b.r.Host("vm", natPort.Addr())
	assert.False(t, ok)
	assert.Equal(t, []NameChange{{Name: "vm", Before: natPort2}}, names())
	assert.True(t, b.r.Deadline().IsZero())

	for i := range 6 {
		require.True(t, handle(natPort, namePacket(t, string(rune('a'+i)))))
	}
	assert.Equal(t, 4, b.r.Stats().Names)
	assert.EqualValues(t, 2, b.r.Stats().Dropped[RTRTableFull])
	// Data packets, and those of a node by the draft, are none of its business.
	user := namePacket(t, "vm")
	user[4] = 0
	for _, msg := range [][]byte{{}, user, {0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0x45}} {
		assert.False(t, handle(natPort, msg))
	}
	assert.True(t, handle(natPort, append(namePacket(t, "x")[:8], infoWithoutName(t)...)))
	assert.EqualValues(t, 1, b.r.Stats().Dropped[RTRMalformed])
	// Many repetitions keep no more than there is.
	for range 10 * sourceSlots {
		handle(natPort, namePacket(t, "a"))
		b.now = b.now.Add(time.Millisecond)
	}
	assert.LessOrEqual(t, len(b.r.names.order), 2*4+sourceSlots+1)
}

func infoWithoutName(t testing.TB) []byte {
	t.Helper()
	b, err := (&lisp.InfoRequest{Nonce: 1}).MarshalBinary()
	require.NoError(t, err)
	return b
}

func TestPartialLocators(t *testing.T) {
	l := func(a string, p uint8) lisp.RLOCRecord {
		return lisp.RLOCRecord{Priority: p, RLOC: lisp.AddressFrom(netip.MustParseAddr(a))}
	}
	named, err := lisp.LCAFAddress(&lisp.AFIList{Addresses: []lisp.Address{
		lisp.AddressFrom(natPort.Addr()), hostAddress("vm@tp-49152"),
	}})
	require.NoError(t, err)
	global := lisp.RLOCRecord{RLOC: named}
	all := []lisp.RLOCRecord{global, l("10.0.0.2", 1), l("2001:db8::2", 1), l(rtrIP.String(), PriorityRTR)}
	assert.Equal(t, all[:3], PartialLocators(all, rtrIP))
	assert.Equal(t, all[1:], PartialLocators(all, netip.MustParseAddr("192.0.2.99")))
	assert.Equal(t, all[:3], PartialLocators(all[:3], rtrIP), "no RTR")
	ip, name, ok := NamedLocator(named)
	assert.True(t, ok)
	assert.Equal(t, natPort.Addr(), ip)
	assert.Equal(t, "vm@tp-49152", name)
	_, _, ok = NamedLocator(hostAddress("vm"))
	assert.False(t, ok)
}
