package control

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// cantSign is what a Map-Server answers when no ETR does LISP-SEC.
func cantSign(v *voucher) {
	v.cantSign, v.records = true, []lisp.EIDRecord{negative("198.51.100.0/24", 1, lisp.ActionDropNoReason)}
}

func TestFallback(t *testing.T) {
	t.Run("preferred", func(t *testing.T) {
		tc := up(t, protecting(LISPSECPreferred))
		tc.resolve(hostKey(peerEID))
		r := tc.protected()
		tc.handle(fromETR, r.reply(t, site(cantSign)))
		assert.Zero(t, tc.e.Cache().Len(), "what it says meanwhile is not cached")
		tc.advance(1010 * time.Millisecond)
		s, m := one[*lisp.MapRequest](tc)
		assert.GreaterOrEqual(t, s.at.Sub(r.at), time.Second)
		assert.Zero(t, s.Bytes[0]&0x08, "no S bit")
		assert.True(t, tc.answer(m.Nonce, site().records...))
		assert.True(t, tc.knows(peerEID))
		assert.EqualValues(t, 1, tc.e.Stats().LISPSECFallbacks)
		// The next time it is tried with LISP-SEC again.
		tc.e.Cache().Remove(tc.now, key("198.51.100.0/24"))
		tc.advance(2 * time.Second)
		tc.resolve(hostKey(peerEID))
		tc.protected()
	})
	t.Run("required", func(t *testing.T) { // RFC 9301-9-4
		tc := up(t, protecting(LISPSECRequired))
		tc.resolve(hostKey(peerEID))
		r := tc.protected()
		tc.handle(fromETR, r.reply(t, site(cantSign)))
		assert.Equal(t, mapcache.Drop, tc.forward(peerEID.Addr()).Verdict)
		tc.advance(10 * time.Second)
		assert.Empty(t, tc.sent)
		assert.Zero(t, tc.e.Stats().LISPSECFallbacks)
	})
	t.Run("with a mapping", func(t *testing.T) { // some ETR can sign: that is enough
		tc := up(t, protecting(LISPSECPreferred))
		tc.resolve(hostKey(peerEID))
		r := tc.protected()
		tc.handle(fromETR, r.reply(t, site(func(v *voucher) { v.cantSign = true })))
		assert.True(t, tc.knows(peerEID))
		assert.Zero(t, tc.e.Stats().LISPSECFallbacks)
	})
	t.Run("negative without E bit", func(t *testing.T) {
		tc := up(t, protecting(LISPSECPreferred))
		tc.resolve(hostKey(peerEID))
		r := tc.protected()
		tc.handle(fromETR, r.reply(t, site(cantSign, func(v *voucher) { v.cantSign = false })))
		assert.Equal(t, mapcache.Drop, tc.forward(peerEID.Addr()).Verdict)
		assert.EqualValues(t, 1, tc.e.Stats().NegativeReplies)
	})
	t.Run("no answer", func(t *testing.T) { // whoever swallows messages gains nothing
		for _, mode := range []LISPSECMode{LISPSECPreferred, LISPSECRequired} {
			tc := up(t, protecting(mode))
			tc.resolve(hostKey(peerEID))
			tc.advance(5 * time.Minute)
			requests := take[*lisp.MapRequest](tc)
			assert.Greater(t, len(requests), 10)
			for _, s := range requests {
				assert.NotZero(t, s.Bytes[0]&0x08, "S bit")
			}
		}
	})
}

// TestUnprotectedPath: One-Time Keys go unencrypted only where that is allowed.
func TestUnprotectedPath(t *testing.T) {
	null := func(l *LISPSEC) { l.Resolvers = []ResolverKey{{Wrap: lisp.WrapNull}} }
	var logged bytes.Buffer
	tc := up(t, protecting(LISPSECRequired, null), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	tc.resolve(hostKey(peerEID))
	tc.advance(time.Minute)
	assert.Empty(t, tc.sent) // RFC 9303-6.4-4, 9303-6.5-6
	assert.NotZero(t, tc.e.Stats().Dropped[DropUnprotectedPath])
	assert.Contains(t, logged.String(), DropUnprotectedPath.String()) // RFC 9303-6.4-4
	tc.advance(3 * time.Minute)
	assert.Zero(t, tc.e.Stats().Pending, "it is given up in the end")

	tc = up(t, protecting(LISPSECRequired, null, func(l *LISPSEC) { l.ProtectedPaths = []netip.Prefix{netip.PrefixFrom(mr1.Addr(), 32)} }))
	tc.resolve(hostKey(peerEID))
	r := tc.protected() // RFC 9303-6.5-5, 9303-6.5.1-1
	assert.Equal(t, lisp.WrapNull, r.data.Wrap)
	assert.Equal(t, append(make([]byte, 8), r.otk[:]...), r.data.WrappedOTK)
	tc.handle(fromETR, r.reply(t, site()))
	assert.True(t, tc.knows(peerEID))
}

// TestSeveralResolvers: each has its key, and each request its One-Time Key.
func TestSeveralResolvers(t *testing.T) {
	other := lisp.Key{ID: 3, Secret: []byte("with the second")}
	tc := up(t, protecting(LISPSECPreferred, func(l *LISPSEC) {
		l.Resolvers = []ResolverKey{{Key: itrKey}, {Addr: mr2, Key: other}}
	}))
	tc.resolve(hostKey(peerEID))
	first := tc.protected()
	assert.Equal(t, mr1, first.Remote)
	tc.advance(1500 * time.Millisecond)
	s, m := one[*lisp.MapRequest](tc)
	assert.Equal(t, mr2, s.Remote)
	var ecm lisp.EncapsulatedControl
	require.NoError(t, ecm.DecodeFromBytes(s.Bytes))
	var data lisp.ECMSecurity
	require.NoError(t, data.DecodeFromBytes(ecm.Security))
	assert.EqualValues(t, 3, data.KeyID)
	otk, err := lisp.UnwrapOTK(data.Wrap, data.WrappedOTK, m.Nonce, other.Secret)
	require.NoError(t, err)
	assert.False(t, otk == first.otk)
	// The keys of the two requests are not interchangeable.
	mixed := protectedRequest{m: m, otk: first.otk}
	tc.handle(fromETR, mixed.reply(t, site()))
	assert.False(t, tc.knows(peerEID))
	tc.handle(fromETR, first.reply(t, site()))
	assert.True(t, tc.knows(peerEID), "a late answer to the first one")

	// Without a key for it a Map-Resolver is asked without LISP-SEC, unless that is required.
	tc = up(t, protecting(LISPSECPreferred, func(l *LISPSEC) { l.Resolvers[0].Addr = mr2 }))
	tc.resolve(hostKey(peerEID))
	s, _ = one[*lisp.MapRequest](tc)
	assert.Zero(t, s.Bytes[0]&0x08)
	cfg := testConfig()
	cfg.LISPSEC = LISPSEC{Mode: LISPSECRequired, Resolvers: []ResolverKey{{Addr: mr2, Key: other}}}
	_, err = New(cfg)
	assert.ErrorIs(t, err, ErrConfig) // RFC 9301-9-4
}

// TestProtectedRefresh: a refresh is protected too, and the entry stays while
// answers are forged.
func TestProtectedRefresh(t *testing.T) {
	tc := up(t, protecting(LISPSECRequired))
	tc.resolve(hostKey(peerEID))
	r := tc.protected()
	tc.handle(fromETR, r.reply(t, site()))
	for i := 0; len(tc.sent) == 0 && i < 700; i++ {
		tc.forward(peerEID.Addr())
		tc.advance(time.Second)
	}
	r2 := tc.protected()
	assert.False(t, r2.otk == r.otk)
	gone := site(func(v *voucher) { v.records[0].TTL, v.records[0].Locators = 0, nil })
	assert.False(t, tc.handle(fromETR, r.reply(t, gone)), "the old key is good for nothing")
	old := protectedRequest{m: r2.m, otk: r.otk}
	tc.handle(fromETR, old.reply(t, gone)) // an old answer with the new nonce
	assert.True(t, tc.knows(peerEID))
	tc.handle(fromETR, r2.reply(t, site(func(v *voucher) { v.records = []lisp.EIDRecord{record("198.51.100.0/24", 10, rloc6)} })))
	assert.Equal(t, rloc6, tc.forward(peerEID.Addr()).Locator.Addr)
}

// TestNothingUnverified: other ways into the map-cache ask the mapping system.
func TestNothingUnverified(t *testing.T) {
	tc := up(t, protecting(LISPSECRequired))
	m := mapRequest("192.0.2.1/32", peerRLOC)
	rec := record("198.51.100.0/24", 10, peerRLOC)
	m.SourceEID, m.MapData = lisp.AddressFrom(peerEID.Addr()), &rec
	tc.handle(fromETR, encode(t, m))
	assert.False(t, tc.knows(peerEID)) // RFC 9303-6.9-10
	assert.Zero(t, tc.e.Cache().Len())
	take[*lisp.MapReply](tc)
	for range take[*lisp.MapRequest](tc) {
		assert.Fail(t, "not asked for before it is wanted")
	}
	tc.resolve(hostKey(peerEID))
	r := tc.protected() // RFC 9303-6.9-10
	tc.handle(fromETR, r.reply(t, site()))
	require.True(t, tc.knows(peerEID))

	// An SMR leads to a protected Map-Request.
	tc.advance(5 * time.Second)
	smr := mapRequest("192.0.2.1/32", peerRLOC)
	smr.SMR, smr.SourceEID = true, lisp.AddressFrom(peerEID.Addr())
	tc.handle(fromETR, encode(t, smr))
	tc.advance(10 * time.Millisecond)
	assert.True(t, tc.protected().m.SMRInvoked)
}

func TestLISPSECConfig(t *testing.T) {
	for name, l := range map[string]LISPSEC{
		"mode":        {Mode: 3},
		"no key":      {Mode: LISPSECRequired},
		"no secret":   {Mode: LISPSECPreferred, Resolvers: []ResolverKey{{Key: lisp.Key{ID: 1}}}},
		"wrap":        {Resolvers: []ResolverKey{{Key: itrKey, Wrap: 3}}},
		"stranger":    {Resolvers: []ResolverKey{{Key: itrKey, Addr: msAddr}}},
		"bad address": {Resolvers: []ResolverKey{{Key: itrKey, Addr: netip.MustParseAddrPort("224.0.0.1:4342")}}},
		"HMAC":        {HMACs: []lisp.HMACID{3}},
		"KDF":         {KDFs: []lisp.KDFID{3}},
	} {
		cfg := testConfig()
		cfg.LISPSEC = l
		_, err := New(cfg)
		assert.True(t, errors.Is(err, ErrConfig), "%s: %v", name, err)
	}
	for m, s := range map[LISPSECMode]string{LISPSECOff: "off", LISPSECPreferred: "preferred", LISPSECRequired: "required", 9: "LISPSECMode(9)"} {
		assert.Equal(t, s, m.String())
	}
}

// TestSecretsNotShown: neither keys nor One-Time Keys are printed or logged.
func TestSecretsNotShown(t *testing.T) {
	var logged bytes.Buffer
	var cfg Config
	tc := up(t, protecting(LISPSECPreferred), func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg = *c
	})
	tc.resolve(hostKey(peerEID))
	r := tc.protected()
	o := r
	o.otk[0] ^= 1
	tc.handle(fromETR, o.reply(t, site()))
	tc.handle(fromETR, r.reply(t, site(cantSign)))
	tc.advance(time.Minute)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		fmt.Fprintf(&logged, format, cfg.LISPSEC)
	}
	assert.NotContains(t, logged.String(), string(itrKey.Secret))
	assert.NotContains(t, logged.String(), fmt.Sprint([16]byte(r.otk)))
	assert.NotContains(t, logged.String(), fmt.Sprintf("%#v", [16]byte(r.otk)))
	assert.NotContains(t, logged.String(), fmt.Sprintf("%x", [16]byte(r.otk)))
	assert.NotContains(t, logged.String(), fmt.Sprintf("%v", itrKey.Secret))
}
