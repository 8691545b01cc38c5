package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// TestGracefulRTR: an RTR ends, is killed, and comes back, while it relays a packet each
// millisecond between nodes behind NATs and from and to a public one: all get through,
// by the kernel. Then one that is not graceful takes over, and leaves nothing; and so does
// "lispms cleanup".
func TestGracefulRTR(t *testing.T) {
	requireNATLab(t)
	d := loneLab(t, demoOptions{nat: true})
	ownBPFFS(t)
	_, err := d.start(t.Context(), natMS.name, d.natServerConfig(), argMapServer)
	require.NoError(t, err)
	rtr, err := d.start(t.Context(), rtr1.name, d.rtrConfig(rtr1)+"dataplane = ebpf\n", argMapServer, "-graceful")
	require.NoError(t, err)
	ready := func() *statusd.RTR {
		t.Helper()
		st, err := rtr.ready(t.Context())
		require.NoError(t, err)
		return st.RTR
	}
	ready()
	for _, s := range natNodes { // who don't look whether the RTR is away for a while
		config := strings.Replace(d.natConfig(s), "keep-alive = 2 ", "keep-alive = 60 ", 1)
		_, err := d.start(t.Context(), s.name, config+"rloc-probing {\n    rloc-probe-interval = 0\n}\n")
		require.NoError(t, err)
	}
	for _, s := range []site{natA, natB} {
		_, err := d.binding(t.Context(), s, "registered")
		require.NoError(t, err)
	}
	_, err = d.binding(t.Context(), natC, "public")
	require.NoError(t, err)
	require.NoError(t, d.atRegistry(t.Context(), natNodes...))

	start := func() (flows []*probe.Flow) {
		for _, ends := range [][2]site{{natA, natB}, {natA, natC}, {natB, natC}} {
			flows = append(flows, startFlows(t, d, ends[0], ends[1])...)
		}
		steady(t, flows)
		return flows
	}
	for _, f := range start() { // by which all mappings are known
		f.Stop()
	}
	flows := start()
	lost := func() (n int) {
		for _, f := range flows {
			n += f.Lost()
		}
		return n
	}
	nodes := make(map[netip.Prefix]netip.AddrPort)
	for _, r := range ready().Relays {
		nodes[r.Prefix] = r.Global
	}
	require.Len(t, nodes, 4)
	for _, c := range []struct {
		name string
		end  func()
	}{
		{"SIGTERM", func() { require.NoError(t, rtr.stop()) }},
		{"kill -9", rtr.kill},
	} {
		c.end()
		steady(t, flows) // with nobody there
		require.NoError(t, rtr.start(t.Context()))
		st := ready()
		got := make(map[netip.Prefix]netip.AddrPort)
		for _, r := range st.Relays {
			got[r.Prefix] = r.Global
		}
		assert.Equal(t, nodes, got, c.name)
		steady(t, flows)
		require.NoError(t, netlab.Eventually(t.Context(), "the next one's programs relay", func() bool {
			return ready().Traffic.Kernel.Encapsulated.Packets > 0
		}))
		tr := ready().Traffic
		t.Logf("%s: %d lost; %d encapsulated, %d in the kernel, slow %v, drops %v", c.name, lost(), tr.Encapsulated.Packets, tr.Kernel.Encapsulated.Packets, tr.Kernel.Slow, tr.Drops)
		assert.Equal(t, tr.Encapsulated, tr.Kernel.Encapsulated, c.name)
		assert.Empty(t, tr.Drops, c.name)
	}
	pinned := func() []os.DirEntry {
		es, err := os.ReadDir(ebpf.DefaultPinDir)
		require.NoError(t, err)
		return es
	}
	cleanup := func() (string, error) {
		cmd := d.hosts[rtr1.name].Self(t.Context(), argMapServer, "cleanup")
		cmd.Env = append(os.Environ(), envChild+"=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := cleanup()
	require.Error(t, err)
	assert.Contains(t, out, "in use", "one runs")
	require.NoError(t, rtr.stop())
	assert.NotEmpty(t, pinned())
	rtr.args = []string{argMapServer}
	require.NoError(t, rtr.start(t.Context()))
	ready()
	steady(t, flows)
	require.NoError(t, netlab.Eventually(t.Context(), "all packets arrive", func() bool { return lost() == 0 }), "all but %d", lost())
	require.NoError(t, rtr.stop())
	assert.Empty(t, pinned())

	rtr.args = []string{argMapServer, "-graceful"}
	require.NoError(t, rtr.start(t.Context()))
	ready()
	require.NoError(t, rtr.stop())
	assert.NotEmpty(t, pinned())
	out, err = cleanup()
	require.NoError(t, err, out)
	assert.Empty(t, pinned())
}
