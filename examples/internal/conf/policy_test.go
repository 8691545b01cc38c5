package conf

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPolicyOptions(t *testing.T) {
	n, err := node(t, minimal)
	require.NoError(t, err)
	assert.Empty(t, n.Policies)
	assert.Zero(t, n.MarkMask)

	n, err = node(t, `uplink-policy { destination = { 198.51.100.0/24, 2001:db8:5::/48 } dscp = { 46, 0x22 } interface = { ppp0, 'eth*' } unusable = drop }
firewall-marks { mask = 0xff unusable = Drop }
uplink-policy { source = { 192.0.2.0/24 } mark = 0x10 interface = { eth0 } unusable = next }
uplink-policy { destination = { 0.0.0.0/0 } }
`+minimal)
	require.NoError(t, err)
	prefix := netip.MustParsePrefix
	assert.Equal(t, []UplinkPolicy{
		{
			Destinations: []netip.Prefix{prefix("198.51.100.0/24"), prefix("2001:db8:5::/48")}, DSCPs: []uint8{46, 34},
			Interfaces: []string{"ppp0", "eth*"}, Unusable: UnusableDrop, Line: 1,
		},
		{ByMark: true, Unusable: UnusableDrop, Line: 2},
		{Sources: []netip.Prefix{prefix("192.0.2.0/24")}, Mark: 16, Interfaces: []string{"eth0"}, Unusable: UnusableNext, Line: 3},
		{Destinations: []netip.Prefix{prefix("0.0.0.0/0")}, Unusable: UnusableFallback, Line: 4},
	}, n.Policies, "in the order of the file")
	assert.EqualValues(t, 0xff, n.MarkMask)
	require.Len(t, n.Warnings, 1)
	assert.Contains(t, n.Warnings[0].Text, "no database-mapping has a locator of ppp0")
	assert.Equal(t, "by firewall mark: source [] destination [] dscp [] mark 0x0, else drop", n.Policies[1].String())

	n, err = node(t, "uplink-policy { mark = 0x10 interface = { eth0 } }\n"+minimal)
	require.NoError(t, err)
	assert.EqualValues(t, uint32(0xffffffff), n.MarkMask)
	n, err = node(t, "firewall-marks { }\n"+minimal)
	require.NoError(t, err)
	assert.EqualValues(t, uint32(0xffffffff), n.MarkMask)

	for src, want := range map[string]string{
		"firewall-marks { mask = 0x0f }\nuplink-policy { mark = 0x10 interface = { eth0 } }": "f:2: uplink-policy.mark",
		"uplink-policy { dscp = { 64 } interface = { eth0 } }":                               "'64' is not a number from 0 to 63",
		"uplink-policy { interface = { '[' } }":                                              "'[' is not a pattern",
		"uplink-policy { unusable = next }":                                                  "does nothing",
		"uplink-policy { interface = { eth0 } unusable = never }":                            "'never' is not one of fallback, drop, next",
		"firewall-marks { unusable = next }":                                                 "'next' is not one of fallback, drop",
		"firewall-marks { mask = 0 }":                                                        "from 1 to",
		"uplink-policy { destination = { here } interface = { eth0 } }":                      "'here'",
		"tun-table = 434103":                                                                 "f:1: tun-table: tables 434100 to 1482676 are for the uplinks",
	} {
		_, err := node(t, src+"\n"+minimal)
		require.ErrorContains(t, err, want, src)
	}
	_, err = node(t, "tun-table = 434099\n"+minimal)
	require.NoError(t, err)
}
