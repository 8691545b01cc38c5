package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/tun"
)

// One process has two overlays, each with a device, routes and rules of its own, and
// the same sockets.
func TestTwoOverlaysOnTheWire(t *testing.T) {
	const instance = 7
	p := newPair(t, netlab.LinkConfig{})
	start := func(at *netlab.Interface, own, peer string, locators []string, peerLocators [2]string) *xtr {
		x := xtrConfig{eids: []string{"10." + own + ".0.1/32", "fd00:" + own + "::1/128"}}
		x.mappings = append(x.mappings, mapPrefix("10."+peer+".0.1/32", peerLocators[0]), mapPrefix("fd00:"+peer+"::1/128", peerLocators[1]))
		second := mapPrefix("10."+peer+".7.1/32", peerLocators[1])
		second.IID = instance
		x.mappings = append(x.mappings, second)
		x.change = func(c *Config) {
			eids := []netip.Prefix{prefix("10." + own + ".7.1/32")}
			dev, err := tun.Create(tun.Config{Name: "lmn7", EIDs: eids, Table: 4407, RulePriority: 4370})
			require.NoError(t, err)
			var ls []netip.Addr
			for _, l := range locators {
				ls = append(ls, addr(l))
			}
			require.NoError(t, dev.SetLocals(ls))
			c.Overlays = append(c.Overlays, Overlay{InstanceID: instance, Device: dev, EIDs: eids})
		}
		return newXTR(t, at, locators, x)
	}
	a := start(p.link.A, "1", "2", []string{pairA4, pairA6}, [2]string{pairB4, pairB6})
	b := start(p.link.B, "2", "1", []string{pairB4, pairB6}, [2]string{pairA4, pairA6})
	for _, flow := range [][2]string{{"10.1.0.1", "10.2.0.1"}, {"fd00:1::1", "fd00:2::1"}, {"10.1.7.1", "10.2.7.1"}} {
		transfer(t, p.a, p.b, flow[0], flow[1], 1<<20)
		transfer(t, p.b, p.a, flow[1], flow[0], 1<<20)
	}
	for _, x := range []*xtr{a, b} {
		s := x.Stats()
		for _, why := range []DropReason{DropInstance, DropNotOurEID, DropSource, DropLoop} {
			assert.Zero(t, s.Drop(why), why)
		}
	}
}
