package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestTraceSourcePort: the source port is the one that packets of the flow have.
func TestTraceSourcePort(t *testing.T) {
	from, to := addr("127.0.0.2"), addr("127.0.0.3")
	u := newUDPPair(t, from, to, UDPConfig{}, UDPConfig{})
	sender, err := NewUDP(UDPConfig{Listen: []netip.Addr{from}, Port: freePort(t, from)})
	require.NoError(t, err)
	x := newNode(t, &memNet{}, nodeConfig{eids: []string{eidA4 + "/32"}, change: func(c *Config) { c.Underlay = sender }})
	require.NoError(t, x.SetLocals([]mapcache.Local{{Addr: from, Priority: 1, Up: true}}))
	x.insert(t, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix(eidB4 + "/32")}, TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: to, Port: u.remote.Port()}, Priority: 1, Weight: 1}},
	})
	seen := map[uint16]bool{}
	for sport := range uint16(32) {
		b := packetSpec{src: eidA4, dst: eidB4, ttl: 9, sport: sport, dport: 2}.build()
		want, err := x.Trace(0, b, Mark{})
		require.NoError(t, err)
		require.Equal(t, DropNone, want.Drop)
		x.push(b)
		got, _ := u.receive(t, 1)
		assert.Equal(t, want.SourcePort, got[0].Remote.Port())
		seen[want.SourcePort] = true
	}
	assert.Greater(t, len(seen), 4, "flows have different source ports")
}
