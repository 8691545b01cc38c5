package mapcache

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Sets whose hashes collide stay apart, whichever goes first.
func TestSetsWithEqualHashes(t *testing.T) {
	t.Parallel()
	for first := range 3 {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			c := New(Config{})
			var keys []Key
			for i := range 3 {
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				keys = append(keys, HostKey(0, a))
				require.NoError(t, c.Insert(time.Unix(0, 0), Mapping{
					Key: keys[i], TTL: time.Hour, RLOCs: []RLOC{{Locator: Locator{Addr: a}}},
				}))
			}
			for id := uint32(1); id <= 3; id++ {
				c.sets.index.remove(id)
			}
			const hash = 42
			for id := uint32(1); id <= 3; id++ {
				c.sets.index.put(hash, id)
			}
			for i := range 3 {
				assert.True(t, c.Remove(time.Unix(0, 0), keys[(first+i)%3]))
				for id := uint32(1); id <= 3; id++ {
					if h := c.sets.hot.at(id); *c.sets.refs.at(id) > 0 {
						assert.Equal(t, id, c.sets.find(hash, h.verdict, h.action, h.choice.members))
					}
				}
			}
			assert.Zero(t, c.sets.index.n)
		})
	}
}

// Numbers rest before they are used again, so that counters kept by number are
// not credited to a successor at once.
func TestNumbersRest(t *testing.T) {
	t.Parallel()
	var p ids
	for want := uint32(1); want <= 1000; want++ {
		require.Equal(t, want, p.take())
	}
	for id := uint32(1); id <= 1000; id++ {
		p.put(id)
	}
	freed := make(map[uint32]int)
	for round := range 5000 {
		id := p.take()
		require.NotZero(t, id)
		require.LessOrEqual(t, id, uint32(1000), "numbers are used again")
		if at, ok := freed[id]; ok {
			require.Greater(t, round-at, idRest)
		}
		p.put(id)
		freed[id] = round
	}
	assert.LessOrEqual(t, len(p.free), 2100, "the queue of free numbers does not grow")
}

func TestNegLog2(t *testing.T) {
	t.Parallel()
	assert.Equal(t, uint64(0), negLog2(1<<32-1))
	assert.Equal(t, uint64(32<<16), negLog2(0))
	assert.Equal(t, uint64(1<<16), negLog2(1<<31-1))
	last := negLog2(0)
	for u := uint64(1); u < 1<<32; u += 1 << 32 / 9973 {
		v := negLog2(uint32(u))
		require.LessOrEqual(t, v, last, "%d", u)
		last = v
	}
}

// The index finds what is in it and nothing else, while it grows and empties.
func TestChains(t *testing.T) {
	t.Parallel()
	var c chains
	c.init()
	r := rand.New(rand.NewPCG(1, 2))
	hashes := make(map[uint32]uint32)
	check := func(want int) {
		longest := 0
		for id, hash := range hashes {
			looked := 0
			require.Equal(t, id, c.find(hash, func(have uint32) bool { looked++; return have == id }))
			longest = max(longest, looked)
			require.Zero(t, c.find(hash, func(uint32) bool { return false }))
		}
		require.LessOrEqual(t, longest, 4)
		require.Equal(t, want, int(c.n))
		chain := 0
		for b := range c.buckets {
			n := 0
			for id := *c.heads.at(b); id != 0; id = c.links.at(id).next {
				n++
			}
			chain = max(chain, n)
		}
		require.Less(t, chain, 16, "longest chain of %d buckets", c.buckets)
	}
	for id := uint32(1); id <= 5000; id++ {
		hashes[id] = r.Uint32()
		if id%100 == 0 {
			hashes[id] = hashes[id-1]
		}
		c.put(hashes[id], id)
		require.LessOrEqual(t, c.n, c.buckets)
		if id == 1000 || id == 1024 || id == 5000 {
			check(int(id))
		}
	}
	for id := uint32(1); id <= 5000; id += 2 {
		c.remove(id)
		require.Zero(t, c.find(hashes[id], func(have uint32) bool { return have == id }))
		delete(hashes, id)
	}
	check(2500)
}
