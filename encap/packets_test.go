package encap

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// testTime is when tests store their mappings, which do not expire, and waitTime
// how long they wait for what must come.
var (
	testTime = time.Unix(1e9, 0)
	waitTime = 3 * time.Minute
)

// packetSpec describes an inner packet of a test.
type packetSpec struct {
	src, dst   string
	tos, ttl   uint8 // ttl 0 is 64
	proto      layers.IPProtocol
	sport      uint16
	dport      uint16
	id         uint16
	df         bool
	options    []layers.IPv4Option
	payloadLen int
}

// build returns the packet, UDP unless spec.proto says otherwise, with right
// lengths and checksums: made by gopacket, not by the code under test.
func (s packetSpec) build() []byte {
	if s.ttl == 0 {
		s.ttl = 64
	}
	if s.proto == 0 {
		s.proto = layers.IPProtocolUDP
	}
	src, dst := netip.MustParseAddr(s.src), netip.MustParseAddr(s.dst)
	payload := make([]byte, s.payloadLen)
	for i := range payload {
		payload[i] = byte(i)
	}
	var ip gopacket.NetworkLayer
	var first gopacket.SerializableLayer
	if src.Is4() {
		v4 := &layers.IPv4{
			Version: 4, IHL: 5, TOS: s.tos, TTL: s.ttl, Id: s.id, Protocol: s.proto,
			SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), Options: s.options,
		}
		if s.df {
			v4.Flags = layers.IPv4DontFragment
		}
		ip, first = v4, v4
	} else {
		v6 := &layers.IPv6{
			Version: 6, TrafficClass: s.tos, HopLimit: s.ttl, NextHeader: s.proto, FlowLabel: 0x12345,
			SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
		}
		ip, first = v6, v6
	}
	list := []gopacket.SerializableLayer{first}
	switch s.proto {
	case layers.IPProtocolUDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(s.sport), DstPort: layers.UDPPort(s.dport)}
		_ = udp.SetNetworkLayerForChecksum(ip)
		list = append(list, udp)
	case layers.IPProtocolTCP:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(s.sport), DstPort: layers.TCPPort(s.dport), SYN: true, Window: 1000}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		list = append(list, tcp)
	case layers.IPProtocolICMPv4:
		list = append(list, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 1, Seq: s.id})
	case layers.IPProtocolICMPv6:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		list = append(list, icmp, &layers.ICMPv6Echo{Identifier: 1, SeqNumber: s.id})
	}
	list = append(list, gopacket.Payload(payload))
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...)
	if err != nil {
		panic(err)
	}
	return append([]byte(nil), buf.Bytes()...)
}

// encapsulated puts a data header of the given first octet and Instance ID in
// front of an inner packet.
func encapsulated(flags byte, low24 uint32, word2 uint32, inner []byte) []byte {
	b := make([]byte, 8, 8+len(inner))
	binary.BigEndian.PutUint32(b, uint32(flags)<<24|low24)
	binary.BigEndian.PutUint32(b[4:], word2)
	return append(b, inner...)
}

// nested returns a packet that carries two data headers.
func nested(src, dst string) []byte {
	payload := encapsulated(0, 0, 0, packetSpec{src: "10.9.0.1", dst: "10.9.0.2", sport: 1, dport: 4341, payloadLen: 60}.build())
	b := packetSpec{src: src, dst: dst, sport: 1, dport: 4341, payloadLen: len(payload)}.build()
	copy(b[28:], payload)
	copy(b[28+8+28+8:], packetSpec{src: "10.8.0.1", dst: "10.8.0.2", payloadLen: 1}.build())
	return b
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }
