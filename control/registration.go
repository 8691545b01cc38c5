package control

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
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
	Next      time.Time     // when something happens next; zero by an RTR, see Engine.Bindings
	RTR       netip.Addr    // by which it was acknowledged last; invalid: directly
	LastError string        // why the last round was no success; empty: it was
	ErrorAt   time.Time
}

// mapServer is a Map-Server and what its registrations share.
type mapServer struct {
	*MapServer
	acked bool                  // it has acknowledged a registration of this run
	knows map[mapcache.Key]bool // what it was told of, until that is withdrawn

	others map[mapcache.Key]otherXTRs // of our EID-Prefixes, where registrations are merged

	notifies []lisp.Nonce // of the latest unsolicited Map-Notifies
}

// registration is one Map-Register's worth of records at one Map-Server. There
// is at most one unacknowledged Map-Register of each.
type registration struct {
	timer
	server *mapServer
	split  int
	keys   []mapcache.Key   // of our database
	size   int              // octets of their records
	gone   []lisp.EIDRecord // instead: what is withdrawn while the rest stays
	giveUp time.Time        // of a withdrawal: the registration has ended by itself

	state     RegistrationState
	nonce     lisp.Nonce
	message   []byte // the encoded Map-Register while it is not acknowledged
	local     mapcache.Local
	rtr       netip.Addr // by which it was acknowledged last
	vain      netip.Addr // our locator from which message was sent in vain, first of several
	sends     int        // of message
	tries     int        // since the last acknowledgement
	first     time.Time
	held      time.Time // since when the Map-Server may have it; zero: it has not, or no more
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
			MapServer: r.server.Addr, Split: r.split, EIDs: slices.Clone(r.keys), State: r.state, Nonce: r.nonce,
			Tries: r.tries, LastSent: r.lastSent, LastAck: r.lastAck, RTT: r.rtt, RTR: r.rtr,
			LastError: r.lastError, ErrorAt: r.errorAt,
		}
		if r.index != 0 {
			rs[i].Next = r.at
		}
	}
	return rs
}

func (e *Engine) rlocs(r *registration) []netip.Addr {
	var as []netip.Addr
	if len(r.keys) > 0 && r.gone == nil {
		for _, l := range e.db[e.dbPos[r.keys[0]]].record.Locators {
			if ip, ok := l.RLOC.IP(); ok && l.Reachable {
				as = append(as, ip)
			}
		}
		if r.rtr.IsValid() && !slices.Contains(as, r.rtr) {
			as = append(as, r.rtr) // just now
		}
	}
	return as
}

// splitPace spreads the first round of many Map-Registers.
const splitPace = 10 * time.Millisecond

// databaseChange says what changed in our database.
type databaseChange struct {
	all     bool                            // our locators changed, and with them every record
	rtrs    bool                            // but only by RTRs that stand for them, whom it was said already
	changed map[mapcache.Key]bool           // or these records did, new ones included
	removed map[mapcache.Key]lisp.EIDRecord // what is no more in the database
}

// announcer paces Map-Registers when our own locators change. What one cause
// changes in a few steps is told at once each time, for others send to the wrong
// place meanwhile; but interfaces may flap, and then what changes within a second
// is told together.
type announcer struct {
	ahead time.Time // what was told at once has used up the pace until then
	next  time.Time // when what waits is told
}

const (
	announcePace  = time.Second
	announceBurst = 3
)

// announceAt says when a change is registered.
func (e *Engine) announceAt(now time.Time) time.Time {
	a := &e.announced
	if !a.next.IsZero() {
		if now.Before(a.next) {
			return a.next
		}
		a.ahead, a.next = later(a.ahead, a.next).Add(announcePace), time.Time{}
	}
	if at := a.ahead.Add(-(announceBurst - 1) * announcePace); at.After(now) {
		a.next = at
		return at
	}
	a.ahead = later(a.ahead, now).Add(announcePace)
	return now
}

// arrange distributes our EID-Prefixes over Map-Registers, each of which is
// acknowledged by itself, and begins anew with those whose content changed: what
// is under way for them is out of date. RFC 9301 §8.2 suggests 20 s between the
// registrations of a change; we take that for the pace of repetitions and tell
// of each change at once, since until then all traffic goes astray.
func (e *Engine) arrange(now time.Time, c databaseChange) {
	if e.withdrawing {
		return
	}
	e.quickUntil = now.Add(e.cfg.QuickTime)
	begin := now
	if c.all && (e.nat == nil || hasUp(e.locals)) {
		begin = e.announceAt(now)
	}
	before := e.registrations
	e.registrations = nil
	for _, s := range e.servers {
		var live, leaving, again []*registration
		for _, r := range before {
			switch {
			case r.server != s:
			case r.gone != nil:
				if e.keepGone(r, c) {
					again = append(again, r)
				}
				if len(r.gone) > 0 {
					leaving = append(leaving, r)
				}
			default:
				live = append(live, r)
			}
		}
		live, changed := e.distribute(s, live, c)
		again = append(changed, again...)
		gone := e.withdrawRemoved(now, s, c)
		leaving, again = append(leaving, gone...), append(again, gone...)
		all := append(live, leaving...)
		for i, r := range all {
			r.split = i
		}
		e.registrations = append(e.registrations, all...)
		for i, r := range again {
			if c.rtrs && !e.reaches(r) {
				continue
			}
			e.timers.stop(&r.timer)
			r.message, r.state, r.tries, r.announced, r.vain = nil, StateIdle, 0, false, netip.Addr{}
			if r.gone != nil {
				r.state = StateWithdrawing
			}
			r.lastError, r.errorAt = "", time.Time{}
			if at := begin.Add(time.Duration(i) * splitPace); at.After(now) {
				e.timers.set(&r.timer, at)
			} else {
				e.register(now, r)
			}
		}
	}
}

// distribute puts each EID-Prefix of ours into one of the registrations at s,
// where it was if that still fits. It returns those there are, and which of them
// have new content.
func (e *Engine) distribute(s *mapServer, live []*registration, c databaseChange) (all, begin []*registration) {
	room, size := e.payloadLimit(s.Addr.Addr())-e.registerOverhead(s.MapServer), e.registerSizes()
	placed := make(map[mapcache.Key]bool, len(e.db))
	touched := make(map[*registration]bool, len(live))
	for _, r := range live {
		kept := make([]mapcache.Key, 0, len(r.keys))
		r.size = 0
		for _, k := range r.keys {
			pos, ok := e.dbPos[k]
			if !ok || r.size+size(&e.db[pos].record) > room && len(kept) > 0 {
				touched[r] = true
				continue
			}
			kept, placed[k] = append(kept, k), true
			r.size += size(&e.db[pos].record)
			touched[r] = touched[r] || c.all || c.changed[k]
		}
		r.keys = kept
	}
	open := 0
	for i := range e.db {
		k, n := e.db[i].Key, size(&e.db[i].record)
		if placed[k] {
			continue
		}
		for open < len(live) && len(live[open].keys) > 0 && (live[open].size+n > room || len(live[open].keys) >= maxRecords) {
			open++
		}
		if open == len(live) {
			live = append(live, e.newRegistration(s))
		}
		r := live[open]
		r.keys, r.size = append(r.keys, k), r.size+n
		touched[r] = true
	}
	for _, r := range live {
		switch {
		case len(r.keys) == 0:
			e.timers.stop(&r.timer)
		case touched[r]:
			all, begin = append(all, r), append(begin, r)
		default:
			all = append(all, r)
		}
	}
	return all, begin
}

func (e *Engine) newRegistration(s *mapServer) *registration {
	r := &registration{server: s}
	r.fire = func(now time.Time) { e.registrationTimer(now, r) }
	return r
}

// withdrawRemoved makes the Map-Registers with TTL 0 for what is removed from
// the database and s was told of.
func (e *Engine) withdrawRemoved(now time.Time, s *mapServer, c databaseChange) (gone []*registration) {
	room, size := e.payloadLimit(s.Addr.Addr())-e.registerOverhead(s.MapServer), e.registerSizes()
	keys := slices.SortedFunc(maps.Keys(c.removed), compareKeys)
	var r *registration
	for _, k := range keys {
		if !s.knows[k] {
			continue
		}
		rec := c.removed[k]
		rec.TTL = 0
		n := size(&rec)
		if r == nil || r.size+n > room || len(r.gone) >= maxRecords {
			r = e.newRegistration(s)
			r.giveUp = now.Add(registrationLife)
			gone = append(gone, r)
		}
		r.gone, r.keys, r.size = append(r.gone, rec), append(r.keys, k), r.size+n
	}
	return gone
}

// keepGone leaves out of a withdrawal what is in the database again: it must
// not undo the new registration. It reports whether the rest has to be sent anew.
func (e *Engine) keepGone(r *registration, c databaseChange) bool {
	n := len(r.gone)
	back := func(k mapcache.Key) bool { _, ok := e.dbPos[k]; return ok }
	r.keys = slices.DeleteFunc(r.keys, back)
	r.gone = slices.DeleteFunc(r.gone, func(rec lisp.EIDRecord) bool {
		k, _ := recordKey(&rec)
		return back(k)
	})
	if len(r.gone) == 0 {
		e.timers.stop(&r.timer)
		return false
	}
	return c.all || len(r.gone) < n
}

// registerSizes returns what tells how long a record of ours is in a Map-Register, at
// most.
func (e *Engine) registerSizes() func(*lisp.EIDRecord) int {
	if e.nat == nil {
		return recordLen
	}
	return e.nat.recordSizes()
}

// registerOverhead is what a Map-Register to s takes besides its records, and an
// Encapsulated one around it.
func (e *Engine) registerOverhead(s *MapServer) int {
	n := 16 + s.Key.DigestLen() + 24
	if e.nat == nil {
		return n
	}
	if s.Addr.Addr().Is4() {
		return n + 4 + 28
	}
	return n + 4 + 48
}
