package mapserverd

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/socktest"
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
	socket := filepath.Join(socktest.Dir(t), "ms.sock")
	state := filepath.Join(t.TempDir(), "state")
	cfg := parse(t, "control-socket = '"+socket+"'\nstate-file = '"+state+"'\n"+file)
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
	s.every = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	st, err := statusd.NewClient(socket).Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "lispms", st.Program)
	assert.Equal(t, []statusd.Site{{Name: "lab", Prefixes: []string{"198.51.100.0/24", "2001:db8::/48"}}}, st.MapServer.Sites)
	assert.Eventually(t, func() bool { _, err := os.Stat(state); return err == nil }, time.Minute, time.Millisecond, "saved while it runs")
	cancel()
	require.NoError(t, <-done)
	assert.NoFileExists(t, socket)
	assert.FileExists(t, state, "saved at the end")
}

// TestStateFile: what is registered outlives a restart; a file that is cut or
// nonsense is used as far as it goes.
func TestStateFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dir", "state")
	core := func() *Server {
		cfg := parse(t, "state-file = '"+path+"'\n"+file)
		c, err := mapserver.New(mapserver.Config{Sites: sites(cfg)})
		require.NoError(t, err)
		return &Server{cfg: Config{Conf: cfg}, core: c, log: slog.New(slog.DiscardHandler)}
	}
	now := time.Now()
	a := core()
	a.load(now) // there is none yet
	m := lisp.MapRegister{Nonce: 1, Records: []lisp.EIDRecord{{
		TTL: 10, MaskLen: 32, EID: lisp.AddressFrom(netip.MustParseAddr("198.51.100.7")),
		Locators: []lisp.RLOCRecord{{Priority: 1, Reachable: true, RLOC: lisp.AddressFrom(netip.MustParseAddr("203.0.113.1"))}},
	}}}
	b, err := m.AppendSigned(nil, sites(a.cfg.Conf)[0].Keys[0])
	require.NoError(t, err)
	a.core.Handle(now, lisp.Datagram{Local: netip.MustParseAddrPort("192.0.2.1:4342"), Remote: netip.MustParseAddrPort("203.0.113.1:4342"), Bytes: b})
	for range 2 {
		require.NoError(t, a.save())
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.EqualValues(t, 0o600, info.Mode().Perm())
		files, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		assert.Len(t, files, 1, "nothing is left beside it")
	}
	st, err := a.Status(t.Context())
	require.NoError(t, err)
	require.Len(t, st.MapServer.History, 1)
	assert.Contains(t, st.MapServer.History[0].Text, "registered 198.51.100.7/32 of site lab")

	again := core()
	again.load(now.Add(time.Second))
	require.Len(t, again.core.Registrations(now.Add(time.Second)), 1)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(whole), "key", "no secrets")
	for _, bad := range [][]byte{whole[:len(whole)-1], []byte("nonsense"), nil} {
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		s := core()
		s.load(now)
		assert.Empty(t, s.core.Registrations(now))
	}
	a.cfg.Conf.StateFile = filepath.Join(path, "not", "a", "directory")
	require.ErrorContains(t, a.save(), "state file")
	a.cfg.Conf.StateFile = ""
	require.NoError(t, a.save())
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
		{[]string{"check", good}, daemon.ExitOK, "can be used"},
		{[]string{"-f", good + "x"}, daemon.ExitUsage, "does not exist"},
		{[]string{"-h"}, daemon.ExitOK, "Map-Server"},
	} {
		var out bytes.Buffer
		assert.Equal(t, tc.code, Main(t.Context(), tc.args, &out, &out))
		assert.Contains(t, out.String(), tc.out)
	}
}
