package lisp

import (
	"encoding/binary"
	"fmt"
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
