package control

import (
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Dataplane is what forwards packets by the map-cache: package encap in user
// space, package encap/ebpf in the kernel. The Runner's loop is its only caller.
type Dataplane interface {
	// Apply tells of published map-cache changes, in order. Held packets whose
	// destination a change covers leave during Apply.
	Apply([]mapcache.Change) error
	// SetLocals replaces the set of our own locators.
	SetLocals([]mapcache.Local) error
	// Usage calls f for what was used since the last call.
	Usage(f func(mapcache.Usage))
	// PendingMisses appends the destinations that wait for a mapping to dst and
	// returns it. It is level-triggered: a key stays pending until a covering
	// change arrives or its deadline passes, however often it is reported.
	PendingMisses(dst []mapcache.Key) []mapcache.Key
	// Discoveries wakes the loop. A full channel drops and counts: the loop is
	// awake then, and misses are level-triggered.
	Discoveries() <-chan mapcache.Discovery
	// Send transmits a control datagram from the data port (4341).
	Send(lisp.Datagram) error
}

// Core is the shape of every protocol core: no goroutine, socket, clock or
// global. One goroutine at a time.
type Core interface {
	// Handle takes one received datagram and reports whether the core claims
	// it. d.Bytes are only read during the call.
	Handle(now time.Time, d lisp.Datagram) bool
	// Advance runs what is due at now.
	Advance(now time.Time)
	// Deadline is when Advance must be called next; zero means never.
	Deadline() time.Time
	// Next returns the next datagram to send. Its Bytes are valid until the
	// next call of any method of the core.
	Next() (lisp.Datagram, bool)
}
