package ebpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// size counts what is in a map.
func size(t testing.TB, m *ebpf.Map) int {
	t.Helper()
	n := 0
	var key, value []byte
	it := m.Iterate()
	for it.Next(&key, &value) {
		n++
	}
	require.NoError(t, it.Err())
	return n
}

// hosts counts the single EIDs that packets find by their chains.
func hosts(t testing.TB, d *Dataplane) int {
	t.Helper()
	n := 0
	var chain, id uint32
	for it := d.objs.Hosts.Iterate(); it.Next(&chain, &id); {
		for id != 0 {
			var e bpfEntry
			require.NoError(t, d.objs.Entries.Lookup(id, &e))
			require.Equal(t, chain, hashEID(&e.Eid, d.tables.hosts.seed)&(d.objs.Hosts.MaxEntries()-1))
			n++
			id = e.Next
		}
	}
	return n
}

// mirrorOps does random things to a map-cache, with overlapping prefixes.
type mirrorOps struct {
	rng *rand.Rand
	now time.Time
}

func (o *mirrorOps) eid() netip.Addr {
	if o.rng.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, 2, byte(o.rng.IntN(3)), byte(o.rng.IntN(16))})
	}
	return netip.AddrFrom16([16]byte{0xfd, 0, 0, 2, 5: byte(o.rng.IntN(3)), 15: byte(o.rng.IntN(16))})
}

func (o *mirrorOps) prefix() netip.Prefix {
	a := o.eid()
	bits := pick(o.rng, []int{15, 16, 23, 24, 28, 30, 31, 32, 32, 32})
	if a.Is6() {
		bits = pick(o.rng, []int{31, 32, 47, 48, 124, 126, 128, 128, 128})
	}
	return netip.PrefixFrom(a, bits).Masked()
}

func (o *mirrorOps) step(t testing.TB, c *mapcache.Cache) {
	t.Helper()
	switch k := mapcache.MakeKey(0, o.prefix()); o.rng.IntN(10) {
	case 0, 1:
		c.Remove(o.now, k)
	case 2, 3:
		l := mapcache.Locator{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + o.rng.IntN(12))})}
		c.SetReachable(l, o.rng.IntN(2) == 0)
	case 4:
		o.now = o.now.Add(time.Duration(o.rng.IntN(60)) * time.Second)
		c.Advance(o.now)
	case 5:
		c.SetStatus(k, func(mapcache.Locator) bool { return o.rng.IntN(3) == 0 })
	default:
		m := mapcache.Mapping{Key: k, TTL: time.Duration(1+o.rng.IntN(5)) * time.Minute}
		if o.rng.IntN(5) > 0 {
			m.RLOCs = randomRLOCs(o.rng, 3)
		}
		_ = c.Insert(o.now, m) // full now and then
	}
}

// The kernel forwards as the map-cache says, after any series of changes of any
// kind, in batches of any size, with tables that are too small and changes that are
// lost; and keeps nothing that the map-cache does not have.
func TestMirror(t *testing.T) {
	for _, c := range []struct {
		name   string
		cache  mapcache.Config
		tables func(*Config)
		resync bool
	}{
		{"all fits", mapcache.Config{}, nil, false},
		{"evictions", mapcache.Config{MaxEntries: 24}, nil, false},
		{"changes are lost", mapcache.Config{MaxChanges: 8}, nil, true},
		{"few sets", mapcache.Config{}, func(c *Config) { c.MaxSets = 4 }, false},
		{"few entries", mapcache.Config{}, func(c *Config) { c.MaxEntries = 20 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var locals []mapcache.Local
			for _, a := range []string{"198.51.100.1", "2001:db8:a::1"} {
				locals = append(locals, mapcache.Local{Addr: addr(a), Priority: 1, Weight: 1, Up: true})
			}
			tw := newTwin(t, nodeConfig{eids: []string{"10.1.0.1/32", "fd00:1::1/128"}, locals: locals, cache: c.cache, ebpf: c.tables}, nil)
			if c.tables != nil {
				tw.kernel.mirror.entryIDs.max = min(tw.kernel.mirror.entryIDs.max, uint32(tw.kernel.cfg.MaxEntries)+1)
				tw.kernel.mirror.setIDs.max = min(tw.kernel.mirror.setIDs.max, uint32(tw.kernel.cfg.MaxSets)+1)
			}
			o := &mirrorOps{rand.New(rand.NewPCG(5, 6)), time.Now()}
			fast := 0
			for range steps(3000) / 10 {
				for range 1 + o.rng.IntN(12) {
					o.step(t, tw.cache)
				}
				tw.cache.Publish()
				if err := tw.kernel.Apply(tw.cache.Changes()); err != nil {
					require.ErrorIs(t, err, errFull)
				}
				for range 10 {
					s := spec{src: "10.1.0.1", ttl: 9, sport: uint16(o.rng.Uint32()), dport: 9999}
					dst := o.eid()
					if s.dst = dst.String(); dst.Is6() {
						s.src = "fd00:1::1"
					}
					packet := s.build()
					d := tw.cache.View().Forward(0, dst, mapcache.FlowHash(4341, packet))
					verdict, out := tw.run(t, tw.kernel.objs.EncapLan, ethernet(packet))
					if verdict == redirected {
						fast++
						require.Equal(t, mapcache.Encapsulate, d.Verdict)
						require.Equal(t, d.Locator.Addr, parseOuter(out).dst.Addr())
					} else if c.tables == nil {
						require.NotEqual(t, mapcache.Encapsulate, d.Verdict)
					}
				}
			}
			k := tw.kernel
			s := k.Stats()
			t.Logf("%d fast, %d resyncs, %+v", fast, s.Resyncs, tw.cache.Len())
			assert.Greater(t, fast, steps(3000)/200)
			assert.Equal(t, c.resync, s.Resyncs > 0)
			if !s.AllSlow {
				assert.Equal(t, tw.cache.Len(), hosts(t, k)+size(t, k.objs.Prefixes))
				assert.Equal(t, tw.cache.Len(), s.Entries)
			}
			locators := 0
			for range tw.cache.Locators() {
				locators++
			}
			if !s.AllSlow {
				assert.Equal(t, locators, s.Locators)
			}

			// All goes, and nothing stays behind.
			for e := range tw.cache.All() {
				tw.cache.Remove(o.now, e.Key)
			}
			tw.publish(t)
			s = k.Stats()
			assert.Zero(t, s.Entries+s.Locators+s.Sets)
			assert.False(t, s.AllSlow)
			assert.Zero(t, hosts(t, k)+size(t, k.objs.Prefixes)+size(t, k.objs.Sources))
		})
	}
}

// A locator that goes down is one write to the kernel, however many mappings use it.
func TestLocatorDownIsOneWrite(t *testing.T) {
	tw := newTwin(t, nodeConfig{eids: []string{"10.1.0.1/32"}, locals: []mapcache.Local{{Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}}}, nil)
	for i := range 500 {
		tw.insert(t, mapTo(0, fmt.Sprintf("10.2.%d.%d/32", i/256, i%256), "203.0.113.1", mapcache.FormatLISP))
	}
	tables := tw.kernel.mirror.t.(*kernelTables)
	before := tables.writes.Load()
	tw.cache.SetReachable(mapcache.Locator{Addr: addr("203.0.113.1")}, false)
	tw.publish(t)
	assert.EqualValues(t, 1, tables.writes.Load()-before)
	verdict, _ := tw.run(t, tw.kernel.objs.EncapLan, ethernet(spec{src: "10.1.0.1", dst: "10.2.0.7", ttl: 9}.build()))
	assert.EqualValues(t, -1, verdict)
}
