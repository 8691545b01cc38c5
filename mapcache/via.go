package mapcache

import "net/netip"

// Via is a way out: an interface, and the address families of our locators
// there.
type Via struct {
	IfIndex    int
	IPv4, IPv6 bool
	// Except, if not nil, tells which locators are not reached that way all the same.
	// It is only asked about those that Carries.
	Except func(id uint32, l Locator) bool
}

// takes is Carries and not Except.
func (v *Via) takes(id uint32, l *Locator) bool {
	return v.Carries(l) && (v.Except == nil || !v.Except(id, *l))
}

// Carries reports whether packets to l may leave by v.
func (v Via) Carries(l *Locator) bool {
	return (l.IfIndex == 0 || l.IfIndex == v.IfIndex) && (l.Addr.Is4() && v.IPv4 || l.Addr.Is6() && v.IPv6)
}

// ForwardVia is [View.Forward] for a packet whose way out is chosen already:
// locators that via does not carry count as unreachable. The Verdict is NoLocator
// if the mapping has locators, but none that can be used that way.
// No allocation; O(number of locators).
func (v *View) ForwardVia(iid uint32, dst netip.Addr, hash uint32, via Via) Decision {
	d := v.Forward(iid, dst, hash)
	if d.Verdict != Encapsulate || via.takes(d.LocatorID, &d.Locator) {
		return d
	}
	s, ok := v.table(iid).Lookup(dst.Unmap())
	if !ok {
		return d
	}
	members := v.sets.at(s.set()).choice.members
	priority, idle, pick := uint8(255), true, uint32(noLocator)
	var best score
	for i := range members {
		m := &members[i]
		if !m.usable() || m.priority > priority || v.down.test(m.locator) {
			continue
		}
		l := v.locators.at(m.locator).locator()
		if !via.takes(m.locator, &l) {
			continue
		}
		if m.priority == priority && m.weight == 0 && !idle { // it comes last
			continue
		}
		sc := makeScore(hash, l.salt(), m.weight)
		if m.priority < priority || idle && m.weight != 0 || sc.less(best) {
			priority, idle, pick, best = m.priority, m.weight == 0, m.locator, sc
		}
	}
	ch := Choice{LocatorID: pick, EntryID: d.EntryID, Verdict: Encapsulate}
	if pick == noLocator {
		ch = Choice{EntryID: d.EntryID, Verdict: NoLocator}
	}
	d = Decision{}
	v.complete(&d, ch)
	return d
}
