package conf

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUplinkOptions(t *testing.T) {
	n, err := node(t, minimal)
	require.NoError(t, err)
	assert.Equal(t, UplinkFull, n.UplinkMode)
	assert.False(t, n.Probing.PreferRTT)
	n, err = node(t, "uplink-mode = Legacy\nrloc-probing { rloc-probe-interval = 5 rloc-probe-prefer-rtt = on }\n"+minimal)
	require.NoError(t, err)
	assert.Equal(t, UplinkLegacy, n.UplinkMode)
	assert.True(t, n.Probing.PreferRTT)
	assert.Empty(t, n.Warnings)
	n, err = node(t, "rloc-probing { rloc-probe-interval = 0 rloc-probe-prefer-rtt = on }\n"+minimal)
	require.NoError(t, err)
	require.Len(t, n.Warnings, 1)
	assert.Contains(t, n.Warnings[0].Text, "round-trip times are measured by RLOC-probing")
	_, err = node(t, "uplink-mode = best\n"+minimal)
	require.ErrorContains(t, err, "f:1: uplink-mode")
}

func TestLANFastPath(t *testing.T) {
	n, err := node(t, minimal)
	require.NoError(t, err)
	assert.True(t, n.LANFastPath)
	n, err = node(t, "lan-fast-path = off\n"+minimal)
	require.NoError(t, err)
	assert.False(t, n.LANFastPath)
}

func TestGraceful(t *testing.T) {
	n, err := node(t, minimal)
	require.NoError(t, err)
	assert.False(t, n.Graceful)
	n, err = node(t, "graceful = on\n"+minimal)
	require.NoError(t, err)
	assert.True(t, n.Graceful)
	assert.Empty(t, n.Warnings)
	rtr := func(more string) *MapServerNode {
		m, err := ParseMapServer(t.Context(), "f", "operating-mode = RTR\n"+more+"rtr-ms-node { address = 198.51.100.1 key = secret }", hermetic())
		require.NoError(t, err)
		return m
	}
	assert.False(t, rtr("").RTR.Graceful)
	assert.True(t, rtr("graceful = on\n").RTR.Graceful)
	assert.Len(t, rtr("graceful = on\ndataplane = user\n").Warnings, 1)
	n, err = node(t, "graceful = on\ndataplane = user\n"+minimal)
	require.NoError(t, err)
	require.Len(t, n.Warnings, 1)
	assert.Contains(t, n.Warnings[0].Text, "packets stop when the program ends")
}
