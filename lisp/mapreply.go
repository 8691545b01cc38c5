package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
)

// MapReply answers a Map-Request (RFC 9301 §5.4).
//
//	 0                   1                   2                   3
//	|Type=2 |P|E|S|          Reserved               | Record Count  |
//	|                            Nonce (64)                         |
//	|  EID-Records                                                  |
//	|  Authentication Data                               (if S = 1) |
type MapReply struct {
	Probe     bool   // P: answers an RLOC-probe
	EchoNonce bool   // E: the site of the sender echoes data-plane nonces
	Security  bool   // S: LISP-SEC authentication data follows the records (RFC 9303)
	Reserved  uint32 // 17 bits, normally 0; lispers.net puts the received TTL in bits 8..15
	Nonce     Nonce  // that of the Map-Request
	Records   []EIDRecord
	Trailer   []byte // octets behind the records: the authentication data if Security
}

const mapReply = "Map-Reply"

func (*MapReply) isMessage() {}

// Type returns TypeMapReply.
func (*MapReply) Type() Type { return TypeMapReply }

// DecodeFromBytes implements Message. Trailer aliases b.
func (m *MapReply) DecodeFromBytes(b []byte) error {
	r := reader{b: b, message: mapReply}
	w := r.uint32("Type")
	if r.err == nil && Type(w>>28) != TypeMapReply {
		r.fail("Type", 0, ErrMalformed)
	}
	nonce := r.nonce()
	if r.err != nil {
		return r.err
	}
	*m = MapReply{
		Probe:     w&0x08000000 != 0,
		EchoNonce: w&0x04000000 != 0,
		Security:  w&0x02000000 != 0,
		Reserved:  w >> 8 & 0x1ffff,
		Nonce:     nonce,
		Records:   r.eidRecords(m.Records, int(w&0xff)),
	}
	m.Trailer = r.rest()
	return r.err
}

// UnmarshalBinary implements Message.
func (m *MapReply) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message.
func (m *MapReply) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case len(m.Records) > maxRecords:
		return b, encodeError(mapReply, "Record Count", "%d", len(m.Records))
	case m.Reserved > 0x1ffff:
		return b, encodeError(mapReply, "Reserved", "%#x", m.Reserved)
	}
	w := uint32(TypeMapReply)<<28 | m.Reserved<<8 | uint32(len(m.Records)) |
		bit(m.Probe, 0x08000000) | bit(m.EchoNonce, 0x04000000) | bit(m.Security, 0x02000000)
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Nonce))
	b, err := appendEIDRecords(b, mapReply, m.Records)
	if err != nil {
		return b, err
	}
	return append(b, m.Trailer...), nil
}

// MarshalBinary implements Message.
func (m *MapReply) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

func (m *MapReply) String() string {
	var s strings.Builder
	s.WriteString(mapReply)
	flags(&s, []flag{{m.Probe, "probe"}, {m.EchoNonce, "echo-nonce"}, {m.Security, "security"}})
	fmt.Fprintf(&s, " nonce %s", m.Nonce)
	recordsString(&s, m.Records)
	return s.String()
}

// LogValue implements slog.LogValuer.
func (m *MapReply) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("type", mapReply), slog.String("nonce", m.Nonce.String()), slog.Bool("probe", m.Probe),
	}
	if len(m.Records) > 0 {
		attrs = append(attrs, slog.String("record", m.Records[0].String()))
	}
	return slog.GroupValue(attrs...)
}
