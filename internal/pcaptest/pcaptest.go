// Package pcaptest reads captures for tests that feed what peers have sent to a
// machine of this module.
package pcaptest

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// Datagrams returns the UDP datagrams of a capture in its order, each as its
// receiver gets it: Local is the destination. What is no UDP is left out. An
// error fails the test.
func Datagrams(t testing.TB, file string) []lisp.Datagram {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r, err := pcapgo.NewReader(f)
	require.NoError(t, err)
	var all []lisp.Datagram
	for {
		b, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		p := gopacket.NewPacket(b, r.LinkType(), gopacket.Default)
		udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok {
			continue // ARP, ICMP
		}
		flow := p.NetworkLayer().NetworkFlow()
		src, ok := netip.AddrFromSlice(flow.Src().Raw())
		require.True(t, ok)
		dst, ok := netip.AddrFromSlice(flow.Dst().Raw())
		require.True(t, ok)
		all = append(all, lisp.Datagram{
			Remote: netip.AddrPortFrom(src, uint16(udp.SrcPort)), Local: netip.AddrPortFrom(dst, uint16(udp.DstPort)), Bytes: udp.Payload,
		})
	}
}
