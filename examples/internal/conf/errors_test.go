package conf

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAllErrors: one run shows all that is wrong, and nothing that only follows from it.
func TestAllErrors(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		`debug = 2x
operating-mode = xRT
tun-mtu = big
map-server { addrss = 192.0.2.1 key = k }
map-server { address = 192.0.2.300 key = k }
map-server { address = 192.0.2.7 key-type = 9 }
database-mapping { eid-prefix = 198.51.100.0/24 iid = x rloc-iface = eth0 }
database-mapping { eid-prefix = 300/8 interface = eth0 }
static-map-cache { eid-prefix = 203.0.113.0/24 rloc-address { address = 192.0.2.301 } }
`: `f:1: debug: '2x' is not a level from 0 to 3
f:2: operating-mode: 'xRT' is not a mode; did you mean xTR?
f:3: tun-mtu: 'big' is not a number from 576 to 65535
f:4: map-server.addrss: unknown option in section map-server; did you mean 'address'?
f:5: map-server.address: '192.0.2.300' is neither an IP address nor a host name
f:6: map-server.key-type: '9' is not a number from 0 to 3
f:6: map-server.key: is missing
f:7: database-mapping.iid: 'x' is not a number from -1 to 16777214
f:7: database-mapping.rloc-iface: is a section: write database-mapping.rloc-iface { ... }
f:8: database-mapping.eid-prefix: '300/8' is not an EID-Prefix such as 192.0.2.1/32 or 2001:db8::1/128
f:9: static-map-cache.rloc-address.address: '192.0.2.301' is neither an IP address nor a host name`,
		// What half a file would mean is not said.
		"map-server { address = 192.0.2.1\n": "f:2: map-server: the section opened in line 1 is never closed with '}'",
	} {
		_, err := ParseNode(t.Context(), "f", src, hermetic())
		assert.EqualError(t, err, want)
	}
	_, err := ParseMapServer(t.Context(), "f", `ms-rtr-node { name = one address = 192.0.2.300 }
ms-rtrs-set { name = all ttl = x rtrs = { one } }
ms-advertised-rtrs-set = all
lisp-site { eid_prefix = 198.51.100.0/24 key = k }
`, hermetic())
	assert.EqualError(t, err, `f:1: ms-rtr-node.address: '192.0.2.300' is neither an IP address nor a host name
f:2: ms-rtrs-set.ttl: 'x' is not a number from 1 to 2147483647
f:4: lisp-site.eid_prefix: unknown option in section lisp-site; did you mean 'eid-prefix'?`)
}

// TestPassing: names that cannot be resolved are no mistake of the file, unlike the rest.
func TestPassing(t *testing.T) {
	t.Parallel()
	for src, passing := range map[string]bool{
		"map-resolver = nowhere.example.net":                            true,
		"map-resolver = nowhere.example.net\nproxy-itrs = away.example": true,
		"map-resolver = nowhere.example.net\ntun-mtu = big":             false,
		"map-resolver = empty.example.net":                              false,
	} {
		_, err := ParseNode(t.Context(), "f", src+minimal, hermetic())
		var e *Error
		require.ErrorAs(t, err, &e, src)
		assert.Equal(t, passing, e.Passing, src)
	}
}

// TestUnused: what a file says to no effect is told.
func TestUnused(t *testing.T) {
	t.Parallel()
	m, err := ParseMapServer(t.Context(), "f", "ms-rtr-node { name = one address = 192.0.2.3 key = k }\nms-rtrs-set { name = all ttl = 60 rtrs = { one } }"+minimalServer, hermetic())
	require.NoError(t, err)
	assert.Equal(t, []string{"f:2: ms-rtrs-set: not used: say ms-advertised-rtrs-set = all"}, texts(m.Warnings))
	n, err := ParseNode(t.Context(), "f", "static-map-cache { eid-prefix = 203.0.113.0/24 rloc-address { address = 192.0.2.9 }\npriority = 3 }"+minimal, hermetic())
	require.NoError(t, err)
	assert.Equal(t, []string{"f:2: static-map-cache.priority: ignored: it belongs to rloc; rloc-address has its own"}, texts(n.Warnings))
	assert.True(t, strings.HasPrefix(minimal, "\n"), "the line numbers above")
}
