package main

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// TestReload changes the configuration of a node while packets pass: all get
// through, and what changed is said and in force.
func TestReload(t *testing.T) {
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer, registerNodes(ipv4), firstPing(ipv4, ipv4))
	ctx, a := t.Context(), d.children["a"]
	conn, err := d.hosts["a"].ListenPacket("ip4:icmp", "0.0.0.0")
	require.NoError(t, err)
	defer conn.Close()
	pinged := make(chan probe.PingResult, 1)
	go func() {
		r, err := probe.Ping(ctx, conn, siteB.eidAddr(ipv4), probe.PingConfig{Count: 300, Interval: 10 * time.Millisecond, Wait: time.Minute})
		assert.NoError(t, err)
		pinged <- r
	}()

	next := strings.ReplaceAll(a.config, "interface = eth0\n    priority_v4 = 1", "ttl = 7\n    interface = eth0\n    priority_v4 = 3")
	next = strings.Replace(next, "debug = 1", "debug = 2", 1) + "static-map-cache { eid-prefix = 198.18.0.0/15 rloc = 10.0.2.2 }\ntun-mtu = 1300\n"
	require.NoError(t, os.WriteFile(a.file(".conf"), []byte(next), 0o600))
	var r statusd.Reloaded
	require.NoError(t, a.client().Do(ctx, statusd.ActionReload, statusd.Nothing{}, &r))
	assert.Contains(t, r.Changes, "debug: 1 -> 2")
	assert.Contains(t, r.Changes, "database-mapping: + 192.0.2.1/32 ttl 7m0s by eth0 IPv4 3/100")
	assert.Contains(t, r.Changes, "static-map-cache: + 198.18.0.0/15 by 10.0.2.2 1/100")
	require.Len(t, r.Restart, 1)
	assert.Contains(t, r.Restart[0], "tun device: ")
	require.Eventually(t, func() bool {
		st, err := d.children["ms"].ready(ctx)
		require.NoError(t, err)
		return slices.ContainsFunc(st.MapServer.Registrations, func(e statusd.SiteEntry) bool {
			return e.Prefix == netip.MustParsePrefix("192.0.2.1/32") && e.RLOCs[0].Priority == 3
		})
	}, time.Minute, 10*time.Millisecond)

	// A file that cannot be used changes nothing, and neither does the same again.
	require.NoError(t, os.WriteFile(a.file(".conf"), []byte("map-sever {}\n"+next), 0o600))
	require.ErrorContains(t, a.client().Do(ctx, statusd.ActionReload, statusd.Nothing{}, &r), ".conf:1: map-sever: unknown option; did you mean 'map-server'?")
	require.NoError(t, os.WriteFile(a.file(".conf"), []byte(strings.Replace(next, "tun-mtu = 1300", "", 1)), 0o600))
	r = statusd.Reloaded{}
	require.NoError(t, a.client().Do(ctx, statusd.ActionReload, statusd.Nothing{}, &r))
	assert.Equal(t, statusd.Reloaded{}, r)

	// SIGHUP does the same, and says so on standard error.
	require.NoError(t, os.WriteFile(a.file(".conf"), []byte(a.config), 0o600))
	mark := d.log.mark()
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGHUP))
	_, err = d.log.await(ctx, mark, siteMS.name, "registered", contains("192.0.2.1"))
	require.NoError(t, err)
	got := <-pinged
	assert.Equal(t, got.Sent, got.Received, "nothing is lost meanwhile")
	require.NoError(t, a.stop())
	assert.Contains(t, a.logTail(200), "changed: static-map-cache: - 198.18.0.0/15 by 10.0.2.2 1/100")
}

// TestActions has a running node do what lispconf asks for.
func TestActions(t *testing.T) {
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer, registerNodes(ipv4))
	ctx, c := t.Context(), d.children["a"].client()
	eid, rloc := siteB.eidAddr(ipv4), siteB.rlocAddr(ipv4)
	prefix := netip.PrefixFrom(eid, 32)

	st, err := c.Status(ctx)
	require.NoError(t, err)
	for _, r := range st.Node.Registrations {
		// No node opens ports and a device within a millisecond.
		assert.Greater(t, r.Since.Add(-r.RTT).Sub(st.Started), time.Millisecond, "the round-trip time %v has the time in it that the node took to start", r.RTT)
	}

	var tr statusd.Trace
	require.NoError(t, c.Do(ctx, statusd.ActionTrace, statusd.Flow{Dst: eid}, &tr))
	assert.Equal(t, "wait for a mapping", tr.Does)
	var e statusd.Entry
	require.NoError(t, c.Do(ctx, statusd.ActionLookup, statusd.Target{Addr: eid}, &e))
	assert.Equal(t, prefix, e.Prefix)
	assert.Equal(t, rloc, e.RLOCs[0].Addr)
	require.NoError(t, c.Do(ctx, statusd.ActionTrace, statusd.Flow{Dst: eid, SrcPort: 1, DstPort: 2}, &tr))
	assert.Equal(t, "encapsulate", tr.Does)
	assert.Equal(t, rloc, tr.Locator)
	assert.Equal(t, siteA.rlocAddr(ipv4), tr.Local)
	assert.Equal(t, "eth0", tr.Interface)
	assert.NotZero(t, tr.SourcePort)
	assert.Len(t, tr.Why, 4)
	assert.Equal(t, "the longest match in the map-cache is "+prefix.String()+", by map-reply, with 1 locator", tr.Why[0])
	require.NoError(t, c.Do(ctx, statusd.ActionTrace, statusd.Flow{Dst: siteA.eidAddr(ipv4)}, &tr))
	assert.Equal(t, "deliver here", tr.Does, "our own EID")
	require.NoError(t, c.Do(ctx, statusd.ActionTrace, statusd.Flow{Dst: siteB.eidAddr(ipv6)}, &tr))

	var paths []statusd.Path
	require.NoError(t, c.Do(ctx, statusd.ActionProbe, statusd.Target{Addr: rloc}, &paths))
	require.NotEmpty(t, paths)
	assert.Equal(t, "up", paths[0].State)
	assert.NotZero(t, paths[0].Answered)
	require.ErrorContains(t, c.Do(ctx, statusd.ActionProbe, statusd.Target{Addr: netip.MustParseAddr("10.9.9.9")}, &paths), "no mapping in the map-cache has the locator")

	var none statusd.Nothing
	static := statusd.Change{Table: "map-cache", Prefix: netip.MustParsePrefix("198.18.0.0/15"), RLOCs: []statusd.RLOC{{Addr: rloc, Priority: 1, Weight: 1}}}
	require.NoError(t, c.Do(ctx, statusd.ActionAdd, static, &none))
	for _, bad := range []string{"224.0.0.1", "::", "127.0.0.1"} {
		nowhere := static
		nowhere.RLOCs = []statusd.RLOC{{Addr: netip.MustParseAddr(bad), Priority: 1, Weight: 1}}
		require.ErrorContains(t, c.Do(ctx, statusd.ActionAdd, nowhere, &none), bad+" is the address of no other host")
	}
	for _, bad := range []string{"224.0.0.1", "::"} { // the engine would never answer
		require.ErrorContains(t, c.Do(ctx, statusd.ActionLookup, statusd.Target{Addr: netip.MustParseAddr(bad)}, &e), bad+" is the address of no host")
	}
	var n statusd.Count
	require.NoError(t, c.Do(ctx, statusd.ActionFlush, statusd.Selection{Within: netip.MustParsePrefix("198.18.0.0/15")}, &n))
	assert.Zero(t, n.Count, "static entries stay")
	require.NoError(t, c.Do(ctx, statusd.ActionFlush, statusd.Selection{}, &n))
	assert.Equal(t, 1, n.Count)
	st, err = c.Status(ctx)
	require.NoError(t, err)
	require.Len(t, st.Node.MapCache, 1)
	assert.Equal(t, static.Prefix, st.Node.MapCache[0].Prefix)
	require.NotEmpty(t, st.Node.Interfaces)
	assert.True(t, st.Node.Interfaces[0].Locator)
	require.NoError(t, c.Do(ctx, statusd.ActionDel, static, &none))
	require.EqualError(t, c.Do(ctx, statusd.ActionDel, static, &none), "there is no such entry")
	static.Table = "table"
	require.EqualError(t, c.Do(ctx, statusd.ActionDel, static, &none), "there are two tables: map-cache and database")

	own := statusd.Change{Table: "database", Prefix: netip.PrefixFrom(siteA.eidAddr(ipv6), 128)}
	mark := d.log.mark()
	require.NoError(t, c.Do(ctx, statusd.ActionDel, own, &none))
	_, err = d.log.await(ctx, mark, siteMS.name, "withdrawn", contains(siteA.eid[ipv6]))
	require.NoError(t, err)
	mark = d.log.mark()
	require.NoError(t, c.Do(ctx, statusd.ActionAdd, own, &none))
	_, err = d.log.await(ctx, mark, siteMS.name, "registered", contains(siteA.eid[ipv6]))
	require.NoError(t, err)

	pcap := &firstWrite{got: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- c.Capture(ctx, []string{"eth0"}, pcap) }()
	select {
	case <-pcap.got:
	case err := <-ended:
		t.Fatal(err)
	}
	require.ErrorContains(t, c.Capture(ctx, []string{"eth9"}, pcap), "interface eth9: ")
	require.NoError(t, d.children["a"].stop())
	<-ended
}

// firstWrite tells when something was written.
type firstWrite struct {
	got  chan struct{}
	done bool
}

func (f *firstWrite) Write(b []byte) (int, error) {
	if !f.done {
		f.done = true
		close(f.got)
	}
	return len(b), nil
}
