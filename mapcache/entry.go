package mapcache

import (
	"math"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// never is the time of what does not happen.
const never = math.MaxInt64

// Entry is an entry of the cache as the writer sees it: a snapshot.
type Entry struct {
	Mapping              // TTL as given to Insert; Asked is not kept
	ID         uint32    // as in Decision.EntryID
	Created    time.Time // when the Key got an entry
	Updated    time.Time // when it was last stored
	Expires    time.Time // zero: never
	LastUsed   time.Time // zero: not since Created. Coarse: when the use was noticed
	Refreshing bool      // reported for refresh, and not stored again since
	Solicited  bool      // marked by an SMR, and not stored again since
	SMRs       uint32    // SMRs for it since Created, see MarkSMR
	LastSMR    time.Time // the last one that was taken

	// Inner packets to and from EIDs of the entry since Created, as far as Meters
	// and AddUsage have counted them.
	PacketsOut, OctetsOut uint64
	PacketsIn, OctetsIn   uint64
}

// entry is what only the writer needs to know of an entry.
type entry struct {
	eid              eid
	created, updated int64
	natural, expires int64 // by TTL alone; and not after any more-specific one
	lastUsed         int64 // never: not noticed yet
	armed            int64 // uses after it make a refresh
	ttl              time.Duration
	set              uint32 // 0: not alive
	pos              int32  // in the queue, -1: not queued
	prev, next       uint32 // in a ring
	version          uint16
	origin           Origin
	action           lisp.Action // as given, also of a positive mapping
	phase            phase
	authoritative    bool
	negative         bool
	proven           bool // used again after its first moments
}

func (e *entry) alive() bool { return e.set != 0 }

// learned entries expire and can be evicted.
func (e *entry) learned() bool { return e.origin != OriginStatic }

// bounds tells whether the entry has a part in the integrity of overlapping
// prefixes, see overlap.go. A gleaned one has not: it must not shorten the life
// of what is verified.
func (e *entry) bounds() bool { return e.origin.verified() }

// entry returns the snapshot of an entry.
func (c *Cache) entry(id uint32) Entry {
	e := c.entries.at(id)
	out := Entry{
		Mapping: Mapping{
			Key:           e.eid.key(),
			RLOCs:         c.rlocs(e.set),
			Action:        e.action,
			TTL:           e.ttl,
			Origin:        e.origin,
			Authoritative: e.authoritative,
			MapVersion:    e.version,
		},
		ID:         id,
		Created:    c.time(e.created),
		Updated:    c.time(e.updated),
		Expires:    c.time(e.expires),
		Refreshing: e.phase == phaseReported,
	}
	if e.lastUsed != never {
		out.LastUsed = c.time(e.lastUsed)
	}
	if smr := c.solicited[id]; smr != nil {
		out.Solicited, out.SMRs, out.LastSMR = smr.marked, smr.count, c.time(smr.last)
	}
	c.counted(id, &out)
	return out
}

// rlocs returns the locators of a set as they were given to Insert.
func (c *Cache) rlocs(set uint32) []RLOC {
	members := c.sets.choice(set).members
	if len(members) == 0 {
		return nil
	}
	list := make([]RLOC, len(members))
	for i, m := range members {
		list[i] = RLOC{
			Locator:  c.locators.locator(m.locator),
			Priority: m.priority, Weight: m.weight, Down: m.down,
			MPriority: m.mpriority, MWeight: m.mweight,
		}
	}
	return list
}

// forwarding returns what data planes mirror of a set.
func (c *Cache) forwarding(set uint32) Forwarding {
	h := c.sets.hot.at(set)
	f := Forwarding{Present: true, Verdict: h.verdict, Action: h.action, RLOCs: c.rlocs(set)}
	if f.Verdict == Encapsulate && h.buckets == 0 {
		f.Verdict = NoLocator
	}
	return f
}

// store writes a checked mapping to the entry of s, or to a new one if s is zero.
func (c *Cache) store(t int64, m *Mapping, s slot) { c.put(t, m, s, c.lifetime(t, m)) }

// put is store for a mapping that ends at natural, if no more-specific one ends
// before. It returns the id of the entry.
func (c *Cache) put(t int64, m *Mapping, s slot, natural int64) uint32 {
	verdict, action := m.verdict()
	// The new set first: locators that the old one shares keep their state.
	set := c.intern(verdict, action, c.members(m.RLOCs))
	ch := Change{Reason: ReasonRefreshed, Key: m.Key}
	id, old := s.entry(), s.set()
	if old == 0 {
		id = c.entryIDs.take()
		c.entries.grow(id)
		*c.entries.at(id) = entry{eid: packKey(m.Key), created: t, lastUsed: never, pos: -1}
		c.used.grow(id)
		c.used.clear(id)
		c.forgetCounts(id)
		c.size++
		ch.Reason = ReasonAdded
	}
	e := c.entries.at(id)
	if old != 0 {
		c.ring(e).unlink(c, id)
		ch.Old = c.forwarding(old)
	}
	e.set, e.updated, e.ttl = set, t, m.TTL
	e.origin, e.action, e.version = m.Origin, m.Action, m.MapVersion
	e.authoritative, e.negative = m.Authoritative, m.Negative()
	c.ring(e).push(c, id)
	c.setVia(set, id)
	if old != set {
		c.writeSlot(m.Key, id, set)
		if old != 0 {
			ch.Reason = ReasonUpdated
		}
	}
	if old != 0 {
		c.releaseSet(old)
	}
	before := e.expires
	if old == 0 {
		before = never
	}
	e.natural = natural
	if smr := c.solicited[id]; smr != nil {
		smr.marked = false
	}
	e.phase = phaseNew
	if e.proven {
		e.phase = phaseCached
	}
	c.reschedule(t, id, before)
	ch.New = c.forwarding(set)
	c.record(ch)
	return id
}

// lifetime returns when a mapping stored at t expires.
func (c *Cache) lifetime(t int64, m *Mapping) int64 {
	ttl := m.TTL
	switch m.Origin {
	case OriginStatic:
		return never
	case OriginGleaned:
		return t + int64(ttl)
	case OriginMapReply, OriginNotify:
	}
	if ttl == TTLForever {
		ttl = c.cfg.UnlimitedTTL
	}
	return t + int64(min(max(ttl, c.cfg.MinTTL), c.cfg.MaxTTL))
}

// remove removes an entry, records why, and lets less-specific ones live longer
// that it had kept short.
func (c *Cache) remove(id uint32, why Reason) {
	e := c.entries.at(id)
	key, expires, bounds := e.eid.key(), e.expires, e.bounds()
	c.drop(id, why)
	if bounds {
		c.relaxCovering(key, expires)
	}
}

// drop removes an entry and nothing else.
func (c *Cache) drop(id uint32, why Reason) {
	e := c.entries.at(id)
	key := e.eid.key()
	c.record(Change{Reason: why, Key: key, Old: c.forwarding(e.set)})
	c.ring(e).unlink(c, id)
	c.queue.remove(c, id)
	t, p := c.write(key)
	t.delete(p)
	if t == c.tries[key.IID] && t.table.Size() == 0 {
		delete(c.tries, key.IID)
	}
	c.releaseSet(e.set)
	*e = entry{}
	delete(c.solicited, id)
	c.entryIDs.put(id)
	c.size--
}

// Used tells that a data plane which does not forward by a View used an entry:
// the one of exactly k, or else the longest that covers k.
func (c *Cache) Used(now time.Time, k Key) {
	t := c.since(now)
	if s, ok := c.match(k.normal()); ok {
		c.used.set(s.entry()) // and stays set, for touch to see
		c.entries.at(s.entry()).lastUsed = t
	}
}

// touch takes note of uses by packets since it was last called.
func (c *Cache) touch(t int64, id uint32) {
	if c.used.clear(id) {
		e := c.entries.at(id)
		e.lastUsed = t
		e.proven = e.proven || e.phase != phaseNew
	}
}
