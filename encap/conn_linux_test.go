package encap

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestForwardersOverUDP runs two Forwarders over real sockets.
func TestForwardersOverUDP(t *testing.T) {
	rlocA, rlocB := addr("127.0.0.2"), addr("127.0.0.3")
	portA, portB := freePort(t, rlocA), freePort(t, rlocB)
	start := func(eid string, rloc netip.Addr, port uint16, remoteEID string, remote netip.AddrPort) (*memDevice, *Forwarder) {
		u, err := NewUDP(UDPConfig{Listen: []netip.Addr{rloc}, Port: port})
		require.NoError(t, err)
		cache := mapcache.New(mapcache.Config{})
		require.NoError(t, cache.Insert(time.Now(), mapcache.Mapping{
			Key:   mapcache.Key{Prefix: prefix(remoteEID)},
			TTL:   time.Hour,
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: remote.Addr(), Port: remote.Port()}, Priority: 1, Weight: 1}},
		}))
		cache.Publish()
		dev := newMemDevice("lmn0")
		f, err := NewForwarder(Config{
			Overlays: []Overlay{{Device: dev, EIDs: []netip.Prefix{prefix(eid)}}},
			View:     cache.View, Underlay: u,
		})
		require.NoError(t, err)
		require.NoError(t, f.SetLocals([]mapcache.Local{{Addr: rloc, Up: true, Priority: 1, Weight: 1}}))
		ended := make(chan error, 1)
		go func() { ended <- f.Run(t.Context()) }()
		t.Cleanup(func() {
			require.NoError(t, f.Close())
			require.NoError(t, <-ended)
		})
		return dev, f
	}
	a, fa := start("10.1.0.1/32", rlocA, portA, "10.2.0.0/16", netip.AddrPortFrom(rlocB, portB))
	b, fb := start("10.2.0.1/32", rlocB, portB, "10.1.0.0/16", netip.AddrPortFrom(rlocA, portA))

	var packets [][]byte
	for i := range 40 {
		packets = append(packets, packetSpec{src: "10.1.0.1", dst: "10.2.0.1", sport: 1, dport: 2, id: uint16(i), payloadLen: 1400, tos: 2}.build())
	}
	for range 20 {
		a.send(packets...)
		for i := range packets {
			require.Equal(t, packets[i], b.next(t))
		}
	}
	back := packetSpec{src: "10.2.0.1", dst: "10.1.0.1", sport: 2, dport: 1, payloadLen: 10}.build()
	b.send(back)
	assert.Equal(t, back, a.next(t))

	require.NoError(t, fa.Close()) // sent packets are counted after they left
	s := fa.Stats()
	assert.Equal(t, []LocatorStats{{
		Locator: mapcache.Locator{Addr: rlocB, Port: portB},
		Out:     Counter{800, 800 * 1428},
		In:      Counter{1, 38},
	}}, s.Locators)
	assert.EqualValues(t, 800, s.Encapsulated.Packets)
	assert.EqualValues(t, 1, s.Decapsulated.Packets)
	assert.Equal(t, [NumDropReasons]uint64{}, s.Drops)
	assert.EqualValues(t, 800, fb.Stats().Decapsulated.Packets)
}
