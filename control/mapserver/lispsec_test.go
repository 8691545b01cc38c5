package mapserver

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

var itrKeys = []lisp.Key{{ID: 9, Secret: []byte("itr secret")}, {ID: 9, Secret: []byte("another itr's")}, {ID: 10, Secret: []byte("next itr secret")}}

func withLISPSEC(c *Config) { c.LISPSEC.ITRKeys = itrKeys }

func withSecurity(m *lisp.MapRegister) { m.SecurityCapable = true }

// secureRequest is a protected Map-Request of an ITR.
type secureRequest struct {
	nonce lisp.Nonce
	otk   lisp.OTK
	key   lisp.Key
	wrap  lisp.WrapID
	data  lisp.ECMSecurity
}

func newSecureRequest(change ...func(*secureRequest)) *secureRequest {
	r := &secureRequest{otk: lisp.OTK{0: 7, 15: 9}, key: itrKeys[0], wrap: lisp.WrapAES}
	r.data = lisp.ECMSecurity{RequestedHMAC: lisp.HMACSHA256, EIDAD: lisp.EIDAD{KDF: lisp.KDFHKDFSHA256}}
	for _, f := range change {
		f(r)
	}
	return r
}

// ecm protects an encapsulated Map-Request.
func (r *secureRequest) ecm(t testing.TB, plain []byte) []byte {
	t.Helper()
	m := parse[*lisp.EncapsulatedControl](t, plain)
	in, err := m.Inner()
	require.NoError(t, err)
	r.nonce = parse[*lisp.MapRequest](t, in.Payload).Nonce
	s := r.data
	s.KeyID, s.Wrap = r.key.ID, r.wrap
	if s.WrappedOTK == nil {
		s.WrappedOTK, err = lisp.WrapOTK(r.wrap, r.otk, r.nonce, r.key.Secret)
		require.NoError(t, err)
	}
	m.Security, err = s.AppendBinary(nil)
	require.NoError(t, err)
	b, err := m.MarshalBinary()
	require.NoError(t, err)
	return b
}

// ask sends a protected Map-Request for an EID.
func (r *secureRequest) ask(b *bench, eid string, opts ...requestOption) []lisp.Datagram {
	b.t.Helper()
	return b.put(itr, r.ecm(b.t, request(b.t, itr, eid, opts...)))
}

// reply takes the only datagram as a protected Map-Reply and verifies it.
func (r *secureRequest) reply(t testing.TB, out []lisp.Datagram) (lisp.MapReply, *lisp.ReplySecurity) {
	t.Helper()
	require.Len(t, out, 1)
	assert.Equal(t, itr, out[0].Remote)
	m := parse[*lisp.MapReply](t, out[0].Bytes)
	require.True(t, m.Security)
	assert.Equal(t, r.nonce, m.Nonce)
	s, err := lisp.VerifySecured(out[0].Bytes, r.otk)
	require.NoError(t, err)
	return *m, s
}

// forwarded takes the only datagram as the ECM that an ETR with that key gets.
func (r *secureRequest) forwarded(t testing.TB, out []lisp.Datagram, key lisp.Key) (lisp.ECMSecurity, netip.AddrPort) {
	t.Helper()
	require.Len(t, out, 1)
	m := parse[*lisp.EncapsulatedControl](t, out[0].Bytes)
	require.NotEmpty(t, m.Security, "S bit") // RFC 9303-6.7.1-1
	var s lisp.ECMSecurity
	require.NoError(t, s.DecodeFromBytes(bytes.Clone(m.Security)))
	assert.Equal(t, key.ID, s.KeyID)
	got, err := lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, r.nonce, key.Secret)
	require.NoError(t, err)
	ms, err := r.otk.Derive(s.EIDAD.KDF)
	require.NoError(t, err)
	assert.True(t, got == ms)
	// RFC 9303-6.5-1: neither key is to be seen.
	assert.False(t, bytes.Contains(out[0].Bytes, ms[:]) && s.Wrap == lisp.WrapAES)
	assert.False(t, bytes.Contains(out[0].Bytes, r.otk[:]))
	// The EID-AD verifies: nothing else than a Map-Reply can tell.
	reply := lisp.MapReply{Nonce: r.nonce}
	ad, err := m.EIDADBytes()
	require.NoError(t, err)
	b, err := reply.AppendSecured(nil, ad, ms, lisp.HMACSHA256)
	require.NoError(t, err)
	_, err = lisp.VerifySecured(b, r.otk)
	require.NoError(t, err)
	return s, out[0].Remote
}

func vouched(t testing.TB, e *lisp.EIDAD) string {
	t.Helper()
	require.Len(t, e.Records, 1)
	iid, p, ok := e.Records[0].Prefix()
	require.True(t, ok)
	return eidString(iid, p)
}

// TestProcessingTable is RFC 9303 §6.7 table 1: the first rule that matches
// counts, whatever else is registered.
func TestProcessingTable(t *testing.T) {
	type xtr struct{ p, s bool }
	for _, c := range []struct {
		name     string
		xtrs     []xtr // the n-th at 192.0.2.(11+n)
		proxy    bool  // of the site
		rule     int
		cantSign bool
	}{
		// RFC 9303-6.7-1, 9303-6.7-2: E bit 0 even if somebody cannot sign.
		{"P", []xtr{{p: true}}, false, 1, false},
		{"P and S", []xtr{{p: true, s: true}}, false, 1, false},
		{"one P, one S", []xtr{{p: true}, {s: true}}, false, 1, false},
		{"one S, one P", []xtr{{s: true}, {p: true}}, false, 1, false},
		{"site", []xtr{{}}, true, 1, false},
		// RFC 9303-6.7-3
		{"S", []xtr{{s: true}}, false, 2, false},
		{"all S", []xtr{{s: true}, {s: true}}, false, 2, false},
		{"one S", []xtr{{s: true}, {}}, false, 2, true}, // RFC 9303-6.7-4
		{"the other S", []xtr{{}, {s: true}}, false, 2, true},
		{"no S", []xtr{{}}, false, 3, true}, // RFC 9303-6.7-5, 9303-6.7-6
		{"no S at all", []xtr{{}, {}}, false, 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, withLISPSEC, func(cfg *Config) { cfg.Sites[0].ProxyReply = c.proxy })
			signers := map[string]bool{}
			for i, x := range c.xtrs {
				rloc := fmt.Sprintf("192.0.2.%d", 11+i)
				signers[rloc] = x.s
				b.put(netip.AddrPortFrom(netip.MustParseAddr(rloc), 4342), register(t, key1, record("10.1.0.0/16", 10, rloc), withMerge,
					withXTR(lisp.XTRID{15: byte(i + 1)}), func(m *lisp.MapRegister) { m.ProxyReply, m.SecurityCapable = x.p, x.s }))
			}
			for range 4 { // the choice of the ETR depends on the nonce
				r := newSecureRequest()
				out := r.ask(b, "10.1.2.3")
				if c.rule == 2 {
					s, to := r.forwarded(t, out, key1)
					assert.True(t, signers[to.Addr().String()], "%v did not register with the S bit", to) // RFC 9303-6.7-3
					assert.Equal(t, c.cantSign, s.EIDAD.CantSign)                                         // RFC 9303-6.7-4
					assert.Equal(t, "10.1.0.0/16", vouched(t, &s.EIDAD))
					continue
				}
				m, s := r.reply(t, out)
				assert.Equal(t, c.cantSign, s.EIDAD.CantSign) // RFC 9303-6.7-2, 9303-6.7-6
				assert.Equal(t, "10.1.0.0/16", vouched(t, &s.EIDAD))
				require.Len(t, m.Records, 1)
				assert.Equal(t, c.rule == 3, m.Records[0].Negative())
				if c.rule == 3 {
					assert.Equal(t, lisp.ActionDropNoReason, m.Records[0].Action)
				}
			}
			// Whoever asks without LISP-SEC gets what he would get anyway.
			out := b.put(itr, request(t, itr, "10.1.2.3"))
			require.Len(t, out, 1)
			if c.rule == 1 {
				assert.False(t, parse[*lisp.MapReply](t, out[0].Bytes).Security)
			} else {
				assert.Empty(t, parse[*lisp.EncapsulatedControl](t, out[0].Bytes).Security)
			}
		})
	}
}

// TestProtectedNegative: what is not registered is answered under the same protection.
func TestProtectedNegative(t *testing.T) {
	b := newBench(t, withLISPSEC)
	b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withSecurity))
	for eid, want := range map[string]string{
		"8.8.8.8":    "8.0.0.0/7",
		"10.2.0.1":   "10.2.0.0/15",
		"10.128.0.1": "10.128.0.0/16",
	} {
		r := newSecureRequest()
		m, s := r.reply(t, r.ask(b, eid))
		require.Len(t, m.Records, 1)
		assert.True(t, m.Records[0].Negative())
		assert.Equal(t, want, prefixOf(t, m.Records[0]))
		assert.Equal(t, want, vouched(t, &s.EIDAD), "it vouches for what it says")
		assert.False(t, s.EIDAD.CantSign)
	}
}

// TestFunctions: what the ITR requests is used where it is known.
func TestFunctions(t *testing.T) {
	for _, c := range []struct {
		hmac     lisp.HMACID
		kdf      lisp.KDFID
		wantHMAC lisp.HMACID
		wantKDF  lisp.KDFID
	}{
		{lisp.HMACSHA256, lisp.KDFHKDFSHA256, lisp.HMACSHA256, lisp.KDFHKDFSHA256},
		{lisp.HMACSHA1, lisp.KDFHKDFSHA1, lisp.HMACSHA1, lisp.KDFHKDFSHA1},
		{0, 0, lisp.HMACSHA256, lisp.KDFHKDFSHA256},
		{77, 88, lisp.HMACSHA256, lisp.KDFHKDFSHA256},
	} {
		b := newBench(t, withLISPSEC)
		request := func(r *secureRequest) { r.data.RequestedHMAC, r.data.EIDAD.KDF = c.hmac, c.kdf }
		r := newSecureRequest(request)
		_, s := r.reply(t, r.ask(b, "10.1.2.3"))
		assert.Equal(t, []any{c.wantHMAC, c.wantHMAC, c.wantKDF}, []any{s.EIDAD.HMACID, s.HMACID, s.EIDAD.KDF})
		b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withSecurity))
		r = newSecureRequest(request)
		e, _ := r.forwarded(t, r.ask(b, "10.1.2.3"), key1)
		assert.Equal(t, []any{c.hmac, c.wantHMAC, c.wantKDF}, []any{e.RequestedHMAC, e.EIDAD.HMACID, e.EIDAD.KDF})
	}
}

// TestKeysOfITRs: several keys at once, also with one Key ID; anything else is
// discarded.
func TestKeysOfITRs(t *testing.T) {
	var logged bytes.Buffer
	b := newBench(t, withLISPSEC, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	for _, k := range itrKeys {
		r := newSecureRequest(func(r *secureRequest) { r.key = k })
		r.reply(t, r.ask(b, "8.8.8.8"))
	}
	for name, c := range map[string]struct {
		change func(*secureRequest)
		reason Reason
	}{
		"wrong secret":   {func(r *secureRequest) { r.key.Secret = []byte("wrong") }, ReasonSecurity},
		"unknown Key ID": {func(r *secureRequest) { r.key.ID = 11 }, ReasonSecurity},
		"a site's key":   {func(r *secureRequest) { r.key = key1 }, ReasonSecurity},
		"unknown wrap":   {func(r *secureRequest) { r.wrap, r.data.WrappedOTK = 7, make([]byte, 24) }, ReasonSecurity},
		"changed":        {func(r *secureRequest) { r.data.WrappedOTK = make([]byte, 24) }, ReasonSecurity},
		"too short":      {func(r *secureRequest) { r.data.WrappedOTK = make([]byte, 16) }, ReasonSecurity},
		"not encrypted":  {func(r *secureRequest) { r.wrap = lisp.WrapNull }, ReasonUnprotectedPath}, // RFC 9303-6.5-6
	} {
		b.now = b.now.Add(2 * time.Second)
		logged.Reset()
		r := newSecureRequest(c.change)
		assert.Empty(t, r.ask(b, "8.8.8.8"), name) // RFC 9303-6.5-9
		assert.Equal(t, c.reason, b.lastReason(), name)
		assert.Contains(t, logged.String(), c.reason.String())
		assert.NotContains(t, logged.String(), "secret")
	}

	none := newBench(t)
	assert.Empty(t, newSecureRequest().ask(none, "8.8.8.8"), "an answer that is not protected would be discarded")
	assert.Equal(t, ReasonSecurity, none.lastReason())
	_, err := New(Config{LISPSEC: LISPSEC{ITRKeys: []lisp.Key{{ID: 1}}}})
	assert.ErrorIs(t, err, ErrConfig)
	_, err = New(Config{Sites: []Site{{Name: "x", OTKWrap: 3}}})
	assert.ErrorIs(t, err, ErrConfig)
}

// TestNullWrap: One-Time Keys pass unencrypted only on protected paths.
func TestNullWrap(t *testing.T) {
	null := func(r *secureRequest) { r.wrap = lisp.WrapNull }
	paths := func(ps ...string) func(*Config) {
		return func(c *Config) {
			c.Sites[0].OTKWrap = lisp.WrapNull
			for _, p := range ps {
				c.LISPSEC.ProtectedPaths = append(c.LISPSEC.ProtectedPaths, netip.MustParsePrefix(p))
			}
		}
	}
	b := newBench(t, paths("192.0.2.99/32"))
	b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withSecurity))
	r := newSecureRequest(null)
	r.reply(t, r.ask(b, "8.8.8.8"))                            // RFC 9303-6.5-5, 9303-6.5.1-1
	assert.Empty(t, newSecureRequest(null).ask(b, "10.1.2.3")) // RFC 9303-6.7.1-2
	assert.Equal(t, ReasonUnprotectedPath, b.lastReason())     // RFC 9303-6.7.1-2
	assert.EqualValues(t, 1, b.s.Stats().Dropped[ReasonUnprotectedPath])

	b = newBench(t, paths("192.0.2.0/24"))
	b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withSecurity))
	r = newSecureRequest(null)
	s, _ := r.forwarded(t, r.ask(b, "10.1.2.3"), key1)
	assert.Equal(t, lisp.WrapNull, s.Wrap) // RFC 9303-6.5-5
}

// TestKeyOfETR: the MS-OTK is wrapped with the key that the ETR registers with,
// through a rotation.
func TestKeyOfETR(t *testing.T) {
	b := newBench(t, withLISPSEC)
	for _, k := range []lisp.Key{key1, key1b} {
		b.put(etr1, register(t, k, record("10.1.0.0/16", 10, "192.0.2.11"), withSecurity, withXTR(xtr1)))
		r := newSecureRequest()
		r.forwarded(t, r.ask(b, "10.1.2.3"), k)
	}
	// A state saved before a key was taken away.
	fresh := newBench(t, withLISPSEC, func(c *Config) { c.Sites[0].Keys = []lisp.Key{key1} })
	for d := range b.s.Snapshot() {
		_, err := fresh.s.Merge(fresh.now, d)
		require.NoError(t, err)
	}
	assert.Empty(t, newSecureRequest().ask(fresh, "10.1.2.3"))
	assert.Equal(t, ReasonKey, fresh.lastReason())
}

// TestOneProtectedReply: however many more specific EID-Prefixes there are, the
// answer is one Map-Reply, since the key is for one.
func TestOneProtectedReply(t *testing.T) {
	for _, n := range []int{3, 14, 40} { // the second has few enough of them, but not of octets
		b := newBench(t, withLISPSEC)
		b.put(etr1, register(t, key1, record("10.0.0.0/12", 10, "192.0.2.11"), withProxy))
		for i := range n {
			b.put(etr1, register(t, key1, record(fmt.Sprintf("10.1.%d.0/24", i), 10, "192.0.2.11", "192.0.2.12"), withProxy))
		}
		r := newSecureRequest()
		out := r.ask(b, "10.1.200.1")
		m, s := r.reply(t, out)
		assert.LessOrEqual(t, len(out[0].Bytes), maxPayloadIPv4)
		assert.Equal(t, "10.0.0.0/12", vouched(t, &s.EIDAD))
		if n == 3 {
			assert.Len(t, m.Records, n+1)
		} else {
			require.Len(t, m.Records, 1)
			assert.Equal(t, "10.1.128.0/17", prefixOf(t, m.Records[0]))
		}
	}
}

// TestETRHere: an ETR in the same process is answered for (RFC 9303 §7.3).
func TestETRHere(t *testing.T) {
	b := newBench(t, withLISPSEC, func(c *Config) { c.Locals = []netip.Addr{msAddr.Addr()} })
	b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.1"), withSecurity))
	r := newSecureRequest()
	m, s := r.reply(t, r.ask(b, "10.1.2.3"))
	assert.False(t, m.Records[0].Negative())
	assert.Equal(t, "10.1.0.0/16", vouched(t, &s.EIDAD))
}

func TestProtectedNotAnswered(t *testing.T) {
	b := newBench(t, withLISPSEC)
	for name, c := range map[string]struct {
		opt    requestOption
		reason Reason
	}{
		"D bit":       {func(m *lisp.MapRequest) { m.DontMapReply = true }, ReasonNoReply},
		"no ITR-RLOC": {func(m *lisp.MapRequest) { m.ITRRLOCs = []lisp.Address{{}} }, ReasonNoITRRLOC},
		"no IP EID":   {func(m *lisp.MapRequest) { m.Records = []lisp.RequestRecord{{}} }, ReasonEID},
		"probe":       {func(m *lisp.MapRequest) { m.Probe = true }, ReasonProbe},
	} {
		assert.Empty(t, newSecureRequest().ask(b, "8.8.8.8", c.opt), name)
		assert.Equal(t, c.reason, b.lastReason(), name)
	}
}

// TestProtectedRate: the work for a protected Map-Request is done within the
// rate, so a flood of them is no worse than one of others.
func TestProtectedRate(t *testing.T) {
	b := newBench(t, withLISPSEC, func(c *Config) { c.RatePerSource = 5 })
	n := 0
	for range 100 {
		n += len(newSecureRequest().ask(b, "8.8.8.8"))
	}
	assert.Equal(t, 5, n)
	assert.EqualValues(t, 95, b.s.Stats().Dropped[ReasonRate])
}

// TestMapResolverAlone: a Map-Resolver unwraps the One-Time Key and wraps it for
// the Map-Server, or leaves all that to the Map-Server.
func TestMapResolverAlone(t *testing.T) {
	ms := netip.MustParseAddrPort("192.0.2.60:4342")
	mrms := lisp.Key{ID: 40, Secret: []byte("of Map-Resolver and Map-Server")}
	elsewhere := func(c *Config) {
		c.Sites = nil
		c.Resolver = []ResolverEntry{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), MapServers: []netip.AddrPort{ms}}}
	}
	mr := netip.MustParseAddrPort("192.0.2.50:4342")
	only := func(a netip.AddrPort) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a.Addr(), 32)} }
	for _, c := range []struct {
		name      string
		mr, ms    LISPSEC
		wrap      lisp.WrapID
		keyID     uint8
		unaltered bool
	}{
		{"wrapped again", LISPSEC{ITRKeys: itrKeys, MapServers: map[netip.AddrPort]lisp.Key{ms: mrms}}, LISPSEC{ITRKeys: []lisp.Key{mrms}}, lisp.WrapAES, 40, false},
		{
			"in the clear within the mapping system",
			LISPSEC{ITRKeys: itrKeys, ProtectedPaths: only(ms)},
			LISPSEC{ProtectedPaths: only(mr)},
			lisp.WrapNull, 0, false,
		},
		{"passed on", LISPSEC{}, LISPSEC{ITRKeys: itrKeys}, lisp.WrapAES, itrKeys[0].ID, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, elsewhere, func(cfg *Config) { cfg.LISPSEC = c.mr })
			r := newSecureRequest()
			in := r.ecm(t, request(t, itr, "10.1.2.3"))
			out := b.put(itr, in)
			require.Len(t, out, 1)
			assert.Equal(t, ms, out[0].Remote)
			m := parse[*lisp.EncapsulatedControl](t, out[0].Bytes)
			assert.Equal(t, parse[*lisp.EncapsulatedControl](t, in).Packet, m.Packet)
			var s lisp.ECMSecurity
			require.NoError(t, s.DecodeFromBytes(m.Security))
			assert.Equal(t, c.wrap, s.Wrap)
			assert.Equal(t, c.keyID, s.KeyID)
			assert.Equal(t, r.data.EIDAD, s.EIDAD)
			assert.Equal(t, r.data.RequestedHMAC, s.RequestedHMAC)
			assert.Equal(t, c.unaltered, bytes.Equal(in, out[0].Bytes))

			at := newBench(t, func(cfg *Config) { cfg.LISPSEC = c.ms })
			at.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withProxy))
			reply, sec := r.reply(t, at.put(mr, out[0].Bytes))
			assert.False(t, reply.Records[0].Negative())
			assert.Equal(t, "10.1.0.0/16", vouched(t, &sec.EIDAD))
		})
	}
	for name, l := range map[string]LISPSEC{
		"no key of the Map-Server": {ITRKeys: itrKeys},
		"no key of the ITR":        {ITRKeys: itrKeys[2:], MapServers: map[netip.AddrPort]lisp.Key{ms: mrms}},
	} {
		b := newBench(t, elsewhere, func(cfg *Config) { cfg.LISPSEC = l })
		assert.Empty(t, newSecureRequest().ask(b, "10.1.2.3"), name)
		assert.Contains(t, []Reason{ReasonUnprotectedPath, ReasonSecurity}, b.lastReason(), name)
		assert.Len(t, b.put(itr, request(t, itr, "10.1.2.3")), 1, "others pass")
	}
	_, err := New(Config{LISPSEC: LISPSEC{MapServers: map[netip.AddrPort]lisp.Key{ms: {}}}})
	assert.ErrorIs(t, err, ErrConfig)
}
