package encap

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// LISP-GPE has a UDP checksum on the wire, whatever the policy for LISP; but for
// peers that are configured for none, and for no other packet to them.
func TestGPEChecksumOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		name    string
		cfg     UDPConfig
		without bool
	}{
		{"by default", UDPConfig{}, false},                         // RFC 9305-4.3.1-1, 9305-4.3.1-6
		{"LISP without", UDPConfig{Checksum: ChecksumZero}, false}, // RFC 9305-4.3.1-3, 9305-4.3-1
		{"other peers without", UDPConfig{ZeroChecksum: []netip.Prefix{prefix("192.0.2.0/24"), prefix("2001:db8:c::/48")}}, false},
		{"these peers without", UDPConfig{ZeroChecksum: []netip.Prefix{prefix("203.0.113.2/32"), prefix("2001:db8:b::/64")}}, true}, // RFC 9305-4.3.1-2
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t, 1500)
			b, fb := w.start(t, w.b0, []string{"10.2.0.1/32", "10.4.0.1/32", "10.6.0.1/32"}, UDPConfig{})
			gpe := func(eid, rloc string) mapcache.Mapping {
				m := mapTo(eid, rloc)
				m.RLOCs[0].Format = mapcache.FormatGPE
				return m
			}
			a, _ := w.start(t, w.toA, []string{"10.1.0.1/32"}, tt.cfg,
				gpe("10.2.0.0/16", "203.0.113.2"), gpe("10.4.0.0/16", "2001:db8:b::2"), mapTo("10.6.0.0/16", "2001:db8:b::2"))
			// Several of a flow: a kernel that segments computes checksums too.
			for _, dst := range []string{"10.2.0.1", "10.4.0.1", "10.6.0.1"} {
				p := packetSpec{src: "10.1.0.1", dst: dst, tos: 2, payloadLen: 200}.build()
				a.send(p, p, p)
				for range 3 {
					// With or without, it is accepted: RFC 9305-4.3.1-7 (RFC 6936 §4, 7).
					assert.Equal(t, p[12:], b.next(t)[12:])
				}
			}
			data := w.seen(isData)
			require.Len(t, data, 9)
			ports := map[bool]map[layers.UDPPort]bool{false: {}, true: {}}
			for _, p := range data {
				udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
				without := tt.without
				if udp.Payload[0]&0x04 == 0 { // the one in the LISP format
					without = tt.cfg.Checksum == ChecksumZero
				}
				if without {
					assert.Zero(t, udp.Checksum)
				} else {
					require.NotZero(t, udp.Checksum)
					assert.True(t, udpChecksumOK(p.NetworkLayer(), udp))
				}
				ports[without][udp.SrcPort] = true
			}
			// Only certain ports send without: RFC 9305-4.3.1-7 (RFC 6936 §4, 3 and §5, 1).
			for port := range ports[true] {
				assert.NotContains(t, ports[false], port)
			}
			assert.Equal(t, [NumDropReasons]uint64{}, fb.Stats().Drops)
		})
	}
}

// The IPv6 flow label of the outer packets is one per flow: RFC 9300-12-5.
func TestFlowLabelOnTheWire(t *testing.T) {
	w := newWire(t, 1500)
	b, _ := w.start(t, w.b0, []string{"10.2.0.1/32"}, UDPConfig{})
	a, _ := w.start(t, w.toA, []string{"10.1.0.1/32"}, UDPConfig{}, mapTo("10.2.0.0/16", "2001:db8:b::2"))
	const flows = 40
	for range 3 {
		for port := range uint16(flows) {
			a.send(packetSpec{src: "10.1.0.1", dst: "10.2.0.1", sport: 1000 + port, dport: 7, payloadLen: 20}.build())
			b.next(t)
		}
	}
	type outer struct {
		port  layers.UDPPort
		label uint32
	}
	of := map[uint16]outer{}
	labels := map[uint32]bool{}
	for _, p := range w.seen(isData) {
		udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		flow := uint16(udp.Payload[8+20])<<8 | uint16(udp.Payload[8+21])
		o := outer{udp.SrcPort, p.Layer(layers.LayerTypeIPv6).(*layers.IPv6).FlowLabel}
		if was, ok := of[flow]; ok {
			assert.Equal(t, was, o) // RFC 9300-12-3, 9300-12-4
		}
		of[flow], labels[o.label] = o, true
	}
	assert.Len(t, of, flows)
	assert.Greater(t, len(labels), 4)
	assert.NotContains(t, labels, uint32(0))
}
