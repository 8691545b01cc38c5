package mapserverd

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/socktest"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
)

// TestMerge: what a reload changes is said in words, without secrets, and what needs a
// restart stays.
func TestMerge(t *testing.T) {
	t.Parallel()
	const two = file + "lisp-site { name = b eid-prefix = 203.0.113.0/24 key = secret }\n"
	const rtr = "operating-mode = RTR\nrtr-ms-node { address = 192.0.2.9 }\n"
	for _, tt := range []struct {
		before, next     string
		changes, restart []string
	}{
		{file, file, nil, nil},
		{file, "\n\n" + file, nil, nil},
		{file, two, []string{"lisp-site: + b: 203.0.113.0/24"}, nil},
		{two, file, []string{"lisp-site: - b: 203.0.113.0/24"}, nil},
		{two, file + "lisp-site { name = b eid-prefix = 203.0.113.0/25 key = other proxy-reply = on accept-more-specifics = on }", []string{
			"lisp-site: b: - 203.0.113.0/24", "lisp-site: b: + 203.0.113.0/25 and parts of it", "lisp-site: b: other keys", "lisp-site: b: proxy-reply false -> true",
		}, nil},
		{two, file + "lisp-site { name = b eid-prefix = 203.0.113.0/24 iid = 7 key = secret }", []string{
			"lisp-site: b: - 203.0.113.0/24", "lisp-site: b: + [7]203.0.113.0/24",
		}, nil},
		{file, "debug = 2\nlog-file = /l\n" + file, []string{"debug: 0 -> 2", `log-file: "" -> "/l"`}, nil},
		{
			file + "resolver-entry { eid-prefix = 192.0.2.0/24 map-server = { 203.0.113.1 } }", file + "resolver-entry { eid-prefix = 192.0.2.0/24 map-server = { 203.0.113.2 } }",
			[]string{"resolver-entry: - 192.0.2.0/24 by [203.0.113.1]", "resolver-entry: + 192.0.2.0/24 by [203.0.113.2]"},
			nil,
		},
		{
			file + "ms-rtr-node { name = r address = 203.0.113.1 key = one }", file + "ms-rtr-node { name = r address = 203.0.113.1 key = two }",
			[]string{"ms-rtr-node: another key for r at 203.0.113.1"},
			nil,
		},
		{file, file + "lisp-sec { itr-key { key = one } }", []string{"lisp-sec: other keys or paths"}, nil},
		{file, "control-iface = eth0\nstate-file = /s\ncontrol-socket = /c\n" + file, nil, []string{
			"control-iface: it is another one (the sockets are open)", "control-socket: it is another one (the socket is open)",
			"state-file: it is another one (registrations are kept in it)",
		}},
		{file, rtr + file, nil, []string{"operating-mode: it is another one (the sockets are made for it)"}},
		{rtr, rtr + file, nil, []string{"lisp-site: there are some (this is an RTR alone)"}},
		{rtr, "\n" + rtr, nil, nil},
		{rtr + "rtr-ifaces { rtr-iface { iface = a } }", rtr + "\nrtr-ifaces { rtr-iface { iface = a } }", nil, nil},
		{rtr, rtr + "rtr-ifaces { rtr-iface { iface = a } }", nil, []string{"rtr-ifaces: it is another one (its locators are in use)"}},
		{rtr, rtr + "dataplane = user", nil, []string{"rtr-ms-node, rtr-iids, map-resolver, dataplane or graceful: it is another one (packets are under way by it)"}},
	} {
		before, next := parse(t, tt.before), parse(t, tt.next)
		cfg, r := merge(before, next, before.ServesSites())
		assert.Equal(t, tt.changes, r.Changes, tt.next)
		assert.Equal(t, tt.restart, r.Restart, tt.next)
		assert.Equal(t, before.RTR, cfg.RTR)
		assert.Equal(t, before.StateFile, cfg.StateFile)
		assert.Equal(t, before.ControlIface, cfg.ControlIface)
		if before.ServesSites() {
			assert.Equal(t, next.Sites, cfg.Sites)
		} else {
			assert.Empty(t, cfg.Sites)
		}
		assert.NotContains(t, r.String(), "secret")
	}
}

// TestReload: a running server takes other sites over, by the status socket too, and
// registrations of sites that stay are there all the time.
func TestReload(t *testing.T) {
	netlab.Require(t, netlab.NetworkNamespaces) // port 4342 must be ours alone
	head := "control-socket = '" + filepath.Join(socktest.Dir(t), "ms.sock") + "'\n"
	next, failing := head+file, error(nil)
	cfg := parse(t, next)
	levels := 0
	s, err := New(t.Context(), Config{
		Conf:   cfg,
		Load:   func(context.Context) (*conf.MapServerNode, error) { return parse(t, next), failing },
		SetLog: func(string, int) error { levels++; return errors.New("no log") },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	client := statusd.NewClient(s.Socket())
	registered := func() []statusd.SiteEntry {
		st, err := client.Status(t.Context())
		require.NoError(t, err)
		return st.MapServer.Registrations
	}
	m := lisp.MapRegister{Nonce: 1, Records: []lisp.EIDRecord{{
		TTL: 10, MaskLen: 24, EID: lisp.AddressFrom(parse(t, file).Sites[0].Prefixes[0].Prefix.Addr()),
		Locators: []lisp.RLOCRecord{{Priority: 1, Reachable: true, RLOC: lisp.AddressFrom(parse(t, file).Sites[0].Prefixes[0].Prefix.Addr())}},
	}}}
	b, err := m.AppendSigned(nil, sites(cfg)[0].Keys[0])
	require.NoError(t, err)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "udp4", "127.0.0.1:4342")
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(b)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(registered()) == 1 }, time.Minute, time.Millisecond)

	next += "lisp-site { name = b eid-prefix = 203.0.113.0/24 key = secret }\n"
	r, err := s.Reload(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"lisp-site: + b: 203.0.113.0/24"}, r.Changes)
	assert.Equal(t, []string{"no log"}, r.Warnings)
	assert.Equal(t, 1, levels)
	assert.Len(t, registered(), 1)
	st, err := client.Status(t.Context())
	require.NoError(t, err)
	assert.Len(t, st.MapServer.Sites, 2)

	failing = errors.New("typo")
	_, err = s.Reload(t.Context())
	require.ErrorIs(t, err, failing)
	failing = nil

	next = head + "lisp-site { name = b eid-prefix = 203.0.113.0/24 key = secret }\n"
	r = statusd.Reloaded{}
	require.NoError(t, client.Do(t.Context(), statusd.ActionReload, statusd.Nothing{}, &r))
	assert.Len(t, r.Changes, 1)
	assert.Empty(t, registered(), "its site has gone")
	r, err = s.Reload(t.Context())
	require.NoError(t, err)
	assert.Empty(t, r.Changes)
	cancel()
	require.NoError(t, <-done)
	_, err = (&Server{}).Reload(t.Context())
	require.ErrorIs(t, err, errNoFile)
}
