package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	bpf "github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// ownBPFFS gives the lab a BPF file system of its own where pins are.
func ownBPFFS(t *testing.T) {
	t.Helper()
	if err := ebpf.Probe(); err != nil {
		t.Skip(err)
	}
	mount := filepath.Dir(ebpf.DefaultPinDir)
	require.NoError(t, unix.Mount("bpf", mount, "bpf", 0, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mount, unix.MNT_DETACH)) })
}

// startFlows sends a datagram each millisecond between EIDs of two nodes, of both
// families and in both directions.
func startFlows(t *testing.T, d *demoLab, a, b site) []*probe.Flow {
	t.Helper()
	var flows []*probe.Flow
	for _, ends := range [][2]site{{a, b}, {b, a}} {
		for family := range 2 {
			to, err := d.hosts[ends[1].name].ListenPacket("udp", net.JoinHostPort(ends[1].eid[family], "0"))
			require.NoError(t, err)
			roomy(t, to)
			from, err := d.hosts[ends[0].name].ListenPacket("udp", net.JoinHostPort(ends[0].eid[family], "0"))
			require.NoError(t, err)
			f := probe.StartFlow(from, to, to.LocalAddr(), time.Millisecond)
			t.Cleanup(f.Stop)
			flows = append(flows, f)
		}
	}
	return flows
}

// roomy lets a socket hold what arrives while its reader has no processor.
func roomy(t *testing.T, c net.PacketConn) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	require.NoError(t, err)
	var errSet error
	require.NoError(t, raw.Control(func(fd uintptr) {
		errSet = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	}))
	require.NoError(t, errSet)
}

// steady waits until all flows carry what is sent from now on.
func steady(t *testing.T, flows []*probe.Flow) {
	t.Helper()
	since := time.Now()
	for _, f := range flows {
		_, err := f.Outage(t.Context(), since)
		require.NoError(t, err)
	}
}

// TestGraceful: a node ends, is killed, comes back, and comes back as another version,
// while packets pass each millisecond: all get through, by the kernel; but those that
// find no room when nothing could be carried over and a mapping takes 200 ms.
// Without -graceful nothing stays.
func TestGraceful(t *testing.T) {
	d := loneLab(t, demoOptions{})
	ownBPFFS(t)
	do(t, d, startMapServer)
	for _, s := range []site{siteA, siteB} {
		_, err := d.start(t.Context(), s.name, d.nodeConfig(s, ipv4)+"dataplane = ebpf\n", map[bool][]string{true: {"-graceful"}}[s.name == "a"]...)
		require.NoError(t, err)
	}
	for _, s := range []site{siteA, siteB} {
		require.NoError(t, d.registered(t.Context(), 0, s, ipv4))
	}
	do(t, d, firstPing(ipv4, ipv4), firstPing(ipv6, ipv4))
	flows := startFlows(t, d, siteA, siteB)
	steady(t, flows)
	a := d.children["a"]
	lost := func() (n int) {
		for _, f := range flows {
			n += f.Lost()
		}
		return n
	}
	refused := 0
	for _, c := range []struct {
		name   string
		end    func()
		before func() // the next start
		slow   bool   // nothing is carried over
	}{
		{name: "SIGTERM", end: func() { require.NoError(t, a.stop()) }},
		{name: "kill -9", end: a.kill},
		{name: "another version", end: a.kill, before: func() { changeLayout(t) }, slow: true},
	} {
		c.end()
		require.Error(t, d.checkClean(siteA), "%s: the device stays", c.name)
		steady(t, flows) // with nobody there
		if c.before != nil {
			c.before()
		}
		require.NoError(t, a.start(t.Context()))
		_, err := a.ready(t.Context())
		require.NoError(t, err)
		steady(t, flows)
		tr := awaitTraffic(t, d, "a", "traffic", func(tr statusd.Traffic) bool { return tr.Kernel.Encapsulated.Packets > 0 })
		t.Logf("%s: %d lost; %d encapsulated, %d in the kernel, slow %v, drops %v, held %d", c.name, lost(), tr.Encapsulated.Packets, tr.Kernel.Encapsulated.Packets, tr.Kernel.Slow, tr.Drops, tr.Held)
		if c.slow {
			assert.NotZero(t, tr.Held)
			assert.Contains(t, a.logTail(100), "of another version")
			refused = int(tr.Drops["hold full"])
			continue
		}
		assert.Equal(t, tr.Encapsulated, tr.Kernel.Encapsulated, c.name)
		assert.Zero(t, tr.Kernel.Slow["miss"], c.name)
	}
	require.NoError(t, netlab.Eventually(t.Context(), "all packets arrive", func() bool { return lost() == refused }), "%d, and %d refused", lost(), refused)
	for _, e := range d.log.all() {
		assert.False(t, e.Host == siteMS.name && e.Kind == "withdrawn", "%v", e)
	}

	// Who is not graceful takes over, too, and leaves nothing.
	require.NoError(t, a.stop())
	a.args = nil
	require.NoError(t, a.start(t.Context()))
	_, err := a.ready(t.Context())
	require.NoError(t, err)
	steady(t, flows)
	require.NoError(t, a.stop())
	require.NoError(t, d.checkClean(siteA))
	pinned, err := os.ReadDir(ebpf.DefaultPinDir)
	require.NoError(t, err)
	assert.Empty(t, pinned)

	// Cleanup ends what goes on.
	a.args = []string{"-graceful"}
	require.NoError(t, a.start(t.Context()))
	_, err = a.ready(t.Context())
	require.NoError(t, err)
	require.NoError(t, a.stop())
	require.Error(t, d.checkClean(siteA))
	cmd := d.hosts["a"].Self(t.Context(), "cleanup", a.file(".conf"))
	cmd.Env = append(os.Environ(), envChild+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, d.checkClean(siteA))
	pinned, err = os.ReadDir(ebpf.DefaultPinDir)
	require.NoError(t, err)
	assert.Empty(t, pinned)
	assert.NotContains(t, d.hosts["a"].MustRun("tc", "qdisc"), "clsact")
}

// changeLayout makes the pinned tables look as if another version had left them.
func changeLayout(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(ebpf.DefaultPinDir, "*", "state"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	m, err := bpf.LoadPinnedMap(files[0], nil)
	require.NoError(t, err)
	defer m.Close()
	var v []byte
	require.NoError(t, m.Lookup(uint32(0), &v))
	const layout = 16 // where it stands in struct settings
	v[layout]++
	require.NoError(t, m.Put(uint32(0), v))
}
