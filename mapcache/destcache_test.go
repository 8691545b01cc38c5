package mapcache_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestDestinationCache: whatever is published, deleted or down, the decisions are
// those of the View, for batches of all lengths and for known and unknown
// destinations of both families and several instances.
func TestDestinationCache(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	c := mapcache.New(mapcache.Config{MaxEntries: 1 << 14})
	dsts := []netip.Addr{{}, addr("::"), addr("::ffff:20.0.0.1"), addr("fe80::1%eth0")}
	for i := range 3000 {
		dsts = append(dsts, netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}))
	}
	change := func(n int) {
		for range n {
			a := dsts[1+r.IntN(len(dsts)-1)].WithZone("")
			m := mapcache.Mapping{Key: mapcache.HostKey(uint32(r.IntN(2))*7, a.Unmap()), TTL: time.Hour, RLOCs: twoRLOCs(r.IntN(40))}
			if r.IntN(3) == 0 {
				c.Remove(t0, m.Key)
				continue
			}
			require.NoError(t, c.Insert(t0, m))
		}
	}
	require.NoError(t, c.Insert(t0, negative("::/0", 1, time.Hour)))
	change(4000)
	c.Publish()

	var cache mapcache.DestinationCache
	var found int
	for round := range 300 {
		switch {
		case round%5 == 0: // the same View, and other locators up
			l := twoRLOCs(r.IntN(40))[r.IntN(2)].Locator
			c.SetReachable(l, r.IntN(2) == 0)
		case round%20 == 1:
			change(100)
			c.Publish()
		case round%20 == 2:
			change(100) // not published
		}
		n := r.IntN(200)
		dst, hash := make([]netip.Addr, n), make([]uint32, n+1)
		want, got := make([]mapcache.Decision, n), make([]mapcache.Decision, n+1)
		for i := range dst {
			dst[i], hash[i] = dsts[r.IntN(len(dsts))], r.Uint32()
			got[i] = mapcache.Decision{LocatorID: 77, Locator: mapcache.Locator{Port: 9}}
		}
		iid := uint32(r.IntN(3)) * 7 // 14 is unknown
		v := c.View()
		cache.ForwardBatch(v, iid, dst, hash, got)
		v.ForwardBatch(iid, dst, hash, want)
		require.Equal(t, want, got[:n])
		assert.Zero(t, got[n])
		for _, d := range want {
			if d.Verdict == mapcache.Encapsulate {
				found++
			}
		}
	}
	assert.Greater(t, found, 3000)
}

// TestDestinationCacheMarks: a packet whose lookup was saved marks its entry as
// used, too: it is refreshed before it ends.
func TestDestinationCacheMarks(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", 10*time.Minute))
		var cache mapcache.DestinationCache
		forward := func() {
			out := make([]mapcache.Decision, 1)
			cache.ForwardBatch(c.View(), 0, []netip.Addr{addr("10.1.0.1")}, []uint32{1}, out)
			assert.Equal(t, addr("192.0.2.1"), out[0].Locator.Addr)
		}
		forward()
		assert.Empty(t, advance(c, t0.Add(time.Minute)))
		assert.Empty(t, advance(c, t0.Add(8*time.Minute)))
		want := []string(nil)
		if again {
			forward()
			want = []string{"10.1.0.0/16"}
		}
		assert.Equal(t, want, advance(c, t0.Add(9*time.Minute)))
	}
}

// TestDestinationCacheForgets: of what it kept for another instance or View, in
// however many changes of them, nothing is used.
func TestDestinationCacheForgets(t *testing.T) {
	t.Parallel()
	in7 := positive("10.1.0.0/16", "192.0.2.7", time.Hour)
	in7.IID = 7
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", time.Hour), in7)
	var cache mapcache.DestinationCache
	forward := func(iid uint32, dst string) string {
		out := make([]mapcache.Decision, 1)
		cache.ForwardBatch(c.View(), iid, []netip.Addr{addr(dst)}, []uint32{1}, out)
		return out[0].Locator.Addr.String()
	}
	for n := range 10_000 {
		dst := "10.1.0.2"
		if n%4095 == 0 {
			dst = "10.1.0.1"
		}
		if n%2 == 0 {
			require.Equal(t, "192.0.2.1", forward(0, dst))
		} else {
			require.Equal(t, "192.0.2.7", forward(7, dst))
		}
	}
}
