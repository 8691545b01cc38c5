package lisp

import (
	"encoding/binary"
	"fmt"
)

// InstanceID is an address within an instance, or with AFI 0 a range of
// instances (RFC 8060 §4.1). EIDAddress and Address.EID are shorter for the
// usual case.
type InstanceID struct {
	MaskLen uint8  // 0..32: how many of the high bits of IID count if Address is AFI 0
	IID     uint32 // the low 24 bits go into the data header
	Address Address
}

// LCAFType implements LCAF.
func (*InstanceID) LCAFType() LCAFType { return LCAFInstanceID }

func (l *InstanceID) getRsvd2() uint8  { return l.MaskLen }
func (l *InstanceID) setRsvd2(v uint8) { l.MaskLen = v }

func (l *InstanceID) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.IID = r.uint32("Instance ID")
	r.address("Address", &l.Address)
	return r.err
}

func (l *InstanceID) appendBody(b []byte) ([]byte, error) {
	return l.Address.AppendBinary(binary.BigEndian.AppendUint32(b, l.IID))
}

// String prints [iid]address, or the range as iid/mask-len.
func (l *InstanceID) text(depth int) string {
	if l.Address.IsZero() {
		return fmt.Sprintf("[%d/%d]", l.IID, l.MaskLen)
	}
	return fmt.Sprintf("[%d]%s", l.IID, l.Address.text(depth))
}

// ASNumber is an address in an autonomous system (RFC 8060 §4.2).
type ASNumber struct {
	ASN     uint32
	Address Address
}

// LCAFType implements LCAF.
func (*ASNumber) LCAFType() LCAFType { return LCAFASNumber }

func (l *ASNumber) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.ASN = r.uint32("AS Number")
	r.address("Address", &l.Address)
	return r.err
}

func (l *ASNumber) appendBody(b []byte) ([]byte, error) {
	return l.Address.AppendBinary(binary.BigEndian.AppendUint32(b, l.ASN))
}

func (l *ASNumber) text(depth int) string {
	return fmt.Sprintf("as%d(%s)", l.ASN, l.Address.text(depth))
}
