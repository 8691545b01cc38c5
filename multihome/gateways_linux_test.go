package multihome_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/multihome"
)

// An uplink's own table has the default route that it has in the main table, of
// whatever kind that is.
func TestGateways(t *testing.T) {
	for _, tt := range []struct{ family, route, want string }{
		{"-4", "default via 10.0.2.1 dev eth1 metric 200", "default via 10.0.2.1 dev eth1 proto 245 onlink"},
		{"-4", "default dev eth1 metric 200", "default dev eth1 proto 245 scope link"}, // ppp
		{"-4", "default via inet6 2001:db8:2::1 dev eth1 metric 200", "default via inet6 2001:db8:2::1 dev eth1 proto 245"},
		{"-4", "default via 192.0.2.1 dev eth1 onlink metric 200", "default via 192.0.2.1 dev eth1 proto 245 onlink"},
		{"-4", "default metric 200 nexthop via 10.0.2.1 dev eth1 nexthop via 10.0.1.1 dev eth0", "default via 10.0.2.1 dev eth1 proto 245 onlink"},
		{"-4", "default metric 200 nexthop via inet6 2001:db8:2::1 dev eth1 nexthop via 10.0.1.1 dev eth0", "default via inet6 2001:db8:2::1 dev eth1 proto 245"},
		{"-6", "default via 2001:db8:2::1 dev eth1 metric 200", "default via 2001:db8:2::1 dev eth1 proto 245 metric 1024 onlink pref medium"},
		{"-6", "default via fe80::1 dev eth1 metric 200", "default via fe80::1 dev eth1 proto 245 metric 1024 onlink pref medium"},
		{"-6", "default dev eth1 metric 200", "default dev eth1 proto 245 metric 1024 pref medium"},
		{
			"-6", "default metric 200 nexthop via fe80::1 dev eth0 nexthop via fe80::2 dev eth1",
			"default via fe80::2 dev eth1 proto 245 metric 1024 onlink pref medium",
		},
	} {
		t.Run(tt.family+" "+tt.route, func(t *testing.T) {
			h := newHost(t)
			h.usable("v4,v6 -")
			require.Equal(t, "eth1", h.name(1))
			h.MustRun("ip", append([]string{tt.family, "route", "add"}, strings.Fields(tt.route)...)...)
			h.until("the second default route", func(c multihome.Change) bool {
				return c.Interfaces[1].Usable(tt.family == "-6") == multihome.Usable
			})
			var r *multihome.Routing
			require.NoError(t, h.Do(func() (err error) {
				r, err = multihome.NewRouting(multihome.RoutingConfig{Protocol: ours})
				return err
			}))
			i := h.last.Interfaces[1]
			table := fmt.Sprint(multihome.DefaultTableBase + i.Index)
			for range 2 { // added and replaced
				require.NoError(t, r.Set(h.last.Interfaces, append(i.IPv4, i.IPv6...)))
				assert.Equal(t, tt.want, strings.TrimSpace(h.MustRun("ip", tt.family, "route", "show", "table", table)))
			}
			require.NoError(t, r.Close())
			assert.Empty(t, h.MustRun("ip", tt.family, "route", "show", "table", table))
		})
	}
}
