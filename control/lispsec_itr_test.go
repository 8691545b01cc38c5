package control

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
	"github.com/xtrkit/xtrkit/mapcache"
)

var itrKey = lisp.Key{ID: 9, Secret: []byte("shared with the Map-Resolver")}

// protecting makes an ITR that asks by LISP-SEC.
func protecting(mode LISPSECMode, change ...func(*LISPSEC)) func(*Config) {
	return func(c *Config) {
		quiet(c)
		c.LISPSEC = LISPSEC{Mode: mode, Resolvers: []ResolverKey{{Key: itrKey}}}
		for _, f := range change {
			f(&c.LISPSEC)
		}
	}
}

// protectedRequest is a Map-Request with its LISP-SEC data, as the mapping
// system sees it.
type protectedRequest struct {
	sent
	m    *lisp.MapRequest
	data lisp.ECMSecurity
	otk  lisp.OTK
}

func (tc *tester) protected() protectedRequest {
	tc.t.Helper()
	var r protectedRequest
	r.sent, r.m = one[*lisp.MapRequest](tc)
	var ecm lisp.EncapsulatedControl
	require.NoError(tc.t, ecm.DecodeFromBytes(r.Bytes))
	require.NotEmpty(tc.t, ecm.Security, "not protected")
	require.NoError(tc.t, r.data.DecodeFromBytes(ecm.Security))
	var err error
	r.otk, err = lisp.UnwrapOTK(r.data.Wrap, r.data.WrappedOTK, r.m.Nonce, itrKey.Secret)
	require.NoError(tc.t, err)
	return r
}

// voucher is what a mapping system and an ETR make of a protected Map-Request.
type voucher struct {
	kdf      lisp.KDFID
	eid, pkt lisp.HMACID
	cantSign bool
	prefixes []string
	records  []lisp.EIDRecord
}

// site is an ordinary answer.
func site(change ...func(*voucher)) voucher {
	v := voucher{
		kdf: lisp.KDFHKDFSHA256, eid: lisp.HMACSHA256, pkt: lisp.HMACSHA256,
		prefixes: []string{"198.51.100.0/24"}, records: []lisp.EIDRecord{record("198.51.100.0/24", 10, peerRLOC)},
	}
	for _, f := range change {
		f(&v)
	}
	return v
}

// reply makes the Map-Reply.
func (r *protectedRequest) reply(t *testing.T, v voucher) []byte {
	t.Helper()
	e := lisp.EIDAD{KDF: v.kdf, CantSign: v.cantSign}
	for _, s := range v.prefixes {
		p := netip.MustParsePrefix(s)
		e.Records = append(e.Records, lisp.RequestRecord{MaskLen: uint8(p.Bits()), EID: lisp.AddressFrom(p.Addr())})
	}
	require.NoError(t, e.Sign(r.otk, v.eid))
	ad, err := e.AppendBinary(nil)
	require.NoError(t, err)
	ms, err := r.otk.Derive(v.kdf)
	require.NoError(t, err)
	m := lisp.MapReply{Nonce: r.m.Nonce, Records: v.records}
	b, err := m.AppendSecured(nil, ad, ms, v.pkt)
	require.NoError(t, err)
	return b
}

var fromETR = netip.AddrPortFrom(peerRLOC, 4342)

func (tc *tester) knows(p netip.Prefix) bool {
	tc.t.Helper()
	return tc.forward(p.Addr()).Verdict == mapcache.Encapsulate
}

func TestProtectedMapRequest(t *testing.T) {
	tc := up(t, protecting(LISPSECRequired))
	tc.resolve(hostKey(peerEID))
	r := tc.protected() // RFC 9303-6.4-3, 9301-1.1-2, 9301-1.1-3: S bit and authentication data
	assert.Equal(t, lisp.WrapAES, r.data.Wrap)
	assert.EqualValues(t, itrKey.ID, r.data.KeyID)
	assert.Equal(t, lisp.HMACSHA256, r.data.RequestedHMAC)
	assert.Equal(t, lisp.EIDAD{KDF: lisp.KDFHKDFSHA256}, r.data.EIDAD) // RFC 9303-6.4-1
	// RFC 9303-6.4-2, 9303-6.5-2: nothing of the key is to be seen, nor changed unnoticed.
	assert.NotContains(t, string(r.Bytes), string(r.otk[:]))
	for i := range r.data.WrappedOTK {
		w := bytes.Clone(r.data.WrappedOTK)
		w[i] ^= 1
		_, err := lisp.UnwrapOTK(r.data.Wrap, w, r.m.Nonce, itrKey.Secret)
		assert.ErrorIs(t, err, lisp.ErrAuth)
	}
	require.True(t, tc.handle(fromETR, r.reply(t, site())))
	assert.True(t, tc.knows(peerEID))
	assert.EqualValues(t, 1, tc.e.Stats().SecuredReplies)
	// RFC 9303-6.9-3: the pair of nonce and key is gone.
	assert.Empty(t, tc.e.requests)
	assert.False(t, tc.handle(fromETR, r.reply(t, site())))
	assert.EqualValues(t, 1, tc.e.Stats().Dropped[DropUnknownNonce])
}

// TestOneTimeKeys: each Map-Request has a key of its own that nobody can foretell.
func TestOneTimeKeys(t *testing.T) {
	seen := map[lisp.OTK]bool{{}: true}
	for range 2 {
		tc := up(t, protecting(LISPSECRequired), func(c *Config) { c.Rand = nil })
		tc.resolve(hostKey(peerEID))
		for range 5 {
			r := tc.protected()
			assert.False(t, seen[r.otk]) // RFC 9303-7.2-1
			seen[r.otk] = true
			tc.advance(9 * time.Second)
			if len(tc.sent) > 1 {
				tc.sent = tc.sent[:1]
			}
		}
	}
	tc := up(t, protecting(LISPSECRequired), func(c *Config) { c.Rand = new(emptyReader) })
	tc.resolve(hostKey(peerEID))
	assert.False(t, seen[tc.protected().otk], "nor when the source runs dry")
}

// TestProtectedReplyDiscarded: what is wrong with an answer, and that the right
// one is taken after it.
func TestProtectedReplyDiscarded(t *testing.T) {
	plain := func(r *protectedRequest) []byte {
		return encode(t, &lisp.MapReply{Nonce: r.m.Nonce, Records: site().records})
	}
	for _, c := range []struct {
		name   string
		make   func(r *protectedRequest) []byte
		reason DropReason
	}{
		{"S bit stripped", plain, DropNotSecured}, // RFC 9303-6.9-1, 9301-9-4
		{"S bit cleared", func(r *protectedRequest) []byte {
			b := r.reply(t, site())
			b[0] &^= 0x02
			return b
		}, DropNotSecured},
		{"S bit without data", func(r *protectedRequest) []byte {
			b := plain(r)
			b[0] |= 0x02
			return b
		}, DropMalformed}, // RFC 9303-6.9-1
		{"no PKT-AD", func(r *protectedRequest) []byte { b := r.reply(t, site()); return b[:len(b)-20] }, DropMalformed},
		{"other key", func(r *protectedRequest) []byte {
			o := *r
			o.otk[0] ^= 1
			return o.reply(t, site())
		}, DropAuthentication}, // RFC 9303-6.9-2
		{"another's EID-AD", func(r *protectedRequest) []byte { // with the right PKT-AD, as an ETR could make it
			o := *r
			o.otk[0] ^= 1
			ms, err := r.otk.Derive(lisp.KDFHKDFSHA256)
			require.NoError(t, err)
			wide := lisp.RequestRecord{MaskLen: 16, EID: lisp.AddressFrom(netip.MustParseAddr("198.51.0.0"))}
			forged := lisp.EIDAD{
				KDF: lisp.KDFHKDFSHA256, Signed: true, HMACID: lisp.HMACSHA256, HMAC: make([]byte, 16), Records: []lisp.RequestRecord{wide},
			}
			ad, err := forged.AppendBinary(nil)
			require.NoError(t, err)
			m := lisp.MapReply{Nonce: r.m.Nonce, Records: site().records}
			b, err := m.AppendSecured(nil, ad, ms, lisp.HMACSHA256)
			require.NoError(t, err)
			return b
		}, DropAuthentication}, // RFC 9303-6.9.1-1
		{"locator changed", func(r *protectedRequest) []byte {
			b := r.reply(t, site())
			i := bytes.Index(b, peerRLOC.AsSlice())
			require.Positive(t, i)
			b[i+3]++
			return b
		}, DropAuthentication}, // RFC 9303-6.9-2
		{"TTL changed", func(r *protectedRequest) []byte { b := r.reply(t, site()); b[15]++; return b }, DropAuthentication},
		{"prefix widened", func(r *protectedRequest) []byte { b := r.reply(t, site()); b[17] = 16; return b }, DropAuthentication},
		{"reply to another request", func(r *protectedRequest) []byte {
			o := *r
			o.otk = lisp.OTK{1, 2, 3}
			return o.reply(t, site())
		}, DropAuthentication},
	} {
		t.Run(c.name, func(t *testing.T) {
			var logged bytes.Buffer
			tc := up(t, protecting(LISPSECPreferred), func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
			tc.resolve(hostKey(peerEID))
			r := tc.protected()
			assert.True(t, tc.handle(fromETR, c.make(&r)))
			assert.False(t, tc.knows(peerEID)) // RFC 9303-6.9-1, 9303-6.9.1-1
			assert.Zero(t, tc.e.Cache().Len())
			assert.EqualValues(t, 1, tc.e.Stats().Dropped[c.reason])
			assert.Contains(t, logged.String(), c.reason.String()) // RFC 9303-6.9.1-1
			assert.Empty(t, tc.sent, "nor is it a reason to ask without LISP-SEC")
			assert.True(t, tc.handle(fromETR, r.reply(t, site())), "a forgery does not use up the key")
			assert.True(t, tc.knows(peerEID))
		})
	}
}

// TestEveryOctetProtected: no octet of a Map-Reply can be changed on its way.
func TestEveryOctetProtected(t *testing.T) {
	tc := up(t, protecting(LISPSECRequired))
	tc.resolve(hostKey(peerEID))
	r := tc.protected()
	b := r.reply(t, site())
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x10
		tc.handle(fromETR, c)
		require.Zero(t, tc.e.Cache().Len(), "octet %d", i) // RFC 9303-6.9-2
	}
	tc.sent = nil // what is asked because of other functions follows later
	tc.handle(fromETR, b)
	assert.True(t, tc.knows(peerEID))
}

// TestRecordsVouchedFor is the example of RFC 9303 §6.9.1, asked for an EID of
// the valid record.
func TestRecordsVouchedFor(t *testing.T) {
	var logged bytes.Buffer
	tc := up(t, protecting(LISPSECRequired), func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	tc.resolve(mapcache.HostKey(0, netip.MustParseAddr("2001:db8:103::1")))
	r := tc.protected()
	six := netip.MustParseAddr("2001:db8:ffff::2")
	tc.handle(fromETR, r.reply(t, site(func(v *voucher) {
		v.prefixes = []string{"2001:db8:103::/48", "2001:db8:203::/48"}
		v.records = []lisp.EIDRecord{
			record("2001:db8:102::/48", 10, six), record("2001:db8:103::/48", 10, six), record("2001:db8:103:5::/64", 10, six),
			record("2001:db8:200::/40", 10, six),
		}
	})))
	for a, want := range map[string]bool{
		"2001:db8:103::1": true, "2001:db8:103:5::1": true,
		"2001:db8:102::1": false,                           // RFC 9303-6.9.1-3
		"2001:db8:203::1": false, "2001:db8:200::1": false, // RFC 9303-6.9.1-4
	} {
		_, ok := tc.e.Cache().LookupEntry(0, netip.MustParseAddr(a))
		assert.Equal(t, want, ok, a) // RFC 9303-6.9.1-2
	}
	assert.EqualValues(t, 2, tc.e.Stats().Dropped[DropOverclaim])
	assert.Contains(t, logged.String(), "2001:db8:102::/48") // RFC 9303-6.9.1-2: log action
	assert.Contains(t, logged.String(), "2001:db8:200::/40")

	// One that covers the EID asked for and more than what is vouched for.
	tc.resolve(hostKey(peerEID))
	r = tc.protected()
	tc.handle(fromETR, r.reply(t, site(func(v *voucher) { v.records = []lisp.EIDRecord{record("198.51.0.0/16", 10, peerRLOC)} })))
	assert.False(t, tc.knows(peerEID)) // RFC 9301-9-4: overclaiming
	assert.NotContains(t, tc.e.requests, r.m.Nonce, "it was genuine: its key is used up")
}

// TestOtherFunctions: answers protected by other functions than requested.
func TestOtherFunctions(t *testing.T) {
	type step struct {
		reply voucher
		hmac  lisp.HMACID // requested next; with kdf 0: the answer is taken
		kdf   lisp.KDFID
	}
	sha1 := func(v *voucher) { v.eid, v.pkt = lisp.HMACSHA1, lisp.HMACSHA1 }
	eid1 := func(v *voucher) { v.eid = lisp.HMACSHA1 }
	kdf1 := func(v *voucher) { v.kdf = lisp.KDFHKDFSHA1 }
	for _, c := range []struct {
		name  string
		hmacs []lisp.HMACID
		kdfs  []lisp.KDFID
		steps []step
	}{
		{"as requested", nil, nil, []step{{reply: site()}}}, // RFC 9303-6-1, 9303-6.9-7
		// RFC 9303-6.9-4, 9303-6.9-9: discarded, and another is requested.
		{"HMAC", nil, nil, []step{{site(sha1), lisp.HMACSHA1, lisp.KDFHKDFSHA256}, {reply: site(sha1)}}},
		{"HMAC, all attempted", nil, nil, []step{
			{site(sha1), lisp.HMACSHA1, lisp.KDFHKDFSHA256}, {site(), lisp.HMACSHA256, lisp.KDFHKDFSHA256}, {reply: site()},
		}},
		{"HMAC, strict", []lisp.HMACID{lisp.HMACSHA256}, nil, []step{{site(sha1), lisp.HMACSHA256, lisp.KDFHKDFSHA256}, {reply: site()}}},
		{"EID HMAC, strict", []lisp.HMACID{lisp.HMACSHA256}, nil, []step{{site(eid1), lisp.HMACSHA256, lisp.KDFHKDFSHA256}, {reply: site()}}},
		{"EID HMAC", nil, nil, []step{{reply: site(eid1)}}},
		{"no preference", []lisp.HMACID{0}, []lisp.KDFID{0}, []step{{reply: site(sha1, kdf1)}}}, // RFC 9303-6.4-5
		// RFC 9303-6.9-6
		{"KDF", nil, nil, []step{{site(kdf1), lisp.HMACSHA256, lisp.KDFHKDFSHA1}, {reply: site(kdf1)}}},
		{"KDF and HMAC", nil, nil, []step{
			{site(kdf1, sha1), lisp.HMACSHA1, lisp.KDFHKDFSHA256}, {site(kdf1, sha1), lisp.HMACSHA1, lisp.KDFHKDFSHA1}, {reply: site(kdf1, sha1)},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tc := up(t, protecting(LISPSECRequired, func(l *LISPSEC) { l.HMACs, l.KDFs = c.hmacs, c.kdfs }))
			tc.resolve(hostKey(peerEID))
			r := tc.protected()
			for _, s := range c.steps {
				tc.handle(fromETR, r.reply(t, s.reply))
				tc.handle(fromETR, r.reply(t, s.reply))
				if s.kdf == 0 {
					assert.True(t, tc.knows(peerEID))
					return
				}
				require.False(t, tc.knows(peerEID))
				at := r.at
				for range 12 { // once all have been attempted it takes longer
					if tc.advance(time.Second); len(tc.sent) > 0 {
						break
					}
				}
				r = tc.protected()
				assert.GreaterOrEqual(t, r.at.Sub(at), time.Second) // RFC 9303-6.9-4: the rate of RFC 9301 holds
				assert.Equal(t, s.hmac, r.data.RequestedHMAC)
				assert.Equal(t, s.kdf, r.data.EIDAD.KDF)
			}
		})
	}
}

// TestUnknownFunctions: an ID that nobody can verify.
func TestUnknownFunctions(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b []byte, v *voucher)
		hmacs  []lisp.HMACID
		kdfs   []lisp.KDFID
	}{
		// The PKT HMAC ID stands before 16 octets of HMAC, the KDF ID behind the EID-AD Length.
		{"PKT HMAC ID", func(b []byte, _ *voucher) { b[len(b)-17] = 7 }, []lisp.HMACID{0, lisp.HMACSHA256}, nil},
		{"KDF ID", func(b []byte, _ *voucher) { b[len(b)-20-32+3] = 7 }, nil, []lisp.KDFID{0, lisp.KDFHKDFSHA256}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tc := up(t, protecting(LISPSECRequired, func(l *LISPSEC) { l.HMACs, l.KDFs = c.hmacs, c.kdfs }))
			tc.resolve(hostKey(peerEID))
			r := tc.protected()
			v := site()
			b := r.reply(t, v)
			c.change(b, &v)
			tc.handle(fromETR, b)
			assert.EqualValues(t, 1, tc.e.Stats().Dropped[DropSecurityFunction], fmt.Sprint(tc.e.Stats().Dropped))
			tc.advance(1010 * time.Millisecond)
			// RFC 9303-6.9-4, 9303-6.9-6: without preference, what is not supported is discarded too.
			r = tc.protected()
			assert.Equal(t, lisp.HMACSHA256, r.data.RequestedHMAC)
			assert.Equal(t, lisp.KDFHKDFSHA256, r.data.EIDAD.KDF)
		})
	}
}
