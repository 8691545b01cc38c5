package encap

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestBurst: what becomes of packets does not depend on how many of them come at
// once, nor on a destination cache: known and unknown destinations, all verdicts,
// runs of a flow and single packets, some too large and some that are none at all.
func TestBurst(t *testing.T) {
	const other = "10.1.0.9" // of the second instance
	setup := func() *node {
		x := newA(t, &memNet{}, "", func(c *nodeConfig) {
			c.change = func(cfg *Config) {
				cfg.Overlays = append(cfg.Overlays, Overlay{InstanceID: 7, Device: newMemDevice("lmn7"), EIDs: []netip.Prefix{prefix(other + "/32")}})
				cfg.ICMPRate = 1e9
			}
		})
		for i := range 200 {
			x.learn(t, uint32(i%2)*7, fmt.Sprintf("10.2.%d.0/24", i), []string{rlocB4, rlocB6, "192.0.2.77"}[i%3])
		}
		for i, act := range []lisp.Action{lisp.ActionNativelyForward, lisp.ActionDropNoReason, lisp.ActionSendMapRequest, lisp.ActionDropPolicyDenied} {
			x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix(fmt.Sprintf("10.3.%d.0/24", i))}, TTL: time.Hour, Action: act})
		}
		x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.4.0.0/16")}, TTL: time.Hour, RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rlocB4)}, Priority: 255}}})
		x.learn(t, 0, "10.5.0.0/24", rlocA4)
		return x
	}
	r := rand.New(rand.NewPCG(3, 4))
	var packets [][]byte
	var of []int // the overlay
	spec := packetSpec{}
	for len(packets) < 3000 {
		instance := 0
		if r.IntN(20) == 0 {
			instance = 1
		}
		if len(packets) == 0 || r.IntN(3) > 0 {
			spec = packetSpec{src: eidA4, sport: uint16(r.IntN(3)), dport: uint16(1 + r.IntN(2))}
			spec.dst = []string{
				fmt.Sprintf("10.2.%d.1", r.IntN(200)), fmt.Sprintf("10.2.%d.1", r.IntN(4)), fmt.Sprintf("10.3.%d.1", r.IntN(4)),
				"10.4.0.1", "10.5.0.1", rlocA4, "224.0.0.1", "10.6.0.1",
			}[max(r.IntN(20)-12, 0)]
			if r.IntN(4) == 0 {
				spec.proto = layers.IPProtocolTCP
			}
			if r.IntN(20) == 0 {
				spec.src = "10.1.0.77"
			}
		}
		if instance == 1 {
			spec.src = other
		}
		spec.payloadLen, spec.df, spec.tos, spec.ttl = []int{10, 30, 1460}[min(r.IntN(20), 2)*r.IntN(2)], r.IntN(2) == 0, uint8(r.IntN(8)), uint8(2+r.IntN(3))
		b := spec.build()
		if r.IntN(40) == 0 {
			b = b[:r.IntN(len(b))]
		}
		packets, of = append(packets, b), append(of, instance)
	}

	type result struct {
		out    []string
		native [][]byte
		icmp   []string
		stats  Stats
		held   []mapcache.Key
	}
	run := func(batch int, cached bool) result {
		x := setup()
		e := newEgress(x.Forwarder)
		if cached {
			e.destinations = new(mapcache.DestinationCache)
		}
		var res result
		for from := 0; from < len(packets); from += batch {
			e.begin()
			for i := from; i < min(from+batch, len(packets)); i++ {
				e.packet(x.overlays[of[i]], append(make([]byte, Headroom), packets[i]...), len(packets[i]))
			}
			e.flush()
		}
		for _, o := range x.underlay.take() {
			res.out = append(res.out, fmt.Sprintf("%v %v %x %d %d %v %x", o.Remote, o.Format, o.Hash, o.TTL, o.TOS, o.MayFragment, o.Bytes))
		}
		for _, v := range x.overlays {
			for d := v.device.(*memDevice); len(d.out) > 0; {
				res.icmp = append(res.icmp, fmt.Sprintf("%x", <-d.out))
			}
		}
		// Packets of different locators of ours leave in any order.
		slices.Sort(res.out)
		slices.Sort(res.icmp)
		res.native, res.stats, res.held = x.native.sent, x.Stats(), x.PendingMisses(nil)
		res.stats.DiscoveryDrops = 0
		return res
	}
	want := run(1, false)
	require.Greater(t, len(want.out), 800)
	require.NotEmpty(t, want.native)
	require.NotEmpty(t, want.held)
	require.NotEmpty(t, want.icmp)
	for _, why := range []DropReason{DropTruncated, DropScope, DropSource, DropLoop, DropAction, DropRequest, DropNoLocator, DropTooBig, DropHoldFull} {
		require.NotZero(t, want.stats.Drop(why), why)
	}
	for _, batch := range []int{1, 2, burstLen - 1, burstLen, burstLen + 1, 100, 3000} {
		for _, cached := range []bool{false, true} {
			got := run(batch, cached)
			name := fmt.Sprintf("batches of %d, cached %v", batch, cached)
			assert.Equal(t, want.stats, got.stats, name)
			assert.True(t, slices.Equal(want.out, got.out), name)
			assert.True(t, slices.Equal(want.icmp, got.icmp), name)
			assert.Equal(t, want.native, got.native, name)
			assert.Equal(t, want.held, got.held, name)
		}
	}
}
