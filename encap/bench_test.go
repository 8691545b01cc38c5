package encap

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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
	for _, c := range []struct {
		n, flows int
		metered  bool
	}{{1, 0, false}, {1, 0, true}, {1, 1, false}, {1, 1, true}, {10000, 1, false}, {10000, 1, true}} {
		n, flows := c.n, c.flows
		b.Run(fmt.Sprintf("destinations=%d,flowchange=%d,metered=%v", n, flows, c.metered), func(b *testing.B) {
			x := benchNode(b, n)
			e := newEgress(x.Forwarder)
			if c.metered {
				e = x.metered()
			}
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

// The same for many destinations, each packet of another flow: how the cost grows
// with the map-cache and with the number of flows, with and without a destination
// cache, and with counters by entry. The packets are in 64 buffers, as those of a device are, and get their
// addresses in the measured time. The Locator-Sets are of 1,000 locators.
func BenchmarkEncapsulateMany(b *testing.B) {
	for _, c := range []struct {
		name           string
		entries, flows int
		zipf           bool
	}{
		{"entries=1,flows=100k", 1, 100_000, false},
		{"entries=100k,zipf", 100_000, 100_000, true},
		{"entries=1M,flows=100k", 1_000_000, 100_000, false},
	} {
		x, ends := manyFlows(b, c.entries, c.flows, c.zipf)
		for _, with := range []struct{ cached, metered bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
			b.Run(fmt.Sprintf("%s,cached=%v,metered=%v", c.name, with.cached, with.metered), func(b *testing.B) {
				bufs := newSlots(64)
				for _, buf := range bufs {
					copy(buf[Headroom:], packetSpec{src: eidA4, dst: eidB4, payloadLen: 36}.build())
				}
				e := newEgress(x.Forwarder)
				if with.metered {
					e = x.metered()
				}
				if with.cached {
					e.destinations = new(mapcache.DestinationCache)
				}
				at := 0
				batch := func() {
					e.begin()
					for i, buf := range bufs {
						*(*[8]byte)(buf[Headroom+16:]) = ends[at+i]
						e.packet(x.overlays[0], buf, 64)
					}
					e.flush()
					at = (at + 64) % len(ends)
				}
				for range 20 * len(ends) / 64 { // the cache grows
					batch()
				}
				b.ReportAllocs()
				for b.Loop() {
					batch()
				}
				b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds()/1e6, "Mpackets/s")
				require.Empty(b, x.drops())
				require.Zero(b, x.Stats().Held)
			})
		}
	}
}

// manyFlows returns a node with a map-cache of host entries, and the destinations
// and ports of flows to them.
func manyFlows(b *testing.B, entries, flows int, skewed bool) (*node, [][8]byte) {
	cache := mapcache.New(mapcache.Config{MaxEntries: 1 << 21})
	for i := range entries {
		rloc := mapcache.Locator{Addr: netip.AddrFrom4([4]byte{203, 0, byte(i % 1000 >> 8), byte(i % 1000)})}
		require.NoError(b, cache.Insert(testTime, mapcache.Mapping{
			Key: mapcache.HostKey(0, benchEID(i)), TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
			RLOCs: []mapcache.RLOC{{Locator: rloc, Priority: 1, Weight: 1}},
		}))
	}
	cache.Publish()
	x := newA(b, &memNet{}, "", func(n *nodeConfig) {
		n.change = func(cfg *Config) {
			cfg.View, cfg.Meter = cache.View, cache.NewMeter
			cfg.Underlay = sink{cfg.Underlay.(*memUnderlay)}
		}
	})
	r := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(r, 1.1, 1, uint64(entries-1))
	ends := make([][8]byte, flows/64*64)
	for i := range ends {
		at := 0
		switch {
		case skewed:
			at = int(zipf.Uint64())
		case entries > 1:
			at = r.IntN(entries)
		}
		dst := benchEID(at).As4()
		copy(ends[i][:], dst[:])
		binary.BigEndian.PutUint32(ends[i][4:], uint32(i)<<16|2)
	}
	return x, ends
}

// A large send in one piece, and the same as it arrives: 44 segments of 1412
// octets.
func BenchmarkSuperPacket(b *testing.B) {
	s := stream{src: eidA4, dst: eidB4, ack: 9, window: 77, payload: make([]byte, 44*1412)}
	x, d := newVirtio(b, rlocB4, func(c *nodeConfig) {
		c.change = func(cfg *Config) { cfg.Underlay = sink{cfg.Underlay.(*memUnderlay)} }
	})
	d.discard = true
	b.Run("out", func(b *testing.B) {
		e := newEgress(x.Forwarder)
		buf, n := s.super(b, 1412)
		b.SetBytes(int64(n))
		b.ReportAllocs()
		for b.Loop() {
			e.begin()
			e.virtioPacket(x.overlays[0], buf, n)
			e.flush()
		}
	})
	b.Run("in", func(b *testing.B) {
		g := newIngress(x.Forwarder, x.underlay)
		in := from(rlocB4, rlocA4, nil)
		for _, p := range s.reverse().cut(b, 1412) {
			in.Bytes = append(in.Bytes, encapsulated(0, 0, 0, p)...)
		}
		in.Segment, in.HasTOS = dataHeaderLen+52+1412, false
		batch := []Incoming{in}
		b.SetBytes(int64(len(in.Bytes)))
		b.ReportAllocs()
		for b.Loop() {
			g.receive(batch)
		}
	})
	require.Empty(b, x.drops())
}

// The whole way in but for the system calls, from one inner source and from 10k.
func BenchmarkDecapsulate(b *testing.B) {
	for _, c := range []struct {
		sources int
		metered bool
	}{{1, false}, {1, true}, {10000, false}, {10000, true}} {
		b.Run(fmt.Sprintf("sources=%d,metered=%v", c.sources, c.metered), func(b *testing.B) {
			x := benchNode(b, c.sources)
			g := newIngress(x.Forwarder, x.underlay)
			if !c.metered {
				g.senders.meter = nil
			}
			batches := make([][]Incoming, 64)
			for i := range batches {
				for j := range 64 {
					src := benchEID((64*i + j) * 7 % c.sources).String()
					in := from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: src, dst: eidA4, sport: uint16(j), payloadLen: 36}.build()))
					in.TTL = 60
					batches[i] = append(batches[i], in)
				}
			}
			at := 0
			b.ReportAllocs()
			for b.Loop() {
				g.receive(batches[at])
				at = (at + 1) % len(batches)
			}
			b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds()/1e6, "Mpackets/s")
			require.Empty(b, x.drops())
		})
	}
}
