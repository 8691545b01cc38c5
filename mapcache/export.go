package mapcache

import (
	"fmt"
	"iter"
	"time"
)

// Saved is an entry in a form that outlives the process: plain data, for JSON or
// whatever else carries exported fields. Counters and the reachability of
// locators are not part of it: both belong to the process that measured them.
type Saved struct {
	Mapping               // Asked is the zero Prefix
	Left    time.Duration // what was left of its life; 0 of a static entry
	Taken   time.Time     // when that was, by the wall clock
}

// Export iterates over the entries for [Cache.Import] into the cache of a later
// process, in the order of [Cache.All]. Gleaned entries and those that have
// expired at now are left out. The cache must not be modified meanwhile.
func (c *Cache) Export(now time.Time) iter.Seq[Saved] {
	t := c.since(now)
	taken := now.Round(0) // the monotonic clock means nothing elsewhere
	return func(yield func(Saved) bool) {
		for e := range c.All() {
			s := Saved{Mapping: e.Mapping, Taken: taken}
			at := c.entries.at(e.ID)
			switch {
			case at.origin == OriginGleaned || at.expires <= t:
				continue
			case at.expires != never:
				// Not what is left by TTL alone: a more-specific entry that expires
				// before the import must take this one with it.
				s.Left = time.Duration(at.expires - t)
			}
			if !yield(s) {
				return
			}
		}
	}
}

// Import stores an exported entry again, so that a restart starts warm, and
// reports whether it did. The time since the export counts; if the clock stands
// before it, as on a host without a clock of its own, the entry has the life
// that was left. In no case it lives longer than if it had just been learned,
// and a use of it is reported for refresh as ever.
//
// It stores nothing, without an error, if the entry has expired, if it was
// static (give its Mapping to [Cache.Insert] to have it again), and if the cache
// has an entry of that Key, which is newer. It evicts nothing. It fails with
// ErrInvalid, and with ErrFull if there is no room.
func (c *Cache) Import(now time.Time, s Saved) (bool, error) {
	m := s.Mapping
	m.Key = m.normal()
	err := m.check()
	if err == nil && m.TTL == 0 {
		err = fmt.Errorf("%w: no TTL", ErrInvalid)
	}
	if err != nil {
		return false, fmt.Errorf("mapcache: import %v: %w", m.Key, err)
	}
	t := c.since(now)
	left := min(s.Left-max(0, now.Sub(s.Taken)), time.Duration(c.lifetime(t, &m)-t))
	if _, exists := c.find(m.Key); exists || left <= 0 || m.Origin == OriginStatic {
		return false, nil
	}
	if c.size >= c.cfg.MaxEntries {
		c.full++
		return false, fmt.Errorf("mapcache: import %v: %w", m.Key, ErrFull)
	}
	id := c.put(t, &m, slot{}, t+int64(left))
	// No packet has asked for it, so its first use proves its worth already.
	c.entries.at(id).phase = phaseCached
	c.plan(t, id)
	return true, nil
}
