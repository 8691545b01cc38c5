package mapcache_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gaissmai/bart"

	"github.com/xtrkit/xtrkit/mapcache"
)

// BenchmarkCompare prints, as one table, what a lookup costs by Forward and Choose,
// which choose a locator too, by the bare trie, and by what one writes without a trie:
// a map under a sync.RWMutex, asked for every prefix length that occurs.
//
//	go test -run XXX -bench Compare -benchtime 1x -timeout 30m ./mapcache
//
// All take turns of 1,024 lookups in one run, so that what else the machine does
// meets all alike. Before each turn the contender does two others that do not
// count, so that it finds the processor's cache as it left it itself, and not as
// another did. A figure is the median over 5 passes of the median turn of each, and
// the ratio the median of the ratios in each pass, with the least and the largest.
func BenchmarkCompare(b *testing.B) {
	var out strings.Builder
	out.WriteString("\n| entries | sets | probes | bart ns | Choose | Forward | RWMutex map |\n|---|---|---|---|---|---|---|\n")
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		for _, is6 := range []bool{false, true} {
			r := rand.New(rand.NewPCG(1, 2))
			ps := population(r, n, is6)
			bare := new(bart.Table[uint64])
			locked := newLockedMap()
			for i, p := range ps {
				bare.Insert(p, uint64(i))
				locked.insert(p, uint64(i))
			}
			for _, kind := range setKinds {
				view := loaded(b, ps, kind).View()
				for _, zipf := range []bool{false, true} {
					fmt.Fprintf(&out, "| %d %s | %s | %s | %s |\n", n, family(is6), kind.name, skew(zipf),
						compare(bare, view, locked, probes(r, ps, zipf), probes(r, ps, zipf)))
				}
			}
		}
	}
	fmt.Print(out.String()) // a benchmark's log is cut
	b.ReportMetric(0, "ns/op")
}

func family(is6 bool) string {
	if is6 {
		return "IPv6"
	}
	return "IPv4"
}

func skew(zipf bool) string {
	if zipf {
		return "zipf"
	}
	return "uniform"
}

// compare returns the last four cells of a row. Choose and Forward read the same
// memory, so Choose gets probes of its own: it would find everything in the
// processor's cache after Forward, and the other way round.
func compare(bare *bart.Table[uint64], view *mapcache.View, locked *lockedMap, dst, own []netip.Addr) string {
	const turn, turns, passes = 1024, 32, 5
	var sink uint64
	runs := [4]func(at int){
		func(at int) {
			for _, a := range dst[at : at+turn] {
				v, _ := bare.Lookup(a)
				sink += v
			}
		},
		func(at int) {
			for i, a := range own[at : at+turn] {
				sink += uint64(view.Choose(0, a, uint32(i)*0x9e3779b1).LocatorID)
			}
		},
		func(at int) {
			for i, a := range dst[at : at+turn] {
				d := view.Forward(0, a, uint32(i)*0x9e3779b1)
				sink += uint64(d.Locator.Port)
			}
		},
		func(at int) {
			for _, a := range dst[at : at+turn] {
				v, _ := locked.lookup(a)
				sink += v
			}
		},
	}
	var bareNs []float64
	var ratios [len(runs)][]float64
	for range passes {
		var took [len(runs)][]time.Duration
		for t := range turns {
			for i := range runs {
				i = (i + t) % len(runs)
				at := 3 * t * turn % len(dst)
				runs[i]((at + turn) % len(dst))
				runs[i]((at + 2*turn) % len(dst))
				start := time.Now()
				runs[i](at)
				took[i] = append(took[i], time.Since(start))
			}
		}
		base := float64(median(took[0]))
		bareNs = append(bareNs, base/turn)
		for i := range runs {
			ratios[i] = append(ratios[i], float64(median(took[i]))/base)
		}
	}
	runtime.KeepAlive(sink)
	cells := []string{fmt.Sprintf("%.0f", median(bareNs))}
	for _, xs := range ratios[1:] {
		cells = append(cells, fmt.Sprintf("%.2fx (%.2f–%.2f)", median(xs), slices.Min(xs), slices.Max(xs)))
	}
	return strings.Join(cells, " | ")
}

func median[T time.Duration | float64](xs []T) T {
	xs = slices.Sorted(slices.Values(xs))
	return xs[len(xs)/2]
}

// lockedMap is the rival without a trie.
type lockedMap struct {
	mu   sync.RWMutex
	m    map[netip.Prefix]uint64
	bits [2][]int // lengths that occur, longest first: IPv4, IPv6
}

func newLockedMap() *lockedMap { return &lockedMap{m: make(map[netip.Prefix]uint64)} }

func (l *lockedMap) insert(p netip.Prefix, v uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m[p] = v
	bits := &l.bits[p.Addr().BitLen()/128]
	at, ok := slices.BinarySearchFunc(*bits, p.Bits(), func(have, want int) int { return want - have })
	if !ok {
		*bits = slices.Insert(*bits, at, p.Bits())
	}
}

func (l *lockedMap) lookup(a netip.Addr) (uint64, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, bits := range l.bits[a.BitLen()/128] {
		p, _ := a.Prefix(bits)
		if v, ok := l.m[p]; ok {
			return v, true
		}
	}
	return 0, false
}

// The rivals have to give the same answers for the comparison to mean anything.
func TestRivalsAgree(t *testing.T) {
	t.Parallel()
	for _, is6 := range []bool{false, true} {
		r := rand.New(rand.NewPCG(3, 4))
		ps := population(r, 11_000, is6)
		bare, locked := new(bart.Table[uint64]), newLockedMap()
		c := mapcache.New(mapcache.Config{MaxChanges: -1})
		for i, p := range ps {
			bare.Insert(p, uint64(i))
			locked.insert(p, uint64(i))
			if err := c.Insert(t0, mapcache.Mapping{Key: mapcache.MakeKey(0, p), RLOCs: twoRLOCs(i), TTL: time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		c.Publish()
		view := c.View()
		for _, a := range probes(r, ps, false)[:5000] {
			v, ok := bare.Lookup(a)
			w, ok2 := locked.lookup(a)
			if !ok || !ok2 || v != w {
				t.Fatalf("%v: bart %d %v, map %d %v", a, v, ok, w, ok2)
			}
			d := view.Forward(0, a, 7)
			if want := twoRLOCs(int(v))[0].Addr; d.Locator.Addr != want {
				t.Fatalf("%v: %v, not %v", a, d.Locator, want)
			}
		}
	}
}
