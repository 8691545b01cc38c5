package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/examples/internal/socktest"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

var update = flag.Bool("update", false, "write what is printed to testdata")

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
	now    = time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC)
)

// nodeStatus is a node with something in every table.
func nodeStatus() statusd.Status {
	entry := statusd.Entry{
		Prefix: prefix("153.16.10.0/24"), Origin: "map-reply", Created: now.Add(-725 * time.Second), Expires: now.Add(24*time.Hour - 733*time.Second),
		RLOCs: []statusd.RLOC{
			{Addr: addr("203.0.113.20"), Priority: 1, Weight: 100, State: "up", RTT: 12100 * time.Microsecond, In: statusd.Counter{Packets: 1052}, Out: statusd.Counter{Packets: 997}},
			{Addr: addr("2001:db8::20"), Priority: 2, Weight: 50, State: "down"},
		},
		In: statusd.Counter{Packets: 52, Octets: 5200}, Out: statusd.Counter{Packets: 97, Octets: 9700},
	}
	return statusd.Status{
		Program: "lispmn", Version: "v1 go1.26", PID: 7, Started: now.Add(-time.Hour), Time: now,
		Node: &statusd.Node{
			Device: "lmn0", MTU: 1444, EIDs: []netip.Prefix{prefix("198.51.100.7/32"), prefix("2001:db8:7::7/128")},
			Interfaces: []statusd.Interface{
				{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Addr{addr("203.0.113.5"), addr("2001:db8::5")}, IPv4: "usable", IPv6: "usable", Locator: true},
				{Name: "wlan0", Index: 3, IPv4: "link down", IPv6: "link down"},
			},
			Locals: []statusd.Local{
				{Addr: addr("203.0.113.5"), IfIndex: 2, Priority: 1, Weight: 100, Up: true}, {Addr: addr("192.0.2.9"), IfIndex: 9, Priority: 2, Weight: 100},
			},
			Registrations: []statusd.Registration{
				{MapServer: addr("203.0.113.1"), EIDs: []string{"198.51.100.7/32", "2001:db8:7::7/128"}, State: "registered", Since: now.Add(-12 * time.Second), RTT: 3 * time.Millisecond},
				{MapServer: addr("203.0.113.2"), EIDs: []string{"[7]192.0.2.0/24"}, State: "unanswered", LastError: "no answer"},
			},
			Database: []statusd.Entry{{Prefix: prefix("198.51.100.7/32"), Origin: "static", RLOCs: []statusd.RLOC{{Addr: addr("203.0.113.5"), Priority: 1, Weight: 100, State: "up"}}}},
			MapCache: []statusd.Entry{entry, {
				IID: 7, Prefix: prefix("198.18.0.0/15"), Origin: "map-reply", Created: now.Add(-5 * time.Second), Expires: now.Add(15 * time.Minute), Action: "natively-forward",
			}},
			Paths: []statusd.Path{
				{Local: addr("203.0.113.5"), Remote: addr("203.0.113.20"), State: "up", RTT: 12100 * time.Microsecond, Sent: 5, Answered: 4},
				{Local: addr("2001:db8::5"), Remote: addr("2001:db8::20"), State: "down", Sent: 2},
			},
			NAT: []statusd.Binding{{
				Local: addr("203.0.113.5"), State: "behind a NAT", Global: netip.MustParseAddrPort("192.0.2.77:6000"), RTR: addr("203.0.113.99"), LastNotify: now.Add(-time.Minute),
			}},
			Traffic: statusd.Traffic{
				Encapsulated: statusd.Counter{Packets: 997, Octets: 99700}, Held: 3, Drops: map[string]uint64{"ttl": 3},
				UserSpace: "ebpf: BPF takes root",
				Locators:  []statusd.LocatorTraffic{{Addr: addr("203.0.113.20"), In: statusd.Counter{Packets: 1052, Octets: 105200}, Out: statusd.Counter{Packets: 997, Octets: 99700}}},
			},
			Control: map[string]uint64{"map-registers-sent": 9}, ControlDrops: map[string]uint64{"unknown nonce": 1},
		},
	}
}

func rtrStatus() statusd.Status {
	return statusd.Status{
		Program: "lispms", Version: "v1 go1.26", PID: 9, Started: now.Add(-time.Hour), Time: now,
		RTR: &statusd.RTR{
			Locals: []statusd.Local{{Addr: addr("203.0.113.99"), Up: true}},
			Relays: []statusd.Relay{{
				Prefix: prefix("198.51.100.7/32"), Local: addr("192.168.1.2"), Global: netip.MustParseAddrPort("192.0.2.77:6000"),
				MapServer: addr("203.0.113.1"), Verified: now.Add(-7 * time.Second), Expires: now.Add(200 * time.Second),
			}},
			MapCache: nodeStatus().Node.MapCache,
			Traffic: statusd.Traffic{
				Encapsulated: statusd.Counter{Packets: 9, Octets: 900}, Drops: map[string]uint64{"ttl": 3},
				Kernel: &statusd.KernelTraffic{Encapsulated: statusd.Counter{Packets: 5, Octets: 500}, AllSlow: true, Slow: map[string]uint64{"miss": 4}},
			},
			Counters: map[string]uint64{"map-registers-relayed": 9}, Refused: map[string]uint64{"rate": 1},
		},
	}
}

func serverStatus() statusd.Status {
	return statusd.Status{
		Program: "lispms", Version: "v1 go1.26", PID: 8, Started: now.Add(-time.Hour), Time: now,
		MapServer: &statusd.MapServer{
			Sites: []statusd.Site{{Name: "laptop", Prefixes: []string{"198.51.100.7/32", "2001:db8:7::7/128"}}, {Name: "branch", Prefixes: []string{"192.0.2.0/24"}}},
			Registrations: []statusd.SiteEntry{{
				Site: "laptop", Prefix: prefix("198.51.100.7/32"), From: addr("203.0.113.5"), Expires: now.Add(150 * time.Second),
				RLOCs: []statusd.RLOC{{Addr: addr("203.0.113.5"), Priority: 1, Weight: 100, State: "up"}},
			}},
			Counters: map[string]uint64{"map-registers": 7}, Refused: map[string]uint64{"wrong key": 1},
		},
	}
}

// asked is what a server was asked to do.
type asked struct {
	action  string
	request string
}

// serve runs a server with a state, and returns its socket and what it is asked.
func serve(t *testing.T, st statusd.Status) (*statusd.Server, string, chan asked) {
	t.Helper()
	socket := filepath.Join(socktest.Dir(t), "s.sock")
	requests := make(chan asked, 16)
	answers := map[string]any{
		statusd.ActionReload: statusd.Reloaded{Changes: []string{"debug: 1 -> 2"}, Restart: []string{"tun device: a -> b (the device is there)"}},
		statusd.ActionFlush:  statusd.Count{Count: 2}, statusd.ActionAdd: statusd.Nothing{}, statusd.ActionDel: statusd.Nothing{},
		statusd.ActionProbe:  nodeStatus().Node.Paths[:1],
		statusd.ActionLookup: nodeStatus().Node.MapCache[0],
		statusd.ActionTrace: statusd.Trace{
			Flow: statusd.Flow{Src: addr("198.51.100.7"), Dst: addr("153.16.10.1")}, Does: "encapsulate", Why: []string{"one", "two"},
			Locator: addr("203.0.113.20"), Port: 4341, Local: addr("203.0.113.5"), Interface: "eth0", SourcePort: 50000, MTU: 1464,
		},
	}
	cfg := statusd.Config{
		Path: socket, Snapshot: func(context.Context) (statusd.Status, error) { return st, nil }, Actions: map[string]statusd.Action{},
		Capture: func(_ context.Context, interfaces []string, w io.Writer) error {
			_, err := fmt.Fprintf(w, "packets of %v", interfaces)
			return err
		},
	}
	for name, answer := range answers {
		cfg.Actions[name] = func(_ context.Context, b json.RawMessage) (any, error) {
			requests <- asked{name, string(b)}
			if strings.Contains(string(b), "192.0.2.250") {
				return nil, errors.New("not this one")
			}
			return answer, nil
		}
	}
	s, err := statusd.Listen(cfg)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, <-done)
	})
	return s, socket, requests
}

// TestGolden compares every table with what is kept in testdata.
func TestGolden(t *testing.T) {
	t.Parallel()
	_, node, _ := serve(t, nodeStatus())
	_, server, _ := serve(t, serverStatus())
	_, rtr, _ := serve(t, rtrStatus())
	for _, tc := range []struct{ socket, args string }{
		{rtr, "show"},
		{rtr, "show nat"},
		{rtr, "show nat -json"},
		{rtr, "show map-cache"},
		{rtr, "show stats"},
		{node, "show"},
		{node, "show map-cache"},
		{node, "show database"},
		{node, "show registrations"},
		{node, "show rlocs"},
		{node, "show interfaces"},
		{node, "show nat"},
		{node, "show stats"},
		{node, "show map-cache -filter 153.16.10.9"},
		{node, "show registrations -filter 192.0.2.0/25"},
		{node, "show map-cache -filter 9.9.9.9"},
		{node, "show map-cache -json -filter 198.18.0.0/16"},
		{node, "list eids"},
		{node, "list rlocs -filter 2001:db8::/32"},
		{node, "list eids -json"},
		{node, "probe 203.0.113.20"},
		{node, "lookup 153.16.10.1"},
		{node, "trace 153.16.10.1"},
		{node, "reload"},
		{node, "flush"},
		{server, "show"},
		{server, "show sites"},
		{server, "show registrations"},
		{server, "show stats"},
		{server, "list eids"},
		{server, "list rlocs"},
		{server, "show sites -filter 192.0.2.1"},
		{server, "show registrations -json"},
	} {
		name := strings.NewReplacer(" ", "_", "/", "_", ":", "_").Replace(tc.args)
		switch tc.socket {
		case server:
			name = "lispms_" + name
		case rtr:
			name = "rtr_" + name
		}
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			require.Equal(t, daemon.ExitOK, run(t.Context(), append([]string{"-s", tc.socket}, strings.Fields(tc.args)...), &out, &errs), errs.String())
			file := filepath.Join("testdata", name+".golden")
			if *update {
				require.NoError(t, os.WriteFile(file, out.Bytes(), 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), out.String())
		})
	}
}

// TestRequests: what is asked of the program is what the command line says.
func TestRequests(t *testing.T) {
	t.Parallel()
	_, socket, requests := serve(t, nodeStatus())
	for _, tc := range []struct{ args, action, want string }{
		{"flush -filter 198.18.0.0/15", "flush", `{"within":"198.18.0.0/15"}`},
		{"flush", "flush", `{}`},
		{"add map-cache 198.18.1.1/24 203.0.113.9 203.0.113.8,2 2001:db8::9,3,4 -iid 5", "add", `{"table":"map-cache","iid":5,"prefix":"198.18.1.0/24","rlocs":[
			{"addr":"203.0.113.9","priority":1,"weight":100,"state":""},{"addr":"203.0.113.8","priority":2,"weight":100,"state":""},{"addr":"2001:db8::9","priority":3,"weight":4,"state":""}]}`},
		{"del database 198.51.100.7", "del", `{"table":"database","prefix":"198.51.100.7/32"}`},
		{"probe 203.0.113.9", "probe", `{"addr":"203.0.113.9"}`},
		{"lookup 198.18.0.1", "lookup", `{"addr":"198.18.0.1"}`},
		{"trace 198.18.0.1 -from 198.51.100.9 -proto tcp -sport 1 -dport 443 -mark 7", "trace", `{"dst":"198.18.0.1","src":"198.51.100.9","protocol":6,"srcPort":1,"dstPort":443,"mark":7}`},
		{"trace -proto 50 198.18.0.1", "trace", `{"dst":"198.18.0.1","protocol":50}`},
		{"reload", "reload", `{}`},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, daemon.ExitOK, run(t.Context(), append(strings.Fields(tc.args), "-s", socket), &out, &errs), errs.String())
		got := <-requests
		assert.Equal(t, tc.action, got.action)
		assert.JSONEq(t, tc.want, got.request, tc.args)
	}
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	_, node, _ := serve(t, nodeStatus())
	_, server, _ := serve(t, serverStatus())
	_, rtr, _ := serve(t, rtrStatus())
	for _, tc := range []struct {
		socket, args string
		code         int
		says         string
	}{
		{node, "", daemon.ExitUsage, "a command is missing"},
		{node, "shwo", daemon.ExitUsage, `there is no command "shwo"`},
		{node, "show everything", daemon.ExitUsage, `show: there is no "everything"; there are map-cache,`},
		{node, "show sites", daemon.ExitFailure, "lispmn has no sites"},
		{server, "show map-cache", daemon.ExitFailure, "lispms has no map-cache"},
		{rtr, "show registrations", daemon.ExitFailure, "lispms has no registrations"},
		{node, "show a b", daemon.ExitUsage, `show: unexpected argument "b"`},
		{node, "list", daemon.ExitUsage, "list: an argument is missing"},
		{node, "list x", daemon.ExitUsage, "list: eids or rlocs"},
		{node, "add map-cache x", daemon.ExitUsage, `"x" is not a prefix`},
		{node, "del map-cache x", daemon.ExitUsage, `"x" is not a prefix`},
		{node, "add map-cache 192.0.2.0/24 203.0.113.1,256", daemon.ExitUsage, `"203.0.113.1,256" is not a locator`},
		{node, "probe x", daemon.ExitUsage, `"x" is not an address`},
		{node, "probe 192.0.2.250", daemon.ExitFailure, "lispconf: not this one\n"},
		{node, "trace 192.0.2.1 -proto gre", daemon.ExitUsage, "-proto: "},
		{node, "trace 192.0.2.1 -sport 65536", daemon.ExitUsage, "a port has 16 bits"},
		{node, "show -filter x", daemon.ExitUsage, `"x" is not a prefix`},
		{node, "capture /does/not/exist", daemon.ExitFailure, "no such file"},
		{node + "x", "show", daemon.ExitFailure, "nothing runs at"},
		{node, "-help", daemon.ExitOK, "Usage: lispconf"},
		{node, "-version", daemon.ExitOK, "lispconf "},
	} {
		var out bytes.Buffer
		assert.Equal(t, tc.code, run(t.Context(), append([]string{"-s", tc.socket}, strings.Fields(tc.args)...), &out, &out), tc.args)
		assert.Contains(t, out.String(), tc.says, tc.args)
		assert.NotContains(t, out.String(), "http://", "nobody has written that")
	}
}

func TestCapture(t *testing.T) {
	t.Parallel()
	_, socket, _ := serve(t, nodeStatus())
	file := filepath.Join(t.TempDir(), "x.pcapng")
	var out bytes.Buffer
	require.Equal(t, daemon.ExitOK, run(t.Context(), []string{"-s", socket, "capture", file, "-i", "eth0", "-i", "lmn0"}, &out, &out))
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "packets of [eth0 lmn0]", string(b))
}

// lines passes on each line that is written.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestWatch: what happens is shown from now on, until nobody wants to know, or nobody
// can tell.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(cancel func(), s *statusd.Server)
		code int
		told string
	}{
		"interrupted":       {func(cancel func(), _ *statusd.Server) { cancel() }, daemon.ExitOK, ""},
		"the program ended": {func(_ func(), s *statusd.Server) { _ = s.Close() }, daemon.ExitFailure, " has ended\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, socket, _ := serve(t, nodeStatus())
			s.Publish(statusd.Event{Kind: "old", Text: "before"})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out, done := make(lines, 64), make(chan int, 1)
			var told bytes.Buffer
			go func() { done <- run(ctx, []string{"-s", socket, "watch", "-kind", "new"}, out, &told) }()
			// Nobody tells when the stream has begun: publish until something comes.
			for got := ""; got == ""; {
				s.Publish(statusd.Event{Time: now, Kind: "other", Text: "not asked for"})
				s.Publish(statusd.Event{Time: now, Kind: "new", Text: "after"})
				select {
				case got = <-out:
					assert.Equal(t, "15:00:00.000  new                       after\n", got)
				case <-time.After(10 * time.Millisecond):
				}
			}
			tt.end(cancel, s)
			for {
				select {
				case line := <-out:
					assert.Contains(t, line, "after")
				case code := <-done:
					assert.Equal(t, tt.code, code)
					assert.True(t, strings.HasSuffix(told.String(), tt.told), told.String())
					assert.Equal(t, tt.told == "", told.Len() == 0)
					return
				}
			}
		})
	}
}
