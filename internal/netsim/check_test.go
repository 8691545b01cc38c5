package netsim_test

import (
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
)

// freeze ends the moving and the changing of peers.
func (w *world) freeze() { w.frozen = true }

// relink gives every interface the link of the scenario.
func (w *world) relink() {
	w.msIf.SetLink(w.link)
	for _, x := range w.xtrs {
		x.iface.SetLink(w.link)
	}
}

// checkState asserts that nobody keeps more than what it has to do asks for.
func (w *world) checkState(d time.Duration) {
	ms := w.ms.Stats()
	assert.Equal(w.t, 2*len(w.xtrs), ms.Registrations)
	assert.Equal(w.t, len(w.xtrs), ms.XTRs)
	for r, n := range ms.Dropped {
		// Map-Registers that were overtaken, and Map-Notify-Acks that come twice.
		if r := mapserver.Reason(r); r != mapserver.ReasonReplay && r != mapserver.ReasonUnexpected {
			assert.Zero(w.t, n, "Map-Server: %v", r)
		}
	}
	// The peers of now, and those of the lifetime of a mapping before.
	entries := w.peersOfAll()
	var sum int
	for _, x := range w.xtrs {
		st := x.engine.Stats()
		assert.LessOrEqual(w.t, st.Pending, len(x.peers)+4, x.node.Name())
		assert.LessOrEqual(w.t, st.CacheEntries, 3*len(x.peers)+4, x.node.Name())
		assert.LessOrEqual(w.t, st.Paths, 3*len(x.peers)+4, x.node.Name())
		assert.Zero(w.t, st.EventsLost)
		for _, r := range []control.DropReason{
			control.DropMalformed, control.DropTooBroad, control.DropNotAuthoritative, control.DropAuthentication,
			control.DropUnknownSender, control.DropNoITRRLOC, control.DropEncapsulated, control.DropSecured, control.DropMapReplyRate,
			control.DropMapRequestRate, control.DropPendingFull, control.DropQueueFull, control.DropCacheFull, control.DropTooManyPaths,
		} {
			assert.Zero(w.t, st.Dropped[r], "%s: %v", x.node.Name(), r)
		}
		sum += st.CacheEntries
	}
	assert.LessOrEqual(w.t, sum, 2*entries)
}

func (w *world) peersOfAll() (n int) {
	for _, x := range w.xtrs {
		n += len(x.peers)
	}
	return n
}

// checkRates counts what each node has sent in d.
func (w *world) checkRates(d time.Duration) {
	minutes := uint64(d / time.Minute)
	for _, x := range w.xtrs {
		r := x.rates
		moves := uint64(x.moves)
		// RFC 9301 §8.2: one a minute (we jitter by a tenth), three a minute for
		// five minutes after a change; and some are repeated when one is lost.
		most := minutes*10/9 + (moves+1)*12
		assert.LessOrEqual(w.t, r.sent[aRegister], most+most/10+5, "%s: Map-Registers, %d moves", x.node.Name(), moves)
		assert.GreaterOrEqual(w.t, r.sent[aRegister], minutes, "%s: Map-Registers", x.node.Name())
		// An answer for each question at most.
		assert.LessOrEqual(w.t, r.sent[aReply], r.got[aRequest], x.node.Name())
		assert.LessOrEqual(w.t, r.sent[aProbeReply], r.got[aProbe], x.node.Name())
		assert.LessOrEqual(w.t, r.sent[anAck], r.got[aNotify], x.node.Name())
	}
	ms := w.judge.node(w.msNd)
	assert.LessOrEqual(w.t, ms.sent[aForward]+ms.sent[aReply], ms.got[aRequest])
	// One for each Map-Register, and some to the locators that a move displaces,
	// where nobody acknowledges them: RFC 9301 §5.7 repeats them for a while.
	assert.LessOrEqual(w.t, ms.sent[aNotify], ms.got[aRegister]+10*uint64(w.moves))
}
