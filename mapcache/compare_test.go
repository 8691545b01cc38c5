package mapcache_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkCompare prints two tables of what a lookup costs, in multiples of the bare
// trie: by Choose, Forward and ForwardBatch, which choose a locator too, for each
// way that mappings can share locators; and beside other ways to look up.
//
//	go test -run XXX -bench Compare -benchtime 1x -timeout 30m ./mapcache
//
// All of a row take turns of 1,024 lookups in one run, so that what else the machine
// does meets all alike. Before each turn the contender does two others that do not
// count, so that it finds the processor's cache as it left it itself, and not as
// another did. A figure is the median over 5 passes of the median turn of each, and
// the ratio the median of the ratios in each pass, with the least and the largest.
func BenchmarkCompare(b *testing.B) {
	var ours, others strings.Builder
	ours.WriteString("\n| entries | sets | probes | bart ns | Choose | Forward | ForwardBatch |\n|---|---|---|---|---|---|---|\n")
	others.WriteString("\n| entries | probes | bart ns | Forward, shared sets | RWMutex map | AllowedIPs | cidranger |\n|---|---|---|---|---|---|---|\n")
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		for _, is6 := range []bool{false, true} {
			what := fmt.Sprintf("%d %s", n, family(is6))
			b.Run(strings.ReplaceAll(what, " ", "/"), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				ps := population(r, n, is6)
				bare := contenderBart(ps)
				for _, kind := range setKinds {
					view := loaded(b, ps, kind).View()
					for _, zipf := range []bool{false, true} {
						fmt.Fprintf(&ours, "| %s | %s | %s | %s |\n", what, kind.name, skew(zipf),
							compare(r, ps, zipf, bare, contenderChoose(view), contenderForward(view), contenderBatch(view)))
					}
				}
				view := loaded(b, ps, setKinds[0]).View()
				rivals := []contender{bare, contenderForward(view), newLockedMap(ps).lookups(), contenderAllowedIPs(ps), contenderRanger(b, ps)}
				for _, zipf := range []bool{false, true} {
					fmt.Fprintf(&others, "| %s | %s | %s |\n", what, skew(zipf), compare(r, ps, zipf, rivals...))
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
	fmt.Print(ours.String(), others.String()) // a benchmark's log is cut
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

// compare returns the cells of a row from the time of the first contender on. Each
// has probes of its own: what reads the same memory as another one would find it in
// the processor's cache.
func compare(r *rand.Rand, ps []netip.Prefix, zipf bool, list ...contender) string {
	const turn, turns, passes = 1024, 16, 5
	runs := make([]func(at int), len(list))
	size := 0
	for i, c := range list {
		dst := probes(r, ps, zipf)
		size = len(dst)
		run := c(dst)
		runs[i] = func(at int) { run(at, at+turn) }
	}
	var baseNs []float64
	ratios := make([][]float64, len(runs))
	for range passes {
		took := make([][]time.Duration, len(runs))
		for t := range turns {
			for i := range runs {
				i = (i + t) % len(runs)
				at := 3 * t * turn % size
				runs[i]((at + turn) % size)
				runs[i]((at + 2*turn) % size)
				start := time.Now()
				runs[i](at)
				took[i] = append(took[i], time.Since(start))
			}
		}
		base := float64(median(took[0]))
		baseNs = append(baseNs, base/turn)
		for i := range runs {
			ratios[i] = append(ratios[i], float64(median(took[i]))/base)
		}
	}
	cells := []string{fmt.Sprintf("%.0f", median(baseNs))}
	for _, xs := range ratios[1:] {
		cells = append(cells, fmt.Sprintf("%.2fx (%.2f–%.2f)", median(xs), slices.Min(xs), slices.Max(xs)))
	}
	return strings.Join(cells, " | ")
}

func median[T time.Duration | float64](xs []T) T {
	xs = slices.Sorted(slices.Values(xs))
	return xs[len(xs)/2]
}
