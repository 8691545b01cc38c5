package conf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func node(t *testing.T, src string, set ...Setting) (*Node, error) {
	t.Helper()
	opt := hermetic()
	opt.Override = set
	return ParseNode(t.Context(), "f", src, opt)
}

func TestModes(t *testing.T) {
	t.Parallel()
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	const xtr = `
operating-mode = xTR
map-server { address = 192.0.2.1 key = k merge = on }
map-resolver = 192.0.2.1
database-mapping { eid-prefix = 198.51.100.0/25 iid = 5 rloc-iface { interface = eth0 } rloc-address { address = 192.0.2.77 local = off } }
database-mapping { eid-prefix = 198.51.100.128/25 iid = 5 rloc-iface { interface = eth0 } }
allowed-dst-eids = { 203.0.113.0/24 }
`
	n, err := node(t, xtr)
	require.NoError(t, err)
	assert.Empty(t, n.Warnings)
	assert.Equal(t, ModeXTR, n.Mode)
	assert.Equal(t, uint32(5), n.IID)
	assert.Len(t, n.Mappings, 2)
	assert.True(t, n.MapServers[0].Merge)
	assert.Equal(t, []netip.Prefix{prefix("203.0.113.0/24")}, n.AllowedEIDs)
	assert.Equal(t, LocatorSource{Addr: addr("192.0.2.77"), Family: 4, Priority: 1, Weight: 100, Remote: true, Line: 5}, n.Mappings[0].Locators[0])

	const pxtr = `
operating-mode = PxTR
map-resolver = 192.0.2.1
pxtr {
  pitr-eids = { 198.51.100.0/24, 2001:db8:7::/48 }
  petr-eids = { 198.51.100.0/24 }
  iid = 9
  rloc-iface { interface = eth0 }
}`
	n, err = node(t, pxtr)
	require.NoError(t, err)
	assert.Empty(t, n.Warnings, "a Map-Server has nothing to be told")
	assert.Equal(t, ModePxTR, n.Mode)
	assert.Equal(t, "PxTR", n.Mode.String())
	assert.Equal(t, uint32(9), n.IID)
	assert.Equal(t, Proxy{
		ITR: []netip.Prefix{prefix("198.51.100.0/24"), prefix("2001:db8:7::/48")}, ETR: []netip.Prefix{prefix("198.51.100.0/24")},
	}, n.Proxy)
	assert.Equal(t, []LocatorSource{{Interface: "eth0", Family: 4, Priority: 1, Weight: 100, Line: 8}}, n.Locators)

	n, err = node(t, xtr+"pxtr { pitr-eids = { 198.18.0.0/15 } iid = 5 }")
	require.NoError(t, err)
	assert.Equal(t, []netip.Prefix{prefix("198.18.0.0/15")}, n.Proxy.ITR, "both, behind the locators of the xTR")

	for _, tc := range []struct{ src, want string }{
		{"operating-mode = PxTR", "f:1: operating-mode: PxTR needs a section pxtr"},
		{"operating-mode = PxTR\npxtr { rloc-iface { interface = eth0 } }", "f:2: pxtr: has neither pitr-eids nor petr-eids"},
		{"operating-mode = PxTR\npxtr { petr-eids = { 192.0.2.0/24 } }", "f:2: pxtr: has no locator"},
		{"operating-mode = PxTR" + minimal, "f:4: database-mapping.eid-prefix: a PxTR has no EIDs of its own: say operating-mode = xTR to be both"},
		{"pxtr { petr-eids = { 192.0.2.0/24 } }" + minimal, "f:1: pxtr: a mobile node takes no packets of others"},
		{"router-mode = on\noperating-mode = MN" + minimal, "f:1: router-mode: operating-mode in line 2 says MN"},
		{xtr + "pxtr { petr-eids = { nonsense } }", "pxtr.petr-eids: 'nonsense' is not an EID-Prefix"},
		{xtr + "pxtr { petr-eids = { 192.0.2.0/24 } iid = 6 }", "pxtr.iid: there is one device, and so one instance: iid 6"},
		{"rloc-family = 6" + minimal, "f:4: database-mapping: has no locator left: rloc-family is 6"},
		{"rloc-family = 5" + minimal, "f:1: rloc-family: is 4 or 6"},
		{"rloc-probing { rloc-probe-interval = 5 rloc-probe-fast-interval = 3 }" + minimal, "f:1: rloc-probing.rloc-probe-fast-interval: is at least 10 (milliseconds), or 0 for none"},
		{"eid-address-ipv4 = 2001:db8::1" + minimal, "f:1: eid-address-ipv4: '2001:db8::1' is not an address of that family"},
		{"eid-address-ipv6 = 2001:db8::1" + minimal, "f:1: eid-address-ipv6: has no locator: add interface { name = ... }"},
	} {
		_, err := node(t, tc.src)
		require.ErrorContains(t, err, tc.want)
	}
	n, err = node(t, "rloc-probing { rloc-probe-interval = 5 rloc-probe-fast-interval = 100 }"+minimal)
	require.NoError(t, err)
	assert.Equal(t, 100*time.Millisecond, n.Probing.Fast)
}

// TestLispdroid reads a file of LISPmob for Android.
func TestLispdroid(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	n, err := node(t, `
debug = off
map-resolver = 192.0.2.1
map-server { address = 192.0.2.1 key-type = 1 key = k proxy-reply = on verify = on }
use-ms-as-petr = on
petr-address = 192.0.2.8
eid-address-ipv4 = 198.51.100.1
instance-id = 4
interface { name = wlan0 }
interface { name = rmnet0 device-priority = 2 }
rloc-probe-interval = 20
rloc-probe-retries = 1
tun-mtu = 1300
`)
	require.NoError(t, err)
	assert.Empty(t, n.Warnings)
	assert.Equal(t, []DatabaseMapping{{
		IID: 4, Prefix: netip.MustParsePrefix("198.51.100.1/32"), TTL: 10 * time.Minute, Line: 7, Locators: []LocatorSource{
			{Interface: "wlan0", Family: 4, Priority: 1, Weight: 100, Line: 9},
			{Interface: "wlan0", Family: 6, Priority: 1, Weight: 100, Line: 9},
			{Interface: "rmnet0", Family: 4, Priority: 2, Weight: 100, Line: 10},
			{Interface: "rmnet0", Family: 6, Priority: 2, Weight: 100, Line: 10},
		},
	}}, n.Mappings)
	assert.Equal(t, []RLOC{{addr("192.0.2.1"), 1, 100}, {addr("192.0.2.8"), 1, 100}}, n.ProxyETRs)
	assert.Equal(t, Probing{Interval: 20 * time.Second, Retries: 1, RetryInterval: 10 * time.Second}, n.Probing)
	n, err = node(t, "interface { name = wlan0 }"+minimal)
	require.NoError(t, err)
	assert.Equal(t, []string{"f:1: interface: not used: there is neither eid-address-ipv4 nor eid-address-ipv6"}, texts(n.Warnings))
}

func TestSecurity(t *testing.T) {
	t.Parallel()
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	n, err := node(t, `
closed-network { map-versions = on echo-nonce = on }
lisp-sec {
  mode = Required
  hmac = { auth-hmac-sha-256-128 }
  kdf = { HKDF-SHA256, HKDF-SHA1-128 }
  protected-paths = { 192.0.2.0/24 }
  etr = off
  resolver-key { key = one key-id = 3 }
  resolver-key { address = 192.0.2.53 key = two wrap = NULL-KEY-WRAP-128 }
  resolver-key { address = 192.0.2.54 key = three }
}`+minimal)
	require.NoError(t, err)
	assert.Equal(t, []string{"f:3: lisp-sec: has a resolver-key for 192.0.2.54, which is no map-resolver"}, texts(n.Warnings))
	assert.Equal(t, Closed{MapVersions: true, EchoNonce: true}, n.Closed)
	assert.Equal(t, LISPSEC{
		Mode: "required", HMACs: []string{"AUTH-HMAC-SHA-256-128"}, KDFs: []string{"HKDF-SHA256", "HKDF-SHA1-128"},
		ProtectedPaths: []netip.Prefix{prefix("192.0.2.0/24")}, NoETR: true,
		Keys: []SECKey{
			{Key: Key{ID: 3, Secret: "one"}},
			{Addr: addr("192.0.2.53"), Key: Key{Secret: "two"}, Null: true},
			{Addr: addr("192.0.2.54"), Key: Key{Secret: "three"}},
		},
	}, n.LISPSEC)

	for _, tc := range []struct{ src, want string }{
		{"lisp-sec { mode = required }", "f:1: lisp-sec.mode: needs the key of a Map-Resolver"},
		{"lisp-sec { mode = require resolver-key { key = k } }", "f:1: lisp-sec.mode: 'require' is not one of off, preferred, required; did you mean 'required'?"},
		{"lisp-sec { hmac = { md5 } }", "f:1: lisp-sec.hmac: 'md5' is not one of AUTH-HMAC-SHA-1-96, AUTH-HMAC-SHA-256-128"},
		{"lisp-sec { resolver-key { key-id = 1 } }", "f:1: lisp-sec.resolver-key.key: is missing"},
	} {
		_, err := node(t, tc.src+minimal)
		require.ErrorContains(t, err, tc.want)
	}

	m, err := ParseMapServer(t.Context(), "f", `lisp-sec { mode = off
  itr-key { key = one key-id = 3 } map-server-key { address = 192.0.2.9 key = two } protected-paths = { 192.0.2.0/24 } }`+minimalServer, hermetic())
	require.NoError(t, err)
	assert.Equal(t, []string{"f:1: lisp-sec.mode: is not for this program (lispmn); ignored"}, texts(m.Warnings))
	assert.Equal(t, MapServerSEC{
		ITRKeys: []Key{{ID: 3, Type: 0, Secret: "one"}}, MapServers: []SECKey{{Addr: addr("192.0.2.9"), Key: Key{Secret: "two"}}},
		ProtectedPaths: []netip.Prefix{prefix("192.0.2.0/24")},
	}, m.LISPSEC)
	_, err = ParseMapServer(t.Context(), "f", "lisp-sec { map-server-key { key = two } }"+minimalServer, hermetic())
	require.ErrorContains(t, err, "f:1: lisp-sec.map-server-key: has no address")
}

// TestOverride: what the command line says takes the place of the file.
func TestOverride(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	src := minimal + "map-server { address = 192.0.2.2 key = other }\nproxy-etr-ipv4 { address = 192.0.2.3 }\ndebug = 2\n"
	n, err := node(t, src,
		Setting{"debug", []string{"1"}}, Setting{"map-resolver", []string{"192.0.2.60", "192.0.2.61"}}, Setting{OverrideMapServer, []string{"192.0.2.9"}},
		Setting{OverrideProxyETR, []string{"192.0.2.8"}}, Setting{"control-port", []string{"5000"}}, Setting{"map-request-retries", []string{"1"}})
	require.NoError(t, err)
	assert.Empty(t, n.Warnings)
	assert.Equal(t, 1, n.Debug)
	assert.Equal(t, []netip.Addr{addr("192.0.2.60"), addr("192.0.2.61")}, n.MapResolvers)
	assert.Equal(t, []MapServer{{Addr: addr("192.0.2.9"), Key: Key{Type: 1, Secret: "k"}}}, n.MapServers)
	assert.Equal(t, []RLOC{{addr("192.0.2.8"), 1, 100}}, n.ProxyETRs)
	assert.Empty(t, n.ProxyETRs4)
	assert.Equal(t, uint16(5000), n.ControlPort)
	assert.Equal(t, 1, n.MapRequestRetries)

	_, err = node(t, "database-mapping { eid-prefix = 198.51.100.1/32 interface = eth0 }", Setting{OverrideMapServer, []string{"192.0.2.9"}})
	require.ErrorContains(t, err, "f: map-server: given on the command line, but the file has no map-server section whose key could be used")
	_, err = node(t, minimal, Setting{"control-port", []string{"x"}})
	require.EqualError(t, err, "command line: control-port: 'x' is not a number from 0 to 65535")
	_, err = node(t, minimal, Setting{OverrideMapServer, []string{"@"}})
	require.EqualError(t, err, "command line: map-server.address: '@' is neither an IP address nor a host name")
}
