package mapserver

import (
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

const (
	maxQueue          = 1 << 14 // datagrams waiting for Next
	expiriesPerStep   = 64      // so that no step takes long
	looksPerStep      = 1024    // at claims that may have been refreshed; an expiry counts as 16
	maxClaimsPerEID   = 32      // xTRs that register one EID-Prefix
	tombstoneTime     = 5 * time.Minute
	unlimitedLifetime = 24 * time.Hour       // Record TTL 0xffffffff leaves it to us
	maxLifetime       = 365 * 24 * time.Hour // of a registration by its Record TTL
)

// Server is the core: the registrations, their writer, and one built-in Worker.
//
// Handle, Apply, Advance, Deadline, Next, NextEvent, Changes, Merge, Snapshot, Save,
// Load and Reconfigure are for one goroutine at a time, the writer. NewWorker,
// Registrations and Stats are safe for concurrent use with it.
type Server struct {
	_ [0]sync.Mutex // not to be copied

	cfg                Config
	log                *slog.Logger
	settings           atomic.Pointer[settings]
	limits             *limits
	locals             []netip.Addr
	haveIPv4, haveIPv6 bool
	epoch              atomic.Pointer[time.Time]
	securityWarnings   bucket

	workersMu sync.Mutex
	workers   []*Worker
	updates   updatePool
	awaited   sync.Map // nonce (uint64) to *notifyAwaited; written by the writer
	checks    sync.Map // nonce (uint64) to *healthCheck; likewise

	// The writer's.
	worker   *Worker
	last     time.Time
	clock    uint64 // last order.seq given or seen
	xtrs     xtrs
	paths    map[*xtrState]natt.Path // of those that come by an RTR
	expiry   wheel
	notifies notifies

	subscriptions     subscriptions
	subscriptionCount atomic.Int64
	healthAt          int64 // ticks of the next step of a health check
	claimCount        int
	warnings          bucket // for log lines that others can provoke
	out               []queued
	outBuf            []byte
	outNext           int
	events            []Event
	eventNext         int
	journal           []Delta
	journalLost       bool

	history history // anybody's

	registered, xtrCount, eventsLost atomic.Int64
}

// queued is a datagram whose octets are in Server.outBuf.
type queued struct {
	d          lisp.Datagram
	start, end int
}

// Handle takes one datagram: verifies it, answers it and applies what it
// changes. It reports whether the message was for a Map-Server or Map-Resolver.
// d.Bytes are only read during the call.
func (s *Server) Handle(now time.Time, d lisp.Datagram) bool {
	r := s.worker.Handle(now, d)
	for _, o := range r.Out {
		s.enqueue(o)
	}
	for _, e := range r.Events {
		s.addEvent(e)
	}
	if r.Update != nil {
		s.Apply(now, r.Update)
	}
	return r.Claimed
}

// Advance removes registrations whose time has come, and repeats unsolicited
// Map-Notifies that are not acknowledged. It does a bounded part of
// the work at a time: afterwards Deadline may be now.
func (s *Server) Advance(now time.Time) {
	s.last = now
	ticks := s.toTicks(now)
	for n := 0; n < looksPerStep; n++ {
		c, more := s.expiry.step(ticks)
		if !more {
			break
		}
		if c == nil {
			continue
		}
		n += looksPerStep/expiriesPerStep - 1
		if at, ok := s.expire(now, ticks, c); ok {
			s.expiry.add(c, at)
		}
	}
	s.transmit(now, ticks)
	s.publishChanges(ticks)
	s.checkHealth(now, ticks)
}

// Deadline is when Advance has something to do next; zero when never. It is not
// before the time of the last call of Advance.
func (s *Server) Deadline() time.Time {
	first := s.healthAt
	if at, ok := s.expiry.next(); ok {
		first = min(first, at)
	}
	if len(s.notifies.due) > 0 {
		first = min(first, s.notifies.due[0].at)
	}
	if len(s.subscriptions.due) > 0 {
		first = min(first, s.subscriptions.due[0].at)
	}
	if first == math.MaxInt64 {
		return time.Time{}
	}
	if s.epoch.Load() == nil {
		return time.Unix(0, 0) // Advance was never called: at once
	}
	at := s.fromTicks(first)
	if at.Before(s.last) {
		return s.last
	}
	return at
}

// Next returns the next datagram to send. Its Bytes are valid until the next
// call of a method of the Server.
func (s *Server) Next() (lisp.Datagram, bool) {
	if s.outNext == len(s.out) {
		s.out, s.outBuf, s.outNext = s.out[:0], s.outBuf[:0], 0
		return lisp.Datagram{}, false
	}
	q := s.out[s.outNext]
	s.outNext++
	q.d.Bytes = s.outBuf[q.start:q.end:q.end]
	return q.d, true
}

func (s *Server) enqueue(d lisp.Datagram) {
	if s.outNext == len(s.out) {
		s.out, s.outBuf, s.outNext = s.out[:0], s.outBuf[:0], 0
	}
	if len(s.out) >= maxQueue {
		s.worker.stats.dropped[ReasonQueue].Add(1)
		return
	}
	start := len(s.outBuf)
	s.outBuf = append(s.outBuf, d.Bytes...)
	d.Bytes = nil
	s.out = append(s.out, queued{d: d, start: start, end: len(s.outBuf)})
}

// NextEvent returns the oldest event not yet returned.
func (s *Server) NextEvent() (Event, bool) {
	if s.eventNext == len(s.events) {
		s.events, s.eventNext = s.events[:0], 0
		return nil, false
	}
	e := s.events[s.eventNext]
	s.events[s.eventNext] = nil
	s.eventNext++
	return e, true
}

// addEvent keeps an event for NextEvent; when there are too many, the new one is lost.
func (s *Server) addEvent(e Event) {
	s.changed(e)
	switch {
	case s.cfg.EventBuffer < 0:
		return
	case len(s.events)-s.eventNext >= s.cfg.EventBuffer:
		s.eventsLost.Add(1)
		return
	case len(s.events) == cap(s.events) && s.eventNext > 0:
		n := copy(s.events, s.events[s.eventNext:])
		clear(s.events[n:])
		s.events, s.eventNext = s.events[:n], 0
	}
	s.events = append(s.events, e)
}

// toTicks is the time since the first call in nanoseconds, by the monotonic
// clock where there is one: a step of the wall clock expires nothing.
func (s *Server) toTicks(now time.Time) int64 {
	e := s.epoch.Load()
	if e == nil {
		first := now // a copy, so that now doesn't escape
		s.epoch.CompareAndSwap(nil, &first)
		e = s.epoch.Load()
	}
	return int64(now.Sub(*e))
}

func (s *Server) fromTicks(t int64) time.Time {
	if e := s.epoch.Load(); e != nil {
		return e.Add(time.Duration(t))
	}
	return time.Time{}
}

// tick moves the hybrid clock: the wall clock in nanoseconds, or one more than
// the largest value given or seen.
func (s *Server) tick(now time.Time) order {
	wall := now.UnixNano()
	s.clock = max(s.clock+1, uint64(max(wall, 0)))
	return order{seq: s.clock, origin: s.cfg.ID}
}

// lifetime of a registration in ticks.
func (s *Server) lifetime(flags uint8, ttl uint32) int64 {
	if flags&flagUseTTL == 0 {
		return int64(s.cfg.RegisterTimeout)
	}
	if ttl == lisp.TTLUnlimited {
		return int64(unlimitedLifetime)
	}
	return int64(min(time.Duration(ttl), maxLifetime/time.Minute) * time.Minute)
}

// saturatingAdd keeps far expiries from wrapping round.
func saturatingAdd(t int64, d time.Duration) int64 {
	if t > math.MaxInt64-int64(d) {
		return math.MaxInt64
	}
	return t + int64(d)
}
