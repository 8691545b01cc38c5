package ebpf

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// BenchmarkFirstPacket is the way of the first packet of a flow: out by a device, held
// for its mapping, which is there at once, encapsulated by the slow path, received at the
// other end. A real Map-Resolver's time comes on top.
func BenchmarkFirstPacket(b *testing.B) {
	requireBPF(b)
	lab := netlab.Test(b, netlab.TUN, netlab.PolicyRouting)
	h, peer := lab.Host("a"), lab.Host("b")
	l := lab.Link(h, peer, netlab.LinkConfig{A: netlab.At("198.51.100.1/24"), B: netlab.At("198.51.100.2/24")})
	n := newNode(b, h, nodeConfig{
		backend: inKernel, eids: []string{"10.1.0.1/32"},
		locals: []mapcache.Local{{IfIndex: l.A.Index, Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
	})
	in, err := peer.ListenPacket("udp", "198.51.100.2:4341")
	require.NoError(b, err)
	defer in.Close()
	out, err := h.ListenPacket("udp", "10.1.0.1:0")
	require.NoError(b, err)
	defer out.Close()
	buf := make([]byte, 2000)
	i := 0
	first := func() {
		eid := fmt.Sprintf("10.%d.%d.%d", 16+i>>16, i>>8&255, i&255)
		i++
		_, err := out.WriteTo([]byte("first"), &net.UDPAddr{IP: net.ParseIP(eid), Port: 9})
		require.NoError(b, err)
		<-n.fwd.Discoveries()
		for _, k := range n.plane.PendingMisses(nil) {
			n.insert(b, mapTo(0, k.Prefix.String(), "198.51.100.2", 0))
		}
		require.NoError(b, in.SetReadDeadline(time.Now().Add(waitTime)))
		for {
			if m, _, err := in.ReadFrom(buf); err != nil || m == 8+28+5 {
				require.NoError(b, err)
				return
			}
		}
	}
	first() // with the neighbour's address
	for b.Loop() {
		first()
	}
}
