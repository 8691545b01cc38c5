package mapcache

import (
	"slices"
	"time"
)

// phase is where an entry is in its life. Each phase has one next event in the
// queue, so that an entry costs no timer of its own.
type phase uint8

const (
	phaseNew       phase = iota // its first uses are those of the packets that asked for it
	phaseCached                 // nothing to do until refresh comes near
	phaseWatched                // used from now on: report for refresh
	phaseReported               // reported for refresh; expires unless stored again
	phaseLast                   // too late for a refresh
	phaseSolicited              // an SMR came: report for refresh at once
)

const (
	// probation is how long uses of a new entry prove nothing about its worth.
	probation = 2 * time.Second
	// maxLead is the longest time before the end at which a refresh is reported.
	maxLead = time.Minute
	// tooLate is when a refresh is not worth reporting any more.
	tooLate = 2 * time.Second
	// advanceLooks and advanceDrops bound one Advance: the entries that it looks
	// at, about 0.2 µs each, and the entries that it removes, 5 to 10 µs each in a
	// large trie that Views share. However many entries end together, whoever
	// owns the cache gets back in a tenth of a millisecond or so.
	advanceLooks = 512
	advanceDrops = 8
)

// Advance does what is due at now: it removes expired entries, and returns the
// keys of entries that are in use and should be resolved again before they
// expire, each once until it is stored again. An entry counts as in use if a
// packet used it during the last minute or so before its refresh time, or later.
// Those of MarkSMR are returned too, in use or not.
//
// The work of one call is bounded, to 8 entries removed or 512 looked at: if
// more is due, Deadline is not after now. Between such calls the owner of the
// cache has time for other mutations, and for Publish.
func (c *Cache) Advance(now time.Time) (refresh []Key) {
	t := c.since(now)
	drops := 0
	for range advanceLooks {
		id, at := c.queue.first()
		if at > t || drops == advanceDrops {
			break
		}
		e := c.entries.at(id)
		if e.expires <= t {
			drops += c.expire(id, advanceDrops-drops)
			continue
		}
		c.touch(t, id)
		switch e.phase {
		case phaseNew:
			e.phase = phaseCached
		case phaseCached:
			e.phase, e.armed = phaseWatched, t
		case phaseWatched:
			switch {
			case e.lastUsed != never && e.lastUsed > e.armed:
				e.phase = phaseReported
				refresh = append(refresh, e.eid.key())
			case e.expires-t < int64(tooLate):
				e.phase = phaseLast
			default:
				e.armed = t
			}
		case phaseSolicited:
			e.phase = phaseReported
			refresh = append(refresh, e.eid.key())
		case phaseReported, phaseLast: // queued for their end only
		}
		c.plan(t, id)
	}
	return refresh
}

// Deadline is when Advance has something to do: a time not after the last now
// means at once, the zero Time never.
func (c *Cache) Deadline() time.Time {
	_, at := c.queue.first()
	return c.time(at)
}

// plan queues the next event of an entry after its phase or its end changed.
func (c *Cache) plan(t int64, id uint32) {
	e := c.entries.at(id)
	if e.expires == never {
		c.queue.remove(c, id)
		return
	}
	at := e.expires
	lead := min(int64(float64(e.expires-e.updated)*(1-c.cfg.RefreshFraction)), int64(maxLead))
	switch e.phase {
	case phaseNew:
		at = e.updated + int64(probation)
	case phaseCached:
		at = e.expires - 2*lead
	case phaseWatched:
		// An idle entry is looked at again and again, at half the time that is left.
		at = max(e.expires-lead, t+(e.expires-t)/2)
	case phaseSolicited:
		at = t
	case phaseReported, phaseLast: // at their end
	}
	c.queue.set(c, id, min(at, e.expires))
}

// expire removes an entry together with the less-specific ones, which would
// otherwise attract its traffic and are due as well; at most room of them, and
// then the least specific ones. It returns their number.
func (c *Cache) expire(id uint32, room int) int {
	family := c.family(id) // the least specific one is last but id itself
	last := len(family) - 1
	dropped := 0
	for _, up := range slices.Backward(family[:last]) {
		if dropped == room {
			return dropped
		}
		c.drop(up, ReasonExpired)
		dropped++
	}
	if dropped < room {
		c.drop(id, ReasonExpired)
		dropped++
	}
	return dropped
}

// queue is a heap of entries by the time of their next event. It grows by chunks
// and never moves as a whole.
type queue struct {
	items slab[event]
	n     int32
}

type event struct {
	at int64
	id uint32
}

// first returns the entry with the earliest event; its time is never if there is none.
func (q *queue) first() (id uint32, at int64) {
	if q.n == 0 {
		return 0, never
	}
	e := q.items.at(0)
	return e.id, e.at
}

// set queues an entry, or moves it if it is queued.
func (q *queue) set(c *Cache, id uint32, at int64) {
	pos := c.entries.at(id).pos
	if pos < 0 {
		pos = q.n
		q.n++
		q.items.grow(uint32(pos))
	}
	q.place(c, pos, event{at, id})
	q.fix(c, pos)
}

// remove takes an entry out, if it is queued.
func (q *queue) remove(c *Cache, id uint32) {
	pos := c.entries.at(id).pos
	if pos < 0 {
		return
	}
	c.entries.at(id).pos = -1
	q.n--
	if pos == q.n {
		return
	}
	q.place(c, pos, *q.get(q.n))
	q.fix(c, pos)
}

func (q *queue) get(pos int32) *event { return q.items.at(uint32(pos)) }

func (q *queue) place(c *Cache, pos int32, e event) {
	*q.get(pos) = e
	c.entries.at(e.id).pos = pos
}

// fix restores the heap after the event at pos changed.
func (q *queue) fix(c *Cache, pos int32) {
	e := *q.get(pos)
	for pos > 0 {
		up := (pos - 1) / 2
		if q.get(up).at <= e.at {
			break
		}
		q.place(c, pos, *q.get(up))
		pos = up
	}
	for {
		down := 2*pos + 1
		if down >= q.n {
			break
		}
		if down+1 < q.n && q.get(down+1).at < q.get(down).at {
			down++
		}
		if e.at <= q.get(down).at {
			break
		}
		q.place(c, pos, *q.get(down))
		pos = down
	}
	q.place(c, pos, e)
}
