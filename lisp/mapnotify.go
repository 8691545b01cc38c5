package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
)

// MapNotify confirms a Map-Register, or tells of a change when unsolicited
// (RFC 9301 §5.7).
//
//	 0                   1                   2                   3
//	|Type=4 |I|R|            Reserved               | Record Count  |
//	|                            Nonce (64)                         |
//	|    Key ID     | Algorithm ID  |  Authentication Data Length   |
//	|  Authentication Data                                          |
//	|  EID-Records                                                  |
//	|  xTR-ID (128), Site-ID (64)                        (if I = 1) |
type MapNotify struct {
	XTRIDPresent bool   // I: XTRID and SiteID follow the records (NAT draft §4.4)
	RTRAuth      bool   // R: an RTR's authentication record follows in Trailer (early NAT drafts, OOR)
	Reserved     uint32 // 18 bits, normally 0; see NotifyReservedI
	Nonce        Nonce  // that of the Map-Register
	Auth         Authentication
	Records      []EIDRecord
	XTRID        XTRID  // with XTRIDPresent
	SiteID       SiteID // with XTRIDPresent
	Trailer      []byte // octets behind the message, kept as they came; see Identity
}

// MapNotifyAck acknowledges an unsolicited Map-Notify by repeating its content
// under its own type and authentication (RFC 9301 §5.7). Convert a MapNotify to
// make one.
type MapNotifyAck MapNotify

// NotifyReservedI in MapNotify.Reserved is the I bit of a message with less than
// an xTR-ID and a Site-ID behind the records. RFC 9301 knows no such bit here: it
// is reserved, to be ignored, and a Map-Server that returns the flags of the
// Map-Register sets it for the P bit. It excludes XTRIDPresent.
const NotifyReservedI = 0x80000

const (
	mapNotify    = "Map-Notify"
	mapNotifyAck = "Map-Notify-Ack"
)

func (*MapNotify) isMessage()    {}
func (*MapNotifyAck) isMessage() {}

// Type returns TypeMapNotify.
func (*MapNotify) Type() Type { return TypeMapNotify }

// Type returns TypeMapNotifyAck.
func (*MapNotifyAck) Type() Type { return TypeMapNotifyAck }

// DecodeFromBytes implements Message. Auth.Data and Trailer alias b.
func (m *MapNotify) DecodeFromBytes(b []byte) error { return m.decode(TypeMapNotify, mapNotify, b) }

// DecodeFromBytes implements Message. Auth.Data and Trailer alias b.
func (m *MapNotifyAck) DecodeFromBytes(b []byte) error {
	return (*MapNotify)(m).decode(TypeMapNotifyAck, mapNotifyAck, b)
}

func (m *MapNotify) decode(t Type, name string, b []byte) error {
	r := reader{b: b, message: name}
	w := r.uint32("Type")
	if r.err == nil && Type(w>>28) != t {
		r.fail("Type", 0, ErrMalformed)
	}
	nonce := r.nonce()
	if r.err != nil {
		return r.err
	}
	*m = MapNotify{
		XTRIDPresent: w&0x08000000 != 0,
		RTRAuth:      w&0x04000000 != 0,
		Reserved:     w >> 8 & 0x3ffff,
		Nonce:        nonce,
		Auth:         r.authentication(),
		Records:      r.eidRecords(m.Records, int(w&0xff)),
	}
	switch {
	case m.XTRIDPresent && r.err == nil && len(b)-r.off < trailerLen:
		m.XTRIDPresent, m.Reserved = false, m.Reserved|NotifyReservedI
	case m.XTRIDPresent:
		m.XTRID, m.SiteID = r.identity()
	}
	m.Trailer = r.rest()
	return r.err
}

// UnmarshalBinary implements Message.
func (m *MapNotify) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// UnmarshalBinary implements Message.
func (m *MapNotifyAck) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message. It writes Auth as it stands; see AppendSigned.
func (m *MapNotify) AppendBinary(b []byte) ([]byte, error) {
	return m.append(TypeMapNotify, mapNotify, b)
}

// AppendBinary implements Message. It writes Auth as it stands; see AppendSigned.
func (m *MapNotifyAck) AppendBinary(b []byte) ([]byte, error) {
	return (*MapNotify)(m).append(TypeMapNotifyAck, mapNotifyAck, b)
}

func (m *MapNotify) append(t Type, name string, b []byte) ([]byte, error) {
	switch {
	case len(m.Records) > maxRecords:
		return b, encodeError(name, "Record Count", "%d", len(m.Records))
	case m.Reserved&^NotifyReservedI > 0x3ffff, m.Reserved&NotifyReservedI != 0 && m.XTRIDPresent:
		return b, encodeError(name, "Reserved", "%#x", m.Reserved)
	}
	w := uint32(t)<<28 | m.Reserved<<8 | uint32(len(m.Records)) |
		bit(m.XTRIDPresent, 0x08000000) | bit(m.RTRAuth, 0x04000000)
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Nonce))
	b, err := m.Auth.append(b, name)
	if err != nil {
		return b, err
	}
	if b, err = appendEIDRecords(b, name, m.Records); err != nil {
		return b, err
	}
	if m.XTRIDPresent {
		b = appendIdentity(b, m.XTRID, m.SiteID)
	}
	return append(b, m.Trailer...), nil
}

// MarshalBinary implements Message.
func (m *MapNotify) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// MarshalBinary implements Message.
func (m *MapNotifyAck) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// AppendSigned appends the message signed with key. Auth is not read: key
// supplies the Key ID, the algorithm and the length. m does not change.
func (m *MapNotify) AppendSigned(b []byte, key Key) ([]byte, error) {
	c := *m
	c.Auth = key.blank()
	return appendSigned(&c, b, key)
}

// AppendSigned appends the message signed with key. Auth is not read: key
// supplies the Key ID, the algorithm and the length. m does not change.
func (m *MapNotifyAck) AppendSigned(b []byte, key Key) ([]byte, error) {
	c := *m
	c.Auth = key.blank()
	return appendSigned(&c, b, key)
}

// Identity returns the xTR-ID and the Site-ID: those of the I bit or, because
// lispers.net copies them without setting it, exactly 24 octets behind the
// last record.
func (m *MapNotify) Identity() (x XTRID, s SiteID, ok bool) {
	if m.XTRIDPresent {
		return m.XTRID, m.SiteID, true
	}
	if len(m.Trailer) != trailerLen {
		return XTRID{}, 0, false
	}
	r := reader{b: m.Trailer}
	x, s = r.identity()
	return x, s, true
}

// Identity is that of MapNotify.
func (m *MapNotifyAck) Identity() (x XTRID, s SiteID, ok bool) { return (*MapNotify)(m).Identity() }

func (m *MapNotify) String() string    { return m.string(mapNotify) }
func (m *MapNotifyAck) String() string { return (*MapNotify)(m).string(mapNotifyAck) }

func (m *MapNotify) string(name string) string {
	var s strings.Builder
	s.WriteString(name)
	flags(&s, []flag{{m.RTRAuth, "rtr-auth"}})
	authString(&s, m.Nonce, &m.Auth)
	recordsString(&s, m.Records)
	if x, site, ok := m.Identity(); ok {
		fmt.Fprintf(&s, " xtr-id %s site-id %d", x, site)
	}
	return s.String()
}

// LogValue implements slog.LogValuer.
func (m *MapNotify) LogValue() slog.Value { return registerLogValue(mapNotify, m.Nonce, m.Records) }

// LogValue implements slog.LogValuer.
func (m *MapNotifyAck) LogValue() slog.Value {
	return registerLogValue(mapNotifyAck, m.Nonce, m.Records)
}
