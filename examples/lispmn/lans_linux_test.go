package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// TestRouterLANs: the kernel takes packets of a router's LANs where they come in, also
// of one that is there later: they get through when the router does not forward
// packets any more.
func TestRouterLANs(t *testing.T) {
	d := testLab(t, demoOptions{})
	if err := ebpf.Probe(); err != nil {
		t.Skip(err)
	}
	netlab.RequireProgram(t, "ip")
	const site4, site6 = "192.0.2.64/26", "2001:db8:64::/48"
	router := siteA
	router.eid = [2]string{site4, site6}
	config := strings.NewReplacer("eid-prefix = "+siteA.eid[ipv4]+"\n", "eid-prefix = "+site4+"\n", "eid-prefix = "+siteA.eid[ipv6]+"\n", "eid-prefix = "+site6+"\n")
	ms, err := d.start(t.Context(), siteMS.name, config.Replace(d.mapServerConfig()), argMapServer)
	require.NoError(t, err)
	_, err = ms.ready(t.Context())
	require.NoError(t, err)

	// A LAN host: its addresses, and the router's in front of them.
	a := d.hosts["a"]
	join := func(name string, net4, net6 int) *netlab.Host {
		h := d.lab.Host(name)
		at := func(n int) netlab.End {
			return netlab.At(fmt.Sprintf("192.0.2.%d/27", net4+n), fmt.Sprintf("2001:db8:64:%d::%d/64", net6, n))
		}
		end := at(1)
		end.Name = "lan-" + name
		d.lab.Link(h, a, netlab.LinkConfig{A: at(2), B: end})
		h.DefaultVia(fmt.Sprintf("192.0.2.%d", net4+1), fmt.Sprintf("2001:db8:64:%d::1", net6))
		return h
	}
	first := join("c", 64, 1)
	for _, s := range []site{siteA, siteB} {
		more := "dataplane = ebpf\n"
		if s.name == "a" {
			more += "operating-mode = xTR\n"
		}
		_, err = d.start(t.Context(), s.name, config.Replace(d.nodeConfig(s, ipv4))+more)
		require.NoError(t, err)
	}
	awaitPrefix := func(s site, prefix string) {
		_, err := d.log.await(t.Context(), 0, s.name, "registered", func(e statusd.Event) bool { return strings.Contains(e.Text, prefix) })
		require.NoError(t, err)
	}
	awaitPrefix(router, site4)
	awaitPrefix(siteB, siteB.eid[ipv4])
	second := join("e", 96, 2)

	talk := func(h *netlab.Host, family int, count int) {
		t.Helper()
		in, err := d.hosts["b"].ListenPacket("udp", net.JoinHostPort(siteB.eid[family], "0"))
		require.NoError(t, err)
		defer func() { _ = in.Close() }()
		out, err := h.Dial(t.Context(), "udp", in.LocalAddr().String())
		require.NoError(t, err)
		defer func() { _ = out.Close() }()
		require.NoError(t, in.SetReadDeadline(time.Now().Add(time.Minute)))
		for range count {
			_, err := out.Write([]byte("x"))
			require.NoError(t, err)
			_, from, err := in.ReadFrom(make([]byte, 8))
			require.NoError(t, err)
			assert.Equal(t, out.LocalAddr().String(), from.String())
		}
	}
	status := func() *statusd.KernelTraffic {
		st, err := d.children["a"].ready(t.Context())
		require.NoError(t, err)
		return st.Node.Traffic.Kernel
	}
	for _, h := range []*netlab.Host{first, second} {
		for family := range 2 {
			talk(h, family, 3) // the first one waits for its mapping
		}
	}
	// What goes by lmn0 has to be forwarded to it.
	require.NoError(t, netlab.Eventually(t.Context(), "the later LAN", func() bool {
		return strings.Contains(d.children["a"].logTail(200), `"interfaces":2`)
	}))
	for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		a.Sysctl(s, "0")
	}
	before := status()
	for _, h := range []*netlab.Host{first, second} {
		for family := range 2 {
			talk(h, family, perFlow)
		}
	}
	after := status()
	assert.GreaterOrEqual(t, after.Encapsulated.Packets, before.Encapsulated.Packets+4*perFlow)
	assert.Equal(t, before.Slow["miss"], after.Slow["miss"])
	require.NoError(t, d.children["a"].stop())
	assert.NotContains(t, a.MustRun("tc", "qdisc"), "clsact")
}
