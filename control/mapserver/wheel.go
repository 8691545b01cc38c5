package mapserver

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// wheel holds the claims by the time at or before which they have to be looked
// at. Refreshing a claim does not touch it: a claim that turns out to live on is
// put off when it comes up. Claims wait in slots of 50 ms, and only those that
// end later in a slot that is reached are sorted, so that each step of the work
// is small however many claims there are. One due further away than the wheel
// reaches comes up early.
type wheel struct {
	slots   [wheelSlots]*claim
	used    [wheelSlots / 64]uint64 // a bit for each slot that is not empty
	reached int64                   // slots before this one are
	current *claim                  // of slots reached, to be looked at
	soon    []deadline              // a heap by time, in slots reached
}

const (
	slotWidth  = int64(50 * time.Millisecond)
	wheelSlots = 1 << 12 // over three minutes
)

type deadline struct {
	at    int64 // ticks
	claim *claim
}

// add has c looked at when its time comes, instead of what was planned for it.
func (w *wheel) add(c *claim, at int64) {
	w.remove(c)
	slot := at / slotWidth
	if slot < w.reached {
		w.addSoon(c, at)
		return
	}
	slot = min(slot, w.reached+wheelSlots-1) % wheelSlots
	c.slot = uint16(slot) + 1
	w.used[slot/64] |= 1 << (slot % 64)
	w.link(&w.slots[slot], c)
}

func (w *wheel) addSoon(c *claim, at int64) {
	if !c.inSoon {
		c.inSoon = true
		w.soon = append(w.soon, deadline{})
		w.up(len(w.soon)-1, deadline{at, c})
		return
	}
	// It comes up in any case; only sooner than it was to is of interest, and rare.
	i := slices.IndexFunc(w.soon, func(d deadline) bool { return d.claim == c })
	if at < w.soon[i].at {
		w.up(i, deadline{at, c})
	}
}

// sweep forgets claims in the heap that are no more, when they are more than
// half of it. A clock that once went ahead and came back leaves all to the heap.
func (w *wheel) sweep(live int) {
	if len(w.soon) <= 2*live+1024 {
		return
	}
	w.soon = slices.DeleteFunc(w.soon, func(d deadline) bool { return d.claim.replaced })
	slices.SortFunc(w.soon, func(a, b deadline) int { return cmp.Compare(a.at, b.at) }) // a heap too
}

func (w *wheel) link(head **claim, c *claim) {
	if c.next = *head; c.next != nil {
		c.next.prev = c
	}
	*head, c.prev = c, nil
}

// remove takes c out. If it is in the heap it stays there until its time.
func (w *wheel) remove(c *claim) {
	if c.slot == 0 {
		return
	}
	switch {
	case c.prev != nil:
		c.prev.next = c.next
	case w.current == c:
		w.current = c.next
	default:
		slot := c.slot - 1
		w.slots[slot] = c.next
		if c.next == nil {
			w.used[slot/64] &^= 1 << (slot % 64)
		}
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev, c.slot = nil, nil, 0
}

// next is when there is something to do, at the latest; false when never.
func (w *wheel) next() (int64, bool) {
	first := int64(math.MaxInt64)
	if w.current != nil {
		return math.MinInt64, true
	}
	if len(w.soon) > 0 {
		first = w.soon[0].at
	}
	if slot, ok := w.firstUsed(); ok {
		first = min(first, slot*slotWidth)
	}
	return first, first != math.MaxInt64
}

// firstUsed is the number of the first slot not reached that is not empty.
func (w *wheel) firstUsed() (int64, bool) {
	at := w.reached % wheelSlots
	for i := range int64(len(w.used) + 1) {
		word := (at/64 + i) % int64(len(w.used))
		set := w.used[word]
		switch i {
		case 0:
			set &= ^uint64(0) << (at % 64)
		case int64(len(w.used)):
			set &= 1<<(at%64) - 1
		}
		if set != 0 {
			slot := word*64 + int64(bits.TrailingZeros64(set))
			return w.reached + (slot-at+wheelSlots)%wheelSlots, true
		}
	}
	return 0, false
}

// step does a small part of what is to be done by now. It returns a claim whose
// time has come, if that was it; false when nothing is left.
func (w *wheel) step(now int64) (*claim, bool) {
	if c := w.current; c != nil {
		w.remove(c)
		at := c.expires.Load()
		if at <= now {
			return c, true
		}
		w.add(c, at)
		return nil, true
	}
	if slot, ok := w.firstUsed(); ok && slot*slotWidth <= now {
		w.reached = slot + 1
		slot %= wheelSlots
		w.current, w.slots[slot] = w.slots[slot], nil
		w.used[slot/64] &^= 1 << (slot % 64)
		return nil, true
	}
	w.reached = max(w.reached, now/slotWidth+1)
	if len(w.soon) == 0 || w.soon[0].at > now {
		return nil, false
	}
	return w.pop().claim, true
}

// up puts d in the place i of the heap, or above it.
func (w *wheel) up(i int, d deadline) {
	h := w.soon
	for i > 0 && h[(i-1)/2].at > d.at {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i] = d
}

func (w *wheel) pop() deadline {
	h := w.soon
	top, last := h[0], h[len(h)-1]
	h[len(h)-1] = deadline{}
	h = h[:len(h)-1]
	w.soon = h
	i := 0
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if h[child].at >= last.at {
			break
		}
		h[i] = h[child]
		i = child
	}
	if len(h) > 0 {
		h[i] = last
	}
	top.claim.inSoon = false
	return top
}
