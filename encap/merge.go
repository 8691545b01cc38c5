package encap

import (
	"bytes"
	"encoding/binary"

	"github.com/xtrkit/xtrkit/internal/virtio"
)

// maxMerged is how many packets become one; the kernel takes no more from UDP.
const maxMerged = 64

// maxRefused ends the super-packets of a protocol to a device: kernels before 6.2
// take none of UDP.
const maxRefused = 8

// merger makes one super-packet of packets of a flow that arrive one after the
// other, for a VirtioDevice: the host then takes them up at once, too. The
// packets stay in the receive buffer until flush.
type merger struct {
	to      *overlay // nil if there is none
	packets [][]byte
	octets  int  // of all packets
	done    bool // nothing can follow
	relayed bool // maybe it is not for the host behind the device

	// Of the first packet.
	p      inner
	t      transport
	header int // octets before the payload
	size   int // octets of payload

	payload   int    // octets, of all packets
	checksums uint64 // sum of all payloads, as the checksums of TCP say

	refused [2]int // super-packets of TCP and of UDP since the device took one

	parts [][]byte
	head  [virtio.HeaderLen + ipv6HeaderLen + 60]byte
}

// start takes the first packet.
func (m *merger) start(o *overlay, b []byte, p *inner, t *transport) {
	m.to, m.octets, m.relayed = o, len(b), o.own.Load().forwards
	m.packets = append(m.packets[:0], b)
	m.done = true
	if t == nil {
		return
	}
	header, ok := mergeable(b, p, t)
	if !ok {
		return
	}
	m.p, m.t, m.header, m.size = *p, *t, header, len(b)-header
	m.payload = m.size
	m.done = t.proto == protoTCP && pushed(b, t) || *m.refusals(t.proto) >= maxRefused
}

// refusals returns the count for TCP or UDP.
func (m *merger) refusals(proto uint8) *int {
	if proto == protoTCP {
		return &m.refused[0]
	}
	return &m.refused[1]
}

// mergeable says whether a packet has the form of those that are merged, and how
// long its headers are.
func mergeable(b []byte, p *inner, t *transport) (header int, ok bool) {
	const flagACK, flagPSH = 0x10, 0x08
	if t.at != p.headerLen || !p.v6 && p.headerLen != ipv4HeaderLen {
		return 0, false
	}
	if t.proto == protoTCP {
		header = t.at + int(b[t.at+12]>>4)*4
		ok = header >= t.at+20 && b[t.at+13]&^flagPSH == flagACK
	} else {
		header = t.at + udpHeaderLen
		// 0 says that there is no checksum; the merged one would have one.
		ok = binary.BigEndian.Uint16(b[t.checksum:]) != 0 && int(binary.BigEndian.Uint16(b[t.at+4:])) == p.length-t.at
	}
	return header, ok && len(b) > header
}

func pushed(b []byte, t *transport) bool { return b[t.at+13]&0x08 != 0 }

// add takes a packet that follows the others of its flow without a gap.
func (m *merger) add(o *overlay, b []byte, p *inner, t *transport) bool {
	if m.to != o || m.done || m.t.proto != t.proto || m.p.v6 != p.v6 || len(m.packets) == maxMerged {
		return false
	}
	header, ok := mergeable(b, p, t)
	n := len(b) - header
	if !ok || header != m.header || n > m.size || m.header+m.payload+n > 0xffff || !m.follows(b, p) {
		return false
	}
	if t.proto == protoTCP && !m.relayed {
		// The host verifies the checksum of the whole. So that it is right if
		// all are, and wrong if one is wrong, it is made of theirs.
		if len(m.packets) == 1 {
			m.checksums = uint64(payloadSum(m.packets[0], &m.t, m.header))
		}
		c := payloadSum(b, t, header)
		if m.payload%2 == 1 {
			c = c<<8 | c>>8
		}
		m.checksums += uint64(c)
	} else {
		// The host computes the checksum of each segment anew, or none.
		if len(m.packets) == 1 && !m.t.valid(m.packets[0]) {
			m.done = true
			return false
		}
		if !t.valid(b) {
			return false
		}
	}
	m.packets = append(m.packets, b)
	m.octets += len(b)
	m.payload += n
	m.done = n < m.size || t.proto == protoTCP && pushed(b, t)
	return true
}

// follows compares a packet with the first one.
func (m *merger) follows(b []byte, p *inner) bool {
	a, at := m.packets[0], m.t.at
	if p.v6 {
		if !bytes.Equal(a[:4], b[:4]) || !bytes.Equal(a[6:ipv6HeaderLen], b[6:ipv6HeaderLen]) {
			return false
		}
	} else {
		id := binary.BigEndian.Uint16(b[4:]) - binary.BigEndian.Uint16(a[4:])
		if id != uint16(len(m.packets)) && p.fragment&flagDF == 0 { // of atomic datagrams it means nothing (RFC 6864 §4)
			return false
		}
		if !bytes.Equal(a[:2], b[:2]) || !bytes.Equal(a[6:10], b[6:10]) || !bytes.Equal(a[12:ipv4HeaderLen], b[12:ipv4HeaderLen]) {
			return false
		}
	}
	if m.t.proto == protoUDP {
		return bytes.Equal(a[at:at+4], b[at:at+4])
	}
	// Ports, acknowledgment and header length; window; urgent pointer and options.
	return bytes.Equal(a[at:at+4], b[at:at+4]) && bytes.Equal(a[at+8:at+13], b[at+8:at+13]) &&
		bytes.Equal(a[at+14:at+16], b[at+14:at+16]) && bytes.Equal(a[at+18:m.header], b[at+18:m.header]) &&
		binary.BigEndian.Uint32(b[at+4:])-binary.BigEndian.Uint32(a[at+4:]) == uint32(m.payload)
}

// payloadSum is the sum of the payload if the checksum of the packet is right.
func payloadSum(b []byte, t *transport, header int) uint16 {
	return ^fold(sum(t.pseudo, b[t.at:header]))
}

// valid reports whether the checksum of the packet b is right.
func (t *transport) valid(b []byte) bool { return fold(sum(t.pseudo, b[t.at:])) == 0xffff }

// flush writes what there is to a device. It returns how many packets the device
// did not take.
func (m *merger) flush(w *deviceWriter) (failed int) {
	if m.to == nil {
		return 0
	}
	if len(m.packets) > 1 {
		if w.writeVirtio(m.merged()) == nil {
			m.to = nil
			*m.refusals(m.t.proto) = 0
			return 0
		}
		*m.refusals(m.t.proto)++ // and one by one, then
	}
	m.to = nil
	for _, b := range m.packets {
		virtio.Header{}.Put(m.head[:])
		m.parts = append(m.parts[:0], m.head[:virtio.HeaderLen], b)
		if w.writeVirtio(m.parts) != nil {
			failed++
		}
	}
	return failed
}

// merged returns the parts of the super-packet.
func (m *merger) merged() [][]byte {
	first, last := m.packets[0], m.packets[len(m.packets)-1]
	h := m.head[virtio.HeaderLen : virtio.HeaderLen+m.header]
	copy(h, first)
	length := m.header + m.payload
	if m.p.v6 {
		binary.BigEndian.PutUint16(h[4:], uint16(length-ipv6HeaderLen))
	} else {
		binary.BigEndian.PutUint16(h[2:], uint16(length))
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], checksum(h[:ipv4HeaderLen]))
	}
	v := virtio.Header{HeaderLen: uint16(m.header), SegmentSize: uint16(m.size)}
	pseudo := m.t.pseudo + uint64(length-m.p.length)
	switch {
	case m.t.proto == protoUDP:
		v.GSO = virtio.GSOUDP
		binary.BigEndian.PutUint16(h[m.t.at+4:], uint16(length-m.t.at))
	case m.p.v6:
		v.GSO = virtio.GSOTCPv6
	default:
		v.GSO = virtio.GSOTCPv4
	}
	if m.t.proto == protoTCP {
		h[m.t.at+13] |= last[m.t.at+13] & 0x08 // PSH
	}
	if m.t.proto == protoTCP && !m.relayed {
		h[m.t.checksum], h[m.t.checksum+1] = 0, 0
		binary.BigEndian.PutUint16(h[m.t.checksum:], ^fold(sum(pseudo, h[m.t.at:])+m.checksums))
	} else {
		v.Flags, v.ChecksumStart, v.ChecksumOffset = virtio.NeedsChecksum, uint16(m.t.at), uint16(m.t.checksum-m.t.at)
		binary.BigEndian.PutUint16(h[m.t.checksum:], fold(pseudo))
	}
	v.Put(m.head[:])
	m.parts = append(m.parts[:0], m.head[:virtio.HeaderLen+m.header])
	for _, b := range m.packets {
		m.parts = append(m.parts, b[m.header:])
	}
	return m.parts
}
