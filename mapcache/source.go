package mapcache

import "net/netip"

// SourceMatch says how the outer source of a decapsulated packet fits the mapping
// of its inner source.
type SourceMatch uint8

// How a source fits.
const (
	SourceUnknown  SourceMatch = iota // no mapping is known
	SourceMatches                     // the mapping lists the locator
	SourceMismatch                    // it does not, or is negative
)

// MatchSource tells whether the mapping of an inner source EID lists the address
// that the packet came from, with any Priority and whether it is up or not (RFC
// 9300 §16). The entry does not count as used. It allocates nothing and takes no
// lock.
func (v *View) MatchSource(iid uint32, eid, rloc netip.Addr) SourceMatch {
	table := v.table(iid)
	if table == nil {
		return SourceUnknown
	}
	s, ok := table.Lookup(eid.Unmap())
	if !ok {
		return SourceUnknown
	}
	rloc = rloc.Unmap().WithZone("")
	if ch := v.sets.at(s.set()).choice; ch != nil {
		for i := range ch.members {
			if v.locators.at(ch.members[i].locator).addr == rloc {
				return SourceMatches
			}
		}
	}
	return SourceMismatch
}
