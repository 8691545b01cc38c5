package multihome_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/multihome"
)

// site is a node with two providers, both of which lead to a far host.
type site struct {
	*host
	far      *netlab.Host
	routing  *multihome.Routing
	locators []netip.Addr
}

func newSite(t *testing.T) *site {
	netlab.RequireProgram(t, "ping")
	h := newHost(t)
	s := &site{host: h, far: h.lab.Host("far")}
	for i, r := range h.providers {
		n := fmt.Sprint(i + 1)
		h.lab.Link(s.far, r, netlab.LinkConfig{
			A: netlab.At("10.1."+n+".2/24", "2001:db8:1"+n+"::2/64"), B: netlab.At("10.1."+n+".1/24", "2001:db8:1"+n+"::1/64"),
		})
		s.far.AddRoute("10.0."+n+".0/24", "10.1."+n+".1")
		s.far.AddRoute("2001:db8:"+n+"::/64", "2001:db8:1"+n+"::1")
		s.locators = append(s.locators, netip.MustParseAddr("10.0."+n+".2"), netip.MustParseAddr("2001:db8:"+n+"::2"))
	}
	h.providers[0].AddRoute("10.1.2.0/24", "10.1.1.2")
	h.providers[1].AddRoute("10.1.1.0/24", "10.1.2.2")
	s.far.Sysctl("net/ipv4/ip_forward", "1")
	s.open()
	h.route("10.0.2.1", 200)
	h.route("2001:db8:2::1", 200)
	h.usable("v4,v6 v4,v6")
	return s
}

func (s *site) open() {
	s.t.Helper()
	require.NoError(s.t, s.Do(func() (err error) {
		s.routing, err = multihome.NewRouting(multihome.RoutingConfig{Protocol: ours})
		return err
	}))
}

// leaves says by which uplink what a locator sends leaves.
func (s *site) leaves(from, to string) string {
	s.t.Helper()
	rs, err := s.Netlink().RouteGetWithOptions(net.ParseIP(to), &netlink.RouteGetOptions{SrcAddr: net.ParseIP(from)})
	require.NoError(s.t, err)
	require.Len(s.t, rs, 1)
	for i := range s.links {
		if s.links[i].A.Index == rs[0].LinkIndex {
			return fmt.Sprint(i)
		}
	}
	return "?"
}

// rules returns the rules of the node, as text.
func (s *site) rules() (out []string) {
	s.t.Helper()
	rules, err := s.Netlink().RuleList(netlink.FAMILY_ALL)
	require.NoError(s.t, err)
	for _, r := range rules {
		out = append(out, fmt.Sprintf("%v protocol %d", r, r.Protocol))
	}
	slices.Sort(out)
	return out
}

func TestRouting(t *testing.T) {
	s := newSite(t)
	before := s.rules()
	const far4, far6 = "10.1.9.9", "2001:db8:99::9"
	require.Equal(t, "0", s.leaves("10.0.2.2", far4), "by the better default route, unless told otherwise")

	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	for range 2 {
		assert.Equal(t, "0", s.leaves("10.0.1.2", far4))
		assert.Equal(t, "1", s.leaves("10.0.2.2", far4))
		assert.Equal(t, "0", s.leaves("2001:db8:1::2", far6))
		assert.Equal(t, "1", s.leaves("2001:db8:2::2", far6))
		// Specific routes of the main table still count.
		require.NoError(t, s.Netlink().RouteReplace(&netlink.Route{
			Dst: &net.IPNet{IP: net.ParseIP("192.0.2.0"), Mask: net.CIDRMask(24, 32)}, Gw: net.ParseIP("10.0.1.1"),
		}))
		assert.Equal(t, "0", s.leaves("10.0.2.2", "192.0.2.1"))
		// Once more: nothing is there twice.
		with := s.rules()
		require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
		assert.Equal(t, with, s.rules())
		// What another removes is put back.
		rule := netlink.NewRule()
		rule.Priority, rule.Family = multihome.DefaultPriority, netlink.FAMILY_V4
		require.NoError(t, s.Netlink().RuleDel(rule))
		require.NoError(t, s.Netlink().RouteDel(&netlink.Route{
			Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Table: multihome.DefaultTableBase + s.links[1].A.Index,
		}))
		require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
		assert.Equal(t, with, s.rules())
	}

	// An uplink fails; the main table's better route is still its.
	s.links[0].B.Down()
	s.usable("- v4,v6")
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	assert.Equal(t, "1", s.leaves("10.0.2.2", far4))
	// It loses its routes: the other one needs no rules.
	s.unroute("10.0.1.1")
	s.unroute("2001:db8:1::1")
	s.until("no route", func(c multihome.Change) bool {
		return c.Interfaces[0].Default4 == nil && c.Interfaces[0].Default6 == nil
	})
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	assert.Equal(t, before, s.rules())
	assert.Equal(t, "1", s.leaves("10.0.2.2", far4))
	s.links[0].B.Up()
	s.route("10.0.1.1", 100)
	s.route("2001:db8:1::1", 100)
	s.usable("v4,v6 v4,v6")
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	assert.Equal(t, "0", s.leaves("10.0.1.2", far4))
	assert.Equal(t, "1", s.leaves("10.0.2.2", far4))

	require.NoError(t, s.routing.Close())
	require.NoError(t, s.routing.Close())
	assert.Equal(t, before, s.rules())
	assert.Equal(t, "0", s.leaves("10.0.2.2", far4))
	require.ErrorIs(t, s.routing.Set(nil, nil), net.ErrClosed)
}

// A Routing that was not closed, as when its process was killed, is taken up by
// the next one.
func TestRoutingLeftOver(t *testing.T) {
	s := newSite(t)
	other := netlink.NewRule()
	other.Priority, other.Family, other.Table = multihome.DefaultPriority, netlink.FAMILY_V4, 77
	require.NoError(t, s.Netlink().RuleAdd(other))
	before := s.rules()
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	require.NotEqual(t, before, s.rules())

	s.open()
	assert.Equal(t, before, s.rules(), "and what is another's stays")
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		left, err := s.Netlink().RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: ours},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		require.NoError(t, err)
		assert.Empty(t, left)
	}
	require.NoError(t, s.routing.Close())
}

// A default route that somebody else has in a table of ours is neither replaced
// nor removed, and the other uplinks work all the same.
func TestRoutingLeavesOthers(t *testing.T) {
	s := newSite(t)
	table := multihome.DefaultTableBase + s.links[0].A.Index
	theirs := func() string { return s.MustRun("ip", "-4", "route", "show", "table", fmt.Sprint(table)) }
	s.MustRun("ip", "route", "add", "default", "via", "10.0.2.1", "table", fmt.Sprint(table))
	before := theirs()
	require.NotEmpty(t, before)
	for range 2 {
		require.ErrorContains(t, s.routing.Set(s.last.Interfaces, s.locators), fmt.Sprintf("default route of table %d: file exists", table))
		assert.Equal(t, before, theirs())
		assert.Equal(t, "1", s.leaves("10.0.2.2", "10.1.9.9"))
		assert.Equal(t, "0", s.leaves("2001:db8:1::2", "2001:db8:99::9"))
	}
	require.NoError(t, s.routing.Set(nil, nil))
	assert.Equal(t, before, theirs())

	// Once it is gone there is nothing in the way.
	s.MustRun("ip", "route", "del", "default", "table", fmt.Sprint(table))
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	require.NoError(t, s.routing.Close())
	assert.Empty(t, theirs())
}

// Whatever the host does about reverse paths, both locators can be reached.
func TestRoutingReversePath(t *testing.T) {
	s := newSite(t)
	answers := func(to, within string) bool {
		_, err := s.far.Run(t.Context(), "ping", "-c", "1", "-W", within, "-I", "10.1.1.2", to)
		return err == nil
	}
	set := func(v string) {
		for _, name := range []string{"all", s.name(0), s.name(1)} {
			s.Sysctl("net/ipv4/conf/"+name+"/rp_filter", v)
		}
	}
	set("1")
	require.False(t, answers("10.0.2.2", "1"), "strict: this is what the rules are for")
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	for _, v := range []string{"0", "1", "2"} {
		set(v)
		assert.True(t, answers("10.0.1.2", "60"), "rp_filter %s", v)
		assert.True(t, answers("10.0.2.2", "60"), "rp_filter %s", v)
	}
}

// A link that goes down and comes back takes our routes with it, and the kernel
// does not say so: also when all else is there again by the time anybody looks.
func TestRoutingAfterShortFlap(t *testing.T) {
	s := newSite(t)
	s.unroute("2001:db8:1::1")
	s.unroute("2001:db8:2::1")
	var source *multihome.Netlink
	require.NoError(t, s.Do(func() (err error) {
		source, err = multihome.NewNetlink(multihome.NetlinkConfig{Protocol: ours})
		return err
	}))
	defer source.Close()
	state, err := multihome.New(multihome.Config{
		Interfaces: []string{s.name(0), s.name(1)}, Reject: netip.Addr.Is6, Settle: -1,
	})
	require.NoError(t, err)
	// follow does what there is to do.
	follow := func() {
		t.Helper()
		snap, err := source.Next(t.Context())
		require.NoError(t, err)
		state.Handle(time.Now(), snap)
		for c, ok := state.Next(); ok; c, ok = state.Next() {
			require.NoError(t, s.routing.Set(c.Interfaces, s.locators))
		}
	}
	follow()
	const far4 = "10.1.9.9"
	require.Equal(t, "1", s.leaves("10.0.2.2", far4))

	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: s.links[1].A.Index}}
	require.NoError(t, s.Netlink().LinkSetDown(link))
	require.NoError(t, s.Netlink().LinkSetUp(link))
	s.links[1].A.Up()
	s.route("10.0.2.1", 200)
	require.Equal(t, "0", s.leaves("10.0.2.2", far4), "our route is gone")
	follow()
	assert.Equal(t, "1", s.leaves("10.0.2.2", far4), "link down")

	// So does the last address.
	s.links[1].A.DelAddr("10.0.2.2/24")
	s.links[1].A.AddAddr("10.0.2.2/24")
	s.route("10.0.2.1", 200)
	require.Equal(t, "0", s.leaves("10.0.2.2", far4), "our route is gone")
	follow()
	assert.Equal(t, "1", s.leaves("10.0.2.2", far4), "address removed")
}

// Rules and routes that are to be kept outlive the process, and the next one takes
// over what it needs.
func TestRoutingKeep(t *testing.T) {
	s := newSite(t)
	before := s.rules()
	require.NoError(t, s.routing.Close())
	open := func(keep bool) {
		require.NoError(t, s.Do(func() (err error) {
			s.routing, err = multihome.NewRouting(multihome.RoutingConfig{Protocol: ours, Keep: keep})
			return err
		}))
	}
	const far = "10.1.9.9"
	open(true)
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators))
	rules := s.rules()
	require.Equal(t, "1", s.leaves("10.0.2.2", far))
	require.NoError(t, s.routing.Close())
	assert.Equal(t, rules, s.rules())
	open(true)
	assert.Equal(t, rules, s.rules())
	assert.Equal(t, "1", s.leaves("10.0.2.2", far))
	require.NoError(t, s.routing.Set(s.last.Interfaces, s.locators), "what is there is taken over")
	assert.Equal(t, rules, s.rules())
	assert.Equal(t, "1", s.leaves("10.0.2.2", far))
	// Of the second uplink nothing is needed any more.
	require.NoError(t, s.routing.Set(s.last.Interfaces[:1], s.locators[:2]))
	assert.NotEqual(t, rules, s.rules())
	assert.Equal(t, "0", s.leaves("10.0.2.2", far))
	routes, err := s.Netlink().RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: multihome.DefaultTableBase + s.links[1].A.Index}, netlink.RT_FILTER_TABLE)
	require.NoError(t, err)
	assert.Empty(t, routes)
	require.NoError(t, s.routing.Close())
	open(false)
	assert.Equal(t, before, s.rules())
	require.NoError(t, s.routing.Close())
}
