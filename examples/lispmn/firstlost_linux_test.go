package main

import (
	"sync/atomic"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestFirstMapRequestLost: the network loses the first Map-Request. The ping that
// asked for it is late, and none is lost.
func TestFirstMapRequestLost(t *testing.T) {
	var requests atomic.Int32
	lose := func(fromHost bool, frame []byte) bool {
		if fromHost {
			return false
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || udp.DstPort != lisp.ControlPort {
			return false
		}
		m, err := lisp.Parse(udp.Payload)
		return err == nil && m.Type() == lisp.TypeEncapsulatedControl && requests.Add(1) == 1
	}
	d := testLab(t, demoOptions{})
	d.links[siteMS.name+"/eth0"].SetDrop(lose)
	do(t, d, startMapServer, registerNodes(ipv4))
	assert.Zero(t, requests.Load(), "nobody has asked yet")
	do(t, d, firstPing(ipv4, ipv4)) // fails if one of the pings is lost
	assert.GreaterOrEqual(t, requests.Load(), int32(2), "asked again")
	do(t, d, stopNodes)
}
