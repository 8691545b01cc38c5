package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
)

// ReferralAction is the ACT field of a Map-Referral record (RFC 8111 §6.4). Range 0..7.
type ReferralAction uint8

// Actions of a Map-Referral record.
const (
	ReferralNode             ReferralAction = 0 // NODE-REFERRAL: to DDT nodes
	ReferralMapServer        ReferralAction = 1 // MS-REFERRAL: to Map-Servers
	ReferralMapServerACK     ReferralAction = 2 // MS-ACK: forwarded to the ETR
	ReferralNotRegistered    ReferralAction = 3 // MS-NOT-REGISTERED
	ReferralDelegationHole   ReferralAction = 4 // DELEGATION-HOLE
	ReferralNotAuthoritative ReferralAction = 5 // NOT-AUTHORITATIVE
)

// String returns the name that RFC 8111 uses.
func (a ReferralAction) String() string {
	switch a {
	case ReferralNode:
		return "node-referral"
	case ReferralMapServer:
		return "ms-referral"
	case ReferralMapServerACK:
		return "ms-ack"
	case ReferralNotRegistered:
		return "ms-not-registered"
	case ReferralDelegationHole:
		return "delegation-hole"
	case ReferralNotAuthoritative:
		return "not-authoritative"
	}
	return fmt.Sprintf("action-%d", uint8(a))
}

// MapReferral is the answer of a DDT node (RFC 8111 §6.4).
//
//	 0                   1                   2                   3
//	|Type=6 |                Reserved               | Record Count  |
//	|                            Nonce (64)                         |
//	|  Records                                                      |
type MapReferral struct {
	Reserved uint32 // 20 bits, normally 0
	Nonce    Nonce  // that of the Map-Request
	Records  []ReferralRecord
	Trailer  []byte // octets behind the message, kept as they came
}

// ReferralRecord is one record of a Map-Referral. It is an EID-Record with the
// I bit, SigCnt signature sections, and the RLOCs of the nodes referred to.
type ReferralRecord struct {
	TTL           uint32 // minutes
	MaskLen       uint8  // 0..32 or 0..128
	Action        ReferralAction
	Authoritative bool   // A
	Incomplete    bool   // I: the list of referrals is not complete
	Reserved      uint16 // 11 bits, normally 0
	MapVersion    uint16 // 0..4095
	EID           Address
	Referrals     []RLOCRecord        // at most 255
	Signatures    []ReferralSignature // at most 15
}

// Prefix is that of EIDRecord.
func (r *ReferralRecord) Prefix() (iid uint32, p netip.Prefix, ok bool) {
	return r.EID.prefix(r.MaskLen)
}

// String prints the prefix, the action and the nodes referred to.
func (r *ReferralRecord) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s ttl %d %s", prefixString(r.EID, r.MaskLen), r.TTL, r.Action)
	flags(&s, []flag{{r.Authoritative, "authoritative"}, {r.Incomplete, "incomplete"}})
	for i := range r.Referrals {
		fmt.Fprintf(&s, " %s", &r.Referrals[i])
	}
	if n := len(r.Signatures); n > 0 {
		fmt.Fprintf(&s, " signatures %d", n)
	}
	return s.String()
}

const (
	mapReferral    = "Map-Referral"
	maxSignatures  = 15 // SigCnt is four bits
	referralI      = 0x0800
	referralA      = 0x1000
	signatureFixed = 20
)

func (*MapReferral) isMessage() {}

// Type returns TypeMapReferral.
func (*MapReferral) Type() Type { return TypeMapReferral }

// DecodeFromBytes implements Message. Signatures and Trailer alias b.
func (m *MapReferral) DecodeFromBytes(b []byte) error {
	r := reader{b: b, message: mapReferral}
	w := r.uint32("Type")
	if r.err == nil && Type(w>>28) != TypeMapReferral {
		r.fail("Type", 0, ErrMalformed)
	}
	nonce := r.nonce()
	if r.err != nil {
		return r.err
	}
	records := m.Records[:0]
	for range w & 0xff {
		records = grow(records)
		r.referralRecord(&records[len(records)-1])
		if r.err != nil {
			break
		}
	}
	*m = MapReferral{Reserved: w >> 8 & 0xfffff, Nonce: nonce, Records: records, Trailer: r.rest()}
	return r.err
}

func (r *reader) referralRecord(e *ReferralRecord) {
	start := r.off
	b := r.take("Record", 10)
	if b == nil {
		return
	}
	w := binary.BigEndian.Uint16(b[6:])
	v := binary.BigEndian.Uint16(b[8:])
	referrals, signatures := e.Referrals[:0], e.Signatures[:0]
	*e = ReferralRecord{
		TTL:           binary.BigEndian.Uint32(b),
		MaskLen:       b[5],
		Action:        ReferralAction(w >> 13),
		Authoritative: w&referralA != 0,
		Incomplete:    w&referralI != 0,
		Reserved:      w & 0x07ff,
		MapVersion:    v & 0x0fff,
	}
	r.address("EID-Prefix", &e.EID)
	r.checkMask("EID mask-len", start+5, e.MaskLen, e.EID)
	for range int(b[4]) {
		if r.err != nil {
			return
		}
		referrals = grow(referrals)
		r.rlocRecord(&referrals[len(referrals)-1])
	}
	for range int(v >> 12) {
		if r.err != nil {
			return
		}
		signatures = grow(signatures)
		r.signature(&signatures[len(signatures)-1])
	}
	e.Referrals, e.Signatures = referrals, signatures
}

// UnmarshalBinary implements Message.
func (m *MapReferral) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message.
func (m *MapReferral) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case len(m.Records) > maxRecords:
		return b, encodeError(mapReferral, "Record Count", "%d", len(m.Records))
	case m.Reserved > 0xfffff:
		return b, encodeError(mapReferral, "Reserved", "%#x", m.Reserved)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(TypeMapReferral)<<28|m.Reserved<<8|uint32(len(m.Records)))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Nonce))
	var err error
	for i := range m.Records {
		if b, err = m.Records[i].AppendBinary(b); err != nil {
			return b, err
		}
	}
	return append(b, m.Trailer...), nil
}

// AppendBinary appends the record with its signature sections.
func (r *ReferralRecord) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case len(r.Referrals) > maxRecords:
		return b, encodeError(mapReferral, "Referral Count", "%d", len(r.Referrals))
	case len(r.Signatures) > maxSignatures:
		return b, encodeError(mapReferral, "SigCnt", "%d", len(r.Signatures))
	case int(r.MaskLen) > r.EID.maskBits():
		return b, encodeError(mapReferral, "EID mask-len", "%d for %s", r.MaskLen, r.EID)
	case r.Action > 7:
		return b, encodeError(mapReferral, "ACT", "%d", r.Action)
	case r.Reserved > 0x07ff:
		return b, encodeError(mapReferral, "Reserved", "%#x", r.Reserved)
	case r.MapVersion > 0x0fff:
		return b, encodeError(mapReferral, "Map-Version Number", "%d", r.MapVersion)
	}
	w := uint32(r.Action)<<13 | uint32(r.Reserved) | bit(r.Authoritative, referralA) | bit(r.Incomplete, referralI)
	b = binary.BigEndian.AppendUint32(b, r.TTL)
	b = append(b, byte(len(r.Referrals)), r.MaskLen)
	b = binary.BigEndian.AppendUint16(b, uint16(w))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Signatures))<<12|r.MapVersion)
	b, err := r.EID.AppendBinary(b)
	if err != nil {
		return b, err
	}
	for i := range r.Referrals {
		if b, err = r.Referrals[i].append(b, mapReferral); err != nil {
			return b, err
		}
	}
	for i := range r.Signatures {
		if b, err = r.Signatures[i].append(b); err != nil {
			return b, err
		}
	}
	return b, nil
}

// MarshalBinary implements Message.
func (m *MapReferral) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

func (m *MapReferral) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s nonce %s", mapReferral, m.Nonce)
	for i := range m.Records {
		fmt.Fprintf(&s, "%s%s", listSep(i, " records "), &m.Records[i])
	}
	return s.String()
}

// LogValue implements slog.LogValuer.
func (m *MapReferral) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("type", mapReferral), slog.String("nonce", m.Nonce.String())}
	if len(m.Records) > 0 {
		attrs = append(attrs, slog.String("record", m.Records[0].String()))
	}
	return slog.GroupValue(attrs...)
}
