package ebpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// Locators may share an address, as nodes behind one NAT do, or one whose port there
// has just changed. What arrives is counted for one that there is, and an ICMP error
// finds each of them by its port.
func TestLocatorsOfOneAddress(t *testing.T) {
	tw := newTwin(t, nodeConfig{eids: []string{"10.1.0.1/32"}, locals: []mapcache.Local{{Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}}}, nil)
	a := addr("203.0.113.1")
	put := func(eid string, port uint16) {
		tw.insert(t, mapcache.Mapping{
			Key: mapcache.MakeKey(0, netip.MustParsePrefix(eid)), TTL: mapcache.TTLForever,
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: a, Port: port, NAT: true}, Priority: 1, Weight: 1}},
		})
	}
	remove := func(eid string) {
		tw.cache.Remove(time.Now(), mapcache.MakeKey(0, netip.MustParsePrefix(eid)))
		tw.publish(t)
	}
	counted := func() uint16 { // the port of the locator that arrivals are counted for
		var id uint32
		if tw.kernel.objs.Sources.Lookup(addressOf(a), &id) != nil {
			return 0
		}
		return tw.kernel.mirror.state[id].locator.Port
	}
	// linked: from each there is a way back.
	linked := func() {
		m, before := tw.kernel.mirror, uint32(0)
		for id := m.sources[a]; id != 0; before, id = id, m.state[id].next {
			assert.Equal(t, before, m.state[id].prev)
		}
	}
	known := func() (ports []uint16) {
		t.Helper()
		linked()
		for port := range uint16(10) {
			l, ok := (*offload)(tw.kernel).SendsTo(netip.AddrPortFrom(a, port))
			if ok {
				require.Equal(t, port, l.Port)
				ports = append(ports, port)
			}
		}
		return ports
	}
	put("10.2.0.1/32", 1)
	assert.EqualValues(t, 1, counted())
	put("10.2.0.1/32", 2) // the NAT has another port for it
	assert.EqualValues(t, 2, counted())
	assert.Equal(t, []uint16{2}, known())
	put("10.2.0.2/32", 3)
	put("10.2.0.3/32", 4)
	assert.Equal(t, []uint16{2, 3, 4}, known())
	remove("10.2.0.2/32") // in the middle
	assert.EqualValues(t, 4, counted())
	assert.Equal(t, []uint16{2, 4}, known())
	remove("10.2.0.3/32") // the last one
	assert.EqualValues(t, 2, counted())
	assert.Equal(t, []uint16{2}, known())
	put("10.2.0.4/32", 5)
	remove("10.2.0.1/32") // the first one
	assert.Equal(t, []uint16{5}, known())
	remove("10.2.0.4/32")
	assert.Zero(t, counted())
	assert.Empty(t, known())
	assert.Zero(t, size(t, tw.kernel.objs.Sources))
}
