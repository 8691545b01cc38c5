package lisp

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// NonceLocator is a locator with a nonce for the data plane (RFC 8060 §5.3).
type NonceLocator struct {
	Nonce   uint32 // 24 bits
	Address Address
}

// LCAFType implements LCAF.
func (*NonceLocator) LCAFType() LCAFType { return LCAFNonceLocator }

func (l *NonceLocator) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.Nonce = r.uint32("Nonce") & 0xffffff
	r.address("Address", &l.Address)
	return r.err
}

func (l *NonceLocator) appendBody(b []byte) ([]byte, error) {
	if l.Nonce > 0xffffff {
		return b, lcafError(l, "Nonce", "%#x", l.Nonce)
	}
	return l.Address.AppendBinary(binary.BigEndian.AppendUint32(b, l.Nonce))
}

func (l *NonceLocator) text(depth int) string {
	return fmt.Sprintf("nonce-locator(%s nonce 0x%06x)", l.Address.text(depth), l.Nonce)
}

// EncapsulationFormat is a locator with the encapsulations that it accepts (RFC 8060 §5.6).
type EncapsulationFormat struct {
	Formats EncapsulationBits
	Address Address
}

// EncapsulationBits is the set of encapsulations in an EncapsulationFormat.
type EncapsulationBits uint32

// Encapsulations.
const (
	EncapsulationLISP     EncapsulationBits = 1 << iota // L: layer 3 LISP (RFC 9300)
	EncapsulationLISPL2                                 // l: layer 2 LISP
	EncapsulationVXLAN                                  // V
	EncapsulationVXLANGPE                               // v
	EncapsulationNVGRE                                  // N
	EncapsulationGeneve                                 // G
	EncapsulationGUE                                    // U
)

// LCAFType implements LCAF.
func (*EncapsulationFormat) LCAFType() LCAFType { return LCAFEncapsulation }

func (l *EncapsulationFormat) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	l.Formats = EncapsulationBits(r.uint32("Encapsulation Format") & 0x7f)
	r.address("Address", &l.Address)
	return r.err
}

func (l *EncapsulationFormat) appendBody(b []byte) ([]byte, error) {
	if l.Formats > 0x7f {
		return b, lcafError(l, "Encapsulation Format", "%#x", uint32(l.Formats))
	}
	return l.Address.AppendBinary(binary.BigEndian.AppendUint32(b, uint32(l.Formats)))
}

func (l *EncapsulationFormat) text(depth int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "encapsulation-format(%s", l.Address.text(depth))
	for i, name := range [...]string{"lisp", "lisp-l2", "vxlan", "vxlan-gpe", "nvgre", "geneve", "gue"} {
		flags(&s, []flag{{l.Formats>>i&1 != 0, name}})
	}
	s.WriteByte(')')
	return s.String()
}
