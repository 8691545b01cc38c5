package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// site is a LISP site: hosts with EIDs behind an xTR.
type site struct {
	xtr    *netlab.Host
	uplink *netlab.Link
	hosts  [2]*netlab.Host // the first with IPv4 EID .10, the second .11
}

// newSite makes the site n of EID-Prefixes 10.n.0.0/24 and fd00:n::/64 behind a
// core router, with the locators 198.51.n.2 and 2001:db8:n::2.
func newSite(lab *netlab.Lab, core *netlab.Host, n string) *site {
	s := &site{xtr: lab.Host("xtr" + n)}
	s.uplink = lab.Link(s.xtr, core, netlab.LinkConfig{
		A: netlab.At("198.51."+n+".2/24", "2001:db8:"+n+"::2/64"), B: netlab.At("198.51."+n+".1/24", "2001:db8:"+n+"::1/64"),
	})
	s.xtr.DefaultVia("198.51."+n+".1", "2001:db8:"+n+"::1")
	for i, host := range []string{"10", "11"} {
		h := lab.Host("h" + n + "-" + host)
		// Each on a link of its own: the site's router routes between them too.
		lab.Link(h, s.xtr, netlab.LinkConfig{
			A: netlab.At("10."+n+".0."+host+"/32", "fd00:"+n+"::"+host+"/128"), B: netlab.At("10."+n+".0.1/32", "fd00:"+n+"::1/128"),
		})
		h.MustRun("ip", "route", "add", "10."+n+".0.1/32", "dev", "eth0")
		h.MustRun("ip", "-6", "route", "add", "fd00:"+n+"::1/128", "dev", "eth0")
		h.DefaultVia("10."+n+".0.1", "fd00:"+n+"::1")
		lan := []string{"eth1", "eth2"}[i]
		s.xtr.MustRun("ip", "route", "add", "10."+n+".0."+host+"/32", "dev", lan)
		s.xtr.MustRun("ip", "-6", "route", "add", "fd00:"+n+"::"+host+"/128", "dev", lan)
		s.hosts[i] = h
	}
	return s
}

// mapPrefix maps an EID-Prefix to a locator.
func mapPrefix(eid, rloc string) mapcache.Mapping {
	return mapcache.Mapping{
		Key:   mapcache.Key{Prefix: prefix(eid)},
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rloc)}, Priority: 1, Weight: 1}},
	}
}

// Hosts behind a router with an EID-Prefix, two on each side.
func TestRouterMode(t *testing.T) {
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting, netlab.WritableSysctl)
	core := lab.Router("core")
	a, b := newSite(lab, core, "1"), newSite(lab, core, "2")
	xa := newXTR(t, a.uplink.A, []string{"198.51.1.2", "2001:db8:1::2"}, xtrConfig{
		eids: []string{"10.1.0.1/24", "fd00:1::1/64"}, tun: tun.Config{Router: true},
		mappings: []mapcache.Mapping{
			mapPrefix("10.2.0.0/24", "2001:db8:2::2"), mapPrefix("fd00:2::/64", "198.51.2.2"),
			{Key: mapcache.Key{Prefix: prefix("10.9.0.0/16")}, Action: lisp.ActionDropNoReason},
			{Key: mapcache.Key{Prefix: prefix("fd00:9::/32")}, Action: lisp.ActionDropPolicyDenied},
		},
	})
	xb := newXTR(t, b.uplink.A, []string{"198.51.2.2", "2001:db8:2::2"}, xtrConfig{
		eids: []string{"10.2.0.1/24", "fd00:2::1/64"}, tun: tun.Config{Router: true},
		mappings: []mapcache.Mapping{mapPrefix("10.1.0.0/24", "198.51.1.2"), mapPrefix("fd00:1::/64", "2001:db8:1::2")},
	})
	for i, from := range a.hosts {
		for j, to := range b.hosts {
			for _, e := range [][2]string{{"10.1.0.1", "10.2.0.1"}, {"fd00:1::1", "fd00:2::1"}} {
				src, dst := e[0]+[]string{"0", "1"}[i], e[1]+[]string{"0", "1"}[j]
				from.MustRun("ping", "-c", "1", "-W", "60", dst)
				to.MustRun("ping", "-c", "1", "-W", "60", "-s", "1380", src)
				transfer(t, from, to, src, dst, 1<<20)
				transfer(t, to, from, dst, src, 1<<20)
			}
		}
	}
	// Within the site, past the tunnel.
	a.hosts[0].MustRun("ping", "-c", "1", "-W", "60", "10.1.0.11")
	a.hosts[0].MustRun("ping", "-c", "1", "-W", "60", "fd00:1::11")
	assert.Zero(t, xa.Stats().Held, "there is no mapping that would lead back")

	// Three routers: each takes one from the TTL, and the tunnel nothing more.
	for _, dst := range []string{"10.2.0.10", "fd00:2::11"} {
		a.hosts[0].MustRun("ping", "-c", "1", "-W", "60", "-t", "4", dst)
		out, err := a.hosts[0].Run(t.Context(), "ping", "-c", "1", "-W", "60", "-t", "3", dst)
		require.Error(t, err)
		if addr(dst).Is4() {
			assert.Contains(t, out+err.Error(), "Time to live exceeded")
		} else {
			assert.Contains(t, out+err.Error(), "Hop limit")
		}
	}
	// ICMP errors of the data plane reach the host that is to know.
	out, err := a.hosts[1].Run(t.Context(), "ping", "-c", "1", "-W", "60", "10.9.0.1")
	require.Error(t, err)
	assert.Contains(t, out+err.Error(), "Destination Host Unreachable")
	out, err = a.hosts[1].Run(t.Context(), "ping", "-c", "1", "-W", "60", "fd00:9::1")
	require.Error(t, err)
	assert.Contains(t, out+err.Error(), "Administratively prohibited")
	out, err = a.hosts[1].Run(t.Context(), "ping", "-c", "1", "-W", "60", "-M", "do", "-s", "1460", "10.2.0.10")
	require.Error(t, err)
	assert.Regexp(t, "mtu ?= ?1444", out+err.Error())
	for _, x := range []*xtr{xa, xb} {
		s := x.Stats()
		s.Drops[DropAction] = 0 // those that were answered above
		assert.Equal(t, [NumDropReasons]uint64{}, s.Drops)
	}
}

// A Proxy-ITR and Proxy-ETR between a site and the world without LISP.
func TestProxyOnTheWire(t *testing.T) {
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting, netlab.WritableSysctl)
	core, proxy, world := lab.Router("core"), lab.Host("proxy"), lab.Host("world")
	a := newSite(lab, core, "1")
	uplink := lab.Link(proxy, core, netlab.LinkConfig{A: netlab.At("198.51.3.2/24", "2001:db8:3::2/64"), B: netlab.At("198.51.3.1/24", "2001:db8:3::1/64")})
	lab.Link(proxy, world, netlab.LinkConfig{A: netlab.At("192.0.2.1/24", "2001:db8:77::1/64"), B: netlab.At("192.0.2.2/24", "2001:db8:77::2/64")})
	proxy.DefaultVia("198.51.3.1", "2001:db8:3::1")
	world.DefaultVia("192.0.2.1", "2001:db8:77::1")
	newXTR(t, a.uplink.A, []string{"198.51.1.2", "2001:db8:1::2"}, xtrConfig{
		eids: []string{"10.1.0.1/24", "fd00:1::1/64"}, tun: tun.Config{Router: true},
		// What the control plane stores for a negative mapping: RFC 6832-6.1-s1.
		mappings: []mapcache.Mapping{mapPrefix("192.0.2.0/24", "2001:db8:3::2"), mapPrefix("2001:db8:77::/64", "198.51.3.2")},
	})
	xp := newXTR(t, uplink.A, []string{"198.51.3.2", "2001:db8:3::2"}, xtrConfig{
		tun:      tun.Config{Proxy: true, Destinations: []netip.Prefix{prefix("10.0.0.0/8"), prefix("fd00::/16")}},
		mappings: []mapcache.Mapping{mapPrefix("10.1.0.0/24", "198.51.1.2"), mapPrefix("fd00:1::/64", "2001:db8:1::2")},
		change: func(c *Config) {
			c.Overlays[0].ProxyITR = true
			c.Overlays[0].ProxyETR = []netip.Prefix{prefix("10.1.0.0/24"), prefix("fd00:1::/64")}
		},
	})
	for _, e := range [][2]string{{"10.1.0.10", "192.0.2.2"}, {"fd00:1::10", "2001:db8:77::2"}} {
		world.MustRun("ping", "-c", "1", "-W", "60", e[0])      // RFC 6832-5-s1
		a.hosts[0].MustRun("ping", "-c", "1", "-W", "60", e[1]) // RFC 6832-6-s1
		transfer(t, world, a.hosts[0], e[1], e[0], 1<<20)
		transfer(t, a.hosts[0], world, e[0], e[1], 1<<20)
	}
	assert.Equal(t, [NumDropReasons]uint64{}, xp.Stats().Drops)
}
