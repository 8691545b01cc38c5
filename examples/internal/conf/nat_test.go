package conf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestNodeNAT: a node finds out about NATs unless one of the switches of three
// formats is off.
func TestNodeNAT(t *testing.T) {
	const rest = "\nmap-resolver = { 198.51.100.1 }\nmap-server { address = 198.51.100.1 key = k }\n" +
		"database-mapping { eid-prefix = 192.0.2.1/32 interface = eth0 }\n"
	for _, tt := range []struct {
		src  string
		want NAT
	}{
		{"", NAT{Variant: Draft19}},
		{"nat_traversal_support = on", NAT{Variant: Draft19}},
		{"nat_traversal_support = off", NAT{Variant: Draft19, Off: true}},
		{"use-nat-tunneling = off", NAT{Variant: Draft19, Off: true}},
		{"nat-traversal { nat_aware = off }", NAT{Variant: Draft19, Off: true}},
		{"nat-traversal { nat_aware = on variant = lispers.net host-name = h always = on keep-alive = 40 min-keep-alive = 9 }", NAT{
			Variant: LispersNet, HostName: "h", Always: true, KeepAlive: 40 * time.Second, MinKeepAlive: 9 * time.Second,
		}},
		{"nat-traversal { variant = OLD }", NAT{Variant: OldDraft}},
	} {
		n, err := ParseNode(t.Context(), "f", tt.src+rest, hermetic())
		require.NoError(t, err, tt.src)
		assert.Equal(t, tt.want, n.NAT, tt.src)
		assert.Empty(t, n.Warnings, tt.src)
	}
	_, err := ParseNode(t.Context(), "f", "nat-traversal { variant = new }"+rest, hermetic())
	assert.ErrorContains(t, err, "nat-traversal.variant")
}

const rtrNodes = `
ms-rtr-node { name = one address = 203.0.113.9 key = secret key-id = 3 }
ms-rtr-node { name = two address = 203.0.113.10 key-type = 2 }
`

func TestMapServerNAT(t *testing.T) {
	one := RTRNode{"one", netip.MustParseAddr("203.0.113.9"), Key{ID: 3, Type: 1, Secret: "secret"}}
	two := RTRNode{"two", netip.MustParseAddr("203.0.113.10"), Key{Type: 2}}
	for _, tt := range []struct {
		src      string
		want     MapServerNAT
		warnings int
	}{
		{"", MapServerNAT{}, 0},
		{rtrNodes, MapServerNAT{RTRs: []RTRNode{one, two}}, 0},
		{rtrNodes + "ms-rtrs-set { name = s ttl = 1440 rtrs = { two, one } }\nms-advertised-rtrs-set = s", MapServerNAT{RTRs: []RTRNode{two, one}, TTL: 24 * time.Hour}, 0},
		{rtrNodes + "ms-rtrs-set { name = s rtrs = { two } }\nms-advertised-rtrs-set = s", MapServerNAT{RTRs: []RTRNode{two}}, 1},
		{"nat-traversal { lispers-net = on }", MapServerNAT{LispersNet: true}, 0},
	} {
		m, err := ParseMapServer(t.Context(), "f", tt.src+minimalServer, hermetic())
		require.NoError(t, err, tt.src)
		assert.Equal(t, tt.want, m.NAT, tt.src)
		assert.Len(t, m.Warnings, tt.warnings, "%v", m.Warnings)
		assert.Nil(t, m.RTR)
	}
	for src, want := range map[string]string{
		"ms-rtr-node { name = x }":                                                         "ms-rtr-node.address: is missing",
		"ms-rtr-node { address = nobody! }":                                                "ms-rtr-node.address",
		rtrNodes + "ms-rtr-node { name = one address = 203.0.113.11 }":                     "there is an RTR one already",
		rtrNodes + "ms-advertised-rtrs-set = s":                                            "there is no ms-rtrs-set with the name s",
		rtrNodes + "ms-rtrs-set { name = s rtrs = { three } }\nms-advertised-rtrs-set = s": "there is no ms-rtr-node three",
	} {
		_, err := ParseMapServer(t.Context(), "f", src+minimalServer, hermetic())
		assert.ErrorContains(t, err, want, src)
	}
}

func TestRTR(t *testing.T) {
	m, err := ParseMapServer(t.Context(), "f", `
		operating-mode = RTR
		debug = 2
		control-socket = /tmp/s
		map-resolver = { 198.51.100.1 }
		rtr-ifaces {
			rtr-iface { iface = eth0 }
			rtr-iface { iface = eth1 ip_version = 6 priority = 2 weight = 50 }
		}
		rtr-ms-node { address = 198.51.100.1 key = secret draft-version = NEW }
		rtr-ms-node { address = 198.51.100.2 draft-version = OLD }
		rtr-iids = { 0, 7 }
		rtr-require-key = on
		nat-traversal { lispers-net = on }
	`, hermetic())
	require.NoError(t, err)
	require.NotNil(t, m.RTR)
	for i := range m.RTR.Locators {
		assert.NotZero(t, m.RTR.Locators[i].Line)
		m.RTR.Locators[i].Line = 0
	}
	assert.Equal(t, RTR{
		MapServers: []RTRMapServer{
			{netip.MustParseAddr("198.51.100.1"), Key{Type: 1, Secret: "secret"}, Draft19},
			{netip.MustParseAddr("198.51.100.2"), Key{Type: 1}, OldDraft},
		},
		MapResolvers: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
		Locators: []LocatorSource{
			{Interface: "eth0", Family: 4, Priority: 1, Weight: 100},
			{Interface: "eth1", Family: 6, Priority: 2, Weight: 50},
		},
		IIDs: []uint32{0, 7}, Dataplane: DataplaneAuto, RequireKey: true, LispersNet: true,
	}, *m.RTR)
	assert.Empty(t, m.Warnings)
	assert.Equal(t, "/tmp/s", m.ControlSocket)
	assert.Equal(t, 2, m.Debug)

	for src, want := range map[string]string{
		"":                         "an RTR needs an rtr-ms-node",
		"dataplane = magic":        "dataplane",
		"rtr-iids = { many }":      "'many' is not an instance",
		"rtr-ms-node { key = k }":  "rtr-ms-node.address: is missing",
		"map-resolver = { here! }": "map-resolver",
		"rtr-ifaces { rtr-iface { ip_version = 4 } }":           "iface: is missing",
		"rtr-ifaces { rtr-iface { iface = a ip_version = 5 } }": "neither 4 nor 6",
	} {
		_, err := ParseMapServer(t.Context(), "f", "operating-mode = RTR\n"+src, hermetic())
		assert.ErrorContains(t, err, want, src)
	}
	_, err = ParseNode(t.Context(), "f", "operating-mode = RTR", hermetic())
	assert.ErrorContains(t, err, "start lispms with it")
}

// TestRTRWithSites: an RTR with sites is their Map-Server, too.
func TestRTRWithSites(t *testing.T) {
	m, err := ParseMapServer(t.Context(), "f", "operating-mode = RTR\nstate-file = /s\ndataplane = user\n"+rtrNodes+minimalServer, hermetic())
	require.NoError(t, err)
	require.NotNil(t, m.RTR)
	assert.True(t, m.ServesSites())
	assert.Empty(t, m.RTR.MapServers, "its own needs no word")
	assert.Equal(t, DataplaneUser, m.RTR.Dataplane)
	assert.Equal(t, "/s", m.StateFile)
	assert.Len(t, m.NAT.RTRs, 2)
	assert.Empty(t, m.Warnings)

	m, err = ParseMapServer(t.Context(), "f", "operating-mode = RTR\nrtr-ms-node { address = 198.51.100.1 }\nstate-file = /s\ncontrol-iface = eth0", hermetic())
	require.NoError(t, err)
	assert.False(t, m.ServesSites())
	assert.Len(t, m.Warnings, 2, "without sites it is an RTR alone")

	_, err = ParseMapServer(t.Context(), "f", "operating-mode = RTR\ncontrol-iface = eth0\n"+minimalServer, hermetic())
	assert.ErrorContains(t, err, "an RTR takes control messages at all addresses, and so does its Map-Server")
}
