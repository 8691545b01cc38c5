package mapcache

import "iter"

// Stats is a snapshot of what the cache holds and has done.
type Stats struct {
	Entries   int    // all entries
	MACs      int    // of them those of MACs
	Instances int    // Instance IDs other than 0 that have entries of EID-Prefixes
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
		Entries: c.size, MACs: c.macs.table.Size(), Instances: len(c.tries), Locators: int(c.locators.index.n),
		Full: c.full, Changes: c.counts,
	}
	for id := uint32(1); id <= c.sets.ids.next; id++ {
		if *c.sets.refs.at(id) > 0 {
			s.Sets++
		}
	}
	return s
}

// Within iterates over the entries of an instance inside a prefix, the prefix
// itself included, in the order of [Cache.All]; over all entries of the instance,
// MACs last, if k has neither Prefix nor MAC. The cache must not be modified
// meanwhile.
func (c *Cache) Within(k Key) iter.Seq[Entry] {
	k = k.normal()
	return func(yield func(Entry) bool) {
		if k == (Key{IID: k.IID}) {
			t := c.tries[k.IID]
			if k.IID == 0 {
				t = &c.main
			}
			if t == nil || c.yield(t.table.AllSorted(), yield) {
				c.yield(c.macsOf(k.IID), yield)
			}
		} else if t, p := c.trie(k); t != nil {
			c.yield(t.table.Subnets(p), yield)
		}
	}
}
