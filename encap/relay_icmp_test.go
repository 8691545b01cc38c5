package encap

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// told are the ICMP errors that an RTR has made and not yet tunnelled.
func (x *relayNode) told() (all [][]byte) {
	d := x.overlays[0].device.(*relayDevice)
	for {
		select {
		case b := <-d.packets:
			all = append(all, b)
		default:
			return all
		}
	}
}

// TestRelayTimeExceeded: a packet whose TTL ends at an RTR is answered like at any
// router: to its source, from the address of the RTR, at a limited rate, and only
// for those whom the RTR serves.
func TestRelayTimeExceeded(t *testing.T) {
	udp := packetSpec{src: natted1, dst: public, ttl: 1, sport: 1, dport: 2, payloadLen: 40}
	six := packetSpec{src: natted2, dst: "fd00:9::1", ttl: 1, payloadLen: 40}
	with := func(s packetSpec, change func(*packetSpec)) packetSpec { change(&s); return s }
	for _, tt := range []struct {
		name      string
		spec      packetSpec
		from, to  string
		ttl       uint8 // of the outer header
		only4     bool
		want      string // where the error comes from; none if empty
		typ, code uint8
	}{
		{"from a node behind a NAT", udp, nat1, rtr4, 64, false, rtr4, 11, 0},
		{"by the outer header", with(udp, func(s *packetSpec) { s.ttl = 64 }), nat1, rtr4, 1, false, rtr4, 11, 0},
		{"to one", with(udp, func(s *packetSpec) { s.src, s.dst = public, natted1 }), publicRLOC, rtr4, 64, false, rtr4, 11, 0},
		{"IPv6 over IPv4", six, nat2, rtr4, 64, false, rtr6, 3, 0},
		{"IPv6 over IPv6", six, "2001:db8:a::2", rtr6, 64, false, rtr6, 3, 0},
		{"without an IPv6 address", six, nat2, rtr4, 64, true, "", 0, 0},
		{"of strangers", with(udp, func(s *packetSpec) { s.src, s.dst = unknown, public }), stranger, rtr4, 64, false, "", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newRelay(t)
			if tt.only4 {
				require.NoError(t, x.SetLocals(locals(rtr4)))
			}
			packet := tt.spec.build()
			in := from(tt.from, tt.to, encapsulated(0, 0, 0, packet))
			in.TTL = tt.ttl
			assert.Empty(t, x.relayed(in))
			assert.Equal(t, map[DropReason]uint64{DropTTL: 1}, x.drops())
			told := x.told()
			if tt.want == "" {
				assert.Empty(t, told)
				return
			}
			require.Len(t, told, 1)
			var p inner
			require.Equal(t, DropNone, parseInner(told[0], &p))
			assert.Equal(t, addr(tt.want), p.src)
			assert.Equal(t, addr(tt.spec.src), p.dst)
			icmp := told[0][p.headerLen:]
			assert.Equal(t, []byte{tt.typ, tt.code}, icmp[:2])
			assert.Equal(t, packet, icmp[8:], "as it arrived")
			assert.EqualValues(t, 1, x.Stats().ICMPSent)
		})
	}

	x := newRelay(t, func(c *Config) { c.ICMPRate = 10 })
	ins := make([]Incoming, 100)
	for i := range ins {
		ins[i] = from(nat1, rtr4, encapsulated(0, 0, 0, udp.build()))
	}
	assert.Empty(t, x.relayed(ins...))
	assert.Less(t, len(x.told()), 10)
	assert.Positive(t, x.Stats().ICMPLimited)
}

// TestRelayTimeExceededTunnelled: the error goes to its receiver by its relay.
func TestRelayTimeExceededTunnelled(t *testing.T) {
	x := newRelay(t)
	done := make(chan error, 1)
	go func() { done <- x.Run(t.Context()) }()
	spec := packetSpec{src: natted1, dst: public, ttl: 1, payloadLen: 40}
	x.underlay.in <- from(nat1, rtr4, encapsulated(0, 0, 0, spec.build()))
	var out []Outgoing
	require.Eventually(t, func() bool { out = append(out, x.underlay.take()...); return len(out) > 0 }, waitTime, time.Millisecond)
	assert.Equal(t, netip.MustParseAddrPort("198.51.100.1:20001"), out[0].Remote)
	assert.True(t, out[0].NAT)
	var p inner
	require.Equal(t, DropNone, parseInner(out[0].Bytes[8:], &p))
	assert.Equal(t, addr(rtr4), p.src)
	assert.Equal(t, addr(natted1), p.dst)
	assert.Equal(t, []byte{11, 0}, out[0].Bytes[8+ipv4HeaderLen:][:2])
	require.NoError(t, x.Close())
	require.NoError(t, <-done)
}

// TestRelayOwnAddress: nothing but what is made here may enter with an address of the
// RTR, and nothing that is for it.
func TestRelayOwnAddress(t *testing.T) {
	x := newRelay(t)
	e := newEgress(x.Forwarder)
	e.begin()
	admit := func(o *overlay, src, dst string) DropReason {
		var p inner
		return e.admit(o, packetSpec{src: src, dst: dst, ttl: 9, payloadLen: 9}.build(), &p)
	}
	assert.Equal(t, DropNone, admit(x.overlays[0], rtr4, natted1))
	assert.Equal(t, DropLoop, admit(x.overlays[0], rtr4, rtr4))
	assert.Equal(t, DropLoop, admit(x.overlays[0], natted1, rtr4))
	node, err := newOverlay(Overlay{Device: newMemDevice("n"), EIDs: []netip.Prefix{prefix("10.0.0.0/8")}, Relay: true})
	require.NoError(t, err)
	assert.Equal(t, DropLoop, admit(node, rtr4, natted1))
}
