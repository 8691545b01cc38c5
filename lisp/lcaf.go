package lisp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// To add an LCAF type: give it a number below, a struct with the four methods of
// LCAF in a file of its own or beside its kin, a case in newLCAF, a vector in
// the tests and a row in TestLCAF.

// LCAFType is the type of a LISP Canonical Address Format address (RFC 8060).
type LCAFType uint8

// LCAF types. Those marked unapproved are described by RFC 8060 §5 and are not
// in the IANA registry.
const (
	LCAFNull            LCAFType = 0
	LCAFAFIList         LCAFType = 1  // RFC 8060 §4.10.5 and others
	LCAFInstanceID      LCAFType = 2  // RFC 8060 §4.1
	LCAFASNumber        LCAFType = 3  // RFC 8060 §4.2
	LCAFApplicationData LCAFType = 4  // RFC 8060 §5.2, unapproved
	LCAFGeoCoordinates  LCAFType = 5  // RFC 8060 §4.3
	LCAFOpaqueKey       LCAFType = 6  // RFC 8060 §5.1, unapproved
	LCAFNATTraversal    LCAFType = 7  // RFC 8060 §4.4
	LCAFNonceLocator    LCAFType = 8  // RFC 8060 §5.3, unapproved
	LCAFMulticastInfo   LCAFType = 9  // RFC 8060 §4.5
	LCAFExplicitPath    LCAFType = 10 // RFC 8060 §4.6
	LCAFSecurityKey     LCAFType = 11 // RFC 8060 §4.7
	LCAFSourceDest      LCAFType = 12 // RFC 8060 §4.8
	LCAFReplicationList LCAFType = 13 // RFC 8060 §4.9
	LCAFJSON            LCAFType = 14 // RFC 8060 §5.4, unapproved
	LCAFKeyValue        LCAFType = 15 // RFC 8060 §5.5, unapproved
	LCAFEncapsulation   LCAFType = 16 // RFC 8060 §5.6, unapproved
	LCAFVendorSpecific  LCAFType = 255
)

// maxLCAFDepth is how many LCAFs inside each other are looked at. Encodings
// nest deeper than any use of them; what is deeper is kept but not understood.
const maxLCAFDepth = 8

// LCAF is the content of an LCAF address: one of the pointer types of this
// package, such as *AFIList, and nothing else.
//
//	 0                   1                   2                   3
//	|          AFI = 16387          |     Rsvd1     |     Flags     |
//	|     Type      |     Rsvd2     |            Length             |
//	|  body                                                         |
//
// Reserved fields and octets left over in the body do not survive in it. They
// do in the Address, which is what messages hold.
type LCAF interface {
	fmt.Stringer
	// LCAFType returns the type.
	LCAFType() LCAFType

	// decodeBody decodes all of b, of which it keeps copies or nothing. Octets
	// that the type has no use for are skipped.
	decodeBody(b []byte) error
	appendBody(b []byte) ([]byte, error)
	// text is String inside depth LCAFs.
	text(depth int) string
}

// rsvd2 is what the Types that define the Rsvd2 octet have besides.
type rsvd2 interface {
	getRsvd2() uint8
	setRsvd2(uint8)
}

func newLCAF(t LCAFType) LCAF {
	switch t {
	case LCAFNull:
		return new(Null)
	case LCAFAFIList:
		return new(AFIList)
	case LCAFInstanceID:
		return new(InstanceID)
	case LCAFASNumber:
		return new(ASNumber)
	case LCAFApplicationData:
		return new(ApplicationData)
	case LCAFGeoCoordinates:
		return new(GeoCoordinates)
	case LCAFOpaqueKey:
		return new(OpaqueKey)
	case LCAFNATTraversal:
		return new(NATTraversal)
	case LCAFNonceLocator:
		return new(NonceLocator)
	case LCAFMulticastInfo:
		return new(MulticastInfo)
	case LCAFExplicitPath:
		return new(ExplicitPath)
	case LCAFSecurityKey:
		return new(SecurityKey)
	case LCAFSourceDest:
		return new(SourceDest)
	case LCAFReplicationList:
		return new(ReplicationList)
	case LCAFJSON:
		return new(JSON)
	case LCAFKeyValue:
		return new(KeyValue)
	case LCAFEncapsulation:
		return new(EncapsulationFormat)
	case LCAFVendorSpecific:
		return new(VendorSpecific)
	}
	return nil
}

// LCAF decodes the content of an LCAF address. A type that this package does
// not know comes as a *RawLCAF. Addresses inside are Addresses again, which are
// decoded when asked. It fails with ErrUnsupported if a is no LCAF, and with a
// *DecodeError if its body is not what the type demands.
func (a Address) LCAF() (LCAF, error) {
	b, ok := a.lcaf()
	if !ok {
		return nil, fmt.Errorf("lisp: address family %d is no LCAF: %w", a.afi, ErrUnsupported)
	}
	t, body := LCAFType(b[4]), b[lcafHeaderLen:]
	l := newLCAF(t)
	if l == nil {
		return &RawLCAF{Rsvd1: b[2], Flags: b[3], Type: t, Rsvd2: b[5], Body: body}, nil
	}
	if r, ok := l.(rsvd2); ok {
		r.setRsvd2(b[5])
	}
	if err := l.decodeBody(body); err != nil {
		return nil, err
	}
	return l, nil
}

// lcaf returns the encoding of an LCAF address, which is at least lcafHeaderLen
// octets, in memory of its own.
func (a Address) lcaf() ([]byte, bool) {
	if a.afi != AFILCAF {
		return nil, false
	}
	b, err := a.AppendBinary(nil)
	return b, err == nil && len(b) >= lcafHeaderLen
}

// LCAFAddress returns the address that l encodes to.
func LCAFAddress(l LCAF) (Address, error) {
	b := make([]byte, lcafHeaderLen, 64)
	binary.BigEndian.PutUint16(b, uint16(AFILCAF))
	b[4] = byte(l.LCAFType())
	if raw, ok := l.(*RawLCAF); ok {
		b[2], b[3], b[5] = raw.Rsvd1, raw.Flags, raw.Rsvd2
	}
	if r, ok := l.(rsvd2); ok {
		b[5] = r.getRsvd2()
	}
	b, err := l.appendBody(b)
	if err != nil {
		return Address{}, err
	}
	n := len(b) - lcafHeaderLen
	if n > 0xffff {
		return Address{}, lcafError(l, "Length", "%d", n)
	}
	binary.BigEndian.PutUint16(b[6:], uint16(n))
	var a Address
	err = a.UnmarshalBinary(b)
	return a, err
}

func lcafError(l LCAF, field, format string, args ...any) error {
	return encodeError("LCAF "+l.LCAFType().String(), field, format, args...)
}

func lcafReader(l LCAF, b []byte) reader {
	return reader{b: b, message: "LCAF " + l.LCAFType().String()}
}

// String returns the name that RFC 8060 uses.
func (t LCAFType) String() string {
	switch t {
	case LCAFNull:
		return "null"
	case LCAFAFIList:
		return "afi-list"
	case LCAFInstanceID:
		return "instance-id"
	case LCAFASNumber:
		return "as-number"
	case LCAFApplicationData:
		return "application-data"
	case LCAFGeoCoordinates:
		return "geo-coordinates"
	case LCAFOpaqueKey:
		return "opaque-key"
	case LCAFNATTraversal:
		return "nat-traversal"
	case LCAFNonceLocator:
		return "nonce-locator"
	case LCAFMulticastInfo:
		return "multicast-info"
	case LCAFExplicitPath:
		return "elp"
	case LCAFSecurityKey:
		return "security-key"
	case LCAFSourceDest:
		return "source-dest"
	case LCAFReplicationList:
		return "rle"
	case LCAFJSON:
		return "json"
	case LCAFKeyValue:
		return "key-value"
	case LCAFEncapsulation:
		return "encapsulation-format"
	case LCAFVendorSpecific:
		return "vendor-specific"
	}
	return fmt.Sprintf("lcaf-%d", uint8(t))
}

// RawLCAF is an LCAF of a type that this package does not take apart.
type RawLCAF struct {
	Rsvd1, Flags uint8
	Type         LCAFType
	Rsvd2        uint8
	Body         []byte // at most 65535 octets
}

// LCAFType implements LCAF.
func (l *RawLCAF) LCAFType() LCAFType { return l.Type }

func (l *RawLCAF) decodeBody(b []byte) error {
	l.Body = append([]byte(nil), b...)
	return nil
}

func (l *RawLCAF) appendBody(b []byte) ([]byte, error) { return append(b, l.Body...), nil }

// String prints the type and the body in hexadecimal.
func (l *RawLCAF) text(int) string { return fmt.Sprintf("%s(%s)", l.Type, hex.EncodeToString(l.Body)) }

// Null is an LCAF without content (RFC 8060 §4).
type Null struct{}

// LCAFType implements LCAF.
func (*Null) LCAFType() LCAFType { return LCAFNull }

func (*Null) decodeBody([]byte) error             { return nil }
func (*Null) appendBody(b []byte) ([]byte, error) { return b, nil }
func (*Null) text(int) string                     { return "null" }
