// Package virtio is the header that a TUN device with IFF_VNET_HDR puts before a
// packet: struct virtio_net_hdr of Linux, in the byte order of the machine. It
// says what a network card would do for the packet: finish a checksum, cut it
// into segments.
package virtio

import "encoding/binary"

// HeaderLen is the length of a Header in octets.
const HeaderLen = 10

// NeedsChecksum is a flag: the checksum at ChecksumStart + ChecksumOffset holds
// the sum of the pseudo-header, and that of what follows ChecksumStart has to be
// added.
const NeedsChecksum = 1

// The kinds of packets that are longer than the MTU.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDP   = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
)

// Header is struct virtio_net_hdr.
type Header struct {
	Flags, GSO                    uint8
	HeaderLen                     uint16 // of what each segment begins with; a hint
	SegmentSize                   uint16 // octets of payload
	ChecksumStart, ChecksumOffset uint16
}

// Get reads the Header at the start of b.
func Get(b []byte) Header {
	_ = b[HeaderLen-1]
	return Header{
		b[0], b[1], binary.NativeEndian.Uint16(b[2:]), binary.NativeEndian.Uint16(b[4:]),
		binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint16(b[8:]),
	}
}

// Put writes h to the start of b.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	b[0], b[1] = h.Flags, h.GSO
	binary.NativeEndian.PutUint16(b[2:], h.HeaderLen)
	binary.NativeEndian.PutUint16(b[4:], h.SegmentSize)
	binary.NativeEndian.PutUint16(b[6:], h.ChecksumStart)
	binary.NativeEndian.PutUint16(b[8:], h.ChecksumOffset)
}
