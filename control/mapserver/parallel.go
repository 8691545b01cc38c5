package mapserver

import (
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// changes is what a Worker leaves to the writer: one batch of Updates and
// events. Those that were applied come back to be filled again.
type changes struct {
	w       *Worker
	updates []*Update
	events  []Event
	apply   func(now time.Time)
}

// maxChanges is how many batches a Worker keeps for use again.
const maxChanges = 32

func (w *Worker) newChanges() *changes {
	c := &changes{w: w}
	c.apply = func(now time.Time) {
		s := c.w.s
		for _, e := range c.events {
			s.addEvent(e)
		}
		s.Apply(now, c.updates...)
		clear(c.updates)
		clear(c.events)
		c.updates, c.events = c.updates[:0], c.events[:0]
		select {
		case c.w.free <- c:
		default:
		}
	}
	return c
}

// Step is Handle for datagrams that come in batches: what there is to send, and
// what is for Server.Apply, is collected for Flush. It reports whether the
// datagram was for a Map-Server or Map-Resolver.
func (w *Worker) Step(now time.Time, d lisp.Datagram) bool {
	if w.flushed {
		w.flushed = false
		w.reset()
	}
	w.result.Claimed = false
	w.handle(now, d)
	if len(w.result.Events) == 0 && w.result.Update == nil {
		return w.result.Claimed
	}
	if w.changes == nil {
		select {
		case w.changes = <-w.free:
		default:
			w.changes = w.newChanges()
		}
	}
	if w.result.Update != nil {
		w.changes.updates = append(w.changes.updates, w.result.Update)
		w.result.Update = nil
	}
	w.changes.events = append(w.changes.events, w.result.Events...)
	clear(w.result.Events)
	w.result.Events = w.result.Events[:0]
	return w.result.Claimed
}

// Flush returns the datagrams to send since the last Flush, valid until the
// next Step, and a function that brings the changes into the Server. The
// goroutine that owns the Server runs it, once; it is nil when there are none.
func (w *Worker) Flush() (out []lisp.Datagram, apply func(now time.Time)) {
	w.flushed = true
	if c := w.changes; c != nil {
		w.changes = nil
		apply = c.apply
	}
	return w.result.Out, apply
}
