package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSetEIDs: packets of a new EID pass in both directions from then on, those of one
// that is gone don't, and nothing happens to any other.
func TestSetEIDs(t *testing.T) {
	const stays, old, newer, farther = "10.1.0.1", "10.1.0.2", "fd00:1::1", "fd00:2::1"
	const far = "10.2.0.1"
	var n memNet
	a := newNode(t, &n, nodeConfig{eids: []string{stays + "/32", old + "/32"}, rlocs: []string{"192.0.2.1"}})
	b := newNode(t, &n, nodeConfig{eids: []string{far + "/32", farther + "/128"}, rlocs: []string{"192.0.2.2"}})
	a.learn(t, 0, far+"/32", "192.0.2.2")
	a.learn(t, 0, farther+"/128", "192.0.2.2")
	for _, e := range []string{stays + "/32", old + "/32", newer + "/128"} {
		b.learn(t, 0, e, "192.0.2.1")
	}
	a.run(t)
	b.run(t)
	var sources, others uint64
	passes := func(eid string, want bool) {
		t.Helper()
		to := far
		if addr(eid).Is6() {
			to = farther
		}
		// One of the EID that stays is behind each, so that it is known what became of it.
		for _, p := range [][2]string{{eid, to}, {stays, far}} {
			a.device.send(packetSpec{src: p[0], dst: p[1], ttl: 64, payloadLen: 8}.build())
			b.device.send(packetSpec{src: p[1], dst: p[0], ttl: 64, payloadLen: 8}.build())
		}
		for _, x := range []*node{a, b} {
			var p inner
			if want {
				require.Equal(t, DropNone, parseInner(x.device.next(t), &p))
				assert.Contains(t, []netip.Addr{p.src, p.dst}, addr(eid))
			}
			require.Equal(t, DropNone, parseInner(x.device.next(t), &p))
			assert.Contains(t, []netip.Addr{p.src, p.dst}, addr(stays))
		}
		if !want {
			sources, others = sources+1, others+1
		}
		s := a.Stats()
		assert.Equal(t, sources, s.Drops[DropSource])
		assert.Equal(t, others, s.Drops[DropNotOurEID])
	}
	passes(old, true)
	passes(newer, false)
	require.NoError(t, a.SetEIDs(0, []netip.Prefix{prefix(stays + "/32"), prefix(newer + "/128")}))
	passes(newer, true)
	passes(old, false)
	// What is no EID-Prefix, or of no instance of ours, changes nothing.
	require.ErrorContains(t, a.SetEIDs(0, []netip.Prefix{{}}), "is not a plain prefix")
	require.ErrorContains(t, a.SetEIDs(7, nil), "there is no instance 7")
	passes(newer, true)
	require.NoError(t, a.SetEIDs(0, []netip.Prefix{prefix(stays + "/16")}))
	passes(old, true)
	assert.True(t, a.overlays[0].own.Load().forwards, "there may be others behind the device")
	require.NoError(t, a.Close())
	require.ErrorIs(t, a.SetEIDs(0, nil), errClosed)
}

// TestSetEIDsMTU: with an IPv6 EID the device needs 1280 octets, without it follows
// its uplink.
func TestSetEIDsMTU(t *testing.T) {
	var d *mtuDevice
	v4, both := []netip.Prefix{prefix("10.1.0.1/32")}, []netip.Prefix{prefix("10.1.0.1/32"), prefix("fd00::1/128")}
	x := newNode(t, &memNet{}, nodeConfig{mtu: 1300, rlocs: []string{rlocA4}, change: func(c *Config) {
		d = &mtuDevice{memDevice: c.Overlays[0].Device.(*memDevice)}
		c.Overlays[0].Device, c.Overlays[0].EIDs = d, v4
	}})
	require.NoError(t, x.SetEIDs(0, both))
	require.NoError(t, x.SetEIDs(0, both[1:]))
	require.NoError(t, x.SetEIDs(0, v4))
	assert.Equal(t, []int{1264, 1280, 1264}, d.set)
	d.err = assert.AnError
	require.ErrorIs(t, x.SetEIDs(0, both), assert.AnError)
}
