package mapcache_test

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// mirrored chooses a locator as the documentation of Shares says that a data plane
// does which only knows of them: an index of rlocs, -1 for none.
func mirrored(rlocs []mapcache.RLOC, down map[int]bool, hash uint32) int {
	shares := mapcache.Shares(rlocs)
	best := func(usable func(i int) bool) int {
		p := 255
		for i := range rlocs {
			if shares[i].Usable && usable(i) {
				p = min(p, int(rlocs[i].Priority))
			}
		}
		return p
	}
	owner := func(priority int) int {
		for i, s := range shares {
			if int(rlocs[i].Priority) == priority && uint64(hash)*uint64(s.Of)>>32 < uint64(s.End) {
				if shares[i].Usable && !down[i] {
					return i
				}
				return -1
			}
		}
		return -1
	}
	if i := owner(best(func(int) bool { return true })); i >= 0 {
		return i
	}
	priority := best(func(i int) bool { return !down[i] })
	if i := owner(priority); i >= 0 || priority == 255 {
		return i
	}
	at, score := -1, 0.0
	for _, idle := range []bool{false, true} {
		for i, r := range rlocs {
			if int(r.Priority) != priority || !shares[i].Usable || down[i] || (r.Weight == 0) != idle {
				continue
			}
			if s := float64(negLog2(jhash1(hash, r.Salt()))) / float64(max(r.Weight, 1)); at < 0 || s < score {
				at, score = i, s
			}
		}
		if at >= 0 {
			break
		}
	}
	return at
}

// jhash1 is jhash2 of one word.
func jhash1(seed, word uint32) uint32 {
	a := 0xdeadbeef + 1<<2 + seed
	b, c := a, a
	a += word
	rol := bits.RotateLeft32
	c = (c ^ b) - rol(b, 14)
	a = (a ^ c) - rol(c, 11)
	b = (b ^ a) - rol(a, 25)
	c = (c ^ b) - rol(b, 16)
	a = (a ^ c) - rol(c, 4)
	b = (b ^ a) - rol(a, 14)
	return (c ^ b) - rol(b, 24)
}

func negLog2(u uint32) uint64 {
	t := mapcache.LogTable()
	x := uint64(u) + 1
	e := bits.Len64(x) - 1
	f := x << (32 - e) & (1<<32 - 1)
	lo, hi := uint64(t[f>>24]), uint64(t[f>>24+1])
	return 32<<16 - (uint64(e)<<16 + lo + (hi-lo)*(f%(1<<24))>>24)
}

// Who knows only Shares, Salt and LogTable of locator sets chooses as a View does.
func TestMirrorShares(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range 300 {
		c := newCache(t, mapcache.Config{})
		var rlocs []mapcache.RLOC
		for j := range 1 + rng.IntN(6) {
			r := mapcache.RLOC{
				Locator:  mapcache.Locator{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(j)}), Port: uint16(rng.IntN(2) * 5000)},
				Priority: uint8(rng.IntN(3)), Weight: uint8(rng.IntN(3) * rng.IntN(90)), Down: rng.IntN(5) == 0,
			}
			switch rng.IntN(12) {
			case 0:
				r.Priority = 255
			case 1:
				r.Addr = netip.AddrFrom4([4]byte{224, 0, 0, byte(j)})
			}
			rlocs = append(rlocs, r)
		}
		m := static(fmt.Sprintf("10.0.%d.0/24", i%256), "203.0.113.1")
		m.RLOCs = rlocs
		require.NoError(t, c.Insert(t0, m))
		c.Publish()
		down := map[int]bool{}
		for range 3 {
			for range 20 {
				hash := rng.Uint32()
				d := c.View().Forward(0, m.Prefix.Addr(), hash)
				if at := mirrored(rlocs, down, hash); at >= 0 {
					require.Equal(t, mapcache.Encapsulate, d.Verdict, "%v %v", rlocs, down)
					require.Equal(t, rlocs[at].Addr, d.Locator.Addr, "%v %v", rlocs, down)
				} else {
					require.Equal(t, mapcache.NoLocator, d.Verdict, "%v %v", rlocs, down)
				}
			}
			j := rng.IntN(len(rlocs))
			down[j] = !down[j]
			c.SetReachable(rlocs[j].Locator, !down[j])
		}
	}
}
