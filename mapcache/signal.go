package mapcache

import "net/netip"

// Signals is what the control plane of a closed network has the data plane say
// in the data headers of packets, and expect there: Map-Versions (RFC 9302),
// Locator-Status-Bits (RFC 9300 §10) and nonces (§10.1). On the public Internet
// there are none (§4.1).
type Signals struct {
	// Locals replaces, unless it is nil, all that was said of our own
	// EID-Prefixes.
	Locals []LocalSignal
	// Entries and Locators change what they name and nothing else.
	Entries  []EntrySignal
	Locators []LocatorSignal
}

// LocalSignal is about packets from and to an EID-Prefix of ours: the longest
// that matches the inner address.
type LocalSignal struct {
	Key
	// MapVersion is the Map-Version Number of our mapping, 1..4095, or 0 if it
	// has none.
	MapVersion uint16
	// Oldest is the oldest Map-Version Number that somebody can still have in a
	// map-cache: packets with an older one are dropped. 0: any.
	Oldest uint16
	// LSBs are sent if UseLSBs is set. Bit i is the locator at position i of our
	// mapping.
	LSBs    uint32
	UseLSBs bool
}

// EntrySignal is about packets to and from the EIDs of a map-cache entry.
type EntrySignal struct {
	EntryID    uint32 // as in Decision.EntryID
	MapVersion uint16 // of the mapping, 1..4095, or 0 if it has none
	// LSBs are those that the control plane has acted upon, one for each of the
	// mapping's Locators. Others are reported as a Discovery. Only the first 32
	// locators have one; with 0 Locators nothing is looked at.
	LSBs     uint32
	Locators uint8
}

// LocatorSignal is about packets to and from a locator, in any format.
type LocatorSignal struct {
	Addr netip.Addr
	// Nonce is the nonce, 24 bits, whose echo is to be reported, and which every
	// packet asks to be echoed while Ask is set. 0: none.
	Nonce uint32
	Ask   bool
	// RefuseStale has packets dropped that come with an old Map-Version of ours.
	RefuseStale bool
}

// LookupID returns the number of the entry that packets to a match, as in
// Decision.EntryID, without marking it as used: for looking at the source of a
// packet. It allocates nothing and takes no lock.
func (v *View) LookupID(iid uint32, a netip.Addr) (uint32, bool) {
	table := v.table(iid)
	if table == nil {
		return 0, false
	}
	s, ok := table.Lookup(a.Unmap())
	return s.entry(), ok
}

// SetStatus says for each locator of the entry of exactly k whether it is down,
// as if the R bits of the mapping had been so: by Locator-Status-Bits, which are
// about the locators of one EID-Prefix (RFC 9300 §10). Lifetime, refresh and all
// else stay as they are. It reports whether anything changed, which is then
// recorded as a [Change] with ReasonUpdated and holds from Publish on.
func (c *Cache) SetStatus(k Key, down func(Locator) bool) bool {
	k = k.normal()
	s, ok := c.find(k)
	if !ok {
		return false
	}
	id, old := s.entry(), s.set()
	members := append(c.scratch[:0], c.sets.choice(old).members...)
	c.scratch = members
	changed := false
	for i := range members {
		d := down(c.locators.locator(members[i].locator))
		changed = changed || d != members[i].down
		members[i].down = d
	}
	if !changed {
		return false
	}
	for _, m := range members {
		c.locators.cold.at(m.locator).refs++ // which passes to the new set
	}
	h := c.sets.hot.at(old)
	ch := Change{Reason: ReasonUpdated, Key: k, Old: c.forwarding(old)}
	set := c.intern(h.verdict, h.action, members)
	c.entries.at(id).set = set
	c.setVia(set, id)
	c.writeSlot(k, id, set)
	c.releaseSet(old)
	ch.New = c.forwarding(set)
	c.record(ch)
	return true
}
