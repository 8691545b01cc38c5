package mapcache_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/gaissmai/bart"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// population is EID-Prefixes as a Map-Cache meets them: for the small size host
// routes, for large ones a mix of lengths as in a routing table.
func population(r *rand.Rand, n int, is6 bool) []netip.Prefix {
	seen := make(map[netip.Prefix]bool, n)
	list := make([]netip.Prefix, 0, n)
	for len(list) < n {
		var p netip.Prefix
		switch {
		case is6 && n <= 10_000:
			p = netip.PrefixFrom(random6(r), 128)
		case is6:
			p = netip.PrefixFrom(random6(r), 32+r.IntN(33)).Masked()
		case n <= 10_000:
			p = netip.PrefixFrom(random4(r), 32)
		default:
			p = netip.PrefixFrom(random4(r), 24-max(0, int(r.ExpFloat64()*2))%12).Masked()
			if n >= 1_000_000 {
				p = netip.PrefixFrom(random4(r), 18+r.IntN(11)).Masked()
			}
		}
		if !seen[p] {
			seen[p] = true
			list = append(list, p)
		}
	}
	return list
}

func random4(r *rand.Rand) netip.Addr {
	v := r.Uint32()
	return netip.AddrFrom4([4]byte{byte(v>>24)&127 + 1, byte(v >> 16), byte(v >> 8), byte(v)})
}

func random6(r *rand.Rand) netip.Addr {
	a := [16]byte{0x20, 0x01}
	for i := 2; i < 16; i++ {
		a[i] = byte(r.Uint32())
	}
	return netip.AddrFrom16(a)
}

// within returns a random address of a prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		if r.Uint32()&1 != 0 {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// twoRLOCs is the locator set number i: equal Priority, so that both are used.
func twoRLOCs(i int) []mapcache.RLOC {
	at := func(j int) mapcache.RLOC {
		a := netip.AddrFrom4([4]byte{192, byte(j >> 16), byte(j >> 8), byte(j)})
		return mapcache.RLOC{Locator: mapcache.Locator{Addr: a}, Priority: 1, Weight: 50}
	}
	return []mapcache.RLOC{at(2 * i), at(2*i + 1)}
}

// setKind is how many mappings share a locator set.
type setKind struct {
	name   string
	choose func(i int) []mapcache.RLOC
}

var setKinds = []setKind{
	{"sets=shared", func(i int) []mapcache.RLOC { return twoRLOCs(i % 500) }},
	{"sets=distinct", func(i int) []mapcache.RLOC {
		// All sets distinct over 1000 locators that they share.
		rs := twoRLOCs(i % 500)
		rs[1] = twoRLOCs(500 + i/500%1000)[1]
		rs[1].Weight, rs[0].Weight = uint8(1+i/500_000), 1
		return rs
	}},
	{"locators=distinct", twoRLOCs},
}

func loaded(tb testing.TB, ps []netip.Prefix, kind setKind) *mapcache.Cache {
	tb.Helper()
	c := mapcache.New(mapcache.Config{MaxEntries: 1 << 22, MaxChanges: -1})
	for i, p := range ps {
		require.NoError(tb, c.Insert(t0, mapcache.Mapping{
			Key: mapcache.MakeKey(0, p), RLOCs: kind.choose(i), TTL: time.Hour,
		}))
	}
	c.Publish()
	return c
}

// probes are destinations: uniform over the prefixes, or a few of them mostly.
func probes(r *rand.Rand, ps []netip.Prefix, zipf bool) []netip.Addr {
	list := make([]netip.Addr, 1<<16)
	z := rand.NewZipf(r, 1.1, 1, uint64(len(ps)-1))
	for i := range list {
		at := r.IntN(len(ps))
		if zipf {
			at = int(z.Uint64())
		}
		list[i] = within(r, ps[at])
	}
	return list
}

// BenchmarkUpdate replaces and publishes one mapping among n, in turns with a bare
// InsertPersist of the same prefix. The metrics are medians, x is their ratio.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		for _, kind := range setKinds {
			b.Run(fmt.Sprintf("n=%d/%s", n, kind.name), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				ps := population(r, n, false)
				c := loaded(b, ps, kind)
				bare := new(bart.Table[uint64])
				for i, p := range ps {
					bare.Insert(p, uint64(i))
				}
				var took [2][]time.Duration
				for turns := 0; b.Loop(); turns++ {
					i := r.IntN(n)
					start := time.Now()
					if turns%2 == 0 {
						bare = bare.InsertPersist(ps[i], uint64(turns))
						took[0] = append(took[0], time.Since(start))
						continue
					}
					if err := c.Insert(t0, mapcache.Mapping{
						Key: mapcache.MakeKey(0, ps[i]), RLOCs: kind.choose(r.IntN(n)), TTL: time.Hour,
					}); err != nil {
						b.Fatal(err)
					}
					c.Publish()
					took[1] = append(took[1], time.Since(start))
				}
				if len(took[1]) == 0 {
					return
				}
				bareNs, ns := median(took[0]), median(took[1])
				b.ReportMetric(float64(bareNs), "ns/bare")
				b.ReportMetric(float64(ns), "ns/update")
				b.ReportMetric(float64(ns)/float64(bareNs), "x")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkMemory reports the octets per entry, with two locators each.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	for _, is6 := range []bool{false, true} {
		for _, kind := range setKinds {
			b.Run(fmt.Sprintf("n=%d/v6=%t/%s", n, is6, kind.name), func(b *testing.B) {
				ps := population(rand.New(rand.NewPCG(1, 2)), n, is6)
				for b.Loop() {
					var before, after runtime.MemStats
					runtime.GC()
					runtime.ReadMemStats(&before)
					c := loaded(b, ps, kind)
					runtime.GC()
					runtime.ReadMemStats(&after)
					runtime.KeepAlive(c)
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "octets/entry")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkSetDown changes a locator that 100,000 mappings share.
func BenchmarkSetDown(b *testing.B) {
	c := mapcache.New(mapcache.Config{MaxChanges: -1})
	for i := range 100_000 {
		require.NoError(b, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", time.Hour))))
	}
	c.Publish()
	l, down := loc("192.0.2.1"), false
	for b.Loop() {
		down = !down
		c.SetDown(l, mapcache.CauseProbe, down)
	}
}

// BenchmarkExpire lets 100,000 entries end in one second, and reports how long one
// Advance with its Publish takes: that is how long an update may have to wait. On
// a shared machine the longest of 3,125 such steps tells more about the machine;
// cpu-ms/longest is what it computed itself, the garbage collector's share included.
func BenchmarkExpire(b *testing.B) {
	const n = 100_000
	runtime.LockOSThread() // for the processor time
	defer runtime.UnlockOSThread()
	var took, cpu []time.Duration
	for b.Loop() {
		b.StopTimer()
		c := mapcache.New(mapcache.Config{MaxChanges: -1})
		for i := range n {
			require.NoError(b, c.Insert(t0, host(i, positive("10.0.0.0/32", "192.0.2.1", time.Minute))))
		}
		c.Publish()
		advance(c, t0.Add(time.Minute-1))
		runtime.GC()
		b.StartTimer()
		for !c.Deadline().IsZero() {
			start, startCPU := time.Now(), threadTime()
			c.Advance(t0.Add(time.Minute))
			c.Publish()
			cpu = append(cpu, threadTime()-startCPU)
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	slices.Sort(cpu)
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	b.ReportMetric(ms(took[len(took)/2]), "ms/median")
	b.ReportMetric(ms(took[len(took)*99/100]), "ms/p99")
	b.ReportMetric(ms(took[len(took)-1]), "ms/longest")
	b.ReportMetric(ms(cpu[len(cpu)*99/100]), "cpu-ms/p99")
	b.ReportMetric(ms(cpu[len(cpu)-1]), "cpu-ms/longest")
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/n, "ns/entry")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkReadersWithWriter compares readers alone with readers beside a writer
// that publishes 1,000 updates a second. The metric x is the ratio.
func BenchmarkReadersWithWriter(b *testing.B) {
	const n = 100_000
	r := rand.New(rand.NewPCG(1, 2))
	ps := population(r, n, false)
	c := loaded(b, ps, setKinds[0])
	dst := probes(r, ps, true)
	read := func() time.Duration {
		start := time.Now()
		b.RunParallel(func(pb *testing.PB) {
			at := 0
			for pb.Next() {
				v := c.View()
				for i, a := range dst[at : at+64] {
					v.Choose(0, a, uint32(i))
				}
				at = (at + 64) % len(dst)
			}
		})
		return time.Since(start)
	}
	alone := read()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for j := range 10 {
				_ = c.Insert(t0, mapcache.Mapping{
					Key: mapcache.MakeKey(0, ps[(i*10+j)*7919%n]), RLOCs: twoRLOCs((i + j) % 500), TTL: time.Hour,
				})
				c.Publish()
			}
		}
	}()
	beside := read()
	close(stop)
	<-done
	b.ReportMetric(float64(beside)/float64(alone), "x")
	b.ReportMetric(float64(beside)/float64(b.N)/64, "ns/packet")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkFlowHash(b *testing.B) {
	v4 := make([]byte, 64)
	v4[0], v4[9] = 0x45, 6
	v6 := make([]byte, 64)
	v6[0], v6[6] = 0x60, 6
	for name, p := range map[string][]byte{"IPv4": v4, "IPv6": v6} {
		b.Run(name, func(b *testing.B) {
			var sum uint32
			for b.Loop() {
				sum += mapcache.FlowHash(7, p)
			}
			runtime.KeepAlive(sum)
		})
	}
}
