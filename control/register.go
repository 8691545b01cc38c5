package control

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// registrationTimer runs when a registration waited long enough: for its next
// period, or for a Map-Notify that did not come.
func (e *Engine) registrationTimer(now time.Time, r *registration) {
	if r.message == nil {
		e.register(now, r)
		return
	}
	if r.gone != nil && !now.Before(r.giveUp) {
		e.forget(r)
		return
	}
	// RFC 9301 §5.7: the original message again. A Map-Server that checks
	// nonces strictly may have taken it and will not take it twice, so after
	// some times it is a new message.
	if r.sends < registerSends {
		e.transmit(now, r)
	} else {
		if r.state != StateWithdrawing {
			r.state = StateUnanswered
		}
		def(&r.vain, r.local.Addr)
		r.announced = false
		e.register(now, r)
	}
	if r.message == nil {
		return // nothing to send it from any more
	}
	r.fail(now, "no Map-Notify")
	e.emit(RegisterUnanswered{Stamp{now}, r.server.Addr, slices.Clone(r.keys), r.nonce, r.tries - 1, r.at.Sub(now)})
}

func (r *registration) fail(now time.Time, why string) { r.lastError, r.errorAt = why, now }

// register sends a new Map-Register with a new nonce.
func (e *Engine) register(now time.Time, r *registration) {
	local, ok := e.localInTurn(r.server.Addr.Addr(), r.tries/registerSends)
	if !ok {
		local, ok = e.strand(now, r)
	}
	if !ok && e.registersByRTR(now, r) {
		return
	}
	if !ok {
		// SetLocals starts it again.
		r.message, r.state = nil, StateIdle
		r.fail(now, "no own locator of that address family is up")
		e.drop(now, DropNoLocal, r.server.Addr, nil)
		return
	}
	r.nonce = e.nextRegisterNonce(now)
	m := lisp.MapRegister{
		ProxyReply:   r.server.ProxyReply,
		UseTTL:       r.server.UseTTL,
		Merge:        r.server.Merge,
		XTRIDPresent: e.cfg.XTRID != (lisp.XTRID{}) || e.cfg.SiteID != 0,
		// RFC 9303 §6.3.
		SecurityCapable: !e.cfg.LISPSEC.NoETR,
		WantMapNotify:   true,
		Nonce:           r.nonce,
		XTRID:           e.cfg.XTRID,
		SiteID:          e.cfg.SiteID,
		Records:         e.registerRecords(r),
	}
	b, err := m.AppendSigned(nil, r.server.Key)
	if err != nil {
		r.message, r.state = nil, StateIdle
		r.fail(now, err.Error())
		e.log.Error("map-register not encoded", "map_server", r.server.Addr, "err", err)
		return
	}
	r.message, r.sends, r.first, r.local = b, 0, now, local
	if r.state == StateIdle {
		r.state = StateWaiting
	}
	e.transmit(now, r)
}

// registerFrom registers again where our locator a was used, to see whether the
// Map-Server answers it.
func (e *Engine) registerFrom(now time.Time, a netip.Addr) {
	for _, r := range e.registrations {
		if r.message == nil && r.state == StateRegistered && r.local.Addr == a {
			e.timers.set(&r.timer, later(now.Add(time.Millisecond), r.lastSent.Add(smrInterval)))
		}
	}
}

// registerRecords are what a Map-Register of r says. The Map-Server knows of them
// then.
func (e *Engine) registerRecords(r *registration) []lisp.EIDRecord {
	if r.gone != nil {
		return r.gone
	}
	records := make([]lisp.EIDRecord, len(r.keys))
	for i, k := range r.keys {
		records[i] = e.db[e.dbPos[k]].record
		if r.state == StateWithdrawing {
			records[i].TTL = 0
		} else {
			r.server.knows[k] = true
		}
	}
	return records
}

// transmit sends the message of r, again, and waits for the Map-Notify.
func (e *Engine) transmit(now time.Time, r *registration) {
	if e.send(r.local, r.server.Addr, func(b []byte) ([]byte, error) { return append(b, r.message...), nil }) {
		e.stats.MapRegistersSent++
	}
	if r.state != StateWithdrawing {
		r.held = now
	}
	r.sends++
	r.tries++
	r.lastSent = now
	wait := registerMaxWait
	if n := r.tries - 1; n < 6 {
		wait = registerTimeout << n
		wait += e.jitter(wait / 10)
	} else {
		wait -= e.jitter(wait / 10) // a minute is the most
	}
	e.timers.set(&r.timer, now.Add(wait))
}

// registered takes a verified Map-Notify for the message of r.
func (e *Engine) registered(now time.Time, r *registration, missing []mapcache.Key) {
	r.message, r.tries, r.sends = nil, 0, 0
	e.heard(now, r.local.Addr, r.vain)
	r.vain = netip.Addr{}
	r.lastAck, r.rtt = now, now.Sub(r.first)
	if r.state == StateWithdrawing {
		r.state, r.held = StateWithdrawn, time.Time{}
		e.timers.stop(&r.timer)
		e.emit(Withdrawn{Stamp{now}, r.server.Addr, slices.Clone(r.keys)})
		if r.gone != nil {
			e.forget(r)
		}
		e.acknowledged(now)
		return
	}
	r.state = StateRegistered
	e.acknowledged(now)
	// RFC 9301 §8.2: every 20 seconds for five minutes, then every minute.
	wait := e.cfg.RegisterInterval - e.jitter(e.cfg.RegisterInterval/10)
	if now.Before(e.quickUntil) {
		wait = min(wait, e.cfg.QuickInterval+e.jitter(e.cfg.QuickInterval/10))
	}
	e.timers.set(&r.timer, r.lastSent.Add(max(wait, time.Second)))
	if len(missing) > 0 {
		why := fmt.Sprintf("the Map-Notify leaves out %s", keyList(missing))
		r.fail(now, why)
		e.emit(RegisterFailed{Stamp{now}, r.server.Addr, missing, why})
		r.announced = false
		return
	}
	r.lastError, r.errorAt = "", time.Time{}
	if !r.announced {
		e.emit(Registered{Stamp{now}, r.server.Addr, slices.Clone(r.keys), e.rlocs(r), r.rtt, r.server.acked})
		r.announced, r.server.acked = true, true
	}
}

// forget ends a withdrawal.
func (e *Engine) forget(r *registration) {
	e.timers.stop(&r.timer)
	for _, k := range r.keys {
		delete(r.server.knows, k)
	}
	e.registrations = slices.DeleteFunc(e.registrations, func(o *registration) bool { return o == r })
}

// Withdraw tells all Map-Servers, by a Map-Register with TTL 0, that our
// EID-Prefixes are no longer here. It is the end of registration: it is not
// taken up again.
func (e *Engine) Withdraw(now time.Time) {
	now = e.tick(now)
	defer e.collect(now)
	if e.withdrawing {
		return
	}
	e.withdrawing = true
	for _, r := range e.registrations {
		if r.gone != nil {
			continue // it is that already
		}
		e.timers.stop(&r.timer)
		if r.lastSent.IsZero() {
			continue // it knows nothing of us
		}
		r.state, r.tries = StateWithdrawing, 0
		e.register(now, r)
	}
	e.withdrawNAT(now)
}

// WithdrawDone reports whether every Map-Server that knows of us has
// acknowledged Withdraw.
func (e *Engine) WithdrawDone() bool {
	for _, r := range e.registrations {
		if r.state == StateWithdrawing {
			return false
		}
	}
	return e.withdrawing && e.nat.withdrawDone()
}
