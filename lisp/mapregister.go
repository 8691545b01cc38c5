package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
)

// MapRegister tells a Map-Server the mappings of a site (RFC 9301 §5.6).
//
//	 0                   1                   2                   3
//	|Type=3 |P|S|I|R|      Reserved       |E|T|a|R|M| Record Count  |
//	|                            Nonce (64)                         |
//	|    Key ID     | Algorithm ID  |  Authentication Data Length   |
//	|  Authentication Data                                          |
//	|  EID-Records                                                  |
//	|  xTR-ID (128), Site-ID (64)                        (if I = 1) |
type MapRegister struct {
	ProxyReply      bool   // P: the Map-Server is to answer Map-Requests itself
	SecurityCapable bool   // S: the ETR understands LISP-SEC (RFC 9303)
	XTRIDPresent    bool   // I: XTRID and SiteID follow the records
	RTR             bool   // bit 7: built for an RTR, in early NAT drafts and OOR; else reserved
	Reserved        uint16 // 11 bits, normally 0
	EIDNotify       bool   // E: from a first-hop router that discovered the EID to an xTR of its site; lispers.net: refresh
	UseTTL          bool   // T: the registration times out by the Record TTL, not after 3 minutes
	Merge           bool   // a: merge the RLOC-Records of all xTRs that register the EID
	MobileNode      bool   // R: reserved in RFC 9301; OOR and lispers.net mean a mobile node
	WantMapNotify   bool   // M: answer with a Map-Notify
	Nonce           Nonce  // grows with each Map-Register; old senders put 0 or a random value
	Auth            Authentication
	Records         []EIDRecord
	XTRID           XTRID  // with XTRIDPresent
	SiteID          SiteID // with XTRIDPresent
	Trailer         []byte // octets behind the message, kept as they came
}

// Authentication is the authentication data of a Map-Register, Map-Notify or
// Map-Notify-Ack (RFC 9301 §5.6). Senders of RFC 6833 and before have one Key ID
// of 16 bits here: their Key ID 1 reads as Key ID 0, Algorithm 1.
type Authentication struct {
	KeyID     uint8
	Algorithm Algorithm
	Data      []byte // at most 65535 octets, any number is decoded
}

const (
	mapRegister = "Map-Register"
	authOffset  = 16 // of the authentication data in a message that has any
	trailerLen  = 24 // xTR-ID and Site-ID
)

func (*MapRegister) isMessage() {}

// Type returns TypeMapRegister.
func (*MapRegister) Type() Type { return TypeMapRegister }

// DecodeFromBytes implements Message. Auth.Data and Trailer alias b.
func (m *MapRegister) DecodeFromBytes(b []byte) error {
	r := reader{b: b, message: mapRegister}
	w := r.uint32("Type")
	if r.err == nil && Type(w>>28) != TypeMapRegister {
		r.fail("Type", 0, ErrMalformed)
	}
	nonce := r.nonce()
	if r.err != nil {
		return r.err
	}
	*m = MapRegister{
		ProxyReply:      w&0x08000000 != 0,
		SecurityCapable: w&0x04000000 != 0,
		XTRIDPresent:    w&0x02000000 != 0,
		RTR:             w&0x01000000 != 0,
		Reserved:        uint16(w>>13) & 0x7ff,
		EIDNotify:       w&0x00001000 != 0,
		UseTTL:          w&0x00000800 != 0,
		Merge:           w&0x00000400 != 0,
		MobileNode:      w&0x00000200 != 0,
		WantMapNotify:   w&0x00000100 != 0,
		Nonce:           nonce,
		Auth:            r.authentication(),
		Records:         r.eidRecords(m.Records, int(w&0xff)),
	}
	if m.XTRIDPresent {
		m.XTRID, m.SiteID = r.identity()
	}
	m.Trailer = r.rest()
	return r.err
}

// authentication reads Key ID, Algorithm ID, length and data.
func (r *reader) authentication() Authentication {
	w := r.uint32("Authentication Data Length")
	a := Authentication{KeyID: uint8(w >> 24), Algorithm: Algorithm(w >> 16)}
	a.Data = r.take("Authentication Data", int(w&0xffff))
	return a
}

// identity reads the xTR-ID and the Site-ID behind the records.
func (r *reader) identity() (XTRID, SiteID) {
	b := r.take("xTR-ID", trailerLen)
	if b == nil {
		return XTRID{}, 0
	}
	return XTRID(b[:16]), SiteID(binary.BigEndian.Uint64(b[16:]))
}

func appendIdentity(b []byte, x XTRID, s SiteID) []byte {
	return binary.BigEndian.AppendUint64(append(b, x[:]...), uint64(s))
}

func (a *Authentication) append(b []byte, message string) ([]byte, error) {
	if len(a.Data) > 0xffff {
		return b, encodeError(message, "Authentication Data Length", "%d", len(a.Data))
	}
	b = append(b, a.KeyID, byte(a.Algorithm))
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.Data)))
	return append(b, a.Data...), nil
}

// UnmarshalBinary implements Message.
func (m *MapRegister) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message. It writes Auth as it stands; see AppendSigned.
func (m *MapRegister) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case len(m.Records) > maxRecords:
		return b, encodeError(mapRegister, "Record Count", "%d", len(m.Records))
	case m.Reserved > 0x7ff:
		return b, encodeError(mapRegister, "Reserved", "%#x", m.Reserved)
	}
	w := uint32(TypeMapRegister)<<28 | uint32(m.Reserved)<<13 | uint32(len(m.Records)) |
		bit(m.ProxyReply, 0x08000000) | bit(m.SecurityCapable, 0x04000000) |
		bit(m.XTRIDPresent, 0x02000000) | bit(m.RTR, 0x01000000) |
		bit(m.EIDNotify, 0x00001000) | bit(m.UseTTL, 0x00000800) | bit(m.Merge, 0x00000400) |
		bit(m.MobileNode, 0x00000200) | bit(m.WantMapNotify, 0x00000100)
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Nonce))
	b, err := m.Auth.append(b, mapRegister)
	if err != nil {
		return b, err
	}
	if b, err = appendEIDRecords(b, mapRegister, m.Records); err != nil {
		return b, err
	}
	if m.XTRIDPresent {
		b = appendIdentity(b, m.XTRID, m.SiteID)
	}
	return append(b, m.Trailer...), nil
}

// MarshalBinary implements Message.
func (m *MapRegister) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// AppendSigned appends the message signed with key. Auth is not read: key
// supplies the Key ID, the algorithm and the length. m does not change.
func (m *MapRegister) AppendSigned(b []byte, key Key) ([]byte, error) {
	c := *m
	c.Auth = key.blank()
	return appendSigned(&c, b, key)
}

func (m *MapRegister) String() string {
	var s strings.Builder
	s.WriteString(mapRegister)
	flags(&s, []flag{
		{m.ProxyReply, "proxy-reply"},
		{m.SecurityCapable, "security"},
		{m.RTR, "rtr"},
		{m.EIDNotify, "eid-notify"},
		{m.UseTTL, "use-ttl"},
		{m.Merge, "merge"},
		{m.MobileNode, "mobile-node"},
		{m.WantMapNotify, "want-map-notify"},
	})
	authString(&s, m.Nonce, &m.Auth)
	recordsString(&s, m.Records)
	if m.XTRIDPresent {
		fmt.Fprintf(&s, " xtr-id %s site-id %d", m.XTRID, m.SiteID)
	}
	return s.String()
}

func authString(s *strings.Builder, n Nonce, a *Authentication) {
	fmt.Fprintf(s, " nonce %s key-id %d %s/%d", n, a.KeyID, a.Algorithm, len(a.Data))
}

// LogValue implements slog.LogValuer.
func (m *MapRegister) LogValue() slog.Value {
	return registerLogValue(mapRegister, m.Nonce, m.Records)
}

func registerLogValue(message string, n Nonce, records []EIDRecord) slog.Value {
	attrs := []slog.Attr{
		slog.String("type", message), slog.String("nonce", n.String()), slog.Int("records", len(records)),
	}
	if len(records) > 0 {
		attrs = append(attrs, slog.String("record", records[0].String()))
	}
	return slog.GroupValue(attrs...)
}
