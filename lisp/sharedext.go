package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
)

// SharedExtension is the message type that experiments share (RFC 9304 §3).
//
//	 0                   1                   2                   3
//	|Type=15|       Sub-type        |  extension specific           |
type SharedExtension struct {
	SubType uint16 // 12 bits: 0..1023 by Standards Action, the rest first come, first served
	Data    []byte
}

const sharedExtension = "Shared-Extension"

func (*SharedExtension) isMessage() {}

// Type returns TypeSharedExtension.
func (*SharedExtension) Type() Type { return TypeSharedExtension }

// DecodeFromBytes implements Message. Data aliases b.
func (m *SharedExtension) DecodeFromBytes(b []byte) error {
	r := reader{b: b, message: sharedExtension}
	head := r.take("Sub-type", 2)
	if head == nil {
		return r.err
	}
	w := binary.BigEndian.Uint16(head)
	if Type(w>>12) != TypeSharedExtension {
		r.fail("Type", 0, ErrMalformed)
		return r.err
	}
	*m = SharedExtension{SubType: w & 0x0fff, Data: r.rest()}
	return nil
}

// UnmarshalBinary implements Message.
func (m *SharedExtension) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message.
func (m *SharedExtension) AppendBinary(b []byte) ([]byte, error) {
	if m.SubType > 0x0fff {
		return b, encodeError(sharedExtension, "Sub-type", "%d", m.SubType)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(TypeSharedExtension)<<12|m.SubType)
	return append(b, m.Data...), nil
}

// MarshalBinary implements Message.
func (m *SharedExtension) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

func (m *SharedExtension) String() string {
	return fmt.Sprintf("%s sub-type %d, %d octets", sharedExtension, m.SubType, len(m.Data))
}

// LogValue implements slog.LogValuer.
func (m *SharedExtension) LogValue() slog.Value {
	return slog.GroupValue(slog.String("type", sharedExtension), slog.Int("sub_type", int(m.SubType)),
		slog.Int("octets", len(m.Data)))
}
