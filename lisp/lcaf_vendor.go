package lisp

import (
	"encoding/binary"
	"fmt"
)

// VendorSpecific is an address of a vendor's own form (RFC 9306 §4).
type VendorSpecific struct {
	OUI  uint32 // 24 bits, who says what Data means
	Data []byte
}

// LCAFType implements LCAF.
func (*VendorSpecific) LCAFType() LCAFType { return LCAFVendorSpecific }

func (l *VendorSpecific) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.OUI = r.uint32("Organizationally Unique Identifier") & 0xffffff
	l.Data = append([]byte(nil), r.rest()...)
	return r.err
}

func (l *VendorSpecific) appendBody(b []byte) ([]byte, error) {
	if l.OUI > 0xffffff {
		return b, lcafError(l, "Organizationally Unique Identifier", "%#x", l.OUI)
	}
	return append(binary.BigEndian.AppendUint32(b, l.OUI), l.Data...), nil
}

func (l *VendorSpecific) text(int) string {
	return fmt.Sprintf("vendor-specific(%02x-%02x-%02x %x)", l.OUI>>16, l.OUI>>8&0xff, l.OUI&0xff, l.Data)
}
