package ebpf

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What is for an IPv6 locator that no route leads to is for user space, which counts it
// and tells the source, from the next Usage on; and for the kernel again when there is a
// route.
func TestNoRoute(t *testing.T) {
	p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, ""}, 0, mapcache.FormatLISP, nil)
	n := p.nodes[0]
	route := func(what string, args ...string) {
		n.host.MustRun("ip", append([]string{"-6", "route", what}, args...)...)
	}
	route("add", "unreachable", "2001:db8:c::/64")
	n.insert(t, mapTo(0, "10.80.0.1/32", "2001:db8:c::1", 0), mapTo(0, "10.80.0.2/32", "2001:db8:a::2", 0))
	device := newWire(t, n.host, ifindexOf(t, n.host, n.tun.Name()), nil)
	// fast sends a packet and tells whether the kernel took it.
	fast := func(dst string) bool {
		before := n.stats()
		device.send(t, spec{src: "10.3.0.1", dst: dst, sport: 3, dport: 4}.build())
		require.NoError(t, netlab.Eventually(t.Context(), "the packet is done with", func() bool {
			s := n.stats()
			return handled(&s.Stats) > handled(&before.Stats)
		}))
		s := n.stats()
		return s.KernelEncapsulated.Packets > before.KernelEncapsulated.Packets
	}
	usage := func() { n.plane.Usage(func(mapcache.Usage) {}) }
	assert.True(t, fast("10.80.0.1"), "nobody has looked yet")
	assert.True(t, fast("10.80.0.2"))
	usage()
	before := n.stats()
	assert.False(t, fast("10.80.0.1"))
	s := n.stats()
	assert.Equal(t, before.Drop(encap.DropSend)+1, s.Drop(encap.DropSend))
	assert.Equal(t, before.Slow[SlowLocator]+1, s.Slow[SlowLocator])
	assert.True(t, fast("10.80.0.2"), "others are not concerned")
	usage()
	assert.False(t, fast("10.80.0.1"), "still")
	route("del", "unreachable", "2001:db8:c::/64")
	route("add", "2001:db8:c::/64", "via", "2001:db8:a::2")
	usage()
	assert.True(t, fast("10.80.0.1"))
}
