package lisp

import (
	"encoding"
	"fmt"
	"log/slog"
	"slices"
)

// Message is a control message: one of the message types of this package, and
// nothing else.
//
// DecodeFromBytes replaces the whole content of its receiver, reuses the slices
// that it finds there (also those inside records), and may keep slices of b:
// use the message only as long as b does not change. After an error the content
// is undefined. UnmarshalBinary does the same with a copy of its input. A
// message that was decoded encodes to the octets it came from.
//
// Messages are plain data. They may be read, encoded and logged concurrently,
// but not while one goroutine decodes into them.
type Message interface {
	// Type returns the message type.
	Type() Type
	// DecodeFromBytes decodes one message that fills b.
	DecodeFromBytes(b []byte) error

	encoding.BinaryAppender
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
	fmt.Stringer
	slog.LogValuer

	isMessage()
}

// TypeOf returns the message type of b, zero if b is empty.
func TypeOf(b []byte) Type {
	if len(b) == 0 {
		return 0
	}
	return Type(b[0] >> 4)
}

// Parse decodes the control message that fills b. The message may keep slices
// of b. A message of a type that has no Go type here becomes a Raw. The error
// is a *DecodeError.
func Parse(b []byte) (Message, error) {
	var m Message
	switch TypeOf(b) {
	case TypeMapRequest:
		m = new(MapRequest)
	case TypeMapReply:
		m = new(MapReply)
	case TypeMapRegister:
		m = new(MapRegister)
	case TypeMapNotify:
		m = new(MapNotify)
	case TypeMapNotifyAck:
		m = new(MapNotifyAck)
	case TypeMapReferral:
		m = new(MapReferral)
	case TypeInfo:
		if b[0]&0x08 != 0 {
			m = new(InfoReply)
		} else {
			m = new(InfoRequest)
		}
	case TypeEncapsulatedControl:
		m = new(EncapsulatedControl)
	case TypeSharedExtension:
		m = new(SharedExtension)
	default:
		m = new(Raw)
	}
	if err := m.DecodeFromBytes(b); err != nil {
		return nil, err
	}
	return m, nil
}

// Raw is a message of a type that this package does not take apart.
type Raw struct {
	Data []byte // the whole message, at least one octet
}

func (*Raw) isMessage() {}

// Type returns the message type in the first octet.
func (m *Raw) Type() Type { return TypeOf(m.Data) }

// DecodeFromBytes implements Message. Data aliases b.
func (m *Raw) DecodeFromBytes(b []byte) error {
	if len(b) == 0 {
		return &DecodeError{Message: "message", Field: "Type", Err: ErrTruncated}
	}
	m.Data = slices.Clip(b)
	return nil
}

// UnmarshalBinary implements Message.
func (m *Raw) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message.
func (m *Raw) AppendBinary(b []byte) ([]byte, error) {
	if len(m.Data) == 0 {
		return b, encodeError("message", "Type", "no octet")
	}
	return append(b, m.Data...), nil
}

// MarshalBinary implements Message.
func (m *Raw) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

func (m *Raw) String() string { return fmt.Sprintf("%s, %d octets", m.Type(), len(m.Data)) }

// LogValue implements slog.LogValuer.
func (m *Raw) LogValue() slog.Value {
	return slog.GroupValue(slog.String("type", m.Type().String()), slog.Int("octets", len(m.Data)))
}

func unmarshal(m Message, b []byte) error {
	return m.DecodeFromBytes(append([]byte(nil), b...))
}

// String returns the name that the RFCs use.
func (t Type) String() string {
	switch t {
	case TypeMapRequest:
		return "Map-Request"
	case TypeMapReply:
		return "Map-Reply"
	case TypeMapRegister:
		return "Map-Register"
	case TypeMapNotify:
		return "Map-Notify"
	case TypeMapNotifyAck:
		return "Map-Notify-Ack"
	case TypeMapReferral:
		return "Map-Referral"
	case TypeInfo:
		return "Info"
	case TypeEncapsulatedControl:
		return "ECM"
	case TypeSharedExtension:
		return "Shared-Extension"
	}
	return fmt.Sprintf("type-%d", uint8(t))
}
