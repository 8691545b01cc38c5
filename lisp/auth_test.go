package lisp

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var testKey = []byte("lisp-test-key")

func TestSignVerify(t *testing.T) {
	type signer interface {
		Message
		AppendSigned([]byte, Key) ([]byte, error)
	}
	for _, tt := range []struct {
		algorithm Algorithm
		truncate  bool
		want      int
	}{
		{AlgorithmNone, false, 0},
		{AlgorithmHMACSHA1, false, 20},
		{AlgorithmHMACSHA1, true, 12},
		// RFC 9301-5.6-9
		{AlgorithmHMACSHA256, false, 32},
		{AlgorithmHMACSHA256, true, 16},
		// RFC 9301-9-2
		{AlgorithmHMACSHA256HKDF, false, 16},
	} {
		key := keyOf(5, tt.algorithm, tt.truncate)
		for _, m := range []signer{
			&MapRegister{Nonce: 7, Records: []EIDRecord{site()}},
			&MapRegister{Nonce: 7, Records: []EIDRecord{site()}, XTRIDPresent: true, SiteID: 9},
			&MapNotify{Nonce: 7, Records: []EIDRecord{site()}},
			&MapNotifyAck{Nonce: 7, Records: []EIDRecord{site()}},
			&InfoRequest{Nonce: 7, EID: ip("192.0.2.0"), MaskLen: 24},
			&InfoReply{Nonce: 7, EID: ip("192.0.2.0"), MaskLen: 24, NAT: lcaf(t, &NATTraversal{})},
		} {
			t.Run(fmt.Sprintf("%s %d %T", tt.algorithm, tt.want, m), func(t *testing.T) {
				assert.Equal(t, tt.want, key.DigestLen())
				before := m.String()
				b, err := m.AppendSigned([]byte("x"), key)
				require.NoError(t, err)
				require.Equal(t, byte('x'), b[0])
				b = b[1:]
				assert.Equal(t, before, m.String(), "the message does not change")
				require.NoError(t, Verify(b, key))
				require.Equal(t, tt.want, int(b[14])<<8|int(b[15]))

				// Sign in place, over whatever is there.
				again := bytes.Clone(b)
				for i := range tt.want {
					again[authOffset+i] = byte(i)
				}
				require.NoError(t, Sign(again, key))
				assert.Equal(t, b, again)

				if tt.algorithm == AlgorithmNone {
					return
				}
				// RFC 9301-5.6-s4: every octet counts.
				for i := range b {
					c := bytes.Clone(b)
					c[i] ^= 0x40
					if TypeOf(c) != TypeOf(b) {
						continue
					}
					assert.Error(t, Verify(c, key), "octet %d", i)
				}
				assert.ErrorIs(t, Verify(append(bytes.Clone(b), 0), key), ErrAuth, "an octet more")
				wrong := key
				wrong.Secret = []byte("lisp-test-kez")
				assert.ErrorIs(t, Verify(b, wrong), ErrAuth)
			})
		}
	}
}

// TestVerifyConfigured: only the configured Key ID and algorithm count, whatever
// the message says.
func TestVerifyConfigured(t *testing.T) {
	m := &MapRegister{Records: []EIDRecord{site()}}
	configured := Key{ID: 1, Algorithm: AlgorithmHMACSHA256, Secret: testKey}
	for name, key := range map[string]Key{
		"none":                {ID: 1, Algorithm: AlgorithmNone},
		"other algorithm":     {ID: 1, Algorithm: AlgorithmHMACSHA1, Secret: testKey},
		"other key id":        {ID: 2, Algorithm: AlgorithmHMACSHA256, Secret: testKey},
		"empty secret":        {ID: 1, Algorithm: AlgorithmHMACSHA256},
		"empty secret and id": {Algorithm: AlgorithmHMACSHA256},
	} {
		b, err := m.AppendSigned(nil, key)
		require.NoError(t, err)
		assert.ErrorIs(t, Verify(b, configured), ErrAuth, name)
	}
	// No digest, and lengths that the algorithm does not have.
	for _, n := range []int{0, 1, 11, 12, 15, 17, 20, 31, 33, 64} {
		c := *m
		c.Auth = Authentication{1, AlgorithmHMACSHA256, make([]byte, n)}
		b, err := c.MarshalBinary()
		require.NoError(t, err)
		assert.ErrorIs(t, Verify(b, configured), ErrAuth, n)
		assert.ErrorIs(t, Sign(b, configured), ErrMalformed, n)
	}
	b, err := m.AppendSigned(nil, configured)
	require.NoError(t, err)
	assert.ErrorIs(t, Verify(b, Key{ID: 1, Algorithm: AlgorithmNone}), ErrAuth, "a key without algorithm accepts no digest")
	assert.ErrorIs(t, Verify(b, Key{ID: 1, Algorithm: 9}), ErrUnsupported)
	open, err := m.AppendSigned(nil, Key{ID: 1})
	require.NoError(t, err)
	assert.NoError(t, Verify(open, Key{ID: 1}))
	forgotten := Key{ID: 1, Secret: testKey}
	assert.ErrorIs(t, Verify(open, forgotten), ErrAuth, "a secret, and the algorithm forgotten")
	assert.ErrorIs(t, Sign(open, forgotten), ErrMalformed)
	assert.ErrorIs(t, Sign(b, Key{ID: 1, Algorithm: 9}), ErrUnsupported)
	assert.ErrorIs(t, Verify(b[:15], configured), ErrTruncated)
	assert.ErrorIs(t, Verify(b[:40], configured), ErrTruncated)
	assert.ErrorIs(t, Verify(nil, configured), ErrTruncated)
	assert.ErrorIs(t, Verify(vector(t, "map-reply-2loc"), configured), ErrUnsupported)
	assert.ErrorIs(t, Sign(vector(t, "map-reply-2loc"), configured), ErrUnsupported)
}

// TestDigestWithZero: a digest with a zero octet at the start is compared to its
// end. A peer is known that stops at the first zero.
func TestDigestWithZero(t *testing.T) {
	key := Key{Algorithm: AlgorithmHMACSHA1, Secret: testKey}
	m := MapRegister{Records: []EIDRecord{site()}}
	for found := 0; found < 3; m.Nonce++ {
		b, err := m.AppendSigned(nil, key)
		require.NoError(t, err)
		if b[authOffset] != 0 {
			continue
		}
		found++
		require.NoError(t, Verify(b, key))
		clear(b[authOffset : authOffset+20])
		assert.ErrorIs(t, Verify(b, key), ErrAuth)
	}
}

// TestTrailerCoverage: the xTR-ID is covered, or left out as RFC 9301 has it by
// the letter.
func TestTrailerCoverage(t *testing.T) {
	key := Key{Algorithm: AlgorithmHMACSHA1, Secret: testKey}
	b := vector(t, "map-register-xtrid")
	require.NoError(t, Verify(b, key))
	copy(b[authOffset:], unhex(t, loadVectors(t).Digests["map-register-xtrid RFC 9301 literal (trailer not covered)"]))
	assert.NoError(t, Verify(b, key))
	strict := key
	strict.StrictTrailer = true
	assert.ErrorIs(t, Verify(b, strict), ErrAuth)
	assert.NoError(t, Verify(vector(t, "map-register-xtrid"), strict))
	assert.ErrorIs(t, Verify(append(b, 0), key), ErrAuth, "octets behind the Site-ID")

	// A message without the I bit does not become one with an xTR-ID.
	plain := append(vector(t, "map-register-sha1-20"), make([]byte, 24)...)
	assert.ErrorIs(t, Verify(plain, key), ErrAuth)
	plain[0] |= 0x02
	assert.ErrorIs(t, Verify(plain, key), ErrAuth)

	// A Map-Notify with the I bit for something else: nothing may be left out.
	returned := MapNotify{Reserved: NotifyReservedI, Records: []EIDRecord{site()}}
	signed, err := returned.AppendSigned(nil, key)
	require.NoError(t, err)
	assert.NoError(t, Verify(signed, key))
	sum, err := NewAuthenticator(key).digest(signed, 20, len(signed)-trailerLen)
	require.NoError(t, err)
	copy(signed[authOffset:], sum)
	assert.ErrorIs(t, Verify(signed, key), ErrAuth, "a digest that leaves out the end of the records")

	// I bit, and less behind it than it promises.
	short := vector(t, "map-register-xtrid")
	assert.ErrorIs(t, Verify(short[:len(short)-1], key), ErrTruncated)
}

// RFC 9301-5.6-s5
func TestMessageKey(t *testing.T) {
	key := Key{Algorithm: AlgorithmHMACSHA256HKDF, Secret: testKey}
	k, err := key.messageKey(vector(t, "map-register-hkdf"))
	require.NoError(t, err)
	assert.Equal(t, unhex(t, "fdb634c2943ec5ac8778e63dd621dd8b94278c302880a23403fb7601d94e7938"), k)
	seen := map[string]bool{}
	for _, name := range []string{"map-register-hkdf", "map-notify", "map-notify-ack", "info-request", "info-reply"} {
		b := vector(t, name)
		clear(b[4:12])
		k, err := key.messageKey(b)
		require.NoError(t, err)
		assert.False(t, seen[string(k)], "%s has a key of its own", name)
		seen[string(k)] = true
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	key := Key{ID: 3, Algorithm: AlgorithmHMACSHA256, Secret: []byte("do not show")}
	for _, s := range []string{
		fmt.Sprint(key), fmt.Sprintf("%v", &key), fmt.Sprintf("%+v", key), fmt.Sprintf("%#v", key), key.String(),
	} {
		assert.NotContains(t, s, "do not show")
		assert.NotContains(t, s, "100 111 32 110")
		assert.NotContains(t, s, fmt.Sprintf("%x", "do not show"))
	}
	otk := OTK{1, 2, 3, 4}
	for _, s := range []string{fmt.Sprint(otk), fmt.Sprintf("%+v", otk), fmt.Sprintf("%#v", otk)} {
		assert.NotContains(t, s, "1, 2")
		assert.NotContains(t, s, "1 2")
		assert.NotContains(t, s, "0102")
	}
}

// TestReferralSignature has the requirements on signature sections.
func TestReferralSignature(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	since, until := time.Unix(1_700_000_000, 0), time.Unix(1_700_003_600, 0)
	r := ReferralRecord{TTL: 1440, MaskLen: 16, EID: ip("198.51.0.0"), Referrals: []RLOCRecord{{RLOC: ip("198.18.1.1")}}}
	require.NoError(t, r.Sign(private, 7, since, until)) // RFC 8111-6.4.1-2
	require.NoError(t, r.Sign(private, 8, since, until))

	b, err := (&MapReferral{Records: []ReferralRecord{r}}).MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, byte(2<<4), b[20]&0xf0) // SigCnt
	var m MapReferral
	require.NoError(t, m.DecodeFromBytes(b))
	got := m.Records[0]
	require.Len(t, got.Signatures, 2) // RFC 8111-6.4-3
	assert.Equal(t, uint16(8), got.Signatures[1].KeyTag)
	got.TTL = 3 // it ages on the way
	for i := range got.Signatures {
		assert.NoError(t, got.Verify(i, &private.PublicKey, since))
		assert.NoError(t, got.Verify(i, &private.PublicKey, until))
		assert.ErrorIs(t, got.Verify(i, &private.PublicKey, since.Add(-time.Second)), ErrAuth) // RFC 8111-6.4.1-1
		assert.ErrorIs(t, got.Verify(i, &private.PublicKey, until.Add(time.Second)), ErrAuth)  // RFC 8111-6.4.1-1
	}
	assert.ErrorIs(t, got.Verify(2, &private.PublicKey, since), ErrAuth)

	// A record with a signature less than SigCnt says is no record. RFC 8111-6.4-3
	assert.ErrorIs(t, m.DecodeFromBytes(b[:len(b)-1]), ErrTruncated)

	// RFC 8111-6.4.1-4: reserved bits are sent as zero, and ignored.
	at := len(b) - private.Size() - 3
	assert.Equal(t, []byte{0, 0, 0}, b[at:at+3])
	got.Signatures[0].Reserved = 0
	changed := got
	changed.MaskLen = 17
	assert.ErrorIs(t, changed.Verify(0, &private.PublicKey, since), ErrAuth)

	// RFC 8111-6.4.1-3
	got.Signatures[0].Algorithm = SignatureRSASHA1
	assert.ErrorIs(t, got.Verify(0, &private.PublicKey, since), ErrUnsupported)
}
