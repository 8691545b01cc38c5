package encap

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// node is a Forwarder with all its surroundings in memory.
type node struct {
	*Forwarder
	device   *memDevice
	underlay *memUnderlay
	native   *memNative
	cache    *mapcache.Cache
	now      time.Time
}

type nodeConfig struct {
	eids    []string
	rlocs   []string
	change  func(*Config)
	mtu     int // -1: not known
	pathMTU int
}

// newNode returns a Forwarder that does not run yet.
func newNode(t testing.TB, n *memNet, cfg nodeConfig) *node {
	t.Helper()
	cache := mapcache.New(mapcache.Config{})
	var addrs []netip.Addr
	for _, a := range cfg.rlocs {
		addrs = append(addrs, addr(a))
	}
	x := &node{device: newMemDevice("lmn0"), underlay: n.node(addrs...), native: &memNative{mtu: 1500}, cache: cache, now: time.Now()}
	if cfg.mtu != 0 {
		x.underlay.mtu = cfg.mtu
	}
	x.underlay.path = cfg.pathMTU
	o := Overlay{Device: x.device}
	for _, e := range cfg.eids {
		o.EIDs = append(o.EIDs, prefix(e))
	}
	c := Config{Overlays: []Overlay{o}, View: cache.View, Meter: cache.NewMeter, Underlay: x.underlay, Native: x.native}
	if cfg.change != nil {
		cfg.change(&c)
	}
	var err error
	x.Forwarder, err = NewForwarder(c)
	require.NoError(t, err)
	require.NoError(t, x.SetLocals(locals(cfg.rlocs...)))
	t.Cleanup(func() { x.Close() })
	return x
}

// run makes the node work until the test ends.
func (x *node) run(t testing.TB) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- x.Run(context.Background()) }()
	t.Cleanup(func() {
		x.Close()
		require.NoError(t, <-ended)
	})
}

// learn puts a mapping into the map-cache and applies it.
func (x *node) learn(t testing.TB, iid uint32, eid string, rlocs ...string) {
	t.Helper()
	m := mapcache.Mapping{Key: mapcache.Key{IID: iid, Prefix: prefix(eid)}, TTL: time.Hour}
	for _, r := range rlocs {
		m.RLOCs = append(m.RLOCs, mapcache.RLOC{Locator: mapcache.Locator{Addr: addr(r)}, Priority: 1, Weight: 1})
	}
	x.insert(t, m)
}

func (x *node) insert(t testing.TB, m mapcache.Mapping) {
	t.Helper()
	require.NoError(t, x.cache.Insert(x.now, m))
	x.cache.Publish()
	require.NoError(t, x.Apply(x.cache.Changes()))
}

func TestTwoForwarders(t *testing.T) {
	for _, tt := range []struct {
		name         string
		rlocA, rlocB string
		eidA, eidB   string
	}{
		// RFC 9300-5-3: all four combinations of families.
		{"IPv4 in IPv4", "192.0.2.1", "192.0.2.2", "10.1.0.1", "10.2.0.1"},
		{"IPv6 in IPv4", "192.0.2.1", "192.0.2.2", "fd00:1::1", "fd00:2::1"},
		{"IPv4 in IPv6", "2001:db8::1", "2001:db8::2", "10.1.0.1", "10.2.0.1"},
		{"IPv6 in IPv6", "2001:db8::1", "2001:db8::2", "fd00:1::1", "fd00:2::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var n memNet
			eid := func(s string) string { return netip.PrefixFrom(addr(s), addr(s).BitLen()).String() }
			a := newNode(t, &n, nodeConfig{eids: []string{eid(tt.eidA)}, rlocs: []string{tt.rlocA}})
			b := newNode(t, &n, nodeConfig{eids: []string{eid(tt.eidB)}, rlocs: []string{tt.rlocB}})
			a.learn(t, 0, eid(tt.eidB), tt.rlocB)
			b.learn(t, 0, eid(tt.eidA), tt.rlocA)
			a.run(t)
			b.run(t)

			for size := range 3 {
				there := packetSpec{src: tt.eidA, dst: tt.eidB, sport: 1000, dport: 2000, payloadLen: size * 500, ttl: 64}.build()
				a.device.send(there)
				want := clone(there)
				var p inner
				require.Equal(t, DropNone, parseInner(want, &p))
				setTOSTTL(want, &p, p.tos, 63) // one router on the way
				assert.Equal(t, want, b.device.next(t))

				back := packetSpec{src: tt.eidB, dst: tt.eidA, sport: 2000, dport: 1000, payloadLen: size * 500, ttl: 64}.build()
				b.device.send(back)
				want = clone(back)
				require.Equal(t, DropNone, parseInner(want, &p))
				setTOSTTL(want, &p, p.tos, 63)
				assert.Equal(t, want, a.device.next(t))
			}

			assert.EqualValues(t, 3, a.Stats().Decapsulated.Packets)
			a.Close()
			assert.EqualValues(t, 3, a.Stats().Encapsulated.Packets)
			assert.Equal(t, [NumDropReasons]uint64{}, a.Stats().Drops)
		})
	}
}
