package node

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/socktest"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

func parse(t *testing.T, src string) *conf.Node {
	t.Helper()
	cfg, err := conf.ParseNode(t.Context(), "f", src, conf.Options{})
	require.NoError(t, err)
	return cfg
}

var addr = netip.MustParseAddr

// hostOf is a host with an uplink, a second one without IPv6, and one that is
// down. The node's device and loopback are not among what a State shows.
func hostOf() []multihome.Interface {
	def := &multihome.Route{}
	return []multihome.Interface{
		{
			Index: 2, Name: "eth0", Up: true, Default4: def, Default6: def,
			IPv4: []netip.Addr{addr("203.0.113.5"), addr("203.0.113.6")}, IPv6: []netip.Addr{addr("2001:db8:ffff::5")},
		},
		{Index: 3, Name: "wlan0", Up: true, Default4: def, IPv4: []netip.Addr{addr("192.0.2.9")}},
		{Index: 4, Name: "eth1", IPv4: []netip.Addr{addr("203.0.113.77")}},
		{Index: 5, Name: "lan0", Up: true, IPv4: []netip.Addr{addr("203.0.113.88")}},
	}
}

func TestLocators(t *testing.T) {
	t.Parallel()
	const eid = "database-mapping { eid-prefix = 198.51.100.1/32 "
	for _, tc := range []struct {
		name, src string
		want      []mapcache.Local
		missing   []string
	}{
		{
			"both families of an interface", eid + "interface = eth0 }",
			[]mapcache.Local{
				{IfIndex: 2, Addr: addr("203.0.113.5"), Priority: 1, Weight: 100, Up: true},
				{IfIndex: 2, Addr: addr("2001:db8:ffff::5"), Priority: 1, Weight: 100, Up: true},
			},
			nil,
		},
		{
			"what is missing is left out", eid + "interface = wlan0 }",
			[]mapcache.Local{{IfIndex: 3, Addr: addr("192.0.2.9"), Priority: 1, Weight: 100, Up: true}},
			[]string{"f:1: interface wlan0 has no usable IPv6 address"},
		},
		{
			"by address", eid + "rloc-address { address = 203.0.113.6 priority = 3 weight = 4 } }",
			[]mapcache.Local{{IfIndex: 2, Addr: addr("203.0.113.6"), Priority: 3, Weight: 4, Up: true}},
			nil,
		},
		{
			"by pattern", eid + "rloc-iface { interface = 'eth*' } }",
			[]mapcache.Local{
				{IfIndex: 2, Addr: addr("203.0.113.5"), Priority: 1, Weight: 100, Up: true},
				{IfIndex: 4, Addr: addr("203.0.113.77"), Priority: 1, Weight: 100},
			},
			nil,
		},
		{
			"two EIDs, the better priority counts", eid + "rloc-iface { interface = eth0 priority = 5 } }\n" +
				"database-mapping { eid-prefix = 2001:db8::1/128 rloc-iface { interface = eth0 priority = 2 weight = 7 } }",
			[]mapcache.Local{{IfIndex: 2, Addr: addr("203.0.113.5"), Priority: 2, Weight: 7, Up: true}},
			nil,
		},
		{
			"no such interface", eid + "rloc-iface { interface = ppp0 } }", nil,
			[]string{"f:1: there is no interface ppp0 (there are: eth0, wlan0, eth1, lan0)"},
		},
		{
			"a locator of an interface that is down is down", eid + "rloc-iface { interface = eth1 } }",
			[]mapcache.Local{{IfIndex: 4, Addr: addr("203.0.113.77"), Priority: 1, Weight: 100}},
			[]string{"f:1: interface eth1 is down"},
		},
		{
			"no default route", eid + "rloc-iface { interface = lan0 } }",
			[]mapcache.Local{{IfIndex: 5, Addr: addr("203.0.113.88"), Priority: 1, Weight: 100}},
			[]string{"f:1: interface lan0 has no IPv4 default route"},
		},
		{
			"no such address", eid + "rloc-address { address = 203.0.113.7 } }", nil,
			[]string{"f:1: no interface has the address 203.0.113.7"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, missing := locatorsOf(parse(t, tc.src), hostOf())
			assert.Equal(t, tc.want, got)
			assert.Equal(t, tc.missing, missing)
		})
	}
	eids := isEID(parse(t, eid+"interface = eth0 }"))
	assert.True(t, eids(addr("198.51.100.1")))
	assert.False(t, eids(addr("198.51.100.2")))
}

func TestControlConfig(t *testing.T) {
	t.Parallel()
	cfg := parse(t, `
map-resolver = { 203.0.113.1, 2001:db8:ffff::1 }
map-server { address = 203.0.113.1 key-type = 2 key = s key-id = 3 proxy-reply = on }
proxy-etr { address = 203.0.113.2 priority = 4 weight = 5 }
static-map-cache { eid-prefix = 198.51.100.0/24 rloc = 203.0.113.3 }
rloc-probing { rloc-probe-interval = 10 rloc-probe-retries = 2 rloc-probe-retries-interval = 10 }
database-mapping { eid-prefix = 198.51.100.1/32 ttl = 5 rloc-iface { interface = eth0 priority = 5 } }
database-mapping { eid-prefix = 2001:db8::1/128 rloc-iface { interface = eth0 priority = 2 } rloc-iface { interface = eth1 } }`)
	c := controlConfig(cfg, database(cfg, hostOf(), nil), identity{XTRID: lisp.XTRID{1}, Nonce: 9}, nil)
	assert.Equal(t, []control.DatabaseMapping{
		{
			Key: mapcache.Key{Prefix: netip.MustParsePrefix("198.51.100.1/32")}, TTL: 5 * time.Minute,
			RLOCs: []control.DatabaseRLOC{{IfIndex: 2, Family: 4, Priority: 5, Weight: 100}},
		},
		{
			Key: mapcache.Key{Prefix: netip.MustParsePrefix("2001:db8::1/128")}, TTL: 10 * time.Minute,
			RLOCs: []control.DatabaseRLOC{
				{IfIndex: 2, Family: 4, Priority: 2, Weight: 100}, {IfIndex: 4, Family: 4, Priority: 1, Weight: 100},
			},
		},
	}, c.Database)
	assert.Equal(t, []control.MapServer{{
		Addr: netip.MustParseAddrPort("203.0.113.1:4342"), ProxyReply: true,
		Key: lisp.Key{ID: 3, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("s")},
	}}, c.MapServers)
	assert.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:4342"), netip.MustParseAddrPort("[2001:db8:ffff::1]:4342")}, c.MapResolvers)
	assert.Equal(t, []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr("203.0.113.2")}, Priority: 4, Weight: 5}}, c.ProxyETRs)
	require.Len(t, c.StaticMappings, 1)
	assert.Equal(t, mapcache.OriginStatic, c.StaticMappings[0].Origin)
	assert.Equal(t, control.ProbeConfig{Interval: 10 * time.Second, Tries: 3, Timeout: 5 * time.Second}, c.Probe)
	_, err := control.New(c)
	require.NoError(t, err)

	// With the same locators everywhere, those that the Runner is told count.
	cfg = parse(t, `database-mapping { eid-prefix = 198.51.100.1/32 interface = eth0 }
database-mapping { eid-prefix = 2001:db8::1/128 interface = eth0 }
rloc-probing { rloc-probe-interval = 0 }`)
	c = controlConfig(cfg, database(cfg, hostOf(), nil), identity{XTRID: lisp.XTRID{1}, Nonce: 9}, nil)
	assert.Empty(t, c.Database[0].RLOCs)
	assert.Empty(t, c.Database[1].RLOCs)
	assert.Equal(t, control.ProbeConfig{Interval: -1}, c.Probe)
	assert.Equal(t, control.ProbeConfig{}, probing(conf.Probing{}))
}

func TestStatusConversions(t *testing.T) {
	t.Parallel()
	var cs control.Stats
	cs.MapRegistersSent = 9
	cs.Dropped[control.DropUnknownNonce] = 2
	counts, drops := counters(cs)
	assert.Equal(t, uint64(9), counts["map-registers-sent"])
	assert.Equal(t, map[string]uint64{"unknown nonce": 2}, drops)

	r := registration(control.Registration{
		MapServer: netip.MustParseAddrPort("203.0.113.1:4342"), State: control.StateUnanswered, LastError: "no answer",
		EIDs: []mapcache.Key{{Prefix: netip.MustParsePrefix("198.51.100.1/32")}},
	})
	b, err := json.Marshal(r)
	require.NoError(t, err)
	assert.JSONEq(t, `{"mapServer":"203.0.113.1","eids":["198.51.100.1/32"],"state":"unanswered","lastError":"no answer"}`, string(b))
}

// TestNewGivesBack checks that a node that cannot be made leaves nothing.
func TestNewGivesBack(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs file locks and unix sockets")
	}
	socket := filepath.Join(socktest.Dir(t), "n.sock")
	cfg := parse(t, "control-socket = '"+socket+"'\nstate-file = '"+socket+".state'\ndatabase-mapping { eid-prefix = 198.51.100.1/32 interface = no-such-if0 }")
	cfg.MapServers = []conf.MapServer{{Addr: addr("203.0.113.1")}}
	_, err := New(context.Background(), Config{Conf: cfg})
	require.ErrorContains(t, err, "Map-Server 203.0.113.1:4342 has no key")
	assert.NoFileExists(t, socket)
	assert.ErrorContains(t, permission(fs.ErrPermission), "run it as root")
	assert.NoError(t, permission(nil))
}
