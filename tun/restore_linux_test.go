package tun

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// state is what a host's kernel says of rules, routes and addresses, octet for
// octet but for the counters of IPv6 routes.
func state(t *testing.T, h *netlab.Host) map[string][]string {
	t.Helper()
	s := map[string][]string{}
	require.NoError(t, h.Do(func() error {
		for name, get := range map[string]struct {
			request int
			answer  uint16
			header  int
		}{
			"rules":     {unix.RTM_GETRULE, unix.RTM_NEWRULE, unix.SizeofRtMsg},
			"routes":    {unix.RTM_GETROUTE, unix.RTM_NEWROUTE, unix.SizeofRtMsg},
			"addresses": {unix.RTM_GETADDR, unix.RTM_NEWADDR, unix.SizeofIfAddrmsg},
		} {
			for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
				req := nl.NewNetlinkRequest(get.request, unix.NLM_F_DUMP)
				req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
				all, err := req.Execute(unix.NETLINK_ROUTE, get.answer)
				require.NoError(t, err)
				for _, m := range all {
					line := fmt.Sprintf("%x", m[:get.header])
					attrs, err := nl.ParseRouteAttr(m[get.header:])
					require.NoError(t, err)
					for _, a := range attrs {
						if name == "routes" && a.Attr.Type == unix.RTA_CACHEINFO {
							continue
						}
						line += fmt.Sprintf(" %d=%x", a.Attr.Type, a.Value)
					}
					s[name] = append(s[name], line)
				}
			}
			slices.Sort(s[name])
		}
		return nil
	}))
	return s
}

// userSetup gives a node rules and routes of its user's, some of them close to ours.
func userSetup(t *testing.T, n network) map[string][]string {
	t.Helper()
	require.NoError(t, n.node.Do(func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			for _, priority := range []int{4339, 4347, 10000} {
				r := netlink.NewRule()
				r.Family, r.Priority, r.Table, r.Mark = family, priority, 4342, 99
				require.NoError(t, netlink.RuleAdd(r))
			}
		}
		for _, dst := range []string{"198.18.0.0/15", "2001:db8:77::/48"} {
			_, p, err := net.ParseCIDR(dst)
			require.NoError(t, err)
			l, err := netlink.LinkByName("eth0")
			require.NoError(t, err)
			for _, table := range []int{254, 4340, 4342} {
				// One of them even with our protocol number, in another table.
				require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: p, Table: table, Protocol: Protocol}))
			}
		}
		return nil
	}))
	return state(t, n.node)
}

func TestCloseLeavesWhatWasThere(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	for _, cfg := range []Config{
		nodeConfig,
		{EIDs: nodeConfig.EIDs, Destinations: prefixes("198.51.100.0/24", "2001:db8:5::/48")},
		{EIDs: prefixes("10.0.0.0/8", "192.0.2.1/24"), Name: "other", MTU: 600},
	} {
		dev := create(t, n.node, cfg)
		require.NoError(t, dev.SetLocals(locators))
		require.NotEqual(t, before, state(t, n.node))
		require.NoError(t, dev.Close())
		require.NoError(t, dev.Close())
		assert.Equal(t, before, state(t, n.node))
		assert.ErrorIs(t, dev.SetLocals(nil), os.ErrClosed)
		assert.ErrorIs(t, dev.SetMTU(1400), os.ErrClosed)
		_, err := n.node.Netlink().LinkByName(dev.Name())
		assert.ErrorAs(t, err, &netlink.LinkNotFoundError{})
	}
}

// killed creates a device in another process and kills that.
func killed(t *testing.T, n network, kind string) {
	t.Helper()
	c := n.node.Self(t.Context())
	c.Env = append(os.Environ(), envHelper+"="+kind)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	line := make([]byte, len("created <nil>\n"))
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	require.Equal(t, "created <nil>\n", string(line))
	require.NoError(t, c.Process.Kill())
	require.ErrorContains(t, c.Wait(), "killed")
}

func TestAfterKill(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	clean := create(t, n.node, nodeConfig)
	require.NoError(t, clean.SetLocals(locators))
	running := state(t, n.node)
	require.NoError(t, clean.Close())

	far := listener(t, n.far)
	for range 2 {
		killed(t, n, "node")
		require.NotEqual(t, before["rules"], state(t, n.node)["rules"], "the test is meant to begin with leftovers")
		// Meanwhile the host is as reachable as without us.
		require.NoError(t, send(t, n.node, "", "", far4, "native"))
		require.Equal(t, rloc4+" native", far())
		require.NoError(t, send(t, n.node, rloc6, "", far6, "native"))
		require.Equal(t, rloc6+" native", far())
	}
	dev := create(t, n.node, nodeConfig)
	require.NoError(t, dev.SetLocals(locators))
	now := state(t, n.node)
	assert.Equal(t, running["rules"], now["rules"])
	assert.Len(t, now["routes"], len(running["routes"])) // the device's index differs
	assert.Len(t, now["addresses"], len(running["addresses"]))
	packets := readAll(dev)
	require.NoError(t, send(t, n.node, "", "", far4, "again"))
	assert.Equal(t, eid4+" > "+far4+" again", next(t, packets))
	require.NoError(t, dev.Close())
	assert.Equal(t, before, state(t, n.node))

	killed(t, n, "node")
	require.NoError(t, n.node.Do(func() error { return Cleanup(nodeConfig) }))
	assert.Equal(t, before, state(t, n.node))
	require.NoError(t, n.node.Do(func() error { return Cleanup(nodeConfig) }))
}

// persistent makes a TUN device that outlives its makers, down, with an address.
func persistent(t *testing.T, h *netlab.Host, flags uint16) {
	require.NoError(t, h.Do(func() error {
		fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer func() { _ = unix.Close(fd) }()
		require.NoError(t, attach(fd, "lmn0", unix.IFF_TUN|unix.IFF_NO_PI|flags))
		require.NoError(t, unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
		l, err := netlink.LinkByName("lmn0")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetMTU(l, 1333))
		a, err := netlink.ParseAddr("10.77.0.1/24")
		require.NoError(t, err)
		return netlink.AddrAdd(l, a)
	}))
}

func TestAdoptByName(t *testing.T) {
	for name, flags := range map[string]uint16{"one queue": 0, "several queues": unix.IFF_MULTI_QUEUE} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			persistent(t, n.node, flags)
			before := userSetup(t, n)
			dev := create(t, n.node, nodeConfig)
			packets := readAll(dev)
			require.NoError(t, send(t, n.node, "", "", far6, "adopted"))
			for got := ""; got != eid6+" > "+far6+" adopted"; got = next(t, packets) {
				// The device is its owner's, who may let IPv6 talk there.
			}
			require.NoError(t, dev.Close())
			assert.Equal(t, before, state(t, n.node))

			killed(t, n, "node")
			require.NotEqual(t, before["addresses"], state(t, n.node)["addresses"])
			require.NoError(t, create(t, n.node, nodeConfig).Close())
			assert.Equal(t, before["rules"], state(t, n.node)["rules"])
			var addrs []string
			require.NoError(t, n.node.Do(func() error {
				l, err := netlink.LinkByName("lmn0")
				require.NoError(t, err)
				all, err := netlink.AddrList(l, netlink.FAMILY_V4)
				for _, a := range all {
					addrs = append(addrs, a.IPNet.String())
				}
				return err
			}))
			want := []string{"10.77.0.1/24"}
			if !netlab.Linux(5, 18) { // it doesn't keep who gave an address, so that ours stays
				want = append(want, "192.0.2.1/32")
			}
			assert.Equal(t, want, addrs)
		})
	}
}

func TestAdoptByDescriptor(t *testing.T) {
	n := newNetwork(t)
	var f *os.File
	require.NoError(t, n.node.Do(func() error {
		fd, err := openTUN("theirs", false)
		f = os.NewFile(uintptr(fd), "tun")
		return err
	}))
	cfg := nodeConfig
	cfg.File = f
	dev := create(t, n.node, cfg)
	assert.Equal(t, "theirs", dev.Name())
	packets := readAll(dev)
	require.NoError(t, send(t, n.node, "", "", far4, "x"))
	for got := ""; got != eid4+" > "+far4+" x"; got = next(t, packets) {
	}
	_, err := f.Stat()
	assert.ErrorIs(t, err, os.ErrClosed)

	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	_, err = Create(Config{File: null})
	assert.ErrorContains(t, err, "not a TUN device")
	_, err = null.Stat()
	assert.ErrorIs(t, err, os.ErrClosed)
}

func TestInUse(t *testing.T) {
	n := newNetwork(t)
	other := Config{Name: "lmn1", EIDs: nodeConfig.EIDs, Table: 99, RulePriority: 99}
	expect := func(what string, cfg Config) {
		t.Helper()
		before := state(t, n.node)
		err := n.node.Do(func() error {
			i, err := Create(cfg)
			if err == nil {
				_ = i.Close()
			}
			return err
		})
		require.ErrorIs(t, err, ErrInUse)
		assert.ErrorContains(t, err, what)
		assert.Equal(t, before, state(t, n.node), "the one who has it must not notice")
	}
	create(t, n.node, nodeConfig)
	expect("lmn0", Config{EIDs: nodeConfig.EIDs})
	expect("table 4341", Config{Name: "lmn1", EIDs: nodeConfig.EIDs, RulePriority: 99})
	// Rules that carry our mark are not always a dead process's.
	for _, priority := range []uint32{0, 4334, 4341, 4346} {
		expect("lmn0", Config{Name: "lmn1", EIDs: nodeConfig.EIDs, Table: 99, RulePriority: priority})
	}
	expect("eth0", Config{Name: "eth0"})
	require.ErrorIs(t, n.node.Do(func() error { return Cleanup(nodeConfig) }), ErrInUse)
	require.ErrorIs(t, n.node.Do(func() error { return Cleanup(Config{Name: "lmn1"}) }), ErrInUse)
	require.ErrorIs(t, n.node.Do(func() error { return Cleanup(Config{Name: "lmn1", Table: 99}) }), ErrInUse)
	// Beside each other there is room for both.
	for _, priority := range []uint32{4333, 4347} {
		i := create(t, n.node, Config{Name: "lmn1", EIDs: prefixes("192.0.2.9/32", "2001:db8:e::9/128"), Table: 99, RulePriority: priority})
		require.NoError(t, i.Close())
	}

	require.NoError(t, n.node.Do(func() error {
		r := netlink.NewRule()
		r.Priority, r.Table = 103, 254
		return netlink.RuleAdd(r)
	}))
	expect("103", other)
	n.node.MustRun("ip", "route", "add", "198.18.0.0/15", "via", "10.0.0.1", "table", "98")
	other.RulePriority, other.Table = 110, 98
	expect("table 98", other)
	n.node.MustRun("ip", "route", "add", "blackhole", "198.18.0.0/15", "table", "97")
	other.Table = 97
	expect("198.18.0.0/15", other)
}

func TestRepair(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	dev := create(t, n.node, nodeConfig)
	require.NoError(t, dev.SetLocals(locators))
	running := state(t, n.node)
	require.NoError(t, dev.Repair())
	require.Equal(t, running, state(t, n.node))

	require.NoError(t, n.node.Do(func() error {
		require.NoError(t, netlink.LinkSetDown(dev.link())) // takes routes and an address along
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			rules, err := netlink.RuleList(family)
			require.NoError(t, err)
			for _, r := range rules {
				if r.Protocol == Protocol {
					d := netlink.NewRule()
					d.Family, d.Priority = family, r.Priority
					require.NoError(t, netlink.RuleDel(d))
				}
			}
		}
		return nil
	}))
	require.Equal(t, before["rules"], state(t, n.node)["rules"])
	require.NoError(t, dev.Repair())
	now := state(t, n.node)
	assert.Equal(t, running["rules"], now["rules"])
	assert.Equal(t, running["routes"], now["routes"])
	assert.Len(t, now["addresses"], len(running["addresses"])) // one has a new time stamp
	require.NoError(t, dev.Close())
	assert.Equal(t, before, state(t, n.node))
	assert.ErrorIs(t, dev.Repair(), os.ErrClosed)
}

func TestFailureUndoesEverything(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	n.node.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	err := n.node.Do(func() error {
		_, err := Create(nodeConfig)
		return err
	})
	require.ErrorContains(t, err, "address "+eid6)
	assert.Equal(t, before, state(t, n.node))

	_, err = Create(Config{MTU: 1})
	assert.ErrorIs(t, err, ErrConfig)
	assert.ErrorIs(t, Cleanup(Config{MTU: 1}), ErrConfig)
}
