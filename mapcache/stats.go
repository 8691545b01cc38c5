package mapcache

import "iter"

// Stats is a snapshot of what the cache holds and has done.
type Stats struct {
	Entries   int    // all entries
	Instances int    // Instance IDs other than 0 that have entries
	Sets      int    // distinct locator sets, the empty ones included
	Locators  int    // distinct locators
	Full      uint64 // mappings refused with ErrFull
	// Changes counts the changes made, by Reason; more than Changes returned if
	// some were dropped.
	Changes [numReasons]uint64
}

// Stats returns the counters of the cache. O(number of distinct sets).
func (c *Cache) Stats() Stats {
	s := Stats{
		Entries: c.size, Instances: len(c.tries), Locators: len(c.locators.index),
		Full: c.full, Changes: c.counts,
	}
	for id := uint32(1); id <= c.sets.ids.next; id++ {
		if c.sets.info.at(id).refs > 0 {
			s.Sets++
		}
	}
	return s
}

// Within iterates over the entries of an instance inside a prefix, the prefix
// itself included, in the order of [Cache.All]. The cache must not be modified
// meanwhile.
func (c *Cache) Within(k Key) iter.Seq[Entry] {
	k = MakeKey(k.IID, k.Prefix)
	return func(yield func(Entry) bool) {
		t := c.trie(k.IID)
		if t == nil {
			return
		}
		for _, s := range t.table.Subnets(k.Prefix) {
			if !yield(c.entry(s.entry)) {
				return
			}
		}
	}
}
