package load

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/lisp"
)

var key = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("load")}

// server runs a Map-Server of two sockets on loopback.
func server(t *testing.T, secret string) (netip.AddrPort, *mapserver.Server) {
	t.Helper()
	k := key
	k.Secret = []byte(secret)
	core, err := mapserver.New(mapserver.Config{
		Sites: []mapserver.Site{{Name: "load", Keys: []lisp.Key{k}, Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true},
		}}},
		RatePerSource: -1, RateTotal: -1,
	})
	require.NoError(t, err)
	conn, err := control.Listen(t.Context(), control.ListenConfig{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Sockets: 2})
	require.NoError(t, err)
	require.Len(t, conn.LocalAddrs(), 2)
	runner, err := control.NewRunner(control.RunnerConfig{
		Conn: conn, Cores: map[control.Role]control.Core{control.RoleMapServer: core},
		NewWorker: func() control.Worker { return core.NewWorker() },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return conn.LocalAddrs()[0], core
}

// TestRun: a short load by number, through real sockets shared by two Workers;
// every answer is checked.
func TestRun(t *testing.T) {
	addr, core := server(t, "load")
	cfg := Config{Server: addr, Key: key, EIDs: 500, Count: 500, Check: 1, Timeout: time.Minute, Window: 64}
	first, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.EqualValues(t, 500, first.Sent)
	assert.EqualValues(t, 500, first.Answered)
	assert.EqualValues(t, 500, first.Checked)
	assert.Zero(t, first.Wrong+first.Lost+first.SendErrors)
	assert.Equal(t, 500, core.Stats().Registrations)

	cfg.Nonce, cfg.Count, cfg.Requests = first.LastNonce+1, 4000, 0.5
	mixed, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.EqualValues(t, 4000, mixed.Answered)
	assert.EqualValues(t, 4000, mixed.Checked)
	assert.Zero(t, mixed.Wrong+mixed.Lost)
	st := core.Stats()
	assert.EqualValues(t, 4500, st.Registers+st.Requests)
	assert.Equal(t, st.Requests, st.Replies)
	assert.Equal(t, st.Registers, st.Notifies)
	assert.Equal(t, 500, st.Registrations)
	assert.Positive(t, mixed.Latency.Quantile(0.5))
	assert.LessOrEqual(t, mixed.Latency.Quantile(0.5), mixed.Latency.Quantile(0.99))
}

// TestRunAgainstAWrongKey: what is not acknowledged is lost, and Run ends.
func TestRunAgainstAWrongKey(t *testing.T) {
	addr, _ := server(t, "another")
	r, err := Run(t.Context(), Config{Server: addr, Key: key, EIDs: 10, Count: 20, Timeout: 50 * time.Millisecond})
	require.NoError(t, err)
	assert.Zero(t, r.Answered)
	assert.EqualValues(t, 20, r.Lost)
}

func TestConfigErrors(t *testing.T) {
	good := Config{Server: netip.MustParseAddrPort("127.0.0.1:4342"), Key: key, EIDs: 1}
	for name, change := range map[string]func(*Config){
		"server":   func(c *Config) { c.Server = netip.AddrPort{} },
		"no eids":  func(c *Config) { c.EIDs = 0 },
		"eids":     func(c *Config) { c.EIDs = 1<<24 + 1 },
		"requests": func(c *Config) { c.Requests = 1.1 },
		"window":   func(c *Config) { c.Window = -1 },
	} {
		c := good
		change(&c)
		_, err := Run(t.Context(), c)
		assert.ErrorIs(t, err, ErrConfig, name)
	}
}

func TestHistogram(t *testing.T) {
	var h, other Histogram
	for i := range 1000 {
		h.Observe(time.Duration(i) * time.Microsecond)
		other.Observe(time.Duration(i+1000) * time.Microsecond)
	}
	for _, q := range []float64{0.1, 0.5, 0.9} {
		got := h.Quantile(q).Seconds() * 1e6
		assert.InDelta(t, 1000*q, got, 1000*q/16+1)
	}
	h.add(&other)
	assert.InDelta(t, 1000, h.Quantile(0.5).Seconds()*1e6, 80)
	for d := time.Duration(1); d < 1<<40; d += d/3 + 1 {
		c := class(d)
		assert.True(t, bound(c) <= d && d < bound(c+1), "%d in class %d: %d to %d", d, c, bound(c), bound(c+1))
	}
}
