package control

import (
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// A node behind a NAT for which there is no RTR can't be reached by the locator that
// it has there, but it can speak to its Map-Server. What the Map-Server still has is
// false then: the locator itself, from when it looked public, or an RTR that serves us
// no more. It is taken back at once instead of being left to its three minutes, and
// locators of the other address family, if there are any, are registered that way.

// stranded is the locator behind a NAT that r is told from, straight to the
// Map-Server, if there is no other way and there is something to tell.
func (e *Engine) stranded(r *registration) (mapcache.Local, bool) {
	if e.nat == nil {
		return mapcache.Local{}, false
	}
	four := r.server.Addr.Addr().Is4()
	if slices.ContainsFunc(e.nat.bound(), func(b natAnnounced) bool { return b.Addr.Is4() == four }) {
		return mapcache.Local{}, false
	}
	i := slices.IndexFunc(e.nat.xtrs, func(x *natLocal) bool {
		return x.Up && x.Addr.Is4() == four && x.xtr.Binding().State == natt.NoRTR
	})
	told := r.gone != nil || !r.held.IsZero() && e.now.Sub(r.held) < registrationLife
	if i < 0 || !told && !e.reachable(r) {
		return mapcache.Local{}, false
	}
	return e.nat.xtrs[i].Local, true
}

// strand is stranded for a Map-Register that is about to be made: without a locator
// that we can be reached by it is a withdrawal.
func (e *Engine) strand(now time.Time, r *registration) (mapcache.Local, bool) {
	l, ok := e.stranded(r)
	if ok && r.state != StateWithdrawing && r.gone == nil && !e.reachable(r) {
		r.state = StateWithdrawing
		r.fail(now, e.nat.why())
	}
	return l, ok
}

// tellStranded begins with those that waited for an RTR.
func (e *Engine) tellStranded(now time.Time) {
	for _, r := range e.registrations {
		if r.state != StateIdle || r.message != nil {
			continue
		}
		if _, ok := e.localFor(r.server.Addr.Addr()); ok {
			continue
		}
		if _, ok := e.stranded(r); ok {
			e.register(now, r)
		}
	}
}

// reachable reports whether r announces a locator.
func (e *Engine) reachable(r *registration) bool {
	return slices.ContainsFunc(r.keys, func(k mapcache.Key) bool {
		pos, ok := e.dbPos[k]
		return ok && slices.ContainsFunc(e.db[pos].record.Locators, func(l lisp.RLOCRecord) bool { return l.Reachable })
	})
}

// landed ends what stranded began: an RTR is to be told.
func (e *Engine) landed(r *registration) {
	if e.withdrawing || r.gone != nil || r.state != StateWithdrawing && r.state != StateWithdrawn {
		return
	}
	e.timers.stop(&r.timer)
	r.message, r.state, r.tries = nil, StateIdle, 0
}
