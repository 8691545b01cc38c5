package lisp

import (
	"crypto/sha256"
	"hash"
)

// Authenticator signs and verifies messages with one key, as Sign and Verify do.
// What depends on the key alone is computed once, and nothing is allocated
// except for AlgorithmHMACSHA256HKDF, which has a key per message. One goroutine
// at a time; its 800 octets are for who has many messages per key.
type Authenticator struct {
	key  Key
	hmac hash.Hash // keyed; nil when the key alone doesn't give one, or when used once
	sum  [sha256.Size]byte
}

// NewAuthenticator makes an Authenticator. The secret must not be modified
// afterwards.
func NewAuthenticator(key Key) *Authenticator {
	a := &Authenticator{key: key}
	if key.Algorithm != AlgorithmHMACSHA256HKDF {
		// Without a known algorithm Sign and Verify fail before they need it.
		a.hmac, _ = key.newHMAC(key.Secret)
	}
	return a
}

// digest is the HMAC of msg[:end] with zeros for the authentication data, which
// has n octets. It is valid until the next call.
func (a *Authenticator) digest(msg []byte, n, end int) ([]byte, error) {
	h := a.hmac
	if h == nil {
		secret := a.key.Secret
		var err error
		if a.key.Algorithm == AlgorithmHMACSHA256HKDF {
			if secret, err = a.key.messageKey(msg); err != nil {
				return nil, err
			}
		}
		if h, err = a.key.newHMAC(secret); err != nil {
			return nil, err
		}
	} else {
		h.Reset()
	}
	h.Write(msg[:authOffset])
	h.Write(zeros[:n])
	h.Write(msg[authOffset+n : end])
	return h.Sum(a.sum[:0]), nil
}
