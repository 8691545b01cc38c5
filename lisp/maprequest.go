package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
)

// MapRequest asks for the mapping of EIDs (RFC 9301 §5.2).
//
//	 0                   1                   2                   3
//	|Type=1 |A|M|P|S|p|s|R|R|  Rsvd   |L|D|   IRC   | Record Count  |
//	|                            Nonce (64)                         |
//	|  Source-EID-AFI, Source EID Address                           |
//	|  ITR-RLOC-AFI, ITR-RLOC Address               (IRC + 1 times) |
//	|  Reserved, EID mask-len, EID-Prefix-AFI, EID-Prefix  (count)  |
//	|  EID-Record                                        (if M = 1) |
//
// The M bit is set exactly when MapData is there.
type MapRequest struct {
	Authoritative bool  // A: the site is to answer, not the mapping system for it
	Probe         bool  // P: RLOC-probe; never encapsulated, never to the mapping system
	SMR           bool  // S: Solicit-Map-Request, ask again for the prefix (RFC 9301 §6.1)
	PITR          bool  // p: the sender is a Proxy-ITR
	SMRInvoked    bool  // s: sent because of an SMR
	LocalXTR      bool  // L: tells the site's other xTRs that the sender is one of them
	DontMapReply  bool  // D: an SMR that wants no Map-Reply
	Reserved      uint8 // the 7 bits R R Rsvd between s and L, normally 0; see the constants
	Nonce         Nonce
	SourceEID     Address // who asks; AFI 0 for a refresh or a probe
	ITRRLOCs      []Address
	Records       []RequestRecord // a sender puts one, a receiver takes any number
	MapData       *EIDRecord      // the sender's own mapping, nil without (M bit)
	Trailer       []byte          // octets behind the message, kept as they came
}

// Bits of MapRequest.Reserved that some peers set.
const (
	RequestReservedMobileNode = 0x40 // lispers.net: the sender is a mobile node
	RequestReservedXTRID      = 0x20 // RFC 9437: xTR-ID and Site-ID follow in Trailer
	RequestReservedNAT        = 0x01 // lispers.net: N, answer with all locators, NAT or not
)

// RequestRecord is one EID-Prefix that a Map-Request asks for (RFC 9301 §5.2).
type RequestRecord struct {
	Reserved uint8 // normally 0; 0x80 subscribes (RFC 9437)
	MaskLen  uint8 // 0..32 or 0..128
	EID      Address
}

// Prefix returns the EID-Prefix as it stands there: the host bits are not
// cleared and an IPv4-mapped address stays IPv6. It is not ok for an EID other
// than IPv4 or IPv6, plain or in an Instance-ID LCAF.
func (r *RequestRecord) Prefix() (iid uint32, p netip.Prefix, ok bool) {
	return r.EID.prefix(r.MaskLen)
}

// String prints <eid>/<mask-len>.
func (r *RequestRecord) String() string { return prefixString(r.EID, r.MaskLen) }

func (r *reader) requestRecord(rec *RequestRecord) {
	head := r.take("EID mask-len", 2)
	if head == nil {
		return
	}
	rec.Reserved, rec.MaskLen = head[0], head[1]
	start := r.off
	r.address("EID-Prefix", &rec.EID)
	r.checkMask("EID mask-len", start-1, rec.MaskLen, rec.EID)
}

func (r *RequestRecord) append(b []byte, message string) ([]byte, error) {
	if int(r.MaskLen) > r.EID.maskBits() {
		return b, encodeError(message, "EID mask-len", "%d for %s", r.MaskLen, r.EID)
	}
	return r.EID.AppendBinary(append(b, r.Reserved, r.MaskLen))
}

const mapRequest = "Map-Request"

func (*MapRequest) isMessage() {}

// Type returns TypeMapRequest.
func (*MapRequest) Type() Type { return TypeMapRequest }

// DecodeFromBytes implements Message. Trailer aliases b.
func (m *MapRequest) DecodeFromBytes(b []byte) error {
	r := reader{b: b, message: mapRequest}
	w := r.uint32("Type")
	if r.err == nil && Type(w>>28) != TypeMapRequest {
		r.fail("Type", 0, ErrMalformed)
	}
	nonce := r.nonce()
	if r.err != nil {
		return r.err
	}
	itrs, records := m.ITRRLOCs[:0], m.Records[:0]
	*m = MapRequest{
		Authoritative: w&0x08000000 != 0,
		Probe:         w&0x02000000 != 0,
		SMR:           w&0x01000000 != 0,
		PITR:          w&0x00800000 != 0,
		SMRInvoked:    w&0x00400000 != 0,
		Reserved:      uint8(w>>15) & 0x7f,
		LocalXTR:      w&0x00004000 != 0,
		DontMapReply:  w&0x00002000 != 0,
		Nonce:         nonce,
	}
	r.address("Source EID Address", &m.SourceEID)
	for range 1 + w>>8&0x1f {
		if r.err != nil {
			return r.err
		}
		itrs = grow(itrs)
		r.address("ITR-RLOC Address", &itrs[len(itrs)-1])
	}
	for range w & 0xff {
		if r.err != nil {
			return r.err
		}
		records = grow(records)
		r.requestRecord(&records[len(records)-1])
	}
	m.ITRRLOCs, m.Records = itrs, records
	if w&0x04000000 != 0 && r.err == nil {
		m.MapData = new(EIDRecord)
		r.eidRecord(m.MapData)
	}
	m.Trailer = r.rest()
	return r.err
}

// UnmarshalBinary implements Message.
func (m *MapRequest) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message. It needs 1 to 32 ITR-RLOCs and at most 255 records.
func (m *MapRequest) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case len(m.ITRRLOCs) < 1 || len(m.ITRRLOCs) > maxITRRLOCs:
		return b, encodeError(mapRequest, "IRC", "%d ITR-RLOCs", len(m.ITRRLOCs))
	case len(m.Records) > maxRecords:
		return b, encodeError(mapRequest, "Record Count", "%d", len(m.Records))
	case m.Reserved > 0x7f:
		return b, encodeError(mapRequest, "Reserved", "%#x", m.Reserved)
	}
	w := uint32(TypeMapRequest)<<28 | uint32(m.Reserved)<<15 |
		uint32(len(m.ITRRLOCs)-1)<<8 | uint32(len(m.Records)) |
		bit(m.Authoritative, 0x08000000) | bit(m.MapData != nil, 0x04000000) |
		bit(m.Probe, 0x02000000) | bit(m.SMR, 0x01000000) |
		bit(m.PITR, 0x00800000) | bit(m.SMRInvoked, 0x00400000) |
		bit(m.LocalXTR, 0x00004000) | bit(m.DontMapReply, 0x00002000)
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Nonce))
	b, err := m.SourceEID.AppendBinary(b)
	if err != nil {
		return b, err
	}
	for _, a := range m.ITRRLOCs {
		if b, err = a.AppendBinary(b); err != nil {
			return b, err
		}
	}
	for i := range m.Records {
		if b, err = m.Records[i].append(b, mapRequest); err != nil {
			return b, err
		}
	}
	if m.MapData != nil {
		if b, err = m.MapData.append(b, mapRequest); err != nil {
			return b, err
		}
	}
	return append(b, m.Trailer...), nil
}

// MarshalBinary implements Message.
func (m *MapRequest) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

func (m *MapRequest) String() string {
	var s strings.Builder
	s.WriteString(mapRequest)
	flags(&s, []flag{
		{m.Authoritative, "authoritative"},
		{m.Probe, "probe"},
		{m.SMR, "smr"},
		{m.PITR, "pitr"},
		{m.SMRInvoked, "smr-invoked"},
		{m.LocalXTR, "local-xtr"},
		{m.DontMapReply, "dont-map-reply"},
	})
	fmt.Fprintf(&s, " nonce %s source %s", m.Nonce, m.SourceEID)
	for i, a := range m.ITRRLOCs {
		fmt.Fprintf(&s, "%s%s", listSep(i, " itr-rlocs "), a)
	}
	for i := range m.Records {
		fmt.Fprintf(&s, "%s%s", listSep(i, " records "), &m.Records[i])
	}
	if m.MapData != nil {
		fmt.Fprintf(&s, " map-data %s", m.MapData)
	}
	return s.String()
}

// LogValue implements slog.LogValuer.
func (m *MapRequest) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("type", mapRequest), slog.String("nonce", m.Nonce.String()),
		slog.Bool("probe", m.Probe), slog.Bool("smr", m.SMR),
	}
	if len(m.Records) > 0 {
		attrs = append(attrs, slog.String("eid", m.Records[0].String()))
	}
	return slog.GroupValue(attrs...)
}

func bit(set bool, mask uint32) uint32 {
	if set {
		return mask
	}
	return 0
}

func listSep(i int, first string) string {
	if i == 0 {
		return first
	}
	return ", "
}

type flag struct {
	set  bool
	name string
}

func flags(s *strings.Builder, fs []flag) {
	for _, f := range fs {
		if f.set {
			s.WriteByte(' ')
			s.WriteString(f.name)
		}
	}
}
