package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// atOnce is how many tests run at the same time, at least: they wait for timers of
// the protocol nearly all the time.
const atOnce = 4

// TestMain makes the test binary lispmn when the demo starts it as a child, and
// otherwise runs the tests in namespaces of their own.
func TestMain(m *testing.M) {
	if os.Getenv(envChild) == "1" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	if runtime.GOMAXPROCS(0) < atOnce {
		_ = flag.Set("test.parallel", strconv.Itoa(atOnce)) // the command line comes after
	}
	netlab.Main(m)
}

// testLab builds the network of the demo for a test that runs beside others.
func testLab(t *testing.T, opt demoOptions) *demoLab {
	t.Helper()
	t.Parallel()
	return loneLab(t, opt)
}

// loneLab is testLab for a test that measures time.
func loneLab(t *testing.T, opt demoOptions) *demoLab {
	t.Helper()
	netlab.Require(t, netlab.Veth, netlab.IPv6, netlab.PolicyRouting, netlab.TUN, netlab.PacketSockets)
	d, err := newDemoLab(t.Context(), opt, io.Discard)
	require.NoError(t, err)
	d.log.limit = time.Minute
	t.Cleanup(func() {
		if t.Failed() {
			for _, e := range d.log.all() {
				t.Logf("%8.3fs %s %s", e.Time.Sub(d.log.start).Seconds(), e.Host, e.Text)
			}
			t.Log(strings.Join(d.logs(), "\n"))
		}
		require.NoError(t, d.close())
		assert.NoDirExists(t, d.dir)
	})
	return d
}

// do runs steps of the demo.
func do(t *testing.T, d *demoLab, steps ...func(context.Context, *demoLab) ([]string, error)) {
	t.Helper()
	for i, s := range steps {
		seen, err := s(t.Context(), d)
		for _, line := range seen {
			t.Log(line)
		}
		require.NoError(t, err, "step %d", i+1)
	}
}

// TestDemo runs the whole demo as the command does, and looks into its captures.
func TestDemo(t *testing.T) {
	t.Parallel()
	netlab.Require(t, netlab.Veth, netlab.IPv6, netlab.PolicyRouting, netlab.TUN, netlab.PacketSockets)
	dir := filepath.Join(t.TempDir(), "captures")
	var out, errs bytes.Buffer
	code := runDemo(t.Context(), demoOptions{json: true, capture: dir}, &out, &errs)
	var rep report
	require.NoError(t, json.Unmarshal(out.Bytes(), &rep), out.String())
	for _, s := range rep.Steps {
		t.Logf("%5.1f s  %v  %s: %v %s %v", s.Seconds, s.OK, s.Name, s.Seen, s.Error, s.LookAt)
	}
	require.Equal(t, daemon.ExitOK, code, errs.String())
	assert.True(t, rep.OK)
	assert.Len(t, rep.Steps, len(demoSteps))
	assert.Len(t, rep.Pings, 6)
	assert.Len(t, rep.Transfers, 4)
	assert.Len(t, rep.Registrations, 8)
	assert.Len(t, rep.Nodes, 4)
	assert.NotEmpty(t, rep.Events)
	for _, name := range []string{"core", "a", "b", "ms", "stranger", "web"} {
		assert.FileExists(t, filepath.Join(dir, name+".pcapng"))
	}
	checkCapture(t, filepath.Join(dir, "core.pcapng"))

	var text bytes.Buffer
	rep.print(&text)
	for _, want := range []string{"Registrations at the Map-Server", "Map-caches", "Traffic per locator", "Ping", "TCP", "All 14 steps verified"} {
		assert.Contains(t, text.String(), want)
	}
}

// TestMultihome runs the demo of handovers. How long they take is printed, not
// judged: that no connection breaks is.
func TestMultihome(t *testing.T) {
	d := testLab(t, demoOptions{multihome: true})
	d.quiet = 0 // so that some are held back by the limits of the protocol
	rep := d.run(t.Context(), multihomeSteps)
	for _, s := range rep.Steps {
		t.Logf("%5.1f s  %v  %s: %v %s %v", s.Seconds, s.OK, s.Name, s.Seen, s.Error, s.LookAt)
	}
	assert.True(t, rep.OK)
	assert.Len(t, rep.Steps, len(multihomeSteps))
}

// TestFailedStep checks what a failure says.
func TestFailedStep(t *testing.T) {
	d := testLab(t, demoOptions{})
	steps := []demoStep{
		{name: "the Map-Server starts", do: startMapServer},
		{name: "ping without nodes", where: []string{"the nodes"}, do: func(ctx context.Context, d *demoLab) ([]string, error) {
			_, err := d.ping(ctx, "a", "b", siteB.eidAddr(ipv4), "IPv4")
			return []string{"nothing"}, errors.Join(err, errors.New("no answer"))
		}},
		{name: "never reached", do: nil},
	}
	var live bytes.Buffer
	d.log.out = &live
	rep := d.run(t.Context(), steps)
	assert.False(t, rep.OK)
	require.Len(t, rep.Steps, 2)
	assert.True(t, rep.Steps[0].OK)
	assert.Contains(t, rep.Steps[1].Error, "no answer")
	assert.Contains(t, rep.Steps[1].LookAt, "the nodes")
	var text bytes.Buffer
	rep.print(&text)
	assert.Contains(t, text.String(), "FAILED: step 2, ping without nodes")
	for _, want := range []string{"2. ping without nodes", "seen: nothing", "FAILED:", "look at: the nodes"} {
		assert.Contains(t, live.String(), want)
	}
}

// TestMapServerKilled kills the Map-Server while traffic flows. Traffic goes on;
// the new one learns all registrations by itself and resolves new EIDs.
func TestMapServerKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the next periodic registration, up to 20 s")
	}
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer, registerNodes(ipv4), firstPing(ipv4, ipv4))
	ms := d.children[siteMS.name]
	ms.kill()
	do(t, d, laterPing(ipv4, ipv4))
	mark := d.log.mark()
	require.NoError(t, ms.start(t.Context()))
	for _, s := range []site{siteA, siteB} {
		for _, eid := range s.eid {
			_, err := d.log.await(t.Context(), mark, siteMS.name, "registered", contains(eid+"/"))
			require.NoError(t, err)
		}
		require.NoError(t, d.checkRegistry(t.Context(), s, ipv4))
	}
	do(t, d, laterPing(ipv4, ipv4), firstPing(ipv6, ipv4), stopNodes)
}

// TestNodeKilled kills a node. The next one cleans up behind it and is reached again.
func TestNodeKilled(t *testing.T) {
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer, registerNodes(ipv4), firstPing(ipv4, ipv4))
	b := d.children[siteB.name]
	b.kill()
	require.Error(t, d.checkClean(siteB), "the rules of the killed node are there")
	mark := d.log.mark()
	require.NoError(t, b.start(t.Context()))
	require.NoError(t, d.registered(t.Context(), mark, siteB, ipv4))
	do(t, d, transferStep(ipv4, ipv4, false), firstPing(ipv6, ipv4), stopNodes)
}

// TestRenumbered changes the address of a node, and removes one of its rules:
// the node sees both by itself.
func TestRenumbered(t *testing.T) {
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer, registerNodes(ipv4))
	netlab.RequireProgram(t, "ip")
	mark := d.log.mark()
	for _, args := range []string{"rule del pref 4344", "addr del 10.0.1.2/24 dev eth0", "addr add 10.0.1.3/24 dev eth0", "route replace default via " + siteA.gw[ipv4]} {
		_, err := d.hosts["a"].Run(t.Context(), "ip", strings.Fields(args)...)
		require.NoError(t, err)
	}
	_, err := d.log.await(t.Context(), mark, siteMS.name, "registered", contains("10.0.1.3"))
	require.NoError(t, err)
	assert.NoError(t, d.hosts["a"].Await(t.Context(), "the rule that was removed", func(nl *netlink.Handle) (bool, error) {
		rules, err := nl.RuleList(netlink.FAMILY_V4)
		return slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Priority == 4344 }), err
	}))
}

// TestLaterUplink starts a node whose interface is not there yet.
func TestLaterUplink(t *testing.T) {
	d := testLab(t, demoOptions{})
	do(t, d, startMapServer)
	netlab.RequireProgram(t, "ip")
	a := d.hosts["a"]
	a.MustRun("ip", "link", "set", "eth0", "down")
	a.MustRun("ip", "link", "set", "eth0", "name", "usb0")
	mark := d.log.mark()
	node, err := d.start(t.Context(), "a", d.nodeConfig(siteA, ipv4))
	require.NoError(t, err)
	_, err = node.ready(t.Context())
	require.NoError(t, err)
	assert.Contains(t, node.logTail(100), "there is no interface eth0 (there are: usb0)")
	for _, args := range []string{"link set usb0 name eth0", "link set eth0 up", "route replace default via " + siteA.gw[ipv4]} {
		a.MustRun("ip", strings.Fields(args)...)
	}
	_, err = d.log.await(t.Context(), mark, siteMS.name, "registered", contains("10.0.1.2"))
	require.NoError(t, err)
	require.NoError(t, node.stop())
}

// TestSecondDaemon starts a node where there is one already.
func TestSecondDaemon(t *testing.T) {
	d := testLab(t, demoOptions{})
	b, err := d.start(t.Context(), "b", d.nodeConfig(siteB, ipv4))
	require.NoError(t, err)
	_, err = b.ready(t.Context())
	require.NoError(t, err)

	second := func(config string) string {
		file := filepath.Join(t.TempDir(), "second.conf")
		require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
		cmd := d.hosts["b"].Self(t.Context(), "-f", file)
		cmd.Env = append(os.Environ(), envChild+"=1")
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		return string(out)
	}
	assert.Contains(t, second(b.config), "already running; stop it, or give this one another control-socket")
	other := strings.Replace(b.config, b.socket(), b.socket()+"2", 1)
	assert.Contains(t, second(other), "UDP port 4342 is in use")
	assert.Contains(t, second(strings.ReplaceAll(other, "interface = eth0", "interface = eth9")), "UDP port 4342 is in use")
	assert.Contains(t, second(strings.Replace(other, "priority_v4 = 1", "priority_v4 = 1\nfrobnicate = 1", 1)), "unknown option")
	top := d.hosts["b"].Self(t.Context(), "top", "-socket", b.socket())
	top.Env = append(os.Environ(), envChild+"=1")
	out, err := top.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "lispmn top: this is no terminal (lispconf show stats and show map-cache tell as much)")
	require.NoError(t, b.stop(), "the first node is as it was")
	require.NoError(t, d.checkClean(siteB))
}

// TestNotRoot starts a node as somebody who may not.
func TestNotRoot(t *testing.T) {
	if os.Getenv(netlab.EnvMode) == "userns" {
		t.Skip("there is only one user in a user namespace without helpers")
	}
	d := testLab(t, demoOptions{})
	dir := filepath.Join(os.TempDir(), filepath.Base(d.dir)+"-nobody")
	require.NoError(t, os.Mkdir(dir, 0o755))
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chown(dir, 65534, 65534))
	file := filepath.Join(dir, "node.conf")
	config := strings.ReplaceAll(d.nodeConfig(siteA, ipv4), d.dir, dir)
	require.NoError(t, os.WriteFile(file, []byte(config), 0o644))
	exe := filepath.Join(dir, "lispmn")
	copyFile(t, exe)
	cmd := d.hosts["a"].Command(t.Context(), exe, "-f", file)
	cmd.Env = append(os.Environ(), envChild+"=1")
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
		t.Skipf("cannot become another user here: %v", err)
	}
	require.Error(t, err)
	assert.Contains(t, string(out), "run it as root")
}

// copyFile copies the test binary, whose directory only root may enter.
func copyFile(t *testing.T, to string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, b, 0o755))
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.conf")
	require.NoError(t, os.WriteFile(good, []byte(`
map-resolver = 192.0.2.53
map-server { address = 192.0.2.1 key = k }
map-request-retries = 3
database-mapping { eid-prefix = 198.51.100.1/32 interface = eth0 }`), 0o600))
	bad := filepath.Join(dir, "bad.conf")
	require.NoError(t, os.WriteFile(bad, []byte("map-sever { }"), 0o600))
	for _, tc := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"-version"}, daemon.ExitOK, "lispmn "},
		{[]string{"-help"}, daemon.ExitOK, "lispmn demo"},
		{[]string{"check", "-f", good}, daemon.ExitOK, "good.conf: can be used"},
		{[]string{"check", "-r", "99", good}, daemon.ExitOK, "command line: map-request-retries: 10 is the highest value"},
		{[]string{"check", bad}, daemon.ExitUsage, "bad.conf:1: map-sever: unknown option; did you mean 'map-server'?"},
		{[]string{"-f", filepath.Join(dir, "none.conf")}, daemon.ExitUsage, "does not exist"},
		{[]string{"dmeo"}, daemon.ExitUsage, "unexpected argument"},
		{[]string{"demo", "-help"}, daemon.ExitOK, "-capture"},
		{[]string{"demo", "-frob"}, daemon.ExitUsage, "not defined"},
		{[]string{"demo", "now"}, daemon.ExitUsage, "unexpected argument"},
		{[]string{argMapServer, "-version"}, daemon.ExitOK, "lispms "},
		{[]string{argMapServer, "check", "-f", good}, daemon.ExitUsage, "there is no lisp-site"},
	} {
		var out bytes.Buffer
		assert.Equal(t, tc.code, run(t.Context(), tc.args, &out, &out), tc.args)
		assert.Contains(t, out.String(), tc.out, tc.args)
	}
}
