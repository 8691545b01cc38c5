package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap/ebpf"
)

// allInOneConfig is that of a Map-Server that is the RTR of its nodes, too: sites, and
// a mode.
func (d *demoLab) allInOneConfig() string {
	config, _, _ := strings.Cut(d.natServerConfig(), "ms-rtr-node")
	return strings.Replace(config, "operating-mode = MS", "operating-mode = RTR", 1)
}

// TestMapServerIsRTR: one process serves the sites and relays for those behind NATs; by
// the kernel, and by user space.
func TestMapServerIsRTR(t *testing.T) {
	for _, dataplane := range []string{"auto", "user"} {
		t.Run(dataplane, func(t *testing.T) {
			requireNATLab(t)
			d := testLab(t, demoOptions{nat: true})
			ms, err := d.start(t.Context(), natMS.name, d.allInOneConfig()+"dataplane = "+dataplane+"\n", argMapServer)
			require.NoError(t, err)
			_, err = ms.ready(t.Context())
			require.NoError(t, err)
			seen, err := registerNATed(t.Context(), d)
			require.NoError(t, err)
			t.Log(seen)
			assert.Contains(t, strings.Join(seen, "\n"), "RTR 198.18.3.2")
			for _, pair := range [][2]site{{natA, natB}, {natA, natC}, {natC, natB}} {
				for family := range pair[1].eid {
					r, err := d.ping(t.Context(), pair[0].name, pair[1].name, pair[1].eidAddr(family), familyName(ipv4))
					require.NoError(t, err)
					assert.Equal(t, r.Sent, r.Received, "%v", r.Errors)
					assert.Zero(t, r.Duplicates)
				}
			}
			_, err = natTransfer(natC, natA)(t.Context(), d)
			require.NoError(t, err)
			_, err = natTransfer(natB, natA)(t.Context(), d)
			require.NoError(t, err)
			st, err := ms.ready(t.Context())
			require.NoError(t, err)
			require.NotNil(t, st.MapServer)
			require.NotNil(t, st.RTR)
			assert.Len(t, st.RTR.Relays, 4, "two EIDs of each of two nodes")
			assert.Len(t, st.MapServer.Registrations, 6)
			traffic := st.RTR.Traffic
			assert.NotZero(t, traffic.Encapsulated.Packets)
			if dataplane == "user" || ebpf.Probe() != nil {
				assert.Nil(t, traffic.Kernel)
				return
			}
			require.NotNil(t, traffic.Kernel)
			t.Log(traffic.Encapsulated, *traffic.Kernel)
			assert.Greater(t, traffic.Kernel.Encapsulated.Packets, traffic.Encapsulated.Packets*9/10, "nearly all is the kernel's")
		})
	}
}
