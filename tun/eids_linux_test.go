package tun

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// listed is what "ip" says of our rules, routes and addresses, without the numbers of
// devices.
func listed(t *testing.T, h *netlab.Host) string {
	t.Helper()
	var lines []string
	for _, family := range []string{"-4", "-6"} {
		tables := []string{fmt.Sprint(DefaultTable)}
		for slot := range 3 {
			tables = append(tables, fmt.Sprint(DefaultMarkTable+slot))
		}
		out := h.MustRun("ip", family, "rule")
		for _, table := range tables {
			routes, err := h.Run(t.Context(), "ip", family, "route", "show", "table", table)
			if err != nil {
				continue // there is no table that never had a route
			}
			for line := range strings.Lines(routes) {
				out += "table " + table + ": " + line
			}
		}
		for line := range strings.Lines(h.MustRun("ip", family, "-o", "addr")) {
			if strings.Contains(line, "lmn0") && !strings.Contains(line, "scope link") {
				_, line, _ = strings.Cut(line, ": ")
				out += line
			}
		}
		lines = append(lines, strings.Split(strings.TrimSpace(out), "\n")...)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestSetEIDs: with other EIDs all is as if the device had been made with them.
func TestSetEIDs(t *testing.T) {
	netlab.RequireProgram(t, "ip")
	for _, tt := range []struct {
		name string
		cfg  Config
		eids [][]netip.Prefix
	}{
		{"another", nodeConfig, [][]netip.Prefix{
			prefixes("192.0.2.11/32", eid6+"/128"), prefixes(eid4+"/32", "2001:db8:e::11/128"), prefixes(eid6 + "/128"), prefixes(eid4 + "/32"), nil,
			prefixes("192.0.2.11/32", eid4+"/32", eid6+"/128"), prefixes(eid4+"/32", "192.0.2.11/32", eid6+"/128"),
		}},
		{"of a router", routerConfig, [][]netip.Prefix{
			prefixes("192.0.2.0/25", "198.51.100.0/24", "2001:db8:e::/48"), prefixes("192.0.2.1/24"), prefixes("2001:db8:e:1::/64"),
		}},
		{"some destinations", Config{EIDs: nodeConfig.EIDs, Destinations: prefixes("198.18.0.0/15", "2001:db8:5::/48")}, [][]netip.Prefix{
			prefixes("192.0.2.11/32"), prefixes("2001:db8:e::11/128", "192.0.2.11/32"),
		}},
		{"of a proxy", Config{Destinations: prefixes("198.18.0.0/15"), Proxy: true}, [][]netip.Prefix{
			prefixes("192.0.2.0/24"), prefixes("192.0.2.0/24", "2001:db8:e::/48"),
		}},
		{"with marks", markedConfig, [][]netip.Prefix{
			prefixes("192.0.2.11/32", "2001:db8:e::11/128"), prefixes(eid4 + "/32"), prefixes(eid6 + "/128"), nil,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			node := func(eids []netip.Prefix) *Interface {
				cfg := tt.cfg
				cfg.EIDs = eids
				i := create(t, n.node, cfg)
				require.NoError(t, i.SetLocals(locators))
				if cfg.MarkMask != 0 {
					_, err := i.SetMarks([]uint32{3})
					require.NoError(t, err)
				}
				return i
			}
			empty, forwarding := listed(t, n.node), forwardingState(t, n.node)
			var want []string
			for _, eids := range tt.eids {
				i := node(eids)
				want = append(want, listed(t, n.node))
				require.NoError(t, i.Close())
			}
			i := node(tt.cfg.EIDs)
			began := listed(t, n.node)
			for k, eids := range tt.eids {
				require.NoError(t, i.SetEIDs(eids)) // from a thread of another namespace
				assert.Equal(t, want[k], listed(t, n.node), "%v", eids)
				require.NoError(t, i.Repair())
				assert.Equal(t, want[k], listed(t, n.node), "%v after Repair", eids)
			}
			require.NoError(t, i.SetEIDs(tt.cfg.EIDs))
			assert.Equal(t, began, listed(t, n.node))
			require.NoError(t, i.Close())
			assert.Equal(t, empty, listed(t, n.node))
			assert.Equal(t, forwarding, forwardingState(t, n.node))
			assert.ErrorIs(t, i.SetEIDs(nil), os.ErrClosed)
		})
	}
}

// TestSetEIDsFails: what cannot be changes nothing.
func TestSetEIDsFails(t *testing.T) {
	netlab.RequireProgram(t, "ip")
	n := newNetwork(t)
	i := create(t, n.node, Config{EIDs: prefixes(eid4 + "/32"), MTU: 1000})
	require.NoError(t, i.SetLocals(locators))
	before := listed(t, n.node)
	for name, eids := range map[string][]netip.Prefix{
		"a locator":                prefixes(rloc4 + "/32"),
		"IPv6 with so small a MTU": prefixes(eid4+"/32", eid6+"/128"),
		"twice":                    prefixes(eid4+"/32", eid4+"/32"),
		"multicast":                prefixes("224.0.0.1/32"),
	} {
		require.ErrorIs(t, i.SetEIDs(eids), ErrConfig, name)
		assert.Equal(t, before, listed(t, n.node), name)
	}
	// What the system refuses half-way is undone, too.
	require.NoError(t, i.SetMTU(1400))
	n.node.Sysctl("net/ipv6/conf/lmn0/disable_ipv6", "1")
	require.ErrorContains(t, i.SetEIDs(prefixes("192.0.2.11/32", eid6+"/128")), "address "+eid6)
	assert.Equal(t, before, listed(t, n.node))
	n.node.Sysctl("net/ipv6/conf/lmn0/disable_ipv6", "0")
	require.NoError(t, i.SetEIDs(prefixes("192.0.2.11/32", eid6+"/128")))
	require.ErrorIs(t, i.SetMTU(1000), ErrConfig, "there is an IPv6 EID now")
	require.ErrorIs(t, i.SetLocals([]netip.Addr{netip.MustParseAddr(eid6)}), ErrConfig)
}
