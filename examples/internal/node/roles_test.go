package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestWithout: the prefixes cover everything but what is allowed, once.
func TestWithout(t *testing.T) {
	t.Parallel()
	but := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8::/32")}
	out := without(netip.MustParsePrefix("0.0.0.0/0"), but)
	assert.Len(t, out, 24+32-5-2, "one per bit, but for the common ones")
	covers := func(a string) (n int) {
		for _, p := range out {
			if p.Contains(netip.MustParseAddr(a)) {
				n++
			}
		}
		return n
	}
	for _, a := range []string{"0.0.0.0", "255.255.255.255", "192.0.1.255", "192.0.3.0", "198.51.100.6", "198.51.100.8"} {
		assert.Equal(t, 1, covers(a), a)
	}
	for _, a := range []string{"192.0.2.0", "192.0.2.200", "192.0.2.255", "198.51.100.7"} {
		assert.Zero(t, covers(a), a)
	}
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("::/0")}, without(netip.MustParsePrefix("::/0"), but[:3]))
	assert.Empty(t, without(netip.MustParsePrefix("192.0.2.0/25"), but))
}

func TestRoles(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	cfg := parse(t, `operating-mode = PxTR
map-resolver = 203.0.113.1
encapsulation = VXLAN-GPE
proxy-etr-ipv4 { address = 203.0.113.2 }
proxy-etr-ipv6 { address = 203.0.113.3 }
pxtr { pitr-eids = { 198.51.100.0/24 } petr-eids = { 2001:db8:7::/48 } iid = 3 rloc-iface { interface = eth0 } }`)
	c := controlConfig(cfg, database(cfg, hostOf(), nil), identity{XTRID: lisp.XTRID{1}, Nonce: 9}, nil)
	assert.Empty(t, c.Database)
	assert.Equal(t, []mapcache.Key{{IID: 3, Prefix: prefix("198.51.100.0/24")}}, c.ProxyITR)
	assert.Equal(t, mapcache.FormatVXLANGPE, c.Format)
	assert.Equal(t, mapcache.Locator{Addr: addr("203.0.113.2"), Format: mapcache.FormatVXLANGPE}, c.ProxyETRs4[0].Locator)
	assert.Equal(t, addr("203.0.113.3"), c.ProxyETRs6[0].Addr)
	_, err := control.New(c)
	require.NoError(t, err)
	locals, missing := locatorsOf(cfg, hostOf())
	assert.Empty(t, missing)
	assert.Equal(t, []mapcache.Local{{IfIndex: 2, Addr: addr("203.0.113.5"), Priority: 1, Weight: 100, Up: true}}, locals)
	d := deviceConfig(cfg, nil)
	assert.True(t, d.Proxy && d.Router)
	assert.Equal(t, []netip.Prefix{prefix("198.51.100.0/24")}, d.Destinations)
	assert.Equal(t, encap.Overlay{InstanceID: 3, EIDs: []netip.Prefix{}, ProxyITR: true, ProxyETR: []netip.Prefix{prefix("2001:db8:7::/48")}}, overlay(cfg, nil))

	cfg = parse(t, `operating-mode = xTR
control-port = 5000
map-request-retries = 2
closed-network { map-versions = on }
lisp-sec { mode = required hmac = { AUTH-HMAC-SHA-1-96, AUTH-HMAC-SHA-256-128 } kdf = { HKDF-SHA1-128, HKDF-SHA256 }
  resolver-key { key = k key-id = 2 } resolver-key { address = 203.0.113.1 key = l wrap = NULL-KEY-WRAP-128 } protected-paths = { 203.0.113.0/24 } }
map-resolver = 203.0.113.1
map-server { address = 203.0.113.1 key = s merge = on }
allowed-dst-eids = { 128.0.0.0/1 }
rloc-probing { rloc-probe-interval = 10 rloc-probe-fast-interval = 100 }
database-mapping { eid-prefix = 198.51.100.0/24 rloc-iface { interface = eth0 } rloc-address { address = 203.0.113.99 local = off } }
database-mapping { eid-prefix = 198.51.101.0/24 rloc-iface { interface = eth0 } rloc-address { address = 203.0.113.99 local = off } }`)
	c = controlConfig(cfg, database(cfg, hostOf(), map[string]uint16{"198.51.100.0/24": 77}), identity{XTRID: lisp.XTRID{1}, Nonce: 9}, nil)
	assert.Equal(t, uint16(77), c.Database[0].MapVersion)
	assert.Equal(t, uint16(control.RandomMapVersion), c.Database[1].MapVersion)
	assert.Contains(t, c.Database[0].RLOCs, control.DatabaseRLOC{Addr: addr("203.0.113.99"), Priority: 1, Weight: 100, Remote: true})
	assert.True(t, c.MapServers[0].Merge)
	assert.Equal(t, uint16(5000), c.Port)
	assert.Equal(t, 2, c.MapRequestRetries)
	assert.Equal(t, 100*time.Millisecond, c.Probe.Fast)
	assert.True(t, c.Closed.MapVersions && !c.Closed.EchoNonce)
	assert.Equal(t, control.LISPSEC{
		Mode: control.LISPSECRequired, HMACs: []lisp.HMACID{lisp.HMACSHA1, lisp.HMACSHA256}, KDFs: []lisp.KDFID{lisp.KDFHKDFSHA1, lisp.KDFHKDFSHA256},
		ProtectedPaths: []netip.Prefix{prefix("203.0.113.0/24")},
		Resolvers: []control.ResolverKey{
			{Key: lisp.Key{ID: 2, Secret: []byte("k")}},
			{Addr: netip.MustParseAddrPort("203.0.113.1:4342"), Key: lisp.Key{Secret: []byte("l")}, Wrap: lisp.WrapNull},
		},
	}, c.LISPSEC)
	assert.Equal(t, []mapcache.Mapping{
		{Key: mapcache.Key{Prefix: prefix("0.0.0.0/1")}, Action: lisp.ActionNativelyForward, TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic},
		{Key: mapcache.Key{Prefix: prefix("::/0")}, Action: lisp.ActionNativelyForward, TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic},
	}, c.StaticMappings)
	_, err = control.New(c)
	require.NoError(t, err)
	locals, _ = locatorsOf(cfg, hostOf())
	assert.Len(t, locals, 1, "the locator of the other ETR is not ours")
	assert.True(t, deviceConfig(cfg, nil).Router)
}
