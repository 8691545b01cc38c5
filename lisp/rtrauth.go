package lisp

import (
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"slices"
)

// AppendRTRSecurity appends the authentication data by which a Map-Server tells
// an RTR that a Map-Notify in an ECM is its own, for EncapsulatedControl.Security
// (NAT draft §4.4). mapNotify is the message inside, which is what the digest
// covers; key is shared between Map-Server and RTR.
//
//	 0                   1                   2                   3
//	|  AD Type = 2  |                   Reserved                    |
//	|          MS-RTR Key ID        |  MS-RTR Auth. Data Length     |
//	|  MS-RTR Authentication Data                                   |
//
// The draft has a Key ID of 16 bits; its key 1 reads as Key ID 0, Algorithm 1.
// An algorithm that derives a key from the nonce has no definition here.
func AppendRTRSecurity(b, mapNotify []byte, key Key) ([]byte, error) {
	sum, err := key.plainMAC(mapNotify, key.DigestLen())
	if err != nil {
		return b, err
	}
	b = append(b, ADTypeRTR, 0, 0, 0, key.ID, byte(key.Algorithm))
	b = binary.BigEndian.AppendUint16(b, uint16(len(sum)))
	return append(b, sum...), nil
}

// RTRSecurity returns the authentication data of AD Type 2 for who wants to
// look at it. It aliases Security.
func (m *EncapsulatedControl) RTRSecurity() (Authentication, error) {
	if len(m.Security) < 8 || m.Security[0] != ADTypeRTR {
		return Authentication{}, fmt.Errorf("lisp: %s: no authentication data for an RTR: %w", ecm, ErrUnsupported)
	}
	r := reader{b: m.Security, off: 4, message: ecm}
	a := r.authentication()
	return a, r.err
}

// VerifyRTR checks the authentication data for an RTR against the message
// inside. Key ID and algorithm must be those of key. A failure wraps ErrAuth,
// or says what is wrong with the message.
func (m *EncapsulatedControl) VerifyRTR(key Key) error {
	a, err := m.RTRSecurity()
	if err != nil {
		return err
	}
	in, err := m.Inner()
	if err != nil {
		return err
	}
	return key.verifyPlain(a, in.Payload)
}

// RTRAuthentication returns the authentication record for an RTR that early NAT
// drafts, and OOR still, append to a Map-Notify with the R bit. An RTR that
// passes the message on empties it. It aliases Trailer.
func (m *MapNotify) RTRAuthentication() (Authentication, bool) {
	if !m.RTRAuth || len(m.Trailer) == 0 {
		return Authentication{}, false
	}
	r := reader{b: m.Trailer, message: mapNotify}
	a := r.authentication()
	return a, r.err == nil && r.off == len(r.b)
}

// AppendRTRAuthentication appends the authentication record for an RTR to an
// encoded and signed Map-Notify with the R bit. The digest covers the message,
// and the record with zeros in the place of the digest.
func AppendRTRAuthentication(msg []byte, key Key) ([]byte, error) {
	n := key.DigestLen()
	out := append(msg, key.ID, byte(key.Algorithm))
	out = binary.BigEndian.AppendUint16(out, uint16(n))
	out = append(out, zeros[:n]...)
	sum, err := key.plainMAC(out, n)
	if err != nil {
		return msg, err
	}
	copy(out[len(out)-n:], sum)
	return out, nil
}

// VerifyRTRAuthentication checks the authentication record for an RTR of a
// received Map-Notify over the octets received, which it does not change. Key ID
// and algorithm must be those of key. A failure wraps ErrAuth, or says what is
// wrong with the message.
func VerifyRTRAuthentication(msg []byte, key Key) error {
	var m MapNotify
	if err := m.DecodeFromBytes(msg); err != nil {
		return err
	}
	a, ok := m.RTRAuthentication()
	if !ok {
		return fmt.Errorf("lisp: %s without authentication for an RTR: %w", mapNotify, ErrAuth)
	}
	return key.verifyPlain(a, msg[:len(msg)-len(a.Data)], zeros[:min(len(a.Data), len(zeros))])
}

// verifyPlain checks an authentication record that lies outside of the octets
// that it covers, which are parts in a row.
func (k Key) verifyPlain(a Authentication, parts ...[]byte) error {
	truncated, full, ok := k.Algorithm.lengths()
	switch {
	case !ok || k.Algorithm == AlgorithmNone:
		return fmt.Errorf("lisp: verify: %s: %w", k.Algorithm, ErrUnsupported)
	case a.KeyID != k.ID || a.Algorithm != k.Algorithm || len(a.Data) != truncated && len(a.Data) != full:
		return fmt.Errorf("lisp: verify: key %d %s with %d octets: %w", a.KeyID, a.Algorithm, len(a.Data), ErrAuth)
	}
	sum, err := k.plainMAC(slices.Concat(parts...), len(a.Data))
	if err != nil {
		return err
	}
	if !hmac.Equal(sum, a.Data) {
		return fmt.Errorf("lisp: verify: digest: %w", ErrAuth)
	}
	return nil
}
