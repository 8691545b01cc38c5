package encap

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/mapcache"
)

const (
	ours1, ours2, ours3    = "192.0.2.1", "192.0.2.11", "192.0.2.12"
	theirs1, theirs2, weak = "192.0.2.2", "192.0.2.22", "192.0.2.23"
)

// pairNode is a node with two uplinks and a spare one, and a peer with two
// locators and a spare one.
func pairNode(t testing.TB) (x *node, flows func(n int) map[string]int) {
	t.Helper()
	n := &memNet{}
	x = newA(t, n, "")
	peer := n.node(addr(theirs1), addr(theirs2), addr(weak))
	ls := locals(ours1, ours2, ours3)
	ls[2].Priority = 2
	assert.NoError(t, x.SetLocals(ls))
	m := mapcache.Mapping{Key: mapcache.Key{Prefix: prefix(eidB4 + "/32")}, TTL: mapcache.TTLForever}
	for i, a := range []string{theirs1, theirs2, weak} {
		m.RLOCs = append(m.RLOCs, mapcache.RLOC{Locator: mapcache.Locator{Addr: addr(a)}, Priority: uint8(1 + i/2), Weight: 1})
	}
	x.insert(t, m)
	return x, func(flows int) map[string]int {
		used := map[string]int{}
		for i := range flows {
			x.push(packetSpec{src: eidA4, dst: eidB4, sport: uint16(i + 1), dport: 7}.build())
			in := <-peer.in
			used[in.Remote.Addr().String()+">"+in.Local.String()]++
		}
		return used
	}
}

func pairOf(local, remote string, rank uint8) mapcache.Pair {
	return mapcache.Pair{Local: addr(local), Remote: mapcache.Locator{Addr: addr(remote)}, Rank: rank}
}

// TestPairs: a pair that does not answer is avoided, by another uplink, then by
// another locator of the mapping, then by a spare uplink.
func TestPairs(t *testing.T) {
	t.Parallel()
	const down = mapcache.PairDown
	usual := []string{ours1 + ">" + theirs1, ours1 + ">" + theirs2, ours2 + ">" + theirs1, ours2 + ">" + theirs2}
	both := []mapcache.Pair{pairOf(ours1, theirs1, down), pairOf(ours2, theirs1, down)}
	for _, tc := range []struct {
		name  string
		pairs []mapcache.Pair
		want  []string
	}{
		{"nothing is known", nil, usual},
		{"one fails", []mapcache.Pair{pairOf(ours1, theirs1, down)}, []string{usual[1], usual[2], usual[3]}},
		{"a locator of theirs by all uplinks of the best priority", both, []string{usual[1], usual[3]}},
		{
			"both of theirs", append([]mapcache.Pair{pairOf(ours1, theirs2, down), pairOf(ours2, theirs2, down)}, both...),
			[]string{ours3 + ">" + theirs1, ours3 + ">" + theirs2},
		},
		{
			"both of theirs, one by the spare one too",
			append([]mapcache.Pair{pairOf(ours1, theirs2, down), pairOf(ours2, theirs2, down), pairOf(ours3, theirs2, down)}, both...),
			[]string{ours3 + ">" + theirs1},
		},
		{
			"everything: as if nothing were known", append([]mapcache.Pair{
				pairOf(ours1, theirs2, down), pairOf(ours2, theirs2, down), pairOf(ours3, theirs2, down), pairOf(ours3, theirs1, down),
			}, both...), usual,
		},
		{"what is slower", []mapcache.Pair{pairOf(ours1, theirs1, 9), pairOf(ours2, theirs1, 7), pairOf(ours1, theirs2, 8), pairOf(ours2, theirs2, 8)}, []string{usual[2]}},
		{"a locator that nobody uses", []mapcache.Pair{pairOf(ours1, "192.0.2.99", down)}, usual},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			x, flows := pairNode(t)
			before := flows(64)
			x.SetPairs(tc.pairs)
			after := flows(256)
			used := make([]string, 0, len(after))
			for k, n := range after {
				used = append(used, k)
				if len(tc.want) > 1 {
					assert.Greater(t, n, 15, k)
				}
			}
			assert.ElementsMatch(t, tc.want, used)
			// All is as before when nothing fails any more.
			for i := range tc.pairs {
				tc.pairs[i].Rank = 0
			}
			x.SetPairs(tc.pairs)
			assert.Equal(t, before, flows(64))
		})
	}
}

// TestPairsOfNobody: what is said of pairs without a rank is not kept.
func TestPairsOfNobody(t *testing.T) {
	t.Parallel()
	x, _ := pairNode(t)
	for range 3 {
		x.SetPairs([]mapcache.Pair{pairOf(ours1, "192.0.2.98", 0)})
	}
	assert.NotContains(t, x.remotes.byLocator, mapcache.Locator{Addr: addr("192.0.2.98"), Port: 4341})
	x.SetPairs([]mapcache.Pair{pairOf(ours1, theirs1, 3), pairOf(ours1, theirs1, 4), pairOf(ours2, theirs1, 5)})
	cell := x.remotes.byLocator[mapcache.Locator{Addr: addr(theirs1), Port: 4341}]
	assert.Equal(t, []pairRank{{addr(ours1), 4}, {addr(ours2), 5}}, *cell.pairs.Load())
	x.SetPairs([]mapcache.Pair{pairOf(ours1, theirs1, 0), pairOf(ours2, theirs1, 0)})
	assert.Nil(t, cell.pairs.Load())
}

// TestPairsDoNotAllocate: neither does a flow that is sent another way.
func TestPairsDoNotAllocate(t *testing.T) {
	x, _ := pairNode(t)
	x.underlay.net.nodes = nil
	x.SetPairs([]mapcache.Pair{
		pairOf(ours1, theirs1, mapcache.PairDown), pairOf(ours2, theirs1, mapcache.PairDown), pairOf(ours1, theirs2, 8), pairOf(ours2, theirs2, 9),
	})
	e := newEgress(x.Forwarder)
	var p inner
	b := packetSpec{src: eidA4, dst: eidB4, sport: 1, dport: 7}.build()
	assert.Equal(t, DropNone, parseInner(b, &p))
	e.begin()
	hash := uint32(0)
	assert.Zero(t, testing.AllocsPerRun(200, func() {
		hash += 1 << 28
		d := e.view.Forward(0, p.dst, hash)
		out, local, _, why := e.route(x.overlays[0], &p, hash, &d)
		if why != DropNone || local != 0 || out.Remote.Addr() != addr(theirs2) {
			panic("not the pair that is left")
		}
	}))
}
