package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/tun"
)

// envFlaps says how often TestFlaps flaps the interfaces, at 60 ms each.
const envFlaps = "XTRKIT_FLAPS"

// kernelState lists the rules and routes of a host that lispmn has made, in words
// that do not change when its device is made anew.
func kernelState(t *testing.T, h *netlab.Host) (list []string) {
	t.Helper()
	nl := h.Netlink()
	links, err := nl.LinkList()
	require.NoError(t, err)
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := nl.RuleList(family)
		require.NoError(t, err)
		for _, r := range rules {
			if r.Priority != 0 && r.Priority < 32766 {
				list = append(list, fmt.Sprintf("rule %d from %v table %d goto %d", r.Priority, r.Src, r.Table, r.Goto))
			}
		}
		routes, err := nl.RouteListFiltered(family, &netlink.Route{Protocol: tun.Protocol}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		require.NoError(t, err)
		for _, r := range routes {
			list = append(list, fmt.Sprintf("route %v via %v dev %s src %v table %d metric %d", r.Dst, r.Gw, names[r.LinkIndex], r.Src, r.Table, r.Priority))
		}
	}
	slices.Sort(list)
	return list
}

// openFiles counts the file descriptors of a process.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	return len(fds)
}

// TestFlaps: interfaces go down and come up, some sixteen times a second. Nothing
// is left behind, and in the end all is as in the beginning.
func TestFlaps(t *testing.T) {
	flaps := 100
	if s := os.Getenv(envFlaps); s != "" {
		var err error
		flaps, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	d := multihomeLab(t)
	startNodes(t, d, func(s site) string { return d.patternConfig(s, "") }, multiA, multiB)
	do(t, d, startStreams)
	a, node := d.hosts["a"], d.children["a"]
	st, err := node.ready(t.Context())
	require.NoError(t, err)
	pid, goroutines, files := st.PID, st.Node.Goroutines, openFiles(t, st.PID)
	kernel := kernelState(t, a)
	require.NotEmpty(t, kernel)
	t.Logf("before: %d goroutines, %d files, %d rules and routes", goroutines, files, len(kernel))

	links := []*netlab.Link{d.links["a/eth0"], d.links["a/eth1"]}
	ticker := time.NewTicker(60 * time.Millisecond)
	defer ticker.Stop()
	began := time.Now()
	for i := range flaps {
		<-ticker.C
		// All four combinations of both, and links set down by the host itself.
		switch l := links[i/2%2]; {
		case i%8 == 6:
			l.A.Down()
		case i%8 == 7:
			l.A.Up()
			name := []string{"", " metric 100"}[i/2%2]
			a.MustRun("sh", "-c", "ip route replace default via "+[]string{siteA.gw[ipv4], multiA.more[0].gw}[i/2%2]+name)
		case i%2 == 0:
			l.B.Down()
		default:
			l.B.Up()
		}
	}
	require.NoError(t, d.lab.Err())
	t.Logf("%d flaps in %v", flaps, time.Since(began).Round(time.Millisecond))

	began = time.Now()
	for _, f := range d.streams.flows {
		_, err := f.Outage(t.Context(), time.Now())
		require.NoError(t, err)
	}
	t.Logf("all flows are back after %v", time.Since(began).Round(time.Millisecond))
	require.NoError(t, netlab.Eventually(t.Context(), "all locators to be up and registered", func() bool {
		st, err := node.ready(t.Context())
		require.NoError(t, err)
		for _, l := range st.Node.Locals {
			if !l.Up {
				return false
			}
		}
		for _, r := range st.Node.Registrations {
			if r.State != "registered" {
				return false
			}
		}
		return len(st.Node.Locals) == 2 && st.Node.Goroutines <= goroutines
	}))
	assert.Equal(t, kernel, kernelState(t, a))
	require.NoError(t, netlab.Eventually(t.Context(), "the files to be closed", func() bool { return openFiles(t, pid) <= files }))
	ms, err := d.children[siteMS.name].ready(t.Context())
	require.NoError(t, err)
	assert.Len(t, ms.MapServer.Registrations, 4)
	do(t, d, endStreams, stopMultihomed)
}

// TestMultihomedKilled kills a node with several uplinks, and damages what it
// leaves. The next one finds it, repairs it, and removes it in the end.
func TestMultihomedKilled(t *testing.T) {
	d := multihomeLab(t)
	startNodes(t, d, func(s site) string { return d.patternConfig(s, "") }, multiA, multiB)
	do(t, d, startStreams)
	a, node := d.hosts["a"], d.children["a"]
	before := kernelState(t, a)
	node.kill()
	left := kernelState(t, a)
	require.NotEmpty(t, left, "what was not cleaned up")
	// Somebody removes one of its rules, and gives an uplink another gateway.
	nl := a.Netlink()
	rules, err := nl.RuleList(netlink.FAMILY_V4)
	require.NoError(t, err)
	i := slices.IndexFunc(rules, func(r netlink.Rule) bool { return r.Priority != 0 && r.Priority < 32766 })
	require.NoError(t, nl.RuleDel(&rules[i]))
	a.MustRun("ip", "route", "del", "default", "via", multiA.more[0].gw)
	a.MustRun("ip", "addr", "del", multiA.more[0].addr+"/24", "dev", "eth1")
	a.MustRun("ip", "addr", "add", multiA.more[0].addr+"/24", "dev", "eth1")
	a.MustRun("ip", "route", "add", "default", "via", multiA.more[0].gw, "metric", "100")

	mark := d.log.mark()
	require.NoError(t, node.start(t.Context()))
	awaitRegistered(t, d, mark, multiA)
	assert.Equal(t, before, kernelState(t, a))
	for _, f := range d.streams.flows {
		_, err := f.Outage(t.Context(), time.Now())
		require.NoError(t, err)
	}
	do(t, d, endStreams, stopMultihomed)
}
