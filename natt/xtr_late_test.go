package natt

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netsim"
)

// TestXTRLateRTR: what an RTR that was not chosen relays late is not what the
// Map-Server is left with, though it takes Map-Registers as they come.
func TestXTRLateRTR(t *testing.T) {
	w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{Kind: netsim.Symmetric, Timeout: time.Minute}, nil))
	w.ms.anyOrder = true
	w.rtrAt[0].SetLink(netsim.Link{Latency: 400 * time.Millisecond})
	w.net.Run(300 * time.Millisecond)
	require.Equal(t, worldRTR(1), w.xtr.Binding().RTR, w.text())
	w.net.Run(3 * time.Second)
	assert.Positive(t, w.ms.paths[worldRTR(0)], "the other one has relayed, too")
	assert.Equal(t, worldRTR(1).String(), firstLocator(w.ms.last.Records[0]))
	assert.True(t, w.reachable(1))
	assert.Zero(t, w.xtr.Stats().Failovers)
	rounds := w.ms.paths[worldRTR(1)]
	w.net.Run(20 * time.Second)
	assert.LessOrEqual(t, w.ms.paths[worldRTR(1)], rounds+1, "and then it is quiet")
}

// TestXTRLooksWhenSilent: an RTR that doesn't answer may mean that we are elsewhere, so
// the Map-Server is asked while the RTR is tried, long before it would be.
func TestXTRLooksWhenSilent(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{KeepAlive: 2 * time.Minute}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	require.Equal(t, Registered, w.xtr.Binding().State)
	w.rtrAt[0].SetDown(true)
	asked := w.xtr.Stats().InfoRequestsSent
	w.xtr.Renew(w.node.Now())
	w.node.Step(w.xtr.Advance)
	w.net.Run(15 * time.Second)
	assert.Equal(t, Silent, w.xtr.Binding().State)
	assert.Equal(t, asked+1, w.xtr.Stats().InfoRequestsSent)
}
