package mapserver

import (
	"slices"
	"sync"
	"time"
)

// refusalsPerSecond of Map-Registers enter the history, so that a flood of them
// costs little and washes out others slowly.
var refusalsPerSecond = newBucketParams(10)

// PastEvent is an event that Server.History keeps.
type PastEvent struct {
	Time  time.Time
	Event Event
}

// history keeps the last events of registration for people to look at. Changes
// and refusals have a ring each: nobody without a key pushes out changes. It is
// safe for concurrent use.
type history struct {
	mu        sync.Mutex
	changes   ring
	refusals  ring
	admission bucket
}

// ring is a bounded queue; when it is full, a new event replaces the oldest.
type ring struct {
	events []PastEvent
	next   int // where the oldest is, when full
}

func (r *ring) add(e PastEvent, size int) {
	if len(r.events) < size {
		r.events = append(r.events, e)
		return
	}
	r.events[r.next] = e
	r.next = (r.next + 1) % size
}

func (r *ring) appendTo(dst []PastEvent) []PastEvent {
	return append(append(dst, r.events[r.next:]...), r.events[:r.next]...)
}

// changed notes an event of the writer, if it is one of those kept.
func (s *Server) changed(e Event) {
	if s.cfg.History < 0 || s.cfg.EventBuffer < 0 {
		return
	}
	var at time.Time
	switch e := e.(type) {
	case Registered:
		if e.Change != ChangeNew && e.Change != ChangeMapping {
			return
		}
		at = e.Time
	case Withdrawn:
		at = e.Time
	case Expired:
		at = e.Time
	case Removed:
		at = e.Time
	case Moved:
		at = e.Time
	default:
		return
	}
	s.history.mu.Lock()
	s.history.changes.add(PastEvent{at, e}, s.cfg.History)
	s.history.mu.Unlock()
}

// refused notes a refused Map-Register.
func (s *Server) refused(ticks int64, e func() Refused) {
	if s.cfg.History < 0 || s.cfg.EventBuffer < 0 || !s.history.admission.take(ticks, refusalsPerSecond) {
		return
	}
	refused := e()
	s.history.mu.Lock()
	s.history.refusals.add(PastEvent{refused.Time, refused}, s.cfg.History)
	s.history.mu.Unlock()
}

// History returns the latest events about registrations, in the order of their
// time: Registered if it changed something, Moved, Withdrawn, Expired, Removed and, when
// there are not too many, Refused. It is safe for concurrent use.
func (s *Server) History() []PastEvent {
	s.history.mu.Lock()
	all := s.history.refusals.appendTo(s.history.changes.appendTo(nil))
	s.history.mu.Unlock()
	slices.SortStableFunc(all, func(a, b PastEvent) int { return a.Time.Compare(b.Time) })
	return all
}
