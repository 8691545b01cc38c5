package mapserver

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// The tests here are about holes found in Map-Servers that are in use. What is
// sent and what must come back is made with the standard library alone.

const authAt = 16 // the offset of the Authentication Data

// plainRegister is a Map-Register with P and M for 10.1.0.0/16 at 192.0.2.11 with
// room for n octets of Authentication Data, as octets.
func plainRegister(t testing.TB, nonce uint64, keyID, algorithm byte, n int) []byte {
	t.Helper()
	b := binary.BigEndian.AppendUint32(nil, 3<<28|1<<27|1<<8|1)
	b = binary.BigEndian.AppendUint64(b, nonce)
	b = append(b, keyID, algorithm, byte(n>>8), byte(n))
	b = append(b, make([]byte, n)...)
	rec, err := hex.DecodeString("0000000a" + "01101000" + "00000001" + "0a010000" + // TTL 10, one locator, /16, A
		"0164ff00" + "00050001" + "c000020b") // priority 1, weight 100, L and R
	require.NoError(t, err)
	return append(b, rec...)
}

// digest is the HMAC of a message with its Authentication Data as zeros.
func digest(newHash func() hash.Hash, secret string, msg []byte) []byte {
	n := int(binary.BigEndian.Uint16(msg[authAt-2:]))
	h := hmac.New(newHash, []byte(secret))
	h.Write(msg[:authAt])
	h.Write(make([]byte, n))
	h.Write(msg[authAt+n:])
	return h.Sum(nil)
}

func signed(newHash func() hash.Hash, secret string, msg []byte) []byte {
	copy(msg[authAt:authAt+int(binary.BigEndian.Uint16(msg[authAt-2:]))], digest(newHash, secret, msg))
	return msg
}

// nothing checks that a message left no trace but a counted refusal.
func (b *bench) nothing(out []lisp.Datagram) {
	b.t.Helper()
	assert.Empty(b.t, out, "no Map-Notify")
	assert.Empty(b.t, b.s.Registrations(b.now))
	assert.Empty(b.t, state(b.t, b.s))
	assert.Zero(b.t, b.s.xtrs.len())
	assert.Zero(b.t, b.s.Deadline())
	assert.Zero(b.t, b.s.Stats().Notifies)
}

// TestInteropVectors: messages signed and verified with nothing of ours. They
// show too that a verification that always fails, or always succeeds, is noticed.
func TestInteropVectors(t *testing.T) {
	key256 := lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("password")}
	keySHA1 := lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("password")}
	for name, tc := range map[string]struct {
		key     lisp.Key
		alg     byte
		len     int
		newHash func() hash.Hash
	}{
		"SHA-1":             {keySHA1, 1, 20, sha1.New},
		"SHA-1 truncated":   {keySHA1, 1, 12, sha1.New},
		"SHA-256":           {key256, 2, 32, sha256.New},
		"SHA-256 truncated": {key256, 2, 16, sha256.New},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := func() *bench { return newBench(t, func(c *Config) { c.Sites[0].Keys = []lisp.Key{tc.key} }) }
			b := fresh()
			out := b.put(etr1, signed(tc.newHash, "password", plainRegister(t, 7, 1, tc.alg, tc.len)))
			require.Len(t, out, 1)
			n := out[0].Bytes
			assert.EqualValues(t, 4, n[0]>>4, "a Map-Notify")
			assert.EqualValues(t, 7, binary.BigEndian.Uint64(n[4:]))
			assert.Equal(t, []byte{1, tc.alg, 0, byte(tc.len)}, n[12:16])
			assert.Equal(t, digest(tc.newHash, "password", n)[:tc.len], n[authAt:authAt+tc.len])
			require.Len(t, b.s.Registrations(b.now), 1)

			// Authentication must not silently stop working: whatever else is in the
			// field, such as the HMAC of nothing, is refused.
			for what, auth := range map[string][]byte{
				"HMAC of an empty message": hmacOf(tc.newHash, "password", nil),
				"HMAC of the header":       hmacOf(tc.newHash, "password", plainRegister(t, 7, 1, tc.alg, tc.len)[:authAt]),
				"empty key":                digest(tc.newHash, "", plainRegister(t, 7, 1, tc.alg, tc.len)),
				"another key":              digest(tc.newHash, "passwort", plainRegister(t, 7, 1, tc.alg, tc.len)),
				"the bare hash":            bareHash(tc.newHash, plainRegister(t, 7, 1, tc.alg, tc.len)),
				"zeros":                    make([]byte, tc.len),
			} {
				b := fresh()
				msg := plainRegister(t, 7, 1, tc.alg, tc.len)
				copy(msg[authAt:authAt+tc.len], auth)
				b.nothing(b.put(etr1, msg))
				assert.Equal(t, ReasonAuth, b.lastReason(), what)
			}
		})
	}
}

func hmacOf(newHash func() hash.Hash, secret string, msg []byte) []byte {
	h := hmac.New(newHash, []byte(secret))
	h.Write(msg)
	return h.Sum(nil)
}

func bareHash(newHash func() hash.Hash, msg []byte) []byte {
	h := newHash()
	h.Write(msg)
	return h.Sum(nil)
}

// TestHoleAlgorithmNone: where a key is configured, a message without
// authentication is refused, whatever its Key ID and length.
func TestHoleAlgorithmNone(t *testing.T) {
	for keyID := range 256 {
		for _, n := range []int{0, 4, 20, 32} {
			b := newBench(t)
			b.nothing(b.put(etr1, plainRegister(t, 1, byte(keyID), 0, n)))
			want := ReasonKey
			if keyID == 1 || keyID == 2 {
				want = ReasonAlgorithm
			}
			assert.Equal(t, want, b.lastReason())
		}
	}
}

// TestHoleUnknownKeyID: it is no key with an empty secret.
func TestHoleUnknownKeyID(t *testing.T) {
	for keyID := range 256 {
		if keyID == 1 || keyID == 2 {
			continue
		}
		for _, secret := range []string{"", string(key1.Secret)} {
			b := newBench(t)
			b.nothing(b.put(etr1, signed(sha256.New, secret, plainRegister(t, 1, byte(keyID), 2, 32))))
			assert.Equal(t, ReasonKey, b.lastReason())
		}
	}
	for alg := range 256 { // and no unknown algorithm
		if alg == 2 {
			continue
		}
		b := newBench(t)
		b.nothing(b.put(etr1, signed(sha256.New, string(key1.Secret), plainRegister(t, 1, 1, byte(alg), 32))))
		assert.Equal(t, ReasonAlgorithm, b.lastReason())
	}
}

// TestHoleDigestComparedUpToAZeroOctet: a digest that begins with a zero octet
// is compared as a whole.
func TestHoleDigestComparedUpToAZeroOctet(t *testing.T) {
	found := 0
	for nonce := uint64(1); found < 3; nonce++ {
		msg := plainRegister(t, nonce, 1, 2, 32)
		if digest(sha256.New, string(key1.Secret), msg)[0] != 0 {
			continue
		}
		found++
		b := newBench(t)
		b.nothing(b.put(etr1, msg)) // all zeros
		assert.Equal(t, ReasonAuth, b.lastReason())
		signed(sha256.New, string(key1.Secret), msg)
		for i := range 32 {
			msg[authAt+i] ^= 0x80
			b := newBench(t)
			b.nothing(b.put(etr1, msg))
			msg[authAt+i] ^= 0x80
		}
		assert.Len(t, newBench(t).put(etr1, msg), 1, "the right one")
	}
}

// TestHoleSigningOracle: nothing of what is refused comes back signed.
func TestHoleSigningOracle(t *testing.T) {
	b := newBench(t)
	b.registers(etr1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withNonce(100))
	for _, msg := range [][]byte{
		signed(sha256.New, "guess", plainRegister(t, 5, 1, 2, 32)),
		signed(sha256.New, "", plainRegister(t, 5, 9, 2, 32)),
		plainRegister(t, 5, 1, 0, 0),
		register(t, key1, record("11.0.0.0/8", 10, "192.0.2.66")),
		register(t, key1, record("10.128.0.0/16", 10, "192.0.2.66")),
		register(t, key2, record("10.1.0.0/16", 10, "192.0.2.66")),
		register(t, key1, record("10.1.0.0/16", 10, "192.0.2.66"), func(m *lisp.MapRegister) {
			m.Records = append(m.Records, record("11.0.0.0/8", 10, "192.0.2.66"))
		}),
		register(t, key1, lisp.EIDRecord{}, func(m *lisp.MapRegister) { m.Records = nil }),
	} {
		assert.Empty(t, b.put(etr2, msg))
		b.advance(10 * time.Second)
		assert.Empty(t, b.drain())
	}
	assert.EqualValues(t, 1, b.s.Stats().Notifies)
	assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(b.s.Registrations(b.now)[0].RLOCs))
}

// TestHoleStateBeforeAuthentication: what doesn't verify makes no more-specific
// entry, no xTR, no timer, and no room is taken from others.
func TestHoleStateBeforeAuthentication(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxRegistrations = 4 })
	for i := range 1000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		wrong := key1
		wrong.Secret = []byte("guess")
		b.nothing(b.put(madeUp(i), register(t, wrong, record(p.String(), 10, "192.0.2.66"), withXTR(lisp.XTRID{byte(i), byte(i >> 8), 1}))))
	}
	for i := range 4 {
		b.registers(etr1, record(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24).String(), 10, "192.0.2.11"))
	}
}

// TestHoleReplays: a recorded Map-Register brings nothing back. Within the last
// 32 it is answered and changes nothing, for an xTR that counts it is refused
// later too.
func TestHoleReplays(t *testing.T) {
	for _, mode := range []ReplayMode{ReplayAuto, ReplayStrict} {
		b := newBench(t, func(c *Config) { c.Sites[0].Replay, c.MaxNotifies = mode, -1 })
		var recorded [][]byte
		rloc := func(i int) string { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String() }
		for i := range 60 {
			msg := register(t, key1, record("10.1.0.0/16", 10, rloc(i)), withXTR(xtr1), withNonce(lisp.Nonce(100+i)))
			recorded = append(recorded, msg)
			require.Len(t, b.put(etr1, msg), 1)
			b.advance(time.Second)
		}
		before := state(t, b.s)
		for i, msg := range recorded {
			out := b.put(netip.MustParseAddrPort("192.0.2.66:4342"), msg)
			assert.Len(t, out, map[bool]int{true: 1, false: 0}[i >= 60-recentRegisters], i)
			assert.Equal(t, before, state(t, b.s))
		}
		assert.Equal(t, []string{rloc(59)}, rlocsOf(b.s.Registrations(b.now)[0].RLOCs))
	}
}

// TestKeyRotation: both keys are good at once; each is refused with the
// algorithm or the secret of the other, and the old one when it has gone.
func TestKeyRotation(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxNotifies = -1 })
	for _, k := range []lisp.Key{key1, key1b} {
		out := b.put(etr1, register(t, k, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1)))
		require.Len(t, out, 1)
		require.NoError(t, lisp.Verify(out[0].Bytes, k), "answered with the same key")
		assert.Len(t, b.s.Registrations(b.now)[0].XTRs, 1, "one xTR, whatever the key")
	}
	b.events()
	for name, tc := range map[string]struct {
		key    lisp.Key
		reason Reason
	}{
		"secret of the other":    {lisp.Key{ID: 1, Algorithm: key1.Algorithm, Secret: key1b.Secret}, ReasonAuth},
		"algorithm of the other": {lisp.Key{ID: 1, Algorithm: key1b.Algorithm, Secret: key1.Secret}, ReasonAlgorithm},
		"ID of the other":        {lisp.Key{ID: 2, Algorithm: key1.Algorithm, Secret: key1.Secret}, ReasonAlgorithm},
		"a third":                {lisp.Key{ID: 3, Algorithm: key1.Algorithm, Secret: key1.Secret}, ReasonKey},
	} {
		assert.Empty(t, b.put(etr1, register(t, tc.key, record("10.1.0.0/16", 10, "192.0.2.66"))), name)
		assert.Equal(t, tc.reason, b.lastReason(), name)
	}
	b = newBench(t, func(c *Config) { c.Sites[0].Keys = c.Sites[0].Keys[1:] })
	b.nothing(b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))))
	assert.Equal(t, ReasonKey, b.lastReason())
	// One Key ID may have both keys while ETRs that can't change it move over.
	same := key1
	same.Secret = []byte("the next")
	b = newBench(t, func(c *Config) { c.Sites[0].Keys = []lisp.Key{key1, same}; c.MaxNotifies = -1 })
	for _, k := range []lisp.Key{key1, same} {
		out := b.put(etr1, register(t, k, record("10.1.0.0/16", 10, "192.0.2.11")))
		require.Len(t, out, 1)
		require.NoError(t, lisp.Verify(out[0].Bytes, k))
	}
}
