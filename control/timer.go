package control

import (
	"container/heap"
	"time"
)

// timer is one deadline of the engine. It is embedded in what it belongs to;
// fire is set once.
type timer struct {
	at    time.Time
	since time.Duration // at, from the base of the heap: quick to compare
	seq   uint64        // orders equal deadlines, so that runs repeat exactly
	index int           // position in the heap plus one; 0: not set
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
	t.at, t.since, t.seq = at, at.Sub(ts.base), ts.seq
	if t.index != 0 {
		heap.Fix(&ts.h, t.index-1)
		return
	}
	heap.Push(&ts.h, t)
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
	return ts.h[0].at
}

// advance fires what is due. What a firing timer sets for now or earlier waits
// for the next call, so one call always ends.
func (ts *timers) advance(now time.Time) {
	last := ts.seq
	for len(ts.h) > 0 && !ts.h[0].at.After(now) && ts.h[0].seq <= last {
		t := ts.h[0]
		heap.Pop(&ts.h)
		t.fire(now)
	}
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if h[i].since != h[j].since {
		return h[i].since < h[j].since
	}
	return h[i].seq < h[j].seq
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h) + 1
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = 0
	return t
}
