package multihome_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/multihome"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// ours marks routes and rules as this program's.
const ours = 245

// host is a node with two uplinks whose changes are followed.
type host struct {
	*netlab.Host
	t         *testing.T
	lab       *netlab.Lab
	providers [2]*netlab.Host
	links     [2]*netlab.Link
	source    *multihome.Netlink
	change    chan multihome.Change
	last      multihome.Change
}

func newHost(t *testing.T) *host {
	lab := netlab.Test(t)
	h := &host{Host: lab.Host("node"), t: t, lab: lab, change: make(chan multihome.Change, 4096)}
	h.providers = [2]*netlab.Host{lab.Router("provider1"), lab.Router("provider2")}
	for i, r := range h.providers {
		n := string(rune('1' + i))
		h.links[i] = lab.Link(h.Host, r, netlab.LinkConfig{
			A: netlab.At("10.0."+n+".2/24", "2001:db8:"+n+"::2/64"), B: netlab.At("10.0."+n+".1/24", "2001:db8:"+n+"::1/64"),
		})
	}
	h.route("10.0.1.1", 100)
	h.route("2001:db8:1::1", 100)
	require.NoError(t, h.Do(func() (err error) {
		h.source, err = multihome.NewNetlink(multihome.NetlinkConfig{Protocol: ours, Devices: []string{"lmn0"}})
		return err
	}))
	s, err := multihome.New(multihome.Config{Interfaces: []string{h.name(0), h.name(1)}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- multihome.Watch(ctx, h.source, s, func(_ time.Time, c multihome.Change) error {
			h.change <- c
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.NoError(t, h.source.Close())
	})
	return h
}

func (h *host) name(i int) string { return h.links[i].A.Name }

// route adds a default route.
func (h *host) route(gateway string, metric int) {
	h.t.Helper()
	require.NoError(h.t, h.Netlink().RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway), Priority: metric}))
}

func (h *host) unroute(gateway string) {
	h.t.Helper()
	zero := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if strings.Contains(gateway, ":") {
		zero = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	require.NoError(h.t, h.Netlink().RouteDel(&netlink.Route{Dst: zero, Gw: net.ParseIP(gateway)}))
}

// until waits for a change that says so.
func (h *host) until(what string, ok func(multihome.Change) bool) {
	h.t.Helper()
	timeout := time.NewTimer(3 * time.Minute)
	defer timeout.Stop()
	for {
		select {
		case h.last = <-h.change:
			if ok(h.last) {
				return
			}
		case <-timeout.C:
			require.Fail(h.t, "not told: "+what, "last: %+v", h.last)
		}
	}
}

// usable waits until the uplinks are, for IPv4 and IPv6 each: "- v4,v6".
func (h *host) usable(want string) {
	h.t.Helper()
	h.until(want, func(c multihome.Change) bool { return summary(c) == want })
}

func summary(c multihome.Change) string {
	parts := make([]string, 0, len(c.Interfaces))
	for _, i := range c.Interfaces {
		var s []string
		for _, v6 := range []bool{false, true} {
			if i.Usable(v6) == multihome.Usable {
				s = append(s, map[bool]string{false: "v4", true: "v6"}[v6])
			}
		}
		parts = append(parts, strings.Join(append(s, "-")[:max(len(s), 1)], ","))
	}
	return strings.Join(parts, " ")
}

func TestNetlink(t *testing.T) {
	h := newHost(t)
	h.usable("v4,v6 -")
	assert.Equal(t, multihome.NoDefaultRoute, h.last.Interfaces[1].Usable(false))
	assert.Equal(t, netip.MustParseAddr("10.0.1.1"), h.last.Interfaces[0].Default4.Gateway)

	// A second uplink's routes come and go; two equal ones are both seen.
	h.route("10.0.2.1", 200)
	h.usable("v4,v6 v4")
	h.route("2001:db8:2::1", 200)
	h.usable("v4,v6 v4,v6")
	h.unroute("2001:db8:1::1")
	h.usable("v4 v4,v6")

	// Pulled out: the addresses stay known.
	h.links[0].B.Down()
	h.usable("- v4,v6")
	assert.Equal(t, multihome.LinkDown, h.last.Interfaces[0].Usable(false))
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.0.1.2")}, h.last.Interfaces[0].IPv4)
	h.links[0].B.Up()
	h.usable("v4 v4,v6")

	// Set down: the kernel removes the routes without a word. Up again, they are
	// still gone.
	h.links[0].A.Down()
	h.usable("- v4,v6")
	h.links[0].A.Up()
	h.until("up", func(c multihome.Change) bool { return c.Interfaces[0].Up })
	assert.Equal(t, multihome.NoDefaultRoute, h.last.Interfaces[0].Usable(false))
	h.route("10.0.1.1", 100)
	h.usable("v4 v4,v6")

	// Renumbered.
	h.links[1].A.AddAddr("10.0.9.2/24")
	h.links[1].A.DelAddr("10.0.2.2/24")
	h.until("the new address", func(c multihome.Change) bool {
		return len(c.Interfaces[1].IPv4) == 1 && c.Interfaces[1].IPv4[0] == netip.MustParseAddr("10.0.9.2")
	})
	assert.Equal(t, multihome.Usable, h.last.Interfaces[1].Usable(false), "the kernel keeps the route")
}

func TestNetlinkMultipath(t *testing.T) {
	h := newHost(t)
	h.usable("v4,v6 -")
	h.unroute("10.0.1.1")
	require.NoError(t, h.Netlink().RouteAdd(&netlink.Route{
		Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
		MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: h.links[0].A.Index, Gw: net.ParseIP("10.0.1.1")}, {LinkIndex: h.links[1].A.Index, Gw: net.ParseIP("10.0.2.1")},
		},
	}))
	h.usable("v4,v6 v4")
}

// What is marked as ours and removed by others is told, and nothing else is.
func TestNetlinkLost(t *testing.T) {
	h := newHost(t)
	h.usable("v4,v6 -")
	nl := h.Netlink()
	lost := func(c multihome.Change) bool { return c.Lost }

	route := &netlink.Route{
		LinkIndex: h.links[0].A.Index, Dst: &net.IPNet{IP: net.ParseIP("192.0.2.0"), Mask: net.CIDRMask(24, 32)},
		Table: 4341, Protocol: ours,
	}
	require.NoError(t, nl.RouteAdd(route))
	require.NoError(t, nl.RouteDel(route))
	h.until("a route of ours is gone", lost)

	rule := netlink.NewRule()
	rule.Priority, rule.Table, rule.Protocol, rule.Family = 4340, 4341, ours, netlink.FAMILY_V4
	require.NoError(t, nl.RuleAdd(rule))
	require.NoError(t, nl.RuleDel(rule))
	h.until("a rule of ours is gone", lost)

	require.NoError(t, nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lmn0"}}))
	h.until("something happened to a device of ours", lost)
	// Before Linux 5.18 it is not known whose an address was.
	h.MustRun("ip", "addr", "add", "192.0.2.1/32", "dev", "lmn0")
	h.MustRun("ip", "addr", "del", "192.0.2.1/32", "dev", "lmn0")
	h.until("an address of a device of ours is gone", lost)

	// Those of others do not matter: the next thing told is the address that
	// follows them.
	route.Protocol, rule.Protocol = unix.RTPROT_STATIC, unix.RTPROT_STATIC
	require.NoError(t, nl.RouteAdd(route))
	require.NoError(t, nl.RouteDel(route))
	require.NoError(t, nl.RuleAdd(rule))
	require.NoError(t, nl.RuleDel(rule))
	for len(h.change) > 0 {
		<-h.change
	}
	h.links[0].A.AddAddr("10.0.1.3/24")
	h.until("the address", func(c multihome.Change) bool {
		assert.False(t, c.Lost)
		return len(c.Interfaces[0].IPv4) == 2
	})
}

// A burst that overruns the socket ends in the right state.
func TestNetlinkFlaps(t *testing.T) {
	h := newHost(t)
	h.usable("v4,v6 -")
	before, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for range 500 {
		require.NoError(t, h.Netlink().LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: h.links[1].A.Index}}))
		require.NoError(t, h.Netlink().LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: h.links[1].A.Index}}))
	}
	h.links[1].A.Up()
	h.route("10.0.2.1", 200)
	h.usable("v4,v6 v4")
	after, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	assert.LessOrEqual(t, len(after), len(before))
	t.Logf("overruns: %d", h.source.Overruns())
}

func TestNetlinkEnds(t *testing.T) {
	netlab.Test(t)
	n, err := multihome.NewNetlink(multihome.NetlinkConfig{})
	require.NoError(t, err)
	_, err = n.Next(t.Context())
	require.NoError(t, err, "the first does not wait")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := n.Next(ctx); ended <- err }()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	// It can be used again, until it is closed.
	go func() { _, err := n.Next(context.Background()); ended <- err }()
	require.NoError(t, n.Close())
	require.Error(t, <-ended)
}

// Close is safe at every moment of a Next, which ends then.
func TestNetlinkCloseWhileListing(t *testing.T) {
	netlab.Test(t)
	for range 50 {
		n, err := multihome.NewNetlink(multihome.NetlinkConfig{})
		require.NoError(t, err)
		began, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			close(began)
			for err := error(nil); ; {
				if _, err = n.Next(context.Background()); err != nil {
					ended <- err
					return
				}
			}
		}()
		<-began
		require.NoError(t, n.Close())
		require.Error(t, <-ended)
	}
}
