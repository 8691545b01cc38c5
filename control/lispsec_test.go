package control_test

import (
	"bytes"
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

var (
	secITRKey = lisp.Key{ID: 9, Secret: []byte("of ITR and Map-Resolver")}
	secSite   = netip.MustParsePrefix("192.0.2.0/26")
	secEID    = netip.MustParseAddr("192.0.2.7")
)

// secLab is an ITR at rlocA, an ETR at rlocB and a Map-Server, stepped directly,
// with somebody on the wire between them.
type secLab struct {
	t        *testing.T
	now      time.Time
	itr, etr *control.Engine
	ms       *mapserver.Server
	// wire gets what is sent and returns what arrives; nil: the same.
	wire func(d lisp.Datagram) []lisp.Datagram
	seen []lisp.Datagram
}

func newSecLab(t *testing.T, change ...func(itr, etr *control.Config, ms *mapserver.Config)) *secLab {
	t.Helper()
	l := &secLab{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	quiet := control.ProbeConfig{Interval: -1}
	itr := control.Config{
		MapResolvers: []netip.AddrPort{netip.AddrPortFrom(msRLOC, 0)}, Probe: quiet, Rand: rand.NewChaCha8([32]byte{1}),
		LISPSEC: control.LISPSEC{Mode: control.LISPSECRequired, Resolvers: []control.ResolverKey{{Key: secITRKey}}},
	}
	etr := control.Config{
		Database:   []control.DatabaseMapping{{Key: mapcache.Key{Prefix: secSite}, TTL: time.Hour}},
		MapServers: []control.MapServer{{Addr: netip.AddrPortFrom(msRLOC, 0), Key: runKey}}, Probe: quiet, Rand: rand.NewChaCha8([32]byte{2}),
	}
	ms := mapserver.Config{
		Rand: rand.NewChaCha8([32]byte{3}), LISPSEC: mapserver.LISPSEC{ITRKeys: []lisp.Key{secITRKey}},
		Sites: []mapserver.Site{{Name: "lab", Keys: []lisp.Key{runKey}, Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), AcceptMoreSpecifics: true},
		}}},
	}
	for _, f := range change {
		f(&itr, &etr, &ms)
	}
	var err error
	l.itr, err = control.New(itr)
	require.NoError(t, err)
	l.etr, err = control.New(etr)
	require.NoError(t, err)
	l.ms, err = mapserver.New(ms)
	require.NoError(t, err)
	l.itr.SetLocals(l.now, []mapcache.Local{{Addr: rlocA, Priority: 1, Weight: 100, Up: true}})
	l.etr.SetLocals(l.now, []mapcache.Local{{Addr: rlocB, Priority: 1, Weight: 100, Up: true}})
	l.run()
	return l
}

func (l *secLab) core(a netip.Addr) control.Core {
	switch a {
	case rlocA:
		return l.itr
	case msRLOC:
		return l.ms
	default: // the ETR may have several addresses
		return l.etr
	}
}

// run delivers until nothing is on its way.
func (l *secLab) run() {
	l.t.Helper()
	for moved := true; moved; {
		moved = false
		for _, a := range []netip.Addr{rlocA, rlocB, msRLOC} {
			c := l.core(a)
			for d, ok := c.Next(); ok; d, ok = c.Next() {
				moved = true
				d.Bytes = bytes.Clone(d.Bytes)
				l.seen = append(l.seen, d)
				out := []lisp.Datagram{d}
				if l.wire != nil {
					out = l.wire(d)
				}
				for _, o := range out {
					l.deliver(o)
				}
			}
		}
	}
}

func (l *secLab) deliver(d lisp.Datagram) {
	d.Local, d.Remote = d.Remote, d.Local
	l.core(d.Local.Addr()).Handle(l.now, d)
}

// advance lets time pass.
func (l *secLab) advance(d time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); l.now = l.now.Add(100 * time.Millisecond) {
		for _, a := range []netip.Addr{rlocA, rlocB, msRLOC} {
			l.core(a).Advance(l.now)
		}
		l.run()
	}
}

func (l *secLab) resolve(a netip.Addr) {
	l.itr.Resolve(l.now, []mapcache.Key{mapcache.HostKey(0, a)})
	l.run()
}

func (l *secLab) known(a netip.Addr) bool {
	l.itr.Publish()
	return l.itr.Cache().View().Forward(0, a, 0).Verdict == mapcache.Encapsulate
}

// of returns what was sent from one to the other.
func (l *secLab) of(from, to netip.Addr, t lisp.Type) (out []lisp.Datagram) {
	for _, d := range l.seen {
		if d.Local.Addr() == from && d.Remote.Addr() == to && lisp.TypeOf(d.Bytes) == t {
			out = append(out, d)
		}
	}
	return out
}

// What follows computes an exchange without any of the package's own functions,
// from the RFCs and the octets on the wire.

// hkdf16 is HKDF-SHA256 without salt and info, 16 octets (RFC 5869).
func hkdf16(ikm []byte) []byte {
	return mac(mac(make([]byte, 32), ikm), []byte{1})[:16]
}

func mac(key, text []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(text)
	return m.Sum(nil)
}

// unwrap is the index-based unwrapping of RFC 3394 §2.2.2 for n = 2.
func unwrap(t *testing.T, kek, c []byte) []byte {
	t.Helper()
	require.Len(t, c, 24)
	block, err := aes.NewCipher(kek)
	require.NoError(t, err)
	a := bytes.Clone(c[:8])
	r := [3][]byte{1: bytes.Clone(c[8:16]), 2: bytes.Clone(c[16:24])}
	for j := 5; j >= 0; j-- {
		for i := 2; i >= 1; i-- {
			a[7] ^= byte(2*j + i)
			b := append(bytes.Clone(a), r[i]...)
			block.Decrypt(b, b)
			a, r[i] = b[:8], b[8:]
		}
	}
	assert.Equal(t, bytes.Repeat([]byte{0xa6}, 8), a) // RFC 9303-6.5-7
	return append(r[1], r[2]...)
}

// otkOf takes the One-Time Key out of an ECM, and what follows the key.
func otkOf(t *testing.T, b []byte, nonce, secret []byte) (otk, eidAD []byte) {
	t.Helper()
	require.EqualValues(t, 0x88, b[0], "ECM, S bit")     // RFC 9303-6.4-3, 9303-6.7.1-1, 9301-1.1-3
	require.Equal(t, []byte{1, 0, 0, 2, 0, 24}, b[4:10]) // LISP-SEC, HMAC-SHA-256-128, 24 octets
	require.EqualValues(t, 2, b[11])                     // RFC 9303-6.5-4: AES-KEY-WRAP-128+HKDF-SHA256
	kek := hkdf16(append(append(bytes.Clone(nonce), "OTK-Key-Wrap"...), secret...))
	n := int(binary.BigEndian.Uint16(b[36:]))
	return unwrap(t, kek, b[12:36]), b[36 : 36+n]
}

// TestLISPSEC: ITR, Map-Resolver and Map-Server, ETR, recomputed independently.
func TestLISPSEC(t *testing.T) {
	l := newSecLab(t)
	reg := l.of(rlocB, msRLOC, lisp.TypeMapRegister)
	require.NotEmpty(t, reg)
	assert.NotZero(t, reg[0].Bytes[0]&0x04) // RFC 9303-6.3-1
	l.seen = nil
	l.resolve(secEID)
	require.True(t, l.known(secEID)) // RFC 9301-1.1-2, 9301-9-1
	require.Len(t, l.seen, 3)
	toMR, toETR, reply := l.seen[0].Bytes, l.seen[1].Bytes, l.seen[2].Bytes
	assert.EqualValues(t, 0x22, reply[0], "Map-Reply, S bit") // RFC 9301-1.1-3
	nonce := reply[4:12]

	itr, unsigned := otkOf(t, toMR, nonce, secITRKey.Secret)
	assert.Equal(t, []byte{0, 4, 0, 2}, unsigned)
	ms, eidAD := otkOf(t, toETR, nonce, runKey.Secret)
	assert.Equal(t, hkdf16(itr), ms) // RFC 9303-6.9-7
	assert.Equal(t, []byte{0, 32, 0, 2, 1, 0, 0, 2, 0, 26, 0, 1, 192, 0, 2, 0}, eidAD[:16])
	zeroed := append(bytes.Clone(eidAD[:16]), make([]byte, 16)...)
	assert.Equal(t, mac(itr, zeroed)[:16], eidAD[16:]) // RFC 9303-6-1

	end := len(reply)
	assert.Equal(t, eidAD, reply[end-20-32:end-20], "copied by the ETR")
	assert.Equal(t, []byte{1, 0, 0, 0}, reply[end-20-32-4:end-20-32])
	assert.Equal(t, []byte{0, 20, 0, 2}, reply[end-20:end-16])
	zeroed = append(bytes.Clone(reply[:end-16]), make([]byte, 16)...)
	assert.Equal(t, mac(ms, zeroed)[:16], reply[end-16:])

	for _, d := range l.seen { // RFC 9303-6.4-2, 9303-6.5-1, 9303-6.5-2
		assert.False(t, bytes.Contains(d.Bytes, itr) || bytes.Contains(d.Bytes, ms), "a One-Time Key is on the wire")
	}
	inner := lisp.EncapsulatedControl{}
	require.NoError(t, inner.DecodeFromBytes(toMR))
	assert.True(t, bytes.HasSuffix(toETR, inner.Packet), "the Map-Request itself is unaltered")
}

// TestOnPathAttacks: an attacker on each part of the way outside of the mapping
// system. Nothing of his gets into the map-cache; when he stops, it works.
func TestOnPathAttacks(t *testing.T) {
	forged := func(nonce []byte) []byte {
		m := lisp.MapReply{Nonce: lisp.Nonce(binary.BigEndian.Uint64(nonce)), Records: []lisp.EIDRecord{{
			TTL: 1440, MaskLen: 24, Authoritative: true, EID: lisp.AddressFrom(netip.MustParseAddr("192.0.2.0")),
			Locators: []lisp.RLOCRecord{{Priority: 1, Weight: 1, Reachable: true, RLOC: lisp.AddressFrom(rlocA)}},
		}}}
		b, _ := m.MarshalBinary()
		return b
	}
	change := func(d lisp.Datagram, f func([]byte)) []lisp.Datagram {
		f(d.Bytes)
		return []lisp.Datagram{d}
	}
	for _, c := range []struct {
		name     string
		from, to netip.Addr
		attack   func(l *secLab, d lisp.Datagram) []lisp.Datagram
	}{
		{"locator", rlocB, rlocA, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) { i := bytes.Index(b, rlocB.AsSlice()); b[i+3] = 66 })
		}},
		{"TTL", rlocB, rlocA, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) { b[13] = 1 })
		}},
		{"prefix", rlocB, rlocA, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) { b[17] = 24 })
		}},
		{"vouched prefix", rlocB, rlocA, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) { b[17] = 24; b[len(b)-20-32+9] = 24 })
		}},
		{"S bit stripped", rlocB, rlocA, func(_ *secLab, d lisp.Datagram) []lisp.Datagram { // RFC 9303-6.9-1, 9301-9-4
			return change(d, func(b []byte) { b[0] &^= 2 })
		}},
		{"plain reply first", rlocB, rlocA, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			d.Bytes = forged(d.Bytes[4:12])
			return []lisp.Datagram{d}
		}},
		{"request downgraded", rlocA, msRLOC, func(_ *secLab, d lisp.Datagram) []lisp.Datagram { // the S bit of the ECM and its data removed
			d.Bytes = append([]byte{0x80, 0, 0, 0}, d.Bytes[40:]...)
			return []lisp.Datagram{d}
		}},
		{"request with a key of his", rlocA, msRLOC, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) {
				w, _ := lisp.WrapOTK(lisp.WrapAES, lisp.OTK{1}, 1, []byte("his"))
				copy(b[12:], w)
			})
		}},
		{"request with a key unencrypted", rlocA, msRLOC, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) { b[11] = 1; copy(b[12:], make([]byte, 24)) })
		}},
		{"forwarded request downgraded", msRLOC, rlocB, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			n := int(binary.BigEndian.Uint16(d.Bytes[36:]))
			d.Bytes = append([]byte{0x80, 0, 0, 0}, d.Bytes[36+n:]...)
			return []lisp.Datagram{d}
		}},
		{"forwarded request with a wider prefix", msRLOC, rlocB, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) { b[36+9] = 24 })
		}},
		{"forwarded request with another key", msRLOC, rlocB, func(_ *secLab, d lisp.Datagram) []lisp.Datagram {
			return change(d, func(b []byte) { b[20] ^= 1 }) // RFC 9303-6.5-8
		}},
		{"everything swallowed", rlocB, rlocA, func(*secLab, lisp.Datagram) []lisp.Datagram { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newSecLab(t)
			l.wire = func(d lisp.Datagram) []lisp.Datagram {
				if d.Local.Addr() == c.from && d.Remote.Addr() == c.to && lisp.TypeOf(d.Bytes) != lisp.TypeMapRegister && lisp.TypeOf(d.Bytes) != lisp.TypeMapNotify {
					return c.attack(l, d)
				}
				return []lisp.Datagram{d}
			}
			l.resolve(secEID)
			l.advance(20 * time.Second)
			assert.Zero(t, l.itr.Cache().Len()) // RFC 9303-6.9-2, 9301-9-4
			for _, d := range l.of(rlocA, msRLOC, lisp.TypeEncapsulatedControl) {
				assert.EqualValues(t, 0x88, d.Bytes[0], "never without LISP-SEC")
			}
			l.wire = nil
			l.advance(20 * time.Second)
			assert.True(t, l.known(secEID))
		})
	}
}

// TestReplays: old messages are good for nothing.
func TestReplays(t *testing.T) {
	l := newSecLab(t)
	l.seen = nil
	l.resolve(secEID)
	old := l.seen
	require.Len(t, old, 3)
	sent := l.itr.Stats()

	// The Map-Reply once more, after the ETR has moved away.
	l.itr.Cache().Remove(l.now, mapcache.Key{Prefix: secSite})
	l.deliver(old[2])
	assert.False(t, l.known(secEID)) // RFC 9303-6.9-3
	assert.EqualValues(t, sent.Dropped[control.DropUnknownNonce]+1, l.itr.Stats().Dropped[control.DropUnknownNonce])

	// The Map-Requests: whoever replays them gains an answer to a question nobody has.
	for _, d := range old[:2] {
		l.deliver(d)
		l.run()
		assert.False(t, l.known(secEID))
	}

	// An old Map-Reply with the nonce of a new Map-Request.
	l.advance(2 * time.Second)
	l.wire = func(d lisp.Datagram) []lisp.Datagram {
		if lisp.TypeOf(d.Bytes) == lisp.TypeMapReply {
			b := bytes.Clone(old[2].Bytes)
			copy(b[4:12], d.Bytes[4:12])
			d.Bytes = b
		}
		return []lisp.Datagram{d}
	}
	l.resolve(secEID)
	assert.False(t, l.known(secEID)) // RFC 9303-6.9-2
}

// TestOverclaimingETR: an ETR that has the right key and claims more than it has.
func TestOverclaimingETR(t *testing.T) {
	l := newSecLab(t)
	l.wire = func(d lisp.Datagram) []lisp.Datagram {
		if lisp.TypeOf(d.Bytes) != lisp.TypeMapReply {
			return []lisp.Datagram{d}
		}
		ms := l.of(msRLOC, rlocB, lisp.TypeEncapsulatedControl)
		otk, eidAD := otkOf(t, ms[len(ms)-1].Bytes, d.Bytes[4:12], runKey.Secret)
		var m lisp.MapReply
		require.NoError(t, m.DecodeFromBytes(d.Bytes))
		wide, other := m.Records[0], m.Records[0]
		wide.MaskLen = 24
		other.EID = lisp.AddressFrom(netip.MustParseAddr("192.0.2.128"))
		m.Records = append([]lisp.EIDRecord{wide, other}, m.Records...)
		var err error
		d.Bytes, err = m.AppendSecured(nil, eidAD, lisp.OTK(otk), lisp.HMACSHA256)
		require.NoError(t, err)
		return []lisp.Datagram{d}
	}
	l.resolve(secEID)
	assert.True(t, l.known(secEID))
	assert.Equal(t, 1, l.itr.Cache().Len())
	_, ok := l.itr.Cache().Get(mapcache.Key{Prefix: secSite})
	assert.True(t, ok)
	assert.EqualValues(t, 2, l.itr.Stats().Dropped[control.DropOverclaim]) // RFC 9303-6.9.1-2
}

// TestLISPSECKinds: the other kinds of answers.
func TestLISPSECKinds(t *testing.T) {
	absentEID := netip.MustParseAddr("192.0.2.200")
	for _, c := range []struct {
		name   string
		change func(itr, etr *control.Config, ms *mapserver.Config)
		eid    netip.Addr
		want   mapcache.Verdict
		from   netip.Addr
	}{
		{"proxy reply", func(_, etr *control.Config, _ *mapserver.Config) { etr.MapServers[0].ProxyReply = true }, secEID, mapcache.Encapsulate, msRLOC},
		{"proxy by the site", func(_, _ *control.Config, ms *mapserver.Config) { ms.Sites[0].ProxyReply = true }, secEID, mapcache.Encapsulate, msRLOC},
		{"not registered", nil, absentEID, mapcache.Native, msRLOC},
		{"not LISP", nil, netip.MustParseAddr("8.8.8.8"), mapcache.Native, msRLOC},
		{"ETR without LISP-SEC", func(_, etr *control.Config, _ *mapserver.Config) { etr.LISPSEC.NoETR = true }, secEID, mapcache.Drop, msRLOC},
		{"the same, preferred", func(itr, etr *control.Config, _ *mapserver.Config) {
			etr.LISPSEC.NoETR = true
			itr.LISPSEC.Mode = control.LISPSECPreferred
		}, secEID, mapcache.Encapsulate, rlocB},
		{"SHA-1", func(itr, _ *control.Config, _ *mapserver.Config) {
			itr.LISPSEC.HMACs, itr.LISPSEC.KDFs = []lisp.HMACID{lisp.HMACSHA1}, []lisp.KDFID{lisp.KDFHKDFSHA1}
		}, secEID, mapcache.Encapsulate, rlocB},
		{"no preference", func(itr, _ *control.Config, _ *mapserver.Config) {
			itr.LISPSEC.HMACs, itr.LISPSEC.KDFs = []lisp.HMACID{0}, []lisp.KDFID{0}
		}, secEID, mapcache.Encapsulate, rlocB},
		{"null key wrap", func(itr, etr *control.Config, ms *mapserver.Config) {
			all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
			itr.LISPSEC.ProtectedPaths, etr.LISPSEC.ProtectedPaths, ms.LISPSEC.ProtectedPaths = all, all, all
			itr.LISPSEC.Resolvers[0].Wrap, ms.Sites[0].OTKWrap = lisp.WrapNull, lisp.WrapNull
		}, secEID, mapcache.Encapsulate, rlocB}, // RFC 9303-6.5-5, 9303-6.5.1-1
		{"ITR without LISP-SEC", func(itr, _ *control.Config, _ *mapserver.Config) { itr.LISPSEC = control.LISPSEC{} }, secEID, mapcache.Encapsulate, rlocB},
	} {
		t.Run(c.name, func(t *testing.T) {
			var change []func(itr, etr *control.Config, ms *mapserver.Config)
			if c.change != nil {
				change = append(change, c.change)
			}
			l := newSecLab(t, change...)
			l.resolve(c.eid)
			l.advance(2 * time.Second)
			l.itr.Publish()
			assert.Equal(t, c.want, l.itr.Cache().View().Forward(0, c.eid, 0).Verdict)
			replies := append(l.of(rlocB, rlocA, lisp.TypeMapReply), l.of(msRLOC, rlocA, lisp.TypeMapReply)...)
			require.NotEmpty(t, replies)
			assert.NotEmpty(t, l.of(c.from, rlocA, lisp.TypeMapReply), "answered by")
		})
	}
}
