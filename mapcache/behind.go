package mapcache

import "net/netip"

// BehindNAT tells whether the mapping of an EID lists a locator with a NAT on the
// way, up or not: to an RTR, whether the EID is registered through it. The entry
// does not count as used. It allocates nothing and takes no lock.
func (v *View) BehindNAT(iid uint32, eid netip.Addr) bool {
	table := v.table(iid)
	if table == nil {
		return false
	}
	s, ok := table.Lookup(eid.Unmap())
	if !ok {
		return false
	}
	if ch := v.sets.at(s.set()).choice; ch != nil {
		for i := range ch.members {
			if v.locators.at(ch.members[i].locator).nat {
				return true
			}
		}
	}
	return false
}
