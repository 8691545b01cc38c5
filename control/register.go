package control

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// RegistrationState is where a registration stands.
type RegistrationState uint8

// States of a registration.
const (
	StateIdle        RegistrationState = iota // nothing sent, for want of a locator to send from
	StateWaiting                              // sent, not yet acknowledged
	StateRegistered                           // acknowledged by a verified Map-Notify
	StateUnanswered                           // a Map-Register and its retransmissions went unanswered
	StateWithdrawing                          // sent with TTL 0, not yet acknowledged
	StateWithdrawn                            // that was acknowledged
)

var stateNames = [...]string{"idle", "waiting", "registered", "unanswered", "withdrawing", "withdrawn"}

func (s RegistrationState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("RegistrationState(%d)", uint8(s))
}

// Registration is a snapshot of one registration: one Map-Register's worth of
// EID-Prefixes at one Map-Server.
type Registration struct {
	MapServer netip.AddrPort
	Split     int // counts the Map-Registers to this Map-Server from 0
	EIDs      []mapcache.Key
	State     RegistrationState
	Nonce     lisp.Nonce    // of the last Map-Register
	Tries     int           // transmissions since the last acknowledgement
	LastSent  time.Time     // zero: never
	LastAck   time.Time     // zero: never
	RTT       time.Duration // of the last acknowledgement
	Next      time.Time     // when something happens next
	LastError string        // why the last round was no success; empty: it was
	ErrorAt   time.Time
}

// mapServer is a Map-Server and what its registrations share.
type mapServer struct {
	*MapServer
	acked bool // it has acknowledged a registration of this run
}

// registration is one Map-Register's worth of records at one Map-Server. There
// is at most one unacknowledged Map-Register of each.
type registration struct {
	timer
	server   *mapServer
	split    int
	from, to int // in Engine.db

	state     RegistrationState
	nonce     lisp.Nonce
	message   []byte // the encoded Map-Register while it is not acknowledged
	local     mapcache.Local
	sends     int // of message
	tries     int // since the last acknowledgement
	first     time.Time
	lastSent  time.Time
	lastAck   time.Time
	rtt       time.Duration
	announced bool // Registered was emitted and still holds
	lastError string
	errorAt   time.Time
}

// Registrations returns the state of all registrations, by Map-Server in the
// order of the configuration.
func (e *Engine) Registrations() []Registration {
	rs := make([]Registration, len(e.registrations))
	for i, r := range e.registrations {
		rs[i] = Registration{
			MapServer: r.server.Addr, Split: r.split, EIDs: e.keys(r), State: r.state, Nonce: r.nonce,
			Tries: r.tries, LastSent: r.lastSent, LastAck: r.lastAck, RTT: r.rtt,
			LastError: r.lastError, ErrorAt: r.errorAt,
		}
		if r.index != 0 {
			rs[i].Next = r.at
		}
	}
	return rs
}

// RegisterNonce is the nonce of the last Map-Register, for
// Config.RegisterNonce of the next run.
func (e *Engine) RegisterNonce() lisp.Nonce {
	return max(e.registerNonce, e.cfg.RegisterNonce)
}

func (e *Engine) keys(r *registration) []mapcache.Key {
	ks := make([]mapcache.Key, 0, r.to-r.from)
	for i := r.from; i < r.to; i++ {
		ks = append(ks, e.db[i].Key)
	}
	return ks
}

func (e *Engine) rlocs(r *registration) []netip.Addr {
	var as []netip.Addr
	if r.from < r.to {
		for _, l := range e.db[r.from].record.Locators {
			if ip, ok := l.RLOC.IP(); ok && l.Reachable {
				as = append(as, ip)
			}
		}
	}
	return as
}

// splitPace spreads the first round of many Map-Registers.
const splitPace = 10 * time.Millisecond

// restartRegistration registers everything anew, since our mappings changed.
// What was under way is forgotten: its content is out of date.
func (e *Engine) restartRegistration(now time.Time) {
	if e.withdrawing {
		return
	}
	before := e.registrations
	for _, r := range before {
		e.timers.stop(&r.timer)
	}
	e.registrations = nil
	e.quickUntil = now.Add(e.cfg.QuickTime)
	for _, s := range e.servers {
		room := e.payloadLimit(s.Addr.Addr()) - registerOverhead(s.Key)
		split := 0
		for from := 0; from < len(e.db); split++ {
			n := splitRecords(len(e.db)-from, room, func(i int) int { return recordLen(&e.db[from+i].record) })
			r := &registration{server: s, split: split, from: from, to: from + n}
			for _, b := range before {
				if b.server == s && b.split == split {
					r.lastSent, r.lastAck, r.rtt = b.lastSent, b.lastAck, b.rtt
				}
			}
			r.fire = func(now time.Time) { e.registrationTimer(now, r) }
			e.registrations = append(e.registrations, r)
			if split == 0 {
				e.register(now, r)
			} else {
				e.timers.set(&r.timer, now.Add(time.Duration(split)*splitPace))
			}
			from += n
		}
	}
}

// registerOverhead is what a Map-Register takes besides its records.
func registerOverhead(k lisp.Key) int { return 16 + k.DigestLen() + 24 }

// registrationTimer runs when a registration waited long enough: for its next
// period, or for a Map-Notify that did not come.
func (e *Engine) registrationTimer(now time.Time, r *registration) {
	if r.message == nil {
		e.register(now, r)
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
		r.announced = false
		e.register(now, r)
	}
	if r.message == nil {
		return // nothing to send it from any more
	}
	r.fail(now, "no Map-Notify")
	e.emit(RegisterUnanswered{Stamp{now}, r.server.Addr, e.keys(r), r.nonce, r.tries - 1, r.at.Sub(now)})
}

func (r *registration) fail(now time.Time, why string) { r.lastError, r.errorAt = why, now }

// register sends a new Map-Register with a new nonce.
func (e *Engine) register(now time.Time, r *registration) {
	local, ok := e.localFor(r.server.Addr.Addr())
	if !ok {
		// SetLocals starts it again.
		r.message, r.state = nil, StateIdle
		r.fail(now, "no own locator of that address family is up")
		e.drop(now, DropNoLocal, r.server.Addr, nil)
		return
	}
	r.nonce = e.nextRegisterNonce(now)
	m := lisp.MapRegister{
		ProxyReply:    r.server.ProxyReply,
		XTRIDPresent:  e.cfg.XTRID != (lisp.XTRID{}) || e.cfg.SiteID != 0,
		WantMapNotify: true,
		Nonce:         r.nonce,
		XTRID:         e.cfg.XTRID,
		SiteID:        e.cfg.SiteID,
		Records:       make([]lisp.EIDRecord, 0, r.to-r.from),
	}
	for i := r.from; i < r.to; i++ {
		rec := e.db[i].record
		if r.state == StateWithdrawing {
			rec.TTL = 0
		}
		m.Records = append(m.Records, rec)
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

// nextRegisterNonce grows with every Map-Register, also across restarts as long
// as the clock does (RFC 9301 §5.6).
func (e *Engine) nextRegisterNonce(now time.Time) lisp.Nonce {
	if e.registerNonce == 0 {
		e.registerNonce = e.cfg.RegisterNonce
		if s := now.Unix(); s > 0 {
			// A million nonces a second are more than can be used up.
			e.registerNonce = max(e.registerNonce, lisp.Nonce(s)<<20)
		}
		e.firstNonce = e.registerNonce + 1
	}
	e.registerNonce++
	return e.registerNonce
}

// transmit sends the message of r, again, and waits for the Map-Notify.
func (e *Engine) transmit(now time.Time, r *registration) {
	if e.send(r.local, r.server.Addr, func(b []byte) ([]byte, error) { return append(b, r.message...), nil }) {
		e.stats.MapRegistersSent++
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
	r.lastAck, r.rtt = now, now.Sub(r.first)
	if r.state == StateWithdrawing {
		r.state = StateWithdrawn
		e.timers.stop(&r.timer)
		e.emit(Withdrawn{Stamp{now}, r.server.Addr, e.keys(r)})
		return
	}
	r.state = StateRegistered
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
		e.emit(Registered{Stamp{now}, r.server.Addr, e.keys(r), e.rlocs(r), r.rtt, r.server.acked})
		r.announced, r.server.acked = true, true
	}
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
		e.timers.stop(&r.timer)
		if r.lastSent.IsZero() {
			continue // it knows nothing of us
		}
		r.state, r.tries = StateWithdrawing, 0
		e.register(now, r)
	}
}

// WithdrawDone reports whether every Map-Server that knows of us has
// acknowledged Withdraw.
func (e *Engine) WithdrawDone() bool {
	for _, r := range e.registrations {
		if r.state == StateWithdrawing {
			return false
		}
	}
	return e.withdrawing
}
