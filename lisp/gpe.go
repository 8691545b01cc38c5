package lisp

import (
	"encoding/binary"
	"fmt"
)

// NextProtocol says what follows a LISP-GPE, a shim or a VXLAN-GPE header (RFC 9305 §3).
type NextProtocol uint8

// Next protocols. 0x7e and 0x7f are experimental, 0x80 to 0xfd shim headers,
// 0xfe and 0xff experimental shim headers.
const (
	NextIPv4     NextProtocol = 1
	NextIPv6     NextProtocol = 2
	NextEthernet NextProtocol = 3
	NextNSH      NextProtocol = 4
)

// IsShim reports whether p is a header of its own, before the payload.
func (p NextProtocol) IsShim() bool { return p >= 0x80 }

// String returns the name in the IANA registry.
func (p NextProtocol) String() string {
	switch p {
	case NextIPv4:
		return "IPv4"
	case NextIPv6:
		return "IPv6"
	case NextEthernet:
		return "Ethernet"
	case NextNSH:
		return "NSH"
	}
	if p.IsShim() {
		return fmt.Sprintf("shim 0x%02x", uint8(p))
	}
	return fmt.Sprintf("0x%02x", uint8(p))
}

// ShimHeader is a header between a LISP-GPE header and the payload (RFC 9305 §3).
//
//	 0                   1                   2                   3
//	|     Type      |    Length     |   Reserved    | Next Protocol |
//	|  data                                                         |
type ShimHeader struct {
	Type     uint8
	Reserved uint8 // normally 0
	Next     NextProtocol
	Data     []byte // a multiple of 4 octets, at most 1020
}

const shimFixed = 4

// ParseShimHeader reads the shim header at the start of b and returns it with
// the number of octets that it takes. Data aliases b. Call it as long as Next
// is a shim: each takes at least 4 octets. The error is ErrTruncated, bare.
func ParseShimHeader(b []byte) (ShimHeader, int, error) {
	if len(b) < shimFixed {
		return ShimHeader{}, 0, ErrTruncated
	}
	n := shimFixed + int(b[1])*4
	if len(b) < n {
		return ShimHeader{}, 0, ErrTruncated
	}
	return ShimHeader{b[0], b[2], NextProtocol(b[3]), b[shimFixed:n:n]}, n, nil
}

// AppendBinary appends the header.
func (h ShimHeader) AppendBinary(b []byte) ([]byte, error) {
	if len(h.Data)%4 != 0 || len(h.Data) > 0xff*4 {
		return b, encodeError("shim header", "Length", "%d octets", len(h.Data))
	}
	return append(append(b, h.Type, byte(len(h.Data)/4), h.Reserved, byte(h.Next)), h.Data...), nil
}

// VXLANGPEPort is the UDP port of VXLAN-GPE.
const VXLANGPEPort = 4790

// VXLANGPEHeader is the header of a VXLAN-GPE packet (draft-ietf-nvo3-vxlan-gpe),
// which OOR can send in place of a LISP header. It is a comparable value that
// holds the eight octets as they stand on the wire.
//
//	 0                   1                   2                   3
//	|R|R|Ver|I|P|B|O|          Reserved             | Next Protocol |
//	|  VXLAN Network Identifier (24)                |   Reserved    |
type VXLANGPEHeader struct{ hi, lo uint32 }

const (
	gpeVersion = 0x30000000
	gpeI       = 0x08000000
	gpeP       = 0x04000000
	gpeB       = 0x02000000
	gpeO       = 0x01000000
)

// NewVXLANGPEHeader returns a header of version 0 with the I and P bits, the low
// 24 bits of vni and what follows it.
func NewVXLANGPEHeader(vni uint32, next NextProtocol) VXLANGPEHeader {
	return VXLANGPEHeader{gpeI | gpeP | uint32(next), vni << 8}
}

// ParseVXLANGPEHeader reads the header at the start of b, which takes
// DataHeaderLen octets. The error is bare: ErrTruncated, or ErrUnsupported for
// another version.
func ParseVXLANGPEHeader(b []byte) (VXLANGPEHeader, error) {
	if len(b) < DataHeaderLen {
		return VXLANGPEHeader{}, ErrTruncated
	}
	h := VXLANGPEHeader{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	if h.hi&gpeVersion != 0 {
		return VXLANGPEHeader{}, ErrUnsupported
	}
	return h, nil
}

// PutVXLANGPEHeader writes h to the first eight octets of b, which must have them.
func PutVXLANGPEHeader(b []byte, h VXLANGPEHeader) {
	_ = b[DataHeaderLen-1]
	binary.BigEndian.PutUint32(b, h.hi)
	binary.BigEndian.PutUint32(b[4:], h.lo)
}

// VNI returns the network identifier (24 bits), which is the Instance ID, if the
// I bit is set.
func (h VXLANGPEHeader) VNI() (uint32, bool) { return h.lo >> 8, h.hi&gpeI != 0 }

// NextProtocol returns what follows the header if the P bit is set; without it
// an Ethernet frame follows, as in VXLAN.
func (h VXLANGPEHeader) NextProtocol() NextProtocol {
	if h.hi&gpeP == 0 {
		return NextEthernet
	}
	return NextProtocol(h.hi)
}

// OAM reports whether the O bit says that the payload is for operation and
// maintenance, not a user packet.
func (h VXLANGPEHeader) OAM() bool { return h.hi&gpeO != 0 }

// Replicated reports whether the B bit says that the ingress replicated the packet.
func (h VXLANGPEHeader) Replicated() bool { return h.hi&gpeB != 0 }

// String prints what is present.
func (h VXLANGPEHeader) String() string {
	vni, ok := h.VNI()
	if !ok {
		return fmt.Sprintf("VXLAN-GPE next-protocol %s", h.NextProtocol())
	}
	return fmt.Sprintf("VXLAN-GPE vni %d next-protocol %s", vni, h.NextProtocol())
}
