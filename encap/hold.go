package encap

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// holdKey names a queue of held packets: all to one EID of one overlay.
type holdKey struct {
	overlay *overlay
	dst     netip.Addr
}

// heldPacket is one packet that waits for a mapping. It is in two lists: its
// queue, and the table's list of all packets by age.
type heldPacket struct {
	queue        *holdQueue
	next         *heldPacket // in the queue
	older, newer *heldPacket // in the table
	deadline     time.Time
	mark         Mark
	buf          []byte // Headroom, then the packet
}

// holdQueue holds the packets to one EID, in the order they came.
type holdQueue struct {
	key        holdKey
	head, tail *heldPacket
	n          int
}

// holdTable keeps packets whose destination has no mapping yet: bounded per
// EID, in packets and in octets, each for a limited time, the oldest dropped
// first. Its keys are the destinations that the control plane is asked for.
//
// Everything but busy needs mu.
type holdTable struct {
	// busy is the number of queues. Packets that have a mapping look at it
	// without the lock: only while it is not zero can an older packet to the
	// same destination be waiting.
	busy atomic.Int32

	mu             sync.Mutex
	queues         map[holdKey]*holdQueue
	oldest, newest *heldPacket
	packets        int
	octets         int

	time                          time.Duration
	maxPerEID, maxTotal, maxOctet int

	freePackets *heldPacket // linked by next
	freeQueues  []*holdQueue

	// dropped is called for each packet that the table gives up, before its
	// buffer is used again.
	dropped func(o *overlay, packet []byte, why DropReason)
}

func newHoldTable(cfg Config) *holdTable {
	return &holdTable{
		queues:    make(map[holdKey]*holdQueue),
		time:      cfg.HoldTime,
		maxPerEID: cfg.HoldPerEID,
		maxTotal:  cfg.HoldTotal,
		maxOctet:  cfg.HoldOctets,
	}
}

// add keeps a copy of packet and reports whether it is the first to its
// destination. Older packets make room where a bound is reached.
func (h *holdTable) add(now time.Time, key holdKey, mark Mark, packet []byte) (first bool) {
	h.expire(now)
	if h.maxPerEID <= 0 || h.maxTotal <= 0 || len(packet) > h.maxOctet {
		h.dropped(key.overlay, packet, DropHoldFull)
		return false
	}
	// Making room may empty and remove the very queue that the packet belongs
	// to, so the queue is looked up only afterwards.
	if q := h.queues[key]; q != nil && q.n >= h.maxPerEID {
		h.drop(q.head, DropHoldFull)
	}
	for h.packets >= h.maxTotal || h.octets+len(packet) > h.maxOctet {
		h.drop(h.oldest, DropHoldFull)
	}
	q := h.queues[key]
	if q == nil {
		first = true
		q = h.newQueue(key)
	}

	p := h.freePackets
	if p != nil {
		h.freePackets = p.next
	} else {
		p = new(heldPacket)
	}
	if cap(p.buf) < Headroom+len(packet) {
		p.buf = make([]byte, Headroom+max(len(packet), 2048-Headroom))
	}
	p.buf = p.buf[:Headroom+len(packet)]
	copy(p.buf[Headroom:], packet)
	p.queue, p.next, p.deadline, p.mark = q, nil, now.Add(h.time), mark
	p.older, p.newer = h.newest, nil
	if h.newest != nil {
		h.newest.newer = p
	} else {
		h.oldest = p
	}
	h.newest = p
	if q.tail != nil {
		q.tail.next = p
	} else {
		q.head = p
	}
	q.tail = p
	q.n++
	h.packets++
	h.octets += len(packet)
	return first
}

// take removes the queue of key and calls f for its packets in order, each in a
// buffer with Headroom in front, then done. The buffers stay f's until done
// returns. It reports how many packets there were.
func (h *holdTable) take(key holdKey, f func(buf []byte, mark Mark), done func()) int {
	q := h.queues[key]
	if q == nil {
		return 0
	}
	head, n := q.head, q.n
	for p := head; p != nil; p = p.next {
		h.unlink(p) // the last one removes the queue
		f(p.buf, p.mark)
	}
	done()
	for p := head; p != nil; {
		next := p.next
		h.free(p)
		p = next
	}
	return n
}

// expire drops the packets whose time is over.
func (h *holdTable) expire(now time.Time) {
	for h.oldest != nil && !h.oldest.deadline.After(now) {
		h.drop(h.oldest, DropHoldExpired)
	}
}

// deadline is when the oldest packet's time is over; zero when there is none.
func (h *holdTable) deadline() time.Time {
	if h.oldest == nil {
		return time.Time{}
	}
	return h.oldest.deadline
}

func (h *holdTable) drop(p *heldPacket, why DropReason) {
	o := p.queue.key.overlay
	h.unlink(p)
	h.dropped(o, p.buf[Headroom:], why)
	h.free(p)
}

// unlink takes the first packet of a queue out of both lists, and the queue out
// of the table when it was the last.
func (h *holdTable) unlink(p *heldPacket) {
	q := p.queue
	q.head = p.next
	if q.head == nil {
		q.tail = nil
	}
	q.n--
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		h.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		h.newest = p.older
	}
	h.packets--
	h.octets -= len(p.buf) - Headroom
	if q.n == 0 {
		delete(h.queues, q.key)
		h.busy.Add(-1)
		*q = holdQueue{}
		h.freeQueues = append(h.freeQueues, q)
	}
}

func (h *holdTable) newQueue(key holdKey) *holdQueue {
	var q *holdQueue
	if n := len(h.freeQueues); n > 0 {
		q, h.freeQueues = h.freeQueues[n-1], h.freeQueues[:n-1]
	} else {
		q = new(holdQueue)
	}
	q.key = key
	h.queues[key] = q
	h.busy.Add(1)
	return q
}

func (h *holdTable) free(p *heldPacket) {
	*p = heldPacket{next: h.freePackets, buf: p.buf[:0]}
	if cap(p.buf) > 4096 {
		p.buf = nil // rare sizes are not worth keeping
	}
	h.freePackets = p
}
