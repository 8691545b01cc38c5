package lisp

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// ApplicationData is an address for some applications (RFC 8060 §5.2).
type ApplicationData struct {
	TOS                           uint32 // 24 bits: TOS, traffic class or flow label
	Protocol                      uint8  // IP protocol
	LocalPortLow, LocalPortHigh   uint16
	RemotePortLow, RemotePortHigh uint16
	Address                       Address
}

// LCAFType implements LCAF.
func (*ApplicationData) LCAFType() LCAFType { return LCAFApplicationData }

func (l *ApplicationData) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	head := r.take("IP TOS", 12)
	if head == nil {
		return r.err
	}
	w := binary.BigEndian.Uint32(head)
	l.TOS, l.Protocol = w>>8, uint8(w)
	l.LocalPortLow, l.LocalPortHigh = binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
	l.RemotePortLow, l.RemotePortHigh = binary.BigEndian.Uint16(head[8:]), binary.BigEndian.Uint16(head[10:])
	r.address("Address", &l.Address)
	return r.err
}

func (l *ApplicationData) appendBody(b []byte) ([]byte, error) {
	if l.TOS > 0xffffff {
		return b, lcafError(l, "IP TOS", "%#x", l.TOS)
	}
	b = binary.BigEndian.AppendUint32(b, l.TOS<<8|uint32(l.Protocol))
	for _, p := range [...]uint16{l.LocalPortLow, l.LocalPortHigh, l.RemotePortLow, l.RemotePortHigh} {
		b = binary.BigEndian.AppendUint16(b, p)
	}
	return l.Address.AppendBinary(b)
}

func (l *ApplicationData) text(depth int) string {
	return fmt.Sprintf("application-data(%s tos 0x%x protocol %d local %d-%d remote %d-%d)", l.Address.text(depth), l.TOS,
		l.Protocol, l.LocalPortLow, l.LocalPortHigh, l.RemotePortLow, l.RemotePortHigh)
}

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

// JSON is an address with a JSON text (RFC 8060 §5.4).
type JSON struct {
	Binary  bool // B: the text is in a binary encoding
	Text    []byte
	Address Address
}

// LCAFType implements LCAF.
func (*JSON) LCAFType() LCAFType { return LCAFJSON }

func (l *JSON) getRsvd2() uint8  { return uint8(bit(l.Binary, 1)) }
func (l *JSON) setRsvd2(v uint8) { l.Binary = v&1 != 0 }

func (l *JSON) decodeBody(b []byte) error {
	r := lcafReader(l, b)
	n := r.take("JSON length", 2)
	if n == nil {
		return r.err
	}
	l.Text = append([]byte(nil), r.take("JSON binary/text", int(binary.BigEndian.Uint16(n)))...)
	r.address("Optional Address", &l.Address)
	return r.err
}

func (l *JSON) appendBody(b []byte) ([]byte, error) {
	if len(l.Text) > 0xffff {
		return b, lcafError(l, "JSON length", "%d", len(l.Text))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(l.Text)))
	return l.Address.AppendBinary(append(b, l.Text...))
}

func (l *JSON) text(depth int) string {
	if l.Binary {
		return fmt.Sprintf("json(%s %x)", l.Address.text(depth), l.Text)
	}
	return fmt.Sprintf("json(%s %q)", l.Address.text(depth), l.Text)
}

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
