package lisp

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The keys of the vectors.
var itrOTK = OTK{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}

func ecmSecurity(t *testing.T, vectorName string) (*ECMSecurity, []byte) {
	t.Helper()
	var m EncapsulatedControl
	require.NoError(t, m.DecodeFromBytes(vector(t, vectorName)))
	_, err := m.Inner()
	require.NoError(t, err, "the inner packet begins where the authentication data ends")
	s := new(ECMSecurity)
	require.NoError(t, s.DecodeFromBytes(m.Security))
	out, err := s.AppendBinary(nil)
	require.NoError(t, err)
	assert.Equal(t, m.Security, out)
	return s, m.Security
}

func TestLISPSECECM(t *testing.T) {
	t.Run("ITR", func(t *testing.T) {
		s, b := ecmSecurity(t, "ecm-lispsec-itr")
		assert.Equal(t, HMACSHA256, s.RequestedHMAC)
		assert.Equal(t, WrapNull, s.Wrap)
		assert.Equal(t, EIDAD{KDF: KDFHKDFSHA256}, s.EIDAD)
		assert.Equal(t, []byte{0, 4}, b[32:34]) // RFC 9303-6.1-2
		otk, err := UnwrapOTK(s.Wrap, s.WrappedOTK, vectorNonce, nil)
		require.NoError(t, err)
		assert.True(t, otk == itrOTK)
		wrapped, err := WrapOTK(WrapNull, itrOTK, 0, nil)
		require.NoError(t, err)
		assert.Equal(t, s.WrappedOTK, wrapped)
	})
	t.Run("AES key wrap", func(t *testing.T) {
		s, _ := ecmSecurity(t, "ecm-lispsec-itr-aeswrap")
		assert.Equal(t, WrapAES, s.Wrap)
		otk, err := UnwrapOTK(s.Wrap, s.WrappedOTK, vectorNonce, testKey)
		require.NoError(t, err)
		assert.True(t, otk == itrOTK)
		// RFC 9303-6.1-1: the preamble is part of what the key wrap makes.
		wrapped, err := WrapOTK(WrapAES, itrOTK, vectorNonce, testKey)
		require.NoError(t, err)
		assert.Equal(t, s.WrappedOTK, wrapped)
		_, err = UnwrapOTK(WrapAES, wrapped, vectorNonce+1, testKey)
		assert.ErrorIs(t, err, ErrAuth)
		_, err = UnwrapOTK(WrapAES, wrapped, vectorNonce, []byte("other"))
		assert.ErrorIs(t, err, ErrAuth)
		for i := range wrapped {
			c := bytes.Clone(wrapped)
			c[i] ^= 1
			_, err = UnwrapOTK(WrapAES, c, vectorNonce, testKey)
			assert.ErrorIs(t, err, ErrAuth)
		}
	})
	t.Run("Map-Server", func(t *testing.T) {
		s, b := ecmSecurity(t, "ecm-lispsec-ms")
		ms, err := itrOTK.Derive(KDFHKDFSHA256)
		require.NoError(t, err)
		assert.Equal(t, unhex(t, loadVectors(t).Digests["lispsec MS-OTK"]), ms[:])
		otk, err := UnwrapOTK(s.Wrap, s.WrappedOTK, vectorNonce, nil)
		require.NoError(t, err)
		assert.True(t, otk == ms)
		assert.Equal(t, []RequestRecord{{MaskLen: 24, EID: ip("198.51.100.0")}}, s.EIDAD.Records)
		want := unhex(t, loadVectors(t).Digests["lispsec EID HMAC"])
		assert.Equal(t, want, s.EIDAD.HMAC)

		made := EIDAD{KDF: KDFHKDFSHA256, Records: s.EIDAD.Records}
		require.NoError(t, made.Sign(itrOTK, HMACSHA256))
		// RFC 9303-6.7.1-3, 9303-6.9-5: from EID-AD Length to EID HMAC, with this as zero.
		assert.Equal(t, want, made.HMAC)
		out, err := made.AppendBinary(nil)
		require.NoError(t, err)
		assert.Equal(t, b[8+24:], out)
	})
}

func TestLISPSECReply(t *testing.T) {
	b := vector(t, "map-reply-lispsec")
	s, err := VerifySecured(b, itrOTK)
	require.NoError(t, err)
	assert.Equal(t, unhex(t, loadVectors(t).Digests["lispsec PKT HMAC"]), s.HMAC)
	assert.Equal(t, []RequestRecord{{MaskLen: 24, EID: ip("198.51.100.0")}}, s.EIDAD.Records)

	var m MapReply
	require.NoError(t, m.DecodeFromBytes(b))
	var decoded ReplySecurity
	require.NoError(t, decoded.DecodeFromBytes(m.Trailer))
	out, err := decoded.AppendBinary(nil)
	require.NoError(t, err)
	assert.Equal(t, m.Trailer, out)

	// As an ETR makes it of the ECM.
	var e EncapsulatedControl
	require.NoError(t, e.DecodeFromBytes(vector(t, "ecm-lispsec-ms")))
	eidAD, err := e.EIDADBytes()
	require.NoError(t, err)
	ms, err := itrOTK.Derive(KDFHKDFSHA256)
	require.NoError(t, err)
	made, err := m.AppendSecured([]byte("x"), eidAD, ms, HMACSHA256)
	require.NoError(t, err)
	assert.Equal(t, b, made[1:])

	// RFC 9303-6.8-1: every octet counts.
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x20
		_, err := VerifySecured(c, itrOTK)
		assert.Error(t, err, "octet %d", i)
	}
	_, err = VerifySecured(b, OTK{})
	assert.ErrorIs(t, err, ErrAuth)
	_, err = VerifySecured(vector(t, "map-reply-2loc"), itrOTK)
	assert.ErrorIs(t, err, ErrAuth)
	for i := range b {
		_, err := VerifySecured(b[:i], itrOTK)
		assert.Error(t, err)
	}
}

// TestLISPSECVariants goes once through everything with other functions, several
// records and the E bit.
func TestLISPSECVariants(t *testing.T) {
	for _, id := range []HMACID{HMACSHA1, HMACSHA256} {
		for _, kdf := range []KDFID{KDFHKDFSHA1, KDFHKDFSHA256} {
			e := EIDAD{KDF: kdf, CantSign: true, Records: []RequestRecord{ // RFC 9303-6.1-3
				{MaskLen: 24, EID: ip("192.0.2.0")}, {MaskLen: 48, EID: ip("2001:db8::")},
			}}
			require.NoError(t, e.Sign(itrOTK, id))
			eidAD, err := e.AppendBinary(nil)
			require.NoError(t, err)
			ms, err := itrOTK.Derive(kdf)
			require.NoError(t, err)
			m := MapReply{Records: []EIDRecord{site()}}
			b, err := m.AppendSecured(nil, eidAD, ms, id)
			require.NoError(t, err)
			s, err := VerifySecured(b, itrOTK)
			require.NoError(t, err)
			assert.True(t, s.EIDAD.CantSign)
			assert.Equal(t, e.Records, s.EIDAD.Records)
			checkRoundTrip(t, b)
		}
	}
	var e EIDAD
	assert.ErrorIs(t, e.Sign(itrOTK, HMACNoPreference), ErrUnsupported)
	_, err := itrOTK.Derive(KDFNoPreference)
	assert.ErrorIs(t, err, ErrUnsupported)
	_, err = WrapOTK(0, itrOTK, 0, nil)
	assert.ErrorIs(t, err, ErrUnsupported)
	_, err = UnwrapOTK(0, make([]byte, 24), 0, nil)
	assert.ErrorIs(t, err, ErrUnsupported)
	_, err = UnwrapOTK(WrapAES, make([]byte, 23), 0, nil)
	assert.ErrorIs(t, err, ErrMalformed)
}

// TestOTKLength28 has the other reading of OTK Length, which also counts the
// four octets before the preamble.
func TestOTKLength28(t *testing.T) {
	b := vector(t, "ecm-lispsec-ms")
	b[9] = 28
	var m EncapsulatedControl
	require.NoError(t, m.DecodeFromBytes(b))
	_, err := m.Inner()
	require.NoError(t, err)
	var s ECMSecurity
	require.NoError(t, s.DecodeFromBytes(m.Security))
	assert.Len(t, s.WrappedOTK, 24)
	assert.Len(t, s.EIDAD.Records, 1)
	out, err := m.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, b, out)
}

// TestRFC3394 has the worked example of RFC 3394 §4.1.
func TestRFC3394(t *testing.T) {
	kek := unhex(t, "000102030405060708090a0b0c0d0e0f")
	key := OTK(unhex(t, "00112233445566778899aabbccddeeff"))
	wrapped, err := aesWrap(kek, key)
	require.NoError(t, err)
	assert.Equal(t, unhex(t, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"), wrapped)
	got, err := aesUnwrap(kek, wrapped)
	require.NoError(t, err)
	assert.True(t, got == key)
}

func TestRTRSecurity(t *testing.T) {
	key := Key{ID: 1, Algorithm: AlgorithmHMACSHA256, Secret: []byte("between Map-Server and RTR")}
	notify := vector(t, "map-notify-I")
	sec, err := AppendRTRSecurity(nil, notify, key)
	require.NoError(t, err)
	packet, err := AppendInner(nil, Inner{mustAddrPort("198.18.0.1:4342"), mustAddrPort("10.0.0.2:4342"), 0, notify})
	require.NoError(t, err)
	b, err := (&EncapsulatedControl{RTR: true, Security: sec, Packet: packet}).MarshalBinary()
	require.NoError(t, err)
	var m EncapsulatedControl
	require.NoError(t, m.DecodeFromBytes(b))
	assert.NoError(t, m.VerifyRTR(key))
	for name, wrong := range map[string]Key{
		"secret":    {ID: 1, Algorithm: AlgorithmHMACSHA256, Secret: testKey},
		"id":        {ID: 2, Algorithm: AlgorithmHMACSHA256, Secret: key.Secret},
		"algorithm": {ID: 1, Algorithm: AlgorithmHMACSHA1, Secret: key.Secret},
	} {
		assert.ErrorIs(t, m.VerifyRTR(wrong), ErrAuth, name)
	}
	assert.ErrorIs(t, m.VerifyRTR(Key{ID: 1}), ErrUnsupported)
	_, err = AppendRTRSecurity(nil, notify, Key{Algorithm: AlgorithmHMACSHA256HKDF})
	assert.ErrorIs(t, err, ErrUnsupported)
	m.Security = nil
	assert.ErrorIs(t, m.VerifyRTR(key), ErrUnsupported)

	signed, err := (&MapNotify{RTRAuth: true, XTRIDPresent: true, Records: []EIDRecord{site()}}).AppendSigned(nil, key)
	require.NoError(t, err)
	with, err := AppendRTRAuthentication(signed, key)
	require.NoError(t, err)
	assert.NoError(t, VerifyRTRAuthentication(with, key))
	assert.NoError(t, Verify(with, key), "the site's digest ends before the record of the RTR")
	assert.ErrorIs(t, VerifyRTRAuthentication(signed, key), ErrAuth)
	with[len(with)-1] ^= 1
	assert.ErrorIs(t, VerifyRTRAuthentication(with, key), ErrAuth)
}
