package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// arrivals returns how many packets are counted as arrived, by locator.
func (x *node) arrivals() map[mapcache.Locator]uint64 {
	got := map[mapcache.Locator]uint64{}
	for _, l := range x.Stats().Locators {
		if l.In.Packets > 0 {
			got[l.Locator] = l.In.Packets
		}
	}
	return got
}

// What arrives is counted for the locator that the map-cache has, also if packets came
// from its address before any went there, or if it has changed since.
func TestArrivalsAreTheLocators(t *testing.T) {
	x := newA(t, &memNet{}, "")
	g := newIngress(x.Forwarder, x.underlay)
	arrive := func() {
		g.receive([]Incoming{from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: eidA4}.build()))})
	}
	a := addr(rlocB4)
	unknown := mapcache.Locator{Addr: a, Port: 4341}
	gpe := mapcache.Locator{Addr: a, Port: 4341, Format: mapcache.FormatGPE}
	vxlan := mapcache.Locator{Addr: a, Port: 4790, Format: mapcache.FormatVXLANGPE}

	arrive()
	x.learnFormat(t, 0, eidB4+"/32", rlocB4, mapcache.FormatGPE)
	arrive() // nothing was sent there yet
	assert.Equal(t, map[mapcache.Locator]uint64{unknown: 2}, x.arrivals())
	x.push(numbered(eidB4, 1))
	arrive()
	arrive()
	assert.Equal(t, map[mapcache.Locator]uint64{unknown: 2, gpe: 2}, x.arrivals())

	x.learnFormat(t, 0, eidB4+"/32", rlocB4, mapcache.FormatVXLANGPE)
	x.push(numbered(eidB4, 2))
	arrive()
	assert.Equal(t, map[mapcache.Locator]uint64{unknown: 2, gpe: 2, vxlan: 1}, x.arrivals())
	// And back, by another number of the locator.
	x.learn(t, 0, "10.9.0.0/16", "192.0.2.9")
	x.learnFormat(t, 0, eidB4+"/32", rlocB4, mapcache.FormatGPE)
	x.push(numbered(eidB4, 3))
	arrive()
	assert.Equal(t, map[mapcache.Locator]uint64{unknown: 2, gpe: 3, vxlan: 1}, x.arrivals())
}

// Locators that share an address, as nodes behind one NAT, are told apart by their
// ports where that can be: in ICMP errors about what was sent to them.
func TestLocatorsOfOneAddress(t *testing.T) {
	x := newA(t, &memNet{}, "")
	to := func(port uint16) mapcache.Locator { return mapcache.Locator{Addr: addr(rlocB4), Port: port, NAT: true} }
	eids := []string{"10.3.0.1", "10.3.0.2", "10.3.0.3"}
	for i, e := range eids {
		x.insert(t, mapcache.Mapping{
			Key: hostKey(e), TTL: mapcache.TTLForever,
			RLOCs: []mapcache.RLOC{{Locator: to(uint16(1001 + i)), Priority: 1, Weight: 1}},
		})
		x.push(packetSpec{src: eidA4, dst: e, payloadLen: 40}.build())
	}
	out := x.underlay.take()
	require.Len(t, out, len(eids))
	hears := func(i int) bool {
		spec := outerSpec{local: rlocA4, remote: rlocB4, sport: 60000, dport: out[i].Remote.Port(), header: out[i].Bytes}
		return x.hears(t, mustICMP(spec, 3, 1, 0), false)
	}
	for i := range eids {
		require.Equal(t, netip.AddrPortFrom(addr(rlocB4), uint16(1001+i)), out[i].Remote)
		require.True(t, hears(i))
		assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoveryUnreachable, Locator: to(uint16(1001 + i))}, <-x.Discoveries())
	}
	// One that has gone is not meant any more, the others are.
	x.cache.Remove(x.now, hostKey(eids[1]))
	x.cache.Publish()
	out[1].Bytes = out[1].Bytes[:8] // nothing is quoted that tells
	assert.False(t, hears(1))
	assert.True(t, hears(0))
	assert.True(t, hears(2))
}

// A locator that comes and goes gets the numbers again that it had. It is known by the
// one that it has.
func TestLocatorsNumbersAgain(t *testing.T) {
	x := newA(t, &memNet{}, "")
	to := mapcache.Locator{Addr: addr(rlocB4), Port: 4341}
	for range 600 { // numbers rest while 256 others are freed
		x.learn(t, 0, eidB4+"/32", rlocB4)
		x.push(numbered(eidB4, 1))
		x.underlay.take()
		live, ok := x.remotes.live(x.cache.View(), netip.AddrPortFrom(to.Addr, to.Port))
		require.True(t, ok)
		require.Equal(t, to, live)
		x.cache.Remove(x.now, hostKey(eidB4))
		x.cache.Publish()
	}
}

// The counters with one address are one list, each in it once, in both directions.
func TestCountersOfOneAddress(t *testing.T) {
	c := newLocatorCounters()
	order := func() (ports []uint16) {
		for lc := c.byAddr[addr(rlocB4)]; lc != nil && len(ports) < 10; lc = lc.next {
			ports = append(ports, lc.locator.Port)
			assert.True(t, lc.prev == nil || lc.prev.next == lc)
			assert.True(t, lc.next == nil || lc.next.prev == lc)
		}
		return ports
	}
	use := func(id uint32, port uint16) { c.forID(id, &mapcache.Locator{Addr: addr(rlocB4), Port: port}) }
	use(1, 1)
	use(2, 2)
	use(3, 3)
	assert.Equal(t, []uint16{3, 2, 1}, order())
	use(4, 1) // the last
	assert.Equal(t, []uint16{1, 3, 2}, order())
	use(5, 3) // one in the middle
	assert.Equal(t, []uint16{3, 1, 2}, order())
	use(6, 3) // the first
	assert.Equal(t, []uint16{3, 1, 2}, order())
	use(6, 3) // as known
	assert.Equal(t, []uint16{3, 1, 2}, order())
}
