package tun

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// lines is what a program has printed so far.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// leading is what leads packets to a device: rules, routes and addresses, but not how
// long they last.
func leading(t *testing.T, h *netlab.Host, cfg Config) (all []string) {
	t.Helper()
	cfg, err := cfg.withDefaults()
	require.NoError(t, err)
	require.NoError(t, h.Do(func() error {
		n, err := openRTNL()
		require.NoError(t, err)
		defer n.close()
		for _, v6 := range []bool{false, true} {
			rules, err := n.rules(v6)
			require.NoError(t, err)
			for _, r := range rules {
				all = append(all, fmt.Sprintf("%v %d", r.rule, r.protocol))
			}
			routes, err := n.routes(v6, cfg.Table)
			require.NoError(t, err)
			for _, r := range routes {
				all = append(all, fmt.Sprintf("%+v", r))
			}
		}
		addrs, err := n.addrs(0)
		for _, a := range addrs {
			all = append(all, fmt.Sprintf("%+v", a))
		}
		return err
	}))
	slices.Sort(all)
	return all
}

// A device that lingers, and all that leads to it, is there when the process has
// closed it. The next one takes it over without removing anything that it needs, and
// removes what it does not.
func TestLinger(t *testing.T) {
	netlab.RequireProgram(t, "ip")
	n := newNetwork(t)
	before := state(t, n.node)
	lingering, other := nodeConfig, nodeConfig
	lingering.Linger = time.Hour
	other.Linger, other.EIDs = time.Hour, prefixes(eid4+"/32", "192.0.2.7/32", "2001:db8:e::7/128")

	i := create(t, n.node, lingering)
	require.NoError(t, i.SetLocals(locators))
	set := leading(t, n.node, nodeConfig)
	require.NoError(t, i.Close())
	assert.Equal(t, set, leading(t, n.node, nodeConfig))

	var seen lines
	cmd := n.node.Command(t.Context(), "ip", "-o", "monitor", "link", "rule", "route", "address")
	cmd.Stdout = &seen
	require.NoError(t, cmd.Start())
	heard := func(net string) { // all that was done before
		t.Helper()
		tries := 0
		require.NoError(t, netlab.Eventually(t.Context(), "the monitor to hear "+net, func() bool {
			n.node.MustRun("ip", "route", "add", "blackhole", fmt.Sprint(net, tries), "table", "77")
			tries++
			return strings.Contains(seen.String(), net)
		}))
	}
	heard("198.18.0.")
	i = create(t, n.node, lingering)
	require.NoError(t, i.SetLocals(locators))
	heard("198.18.1.")
	assert.NotContains(t, seen.String(), "Deleted")
	n.node.MustRun("ip", "route", "flush", "table", "77")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	assert.Equal(t, set, leading(t, n.node, nodeConfig))
	// The one that took over knows what there is.
	require.NoError(t, i.SetLocals(locators[:1]))
	assert.NotEqual(t, set, leading(t, n.node, nodeConfig))
	require.NoError(t, i.SetLocals(locators))
	assert.Equal(t, set, leading(t, n.node, nodeConfig))
	require.NoError(t, i.Close())

	// With other EIDs, and then as if all were new.
	i = create(t, n.node, other)
	require.NoError(t, i.SetLocals(locators))
	adapted := leading(t, n.node, nodeConfig)
	require.NoError(t, i.Close())
	other.Linger = 0
	i = create(t, n.node, other)
	require.NoError(t, i.SetLocals(locators))
	assert.Equal(t, leading(t, n.node, nodeConfig), adapted)
	require.NoError(t, i.Close())
	assert.Equal(t, before, state(t, n.node))

	// Cleanup ends it.
	require.NoError(t, create(t, n.node, lingering).Close())
	require.NoError(t, n.node.Do(func() error { return Cleanup(lingering) }))
	assert.Equal(t, before, state(t, n.node))
}

// When the time is over since the last Renew the host goes on as if there were no
// LISP.
func TestLingerEnds(t *testing.T) {
	n := newNetwork(t)
	cfg := nodeConfig
	cfg.Linger = time.Hour
	i := create(t, n.node, cfg)
	uplink := func() bool {
		for _, far := range []string{far4, far6} {
			rs, err := n.node.Netlink().RouteGet(net.ParseIP(far))
			require.NoError(t, err)
			l, err := n.node.Netlink().LinkByIndex(rs[0].LinkIndex)
			require.NoError(t, err)
			if l.Attrs().Name == i.Name() {
				return false
			}
		}
		return true
	}
	require.False(t, uplink())
	require.NoError(t, i.Close())
	require.False(t, uplink())
	cfg.Linger = time.Second
	i = create(t, n.node, cfg)
	require.NoError(t, i.Renew())
	require.NoError(t, i.Close())
	require.Error(t, i.Renew())
	require.NoError(t, n.node.Await(t.Context(), "the addresses to go", func(nl *netlink.Handle) (bool, error) {
		addrs, err := nl.AddrList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: i.index}}, netlink.FAMILY_ALL)
		return len(addrs) == 0, err
	}))
	require.NoError(t, netlab.Eventually(t.Context(), "packets take the uplink", uplink))
	require.NoError(t, n.node.Do(func() error { return Cleanup(cfg) }))
}

// What a router had before it forwarded is known as long as its device lingers, also
// when the next process has it forward another family.
func TestLingerRouter(t *testing.T) {
	n := newNetwork(t)
	before := forwardingState(t, n.node)
	cfg := routerConfig
	cfg.Linger = time.Hour
	first := cfg
	first.EIDs = cfg.EIDs[:1]
	require.NoError(t, create(t, n.node, first).Close())
	require.NoError(t, create(t, n.node, cfg).Close())
	now := forwardingState(t, n.node)
	require.Equal(t, "1", now["ipv4/ip_forward"])
	require.Equal(t, "1", now["ipv6/conf/all/forwarding"])
	require.NoError(t, n.node.Do(func() error { return Cleanup(cfg) }))
	assert.Equal(t, before, forwardingState(t, n.node))
}
