package mapserver

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// Worker verifies and answers datagrams over what its Server has published. It
// changes no registration. One goroutine at a time; any number of Workers run
// at once, and beside the writer. It holds scratch memory, so keep it.
type Worker struct {
	s     *Server
	set   *settings // in force, since the datagram at hand came
	stats counters

	now    time.Time
	ticks  int64
	result Result
	path   natt.Path  // that the Map-Register came by, if by an RTR
	asker  netip.Addr // who sent the Map-Request; invalid if it wants all locators
	behind bool       // a NAT, by which the answer goes back: see throughNAT

	changes *changes      // of Step; nil when there are none
	free    chan *changes // that the writer is done with
	flushed bool

	register  lisp.MapRegister
	request   lisp.MapRequest
	reply     lisp.MapReply
	ecm       lisp.EncapsulatedControl
	out       lisp.MapReply // the part of reply that goes into one datagram
	decoder   recordDecoder
	encoder   recordEncoder
	sec       protected
	claims    []*claim
	pending   [recentSlots]pendingRefresh
	auth      map[*lisp.Key]*lisp.Authenticator
	upstreams []*upstream
	rlocs     []candidate
	items     []registerItem
	room      int    // octets that the answer may still have
	buf       []byte // holds what result.Out points to
	scratch   []byte
}

// Result is what came of one datagram. It is valid until the Worker's next Handle.
type Result struct {
	// Claimed: the datagram was for a Map-Server or Map-Resolver. One that is
	// not claimed may be for another role behind the same port.
	Claimed bool

	// Out are datagrams to send now.
	Out []lisp.Datagram

	// Update, if not nil, is for Server.Apply. It doesn't alias the datagram and
	// stays valid.
	Update *Update

	// Events that happened in the Worker; Apply makes those of the Update.
	Events []Event
}

// NewWorker makes one more Worker. Safe for concurrent use.
func (s *Server) NewWorker() *Worker {
	w := &Worker{s: s, set: s.set(), auth: make(map[*lisp.Key]*lisp.Authenticator), free: make(chan *changes, maxChanges)}
	s.workersMu.Lock()
	s.workers = append(s.workers, w)
	s.workersMu.Unlock()
	return w
}

// Handle verifies or answers one datagram. d.Bytes are only read during the call.
func (w *Worker) Handle(now time.Time, d lisp.Datagram) Result {
	w.reset()
	w.handle(now, d)
	return w.result
}

func (w *Worker) reset() {
	clear(w.result.Events)
	w.result = Result{Out: w.result.Out[:0], Events: w.result.Events[:0]}
	w.buf = w.buf[:0]
}

func (w *Worker) handle(now time.Time, d lisp.Datagram) {
	w.now, w.ticks, w.set = now, w.s.toTicks(now), w.s.set()
	w.path, w.asker, w.behind = natt.Path{}, netip.Addr{}, false
	d.Remote = unmap(d.Remote)
	d.Local = unmap(d.Local)

	if len(d.Bytes) == 0 {
		return
	}
	switch t := lisp.TypeOf(d.Bytes); t {
	case lisp.TypeMapRegister:
		w.result.Claimed = true
		w.handleRegister(d)
	case lisp.TypeEncapsulatedControl:
		w.result.Claimed = w.handleECM(d)
	case lisp.TypeMapRequest:
		// A Map-Resolver takes Map-Requests encapsulated only (RFC 9301 §8.4); a
		// bare one is a probe or for an ETR behind this port.
		w.drop(ReasonNotEncapsulated, t, d)
	case lisp.TypeMapNotifyAck:
		w.result.Claimed = true
		w.handleNotifyAck(d)
	case lisp.TypeInfo:
		w.result.Claimed = w.handleInfo(d)
	case lisp.TypeMapReply:
		w.result.Claimed = w.handleMapReply(d)
	case lisp.TypeMapNotify:
		// Nothing was asked. It may be for an xTR behind this port.
		w.drop(ReasonUnexpected, t, d)
	default: // for others behind this port, if for anybody
	}
}

func (w *Worker) drop(r Reason, t lisp.Type, d lisp.Datagram) {
	w.stats.dropped[r].Add(1)
	w.event(func() Event { return Dropped{Time: w.now, Reason: r, Type: t, From: d.Remote} })
}

// event makes an event only if somebody wants it.
func (w *Worker) event(f func() Event) {
	if w.s.cfg.EventBuffer > 0 {
		w.result.Events = append(w.result.Events, f())
	}
}

// send queues octets that were appended to w.buf from start on. Growing w.buf
// leaves the octets of earlier datagrams where they are.
func (w *Worker) send(local, remote netip.AddrPort, ifIndex, start int) {
	w.result.Out = append(w.result.Out, lisp.Datagram{
		Local: local, Remote: remote, IfIndex: ifIndex, Bytes: w.buf[start:len(w.buf):len(w.buf)],
	})
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// counters of one Worker, so that Workers don't share cache lines.
type counters struct {
	registers, notifies           atomic.Uint64
	requests, replies, negatives  atomic.Uint64
	forwards, accepted, refreshes atomic.Uint64
	duplicates, moves             atomic.Uint64
	unsolicited, notifyAcks       atomic.Uint64
	notifyLost                    atomic.Uint64
	infoRequests, infoReplies     atomic.Uint64
	relayed                       atomic.Uint64
	dropped                       [NumReasons]atomic.Uint64
	_                             [64]byte
}
