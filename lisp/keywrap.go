package lisp

import (
	"crypto/aes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// WrapID names how a One-Time Key is wrapped (RFC 9303 §8.4).
type WrapID uint8

// Key wraps of LISP-SEC. The null wrap is for links that are encrypted anyway.
const (
	WrapNull WrapID = 1 // NULL-KEY-WRAP-128: eight zero octets and the key
	WrapAES  WrapID = 2 // AES-KEY-WRAP-128+HKDF-SHA256
)

// wrapIV is the initial value of the AES key wrap (RFC 3394 §2.2.3.1).
const wrapIV = 0xa6a6a6a6a6a6a6a6

// WrapOTK returns preamble and wrapped key, 24 octets, for the Map-Request with
// that nonce (RFC 9303 §6.5). secret is the pre-shared secret of the link; the
// null wrap does not use it.
func WrapOTK(id WrapID, otk OTK, nonce Nonce, secret []byte) ([]byte, error) {
	switch id {
	case WrapNull:
		return append(make([]byte, 8), otk[:]...), nil
	case WrapAES:
		kek, err := wrapKey(nonce, secret)
		if err != nil {
			return nil, err
		}
		return aesWrap(kek, otk)
	}
	return nil, fmt.Errorf("lisp: OTK Wrapping ID %d: %w", id, ErrUnsupported)
}

// UnwrapOTK is the reverse of WrapOTK. It fails with ErrAuth if the secret is
// not the one that the key was wrapped with, or the octets were changed.
func UnwrapOTK(id WrapID, wrapped []byte, nonce Nonce, secret []byte) (OTK, error) {
	if len(wrapped) != 8+len(OTK{}) {
		return OTK{}, fmt.Errorf("lisp: wrapped OTK of %d octets: %w", len(wrapped), ErrMalformed)
	}
	switch id {
	case WrapNull:
		return OTK(wrapped[8:]), nil
	case WrapAES:
		kek, err := wrapKey(nonce, secret)
		if err != nil {
			return OTK{}, err
		}
		return aesUnwrap(kek, wrapped)
	}
	return OTK{}, fmt.Errorf("lisp: OTK Wrapping ID %d: %w", id, ErrUnsupported)
}

// wrapKey derives the per-message key. The RFC gives the keying material; salt
// and info, which it leaves open, are empty.
func wrapKey(nonce Nonce, secret []byte) ([]byte, error) {
	ikm := binary.BigEndian.AppendUint64(nil, uint64(nonce))
	ikm = append(ikm, "OTK-Key-Wrap"...)
	ikm = append(ikm, secret...)
	key, err := hkdf.Key(sha256.New, ikm, nil, "", 16)
	if err != nil {
		return nil, fmt.Errorf("lisp: key wrap: %w", err)
	}
	return key, nil
}

// aesWrap is the AES key wrap of a 128-bit key (RFC 3394 §2.2.1).
func aesWrap(kek []byte, otk OTK) ([]byte, error) {
	c, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("lisp: key wrap: %w", err)
	}
	out := binary.BigEndian.AppendUint64(nil, wrapIV)
	out = append(out, otk[:]...)
	var block [aes.BlockSize]byte
	for step := uint64(1); step <= 12; step++ {
		r := out[8+8*((step-1)%2):][:8]
		copy(block[:8], out)
		copy(block[8:], r)
		c.Encrypt(block[:], block[:])
		binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(block[:])^step)
		copy(r, block[8:])
	}
	return out, nil
}

// aesUnwrap is the reverse of aesWrap (RFC 3394 §2.2.2).
func aesUnwrap(kek, wrapped []byte) (OTK, error) {
	c, err := aes.NewCipher(kek)
	if err != nil {
		return OTK{}, fmt.Errorf("lisp: key wrap: %w", err)
	}
	out := append([]byte(nil), wrapped...)
	var block [aes.BlockSize]byte
	for step := uint64(12); step >= 1; step-- {
		r := out[8+8*((step-1)%2):][:8]
		binary.BigEndian.PutUint64(block[:], binary.BigEndian.Uint64(out)^step)
		copy(block[8:], r)
		c.Decrypt(block[:], block[:])
		copy(out, block[:8])
		copy(r, block[8:])
	}
	iv := binary.BigEndian.AppendUint64(nil, wrapIV)
	if subtle.ConstantTimeCompare(out[:8], iv) != 1 {
		return OTK{}, fmt.Errorf("lisp: key wrap: %w", ErrAuth)
	}
	return OTK(out[8:]), nil
}
