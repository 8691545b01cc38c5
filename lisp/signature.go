package lisp

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// SignatureAlgorithm is the Sig-Algorithm of a signature section (RFC 8111 §6.4.1).
type SignatureAlgorithm uint8

// Signature algorithms. RSA-SHA1 is deprecated: it is neither made nor verified here.
const (
	SignatureRSASHA1   SignatureAlgorithm = 1
	SignatureRSASHA256 SignatureAlgorithm = 2
)

// ReferralSignature is a signature section of a Map-Referral record (RFC 8111 §6.4.1).
type ReferralSignature struct {
	OriginalTTL uint32 // minutes; the Record TTL that the signature covers
	Expiration  uint32 // seconds since 1970 UTC, the last one at which it is valid
	Inception   uint32 // seconds since 1970 UTC, the first one at which it is valid
	KeyTag      uint16 // which key of the signer
	Algorithm   SignatureAlgorithm
	Reserved    uint32 // 24 bits, normally 0
	Signature   []byte
}

func (r *reader) signature(s *ReferralSignature) {
	b := r.take("Signature Section", signatureFixed)
	if b == nil {
		return
	}
	w := binary.BigEndian.Uint32(b[16:])
	*s = ReferralSignature{
		OriginalTTL: binary.BigEndian.Uint32(b),
		Expiration:  binary.BigEndian.Uint32(b[4:]),
		Inception:   binary.BigEndian.Uint32(b[8:]),
		KeyTag:      binary.BigEndian.Uint16(b[12:]),
		Algorithm:   SignatureAlgorithm(w >> 24),
		Reserved:    w & 0xffffff,
		Signature:   r.take("Signature", int(binary.BigEndian.Uint16(b[14:]))),
	}
}

func (s *ReferralSignature) append(b []byte) ([]byte, error) {
	switch {
	case len(s.Signature) > 0xffff:
		return b, encodeError(mapReferral, "Sig Length", "%d", len(s.Signature))
	case s.Reserved > 0xffffff:
		return b, encodeError(mapReferral, "Reserved", "%#x", s.Reserved)
	}
	b = binary.BigEndian.AppendUint32(b, s.OriginalTTL)
	b = binary.BigEndian.AppendUint32(b, s.Expiration)
	b = binary.BigEndian.AppendUint32(b, s.Inception)
	b = binary.BigEndian.AppendUint16(b, s.KeyTag)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Signature)))
	b = binary.BigEndian.AppendUint32(b, uint32(s.Algorithm)<<24|s.Reserved)
	return append(b, s.Signature...), nil
}

// Sign appends a signature section with an RSA-SHA256 signature of the record,
// valid from inception to expiration (whole seconds). Sections that are there
// already are not part of what it covers.
func (r *ReferralRecord) Sign(key *rsa.PrivateKey, keyTag uint16, inception, expiration time.Time) error {
	s := ReferralSignature{
		OriginalTTL: r.TTL,
		Inception:   uint32(inception.Unix()),
		Expiration:  uint32(expiration.Unix()),
		KeyTag:      keyTag,
		Algorithm:   SignatureRSASHA256,
		Signature:   make([]byte, key.Size()),
	}
	digest, err := r.digest(&s)
	if err != nil {
		return err
	}
	if s.Signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest); err != nil {
		return fmt.Errorf("lisp: %s: sign: %w", mapReferral, err)
	}
	r.Signatures = append(slices.Clip(r.Signatures), s)
	return nil
}

// Verify checks signature section i of the record at the time now. A failure
// wraps ErrAuth; an algorithm other than RSA-SHA256 is ErrUnsupported.
func (r *ReferralRecord) Verify(i int, key *rsa.PublicKey, now time.Time) error {
	if i < 0 || i >= len(r.Signatures) {
		return fmt.Errorf("lisp: %s: no signature %d: %w", mapReferral, i, ErrAuth)
	}
	s := &r.Signatures[i]
	switch t := now.Unix(); {
	case s.Algorithm != SignatureRSASHA256:
		return fmt.Errorf("lisp: %s: Sig-Algorithm %d: %w", mapReferral, s.Algorithm, ErrUnsupported)
	case t < int64(s.Inception):
		return fmt.Errorf("lisp: %s: signature not valid yet: %w", mapReferral, ErrAuth)
	case t > int64(s.Expiration):
		return fmt.Errorf("lisp: %s: signature expired: %w", mapReferral, ErrAuth)
	}
	digest, err := r.digest(s)
	if err != nil {
		return err
	}
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, s.Signature); err != nil {
		return fmt.Errorf("lisp: %s: signature: %w", mapReferral, ErrAuth)
	}
	return nil
}

// digest hashes the record with s as its only signature section, the signature
// itself as zeros and the Record TTL as it was when s was made. RFC 8111 says
// that a signature covers the entire record; with other sections in it a second
// signer would invalidate the first, so each stands alone.
func (r *ReferralRecord) digest(s *ReferralSignature) ([]byte, error) {
	blank, alone := *s, *r
	blank.Signature = make([]byte, len(s.Signature))
	alone.TTL = s.OriginalTTL
	alone.Signatures = []ReferralSignature{blank}
	b, err := alone.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}
