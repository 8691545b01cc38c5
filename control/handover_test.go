package control_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestHandover: a node moves to another address while it talks to two of three
// peers. These two know in a few round trips, by one SMR each that is not
// repeated; the third is not bothered.
func TestHandover(t *testing.T) {
	const latency = 10 * time.Millisecond
	s := simulate(t, 4, 1, netsim.Link{Latency: latency})
	s.want(30*time.Second, time.Second)
	require.Equal(t, 12, s.known())
	mover := s.xtrs[0]
	at := func(i int) netip.Addr { return s.xtrs[i].Cache().View().Forward(0, simEID(0), 0).Locator.Addr }
	s.net.Run(2 * time.Minute) // nobody has sent anything for a while

	smrs := 0
	next := netip.MustParseAddr("203.0.113.99")
	s.nodes[0].Step(func(now time.Time) {
		for _, peer := range []int{1, 2} {
			mover.AddUsage(now, mapcache.Usage{Locator: mapcache.Locator{Addr: simRLOC(peer)}, PacketsOut: 1})
		}
	})
	s.interfaces[0].SetAddrs(next)
	moved := s.net.Now()
	s.nodes[0].Step(func(now time.Time) {
		mover.SetLocals(now, []mapcache.Local{{Addr: next, Priority: 1, Weight: 100, Up: true}})
	})
	for at(1) != next || at(2) != next {
		s.net.Run(latency)
		for i, e := range s.xtrs {
			s.nodes[i].Step(func(time.Time) { e.Publish() })
		}
		require.Less(t, s.net.Now().Sub(moved), time.Second)
	}
	// Map-Register and Map-Notify, SMR, Map-Request by way of the Map-Server,
	// Map-Reply: seven ways of two links each.
	assert.LessOrEqual(t, s.net.Now().Sub(moved), 7*2*latency+5*latency)
	assert.Equal(t, simRLOC(3), s.xtrs[3].Locals()[0].Addr)
	assert.Equal(t, simRLOC(0), at(3), "not told")
	s.net.Run(time.Minute)
	for ev, ok := mover.NextEvent(); ok; ev, ok = mover.NextEvent() {
		if _, is := ev.(control.SMRSent); is {
			smrs++
		}
	}
	assert.Equal(t, 2, smrs, "each has asked")
	assert.Equal(t, uint64(2), mover.Stats().SMRsSent)
	assert.NotZero(t, s.sent[lisp.TypeMapReply])
}
