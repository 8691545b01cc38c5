package lisp

import (
	"encoding/binary"
	"fmt"
)

// SecurityKey is an address with public keys (RFC 8060 §4.7; RFC 8061 §6 for
// the keys of the data plane). Its String does not print them.
type SecurityKey struct {
	Algorithm uint8 // Key Algorithm; with RFC 8061 the cipher suite
	Revoke    bool  // R: the keys are revoked; RFC 8061 sends 0 and ignores it
	Keys      [][]byte
	Address   Address
}

// LCAFType implements LCAF.
func (*SecurityKey) LCAFType() LCAFType { return LCAFSecurityKey }

func (l *SecurityKey) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	w := r.uint32("Key Count")
	l.Algorithm, l.Revoke, l.Keys = uint8(w>>8), w&1 != 0, nil
	for range w >> 24 {
		n := r.take("Key Length", 2)
		if n == nil {
			break
		}
		key := r.take("Key Material", int(binary.BigEndian.Uint16(n)))
		l.Keys = append(l.Keys, append([]byte(nil), key...))
	}
	r.address("Locator Address", &l.Address)
	return r.err
}

func (l *SecurityKey) appendBody(b []byte) ([]byte, error) {
	if len(l.Keys) > 0xff {
		return b, lcafError(l, "Key Count", "%d", len(l.Keys))
	}
	b = append(b, byte(len(l.Keys)), 0, l.Algorithm, byte(bit(l.Revoke, 1)))
	for _, k := range l.Keys {
		if len(k) > 0xffff {
			return b, lcafError(l, "Key Length", "%d", len(k))
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(k)))
		b = append(b, k...)
	}
	return l.Address.AppendBinary(b)
}

func (l *SecurityKey) text(depth int) string {
	return fmt.Sprintf("security-key(%s algorithm %d, %d keys)", l.Address.text(depth), l.Algorithm, len(l.Keys))
}

// OpaqueKey is an EID of any form (RFC 8060 §5.1).
type OpaqueKey struct {
	FieldNum uint8  // how many sub-fields the key has
	Wildcard uint16 // bit n, from the highest: sub-field n is wild
	Key      []byte
}

// LCAFType implements LCAF.
func (*OpaqueKey) LCAFType() LCAFType { return LCAFOpaqueKey }

func (l *OpaqueKey) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	head := r.take("Key Field Num", 3)
	if head == nil {
		return r.err
	}
	l.FieldNum, l.Wildcard = head[0], binary.BigEndian.Uint16(head[1:])
	l.Key = append([]byte(nil), r.rest()...)
	return nil
}

func (l *OpaqueKey) appendBody(b []byte) ([]byte, error) {
	return append(binary.BigEndian.AppendUint16(append(b, l.FieldNum), l.Wildcard), l.Key...), nil
}

func (l *OpaqueKey) text(int) string {
	return fmt.Sprintf("opaque-key(%x, %d fields, wild 0x%04x)", l.Key, l.FieldNum, l.Wildcard)
}
