package multihome_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/multihome"
)

// A default route may lead to a next hop that is an object of its own. When that is
// removed the kernel removes the IPv4 routes to it, and says so of the next hop alone.
func TestNetlinkNexthop(t *testing.T) {
	for _, compat := range []string{"1", "0"} {
		t.Run("nexthop_compat_mode "+compat, func(t *testing.T) {
			h := newHost(t)
			h.usable("v4,v6 -")
			h.Sysctl("net/ipv4/nexthop_compat_mode", compat)
			h.MustRun("ip", "nexthop", "add", "id", "7", "via", "10.0.2.1", "dev", h.name(1))
			h.MustRun("ip", "nexthop", "add", "id", "8", "via", "2001:db8:2::1", "dev", h.name(1))
			h.MustRun("ip", "route", "add", "default", "nhid", "7", "metric", "200")
			h.usable("v4,v6 v4")
			assert.Equal(t, "10.0.2.1", fmt.Sprint(h.last.Interfaces[1].Default4.Gateway))
			h.MustRun("ip", "-6", "route", "add", "default", "nhid", "8", "metric", "200")
			h.usable("v4,v6 v4,v6")

			// Another next hop behind the same object.
			h.MustRun("ip", "nexthop", "replace", "id", "7", "via", "10.0.2.9", "dev", h.name(1))
			h.until("the other gateway", func(c multihome.Change) bool {
				return fmt.Sprint(c.Interfaces[1].Default4.Gateway) == "10.0.2.9"
			})
			// A group, as routing daemons make them.
			h.MustRun("ip", "nexthop", "add", "id", "9", "via", "10.0.1.1", "dev", h.name(0))
			h.MustRun("ip", "nexthop", "add", "id", "10", "group", "7/9")
			h.MustRun("ip", "route", "del", "default", "metric", "200")
			h.usable("v4,v6 v6")
			h.unroute("10.0.1.1")
			h.usable("v6 v6")
			h.MustRun("ip", "route", "add", "default", "nhid", "10")
			h.usable("v4,v6 v4,v6")
			h.MustRun("ip", "nexthop", "del", "id", "7")
			h.usable("v4,v6 v6")
			h.MustRun("ip", "nexthop", "del", "id", "8")
			h.usable("v4,v6 -")
			h.MustRun("ip", "nexthop", "del", "id", "10")
			h.usable("v6 -")
		})
	}
}

// Of default routes to objects that are equally good, the kernel takes the first, and so
// do we, each time.
func TestNetlinkNexthopOrder(t *testing.T) {
	h := newHost(t)
	h.usable("v4,v6 -")
	h.Sysctl("net/ipv4/nexthop_compat_mode", "0")
	h.MustRun("ip", "route", "add", "default", "via", "10.0.2.9", "metric", "200")
	want := []string{"10.0.2.9"}
	for i := range 8 {
		want = append(want, fmt.Sprintf("10.0.2.%d", 10+i))
		id := fmt.Sprint(20 - i)
		h.MustRun("ip", "nexthop", "add", "id", id, "via", fmt.Sprintf("10.0.2.%d", 10+i), "dev", h.name(1))
		h.MustRun("ip", "route", "append", "default", "nhid", id, "metric", "200")
	}
	h.MustRun("ip", "route", "append", "default", "via", "10.0.2.20", "metric", "200")
	want = append(want, "10.0.2.20")
	require.NoError(t, h.Do(func() error {
		for range 20 {
			n, err := multihome.NewNetlink(multihome.NetlinkConfig{})
			require.NoError(t, err)
			snap, err := n.Next(t.Context())
			require.NoError(t, err)
			require.NoError(t, n.Close())
			var gateways []string
			for _, r := range snap.Routes {
				if r.Metric == 200 {
					gateways = append(gateways, r.Gateway.String())
				}
			}
			require.Equal(t, want, gateways)
		}
		return nil
	}))
}
