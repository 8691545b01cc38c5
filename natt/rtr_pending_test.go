package natt

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestRTRManyPending: Map-Registers of many nodes are under way at the same time.
// Each is confirmed by its own Map-Notify, in whatever order they come, and none is
// given up before its time because another one is done.
func TestRTRManyPending(t *testing.T) {
	const nodes = 100
	for _, step := range []int{1, nodes - 1, 37} {
		b := newRTRBench(t)
		var all []node
		for i := range nodes {
			n := nodeA()
			n.xtr[0] = byte(i)
			n.eid = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 4, byte(i)}), 32).String()
			n.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 4341)
			all = append(all, n)
			b.advance(10 * time.Millisecond)
			require.Len(t, b.send(n.from, n.registerPacket(t, lisp.Nonce(i))), 1)
		}
		for k := range nodes - 1 {
			i := k * step % nodes
			b.advance(10 * time.Millisecond)
			require.Len(t, b.send(msPort, b.notifyPacket(all[i], lisp.Nonce(i))), 1, "node %d", i)
			require.Equal(t, nodes-1-k, b.r.Stats().Pending)
		}
		assert.Len(t, b.r.Relays(), nodes-1)
		assert.Zero(t, b.r.Stats().Dropped)
		deadline := b.r.Deadline()
		assert.False(t, deadline.IsZero())
		b.advance(pendingTime)
		assert.Equal(t, RTRUnanswered, b.lastReason(), "the one that nobody answered")
		assert.Zero(t, b.r.Stats().Pending)
		assert.Empty(t, b.r.attempts)
	}
}
