package lisp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
)

// InfoRequest asks a Map-Server which address and port it sees, and which RTRs
// there are (draft-ermagan-lisp-nat-traversal §4.1).
//
//	 0                   1                   2                   3
//	|Type=7 |0|                   Reserved                          |
//	|                            Nonce (64)                         |
//	|    Key ID     | Algorithm ID  |  Authentication Data Length   |
//	|  Authentication Data                                          |
//	|                             TTL                               |
//	|   Reserved    | EID mask-len  |  EID-Prefix-AFI, EID-Prefix   |
//	|  AFI = 0                                                      |
//
// The draft has a Key ID of 16 bits; its key 1 reads as Key ID 0, Algorithm 1.
type InfoRequest struct {
	Reserved    uint32 // 27 bits, normally 0
	Nonce       Nonce
	Auth        Authentication
	TTL         uint32 // minutes
	EIDReserved uint8  // the octet before the mask-len, normally 0
	MaskLen     uint8  // 0..32 or 0..128
	EID         Address
	Host        Address // AFI 0; lispers.net puts its host name here (AFI 17)
	Trailer     []byte  // octets behind the message, kept as they came
}

// InfoReply answers an Info-Request (draft-ermagan-lisp-nat-traversal §4.2). It
// is laid out like one, with a NAT-Traversal LCAF (RFC 8060 §4.4) at the end.
type InfoReply struct {
	Reserved    uint32 // 27 bits, normally 0
	Nonce       Nonce  // that of the Info-Request
	Auth        Authentication
	TTL         uint32 // minutes for which the RTR list holds; OOR truncates it to 8 bits
	EIDReserved uint8  // the octet before the mask-len, normally 0
	MaskLen     uint8  // 0..32 or 0..128
	EID         Address
	NAT         Address // a NAT-Traversal LCAF, not checked when decoding; see Traversal
	Trailer     []byte  // octets behind the message, kept as they came
}

const (
	infoRequest = "Info-Request"
	infoReply   = "Info-Reply"
	infoR       = 0x08000000
)

func (*InfoRequest) isMessage() {}
func (*InfoReply) isMessage()   {}

// Type returns TypeInfo.
func (*InfoRequest) Type() Type { return TypeInfo }

// Type returns TypeInfo.
func (*InfoReply) Type() Type { return TypeInfo }

// DecodeFromBytes implements Message. Auth.Data and Trailer alias b.
func (m *InfoRequest) DecodeFromBytes(b []byte) error {
	i, err := decodeInfo(infoRequest, 0, b)
	*m = i
	return err
}

// DecodeFromBytes implements Message. Auth.Data and Trailer alias b.
func (m *InfoReply) DecodeFromBytes(b []byte) error {
	i, err := decodeInfo(infoReply, infoR, b)
	*m = InfoReply{i.Reserved, i.Nonce, i.Auth, i.TTL, i.EIDReserved, i.MaskLen, i.EID, i.Host, i.Trailer}
	return err
}

func (m *InfoReply) info() *InfoRequest {
	return &InfoRequest{m.Reserved, m.Nonce, m.Auth, m.TTL, m.EIDReserved, m.MaskLen, m.EID, m.NAT, m.Trailer}
}

func decodeInfo(name string, rBit uint32, b []byte) (InfoRequest, error) {
	r := reader{b: b, message: name}
	w := r.uint32("Type")
	if r.err == nil && (Type(w>>28) != TypeInfo || w&infoR != rBit) {
		r.fail("Type", 0, ErrMalformed)
	}
	m := InfoRequest{
		Reserved: w &^ 0xf0000000 &^ infoR,
		Nonce:    r.nonce(),
		Auth:     r.authentication(),
		TTL:      r.uint32("TTL"),
	}
	if head := r.take("EID mask-len", 2); head != nil {
		m.EIDReserved, m.MaskLen = head[0], head[1]
	}
	start := r.off
	r.address("EID-Prefix", &m.EID)
	r.checkMask("EID mask-len", start-1, m.MaskLen, m.EID)
	r.address("AFI", &m.Host)
	m.Trailer = r.rest()
	return m, r.err
}

// UnmarshalBinary implements Message.
func (m *InfoRequest) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// UnmarshalBinary implements Message.
func (m *InfoReply) UnmarshalBinary(b []byte) error { return unmarshal(m, b) }

// AppendBinary implements Message. It writes Auth as it stands; see AppendSigned.
func (m *InfoRequest) AppendBinary(b []byte) ([]byte, error) { return m.append(infoRequest, 0, b) }

// AppendBinary implements Message. It writes Auth as it stands; see AppendSigned.
func (m *InfoReply) AppendBinary(b []byte) ([]byte, error) {
	return m.info().append(infoReply, infoR, b)
}

func (m *InfoRequest) append(name string, rBit uint32, b []byte) ([]byte, error) {
	switch {
	case m.Reserved>>27 != 0:
		return b, encodeError(name, "Reserved", "%#x", m.Reserved)
	case int(m.MaskLen) > m.EID.maskBits():
		return b, encodeError(name, "EID mask-len", "%d for %s", m.MaskLen, m.EID)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(TypeInfo)<<28|rBit|m.Reserved)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Nonce))
	b, err := m.Auth.append(b, name)
	if err != nil {
		return b, err
	}
	b = binary.BigEndian.AppendUint32(b, m.TTL)
	b = append(b, m.EIDReserved, m.MaskLen)
	if b, err = m.EID.AppendBinary(b); err != nil {
		return b, err
	}
	if b, err = m.Host.AppendBinary(b); err != nil {
		return b, err
	}
	return append(b, m.Trailer...), nil
}

// MarshalBinary implements Message.
func (m *InfoRequest) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// MarshalBinary implements Message.
func (m *InfoReply) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// AppendSigned appends the message signed with key. Auth is not read: key
// supplies the Key ID, the algorithm and the length. m does not change.
func (m *InfoRequest) AppendSigned(b []byte, key Key) ([]byte, error) {
	c := *m
	c.Auth = key.blank()
	return appendSigned(&c, b, key)
}

// AppendSigned appends the message signed with key. Auth is not read: key
// supplies the Key ID, the algorithm and the length. m does not change.
func (m *InfoReply) AppendSigned(b []byte, key Key) ([]byte, error) {
	c := *m
	c.Auth = key.blank()
	return appendSigned(&c, b, key)
}

// Prefix is that of EIDRecord.
func (m *InfoRequest) Prefix() (iid uint32, p netip.Prefix, ok bool) { return m.EID.prefix(m.MaskLen) }

// Prefix is that of EIDRecord.
func (m *InfoReply) Prefix() (iid uint32, p netip.Prefix, ok bool) { return m.EID.prefix(m.MaskLen) }

// Traversal returns the content of the NAT-Traversal LCAF. lispers.net always
// writes the same LCAF Length, so when octets follow the LCAF they are taken as
// part of it if they can be.
func (m *InfoReply) Traversal() (*NATTraversal, error) {
	b, ok := m.NAT.lcaf()
	if !ok || LCAFType(b[4]) != LCAFNATTraversal {
		return nil, fmt.Errorf("lisp: %s: %s is no NAT-Traversal LCAF: %w", infoReply, m.NAT, ErrMalformed)
	}
	body := b[lcafHeaderLen:]
	if len(m.Trailer) > 0 {
		var n NATTraversal
		if n.decodeBody(slices.Concat(body, m.Trailer)) == nil {
			return &n, nil
		}
	}
	n := new(NATTraversal)
	if err := n.decodeBody(body); err != nil {
		return nil, err
	}
	return n, nil
}

func (m *InfoRequest) String() string {
	var s strings.Builder
	s.WriteString(infoRequest)
	m.string(&s)
	if !m.Host.IsZero() {
		fmt.Fprintf(&s, " host %s", m.Host)
	}
	return s.String()
}

func (m *InfoRequest) string(s *strings.Builder) {
	authString(s, m.Nonce, &m.Auth)
	fmt.Fprintf(s, " eid %s ttl %d", prefixString(m.EID, m.MaskLen), m.TTL)
}

func (m *InfoReply) String() string {
	var s strings.Builder
	s.WriteString(infoReply)
	m.info().string(&s)
	if n, err := m.Traversal(); err == nil {
		fmt.Fprintf(&s, " %s", n)
	} else {
		fmt.Fprintf(&s, " (%v)", err)
	}
	return s.String()
}

// LogValue implements slog.LogValuer.
func (m *InfoRequest) LogValue() slog.Value { return m.logValue(infoRequest) }

// LogValue implements slog.LogValuer.
func (m *InfoReply) LogValue() slog.Value { return m.info().logValue(infoReply) }

func (m *InfoRequest) logValue(name string) slog.Value {
	return slog.GroupValue(slog.String("type", name), slog.String("nonce", m.Nonce.String()),
		slog.String("eid", prefixString(m.EID, m.MaskLen)), slog.Uint64("ttl", uint64(m.TTL)))
}
