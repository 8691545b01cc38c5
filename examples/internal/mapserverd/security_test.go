package mapserverd

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/lisp"
)

func TestLISPSEC(t *testing.T) {
	t.Parallel()
	cfg, err := conf.ParseMapServer(t.Context(), "f", `lisp-site { eid-prefix = 192.0.2.0/24 key = k }
resolver-entry { eid-prefix = 198.51.100.0/24 map-server = { 203.0.113.2 } }
lisp-sec { itr-key { key = one key-id = 3 } map-server-key { address = 203.0.113.2 key = two } protected-paths = { 203.0.113.0/24 } }`, conf.Options{})
	require.NoError(t, err)
	got := lispSec(&cfg.LISPSEC)
	assert.Equal(t, mapserver.LISPSEC{
		ITRKeys:        []lisp.Key{{ID: 3, Secret: []byte("one")}},
		MapServers:     map[netip.AddrPort]lisp.Key{netip.MustParseAddrPort("203.0.113.2:4342"): {Secret: []byte("two")}},
		ProtectedPaths: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	}, got)
	_, err = mapserver.New(mapserver.Config{Sites: sites(cfg), Resolver: resolver(cfg), LISPSEC: got})
	require.NoError(t, err)
}
