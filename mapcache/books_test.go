package mapcache

import (
	"fmt"
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
			clear(c.sets.index.first)
			const hash = 42
			for id := uint32(1); id <= 3; id++ {
				c.sets.index.put(hash, id)
			}
			for i := range 3 {
				assert.True(t, c.Remove(time.Unix(0, 0), keys[(first+i)%3]))
				for id := uint32(1); id <= 3; id++ {
					if h := c.sets.hot.at(id); h.choice != nil {
						assert.Equal(t, id, c.sets.find(hash, h.verdict, h.action, h.choice.members))
					}
				}
			}
			assert.Empty(t, c.sets.index.first)
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
