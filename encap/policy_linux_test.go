package encap

import (
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestPolicyOnTheWire: a function of the user's decides by which uplink packets
// leave: from the right device and with its address, though the default routes of
// the host prefer the other one.
func TestPolicyOnTheWire(t *testing.T) {
	lab := netlab.Test(t, netlab.IPv6)
	a, r, b := lab.Host("a"), lab.Router("r"), lab.Host("b")
	var mu sync.Mutex
	left := map[string]int{} // by uplink, outer source and inner protocol
	uplink := func(name, n string) *netlab.Link {
		return lab.Link(a, r, netlab.LinkConfig{
			A: netlab.At("198.51."+n+".2/24", "2001:db8:"+n+"::2/64"), B: netlab.At("198.51."+n+".1/24", "2001:db8:"+n+"::1/64"),
			Drop: func(fromA bool, frame []byte) bool {
				p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
				udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
				if tcp, isTCP := p.Layer(layers.LayerTypeTCP).(*layers.TCP); fromA && (isTCP && tcp.DstPort == 6 || ok && udp.DstPort == 6) {
					mu.Lock()
					defer mu.Unlock()
					left[name+" natively "+p.TransportLayer().LayerType().String()+" over "+p.NetworkLayer().LayerType().String()]++
				}
				if ok && fromA && udp.DstPort == 4341 {
					var in inner
					parseInner(udp.Payload[dataHeaderLen:], &in)
					mu.Lock()
					defer mu.Unlock()
					left[name+" "+p.NetworkLayer().NetworkFlow().Src().String()+" "+layers.IPProtocol(in.proto).String()]++
				}
				return false
			},
		})
	}
	links := []*netlab.Link{uplink("first", "1"), uplink("second", "2")}
	toB := lab.Link(b, r, netlab.LinkConfig{A: netlab.At("203.0.113.2/24", "2001:db8:b::2/64"), B: netlab.At("203.0.113.1/24", "2001:db8:b::1/64")})
	a.DefaultVia("198.51.1.1", "2001:db8:1::1")
	netlab.RequireProgram(t, "ip")
	a.MustRun("ip", "route", "add", "default", "via", "198.51.2.1", "metric", "5000")
	a.MustRun("ip", "-6", "route", "add", "default", "via", "2001:db8:2::1", "metric", "5000")
	b.DefaultVia("203.0.113.1", "2001:db8:b::1")

	cache := mapcache.New(mapcache.Config{})
	for _, m := range []mapcache.Mapping{mapTo("10.2.0.0/16", "203.0.113.2"), mapTo("fd00:2::/32", "2001:db8:b::2")} {
		m.TTL = mapcache.TTLForever
		require.NoError(t, cache.Insert(testTime, m))
	}
	for _, p := range []string{"203.0.113.0/24", "2001:db8:b::/64"} {
		require.NoError(t, cache.Insert(testTime, mapcache.Mapping{
			Key: mapcache.Key{Prefix: prefix(p)}, Action: lisp.ActionNativelyForward, TTL: mapcache.TTLForever,
		}))
	}
	cache.Publish()
	start := func(h *netlab.Host, policy func(*PolicyPacket) Uplink, eids []string, links ...*netlab.Link) *memDevice {
		dev := newMemDevice("lmn0")
		var f *Forwarder
		require.NoError(t, h.Do(func() error {
			u, err := NewUDP(UDPConfig{})
			require.NoError(t, err)
			native, err := NewNative()
			require.NoError(t, err)
			o := Overlay{Device: dev}
			for _, e := range eids {
				o.EIDs = append(o.EIDs, prefix(e))
			}
			f, err = NewForwarder(Config{Overlays: []Overlay{o}, View: cache.View, Underlay: u, Native: native, Policy: policy})
			require.NoError(t, err)
			var ls []mapcache.Local
			for i, k := range links {
				for _, v := range []string{"198.51." + []string{"1", "2"}[i] + ".2", "2001:db8:" + []string{"1", "2"}[i] + "::2"} {
					if h == b {
						v = map[bool]string{true: "203.0.113.2", false: "2001:db8:b::2"}[addr(v).Is4()]
					}
					ls = append(ls, mapcache.Local{IfIndex: k.A.Index, Addr: addr(v), Priority: uint8(i), Weight: 1, Up: true})
				}
			}
			return f.SetLocals(ls)
		}))
		ended := make(chan error, 1)
		go func() { ended <- f.Run(t.Context()) }()
		t.Cleanup(func() {
			require.NoError(t, f.Close())
			require.NoError(t, <-ended)
		})
		return dev
	}
	out := start(b, nil, []string{"10.2.0.1/32", "fd00:2::1/128"}, toB)
	in := start(a, func(p *PolicyPacket) Uplink {
		if p.Protocol == protoTCP {
			return Uplink{IfIndex: links[1].A.Index, Only: true}
		}
		return Uplink{}
	}, []string{"10.1.0.1/32", "fd00:1::1/128"}, links...)
	for _, proto := range []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP} {
		for _, e := range [][2]string{{"10.1.0.1", "10.2.0.1"}, {"fd00:1::1", "fd00:2::1"}} {
			in.send(packetSpec{src: e[0], dst: e[1], proto: proto, sport: 5, dport: 6}.build())
			out.next(t)
		}
	}
	// What is not for an EID leaves by it too, as it is.
	for _, proto := range []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP} {
		in.send(packetSpec{src: "10.1.0.1", dst: "203.0.113.2", proto: proto, sport: 5, dport: 6}.build())
		in.send(packetSpec{src: "fd00:1::1", dst: "2001:db8:b::2", proto: proto, sport: 5, dport: 6}.build())
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(left) == 8
	}, waitTime, time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, map[string]int{
		"first natively UDP over IPv4": 1, "first natively UDP over IPv6": 1, "second natively TCP over IPv4": 1, "second natively TCP over IPv6": 1,
		"first 198.51.1.2 UDP": 1, "first 2001:db8:1::2 UDP": 1, "second 198.51.2.2 TCP": 1, "second 2001:db8:2::2 TCP": 1,
	}, left)
}
