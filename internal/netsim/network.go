package netsim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Core is a protocol core, as every one in this module is shaped: no goroutine,
// socket or clock. Bytes of Next are valid until the next call.
type Core interface {
	Handle(now time.Time, d lisp.Datagram) bool
	Advance(now time.Time)
	Deadline() time.Time
	Next() (lisp.Datagram, bool)
}

// Config configures a Network.
type Config struct {
	Seed  uint64
	Start time.Time // zero: time.Now()

	// Trace, if set, sees every record; it must not call the Network. Record.Bytes
	// are valid during the call.
	Trace func(Record)
}

// Network is the simulation. All methods of it and its parts are for one
// goroutine at a time, except that while Serve runs PacketConns are safe for
// concurrent use, and the others may be called inside Do.
type Network struct {
	mu      sync.Mutex
	cfg     Config
	rng     *rand.Rand
	start   time.Time
	now     int64 // ns since start
	seq     uint64
	queue   eventQueue
	free    []*packet
	trace   trace
	nodes   []*Node
	outside *Segment
	serving bool
	wake    chan struct{} // tells Serve that something was queued
	spin    int           // events in a row without the time moving
}

// maxSpin is how many events may happen at one instant before a core is taken
// to be in a loop.
const maxSpin = 1_000_000

// New makes a Network that has nothing but an empty Internet.
func New(cfg Config) *Network {
	if cfg.Start.IsZero() {
		cfg.Start = time.Now()
	}
	n := &Network{
		cfg:   cfg,
		rng:   rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)),
		start: cfg.Start,
		wake:  make(chan struct{}, 1),
	}
	n.trace.hash = hashSeed
	n.outside = n.newSegment("internet")
	return n
}

// Now is the virtual time.
func (n *Network) Now() time.Time { return n.start.Add(time.Duration(n.now)) }

// Rand is the network's source of randomness, for scenarios that shall be as
// reproducible as the network.
func (n *Network) Rand() *rand.Rand { return n.rng }

// Internet is the segment that everything outside of NATs is attached to.
func (n *Network) Internet() *Segment { return n.outside }

// After calls f when d has passed. f may do anything but run the network.
func (n *Network) After(d time.Duration, f func()) {
	n.push(event{at: n.now + int64(max(d, 0)), call: f})
}

// Inject puts a datagram onto the Internet with whatever source, as an attacker
// does whose network lets that pass.
func (n *Network) Inject(from, to netip.AddrPort, b []byte) {
	p := n.newPacket(from, to, b)
	n.record(Injected, n.outside.name, p)
	n.push(event{at: n.now, segment: n.outside, packet: p})
}

// Run lets time go by.
func (n *Network) Run(d time.Duration) {
	n.runTo(n.now + int64(d))
}

// RunUntil runs until done says so, or d has passed, and reports which. done is
// asked after every event.
func (n *Network) RunUntil(d time.Duration, done func() bool) bool {
	end := n.now + int64(d)
	for !done() {
		if len(n.queue) == 0 || n.queue[0].at > end {
			n.advance(end)
			return done()
		}
		n.step()
	}
	return true
}

// Idle reports whether nothing will ever happen again by itself.
func (n *Network) Idle() bool { return len(n.queue) == 0 }

func (n *Network) runTo(end int64) {
	for len(n.queue) > 0 && n.queue[0].at <= end {
		n.step()
	}
	n.advance(end)
}

func (n *Network) advance(at int64) {
	if at > n.now {
		n.now, n.spin = at, 0
	}
}

func (n *Network) step() {
	e := n.queue.pop()
	n.advance(e.at)
	if n.spin++; n.spin > maxSpin {
		panic(fmt.Sprintf("netsim: %d events at %v: does a core ask for the past?", n.spin, n.Now()))
	}
	switch {
	case e.call != nil:
		e.call()
	case e.node != nil:
		e.node.woken(e.at)
	case e.segment != nil:
		e.segment.route(e.packet)
	default:
		e.iface.arrive(e.packet)
	}
}

func (n *Network) push(e event) {
	n.seq++
	e.seq = n.seq
	n.queue.push(e)
	if n.serving {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

// packet is a datagram on its way.
type packet struct {
	from, to netip.AddrPort
	bytes    []byte
}

func (n *Network) newPacket(from, to netip.AddrPort, b []byte) *packet {
	var p *packet
	if l := len(n.free); l > 0 {
		p, n.free = n.free[l-1], n.free[:l-1]
	} else {
		p = new(packet)
	}
	p.from, p.to, p.bytes = from, to, append(p.bytes[:0], b...)
	return p
}

func (n *Network) release(p *packet) { n.free = append(n.free, p) }

// event is one of: a call, a node whose core is due, a packet at a segment, a
// packet at the end of an interface's link.
type event struct {
	at      int64
	seq     uint64 // in the order of queueing at one instant
	call    func()
	node    *Node
	segment *Segment
	iface   *Interface
	packet  *packet
}

// eventQueue is a binary heap by time and order of queueing.
type eventQueue []event

func (q eventQueue) less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}

func (q *eventQueue) push(e event) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *eventQueue) pop() event {
	h := *q
	e, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = event{}
	h = h[:last]
	*q = h
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(h) {
			return e
		}
		if c+1 < len(h) && h.less(c+1, c) {
			c++
		}
		if !h.less(c, i) {
			return e
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}
