package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// multihomeLab is the lab of the demo of handovers with a router that lets
// nothing pass which does not come by the link that its source is on: whatever
// arrives has left by the right uplink.
func multihomeLab(t *testing.T) *demoLab {
	t.Helper()
	return relayedLab(t, "")
}

// relayedLab is multihomeLab where the links of a site can be delayed.
func relayedLab(t *testing.T, name string) *demoLab {
	t.Helper()
	return strict(t, testLab(t, demoOptions{multihome: true, relayed: name}))
}

// strict makes the router of a lab of handovers strict, and starts its Map-Server.
func strict(t *testing.T, d *demoLab) *demoLab {
	t.Helper()
	netlab.RequireProgram(t, "ip")
	d.hosts["core"].Sysctl("net/ipv4/conf/all/rp_filter", "1")
	require.NoError(t, d.lab.Err())
	do(t, d, startMapServer)
	return d
}

// config is that of a node whose uplinks, named by a pattern, are all alike.
func (d *demoLab) patternConfig(s site, more string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "debug = 1\ncontrol-socket = %q\n", filepath.Join(d.dir, s.name+".sock"))
	fmt.Fprintf(&b, "state-file = %q\n", filepath.Join(d.dir, s.name+".state"))
	fmt.Fprintf(&b, "map-resolver = { %s }\n", siteMS.rloc[ipv4])
	fmt.Fprintf(&b, "map-server {\n    address = %s\n    key-type = 2\n    key = %q\n}\n", siteMS.rloc[ipv4], s.key)
	b.WriteString("rloc-probing {\n rloc-probe-interval = 2\n rloc-probe-retries = 1\n rloc-probe-retries-interval = 1\n rloc-probe-fast-interval = 200\n}\n")
	b.WriteString(more)
	for _, eid := range s.eid {
		fmt.Fprintf(&b, "database-mapping {\n eid-prefix = %s\n rloc-iface {\n interface = 'eth*'\n priority = 1\n ip_version = 4\n }\n}\n", eid)
	}
	return b.String()
}

// startNodes starts nodes of the demo with a configuration and waits until they
// are registered.
func startNodes(t *testing.T, d *demoLab, config func(site) string, sites ...site) {
	t.Helper()
	mark := d.log.mark()
	for _, s := range sites {
		_, err := d.start(t.Context(), s.name, config(s))
		require.NoError(t, err)
	}
	for _, s := range sites {
		_, err := d.children[s.name].ready(t.Context())
		require.NoError(t, err)
		awaitRegistered(t, d, mark, s)
	}
}

func awaitRegistered(t *testing.T, d *demoLab, mark int, s site) {
	t.Helper()
	for _, eid := range s.eid {
		_, err := d.log.await(t.Context(), mark, s.name, "registered", func(e statusd.Event) bool { return strings.Contains(e.Text, eid+"/") })
		require.NoError(t, err, s.name)
	}
}

// TestHandoverTimes: the Map-Server is 20 ms away, each way. Uplinks are pulled
// out, the second one while SMRs are held back by the limits of the protocol.
func TestHandoverTimes(t *testing.T) {
	lab := testLab
	if testing.Verbose() { // somebody looks at the times
		lab = loneLab
	}
	d := strict(t, lab(t, demoOptions{multihome: true}))
	d.links["ms/eth0"].SetDelay(20 * time.Millisecond)
	require.NoError(t, d.attachMore(multiA, 1, multiA.more[1]))
	do(t, d, registerMultihomed, startStreams)
	for _, c := range []struct {
		what string
		do   func(context.Context, *demoLab) ([]string, error)
	}{
		{"the first uplink is pulled out after 5 s of quiet", handover(unplug("a", "eth0"))},
		{"the second one at once", handoverNow(unplug("a", "eth1"))},
		{"the first one is back after 5 s of quiet", handover(plugIn("a", "eth0"))},
		{"and pulled out at once, where there is only the third", handoverNow(unplug("a", "eth0"))},
	} {
		lost := [2]int{d.streams.flows[0].Lost(), d.streams.flows[1].Lost()}
		seen, err := c.do(t.Context(), d)
		require.NoError(t, err, c.what)
		t.Logf("%s: %s; lost %d and %d", c.what, strings.Join(seen, ", "), d.streams.flows[0].Lost()-lost[0], d.streams.flows[1].Lost()-lost[1])
	}
	do(t, d, endStreams, stopMultihomed)
}

// blackhole makes the router drop all from and to an address, without a word.
func blackhole(addr string) change {
	return func(_ context.Context, d *demoLab) error {
		core := d.hosts["core"]
		if _, err := core.Run(context.Background(), "ip", "rule", "add", "pref", "99", "from", addr, "blackhole"); err != nil {
			return err
		}
		return core.Netlink().RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_BLACKHOLE,
		})
	}
}

func unBlackhole(addr string) change {
	return func(_ context.Context, d *demoLab) error {
		core := d.hosts["core"]
		if _, err := core.Run(context.Background(), "ip", "rule", "del", "pref", "99"); err != nil {
			return err
		}
		return core.Netlink().RouteDel(&netlink.Route{
			Dst: &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_BLACKHOLE,
		})
	}
}

// ip runs the program ip in a host.
func ip(host, args string) change {
	return func(ctx context.Context, d *demoLab) error {
		_, err := d.hosts[host].Run(ctx, "ip", strings.Fields(args)...)
		return err
	}
}

func both(a, b change) change {
	return func(ctx context.Context, d *demoLab) error {
		if err := a(ctx, d); err != nil {
			return err
		}
		return b(ctx, d)
	}
}

// awaitPaths waits until both nodes know that a's locator addr is up or down: by
// their probes, or b, which does not probe it any more then, from a's mappings.
func awaitPaths(t *testing.T, d *demoLab, addr, state string) {
	t.Helper()
	for _, host := range []string{"a", "b"} {
		require.NoError(t, netlab.Eventually(t.Context(), host+" to know that "+addr+" is "+state, func() bool {
			st, err := d.children[host].ready(t.Context())
			require.NoError(t, err)
			known := false
			for _, p := range st.Node.Paths {
				if p.Local.String() == addr || p.Remote.String() == addr {
					if p.State != state {
						return false
					}
					known = true
				}
			}
			for _, e := range st.Node.MapCache {
				for _, r := range e.RLOCs {
					known = known || host == "b" && r.Addr.String() == addr && r.State == "down" && state == "down"
				}
			}
			return known
		}))
	}
}

// TestEveryUplinkInTurn: with flows over all uplinks, each of them is pulled out,
// blackholed, renumbered and loses its default route; and then a third one appears
// and the first two go. No connection breaks.
func TestEveryUplinkInTurn(t *testing.T) {
	d := multihomeLab(t)
	startNodes(t, d, func(s site) string { return d.patternConfig(s, "") }, multiA, multiB)
	do(t, d, startStreams)
	step := func(what string, c change) {
		t.Helper()
		seen, err := handoverNow(c)(t.Context(), d)
		require.NoError(t, err, what)
		t.Logf("%-40s %s", what, strings.Join(seen, ", "))
	}
	uplinks := []struct{ name, addr, other, gw, metric string }{
		{"eth0", siteA.rloc[ipv4], "10.0.1.9", siteA.gw[ipv4], "0"},
		{"eth1", multiA.more[0].addr, "10.0.6.9", multiA.more[0].gw, "100"},
	}
	for _, u := range uplinks {
		step(u.name+" is pulled out", unplug("a", u.name))
		step(u.name+" is back", plugIn("a", u.name))
		awaitPaths(t, d, u.addr, "up")
		step(u.name+" is silent", blackhole(u.addr))
		awaitPaths(t, d, u.addr, "down")
		step(u.name+" is known to be silent", func(context.Context, *demoLab) error { return nil })
		step(u.name+" answers again", unBlackhole(u.addr))
		awaitPaths(t, d, u.addr, "up")
		route := "route replace default via " + u.gw + " metric " + u.metric
		step(u.name+" loses its default route", ip("a", "route del default via "+u.gw))
		step(u.name+" has it again", ip("a", route))
		step(u.name+" is renumbered", both(both(ip("a", "addr del "+u.addr+"/24 dev "+u.name), ip("a", "addr add "+u.other+"/24 dev "+u.name)), ip("a", route)))
	}
	step("b's second one is pulled out", unplug("b", "eth1"))
	step("b's second one is back", plugIn("b", "eth1"))
	mark := d.log.mark()
	step("a third one appears", func(context.Context, *demoLab) error { return d.attachMore(multiA, 1, multiA.more[1]) })
	_, err := d.log.await(t.Context(), mark, siteMS.name, "registered", contains(multiA.more[1].addr))
	require.NoError(t, err)
	step("and the first two go", both(unplug("a", "eth0"), unplug("a", "eth1")))
	do(t, d, endStreams, stopMultihomed)
}

// TestLegacyUplinks: packets leave by the system's best default route, arrive by
// any uplink, and answers go back the way that their questions came.
func TestLegacyUplinks(t *testing.T) {
	d := multihomeLab(t)
	startNodes(t, d, func(s site) string {
		c := d.multihomeConfig(s) // eth0 is preferred
		if s.name == "a" {
			c += "uplink-mode = legacy\n"
		}
		return c
	}, multiA, multiB)
	do(t, d, startStreams)
	core := d.hosts["core"]
	sent := func() [2]uint64 {
		var n [2]uint64
		for i, name := range []string{"to-a", "to-a1"} {
			l, err := core.Netlink().LinkByName(name)
			require.NoError(t, err)
			n[i] = l.Attrs().Statistics.RxPackets
		}
		return n
	}
	// by returns by which uplink a sent while a few thousand datagrams went.
	by := func() (uplink int) {
		t.Helper()
		_, err := d.streams.flows[0].Outage(t.Context(), time.Now())
		require.NoError(t, err)
		before := sent()
		_, err = d.streams.flows[0].Outage(t.Context(), time.Now())
		require.NoError(t, err)
		after := sent()
		n := [2]uint64{after[0] - before[0], after[1] - before[1]}
		t.Logf("packets from a: %d by eth0, %d by eth1", n[0], n[1])
		if n[1] > n[0] {
			uplink = 1
		}
		assert.Less(t, n[1-uplink]*10, n[uplink], "all but probes")
		return uplink
	}
	assert.Equal(t, 0, by())
	a := d.hosts["a"]
	a.MustRun("ip", "route", "add", "default", "via", siteA.gw[ipv4], "metric", "200")
	a.MustRun("ip", "route", "del", "default", "via", siteA.gw[ipv4], "metric", "0")
	require.NoError(t, netlab.Eventually(t.Context(), "the other uplink to be the one", func() bool {
		st, err := d.children["a"].ready(t.Context())
		require.NoError(t, err)
		for _, l := range st.Node.Locals {
			if !l.Up || (l.Priority == 1) != (l.Addr.String() == multiA.more[0].addr) {
				return false
			}
		}
		return true
	}))
	assert.Equal(t, 1, by(), "what it registers as the second choice")
	st, err := d.children["a"].ready(t.Context())
	require.NoError(t, err)
	for _, e := range st.Node.Database {
		require.Len(t, e.RLOCs, 2)
		assert.Equal(t, []uint8{1, 2}, []uint8{e.RLOCs[0].Priority, e.RLOCs[1].Priority}, "is announced as before")
	}
	do(t, d, endStreams, stopMultihomed)
}
