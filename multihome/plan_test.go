package multihome

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	gw1, gw2, gw6 := addr("198.51.100.254"), addr("203.0.113.254"), addr("fe80::ff")
	eth0 := Interface{
		Index: 2, Name: "eth0", Up: true, IPv4: []netip.Addr{addr("198.51.100.1"), addr("198.51.100.2")}, IPv6: []netip.Addr{addr("2001:db8::1")},
		Default4: &Route{IfIndex: 2, Gateway: gw1}, Default6: &Route{IfIndex: 2, IPv6: true, Gateway: gw6},
	}
	eth1 := Interface{Index: 3, Name: "eth1", Up: true, IPv4: []netip.Addr{addr("203.0.113.1")}, Default4: &Route{IfIndex: 3, Gateway: gw2}}
	down := eth1
	down.Up = false
	all := []netip.Addr{addr("198.51.100.1"), addr("203.0.113.1"), addr("2001:db8::1")}

	assert.Equal(t, plan{
		routes: []tableRoute{{1002, *eth0.Default4}, {1003, *eth1.Default4}},
		rules:  []sourceRule{{all[0], 0}, {all[0], 1002}, {all[1], 0}, {all[1], 1003}},
	}, makePlan(1000, []Interface{eth0, eth1}, all), "IPv6 has one uplink only")
	assert.Equal(t, plan{}, makePlan(1000, []Interface{eth0}, all), "one uplink")
	assert.Equal(t, plan{
		routes: []tableRoute{{1002, *eth0.Default4}},
		rules:  []sourceRule{{all[0], 0}, {all[0], 1002}},
	}, makePlan(1000, []Interface{eth0, down}, all), "the route of the other is still there")
	noRoute := down
	noRoute.Default4 = nil
	assert.Equal(t, plan{}, makePlan(1000, []Interface{eth0, noRoute}, all), "one default route")
	assert.Equal(t, plan{
		routes: []tableRoute{{1003, *eth1.Default4}},
		rules:  []sourceRule{{all[1], 0}, {all[1], 1003}},
	}, makePlan(1000, []Interface{eth0, eth1}, all[1:2]), "one that is a locator")
	assert.Equal(t, plan{}, makePlan(1000, nil, all))
}

func TestRoutingConfig(t *testing.T) {
	t.Parallel()
	c, err := RoutingConfig{Protocol: 245}.withDefaults()
	require.NoError(t, err)
	assert.Equal(t, RoutingConfig{Protocol: 245, Priority: DefaultPriority, TableBase: DefaultTableBase}, c)
	for _, c := range []RoutingConfig{{}, {Protocol: 245, Priority: 32765}, {Protocol: 245, TableBase: 100}} {
		_, err := c.withDefaults()
		require.ErrorIs(t, err, ErrConfig)
	}
}
