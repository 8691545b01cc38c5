package conf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMappingsChange: what a running node takes is what a file may say.
func TestMappingsChange(t *testing.T) {
	t.Parallel()
	const router = `operating-mode = xTR
map-server { address = 203.0.113.1 key = s }
database-mapping { eid-prefix = 198.51.100.0/24 ttl = 5 rloc-iface { interface = eth0 } }
database-mapping { eid-prefix = 198.51.100.128/25 ttl = 7 rloc-iface { interface = eth1 } }
`
	const mobile = "map-server { address = 203.0.113.1 key = s }\ndatabase-mapping { eid-prefix = 198.51.100.1/32 interface = eth0 }\n"
	const proxy = "operating-mode = PxTR\npxtr { petr-eids = { 198.51.100.0/24 } rloc-iface { interface = eth0 } }\n"
	for _, tc := range []struct {
		name, file string
		iid        uint32
		prefix     string
		ttl        time.Duration
		like       string // whose locators it gets
		want       time.Duration
		fails      string
	}{
		{"a part of one", router, 0, "198.51.100.0/26", 0, "eth0", 5 * time.Minute, ""},
		{"a part of a part", router, 0, "198.51.100.192/26", 0, "eth1", 7 * time.Minute, ""},
		{"another", router, 0, "2001:db8::/48", time.Hour, "eth0", time.Hour, ""},
		{"there already", router, 0, "198.51.100.0/24", 0, "", 0, "198.51.100.0/24 is in the database already"},
		{"another instance", router, 7, "192.0.2.0/24", 0, "", 0, "one instance: iid 0 (line 3) or 7"},
		{"everything", router, 0, "0.0.0.0/0", 0, "", 0, "holds every address"},
		{"multicast", router, 0, "224.0.1.0/24", 0, "", 0, "no addresses that a host can be reached at"},
		{"link-local", router, 0, "fe80::/64", 0, "", 0, "no addresses that a host can be reached at"},
		{"the other family", mobile, 0, "2001:db8::1/128", 0, "eth0", 10 * time.Minute, ""},
		{"a second of a family", mobile, 0, "192.0.2.1/32", 0, "", 0, "one EID per address family: 198.51.100.1/32 (line 2) or 192.0.2.1/32"},
		{"a network", mobile, 0, "2001:db8::/64", 0, "", 0, "must be a /128"},
		{"a proxy", proxy, 0, "192.0.2.1/32", 0, "", 0, "there is no EID-Prefix whose locators it could have"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n, err := ParseNode(t.Context(), "f", tc.file, Options{})
			require.NoError(t, err)
			before, p := n.Mappings, netip.MustParsePrefix(tc.prefix)
			err = n.AddMapping(tc.iid, p, tc.ttl)
			if tc.fails != "" {
				require.ErrorContains(t, err, tc.fails)
				assert.Equal(t, before, n.Mappings)
				return
			}
			require.NoError(t, err)
			require.Len(t, n.Mappings, len(before)+1)
			got := n.Mappings[len(before)]
			assert.Equal(t, p, got.Prefix)
			assert.Equal(t, tc.want, got.TTL)
			assert.Equal(t, tc.like, got.Locators[0].Interface)
			kept := before[0].Prefix
			assert.False(t, n.RemoveMapping(9, p), "of another instance")
			assert.True(t, n.RemoveMapping(tc.iid, p))
			assert.Equal(t, before, n.Mappings)
			assert.Equal(t, kept, before[0].Prefix, "whoever has the old list still has it")
		})
	}
}

// TestOutsideOfEIDs: what has to be reached without LISP is no EID of ours.
func TestOutsideOfEIDs(t *testing.T) {
	t.Parallel()
	_, err := ParseNode(t.Context(), "f", `operating-mode = xTR
map-resolver = { 198.51.100.53, 203.0.113.53 }
map-server { address = 198.51.100.54 key = s }
database-mapping { eid-prefix = 198.51.100.0/24 rloc-address { address = 198.51.100.55 } rloc-iface { interface = eth0 } }`, Options{})
	require.EqualError(t, err, `f:4: database-mapping.eid-prefix: 198.51.100.0/24 holds the Map-Resolver 198.51.100.53, which has to be outside of it
f:4: database-mapping.eid-prefix: 198.51.100.0/24 holds the Map-Server 198.51.100.54, which has to be outside of it
f:4: database-mapping.eid-prefix: 198.51.100.0/24 holds the locator 198.51.100.55, which has to be outside of it`)
}
