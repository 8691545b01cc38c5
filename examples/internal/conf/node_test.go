package conf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hermetic is Options that reach neither the network nor the environment.
func hermetic() Options {
	return Options{
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			switch host {
			case "ms.example.net":
				return []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8:ffff::1")}, nil
			case "mr.example.net":
				return []netip.Addr{netip.MustParseAddr("192.0.2.54"), netip.MustParseAddr("2001:db8:ffff::54")}, nil
			case "empty.example.net":
				return nil, nil
			}
			return nil, errors.New("no such host")
		},
		Getenv: func(name string) (string, bool) {
			if name == "SITE_KEY" {
				return "from the environment", true
			}
			return "", false
		},
	}
}

func load(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(b)
}

func texts(ps []Problem) []string {
	var r []string
	for _, p := range ps {
		r = append(r, p.String())
	}
	return r
}

func TestLISPmobFile(t *testing.T) {
	t.Parallel()
	n, err := ParseNode(t.Context(), "lispd.conf", load(t, "lispd.conf"), hermetic())
	require.NoError(t, err)
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	assert.Equal(t, 1, n.Debug)
	assert.Equal(t, []netip.Addr{addr("192.0.2.53"), addr("192.0.2.54"), addr("2001:db8:ffff::54")}, n.MapResolvers)
	assert.Equal(t, []MapServer{{Addr: addr("192.0.2.1"), Key: Key{Type: 2, Secret: "foo#bar baz"}, ProxyReply: true}}, n.MapServers)
	assert.Equal(t, []RLOC{{Addr: addr("192.0.2.99"), Priority: 2, Weight: 100}}, n.ProxyETRs)
	assert.Equal(t, []netip.Addr{addr("192.0.2.100"), addr("192.0.2.101")}, n.ProxyITRs)
	assert.Equal(t, []StaticMapping{{Prefix: prefix("203.0.113.0/24"), RLOCs: []RLOC{{Addr: addr("192.0.2.7"), Priority: 3, Weight: 10}}}}, n.Static)
	assert.Equal(t, Probing{}, n.Probing)
	assert.Equal(t, []DatabaseMapping{
		{Prefix: prefix("198.51.100.1/32"), TTL: 10 * time.Minute, Line: 19, Locators: []LocatorSource{
			{Interface: "eth0", Family: 4, Priority: 1, Weight: 100, Line: 19},
			{Interface: "wlan0", Family: 4, Priority: 2, Weight: 50, Line: 26},
		}},
		{Prefix: prefix("2001:db8::1/128"), TTL: 10 * time.Minute, Line: 33, Locators: []LocatorSource{
			{Interface: "eth0", Family: 4, Priority: 1, Weight: 100, Line: 33},
			{Interface: "eth0", Family: 6, Priority: 1, Weight: 100, Line: 33},
		}},
	}, n.Mappings)
	assert.Equal(t, 2, n.MapRequestRetries)
	assert.Equal(t, ModeMN, n.Mode)
	assert.Empty(t, n.Warnings)
}

func TestOORFile(t *testing.T) {
	t.Parallel()
	n, err := ParseNode(t.Context(), "oor.conf", load(t, "oor.conf"), hermetic())
	require.NoError(t, err)
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	assert.Equal(t, 3, n.Debug)
	assert.True(t, n.SiteScope)
	assert.Equal(t, []netip.Addr{addr("2001:db8:ffff::53"), addr("192.0.2.53")}, n.MapResolvers)
	assert.Equal(t, []MapServer{{Addr: addr("192.0.2.1"), Key: Key{ID: 16, Type: 1, Secret: "from the environment"}}}, n.MapServers)
	assert.Equal(t, []RLOC{{Addr: addr("192.0.2.2"), Priority: 1, Weight: 5}}, n.ProxyETRs4)
	assert.Equal(t, []RLOC{{Addr: addr("2001:db8:ffff::2"), Priority: 1, Weight: 100}}, n.ProxyETRs6)
	assert.Equal(t, "/var/log/oor.log", n.LogFile)
	assert.Equal(t, uint32(7), n.IID)
	assert.Equal(t, Probing{Interval: 10 * time.Second, Retries: 5, RetryInterval: 10 * time.Second}, n.Probing)
	assert.Equal(t, []DatabaseMapping{{IID: 7, Prefix: prefix("198.51.100.1/32"), TTL: 24 * time.Hour, Line: 14, Locators: []LocatorSource{
		{Addr: addr("192.0.2.33"), Family: 4, Priority: 4, Weight: 5, Line: 18},
		{Interface: "eth0", Family: 6, Priority: 2, Weight: 20, Line: 19},
		{Interface: "eth0", Family: 4, Priority: 1, Weight: 100, Line: 20},
	}}}, n.Mappings)
	assert.Equal(t, []StaticMapping{{IID: 7, Prefix: prefix("203.0.113.0/24"), RLOCs: []RLOC{
		{Addr: addr("192.0.2.7"), Priority: 1, Weight: 100}, {Addr: addr("192.0.2.8"), Priority: 255, Weight: 100},
	}}}, n.Static)
	assert.Equal(t, "/run/other.sock", n.ControlSocket)
	assert.Equal(t, Device{Name: "lisp7", MTU: 1400, Table: 77}, n.Device)
	assert.Equal(t, []string{
		"oor.conf:2: debug: 3 is the highest level",
		"oor.conf:8: rloc-probing.rloc-probe-retries: 5 is the highest value",
	}, texts(n.Warnings))
}

func TestMapServerFile(t *testing.T) {
	t.Parallel()
	m, err := ParseMapServer(t.Context(), "ms.conf", load(t, "ms.conf"), hermetic())
	require.NoError(t, err)
	prefix := netip.MustParsePrefix
	assert.Equal(t, "eth0", m.ControlIface)
	assert.Equal(t, 1, m.Debug)
	assert.Equal(t, []Site{
		{
			Name: "198.51.100.0/24", Keys: []Key{{Type: 1, Secret: "a-secret"}}, Line: 4,
			Prefixes: []SitePrefix{{Prefix: prefix("198.51.100.0/24"), AcceptMoreSpecifics: true}},
		},
		{
			Name: "lab", Keys: []Key{{Type: 2, Secret: "other secret"}}, ProxyReply: true, Line: 12,
			Prefixes: []SitePrefix{{Prefix: prefix("203.0.113.0/25")}, {IID: 9, Prefix: prefix("2001:db8::/48")}},
		},
		{
			Name: "[9]198.51.100.0/24", Keys: []Key{{Type: 1, Secret: "s"}}, Line: 14,
			Prefixes: []SitePrefix{{IID: 9, Prefix: prefix("198.51.100.0/24")}},
		},
	}, m.Sites)
	assert.Equal(t, []string{
		"ms.conf:10: lisp-site.ddt-ms-peers: ignored: " + whyDDT,
		"ms.conf:15: map-resolver: is not for this program (lispmn or RTR); ignored",
	}, texts(m.Warnings))
}

// minimal is a file without problems, to which the cases below add some.
const minimal = `
map-resolver += { 192.0.2.53 }
map-server { address = 192.0.2.1 key = k }
database-mapping { eid-prefix = 198.51.100.1/32 rloc-iface { interface = eth0 } }
`

func TestNodeErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, src, want string }{
		{"typo", "map-sever { address = 192.0.2.1 }", "f:1: map-sever: unknown option; did you mean 'map-server'?"},
		{"typo with underscore", "map_resolver = 192.0.2.1", "f:1: map_resolver: unknown option; did you mean 'map-resolver'?"},
		{"typo in a section", "map-server { addrss = 192.0.2.1 key = k }", "f:1: map-server.addrss: unknown option in section map-server; did you mean 'address'?"},
		{"nonsense", "frobnicate = 1", "f:1: frobnicate: unknown option"},
		{"wrong place", "eid-prefix = 192.0.2.1/32", "f:1: eid-prefix: unknown option; it belongs into section database-mapping"},
		{"no equal sign", "\n\ndebug 3", "f:3: debug: expected '=' or '{' behind 'debug', found '3'"},
		{"no value", "debug = }", "f:1: debug: expected a value, found '}'"},
		{"open section", "map-server {\n address = 192.0.2.1\n", ": map-server: the section opened in line 1 is never closed with '}'"},
		{"stray brace", "debug = 1\n}", "f:2: '}' closes nothing"},
		{"list without comma", "map-resolver = {\n192.0.2.1\n192.0.2.2 }", "f:3: map-resolver: expected ',' or '}' in the list opened in line 1, found '192.0.2.2'"},
		{"open comment", "debug = 1 /* and so on", "f:1: comment is never closed with */"},
		{"open string", "map-server { key = \"abc\n }", "f:1: map-server.key: string is never closed with \""},
		{"deep", strings.Repeat("a {", 20), "f:1: a.a.a.a.a.a.a.a: sections are nested too deeply"},
		{"section as value", "map-server = 192.0.2.1", "f:1: map-server: is a section: write map-server { ... }"},
		{"value as section", "debug { level = 1 }", "f:1: debug: is not a section: write debug = ..."},
		{"list as section", "map-resolver { 192.0.2.1 }", "f:1: map-resolver: is a list: write map-resolver = { ... }"},
		{"value as list", "debug = { 1, 2 }", "f:1: debug: takes one value, not a list"},
		{"not a number", "tun-mtu = big", "f:1: tun-mtu: 'big' is not a number from 576 to 65535"},
		{"out of range", "tun-mtu = 100", "f:1: tun-mtu: '100' is not a number from 576 to 65535"},
		{"not a bool", "map-server { proxy-reply = maybe }", "f:1: map-server.proxy-reply: 'maybe' is neither on nor off"},
		{"no key", "map-server { address = 192.0.2.1 }", "f:1: map-server.key: is missing"},
		{"empty key", "map-server { address = 192.0.2.1\nkey = '' }", "f:2: map-server.key: is empty"},
		{"key type none", "map-server { address = 192.0.2.1 key = k\nkey-type = 0 }", "f:2: map-server.key-type: registrations without authentication are not supported: 1 is HMAC-SHA-1-96, 2 HMAC-SHA-256-128, 3 the same with a derived key per message"},
		{"bad address", "map-resolver = 192.0.2.300", "f:1: map-resolver: '192.0.2.300' is neither an IP address nor a host name"},
		{"unknown host", "map-resolver = nowhere.example.net", "f:1: map-resolver: host name 'nowhere.example.net' cannot be resolved: no such host"},
		{"host without address", "map-resolver = empty.example.net", "f:1: map-resolver: host name 'empty.example.net' has no address"},
		{"multicast", "map-resolver = 224.0.0.1", "f:1: map-resolver: '224.0.0.1' is not the address of a host"},
		{"same Map-Server twice", "map-server { address = 192.0.2.1 key = k }", "f:3: map-server.address: 192.0.2.1 is given twice"},
		{"bad prefix", "database-mapping { eid-prefix = 300/8 }", "f:1: database-mapping.eid-prefix: '300/8' is not an EID-Prefix such as 192.0.2.1/32 or 2001:db8::1/128"},
		{"network as EID", "database-mapping { eid-prefix = 198.51.100.0/24 }", "f:1: database-mapping.eid-prefix: a mobile node is one host: 198.51.100.0/24 must be a /32 (say operating-mode = xTR for a router)"},
		{"two EIDs of a family", "database-mapping { eid-prefix = 198.51.100.2/32 interface = eth0 }", "a mobile node has one EID per address family: 198.51.100.2/32 (line 1) or 198.51.100.1/32"},
		{"two instances", "database-mapping { eid-prefix = 2001:db8::1/128 iid = 5 interface = eth0 }", "there is one device, and so one instance: iid 5 (line 1) or 0"},
		{"no locator", "database-mapping { eid-prefix = 2001:db8::1/128 }", "f:1: database-mapping: has no locator: add rloc-iface { interface = ... } or interface = ..."},
		{"priority in the wrong form", "database-mapping { eid-prefix = 2001:db8::1/128\npriority = 1 }", "f:2: database-mapping.priority: belongs to an interface; inside rloc-iface and rloc-address it is called priority and weight"},
		{"same locator twice", "database-mapping { eid-prefix = 198.51.100.1/32 rloc-iface { interface = eth0 } }", "198.51.100.1/32 has the same locator in line 1 already"},
		{"ip_version", "database-mapping { eid-prefix = 2001:db8::1/128 rloc-iface { interface = eth0 ip_version = 5 } }", "f:1: database-mapping.rloc-iface.ip_version: is 4 or 6"},
		{"locator is a name", "database-mapping { eid-prefix = 2001:db8::1/128 rloc-address { address = my-elp } }", "f:1: database-mapping.rloc-address.address: 'my-elp' is not an IP address of this host (names of explicit locator paths are not supported)"},
		{"ttl 0", "database-mapping { eid-prefix = 198.51.100.1/32 ttl = 0 interface = eth1 }", "f:1: database-mapping.ttl: 0 would withdraw the mapping"},
		{"ttls differ", "database-mapping { eid-prefix = 198.51.100.1/32 ttl = 5 interface = eth1 }\ndatabase-mapping { eid-prefix = 198.51.100.1/32 ttl = 6 interface = eth2 }", "f:2: database-mapping.ttl: differs from the one in line 1 for the same EID-Prefix"},
		{"reserved instance", "database-mapping { eid-prefix = 198.51.100.1/32 iid = 0xffffff }", "f:1: database-mapping.iid: '0xffffff' is not a number from -1 to 16777214"},
		{"static without locator", "static-map-cache { eid-prefix = 203.0.113.0/24 }", "f:1: static-map-cache: has no locator: add rloc-address { address = ... }"},
		{"twice", "rloc-probing { }\nrloc-probing { }", "f:2: rloc-probing: is there already, in line 1"},
		{"mode of another program", "operating-mode = MS", "f:1: operating-mode: this file is for a Map-Server: start lispms with it"},
		{"mode that is not there", "operating-mode = RTR", "f:1: operating-mode: this file is for an RTR: start lispms with it"},
		{"mode typo", "operating-mode = MM", "f:1: operating-mode: 'MM' is not a mode; did you mean MN?"},
		{"encapsulation", "encapsulation = VXLANGPE", "f:1: encapsulation: 'VXLANGPE' is not one of LISP, LISP-GPE, VXLAN-GPE; did you mean 'VXLAN-GPE'?"},
		{"scope", "ipv6-scope = LINK", "f:1: ipv6-scope: 'LINK' is neither GLOBAL nor SITE"},
		{"interface name", "tun-name = much-too-long-a-name", "f:1: tun-name: 'much-too-long-a-name' cannot be the name of an interface (1 to 15 characters, no '/', '%' or space)"},
		{"ELP", "explicit-locator-path { elp-name = x }", "f:1: explicit-locator-path: not supported: " + whyLCAF},
		{"debug", "debug = -1", "f:1: debug: '-1' is not a level from 0 to 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseNode(t.Context(), "f", tc.src+minimal, hermetic())
			var e *Error
			require.ErrorAs(t, err, &e)
			assert.Contains(t, err.Error(), tc.want)
		})
	}
}

func TestNodeWarnings(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, src, want string }{
		{"comment in a word", "map-server { address = 192.0.2.9 key = pass#word\n}", "f:1: a comment starts right behind 'pass'; put the value in quotes if the # belongs to it"},
		{"set twice", "tun-mtu = 1300\ntun-mtu = 1400", "f:2: tun-mtu: replaces the value of line 1"},
		{"probing without interval", "rloc-probing { rloc-probe-retries = 1 }", "f:1: rloc-probing: has no rloc-probe-interval, so locators are not probed"},
		{"host bits", "static-map-cache { eid-prefix = 203.0.113.1/24 rloc = 192.0.2.8 }", "f:1: static-map-cache.eid-prefix: '203.0.113.1/24' has bits behind its length; taken as 203.0.113.0/24"},
		{"other mode", "lisp-site { eid-prefix = 198.51.100.0/24 }", "f:1: lisp-site: is not for this program (lispms); ignored"},
		{"verify off", "map-server { address = 192.0.2.9 key = k verify = off }", "f:1: map-server.verify: ignored: what a Map-Server says is always verified"},
		{"DDT roots", "ddt-root-node { address = 192.0.2.9 }", "f:1: ddt-root-node: ignored: " + whyDDT},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n, err := ParseNode(t.Context(), "f", tc.src+minimal, hermetic())
			require.NoError(t, err)
			assert.Equal(t, []string{tc.want}, texts(n.Warnings))
		})
	}
	n, err := ParseNode(t.Context(), "f", "database-mapping { eid-prefix = 198.51.100.1/32 rloc-iface { interface = eth0 } }", hermetic())
	require.NoError(t, err)
	assert.Equal(t, []string{
		"f: there is no map-server: nobody will find this node",
		"f: there is no map-resolver: only destinations in static-map-cache can be reached",
	}, texts(n.Warnings))
}

// TestMapServerRotationAndResolver: two keys of a site at once, a table of other
// Map-Servers, a state file.
func TestMapServerRotationAndResolver(t *testing.T) {
	t.Parallel()
	m, err := ParseMapServer(t.Context(), "f", `
state-file = /var/lib/lispms/state
lisp-site { name = s eid-prefix = 192.0.2.0/24 key = a key-id = 1 }
lisp-site { name = s eid-prefix = 192.0.2.0/24 key = b key-id = 2 key-type = 3 }
lisp-site { name = s eid-prefix = 198.51.100.0/24 key = b key-id = 2 key-type = 3 }
resolver-entry { eid-prefix = 203.0.113.0/24 iid = 3 map-server = { 192.0.2.1, mr.example.net } }
`, hermetic())
	require.NoError(t, err)
	assert.Empty(t, m.Warnings)
	assert.Equal(t, "/var/lib/lispms/state", m.StateFile)
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	assert.Equal(t, []Site{{
		Name: "s", Line: 3, Keys: []Key{{ID: 1, Type: 1, Secret: "a"}, {ID: 2, Type: 3, Secret: "b"}},
		Prefixes: []SitePrefix{{Prefix: prefix("192.0.2.0/24")}, {Prefix: prefix("198.51.100.0/24")}},
	}}, m.Sites)
	assert.Equal(t, []ResolverEntry{{
		IID: 3, Prefix: prefix("203.0.113.0/24"), MapServers: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.54")},
	}}, m.Resolver)
}

func TestMapServerErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, src, want string }{
		{"nothing", "", "f: there is no lisp-site: nobody could register"},
		{"node's file", "operating-mode = MN", "f:1: operating-mode: this file is for a node: start lispmn with it"},
		{"other mode", "operating-mode = DDT", "f:1: operating-mode: DDT is not supported; lispms is a Map-Server and Map-Resolver (MS)"},
		{"prefix twice", "lisp-site { eid-prefix = 192.0.2.0/24 key = a }\nlisp-site { eid-prefix = 192.0.2.0/24 key = b }", "f:2: lisp-site.eid-prefix: 192.0.2.0/24 is in the site of line 1 already"},
		{"two keys", "lisp-site { name = s eid-prefix = 192.0.2.0/24 key = a }\nlisp-site { name = s eid-prefix = 198.51.100.0/24 key = b }", "f:2: lisp-site.name: site s has another key or proxy-reply in line 1"},
		{"same key-id", "lisp-site { name = s eid-prefix = 192.0.2.0/24 key = a }\nlisp-site { name = s eid-prefix = 192.0.2.0/24 key = b }", "f:2: lisp-site.eid-prefix: 192.0.2.0/24 is in the site of line 1 already"},
		{"no map-server", "resolver-entry { eid-prefix = 192.0.2.0/24 }", "f:1: resolver-entry.map-server: there is none to forward Map-Requests to"},
		{"bad map-server", "resolver-entry { eid-prefix = 192.0.2.0/24 map-server = { 0.0.0.0 } }", "f:1: resolver-entry.map-server: '0.0.0.0' is not the address of a host"},
		{"resolver-entry twice", "resolver-entry { eid-prefix = 192.0.2.0/24 map-server = { 192.0.2.1 } }\nresolver-entry { eid-prefix = 192.0.2.0/24 map-server = { 192.0.2.1 } }", "f:2: resolver-entry.eid-prefix: 192.0.2.0/24 is in a resolver-entry already"},
		{"site and resolver-entry", "lisp-site { eid-prefix = 192.0.2.0/24 key = a }\nresolver-entry { eid-prefix = 192.0.2.0/24 map-server = { 192.0.2.1 } }", "f:2: resolver-entry.eid-prefix: 192.0.2.0/24 is in the site of line 1 already"},
		{"static registration", "ms-static-registered-site { eid-prefix = 192.0.2.0/24 }", "f:1: ms-static-registered-site: not supported: registrations come from Map-Registers only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseMapServer(t.Context(), "f", tc.src, hermetic())
			var e *Error
			require.ErrorAs(t, err, &e)
			assert.Contains(t, err.Error(), tc.want)
		})
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	_, err := LoadNode(t.Context(), filepath.Join(t.TempDir(), "none.conf"), hermetic())
	require.ErrorContains(t, err, "does not exist (give another one with -f)")
	_, err = LoadMapServer(t.Context(), t.TempDir(), hermetic())
	require.Error(t, err)
	n, err := LoadNode(t.Context(), filepath.Join("testdata", "oor.conf"), hermetic())
	require.NoError(t, err)
	assert.Len(t, n.Mappings, 1)
}

// TestExamples reads the files that the programs come with.
func TestExamples(t *testing.T) {
	t.Parallel()
	n, err := LoadNode(t.Context(), filepath.Join("..", "..", "lispmn", "lispd.conf.example"), hermetic())
	require.NoError(t, err)
	assert.Empty(t, n.Warnings)
	m, err := LoadMapServer(t.Context(), filepath.Join("..", "..", "lispms", "lispms.conf.example"), hermetic())
	require.NoError(t, err)
	assert.Empty(t, m.Warnings)
	assert.Len(t, m.Sites, 2)

	// What is commented out there must be right too.
	b, err := os.ReadFile(filepath.Join("..", "..", "lispmn", "lispd.conf.example"))
	require.NoError(t, err)
	all := regexp.MustCompile(`(?m)^#([a-z}]| {4}[a-z])`).ReplaceAllString(string(b), "$1")
	n, err = ParseNode(t.Context(), "f", all, hermetic())
	require.NoError(t, err)
	assert.Empty(t, n.Warnings)
	assert.Len(t, n.ProxyETRs, 1)
	assert.Equal(t, Device{Name: "lmn0", MTU: 1444, Table: 4341}, n.Device)
	b, err = os.ReadFile(filepath.Join("..", "..", "lispms", "lispms.conf.example"))
	require.NoError(t, err)
	all = regexp.MustCompile(`(?m)^#([a-z}]| {4}[a-z])`).ReplaceAllString(string(b), "$1")
	m, err = ParseMapServer(t.Context(), "f", all, hermetic())
	require.NoError(t, err)
	assert.Empty(t, m.Warnings)
	assert.NotEmpty(t, m.StateFile)
	assert.Len(t, m.Resolver, 1)
}

func TestSecretNeverShows(t *testing.T) {
	t.Parallel()
	k := Key{Type: 2, Secret: "hunter2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		assert.NotContains(t, fmt.Sprintf(format, k), "hunter2")
	}
	text, err := k.Secret.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, "(secret)", string(text))
	assert.Equal(t, "(secret)", k.Secret.LogValue().String())
}
