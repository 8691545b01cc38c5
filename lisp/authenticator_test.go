package lisp

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAuthenticator: used again and again, between failures too, it gives what
// the functions and crypto/hmac give.
func TestAuthenticator(t *testing.T) {
	m := MapRegister{
		Nonce: 7, XTRIDPresent: true, XTRID: XTRID{15: 1}, SiteID: 2,
		Records: []EIDRecord{{TTL: 10, MaskLen: 32, EID: AddressFrom(netip.MustParseAddr("192.0.2.1"))}},
	}
	for _, key := range []Key{
		{ID: 1, Algorithm: AlgorithmHMACSHA1, Secret: []byte("one")},
		{ID: 1, Algorithm: AlgorithmHMACSHA1, Secret: []byte("one"), Truncate: true},
		{ID: 2, Algorithm: AlgorithmHMACSHA256, Secret: []byte("a secret that is longer than a block of the hash function, which is 64 octets")},
		{ID: 3, Algorithm: AlgorithmHMACSHA256HKDF, Secret: []byte("three")},
	} {
		a := NewAuthenticator(key)
		for range 3 {
			m.Nonce++
			want, err := m.AppendSigned(nil, key)
			require.NoError(t, err)
			got := append([]byte(nil), want...)
			clear(got[authOffset : authOffset+key.DigestLen()])
			require.Error(t, a.Verify(got))
			if key.Algorithm != AlgorithmHMACSHA256HKDF {
				h := hmac.New(sha1.New, key.Secret)
				if key.Algorithm == AlgorithmHMACSHA256 {
					h = hmac.New(sha256.New, key.Secret)
				}
				h.Write(got)
				assert.Equal(t, h.Sum(nil)[:key.DigestLen()], want[authOffset:authOffset+key.DigestLen()])
			}
			require.NoError(t, a.Sign(got))
			assert.Equal(t, want, got)
			require.NoError(t, a.Verify(got))
			got[len(got)-1] ^= 1
			require.ErrorIs(t, a.Verify(got), ErrAuth)
			require.NoError(t, a.Verify(want))
			// A digest that leaves the identity out is found by the second try.
			require.NoError(t, Sign(got[:len(got)-trailerLen], key))
			require.NoError(t, a.Verify(got))
		}
	}
	require.ErrorIs(t, NewAuthenticator(Key{Algorithm: 9}).Sign(make([]byte, 40)), ErrUnsupported)
}

func TestAuthenticatorAllocatesNothing(t *testing.T) {
	m := MapRegister{Nonce: 7, Records: []EIDRecord{{TTL: 10, MaskLen: 32, EID: AddressFrom(netip.MustParseAddr("192.0.2.1"))}}}
	for _, alg := range []Algorithm{AlgorithmHMACSHA1, AlgorithmHMACSHA256} {
		key := Key{ID: 1, Algorithm: alg, Secret: []byte("secret")}
		b, err := m.AppendSigned(nil, key)
		require.NoError(t, err)
		a := NewAuthenticator(key)
		require.NoError(t, a.Verify(b)) // which makes crypto/hmac keep its state
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if a.Sign(b) != nil || a.Verify(b) != nil {
				t.Fatal("not verified")
			}
		}))
	}
}

func BenchmarkAuthenticator(b *testing.B) {
	m := MapRegister{Nonce: 7, Records: []EIDRecord{{TTL: 10, MaskLen: 32, EID: AddressFrom(netip.MustParseAddr("192.0.2.1"))}}}
	for _, alg := range []Algorithm{AlgorithmHMACSHA1, AlgorithmHMACSHA256} {
		key := Key{ID: 1, Algorithm: alg, Secret: []byte("secret")}
		msg, err := m.AppendSigned(nil, key)
		require.NoError(b, err)
		b.Run(alg.String(), func(b *testing.B) {
			a := NewAuthenticator(key)
			b.ReportAllocs()
			for b.Loop() {
				_ = a.Verify(msg)
			}
		})
		b.Run(alg.String()+"/function", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = Verify(msg, key)
			}
		})
	}
}
