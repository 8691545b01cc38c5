package mapcache_test

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// counts are what was counted for an entry.
func counts(e mapcache.Entry) [4]uint64 {
	return [4]uint64{e.PacketsOut, e.OctetsOut, e.PacketsIn, e.OctetsIn}
}

func idOf(t *testing.T, c *mapcache.Cache, eid string) uint32 {
	t.Helper()
	e, ok := c.Get(key(eid))
	require.True(t, ok, eid)
	return e.ID
}

// Several Meters and reports count for each entry alone, also behind one locator.
func TestMeter(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", time.Hour), positive("10.2.0.0/16", "192.0.2.1", time.Hour))
	a, b := idOf(t, c, "10.1.0.0/16"), idOf(t, c, "10.2.0.0/16")
	out, more, in := c.NewMeter(mapcache.Outbound), c.NewMeter(mapcache.Outbound), c.NewMeter(mapcache.Inbound)
	out.Add([]mapcache.Tally{{EntryID: a, Packets: 2, Octets: 200}, {EntryID: b, Packets: 1, Octets: 10}, {EntryID: a, Packets: 1, Octets: 1}})
	out.Add([]mapcache.Tally{{EntryID: 0, Packets: 9, Octets: 9}, {EntryID: 1 << 31, Packets: 9, Octets: 9}}) // nobody's
	more.Add([]mapcache.Tally{{EntryID: a, Packets: 4, Octets: 400}})
	in.Add([]mapcache.Tally{{EntryID: a, Packets: 7, Octets: 700}})
	c.AddUsage(t0, mapcache.Usage{Key: key("10.2.0.0/16"), PacketsOut: 5, OctetsOut: 50, PacketsIn: 6, OctetsIn: 60})
	c.AddUsage(t0, mapcache.Usage{Key: mapcache.HostKey(0, addr("10.2.3.4")), PacketsIn: 1, OctetsIn: 2})
	c.AddUsage(t0, mapcache.Usage{Key: key("10.3.0.0/16"), PacketsIn: 1, OctetsIn: 2}) // no such entry

	want := map[mapcache.Key][4]uint64{
		key("10.1.0.0/16"): {7, 601, 7, 700},
		key("10.2.0.0/16"): {6, 60, 7, 62},
	}
	for e := range c.All() {
		assert.Equal(t, want[e.Key], counts(e), e.Key)
		again, _ := c.Get(e.Key)
		assert.Equal(t, e, again)
	}

	// Another mapping for the same Key is the same entry.
	require.NoError(t, c.Insert(t0.Add(time.Second), positive("10.1.0.0/16", "192.0.2.9", time.Hour)))
	e, _ := c.Get(key("10.1.0.0/16"))
	assert.Equal(t, want[e.Key], counts(e))
	// One that was gone begins at 0.
	require.True(t, c.Remove(t0, e.Key))
	require.NoError(t, c.Insert(t0, positive("10.1.0.0/16", "192.0.2.1", time.Hour)))
	e, _ = c.Get(e.Key)
	assert.Zero(t, counts(e))
}

// A number that is used again has nothing of the entry that had it before, not even
// what was counted for that after its end.
func TestMeterNumberUsedAgain(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", time.Hour))
	id := idOf(t, c, "10.1.0.0/16")
	out, in := c.NewMeter(mapcache.Outbound), c.NewMeter(mapcache.Inbound)
	batch := []mapcache.Tally{{EntryID: id, Packets: 3, Octets: 300}}
	out.Add(batch)
	in.Add(batch)
	c.AddUsage(t0, mapcache.Usage{Key: key("10.1.0.0/16"), PacketsOut: 1, OctetsOut: 100})
	c.Remove(t0, key("10.1.0.0/16"))
	out.Add(batch) // a packet that was under way
	for i := range 1000 {
		m := positive(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), 32).String(), "192.0.2.1", time.Hour)
		require.NoError(t, c.Insert(t0, m))
		e, _ := c.Get(m.Key)
		if e.ID == id {
			assert.Zero(t, counts(e))
			out.Add(batch)
			e, _ = c.Get(m.Key)
			assert.Equal(t, [4]uint64{3, 300}, counts(e))
			return
		}
		c.Remove(t0, m.Key)
	}
	t.Fatal("the number was not used again")
}

// TestMeterConcurrent: each goroutine counts by its own Meter while entries come and
// go and are read; nothing is lost and nothing comes to the wrong one.
func TestMeterConcurrent(t *testing.T) {
	t.Parallel()
	const workers, batches, stable = 4, 2000, 700
	c := mapcache.New(mapcache.Config{})
	ids := make([]uint32, stable)
	for i := range ids {
		k := mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		require.NoError(t, c.Insert(t0, mapcache.Mapping{Key: k, TTL: time.Hour, RLOCs: positive("10.0.0.0/8", "192.0.2.1", time.Hour).RLOCs}))
		e, _ := c.Get(k)
		ids[i] = e.ID
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			m := c.NewMeter(mapcache.Direction(w % 2))
			for n := range batches {
				i := (n*7 + w) % stable
				m.Add([]mapcache.Tally{{EntryID: ids[i], Packets: 1, Octets: uint64(i)}, {EntryID: ids[(i+1)%stable], Packets: 1, Octets: uint64((i + 1) % stable)}})
			}
		})
	}
	for i := range 2000 { // the owner of the cache
		k := mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}))
		require.NoError(t, c.Insert(t0, mapcache.Mapping{Key: k, TTL: time.Hour, RLOCs: positive("10.0.0.0/8", "192.0.2.1", time.Hour).RLOCs}))
		e, _ := c.Get(k)
		require.Zero(t, counts(e))
		c.Remove(t0, k)
		c.LookupEntry(0, netip.AddrFrom4([4]byte{10, 0, byte(i % stable >> 8), byte(i % stable)}))
	}
	wg.Wait()
	var out, in uint64
	for e := range c.All() {
		a := e.Prefix.Addr().As4()
		i := uint64(a[2])<<8 | uint64(a[3])
		assert.Equal(t, i*e.PacketsOut, e.OctetsOut)
		assert.Equal(t, i*e.PacketsIn, e.OctetsIn)
		out += e.PacketsOut
		in += e.PacketsIn
	}
	assert.EqualValues(t, workers*batches, out)
	assert.EqualValues(t, workers*batches, in)
}

// Counting allocates nothing but what entries take once, which is as much as the
// documentation says.
func TestMeterMemory(t *testing.T) {
	c := mapcache.New(mapcache.Config{})
	m := c.NewMeter(mapcache.Outbound)
	batch := []mapcache.Tally{{EntryID: 5, Packets: 1}, {EntryID: 70_000, Packets: 1}}
	m.Add(batch)
	assert.Zero(t, testing.AllocsPerRun(100, func() { m.Add(batch) }))

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 1 << 18
	for id := uint32(1 << 20); id < 1<<20+n; id++ {
		batch[0].EntryID = id
		m.Add(batch[:1])
	}
	runtime.ReadMemStats(&after)
	assert.InDelta(t, 16*n, after.TotalAlloc-before.TotalAlloc, 16*n/10)
}
