package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/examples/internal/daemon"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

func requireNATLab(t *testing.T) {
	t.Helper()
	netlab.Require(t, netlab.Veth, netlab.IPv6, netlab.PolicyRouting, netlab.TUN, netlab.PacketSockets, netlab.NAT, netlab.ConntrackFlush)
}

// TestNAT runs the demo of NATs as the command does: real NATs, two RTRs, and
// connections that go on while a NAT forgets, an RTR dies and a node moves.
func TestNAT(t *testing.T) {
	t.Parallel()
	requireNATLab(t)
	var out, errs bytes.Buffer
	code := runDemo(t.Context(), demoOptions{json: true, nat: true}, &out, &errs)
	var rep report
	require.NoError(t, json.Unmarshal(out.Bytes(), &rep), out.String())
	for _, s := range rep.Steps {
		t.Logf("%5.1f s  %v  %s: %v %s %v", s.Seconds, s.OK, s.Name, s.Seen, s.Error, s.LookAt)
	}
	require.Equal(t, daemon.ExitOK, code, errs.String())
	assert.True(t, rep.OK)
	assert.Len(t, rep.Steps, len(natSteps))
	assert.Len(t, rep.Pings, 6)
	assert.Len(t, rep.Transfers, 1)
}

// TestNATDiagnosis: a node behind a NAT that cannot work says why, in its status
// and in one line of its log.
func TestNATDiagnosis(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		servers func(t *testing.T, d *demoLab)
		config  func(d *demoLab) string
		want    string
	}{
		{
			"wrong key", func(t *testing.T, d *demoLab) { do(t, d, startNATServers) },
			func(d *demoLab) string {
				s := natA
				s.key = "a guess"
				return d.natConfig(s)
			},
			"Info-Request unanswered: Map-Server unreachable or not NAT-capable, or it refuses our key or EID-Prefix (check both, and its log)",
		},
		{
			"no RTR is known", func(t *testing.T, d *demoLab) {
				config, _, _ := strings.Cut(d.natServerConfig(), "ms-rtr-node")
				c, err := d.start(t.Context(), natMS.name, config, argMapServer)
				require.NoError(t, err)
				_, err = c.ready(t.Context())
				require.NoError(t, err)
			},
			func(d *demoLab) string { return d.natConfig(natA) },
			"no RTR yet: the Map-Server names no RTR",
		},
		{
			"the RTRs are dead", func(t *testing.T, d *demoLab) {
				do(t, d, startNATServers)
				for _, s := range natRTRs {
					d.children[s.name].kill()
				}
			},
			func(d *demoLab) string { return d.natConfig(natA) },
			"no RTR yet: no Data-Map-Notify from 2 RTRs: RTR or Map-Server unreachable, or the Map-Server refuses the registration",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requireNATLab(t)
			d := testLab(t, demoOptions{nat: true})
			tt.servers(t, d)
			c, err := d.start(t.Context(), natA.name, tt.config(d))
			require.NoError(t, err)
			var text string
			require.Eventually(t, func() bool {
				st, err := c.ready(t.Context())
				require.NoError(t, err)
				for _, b := range st.Node.NAT {
					text = b.Text
				}
				return strings.Contains(text, tt.want)
			}, time.Minute, 100*time.Millisecond, "%s", &text)
			assert.NotContains(t, text, "registered")
			log, err := os.ReadFile(c.file(".log"))
			require.NoError(t, err)
			lines := 0
			for line := range strings.Lines(string(log)) {
				if strings.Contains(line, tt.want) && strings.Contains(line, `"level":"WARN"`) {
					lines++
				}
			}
			assert.Equal(t, 1, lines, "%s", log)
		})
	}
}
