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

// TestPxTR runs the demo of proxies: a host without LISP and an EID talk, out by
// the PETR and in by the PITR, also over a handover.
func TestPxTR(t *testing.T) {
	t.Parallel()
	netlab.Require(t, netlab.Veth, netlab.IPv6, netlab.PolicyRouting, netlab.TUN, netlab.PacketSockets)
	var out, errs bytes.Buffer
	code := runDemo(t.Context(), demoOptions{json: true, pxtr: true}, &out, &errs)
	var rep report
	require.NoError(t, json.Unmarshal(out.Bytes(), &rep), out.String())
	for _, s := range rep.Steps {
		t.Logf("%5.1f s  %v  %s: %v %s %v", s.Seconds, s.OK, s.Name, s.Seen, s.Error, s.LookAt)
	}
	require.Equal(t, daemon.ExitOK, code, errs.String())
	assert.Len(t, rep.Steps, len(pxtrSteps))
	assert.Len(t, rep.Pings, 4)
}
