package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

func TestSourceCheck(t *testing.T) {
	known := packetSpec{src: eidB4, dst: eidA4, payloadLen: 5}.build()
	unknown := packetSpec{src: "10.77.0.1", dst: eidA4, payloadLen: 5}.build()
	for _, tt := range []struct {
		name   string
		check  SourceCheck
		packet []byte
		rloc   string
		want   DropReason
		asks   string
	}{
		{"unchecked, known", SourceUnchecked, known, rlocB4, DropNone, ""},
		{"unchecked, wrong", SourceUnchecked, known, "192.0.2.9", DropNone, ""},
		{"unchecked, unknown", SourceUnchecked, unknown, rlocB4, DropNone, ""},
		{"loose, known", SourceLoose, known, rlocB4, DropNone, ""},
		{"loose, other family", SourceLoose, known, rlocB6, DropNone, ""},
		{"loose, wrong", SourceLoose, known, "192.0.2.9", DropSourceRLOC, ""},
		{"loose, unknown", SourceLoose, unknown, rlocB4, DropNone, "10.77.0.1"},
		{"strict, known", SourceStrict, known, rlocB4, DropNone, ""},
		{"strict, wrong", SourceStrict, known, "192.0.2.9", DropSourceRLOC, ""}, // RFC 9300-16-s1
		{"strict, unknown", SourceStrict, unknown, rlocB4, DropSourceRLOC, "10.77.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, "", func(c *nodeConfig) { c.change = func(c *Config) { c.SourceCheck = tt.check } })
			x.learn(t, 0, eidB4+"/32", rlocB4, rlocB6)
			local := rlocA4
			if addr(tt.rloc).Is6() {
				local = rlocA6
			}
			got := x.pull(from(tt.rloc, local, encapsulated(0, 0, 0, tt.packet)))
			if tt.want == DropNone {
				assert.Equal(t, [][]byte{tt.packet}, got)
				assert.Empty(t, x.drops())
			} else {
				assert.Empty(t, got)
				assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops())
			}
			if tt.asks == "" {
				assert.Empty(t, x.Discoveries())
				return
			}
			d := <-x.Discoveries()
			assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoverySource, Key: hostKey(tt.asks), Source: addr(tt.asks)}, d)
		})
	}

	// Whoever makes up sources does not make us ask for all of them.
	x := newA(t, &memNet{}, "", func(c *nodeConfig) { c.change = func(c *Config) { c.SourceCheck = SourceStrict } })
	for range 10 * unknownSourceRate {
		x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, unknown)))
	}
	asked := 0
	for len(x.discoveries) > 0 {
		<-x.discoveries
		asked++
	}
	assert.Less(t, asked+int(x.Stats().DiscoveryDrops), 5*unknownSourceRate)
}

func TestProxyITR(t *testing.T) {
	x := newA(t, &memNet{}, rlocB4, func(c *nodeConfig) {
		c.change = func(c *Config) { c.Overlays[0].ProxyITR, c.Overlays[0].EIDs = true, nil }
	})
	b := packetSpec{src: "8.8.8.8", dst: eidB4, ttl: 9, payloadLen: 10}.build()
	x.push(b)
	out := x.underlay.take()
	require.Len(t, out, 1)
	assert.Equal(t, b, out[0].Bytes[8:]) // RFC 6832-5-s1
	assert.EqualValues(t, 9, out[0].TTL)
	assert.Equal(t, addr(rlocB4), out[0].Remote.Addr())
	// Its own outer packets never enter.
	x.push(packetSpec{src: rlocA4, dst: eidB4, payloadLen: 10}.build())
	assert.Equal(t, map[DropReason]uint64{DropLoop: 1}, x.drops())
	// And nothing arrives through it.
	assert.Empty(t, x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, packetSpec{src: eidB4, dst: "8.8.8.8"}.build()))))
	assert.EqualValues(t, 1, x.drops()[DropNotOurEID])

	plain := newA(t, &memNet{}, rlocB4)
	plain.push(b)
	assert.Equal(t, map[DropReason]uint64{DropSource: 1}, plain.drops())
}

func TestProxyETR(t *testing.T) {
	x := newA(t, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(c *Config) {
			c.Overlays[0].EIDs = nil
			c.Overlays[0].ProxyETR = []netip.Prefix{prefix("10.2.0.0/16"), prefix("fd00:2::/32")}
		}
	})
	for _, tt := range []struct {
		src, dst, rloc, local string
		want                  DropReason
	}{
		{eidB4, "8.8.8.8", rlocB4, rlocA4, DropNone},                    // RFC 6832-6-s1
		{eidB6, "2001:4860::8888", rlocB4, rlocA4, DropNone},            // RFC 6832-6.1-s2, 6832i-6.1-1
		{eidB4, "8.8.8.8", rlocB6, rlocA6, DropNone},                    // RFC 6832-6.1-s2, 6832i-6.1-1
		{"10.9.0.1", "8.8.8.8", rlocB4, rlocA4, DropNotOurEID},          // RFC 6832i-6.1-2
		{"fd00:9::1", "2001:4860::8888", rlocB6, rlocA6, DropNotOurEID}, // RFC 6832i-6.1-2
		{eidB4, "224.0.0.1", rlocB4, rlocA4, DropScope},
	} {
		b := packetSpec{src: tt.src, dst: tt.dst, payloadLen: 5}.build()
		before := x.drops()[tt.want]
		got := x.pull(from(tt.rloc, tt.local, encapsulated(0, 0, 0, b)))
		if tt.want == DropNone {
			assert.Equal(t, [][]byte{b}, got)
			continue
		}
		assert.Empty(t, got)
		assert.Equal(t, before+1, x.drops()[tt.want])
	}

	cfg := x.cfg
	cfg.Overlays = []Overlay{{Device: x.device, ProxyETR: []netip.Prefix{{}}}}
	_, err := NewForwarder(cfg)
	assert.Error(t, err)
}

// mtuDevice is a Device whose MTU can be set.
type mtuDevice struct {
	*memDevice
	set []int
	err error
}

func (d *mtuDevice) SetMTU(mtu int) error {
	if d.err != nil {
		return d.err
	}
	d.set, d.mtu = append(d.set, mtu), mtu
	return nil
}

func TestDeviceMTU(t *testing.T) {
	for _, tt := range []struct {
		name  string
		eids  []netip.Prefix
		link  int
		rlocs []string
		keep  bool
		want  []int
	}{
		{"IPv4 locator", []netip.Prefix{prefix("10.1.0.1/32")}, 1500, []string{rlocA4}, false, []int{1464}},
		{"IPv6 locator", []netip.Prefix{prefix("10.1.0.1/32")}, 1500, []string{rlocA6}, false, []int{1444}},
		{"the smaller counts", []netip.Prefix{prefix("10.1.0.1/32")}, 1500, []string{rlocA4, rlocA6}, false, []int{1444}},
		{"small link, IPv4 EID", []netip.Prefix{prefix("10.1.0.1/32")}, 1280, []string{rlocA4}, false, []int{1244}},
		{"small link, IPv6 EID", []netip.Prefix{prefix("fd00::1/128")}, 1280, []string{rlocA4}, false, []int{1280}},
		{"tiny link", []netip.Prefix{prefix("10.1.0.1/32")}, 300, []string{rlocA4}, false, []int{576}},
		{"large link", []netip.Prefix{prefix("10.1.0.1/32")}, 65536 + 100, []string{rlocA4}, false, []int{65535 - 36}},
		{"left alone", []netip.Prefix{prefix("10.1.0.1/32")}, 1500, []string{rlocA4}, true, nil},
	} {
		var d *mtuDevice
		x := newNode(t, &memNet{}, nodeConfig{mtu: tt.link, change: func(c *Config) {
			d = &mtuDevice{memDevice: c.Overlays[0].Device.(*memDevice)}
			d.mtu = 1400
			c.Overlays[0].Device, c.Overlays[0].EIDs, c.KeepDeviceMTU = d, tt.eids, tt.keep
		}})
		require.NoError(t, x.SetLocals(nil))
		assert.Empty(t, d.set, "without a locator there is nothing to follow")
		require.NoError(t, x.SetLocals(locals(tt.rlocs...)))
		require.NoError(t, x.SetLocals(locals(tt.rlocs...)))
		assert.Equal(t, tt.want, d.set, tt.name)
		if tt.want == nil {
			continue
		}
		d.err = assert.AnError
		x.underlay.mtu = 1450
		assert.ErrorIs(t, x.SetLocals(locals(tt.rlocs[0])), assert.AnError)
	}
}

// TestSourceCheckOfBatch: one good packet does not speak for the others of the batch.
func TestSourceCheckOfBatch(t *testing.T) {
	x := newA(t, &memNet{}, "", func(c *nodeConfig) { c.change = func(c *Config) { c.SourceCheck = SourceStrict } })
	x.learn(t, 0, eidB4+"/32", rlocB4)
	x.learn(t, 0, "10.2.0.99/32", rlocB6)
	g := newIngress(x.Forwarder, x.underlay)
	in := func(eid, rloc string) Incoming {
		return from(rloc, rlocA4, encapsulated(0, 0, 0, packetSpec{src: eid, dst: eidA4, payloadLen: 5}.build()))
	}
	g.receive([]Incoming{in(eidB4, rlocB4), in(eidB4, rlocB4), in(eidB4, "192.0.2.9"), in("10.2.0.99", rlocB4), in(eidB4, rlocB4)})
	assert.EqualValues(t, 3, x.Stats().Decapsulated.Packets)
	assert.Equal(t, map[DropReason]uint64{DropSourceRLOC: 2}, x.drops())

	// Nor for the next batch, by which the mapping may be another.
	x.learn(t, 0, eidB4+"/32", "192.0.2.9")
	g.receive([]Incoming{in(eidB4, rlocB4)})
	assert.Equal(t, map[DropReason]uint64{DropSourceRLOC: 3}, x.drops())
}
