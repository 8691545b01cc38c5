package control

import (
	"container/heap"
	"time"
)

// timer is one deadline of the engine. It is embedded in what it belongs to;
// fire is set once.
type timer struct {
	at    time.Time
	index int // position in the heap plus one; 0: not set
	fire  func(now time.Time)
}

// timers is the one heap of deadlines.
type timers struct {
	h    timerHeap
	seq  uint64
	base time.Time // the first deadline ever
}

// set moves t to at.
func (ts *timers) set(t *timer, at time.Time) {
	ts.seq++
	if ts.seq == 1 {
		ts.base = at
	}
	t.at = at
	if t.index != 0 {
		p := &ts.h[t.index-1]
		p.since, p.seq = at.Sub(ts.base), ts.seq
		heap.Fix(&ts.h, t.index-1)
		return
	}
	// What heap.Push does, without an allocation.
	ts.h = append(ts.h, deadline{at.Sub(ts.base), ts.seq, t})
	t.index = len(ts.h)
	heap.Fix(&ts.h, t.index-1)
}

// stop takes t out, if it is in.
func (ts *timers) stop(t *timer) {
	if t.index != 0 {
		heap.Remove(&ts.h, t.index-1)
	}
}

// deadline is the earliest deadline, zero if there is none.
func (ts *timers) deadline() time.Time {
	if len(ts.h) == 0 {
		return time.Time{}
	}
	return ts.h[0].t.at
}

// advance fires what is due. What a firing timer sets for now or earlier waits
// for the next call, so one call always ends.
func (ts *timers) advance(now time.Time) {
	last := ts.seq
	for len(ts.h) > 0 && !ts.h[0].t.at.After(now) && ts.h[0].seq <= last {
		t := ts.h[0].t
		heap.Remove(&ts.h, 0)
		t.fire(now)
	}
}

// deadline is when a timer fires, counted from the base of the heap, so that
// comparing takes no look at the timer. seq orders equal ones, so that runs repeat
// exactly.
type deadline struct {
	since time.Duration
	seq   uint64
	t     *timer
}

type timerHeap []deadline

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if h[i].since != h[j].since {
		return h[i].since < h[j].since
	}
	return h[i].seq < h[j].seq
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].t.index, h[j].t.index = i+1, j+1
}

func (h *timerHeap) Push(x any) { *h = append(*h, x.(deadline)) }

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1].t
	old[len(old)-1] = deadline{}
	*h = old[:len(old)-1]
	t.index = 0
	return nil
}
