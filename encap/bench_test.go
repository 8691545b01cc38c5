package encap

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// benchNode is a Forwarder without I/O that knows n destinations.
func benchNode(b *testing.B, n int) *node {
	x := newA(b, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(c *Config) {
			c.Underlay = sink{c.Underlay.(*memUnderlay)}
			c.Overlays[0].Device = sinkDevice{c.Overlays[0].Device}
		}
	})
	for i := range n {
		require.NoError(b, x.cache.Insert(x.now, mapcache.Mapping{
			Key: mapcache.Key{Prefix: netip.PrefixFrom(benchEID(i), 32)}, TTL: time.Hour,
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rlocB4)}, Priority: 1, Weight: 1}},
		}))
	}
	x.cache.Publish()
	return x
}

func benchEID(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{20 + byte(i>>16), byte(i >> 8), byte(i), 1})
}

// Packets per second of the whole way out but for the system calls: batches of
// 64 packets of 64 octets.
func BenchmarkEncapsulate(b *testing.B) {
	for _, c := range []struct{ n, flows int }{{1, 0}, {1, 1}, {10000, 1}} {
		n, flows := c.n, c.flows
		b.Run(fmt.Sprintf("destinations=%d,flowchange=%d", n, flows), func(b *testing.B) {
			x := benchNode(b, n)
			e := newEgress(x.Forwarder)
			bufs := make([][]byte, 64*64)
			for i := range bufs {
				spec := packetSpec{src: eidA4, dst: benchEID(i * 7 % n).String(), sport: uint16(i * flows), dport: 2, payloadLen: 36}
				bufs[i] = append(make([]byte, Headroom), spec.build()...)
			}
			at := 0
			b.ReportAllocs()
			for b.Loop() {
				e.begin()
				for _, buf := range bufs[at : at+64] {
					e.packet(x.overlays[0], buf, len(buf)-Headroom)
				}
				e.flush()
				at = (at + 64) % len(bufs)
			}
			b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds()/1e6, "Mpackets/s")
			require.Empty(b, x.drops())
		})
	}
}

// The whole way in but for the system calls.
func BenchmarkDecapsulate(b *testing.B) {
	x := benchNode(b, 1)
	g := newIngress(x.Forwarder, x.underlay)
	batch := make([]Incoming, 64)
	for i := range batch {
		batch[i] = from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: eidA4, sport: uint16(i), payloadLen: 36}.build()))
		batch[i].TTL = 60
	}
	b.ReportAllocs()
	for b.Loop() {
		g.receive(batch)
	}
	b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds()/1e6, "Mpackets/s")
	require.Empty(b, x.drops())
}
