package lisp

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"log/slog"
)

// Algorithm is the Algorithm ID of authentication data (RFC 9301 §12.5).
type Algorithm uint8

// Algorithms. RFC 9301 §9 allows neither None nor SHA-1 on the public Internet.
const (
	AlgorithmNone           Algorithm = 0
	AlgorithmHMACSHA1       Algorithm = 1 // HMAC-SHA-1-96, no key derivation
	AlgorithmHMACSHA256     Algorithm = 2 // HMAC-SHA-256-128, no key derivation
	AlgorithmHMACSHA256HKDF Algorithm = 3 // HMAC-SHA-256-128, a key per message by HKDF-SHA256
)

// String returns the name in the IANA registry.
func (a Algorithm) String() string {
	switch a {
	case AlgorithmNone:
		return "none"
	case AlgorithmHMACSHA1:
		return "hmac-sha-1-96"
	case AlgorithmHMACSHA256:
		return "hmac-sha-256-128"
	case AlgorithmHMACSHA256HKDF:
		return "hmac-sha-256-128+hkdf-sha256"
	}
	return fmt.Sprintf("algorithm-%d", uint8(a))
}

// lengths returns the octets of the truncated and of the whole digest.
func (a Algorithm) lengths() (truncated, full int, ok bool) {
	switch a {
	case AlgorithmNone:
		return 0, 0, true
	case AlgorithmHMACSHA1:
		return 12, sha1.Size, true
	case AlgorithmHMACSHA256, AlgorithmHMACSHA256HKDF:
		return 16, sha256.Size, true
	}
	return 0, 0, false
}

// Key is a pre-shared key between an ETR and a Map-Server. Printing it, also
// with %#v, and logging it never shows the secret.
type Key struct {
	ID        uint8 // Key ID, which tells the keys of a site apart (RFC 9301 §5.6)
	Algorithm Algorithm
	Secret    []byte // any length
	// Truncate signs with 12 or 16 octets as RFC 2404 and RFC 4868 have it. The
	// default is the whole digest, 20 or 32 octets: all implementations known to
	// be in use send that and several refuse anything else. HMAC-SHA-256-128 with
	// HKDF is always truncated. Verify accepts both lengths.
	Truncate bool
	// StrictTrailer refuses a digest that leaves out the xTR-ID and the Site-ID.
	// RFC 9301 §5.6 taken by the letter ends at the last record, so the default
	// is to accept such a digest when the I bit is set. Peers known to be in use
	// cover them, and so does Sign.
	StrictTrailer bool
}

// String prints the key without its secret.
func (k Key) String() string { return fmt.Sprintf("key %d %s", k.ID, k.Algorithm) }

// GoString prints the key without its secret.
func (k Key) GoString() string { return "lisp.Key{" + k.String() + "}" }

// LogValue implements slog.LogValuer, without the secret.
func (k Key) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("id", int(k.ID)), slog.String("algorithm", k.Algorithm.String()))
}

// forgotten reports whether the key looks as if somebody had forgotten the
// algorithm, whose zero value would accept anything.
func (k Key) forgotten() bool { return k.Algorithm == AlgorithmNone && len(k.Secret) > 0 }

// DigestLen returns how many octets of authentication data Sign needs.
func (k Key) DigestLen() int {
	truncated, full, _ := k.Algorithm.lengths()
	if k.Truncate || k.Algorithm == AlgorithmHMACSHA256HKDF {
		return truncated
	}
	return full
}

// blank returns the authentication field to sign into.
func (k Key) blank() Authentication {
	return Authentication{KeyID: k.ID, Algorithm: k.Algorithm, Data: make([]byte, k.DigestLen())}
}

// zeros stands for the authentication data while the digest is computed.
var zeros [sha256.Size]byte

// authData returns the authentication data of an encoded message.
func authData(msg []byte) ([]byte, error) {
	if len(msg) < authOffset {
		return nil, fmt.Errorf("lisp: %s: authentication data: %w", TypeOf(msg), ErrTruncated)
	}
	switch TypeOf(msg) {
	case TypeMapRegister, TypeMapNotify, TypeMapNotifyAck, TypeInfo:
	default:
		return nil, fmt.Errorf("lisp: %s carries no authentication data: %w", TypeOf(msg), ErrUnsupported)
	}
	n := int(binary.BigEndian.Uint16(msg[authOffset-2:]))
	if n > len(msg)-authOffset {
		return nil, fmt.Errorf("lisp: %s: authentication data: %w", TypeOf(msg), ErrTruncated)
	}
	return msg[authOffset : authOffset+n], nil
}

func (k Key) newHMAC(secret []byte) (hash.Hash, error) {
	switch k.Algorithm {
	case AlgorithmHMACSHA1:
		return hmac.New(sha1.New, secret), nil
	case AlgorithmHMACSHA256, AlgorithmHMACSHA256HKDF:
		return hmac.New(sha256.New, secret), nil
	default:
	}
	return nil, fmt.Errorf("lisp: %s: %w", k.Algorithm, ErrUnsupported)
}

// plainMAC computes n octets of the HMAC of msg, which holds no place for it.
func (k Key) plainMAC(msg []byte, n int) ([]byte, error) {
	if k.Algorithm == AlgorithmHMACSHA256HKDF {
		return nil, fmt.Errorf("lisp: %s outside of a message: %w", k.Algorithm, ErrUnsupported)
	}
	h, err := k.newHMAC(k.Secret)
	if err != nil {
		return nil, err
	}
	h.Write(msg)
	return h.Sum(nil)[:n], nil
}

// messageKey derives the key of one message (RFC 9301 §5.6). The RFC leaves the
// use of HKDF open: the message type string is the salt, nonce and pre-shared
// key are the input keying material, info is empty, 32 octets come out. Info
// messages, of which it does not speak, have strings of the same form.
func (k Key) messageKey(msg []byte) ([]byte, error) {
	name := TypeOf(msg).String()
	if TypeOf(msg) == TypeInfo {
		name = infoRequest
		if msg[0]&0x08 != 0 {
			name = infoReply
		}
	}
	nonce := msg[4:12]
	ikm := make([]byte, 0, len(nonce)+len(k.Secret))
	ikm = append(append(ikm, nonce...), k.Secret...)
	key, err := hkdf.Key(sha256.New, ikm, []byte(name+" Authentication"), "", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("lisp: %s: %w", k.Algorithm, err)
	}
	return key, nil
}

// Sign computes the authentication data of an encoded Map-Register, Map-Notify,
// Map-Notify-Ack or Info message and writes it in place, with the Key ID and the algorithm.
// The message must have room for it: Authentication Data Length is one of the
// two lengths of the key's algorithm. The digest covers the whole message, the
// xTR-ID and the Site-ID included.
func Sign(msg []byte, key Key) error {
	a := Authenticator{key: key}
	return a.Sign(msg)
}

// Sign is the function Sign with the key.
func (a *Authenticator) Sign(msg []byte) error {
	key := &a.key
	data, err := authData(msg)
	if err != nil {
		return err
	}
	truncated, full, ok := key.Algorithm.lengths()
	if !ok {
		return fmt.Errorf("lisp: sign: %s: %w", key.Algorithm, ErrUnsupported)
	}
	if len(data) != truncated && len(data) != full {
		return fmt.Errorf("lisp: sign: %d octets of authentication data for %s: %w", len(data), key.Algorithm, ErrMalformed)
	}
	if key.forgotten() {
		return fmt.Errorf("lisp: sign: the key has a secret and no algorithm: %w", ErrMalformed)
	}
	msg[authOffset-4], msg[authOffset-3] = key.ID, byte(key.Algorithm)
	if key.Algorithm == AlgorithmNone {
		return nil
	}
	sum, err := a.digest(msg, len(data), len(msg))
	if err != nil {
		return err
	}
	copy(data, sum)
	return nil
}

// Verify checks the authentication data of a received Map-Register, Map-Notify,
// Map-Notify-Ack or Info message over the octets received, which it does not change. Key ID
// and algorithm must be those of key, and the length one of the two that its
// algorithm has; a key with AlgorithmNone accepts only an empty field, and
// nothing at all if it has a secret. The
// comparison takes constant time. A failure wraps ErrAuth, or ErrTruncated when
// the message is cut short. It is safe for concurrent use.
func Verify(msg []byte, key Key) error {
	a := Authenticator{key: key}
	return a.Verify(msg)
}

// Verify is the function Verify with the key.
func (a *Authenticator) Verify(msg []byte) error {
	key := &a.key
	data, err := authData(msg)
	if err != nil {
		return err
	}
	truncated, full, ok := key.Algorithm.lengths()
	switch {
	case !ok:
		return fmt.Errorf("lisp: verify: %s: %w", key.Algorithm, ErrUnsupported)
	case key.forgotten():
		return fmt.Errorf("lisp: verify: the key has a secret and no algorithm: %w", ErrAuth)
	case msg[authOffset-4] != key.ID:
		return fmt.Errorf("lisp: verify: Key ID %d, not %d: %w", msg[authOffset-4], key.ID, ErrAuth)
	case Algorithm(msg[authOffset-3]) != key.Algorithm:
		return fmt.Errorf("lisp: verify: %s, not %s: %w", Algorithm(msg[authOffset-3]), key.Algorithm, ErrAuth)
	case len(data) != truncated && len(data) != full:
		return fmt.Errorf("lisp: verify: %d octets of authentication data for %s: %w", len(data), key.Algorithm, ErrAuth)
	case key.Algorithm == AlgorithmNone:
		return nil
	}
	sum, err := a.digest(msg, len(data), len(msg))
	if err != nil {
		return err
	}
	if hmac.Equal(sum[:len(data)], data) {
		return nil
	}
	ends, err := coverage(msg, key.StrictTrailer)
	if err != nil {
		return err
	}
	for _, end := range ends {
		if end < authOffset+len(data) {
			continue
		}
		if sum, err = a.digest(msg, len(data), end); err != nil {
			return err
		}
		if hmac.Equal(sum[:len(data)], data) {
			return nil
		}
	}
	return fmt.Errorf("lisp: verify: digest: %w", ErrAuth)
}

// coverage returns where the octets that a digest covers may end, other than at
// the end of the message. Without the I bit that is all there is, so that nobody
// can append octets to a message of somebody else. With the I bit, which the
// digest covers, the xTR-ID and Site-ID may be left out; and the RTR's
// authentication record that early NAT drafts append to a Map-Notify is.
func coverage(msg []byte, strict bool) (ends []int, err error) {
	var xtrID, rtrAuth bool
	switch TypeOf(msg) {
	case TypeMapRegister:
		xtrID = msg[0]&0x02 != 0
	case TypeMapNotify, TypeMapNotifyAck:
		xtrID, rtrAuth = msg[0]&0x08 != 0, msg[0]&0x04 != 0
	default:
	}
	if !xtrID || strict && !rtrAuth {
		return nil, nil
	}
	m, err := Parse(msg)
	if err != nil {
		return nil, err
	}
	var trailer []byte
	switch m := m.(type) {
	case *MapRegister:
		trailer = m.Trailer
	case *MapNotify:
		trailer, xtrID = m.Trailer, m.XTRIDPresent
	case *MapNotifyAck:
		trailer, xtrID = m.Trailer, m.XTRIDPresent
	}
	if !xtrID {
		return nil, nil
	}
	end := len(msg) - len(trailer)
	if rtrAuth && len(trailer) > 0 {
		ends = append(ends, end)
	}
	if !strict && (rtrAuth || len(trailer) == 0) {
		ends = append(ends, end-trailerLen)
	}
	return ends, nil
}

// appendSigned encodes m, whose Auth has the right length, and signs it.
func appendSigned(m Message, b []byte, key Key) ([]byte, error) {
	start := len(b)
	b, err := m.AppendBinary(b)
	if err != nil {
		return b[:start], err
	}
	if err := Sign(b[start:], key); err != nil {
		return b[:start], err
	}
	return b, nil
}
