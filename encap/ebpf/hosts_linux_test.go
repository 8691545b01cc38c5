package ebpf

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Single EIDs are found in whatever order they come and go, however many have the
// same hash: those that their chain has no room for are among the prefixes.
func TestChains(t *testing.T) {
	tw := newTwin(t, nodeConfig{
		eids: []string{"10.1.0.1/32", "fd00:1::1/128"}, locals: []mapcache.Local{{Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
		ebpf: func(c *Config) { c.MaxEntries = 2 }, // four chains, and some 4,000 numbers
	}, nil)
	rng := rand.New(rand.NewPCG(8, 9))
	there := make(map[string]bool)
	var most, overflow int
	for range steps(4000) {
		eid, src := fmt.Sprintf("10.2.0.%d", rng.IntN(80)), "10.1.0.1"
		if rng.IntN(2) == 0 {
			eid, src = fmt.Sprintf("fd00:2::%x", 1+rng.IntN(80)), "fd00:1::1"
		}
		p := spec{src: src, dst: eid, ttl: 9}
		verdict, out := tw.run(t, tw.kernel.objs.EncapLan, ethernet(p.build()))
		if there[eid] {
			require.EqualValues(t, redirected, verdict, eid)
			require.Equal(t, addr("203.0.113.1"), parseOuter(out).dst.Addr())
		} else {
			require.EqualValues(t, -1, verdict, eid)
		}
		k := mapcache.HostKey(0, addr(eid))
		if there[eid] {
			tw.cache.Remove(time.Now(), k)
			tw.publish(t)
		} else {
			tw.insert(t, mapcache.Mapping{Key: k, RLOCs: mapTo(0, "10.2.0.0/32", "203.0.113.1", 0).RLOCs})
		}
		there[eid] = !there[eid]
		most, overflow = max(most, hosts(t, tw.kernel)), max(overflow, size(t, tw.kernel.objs.Prefixes))
	}
	assert.LessOrEqual(t, most, 4*maxChain)
	assert.Greater(t, most, 3*maxChain)
	assert.Greater(t, overflow, 10)
	for eid, is := range there {
		if is {
			tw.cache.Remove(time.Now(), mapcache.HostKey(0, addr(eid)))
		}
	}
	tw.publish(t)
	assert.Zero(t, hosts(t, tw.kernel)+size(t, tw.kernel.objs.Prefixes))
}

// Nobody can choose EIDs of one chain: the hash is another one with each Dataplane.
func TestHostsSeed(t *testing.T) {
	t.Parallel()
	e := mapcache.HostKey(0, addr("10.2.0.1"))
	eid := makeKey(e).eid()
	seen := make(map[uint32]bool)
	for range 8 {
		cfg := Config{Forwarder: new(encap.Forwarder), Encap: encap.Config{Overlays: make([]encap.Overlay, 1)}}
		require.NoError(t, cfg.complete())
		seen[hashEID(&eid, cfg.hostsSeed)] = true
	}
	assert.Greater(t, len(seen), 1)
}
