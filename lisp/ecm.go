package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
)

// EncapsulatedControl is the Encapsulated Control Message (ECM): an IP packet
// with a control message in it (RFC 9301 §5.8).
//
//	 0                   1                   2                   3
//	|Type=8 |S|D|E|M| |R|N|            Reserved                     |
//	|  Authentication Data                               (if S = 1) |
//	|  IPv4 or IPv6 header, UDP header, control message             |
//
// The S bit is set exactly when Security is not empty. R and N stand where OOR
// has them; the NAT draft leaves their place open.
type EncapsulatedControl struct {
	DDT      bool   // D: sent by a DDT node (RFC 8111 §5), Map-Referrals are welcome
	ToETR    bool   // E: from a Map-Server to an ETR (RFC 9301 §12.6)
	ToMS     bool   // M: to a Map-Server (RFC 9301 §12.6)
	RTR      bool   // R: an RTR is to process it (NAT draft §4.4)
	Relayed  bool   // N: an RTR relayed it (NAT draft §4.4)
	Reserved uint32 // the other 22 bits at the places they have in bits 8..31, normally 0
	// Security is the authentication data: AD Type and what belongs to it, whole;
	// nil without. Where data of an unknown AD Type ends cannot be told, so it
	// takes all octets and Packet is empty.
	Security []byte
	Packet   []byte // the inner IP packet and whatever octets follow it
}

// Types of authentication data in an ECM.
const (
	ADTypeLISPSEC = 1 // RFC 9303 §6.1
	ADTypeRTR     = 2 // NAT draft §4.4
)

const (
	ecm            = "ECM"
	ecmReservedAll = 0x00ffffff &^ 0x00600000
)

func (*EncapsulatedControl) isMessage() {}

// Type returns TypeEncapsulatedControl.
func (*EncapsulatedControl) Type() Type { return TypeEncapsulatedControl }

// DecodeFromBytes implements Message. Security and Packet alias b. The inner
// packet is not looked at: see Inner.
func (m *EncapsulatedControl) DecodeFromBytes(b []byte) error {
	r := reader{b: b, message: ecm}
	w := r.uint32("Type")
	if r.err == nil && Type(w>>28) != TypeEncapsulatedControl {
		r.fail("Type", 0, ErrMalformed)
	}
	if r.err != nil {
		return r.err
	}
	*m = EncapsulatedControl{
		DDT:      w&0x04000000 != 0,
		ToETR:    w&0x02000000 != 0,
		ToMS:     w&0x01000000 != 0,
		RTR:      w&0x00400000 != 0,
		Relayed:  w&0x00200000 != 0,
		Reserved: w & ecmReservedAll,
	}
	if w&0x08000000 != 0 {
		n, err := securityLen(b[r.off:])
		if err != nil {
			r.fail("Authentication Data", r.off, err)
		}
		m.Security = r.take("Authentication Data", n)
	}
	m.Packet = r.rest()
	return r.err
}

// securityLen returns how many octets the authentication data at the start of b
// takes: all of them for an unknown AD Type, which cannot be delimited.
func securityLen(b []byte) (int, error) {
	switch {
	case len(b) == 0:
		return 0, ErrTruncated
	case !knownADType(b[0]):
		return len(b), nil
	case len(b) < 8:
		return 0, ErrTruncated
	}
	if b[0] == ADTypeRTR {
		return 8 + int(binary.BigEndian.Uint16(b[6:])), nil
	}
	// OTK Length counts preamble and key, or also the four octets before
	// them (RFC 9303 figure 1 can be read both ways): 24 or 28.
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n == 28 {
		n -= 4
	}
	n += 8
	if len(b) < n+2 {
		return 0, ErrTruncated
	}
	// EID-AD Length counts itself and the KDF ID behind it.
	eidAD := int(binary.BigEndian.Uint16(b[n:]))
	if eidAD < 4 {
		return 0, fmt.Errorf("EID-AD Length %d: %w", eidAD, ErrMalformed)
	}
	return n + eidAD, nil
}

func knownADType(t uint8) bool { return t == ADTypeLISPSEC || t == ADTypeRTR }

// UnmarshalBinary implements Message.
func (m *EncapsulatedControl) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message.
func (m *EncapsulatedControl) AppendBinary(b []byte) ([]byte, error) {
	if m.Reserved&^uint32(ecmReservedAll) != 0 {
		return b, encodeError(ecm, "Reserved", "%#x", m.Reserved)
	}
	if len(m.Security) > 0 {
		if n, err := securityLen(m.Security); err != nil || n != len(m.Security) {
			return b, encodeError(ecm, "Authentication Data", "%d octets do not delimit themselves", len(m.Security))
		}
		if !knownADType(m.Security[0]) && len(m.Packet) > 0 {
			return b, encodeError(ecm, "AD Type", "%d cannot be followed by a packet", m.Security[0])
		}
	}
	w := uint32(TypeEncapsulatedControl)<<28 | m.Reserved |
		bit(len(m.Security) > 0, 0x08000000) | bit(m.DDT, 0x04000000) |
		bit(m.ToETR, 0x02000000) | bit(m.ToMS, 0x01000000) |
		bit(m.RTR, 0x00400000) | bit(m.Relayed, 0x00200000)
	b = binary.BigEndian.AppendUint32(b, w)
	b = append(b, m.Security...)
	return append(b, m.Packet...), nil
}

// MarshalBinary implements Message.
func (m *EncapsulatedControl) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

func (m *EncapsulatedControl) String() string {
	var s strings.Builder
	s.WriteString(ecm)
	flags(&s, []flag{
		{len(m.Security) > 0, "security"},
		{m.DDT, "ddt"},
		{m.ToETR, "to-etr"},
		{m.ToMS, "to-ms"},
		{m.RTR, "rtr"},
		{m.Relayed, "relayed"},
	})
	in, err := m.Inner()
	if err != nil {
		fmt.Fprintf(&s, " %d octets (%v)", len(m.Packet), err)
		return s.String()
	}
	fmt.Fprintf(&s, " %s > %s", in.Source, in.Destination)
	// One level: an ECM inside an ECM is named, not followed.
	if t := TypeOf(in.Payload); t == TypeEncapsulatedControl {
		fmt.Fprintf(&s, ": %s", t)
	} else if inner, err := Parse(in.Payload); err != nil {
		fmt.Fprintf(&s, ": %v", err)
	} else {
		fmt.Fprintf(&s, ": %s", inner)
	}
	return s.String()
}

// LogValue implements slog.LogValuer.
func (m *EncapsulatedControl) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("type", ecm)}
	if in, err := m.Inner(); err != nil {
		attrs = append(attrs, slog.String("err", err.Error()))
	} else {
		attrs = append(attrs, slog.String("src", in.Source.String()), slog.String("dst", in.Destination.String()),
			slog.String("inner", TypeOf(in.Payload).String()))
	}
	return slog.GroupValue(attrs...)
}
