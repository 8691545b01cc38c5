package main

import (
	"bytes"
	"encoding/json"
	"testing"

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
