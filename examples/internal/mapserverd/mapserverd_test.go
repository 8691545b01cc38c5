package mapserverd

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
)

func TestMain(m *testing.M) { netlab.Main(m) }

const file = `
lisp-site { name = lab eid-prefix = 198.51.100.0/24 key-type = 2 key = s accept-more-specifics = on proxy-reply = on }
lisp-site { name = lab eid-prefix = 2001:db8::/48 key-type = 2 key = s proxy-reply = on }
`

func parse(t *testing.T, src string) *conf.MapServerNode {
	t.Helper()
	cfg, err := conf.ParseMapServer(t.Context(), "f", src, conf.Options{})
	require.NoError(t, err)
	return cfg
}

func TestSites(t *testing.T) {
	t.Parallel()
	assert.Equal(t, []mapserver.Site{{
		Name: "lab", ProxyReply: true,
		Keys: []lisp.Key{{Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("s")}},
		Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("198.51.100.0/24"), AcceptMoreSpecifics: true},
			{Prefix: netip.MustParsePrefix("2001:db8::/48")},
		},
	}}, sites(parse(t, file)))
}

func TestEntry(t *testing.T) {
	t.Parallel()
	a := func(s string) lisp.Address { return lisp.AddressFrom(netip.MustParseAddr(s)) }
	e := entry(mapserver.Registration{
		Site: "lab", EID: netip.MustParsePrefix("198.51.100.1/32"),
		RLOCs: []lisp.RLOCRecord{{Priority: 1, Weight: 2, Reachable: true, RLOC: a("203.0.113.1")}, {RLOC: a("203.0.113.2")}},
		XTRs:  []mapserver.RegisteredXTR{{From: netip.MustParseAddr("203.0.113.9")}, {From: netip.MustParseAddr("203.0.113.1"), Current: true}},
	})
	assert.Equal(t, netip.MustParseAddr("203.0.113.1"), e.From)
	assert.Equal(t, []statusd.RLOC{
		{Addr: netip.MustParseAddr("203.0.113.1"), Priority: 1, Weight: 2, State: "up"},
		{Addr: netip.MustParseAddr("203.0.113.2"), State: "down"},
	}, e.RLOCs)
}

func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	_, err := ownAddresses("no-such-if0")
	require.ErrorContains(t, err, "there is no interface no-such-if0")
	ifs, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 {
			_, err = ownAddresses(i.Name)
			require.ErrorContains(t, err, "has no address")
		}
	}
	as, err := ownAddresses("")
	require.NoError(t, err)
	for _, a := range as {
		assert.False(t, a.IsLoopback() || a.IsLinkLocalUnicast(), a)
	}
}

// TestRun starts a server where something else has the port, or takes it
// itself and looks at its status.
func TestRun(t *testing.T) {
	netlab.Require(t, netlab.NetworkNamespaces) // port 4342 must be ours alone
	socket := filepath.Join(t.TempDir(), "ms.sock")
	cfg := parse(t, "control-socket = '"+socket+"'\n"+file)
	other, err := net.ListenUDP("udp4", &net.UDPAddr{Port: lisp.ControlPort})
	require.NoError(t, err)
	_, err = New(t.Context(), Config{Conf: cfg})
	require.ErrorContains(t, err, "UDP port 4342 is in use")
	assert.NoFileExists(t, socket)
	require.NoError(t, other.Close())

	s, err := New(t.Context(), Config{Conf: cfg, Version: "v"})
	require.NoError(t, err)
	_, err = New(t.Context(), Config{Conf: cfg})
	require.ErrorIs(t, err, statusd.ErrRunning)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	st, err := statusd.NewClient(socket).Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "lispms", st.Program)
	assert.Equal(t, []statusd.Site{{Name: "lab", Prefixes: []string{"198.51.100.0/24", "2001:db8::/48"}}}, st.MapServer.Sites)
	cancel()
	require.NoError(t, <-done)
	assert.NoFileExists(t, socket)
}

func TestMainFunction(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "ms.conf")
	require.NoError(t, os.WriteFile(good, []byte(file), 0o600))
	for _, tc := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"-version"}, daemon.ExitOK, "lispms "},
		{[]string{"-f", good, "-check"}, daemon.ExitOK, "can be used"},
		{[]string{"-f", good + "x"}, daemon.ExitFailure, "does not exist"},
		{[]string{"-h"}, daemon.ExitOK, "Map-Server"},
	} {
		var out bytes.Buffer
		assert.Equal(t, tc.code, Main(t.Context(), tc.args, &out, &out))
		assert.Contains(t, out.String(), tc.out)
	}
}
