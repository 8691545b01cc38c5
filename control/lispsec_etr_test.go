package control

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// vouch makes the LISP-SEC data that a Map-Server adds for an ETR.
func vouch(t *testing.T, itr lisp.OTK, n lisp.Nonce, change ...func(*lisp.ECMSecurity)) []byte {
	t.Helper()
	s := lisp.ECMSecurity{RequestedHMAC: lisp.HMACSHA256, KeyID: testKey.ID, Wrap: lisp.WrapAES}
	s.EIDAD = lisp.EIDAD{KDF: lisp.KDFHKDFSHA256, Records: []lisp.RequestRecord{{MaskLen: 8, EID: lisp.AddressFrom(netip.MustParseAddr("192.0.0.0"))}}}
	require.NoError(t, s.EIDAD.Sign(itr, lisp.HMACSHA256))
	ms, err := itr.Derive(lisp.KDFHKDFSHA256)
	require.NoError(t, err)
	s.WrappedOTK, err = lisp.WrapOTK(lisp.WrapAES, ms, n, testKey.Secret)
	require.NoError(t, err)
	for _, f := range change {
		f(&s)
	}
	b, err := s.AppendBinary(nil)
	require.NoError(t, err)
	return b
}

// etr is an xTR with a Map-Server but without the noise of registering.
func etr(t *testing.T, change ...func(*Config)) *tester {
	t.Helper()
	tc := up(t, append([]func(*Config){noProbe}, change...)...)
	tc.sent = nil
	return tc
}

func TestRegisterSBit(t *testing.T) {
	for _, off := range []bool{false, true} {
		tc := up(t, noProbe, func(c *Config) { c.LISPSEC.NoETR = off })
		for _, s := range take[*lisp.MapRegister](tc) {
			assert.Equal(t, !off, s.msg.(*lisp.MapRegister).SecurityCapable) // RFC 9303-6.3-1, 9301-1.1-3
		}
	}
}

func TestProtectedMapReply(t *testing.T) {
	itr := lisp.OTK{1, 2, 3}
	ms := netip.AddrPortFrom(msAddr.Addr(), 4342)
	source := netip.AddrPortFrom(peerRLOC, 4342)
	m := mapRequest("192.0.2.1/32")
	for _, c := range []struct {
		requested, used lisp.HMACID
	}{
		{lisp.HMACSHA256, lisp.HMACSHA256}, // RFC 9303-6-1
		{lisp.HMACSHA1, lisp.HMACSHA1},
		{lisp.HMACNoPreference, lisp.HMACSHA256},
		{9, lisp.HMACSHA256},
	} {
		tc := etr(t)
		ad := vouch(t, itr, m.Nonce, func(s *lisp.ECMSecurity) { s.RequestedHMAC = c.requested })
		require.True(t, tc.handle(ms, ecm(t, m, source, ad)))
		s, r := one[*lisp.MapReply](tc)
		assert.Equal(t, source, s.Remote)
		require.True(t, r.Security) // RFC 9301-1.1-3
		got, err := lisp.VerifySecured(s.Bytes, itr)
		require.NoError(t, err)
		assert.Equal(t, c.used, got.HMACID)
		assert.True(t, bytes.Contains(s.Bytes, ad[8+24:]), "the EID-AD octet for octet")
		require.Len(t, r.Records, 1)
		assert.Equal(t, "192.0.2.1/32", prefixString(t, r.Records[0]))
	}
}

func prefixString(t *testing.T, r lisp.EIDRecord) string {
	t.Helper()
	_, p, ok := r.Prefix()
	require.True(t, ok)
	return p.String()
}

func TestProtectedRequestDiscarded(t *testing.T) {
	itr := lisp.OTK{1, 2, 3}
	m := mapRequest("192.0.2.1/32")
	source := netip.AddrPortFrom(peerRLOC, 4342)
	null := func(s *lisp.ECMSecurity) {
		ms, _ := itr.Derive(lisp.KDFHKDFSHA256)
		s.Wrap = lisp.WrapNull
		s.WrappedOTK, _ = lisp.WrapOTK(lisp.WrapNull, ms, 0, nil)
	}
	for _, c := range []struct {
		name    string
		change  func(*lisp.ECMSecurity)
		config  func(*Config)
		claimed bool
		reason  DropReason
	}{
		// RFC 9303-6.5-8, 9303-6.5-9: the initial value is not there, so nothing is answered.
		{"key changed", func(s *lisp.ECMSecurity) { s.WrappedOTK[20] ^= 1 }, nil, true, DropAuthentication},
		{"preamble changed", func(s *lisp.ECMSecurity) { s.WrappedOTK[0] ^= 1 }, nil, true, DropAuthentication},
		{"for another request", func(s *lisp.ECMSecurity) {
			s.WrappedOTK, _ = lisp.WrapOTK(lisp.WrapAES, itr, m.Nonce+1, testKey.Secret)
		}, nil, true, DropAuthentication},
		{"unknown Key ID", func(s *lisp.ECMSecurity) { s.KeyID++ }, nil, true, DropAuthentication},
		{"unknown key wrap", func(s *lisp.ECMSecurity) { s.Wrap = 9 }, nil, true, DropAuthentication},
		{"other secret", func(*lisp.ECMSecurity) {}, func(c *Config) { c.MapServers[0].Key.Secret = []byte("other") }, true, DropAuthentication},
		{"not encrypted", null, nil, true, DropUnprotectedPath}, // RFC 9303-6.5-6
		{"no Map-Server saw it", func(s *lisp.ECMSecurity) { s.EIDAD = lisp.EIDAD{KDF: lisp.KDFHKDFSHA256} }, nil, false, DropSecured},
		{"EID-AD without end", func(s *lisp.ECMSecurity) { s.EIDAD.HMAC = make([]byte, 600) }, nil, true, DropSecured},
		{"no LISP-SEC", func(*lisp.ECMSecurity) {}, func(c *Config) { c.LISPSEC.NoETR = true }, true, DropSecured},
	} {
		t.Run(c.name, func(t *testing.T) {
			tc := etr(t, func(cfg *Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})
			assert.Equal(t, c.claimed, tc.handle(msAddr, ecm(t, m, source, vouch(t, itr, m.Nonce, c.change))))
			assert.Empty(t, take[*lisp.MapReply](tc))
			assert.EqualValues(t, 1, tc.e.Stats().Dropped[c.reason])
		})
	}
	t.Run("not encrypted where that is allowed", func(t *testing.T) { // RFC 9303-6.5-5, 9303-6.5.1-1
		tc := etr(t, func(c *Config) { c.LISPSEC.ProtectedPaths = []netip.Prefix{netip.PrefixFrom(msAddr.Addr(), 32)} })
		assert.True(t, tc.handle(msAddr, ecm(t, m, source, vouch(t, itr, m.Nonce, null))))
		s, _ := one[*lisp.MapReply](tc)
		_, err := lisp.VerifySecured(s.Bytes, itr)
		require.NoError(t, err)
		assert.False(t, tc.handle(mr1, nil))
		assert.True(t, tc.handle(mr1, ecm(t, m, source, vouch(t, itr, m.Nonce, null))))
		assert.Empty(t, take[*lisp.MapReply](tc), "only from there")
	})
}

// TestProtectedReplyIsOne: the One-Time Key is for one Map-Reply, so what would
// need several is answered for the part around the EID without more specifics.
func TestProtectedReplyIsOne(t *testing.T) {
	itr := lisp.OTK{1, 2, 3}
	source := netip.AddrPortFrom(peerRLOC, 4342)
	for _, n := range []int{5, 200} {
		tc := etr(t, func(c *Config) {
			c.Database = []DatabaseMapping{{Key: key("192.0.0.0/16")}}
			for i := range n {
				c.Database = append(c.Database, DatabaseMapping{Key: key(fmt.Sprintf("192.0.%d.0/24", i))})
			}
		})
		for _, a := range []string{"192.0.255.1/32", "192.0.200.9/32", "192.0.3.1/32"} {
			m := mapRequest(a)
			require.True(t, tc.handle(msAddr, ecm(t, m, source, vouch(t, itr, m.Nonce))))
			s, r := one[*lisp.MapReply](tc)
			assert.LessOrEqual(t, len(s.Bytes), 576-28)
			_, err := lisp.VerifySecured(s.Bytes, itr)
			require.NoError(t, err)
			asked := netip.MustParsePrefix(a).Addr()
			if a == "192.0.3.1/32" {
				require.Len(t, r.Records, 1)
				assert.Equal(t, "192.0.3.0/24", prefixString(t, r.Records[0]))
				continue
			}
			if n == 5 {
				assert.Len(t, r.Records, 6)
				continue
			}
			require.Len(t, r.Records, 1)
			_, p, _ := r.Records[0].Prefix()
			assert.True(t, p.Contains(asked))
			assert.Equal(t, p, p.Masked())
			for i := range n {
				assert.False(t, p.Overlaps(netip.MustParsePrefix(fmt.Sprintf("192.0.%d.0/24", i))), "%v %d", p, i)
			}
			wider := netip.PrefixFrom(asked, p.Bits()-1)
			assert.True(t, wider.Overlaps(netip.MustParsePrefix(fmt.Sprintf("192.0.%d.0/24", n-1))), "the widest such part, not %v", p)
		}
	}
}

// TestRecordFitsProtected: a record with as many locators as we send leaves room
// for the authentication data.
func TestRecordFitsProtected(t *testing.T) {
	itr := lisp.OTK{1, 2, 3}
	tc := newTester(t, noProbe, func(c *Config) { c.Database = []DatabaseMapping{{Key: mapcache.Key{IID: 7, Prefix: eid6}}} })
	var ls []mapcache.Local
	for i := range 100 {
		ls = append(ls, mapcache.Local{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), Priority: 1, Weight: 1, Up: true})
	}
	tc.setLocals(ls...)
	tc.sent = nil
	m := mapRequest("2001:db8:1::1/128")
	m.Records[0].EID = lisp.EIDAddress(7, eid6.Addr())
	ad := vouch(t, itr, m.Nonce, func(s *lisp.ECMSecurity) {
		s.EIDAD.Records[0] = lisp.RequestRecord{MaskLen: 128, EID: lisp.EIDAddress(7, eid6.Addr())}
		require.NoError(t, s.EIDAD.Sign(itr, lisp.HMACSHA256))
	})
	require.True(t, tc.handle(msAddr, ecm(t, m, netip.AddrPortFrom(peerRLOC, 4342), ad)))
	s, r := one[*lisp.MapReply](tc)
	assert.LessOrEqual(t, len(s.Bytes), 576-28)
	assert.Greater(t, len(r.Records[0].Locators), 30)
}
