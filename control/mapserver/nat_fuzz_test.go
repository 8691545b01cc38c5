package mapserver

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// natSeeds are sessions of nodes behind a NAT for FuzzMapServer: what is signed
// and comes from an RTR comes relayed.
func natSeeds(f *testing.F) [][]byte {
	node := register(f, key1, natRecord("10.1.0.0/16", rtr1.Addr()), withXTR(xtr1))
	again := register(f, key1, natRecord("10.1.0.0/16", rtr1.Addr()), withXTR(xtr1))
	old := register(f, key1, natRecord("10.1.0.0/16", rtr2.Addr()), withXTR(xtr1), func(m *lisp.MapRegister) { m.RTR = true })
	other := register(f, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2))
	session := slices.Concat(
		fuzzOp(opRaw, infoRequest(f, key1, "10.1.0.0/16")), fuzzOp(opFrom, []byte{5}), fuzzOp(opSigned, node), fuzzOp(opSigned, again),
		fuzzOp(opRaw, relayed(f, inside, again)), fuzzOp(opFrom, []byte{1}), fuzzOp(opSigned, other), []byte{opAdvance, 0, 40},
		fuzzOp(opAck, []byte{0}), fuzzOp(opFrom, []byte{6}), fuzzOp(opSigned, old), []byte{opAdvance, 0, 40}, fuzzOp(opAck, []byte{0}),
		fuzzOp(opRaw, request(f, itr, "10.1.2.3")),
	)
	return [][]byte{session, slices.Concat(session, session)}
}

// checkRelayed: a Map-Notify for a node, marked and authenticated for its RTR.
func checkRelayed(t testing.TB, d lisp.Datagram) {
	t.Helper()
	e, _, _ := relayedNotify(t, d)
	require.True(t, e.RTR)
	require.False(t, e.Relayed)
	if d.Remote == rtr1 {
		require.NoError(t, e.VerifyRTR(rtrKey1))
	}
	in, err := e.Inner()
	require.NoError(t, err)
	if lisp.Verify(in.Payload, key1) != nil {
		require.NoError(t, lisp.Verify(in.Payload, key1b))
	}
}
