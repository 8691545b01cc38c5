package mapcache

// Eviction makes room for a new entry. Learned entries stand in two rings,
// negative (with gleaned ones) and positive, and a hand goes round each: what it passes moves to the
// back. It prefers what is idle, negative, or has never been used again after
// the packet that asked for it. Entries in use are not evicted at all, so a
// flood of packets to random destinations evicts its own traces only.

// ring is a doubly linked list through the entries; next is towards the back.
type ring struct{ front, back uint32 }

// ring returns the ring of an entry; static ones are in none.
func (c *Cache) ring(e *entry) *ring {
	switch {
	case !e.learned():
		return nil
	case e.negative || e.origin == OriginGleaned:
		return &c.rings[0]
	}
	return &c.rings[1]
}

// push puts an entry at the back.
func (r *ring) push(c *Cache, id uint32) {
	if r == nil {
		return
	}
	e := c.entries.at(id)
	e.prev, e.next = r.back, 0
	if r.back == 0 {
		r.front = id
	} else {
		c.entries.at(r.back).next = id
	}
	r.back = id
}

func (r *ring) unlink(c *Cache, id uint32) {
	if r == nil {
		return
	}
	e := c.entries.at(id)
	if e.prev == 0 {
		r.front = e.next
	} else {
		c.entries.at(e.prev).next = e.next
	}
	if e.next == 0 {
		r.back = e.prev
	} else {
		c.entries.at(e.next).prev = e.prev
	}
	e.prev, e.next = 0, 0
}

// rank orders entries for eviction, first victims first.
type rank uint8

const (
	rankIdle     rank = iota // not used for Config.IdleTime
	rankNegative             // used, but cheap to ask for again
	rankUnproven             // never used after its first moments
	rankNew                  // in its first moments
	rankInUse
)

// maxHand is how many entries of a ring the hand passes for one eviction.
const maxHand = 64

// evict removes one entry, and the less-specific ones that would attract its
// traffic. It reports false if it found only entries in use.
func (c *Cache) evict(t int64) bool {
	victim, worst := uint32(0), rankInUse
	for i := range c.rings {
		r := &c.rings[i]
		for range maxHand {
			id := r.front
			if id == 0 {
				break
			}
			of := c.rank(t, id)
			if of < worst {
				for _, up := range c.family(id) {
					of = max(of, c.rank(t, up))
				}
			}
			if of < worst {
				victim, worst = id, of
			}
			if worst == rankIdle {
				break
			}
			r.unlink(c, id)
			r.push(c, id)
			if r.front == id {
				break // alone
			}
		}
		if worst == rankIdle {
			break
		}
	}
	if victim == 0 {
		return false
	}
	for _, id := range c.family(victim) {
		c.drop(id, ReasonEvicted)
	}
	return true
}

func (c *Cache) rank(t int64, id uint32) rank {
	c.touch(t, id)
	e := c.entries.at(id)
	used := e.created
	if e.lastUsed != never {
		used = e.lastUsed
	}
	switch {
	case t-used >= int64(c.cfg.IdleTime):
		return rankIdle
	case e.negative || e.origin == OriginGleaned:
		return rankNegative
	case e.proven:
		return rankInUse
	case e.phase == phaseNew:
		return rankNew
	}
	return rankUnproven
}
