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

// HMACID names the HMAC of LISP-SEC (RFC 9303 §8.3).
type HMACID uint16

// HMACs of LISP-SEC.
const (
	HMACNoPreference HMACID = 0 // only as a request
	HMACSHA1         HMACID = 1 // AUTH-HMAC-SHA-1-96, 12 octets
	HMACSHA256       HMACID = 2 // AUTH-HMAC-SHA-256-128, 16 octets
)

// KDFID names the function that derives the MS-OTK from the ITR-OTK (RFC 9303 §8.5).
type KDFID uint16

// Key derivation functions of LISP-SEC.
const (
	KDFNoPreference KDFID = 0 // only as a request
	KDFHKDFSHA1     KDFID = 1 // HKDF-SHA1-128
	KDFHKDFSHA256   KDFID = 2 // HKDF-SHA256
)

// OTK is a One-Time Key of LISP-SEC: the ITR-OTK that the ITR draws at random,
// or the MS-OTK derived from it. Printing and logging it does not show it.
type OTK [16]byte

// String does not show the key.
func (OTK) String() string { return "OTK" }

// GoString does not show the key.
func (OTK) GoString() string { return "lisp.OTK{}" }

// LogValue implements slog.LogValuer without the key.
func (OTK) LogValue() slog.Value { return slog.StringValue("OTK") }

// Derive returns the MS-OTK of an ITR-OTK (RFC 9303 §6.7.1). The RFC leaves salt
// and info open: there are none.
func (o OTK) Derive(kdf KDFID) (OTK, error) {
	var key []byte
	var err error
	switch kdf {
	case KDFHKDFSHA1:
		key, err = hkdf.Key(sha1.New, o[:], nil, "", len(o))
	case KDFHKDFSHA256:
		key, err = hkdf.Key(sha256.New, o[:], nil, "", len(o))
	default:
		return OTK{}, fmt.Errorf("lisp: KDF ID %d: %w", kdf, ErrUnsupported)
	}
	if err != nil {
		return OTK{}, fmt.Errorf("lisp: MS-OTK: %w", err)
	}
	return OTK(key), nil
}

func (h HMACID) size() (int, error) {
	switch h {
	case HMACSHA1:
		return 12, nil
	case HMACSHA256:
		return 16, nil
	default:
	}
	return 0, fmt.Errorf("lisp: HMAC ID %d: %w", h, ErrUnsupported)
}

// sum computes the HMAC of the parts in a row.
func (h HMACID) sum(otk OTK, parts ...[]byte) ([]byte, error) {
	n, err := h.size()
	if err != nil {
		return nil, err
	}
	newHash := func() hash.Hash { return sha256.New() }
	if h == HMACSHA1 {
		newHash = sha1.New
	}
	m := hmac.New(newHash, otk[:])
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)[:n], nil
}

// ECMSecurity is the LISP-SEC authentication data of an ECM (RFC 9303 §6.1).
//
//	 0                   1                   2                   3
//	|  AD Type = 1  |  Unassigned   |       Requested HMAC ID       |
//	|          OTK Length           |    Key ID     | OTK Wrap. ID  |
//	|  One-Time-Key Preamble (64), One-Time Key (128)               |
//	|  EID-AD                                                       |
type ECMSecurity struct {
	Unassigned    uint8 // normally 0
	RequestedHMAC HMACID
	KeyID         uint8 // of the secret that wraps the key
	Wrap          WrapID
	WrappedOTK    []byte // preamble and key, 24 octets; see WrapOTK and UnwrapOTK
	EIDAD         EIDAD
}

// EIDAD is the EID Authentication Data of LISP-SEC (RFC 9303 §6.1).
//
//	 0                   1                   2                   3
//	|         EID-AD Length         |            KDF ID             |
//	| Record Count  |E| Unassigned  |          EID HMAC ID          |
//	|  Unassigned   | EID mask-len  |  EID-AFI, EID-Prefix  (count) |
//	|  EID HMAC                                                     |
//
// An ITR sends only the first line: Signed is false then.
type EIDAD struct {
	KDF        KDFID
	Signed     bool            // the rest is present
	CantSign   bool            // E: some ETR of the EIDs does not do LISP-SEC
	Unassigned uint8           // 7 bits, normally 0
	HMACID     HMACID          // of HMAC
	Records    []RequestRecord // the EID-Prefixes that the Map-Server vouches for
	HMAC       []byte          // over the EID-AD, keyed with the ITR-OTK
}

// eidADFixed is the length of the EID-AD of an ITR.
const eidADFixed = 4

// DecodeFromBytes decodes the authentication data that fills b. WrappedOTK and
// the HMAC alias b.
func (s *ECMSecurity) DecodeFromBytes(b []byte) error {
	r := reader{b: b, message: "LISP-SEC ECM AD"}
	head := r.take("AD Type", 8)
	if head == nil {
		return r.err
	}
	if head[0] != ADTypeLISPSEC {
		r.fail("AD Type", 0, fmt.Errorf("%d: %w", head[0], ErrUnsupported))
		return r.err
	}
	n, err := securityLen(b)
	if err != nil {
		r.fail("OTK Length", 4, err)
		return r.err
	}
	otkLen := int(binary.BigEndian.Uint16(head[4:]))
	if otkLen == 28 { // see securityLen
		otkLen = 24
	}
	records := s.EIDAD.Records[:0]
	*s = ECMSecurity{
		Unassigned:    head[1],
		RequestedHMAC: HMACID(binary.BigEndian.Uint16(head[2:])),
		KeyID:         head[6],
		Wrap:          WrapID(head[7]),
		WrappedOTK:    r.take("One-Time Key", otkLen),
	}
	s.EIDAD.Records = records
	r.eidAD(&s.EIDAD)
	if r.err == nil && (r.off != n || n != len(b)) {
		r.fail("EID-AD", r.off, ErrMalformed)
	}
	return r.err
}

// AppendBinary appends the authentication data as EncapsulatedControl.Security
// holds it.
func (s *ECMSecurity) AppendBinary(b []byte) ([]byte, error) {
	if len(s.WrappedOTK) > 0xffff || len(s.WrappedOTK) == 28 {
		return b, encodeError("LISP-SEC ECM AD", "OTK Length", "%d", len(s.WrappedOTK))
	}
	b = append(b, ADTypeLISPSEC, s.Unassigned)
	b = binary.BigEndian.AppendUint16(b, uint16(s.RequestedHMAC))
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.WrappedOTK)))
	b = append(b, s.KeyID, byte(s.Wrap))
	b = append(b, s.WrappedOTK...)
	return s.EIDAD.AppendBinary(b)
}

// eidAD reads an EID-AD to its own end.
func (r *reader) eidAD(e *EIDAD) {
	start := r.off
	records := e.Records[:0]
	*e = EIDAD{}
	head := r.take("EID-AD Length", eidADFixed)
	if head == nil {
		return
	}
	n := int(binary.BigEndian.Uint16(head))
	e.KDF = KDFID(binary.BigEndian.Uint16(head[2:]))
	if n == eidADFixed {
		return
	}
	if n < eidADFixed+4 {
		r.fail("EID-AD Length", start, fmt.Errorf("%d: %w", n, ErrMalformed))
		return
	}
	body := r.take("EID-AD", n-eidADFixed)
	if body == nil {
		return
	}
	in := reader{b: r.b[:r.off], off: start + eidADFixed + 4, message: r.message}
	e.Signed = true
	e.CantSign, e.Unassigned = body[1]&0x80 != 0, body[1]&0x7f
	e.HMACID = HMACID(binary.BigEndian.Uint16(body[2:]))
	for range body[0] {
		if in.err != nil {
			break
		}
		records = grow(records)
		in.requestRecord(&records[len(records)-1])
	}
	e.Records = records
	e.HMAC = in.rest()
	if in.err != nil {
		r.err = in.err
	}
}

// AppendBinary appends the EID-AD with HMAC as it stands.
func (e *EIDAD) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, eidADFixed)
	b = binary.BigEndian.AppendUint16(b, uint16(e.KDF))
	if !e.Signed {
		return b, nil
	}
	switch {
	case len(e.Records) > maxRecords:
		return b, encodeError("EID-AD", "Record Count", "%d", len(e.Records))
	case e.Unassigned > 0x7f:
		return b, encodeError("EID-AD", "Unassigned", "%#x", e.Unassigned)
	}
	b = append(b, byte(len(e.Records)), e.Unassigned|byte(bit(e.CantSign, 0x80)))
	b = binary.BigEndian.AppendUint16(b, uint16(e.HMACID))
	for i := range e.Records {
		var err error
		if b, err = e.Records[i].append(b, "EID-AD"); err != nil {
			return b, err
		}
	}
	b = append(b, e.HMAC...)
	n := len(b) - start
	if n > 0xffff {
		return b, encodeError("EID-AD", "EID-AD Length", "%d", n)
	}
	binary.BigEndian.PutUint16(b[start:], uint16(n))
	return b, nil
}

// Sign sets HMACID and HMAC: the Map-Server's voucher for Records, keyed with
// the ITR-OTK (RFC 9303 §6.7.1).
func (e *EIDAD) Sign(itr OTK, id HMACID) error {
	n, err := id.size()
	if err != nil {
		return err
	}
	e.Signed, e.HMACID, e.HMAC = true, id, make([]byte, n)
	b, err := e.AppendBinary(nil)
	if err != nil {
		return err
	}
	e.HMAC, err = id.sum(itr, b)
	return err
}

// verifyEIDAD checks the HMAC of the encoded EID-AD b, which decodes to e.
func verifyEIDAD(b []byte, e *EIDAD, itr OTK) error {
	n, err := e.HMACID.size()
	if err != nil {
		return err
	}
	if !e.Signed || len(e.HMAC) != n {
		return fmt.Errorf("lisp: EID HMAC of %d octets: %w", len(e.HMAC), ErrAuth)
	}
	sum, err := e.HMACID.sum(itr, b[:len(b)-n], zeros[:n])
	if err != nil {
		return err
	}
	if !hmac.Equal(sum, e.HMAC) {
		return fmt.Errorf("lisp: EID HMAC: %w", ErrAuth)
	}
	return nil
}

// ReplySecurity is the LISP-SEC authentication data of a Map-Reply (RFC 9303 §6.2).
//
//	 0                   1                   2                   3
//	|  AD Type = 1  |                  Unassigned                   |
//	|  EID-AD, octet for octet that of the ECM                      |
//	|         PKT-AD Length         |          PKT HMAC ID          |
//	|  PKT HMAC                                                     |
type ReplySecurity struct {
	Unassigned uint32 // 24 bits, normally 0
	EIDAD      EIDAD
	HMACID     HMACID // of HMAC
	HMAC       []byte // over the whole Map-Reply, keyed with the MS-OTK
}

// decode reads the authentication data that fills b and returns the EID-AD as
// it stands there.
func (s *ReplySecurity) decode(b []byte) (eidAD []byte, err error) {
	r := reader{b: b, message: "LISP-SEC Map-Reply AD"}
	head := r.uint32("MR AD Type")
	if r.err == nil && head>>24 != ADTypeLISPSEC {
		r.fail("MR AD Type", 0, fmt.Errorf("%d: %w", head>>24, ErrUnsupported))
	}
	*s = ReplySecurity{Unassigned: head & 0xffffff}
	start := r.off
	r.eidAD(&s.EIDAD)
	end := r.off
	pkt := r.uint32("PKT-AD Length")
	s.HMACID, s.HMAC = HMACID(pkt), r.rest()
	// By analogy to EID-AD Length the four octets before the HMAC count too.
	if n := int(pkt >> 16); r.err == nil && n != 4+len(s.HMAC) {
		r.fail("PKT-AD Length", end, fmt.Errorf("%d: %w", n, ErrMalformed))
	}
	if r.err != nil {
		return nil, r.err
	}
	return b[start:end], nil
}

// DecodeFromBytes decodes the authentication data that fills b, which is what
// MapReply.Trailer holds. The HMACs alias b.
func (s *ReplySecurity) DecodeFromBytes(b []byte) error {
	_, err := s.decode(b)
	return err
}

// AppendBinary appends the authentication data with the HMACs as they stand.
func (s *ReplySecurity) AppendBinary(b []byte) ([]byte, error) {
	if s.Unassigned > 0xffffff {
		return b, encodeError("LISP-SEC Map-Reply AD", "Unassigned", "%#x", s.Unassigned)
	}
	b = binary.BigEndian.AppendUint32(b, ADTypeLISPSEC<<24|s.Unassigned)
	b, err := s.EIDAD.AppendBinary(b)
	if err != nil {
		return b, err
	}
	return appendPKTAD(b, s.HMACID, s.HMAC)
}

func appendPKTAD(b []byte, id HMACID, mac []byte) ([]byte, error) {
	if len(mac) > 0xffff-4 {
		return b, encodeError("LISP-SEC Map-Reply AD", "PKT-AD Length", "%d", 4+len(mac))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(mac)))
	b = binary.BigEndian.AppendUint16(b, uint16(id))
	return append(b, mac...), nil
}

// AppendSecured appends the Map-Reply with the S bit and LISP-SEC
// authentication data: eidAD as it was received in the ECM (the end of
// EncapsulatedControl.Security, see ECMSecurity) or made by EIDAD.AppendBinary,
// and an HMAC of the whole message keyed with the MS-OTK (RFC 9303 §6.8).
// Security and Trailer are not read. m does not change.
func (m *MapReply) AppendSecured(b, eidAD []byte, ms OTK, id HMACID) ([]byte, error) {
	n, err := id.size()
	if err != nil {
		return b, err
	}
	check := reader{b: eidAD, message: "EID-AD"}
	var e EIDAD
	if check.eidAD(&e); check.err != nil {
		return b, check.err
	}
	c := *m
	c.Security = true
	c.Trailer = append([]byte{ADTypeLISPSEC, 0, 0, 0}, eidAD...)
	if c.Trailer, err = appendPKTAD(c.Trailer, id, zeros[:n]); err != nil {
		return b, err
	}
	start := len(b)
	out, err := c.AppendBinary(b)
	if err != nil {
		return b, err
	}
	sum, err := id.sum(ms, out[start:])
	if err != nil {
		return b, err
	}
	copy(out[len(out)-n:], sum)
	return out, nil
}

// EIDADBytes returns the EID-AD in the authentication data of the ECM, for an
// ETR to copy. It aliases Security.
func (m *EncapsulatedControl) EIDADBytes() ([]byte, error) {
	var s ECMSecurity
	if err := s.DecodeFromBytes(m.Security); err != nil {
		return nil, err
	}
	return m.Security[8+len(s.WrappedOTK):], nil
}

// VerifySecured checks the LISP-SEC authentication data of a received Map-Reply
// over the octets received, by the ITR-OTK that was sent with the Map-Request
// (RFC 9303 §6.9), and returns it: which EID-Prefixes the Map-Server vouches
// for, and by which functions, which the caller compares with those that it
// asked for. A failure wraps ErrAuth, ErrUnsupported for a function that is not
// known, or what is wrong with the message.
func VerifySecured(msg []byte, itr OTK) (*ReplySecurity, error) {
	var m MapReply
	if err := m.DecodeFromBytes(msg); err != nil {
		return nil, err
	}
	if !m.Security {
		return nil, fmt.Errorf("lisp: %s without authentication data: %w", mapReply, ErrAuth)
	}
	s := new(ReplySecurity)
	eidAD, err := s.decode(m.Trailer)
	if err != nil {
		return nil, err
	}
	if err := verifyEIDAD(eidAD, &s.EIDAD, itr); err != nil {
		return nil, err
	}
	ms, err := itr.Derive(s.EIDAD.KDF)
	if err != nil {
		return nil, err
	}
	n, err := s.HMACID.size()
	if err != nil {
		return nil, err
	}
	if len(s.HMAC) != n {
		return nil, fmt.Errorf("lisp: PKT HMAC of %d octets: %w", len(s.HMAC), ErrAuth)
	}
	sum, err := s.HMACID.sum(ms, msg[:len(msg)-n], zeros[:n])
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(sum, s.HMAC) {
		return nil, fmt.Errorf("lisp: PKT HMAC: %w", ErrAuth)
	}
	return s, nil
}
