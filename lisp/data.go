package lisp

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// DataHeaderLen is the length of the LISP header of a data packet in octets.
const DataHeaderLen = 8

// DataHeader is the LISP header between the UDP header and the inner packet of
// a data packet (RFC 9300 §5.3). It is a comparable value that holds the eight
// octets as they stand on the wire; the zero value is the plain header.
//
//	 0                   1                   2                   3
//	|N|L|E|V|I|R|K|K|  Nonce, or two Map-Versions, or Next Protocol |
//	|  Locator-Status-Bits, or Instance ID (24) and 8 of them       |
//
// The With methods return a changed copy and never a combination that the RFC
// forbids: each clears the bits that exclude it.
type DataHeader struct{ hi, lo uint32 }

// Flags of the data header (RFC 9300 §5.3).
const (
	dataN   = 0x80000000 // nonce present
	dataL   = 0x40000000 // Locator-Status-Bits present
	dataE   = 0x20000000 // echo the nonce
	dataV   = 0x10000000 // Map-Versions present
	dataI   = 0x08000000 // Instance ID present
	dataP   = 0x04000000 // reserved, or Next Protocol present (RFC 9305 §3)
	dataKK  = 0x03000000 // key in use (RFC 8061)
	dataLow = 0x00ffffff // nonce, Map-Versions, Next Protocol
)

// InstanceIDControl is the Instance ID of data packets that carry control
// messages (NAT draft §4.5).
const InstanceIDControl = 0xffffff

// ParseDataHeader reads the header at the start of b. The only error is
// ErrTruncated, bare: this is the per-packet path.
func ParseDataHeader(b []byte) (DataHeader, error) {
	if len(b) < DataHeaderLen {
		return DataHeader{}, ErrTruncated
	}
	return DataHeader{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}, nil
}

// PutDataHeader writes h to the first eight octets of b, which must have them.
func PutDataHeader(b []byte, h DataHeader) {
	_ = b[DataHeaderLen-1]
	binary.BigEndian.PutUint32(b, h.hi)
	binary.BigEndian.PutUint32(b[4:], h.lo)
}

// Flags returns the first octet as it stands: N L E V I R K K, N highest.
func (h DataHeader) Flags() uint8 { return uint8(h.hi >> 24) }

// InstanceID returns the Instance ID (24 bits) if the I bit is set.
func (h DataHeader) InstanceID() (uint32, bool) { return h.lo >> 8, h.hi&dataI != 0 }

// WithInstanceID sets the I bit and the low 24 bits of iid. Of the
// Locator-Status-Bits the low 8 remain.
func (h DataHeader) WithInstanceID(iid uint32) DataHeader {
	h.hi |= dataI
	h.lo = iid<<8 | h.lo&0xff
	return h
}

// Nonce returns the nonce (24 bits) if the N bit is set, also when the V bit is
// set too, which no sender may do (RFC 9300 §5.3).
func (h DataHeader) Nonce() (uint32, bool) { return h.hi & dataLow, h.hi&dataN != 0 }

// EchoRequest reports whether the receiver is asked to echo the nonce. The E bit
// means nothing without the N bit.
func (h DataHeader) EchoRequest() bool { return h.hi&(dataN|dataE) == dataN|dataE }

// WithNonce sets the N bit and the low 24 bits of nonce, and asks for an echo if
// echo is set. Map-Versions and Next Protocol go.
func (h DataHeader) WithNonce(nonce uint32, echo bool) DataHeader {
	h.hi = h.hi&^(dataV|dataP|dataE|dataLow) | dataN | nonce&dataLow | bit(echo, dataE)
	return h
}

// MapVersions returns the source and the destination Map-Version (12 bits each,
// RFC 9302) if they are present: V bit set, N bit clear.
func (h DataHeader) MapVersions() (source, destination uint16, ok bool) {
	return uint16(h.hi >> 12 & 0xfff), uint16(h.hi & 0xfff), h.hi&(dataN|dataV) == dataV
}

// WithMapVersions sets the V bit and the low 12 bits of both versions. Nonce and
// Next Protocol go. A destination of 0 is for nobody to send (RFC 9302 §7.1).
func (h DataHeader) WithMapVersions(source, destination uint16) DataHeader {
	h.hi = h.hi&^(dataN|dataE|dataP|dataLow) | dataV | uint32(source&0xfff)<<12 | uint32(destination&0xfff)
	return h
}

// LSBs returns the Locator-Status-Bits if the L bit is set: bit i is the locator
// with ordinal i. There are 32 of them, 8 beside an Instance ID.
func (h DataHeader) LSBs() (uint32, bool) {
	if h.hi&dataI != 0 {
		return h.lo & 0xff, h.hi&dataL != 0
	}
	return h.lo, h.hi&dataL != 0
}

// WithLSBs sets the L bit and the Locator-Status-Bits, the low 8 of them beside
// an Instance ID.
func (h DataHeader) WithLSBs(lsbs uint32) DataHeader {
	h.hi |= dataL
	if h.hi&dataI != 0 {
		h.lo = h.lo&^0xff | lsbs&0xff
	} else {
		h.lo = lsbs
	}
	return h
}

// KeyID returns the KK bits: 0 when the payload is not encrypted, else which of
// the keys of RFC 8061 encrypts it.
func (h DataHeader) KeyID() uint8 { return uint8(h.hi >> 24 & 3) }

// NextProtocol returns what follows the header if the P bit is set (RFC 9305).
// The bit is reserved in RFC 9300, where it is ignored: ask only about packets
// from a peer that is known to do LISP-GPE. N, E and V mean nothing beside it.
func (h DataHeader) NextProtocol() (NextProtocol, bool) { return NextProtocol(h.hi), h.hi&dataP != 0 }

// WithNextProtocol sets the P bit and what follows the header. Nonce and
// Map-Versions go. Only a peer that is known to do LISP-GPE understands it.
func (h DataHeader) WithNextProtocol(p NextProtocol) DataHeader {
	h.hi = h.hi&^(dataN|dataE|dataV|dataLow) | dataP | uint32(p)
	return h
}

// String prints what is present.
func (h DataHeader) String() string {
	var s strings.Builder
	s.WriteString("LISP")
	if p, ok := h.NextProtocol(); ok {
		fmt.Fprintf(&s, " next-protocol %s", p)
	} else if n, ok := h.Nonce(); ok {
		fmt.Fprintf(&s, " nonce 0x%06x", n)
		flags(&s, []flag{{h.EchoRequest(), "echo"}})
	} else if src, dst, ok := h.MapVersions(); ok {
		fmt.Fprintf(&s, " map-versions %d %d", src, dst)
	}
	if l, ok := h.LSBs(); ok {
		fmt.Fprintf(&s, " lsbs 0x%x", l)
	}
	if iid, ok := h.InstanceID(); ok {
		fmt.Fprintf(&s, " iid %d", iid)
	}
	if k := h.KeyID(); k != 0 {
		fmt.Fprintf(&s, " key %d", k)
	}
	return s.String()
}
