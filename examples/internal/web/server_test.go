package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

var started = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// example is the state of a node that has something of everything.
func example() statusd.Status {
	b := netip.MustParseAddr("203.0.113.20")
	return statusd.Status{
		Program: "lispmn", Version: "v1", Started: started, Time: started.Add(time.Hour),
		Node: &statusd.Node{
			Device: "lmn0", MTU: 1440, EIDs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
			Locals: []statusd.Local{{Addr: netip.MustParseAddr("198.51.100.7"), IfIndex: 3, Priority: 1, Weight: 100, Up: true}},
			Registrations: []statusd.Registration{
				{MapServer: netip.MustParseAddr("203.0.113.1"), EIDs: []string{"192.0.2.1/32"}, State: "registered", Since: started, RTT: 12 * time.Millisecond},
				{MapServer: netip.MustParseAddr("203.0.113.2"), State: "registered", Since: started, RTT: 20 * time.Millisecond},
				{MapServer: netip.MustParseAddr("203.0.113.2"), State: "unanswered"},
			},
			MapCache: []statusd.Entry{
				{
					Prefix: netip.MustParsePrefix("192.0.2.2/32"), Origin: "map-reply", RLOCs: []statusd.RLOC{{Addr: b, Priority: 1, Weight: 100, State: "up"}},
					In: statusd.Counter{Packets: 4, Octets: 400}, Out: statusd.Counter{Packets: 1050, Octets: 79_900},
				},
				{Prefix: netip.MustParsePrefix("192.0.2.128/25"), Origin: "map-reply", Action: "natively-forward"},
			},
			Paths: []statusd.Path{{Local: netip.MustParseAddr("198.51.100.7"), Remote: b, State: "up", RTT: 12100 * time.Microsecond, Sent: 10, Answered: 9}},
			Traffic: statusd.Traffic{
				Encapsulated: statusd.Counter{Packets: 1052, Octets: 80000}, Held: 4, Released: 3, HeldNow: 1,
				Locators: []statusd.LocatorTraffic{
					{Addr: b, Out: statusd.Counter{Packets: 1000, Octets: 79000}, In: statusd.Counter{Packets: 997}},
					{Addr: b, Out: statusd.Counter{Packets: 52, Octets: 1000}}, // another port
				},
				Drops: map[string]uint64{"hold-expired": 1},
			},
			NAT: []statusd.Binding{{
				Local: netip.MustParseAddr("198.51.100.7"), State: "registered", RTR: b, Text: "behind NAT 192.0.2.77:6000",
			}},
			Control: map[string]uint64{"probes-sent": 10}, ControlDrops: map[string]uint64{"authentication": 2},
		},
	}
}

func snapshot(st statusd.Status) func(context.Context) (statusd.Status, error) {
	return func(context.Context) (statusd.Status, error) { return st, nil }
}

// serve runs a server with cfg on a loopback port.
func serve(t *testing.T, cfg Config) (base string, s *Server) {
	t.Helper()
	ln, err := Listen("127.0.0.1:0")
	require.NoError(t, err)
	cfg.Listener = ln
	s = New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return "http://" + ln.Addr().String(), s
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Body.Close()) }()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return r.StatusCode, string(b)
}

func TestRoutes(t *testing.T) {
	base, _ := serve(t, Config{Snapshot: snapshot(example())})
	for path, want := range map[string]string{
		"/":          `<script src="app.js"`,
		"/app.js":    "EventSource",
		"/style.css": "prefers-color-scheme",
		"/healthz":   "ok\n",
		"/metrics":   `lisp_packets_total{path="encapsulated"} 1052`,
	} {
		code, body := get(t, base+path)
		assert.Equal(t, http.StatusOK, code, path)
		assert.Contains(t, body, want, path)
	}
	code, body := get(t, base+"/status")
	assert.Equal(t, http.StatusOK, code)
	var st statusd.Status
	require.NoError(t, json.Unmarshal([]byte(body), &st))
	assert.Equal(t, example(), st)

	for _, path := range []string{"/events", "/debug/pprof/", "/page/app.js", "/nothing"} {
		code, _ := get(t, base+path)
		assert.Equal(t, http.StatusNotFound, code, path+" is off or is not there")
	}
	r, err := http.Post(base+"/status", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	assert.Equal(t, http.StatusMethodNotAllowed, r.StatusCode, "nothing can be changed")
}

func TestPprof(t *testing.T) {
	base, _ := serve(t, Config{Snapshot: snapshot(example()), Pprof: true})
	code, body := get(t, base+"/debug/pprof/goroutine?debug=1")
	assert.Equal(t, http.StatusOK, code)
	assert.Contains(t, body, "goroutine profile")
}

func TestUnhealthy(t *testing.T) {
	fail := func(context.Context) (statusd.Status, error) {
		return statusd.Status{}, errors.New("the loop has ended")
	}
	base, _ := serve(t, Config{Snapshot: fail})
	for _, path := range []string{"/healthz", "/status"} {
		code, body := get(t, base+path)
		assert.Equal(t, http.StatusServiceUnavailable, code, path)
		assert.Contains(t, body, "the loop has ended", path)
	}
	code, body := get(t, base+"/metrics")
	assert.Equal(t, http.StatusInternalServerError, code)
	assert.Contains(t, body, "the loop has ended")
}

// A page of another site can make the browser ask us by a name of its own.
func TestOtherNames(t *testing.T) {
	base, _ := serve(t, Config{Snapshot: snapshot(example())})
	for host, want := range map[string]int{
		"evil.example":      http.StatusForbidden,
		"evil.example:8080": http.StatusForbidden,
		"":                  http.StatusOK, // as base says
		"localhost:8080":    http.StatusOK,
		"[::1]:8080":        http.StatusOK,
		"[::1]":             http.StatusOK,
		"192.0.2.1":         http.StatusOK,
	} {
		r, err := http.NewRequest(http.MethodGet, base+"/status", nil)
		require.NoError(t, err)
		r.Host = host
		a, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, a.Body.Close())
		assert.Equal(t, want, a.StatusCode, host)
		if want == http.StatusOK {
			assert.Contains(t, a.Header.Get("Content-Security-Policy"), "default-src 'self'")
		}
	}
}

// events is a source of events that ends with the context.
type events chan statusd.Event

func (es events) Follow(ctx context.Context, after uint64, each func(statusd.Event) error, flush func() error) error {
	for {
		select {
		case e := <-es:
			if e.Seq <= after {
				continue
			}
			if err := each(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := flush(); err != nil {
			return err
		}
	}
}

func TestEvents(t *testing.T) {
	source := make(events, 3)
	base, s := serve(t, Config{Snapshot: snapshot(example()), Events: source})
	source <- statusd.Event{Seq: 6, Text: "was seen"}
	source <- statusd.Event{Seq: 7, Time: started, Kind: "registered", Text: "a line\nand another"}
	r, err := http.NewRequest(http.MethodGet, base+"/events", nil)
	require.NoError(t, err)
	r.Header.Set("Last-Event-ID", "6")
	a, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = a.Body.Close() }()
	assert.Equal(t, "text/event-stream", a.Header.Get("Content-Type"))
	in := bufio.NewReader(a.Body)
	line := func() string {
		l, err := in.ReadString('\n')
		require.NoError(t, err)
		return strings.TrimSuffix(l, "\n")
	}
	assert.Equal(t, "id: 7", line(), "the browser has seen 6")
	var e statusd.Event
	require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(line(), "data: ")), &e))
	assert.Equal(t, "a line\nand another", e.Text)
	assert.Empty(t, line(), "ends the event")

	require.NoError(t, s.Close(), "does not wait for those who listen")
	_, err = io.ReadAll(in)
	require.NoError(t, err)
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	_, err = Listen(ln.Addr().String())
	require.ErrorContains(t, err, "address already in use (give another place with -http)")
}

func TestMetrics(t *testing.T) {
	c := collector{snapshot(example())}
	const want = `
# HELP lisp_locator_packets_total Inner packets to and from a remote locator.
# TYPE lisp_locator_packets_total counter
lisp_locator_packets_total{address="203.0.113.20",direction="in"} 997
lisp_locator_packets_total{address="203.0.113.20",direction="out"} 1052
# HELP lisp_locator_up Whether a remote locator of the map-cache can be reached (1) or not (0).
# TYPE lisp_locator_up gauge
lisp_locator_up{address="203.0.113.20"} 1
# HELP lisp_map_cache_entries Entries of the map-cache, with locators (forward) and without (negative).
# TYPE lisp_map_cache_entries gauge
lisp_map_cache_entries{kind="forward"} 1
lisp_map_cache_entries{kind="negative"} 1
# HELP lisp_registration_round_trip_seconds Time from the last Map-Register to its Map-Notify.
# TYPE lisp_registration_round_trip_seconds gauge
lisp_registration_round_trip_seconds{map_server="203.0.113.1"} 0.012
lisp_registration_round_trip_seconds{map_server="203.0.113.2"} 0.02
# HELP lisp_registration_up Whether the Map-Server has confirmed all EID-Prefixes (1) or not (0).
# TYPE lisp_registration_up gauge
lisp_registration_up{map_server="203.0.113.1"} 1
lisp_registration_up{map_server="203.0.113.2"} 0
`
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(want), "lisp_locator_packets_total", "lisp_locator_up",
		"lisp_map_cache_entries", "lisp_registration_up", "lisp_registration_round_trip_seconds"))
	lint(t, c)

	// Nothing is labelled by an EID-Prefix, of which there can be any number.
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(c))
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		assert.NotContains(t, f.String(), "192.0.2.2/32")
	}
}

func TestMapServerMetrics(t *testing.T) {
	c := collector{snapshot(statusd.Status{Program: "lispms", MapServer: &statusd.MapServer{
		Sites:         []statusd.Site{{Name: "a"}, {Name: "b"}},
		Registrations: []statusd.SiteEntry{{Site: "a"}, {Site: "a"}},
		Counters:      map[string]uint64{"map-registers": 3},
		Refused:       map[string]uint64{"key": 1},
		MapServers:    []statusd.MapServerHealth{{Addr: netip.MustParseAddrPort("203.0.113.1:4342"), Health: "doubtful"}},
	}})}
	const want = `
# HELP lisp_map_resolver_map_server_up Whether a Map-Server that requests are forwarded to answers (1) or not (0).
# TYPE lisp_map_resolver_map_server_up gauge
lisp_map_resolver_map_server_up{address="203.0.113.1:4342"} 0
# HELP lisp_map_server_registrations Registered EID-Prefixes of a site.
# TYPE lisp_map_server_registrations gauge
lisp_map_server_registrations{site="a"} 2
lisp_map_server_registrations{site="b"} 0
`
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(want), "lisp_map_server_registrations", "lisp_map_resolver_map_server_up"))
	lint(t, c)
}

func TestRTRMetrics(t *testing.T) {
	c := collector{snapshot(statusd.Status{Program: "lispms", RTR: &statusd.RTR{
		Relays:   []statusd.Relay{{Prefix: example().Node.EIDs[0]}},
		Traffic:  statusd.Traffic{Kernel: &statusd.KernelTraffic{Slow: map[string]uint64{"miss": 4}}},
		Counters: map[string]uint64{"registers-relayed": 3},
	}})}
	const want = `
# HELP lisp_kernel_slow_packets_total Packets that the kernel left to user space, by reason.
# TYPE lisp_kernel_slow_packets_total counter
lisp_kernel_slow_packets_total{reason="miss"} 4
# HELP lisp_rtr_messages_total Messages of the RTR, by kind.
# TYPE lisp_rtr_messages_total counter
lisp_rtr_messages_total{kind="registers-relayed"} 3
# HELP lisp_rtr_relays EID-Prefixes of nodes behind NATs that packets are relayed for.
# TYPE lisp_rtr_relays gauge
lisp_rtr_relays 1
`
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(want), "lisp_kernel_slow_packets_total", "lisp_rtr_messages_total", "lisp_rtr_relays"))
	lint(t, c)
}

// lint asks Prometheus itself what it thinks of names and units.
func lint(t *testing.T, c prometheus.Collector) {
	t.Helper()
	problems, err := testutil.CollectAndLint(c)
	require.NoError(t, err)
	assert.Empty(t, problems)
}
