package mapcache

import "net/netip"

// RFC 9301 §5.5 wants the integrity of overlapping EID-Prefixes: no more-specific
// entry is removed while a less-specific one stays, since traffic would be
// redirected. The cache keeps this invariant among learned entries:
//
//	expires(P) = min(natural(P), expires(M) of every M within P)
//
// where natural is the end by TTL alone. Static entries stand outside: they say
// what happens to everything that is not known better. So do gleaned ones.

// maxCovered bounds the more-specific entries that one mutation looks at. If a
// prefix covers more, its end is only as early as that of those, and expire
// sees to the invariant.
const maxCovered = 1024

// covering returns the entries with a part in the invariant whose prefix covers k
// and is shorter, shortest last. The result is valid until the next call.
func (c *Cache) covering(k Key) []uint32 {
	c.above = c.above[:0]
	t, at := c.trie(k)
	if t == nil {
		return nil
	}
	for p, s := range t.table.Supernets(at) {
		if p.Bits() < at.Bits() && c.entries.at(s.entry()).bounds() {
			c.above = append(c.above, s.entry())
		}
	}
	return c.above
}

// reschedule gives an entry its end after it was stored at t, and adapts the
// less-specific ones. before is when it would have ended before.
func (c *Cache) reschedule(t int64, id uint32, before int64) {
	e := c.entries.at(id)
	e.expires = e.natural
	if e.bounds() {
		e.expires = c.bounded(e)
	}
	c.plan(t, id)
	if e.origin == OriginGleaned {
		return
	}
	for _, up := range c.covering(e.eid.key()) {
		switch p := c.entries.at(up); {
		case p.expires > e.expires:
			c.bound(t, up, e.expires)
		case p.expires == before && before < e.expires && p.expires < p.natural:
			c.bound(t, up, c.bounded(p))
		}
	}
}

// relaxCovering lets entries live on that an entry of k, gone now, had bounded
// to expires.
func (c *Cache) relaxCovering(k Key, expires int64) {
	for _, up := range c.covering(k) {
		if p := c.entries.at(up); p.expires == expires && p.expires < p.natural {
			c.bound(p.updated, up, c.bounded(p))
		}
	}
}

// family returns an entry and those that have to go with it: the less-specific
// ones, which would otherwise attract its traffic. They come first.
func (c *Cache) family(id uint32) []uint32 {
	e := c.entries.at(id)
	if !e.bounds() {
		return append(c.above[:0], id)
	}
	return append(c.covering(e.eid.key()), id)
}

// bound changes the end of an entry.
func (c *Cache) bound(t int64, id uint32, expires int64) {
	e := c.entries.at(id)
	if e.expires == expires {
		return
	}
	e.expires = expires
	if e.phase == phaseLast {
		e.phase = phaseWatched
	}
	c.plan(t, id)
}

// bounded returns when an entry ends for the sake of more-specific ones.
func (c *Cache) bounded(e *entry) int64 {
	end := e.natural
	t, at := c.trie(e.eid.key())
	if at.IsSingleIP() || at.Bits() == macTrieBits && t == &c.macs {
		return end
	}
	n := 0
	for p, s := range t.table.Subnets(at) {
		m := c.entries.at(s.entry())
		if p == at || !m.bounds() {
			continue
		}
		end = min(end, m.expires)
		if n++; n == maxCovered {
			break
		}
	}
	return end
}

// replaceCovered removes the learned entries within k that cover asked: the
// answer k to a request for asked says that they are no more. Entries stored at
// t came with the same answer.
func (c *Cache) replaceCovered(k Key, asked netip.Prefix, t int64) {
	asked = MakeKey(0, asked).Prefix
	trie, _ := c.trie(k)
	if trie == nil || !asked.IsValid() || !k.Prefix.Overlaps(asked) {
		return
	}
	var gone []uint32
	for p, s := range trie.table.Supernets(asked) {
		e := c.entries.at(s.entry())
		if p.Bits() > k.Prefix.Bits() && e.learned() && e.updated != t {
			gone = append(gone, s.entry())
		}
	}
	for _, id := range gone {
		c.remove(id, ReasonReplaced)
	}
}
