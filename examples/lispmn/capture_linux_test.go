package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
)

func contains(s string) func(statusd.Event) bool {
	return func(e statusd.Event) bool { return strings.Contains(e.Text, s) }
}

// checkCapture looks at every LISP packet that passed the router: control
// messages decode, Map-Registers and Map-Notifies verify with the key of their
// site (and the stranger's do not), UDP checksums are right or zero, and data
// packets carry the header fields of what is inside.
func checkCapture(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r, err := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	require.NoError(t, err)
	var c captureChecker
	for {
		b, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		link := layers.LinkTypeEthernet
		if len(ci.AncillaryData) > 0 {
			if l, ok := ci.AncillaryData[0].(layers.LinkType); ok {
				link = l
			}
		}
		c.packet(t, gopacket.NewPacket(b, link, gopacket.Default))
	}
	assert.Positive(t, c.control)
	assert.Positive(t, c.encapsulated)
	assert.Positive(t, c.signed)
	assert.Positive(t, c.forged)
	for family := range c.data {
		assert.Positive(t, c.data[family], "data over %s", familyName(family))
	}
	t.Logf("%+v", c)
}

// captureChecker counts what it has checked.
type captureChecker struct {
	control, encapsulated, signed, forged int
	data                                  [2]int
}

func (c *captureChecker) packet(t *testing.T, p gopacket.Packet) {
	t.Helper()
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok || udp.SrcPort != lisp.ControlPort && udp.DstPort != lisp.ControlPort && udp.DstPort != lisp.DataPort {
		return
	}
	src, ttl, tos, family := outerHeader(t, p)
	checkUDPChecksum(t, p, udp)
	if udp.DstPort == lisp.DataPort {
		c.data[family]++
		checkData(t, udp.Payload, ttl, tos)
		return
	}
	c.control++
	assert.NotZero(t, udp.Checksum) // RFC 9301-5-s2
	m, err := lisp.Parse(udp.Payload)
	require.NoError(t, err)
	if _, ok := m.(*lisp.EncapsulatedControl); ok {
		c.encapsulated++
		assert.NotZero(t, udp.Checksum) // RFC 9301-5.8-1
	}
	switch m.(type) {
	case *lisp.MapRegister, *lisp.MapNotify:
	default:
		return
	}
	verified := false
	for _, s := range []site{siteA, siteB} {
		verified = verified || lisp.Verify(udp.Payload, lisp.Key{Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte(s.key)}) == nil
	}
	if src == siteStranger.rlocAddr(ipv4) {
		assert.False(t, verified, "the stranger's Map-Register verifies")
		c.forged++
		return
	}
	assert.True(t, verified, "%v from %v does not verify", m.Type(), src)
	c.signed++
}

func outerHeader(t *testing.T, p gopacket.Packet) (src netip.Addr, ttl, tos uint8, family int) {
	t.Helper()
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		return src.Unmap(), ip.TTL, ip.TOS, ipv4
	case *layers.IPv6:
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		return src, ip.HopLimit, ip.TrafficClass, ipv6
	}
	t.Fatalf("no IP header: %v", p)
	return
}

func checkUDPChecksum(t *testing.T, p gopacket.Packet, udp *layers.UDP) {
	t.Helper()
	if udp.Checksum == 0 {
		return
	}
	sum := uint32(17) + uint32(len(udp.Contents)+len(udp.Payload))
	for _, b := range [][]byte{p.NetworkLayer().NetworkFlow().Src().Raw(), p.NetworkLayer().NetworkFlow().Dst().Raw(), udp.Contents, udp.Payload} {
		for len(b) > 1 {
			sum += uint32(binary.BigEndian.Uint16(b))
			b = b[2:]
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	// RFC 9300-5.3-4
	assert.Equal(t, uint32(0xffff), sum, "UDP checksum of %v", p.NetworkLayer().NetworkFlow())
}

// checkData holds the outer header against the inner one. The router may have
// counted the outer TTL down by one already; the host had left the inner one alone.
func checkData(t *testing.T, payload []byte, ttl, tos uint8) {
	t.Helper()
	h, err := lisp.ParseDataHeader(payload)
	require.NoError(t, err)
	assert.Equal(t, lisp.DataHeader{}, h, "no flag is in use on the public Internet")
	inner := payload[lisp.DataHeaderLen:]
	innerTTL, innerTOS := inner[8], inner[1]
	if inner[0]>>4 == 6 {
		innerTTL, innerTOS = inner[7], inner[0]<<4|inner[1]>>4
	}
	assert.Contains(t, []uint8{innerTTL, innerTTL - 1}, ttl) // RFC 9300-5.3-14
	assert.Equal(t, innerTOS, tos)                           // RFC 9300-5.3-15
}
