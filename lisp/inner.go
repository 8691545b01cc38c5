package lisp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Inner is the IP/UDP packet inside an Encapsulated Control Message.
type Inner struct {
	// Source and Destination are of one family. In an ECM of a Map-Request
	// Destination is the EID asked for and port 4342 (RFC 9301 §5.8).
	Source, Destination netip.AddrPort
	TTL                 uint8  // IPv4 TTL or IPv6 hop limit; AppendInner sends 64 for 0
	Payload             []byte // the control message
}

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	udpHeaderLen  = 8
	protocolUDP   = 17
	defaultTTL    = 64
	ecmInner      = "ECM inner packet"
)

// Inner takes the inner packet apart. It checks the IPv4 header checksum and
// the UDP checksum, of which zero is accepted over IPv4 because a known peer
// sends it. The UDP length delimits the payload. Its disagreement with the
// length of the IP header is an error, unless the UDP checksum proves it right.
// Extension headers, fragments and port 4341 are errors. Payload aliases Packet.
func (m *EncapsulatedControl) Inner() (Inner, error) {
	r := reader{b: m.Packet, message: ecmInner}
	in := Inner{}
	var src, dst netip.Addr
	var sum uint32
	ipPayload := 0
	if len(r.b) == 0 {
		r.fail("IP header", 0, ErrTruncated)
		return in, r.err
	}
	switch r.b[0] >> 4 {
	case 4:
		h := r.take("IPv4 header", ipv4HeaderLen)
		if h == nil {
			return in, r.err
		}
		headerLen := int(h[0]&0x0f) * 4
		if headerLen < ipv4HeaderLen {
			r.fail("IHL", 0, ErrMalformed)
		} else {
			r.take("IPv4 options", headerLen-ipv4HeaderLen)
		}
		if r.err == nil && fold(sumOctets(0, r.b[:headerLen])) != 0xffff {
			r.fail("Header Checksum", 10, ErrMalformed)
		}
		if binary.BigEndian.Uint16(h[6:])&0x3fff != 0 {
			r.fail("Fragment Offset", 6, fmt.Errorf("fragment: %w", ErrUnsupported))
		}
		if h[9] != protocolUDP {
			r.fail("Protocol", 9, fmt.Errorf("protocol %d: %w", h[9], ErrUnsupported))
		}
		ipPayload = int(binary.BigEndian.Uint16(h[2:])) - headerLen
		in.TTL = h[8]
		src, dst = netip.AddrFrom4([4]byte(h[12:16])), netip.AddrFrom4([4]byte(h[16:20]))
		sum = sumOctets(0, h[12:20])
	case 6:
		h := r.take("IPv6 header", ipv6HeaderLen)
		if h == nil {
			return in, r.err
		}
		if h[6] != protocolUDP {
			r.fail("Next Header", 6, fmt.Errorf("protocol %d: %w", h[6], ErrUnsupported))
		}
		ipPayload = int(binary.BigEndian.Uint16(h[4:]))
		in.TTL = h[7]
		src, dst = netip.AddrFrom16([16]byte(h[8:24])), netip.AddrFrom16([16]byte(h[24:40]))
		sum = sumOctets(0, h[8:40])
	default:
		r.fail("IP version", 0, fmt.Errorf("version %d: %w", r.b[0]>>4, ErrUnsupported))
	}
	start := r.off
	u := r.take("UDP header", udpHeaderLen)
	if u == nil {
		return Inner{}, r.err
	}
	udpLen := int(binary.BigEndian.Uint16(u[4:]))
	if udpLen < udpHeaderLen {
		r.fail("UDP Length", start+4, ErrMalformed)
	}
	in.Payload = r.take("UDP payload", udpLen-udpHeaderLen)
	if r.err != nil {
		return Inner{}, r.err
	}
	in.Source = netip.AddrPortFrom(src, binary.BigEndian.Uint16(u))
	in.Destination = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(u[2:]))
	noChecksum := u[6] == 0 && u[7] == 0
	switch {
	case in.Source.Port() == DataPort || in.Destination.Port() == DataPort:
		r.fail("UDP port", start, fmt.Errorf("port %d: %w", DataPort, ErrMalformed))
	case noChecksum && src.Is6():
		r.fail("UDP Checksum", start+6, fmt.Errorf("zero over IPv6: %w", ErrMalformed))
	case noChecksum && udpLen > ipPayload:
		r.fail("UDP Length", start+4, fmt.Errorf("%d octets in %d: %w", udpLen, ipPayload, ErrMalformed))
	case !noChecksum && fold(sumOctets(sum+protocolUDP+uint32(udpLen), r.b[start:r.off])) != 0xffff:
		r.fail("UDP Checksum", start+6, ErrMalformed)
	}
	if r.err != nil {
		return Inner{}, r.err
	}
	return in, nil
}

// AppendInner appends the IP/UDP packet that in describes, with its checksums,
// as it goes into EncapsulatedControl.Packet. An IPv4-mapped IPv6 address is an
// IPv6 address here.
func AppendInner(b []byte, in Inner) ([]byte, error) {
	src, dst := in.Source.Addr(), in.Destination.Addr()
	udpLen := udpHeaderLen + len(in.Payload)
	switch {
	case !src.IsValid() || src.Is4() != dst.Is4():
		return b, encodeError(ecmInner, "address", "%s to %s", src, dst)
	case !dst.IsValid():
		return b, encodeError(ecmInner, "address", "no destination")
	case in.Source.Port() == DataPort || in.Destination.Port() == DataPort:
		return b, encodeError(ecmInner, "UDP port", "%d is the data port", DataPort)
	case udpLen > 0xffff-ipv4HeaderLen:
		return b, encodeError(ecmInner, "UDP Length", "%d octets of payload", len(in.Payload))
	}
	ttl := in.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	var sum uint32
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		start := len(b)
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(ipv4HeaderLen+udpLen))
		b = append(b, 0, 0, 0, 0, ttl, protocolUDP, 0, 0)
		b = append(append(b, s[:]...), d[:]...)
		binary.BigEndian.PutUint16(b[start+10:], ^fold(sumOctets(0, b[start:])))
		sum = sumOctets(0, b[start+12:])
	} else {
		s, d := src.As16(), dst.As16()
		start := len(b)
		b = append(b, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(udpLen))
		b = append(b, protocolUDP, ttl)
		b = append(append(b, s[:]...), d[:]...)
		sum = sumOctets(0, b[start+8:])
	}
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, in.Source.Port())
	b = binary.BigEndian.AppendUint16(b, in.Destination.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(udpLen))
	b = append(b, 0, 0)
	b = append(b, in.Payload...)
	check := ^fold(sumOctets(sum+protocolUDP+uint32(udpLen), b[start:]))
	if check == 0 {
		check = 0xffff // zero would say that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[start+6:], check)
	return b, nil
}

// sumOctets adds b to a ones' complement sum, 16 bits at a time. A sum over less
// than 64 KiB does not overflow.
func sumOctets(sum uint32, b []byte) uint32 {
	for len(b) >= 2 {
		sum += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
