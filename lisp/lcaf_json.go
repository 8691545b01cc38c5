package lisp

import (
	"encoding/binary"
	"fmt"
)

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
