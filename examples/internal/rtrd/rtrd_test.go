package rtrd

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/natt"
)

func TestMain(m *testing.M) { netlab.Main(m) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func parse(t *testing.T, src string) *conf.RTR {
	t.Helper()
	cfg, err := conf.ParseMapServer(t.Context(), "f", "operating-mode = RTR\n"+src, conf.Options{})
	require.NoError(t, err)
	return cfg.RTR
}

const plain = "rtr-ms-node { address = 198.51.100.1 key = secret key-type = 2 key-id = 3 }\n"

// own is what a Map-Server in the same process gives.
var own = []natt.RTRMapServer{{Addr: addr("203.0.113.1"), Key: lisp.Key{Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("made up")}}}

func TestCoreConfig(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	cfg := Config{Conf: parse(t, plain+"rtr-ms-node { address = 198.51.100.2 draft-version = OLD }\nrtr-require-key = on\nnat-traversal { lispers-net = on }"), MapServers: own}
	got := coreConfig(&cfg, log)
	assert.Equal(t, natt.RTRConfig{
		MapServers: []natt.RTRMapServer{
			{Addr: addr("198.51.100.1"), Key: lisp.Key{ID: 3, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("secret")}},
			{Addr: addr("198.51.100.2"), Variant: natt.Old},
			own[0],
		},
		RequireKey: true, LispersNet: true, Logger: log,
	}, got)
	_, err := natt.NewRTR(got)
	require.NoError(t, err)
}

func TestNATPort(t *testing.T) {
	t.Parallel()
	const lispers = "nat-traversal { lispers-net = on }\n"
	for _, tt := range []struct {
		cfg  Config
		want uint16
	}{
		{Config{Conf: parse(t, plain)}, lisp.ControlPort},
		{Config{Conf: parse(t, plain+lispers)}, lisp.ControlPort},
		{Config{Conf: parse(t, lispers)}, lisp.DataPort},
		{Config{Conf: parse(t, lispers), MapServers: own}, lisp.ControlPort},
	} {
		assert.Equal(t, tt.want, natPort(&tt.cfg))
	}
}

func TestResolvers(t *testing.T) {
	t.Parallel()
	locals := []mapcache.Local{{Addr: addr("203.0.113.1")}, {Addr: addr("2001:db8::1")}}
	for _, tt := range []struct {
		cfg  Config
		want []netip.AddrPort
	}{
		{Config{Conf: parse(t, plain)}, []netip.AddrPort{}},
		{Config{Conf: parse(t, plain+"map-resolver = { 192.0.2.1 }"), MapServers: own}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4342")}},
		{Config{Conf: parse(t, plain), MapServers: own}, []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:4342")}},
	} {
		assert.Equal(t, tt.want, resolvers(&tt.cfg, locals))
	}
}

func TestOverlays(t *testing.T) {
	t.Parallel()
	assert.Equal(t, []encap.Overlay{{InstanceID: 0, Relay: true}, {InstanceID: 7, Relay: true}}, overlays(parse(t, plain+"rtr-iids = { 0, 7 }").IIDs))
}

func TestLocators(t *testing.T) {
	t.Parallel()
	ifs := []multihome.Interface{
		{Index: 2, Name: "eth0", Up: true, IPv4: []netip.Addr{addr("198.51.100.7")}, IPv6: []netip.Addr{addr("2001:db8::7")}},
		{Index: 3, Name: "eth1", IPv4: []netip.Addr{addr("203.0.113.7")}},
		{Index: 4, Name: "eth2", Up: true},
	}
	for _, tt := range []struct {
		src  string
		want []mapcache.Local
		says string
	}{
		{"", []mapcache.Local{
			{IfIndex: 2, Addr: addr("198.51.100.7"), Priority: 1, Weight: 100, Up: true},
			{IfIndex: 2, Addr: addr("2001:db8::7"), Priority: 1, Weight: 100, Up: true},
			{IfIndex: 3, Addr: addr("203.0.113.7"), Priority: 1, Weight: 100},
		}, ""},
		{"rtr-ifaces { rtr-iface { iface = eth0 ip_version = 6 priority = 3 weight = 9 } }", []mapcache.Local{
			{IfIndex: 2, Addr: addr("2001:db8::7"), Priority: 3, Weight: 9, Up: true},
		}, ""},
		{"rtr-ifaces { rtr-iface { iface = eth2 } rtr-iface { iface = eth9 } }", nil, "there is no such interface"},
	} {
		var out bytes.Buffer
		r := &RTR{cfg: Config{Conf: parse(t, plain+tt.src), File: "f"}, log: slog.New(slog.NewTextHandler(&out, nil))}
		assert.Equal(t, tt.want, r.locators(ifs), tt.src)
		assert.Contains(t, out.String(), tt.says)
		if tt.says != "" {
			assert.Contains(t, out.String(), "rtr_iface=eth9")
			assert.Contains(t, out.String(), "where=f:3")
		}
	}
}
