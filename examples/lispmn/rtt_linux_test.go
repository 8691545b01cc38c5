package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// rttFlows is how many flows there are in each direction.
const rttFlows = 16

// pacedFlow is a flow by its direction and the port of its sender.
type pacedFlow struct {
	from string
	port uint16
}

// flowSet is flows both ways between a and b, each of which sends when asked.
type flowSet struct {
	t     *testing.T
	d     *demoLab
	conns []net.Conn
}

func newFlowSet(t *testing.T, d *demoLab) *flowSet {
	t.Helper()
	f := &flowSet{t: t, d: d}
	sites := [2]site{multiA, multiB}
	for i, from := range sites {
		to := sites[1-i]
		in, err := d.hosts[to.name].ListenPacket("udp4", net.JoinHostPort(to.eid[ipv4], "9"))
		require.NoError(t, err)
		t.Cleanup(func() { _ = in.Close() })
		for range rttFlows {
			c, err := d.hosts[from.name].Dial(t.Context(), "udp4", in.LocalAddr().String())
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.Close() })
			f.conns = append(f.conns, c)
		}
	}
	return f
}

// send makes each flow send a datagram.
func (f *flowSet) send() {
	f.t.Helper()
	for _, c := range f.conns {
		_, err := c.Write([]byte("x"))
		require.NoError(f.t, err)
	}
}

// uplinks records, while do runs, which uplinks of a each flow has taken, in order.
func (f *flowSet) uplinks(do func()) map[pacedFlow][]string {
	f.t.Helper()
	capture := captureUplinks(f.t, f.d.hosts["a"])
	do()
	took := map[pacedFlow][]string{}
	capture.each(f.t, func(uplink string, outer, inner gopacket.Packet) {
		udp, ok := inner.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || udp.DstPort != 9 {
			return
		}
		k := pacedFlow{"a", uint16(udp.SrcPort)}
		if inner.NetworkLayer().NetworkFlow().Src().String() == multiB.eid[ipv4] {
			k.from = "b"
		}
		if l := took[k]; len(l) == 0 || l[len(l)-1] != uplink {
			took[k] = append(took[k], uplink)
		}
	})
	return took
}

// TestPreferRTT: with two uplinks that are alike no flow goes to and fro. When one is
// 30 ms slower all flows, both ways, take the other; and they come back when that
// is the slower one.
func TestPreferRTT(t *testing.T) {
	const (
		alike  = 12800 * time.Microsecond // each way; where two classes meet
		slower = alike + 15*time.Millisecond
		// What has become slower is not believed to be faster for half a minute: the
		// other one has to be slower still.
		slowest = slower + 30*time.Millisecond
	)
	d := relayedLab(t, multiA.name)
	delay := func(eth0, eth1 time.Duration) {
		d.links["a/eth0"].SetDelay(eth0)
		d.links["a/eth1"].SetDelay(eth1)
		require.NoError(t, d.lab.Err())
	}
	delay(alike, alike)
	startNodes(t, d, func(s site) string {
		probing := "rloc-probe-prefer-rtt = on\n rloc-probe-fast-interval = 100"
		return strings.Replace(d.patternConfig(s, ""), "rloc-probe-fast-interval = 200", probing, 1)
	}, multiA, multiB)
	flows := newFlowSet(t, d)

	// probed sends until each path has answered so many probes more.
	probed := func(more uint64) {
		t.Helper()
		var until map[string]uint64
		require.NoError(t, netlab.Eventually(t.Context(), "answers to probes", func() bool {
			flows.send()
			now, done := map[string]uint64{}, true
			for _, host := range []string{"a", "b"} {
				st, err := d.children[host].ready(t.Context())
				require.NoError(t, err)
				for _, p := range st.Node.Paths {
					k := p.Local.String() + " " + p.Remote.String()
					now[k] = p.Answered + more
					done = done && p.Answered >= until[k] && until[k] > 0
				}
			}
			if until == nil && len(now) == 8 {
				until = now
			}
			return until != nil && done
		}))
	}
	probed(20) // what was measured at the start is forgotten
	for flow, took := range flows.uplinks(func() { probed(25) }) {
		assert.LessOrEqual(t, len(took), 3, "%v: %v", flow, took) // each uplink may have changed its class once
	}

	only := func(uplink string) {
		t.Helper()
		began := time.Now()
		var took map[pacedFlow][]string
		// A path that a busy machine made slow for a moment is not believed before half
		// a minute either.
		err := netlab.Eventually(t.Context(), "all flows to take "+uplink, func() bool {
			took = flows.uplinks(func() { probed(1) })
			for _, l := range took {
				if len(l) != 1 || l[0] != uplink {
					return false
				}
			}
			return len(took) == 2*rttFlows
		})
		require.NoError(t, err, "%v", took)
		t.Logf("all by %s after %v", uplink, time.Since(began).Round(time.Millisecond))
	}
	delay(slower, alike)
	only("eth1")
	delay(alike, slowest)
	only("eth0")
	do(t, d, stopMultihomed)
}
