package mapcache

import "time"

// measured is what others have measured about a locator.
type measured struct {
	rtt                   time.Duration
	packetsOut, octetsOut uint64
	packetsIn, octetsIn   uint64
}

// measured returns the measurements of a locator that some mapping lists, or nil.
func (c *Cache) measured(l Locator) *measured {
	id := c.locators.find(l.normal())
	if id == noLocator {
		return nil
	}
	m := c.locators.measured[id]
	if m == nil {
		m = new(measured)
		c.locators.measured[id] = m
	}
	return m
}

// SetRTT stores the round-trip time to a locator as last measured, e.g. by
// RLOC-probing; 0 or less forgets it. It is kept for as long as some mapping lists
// the locator, and ignored for others.
func (c *Cache) SetRTT(l Locator, rtt time.Duration) {
	if m := c.measured(l); m != nil {
		m.rtt = max(rtt, 0)
	}
}

// AddUsage takes in what a data plane reports: it adds the packets and octets to
// those of the locator, if some mapping lists it, and to those of the entry of the
// Key, and holds the entry for used if packets went out by it. The entry is the one that
// Used would take.
func (c *Cache) AddUsage(now time.Time, u Usage) {
	if m := c.measured(u.Locator); m != nil {
		m.packetsOut += u.PacketsOut
		m.octetsOut += u.OctetsOut
		m.packetsIn += u.PacketsIn
		m.octetsIn += u.OctetsIn
	}
	if s, ok := c.match(u.Key.normal()); ok {
		c.count(Outbound, s.entry(), u.PacketsOut, u.OctetsOut)
		c.count(Inbound, s.entry(), u.PacketsIn, u.OctetsIn)
	}
	if u.PacketsOut > 0 {
		c.Used(now, u.Key)
	}
}

// LocatorInfo returns what the cache knows about locator l. It reports false if no
// mapping lists it. Key is not filled in if its mapping was replaced; Locators
// finds another.
func (c *Cache) LocatorInfo(l Locator) (LocatorInfo, bool) {
	id := c.locators.find(l.normal())
	if id == noLocator {
		return LocatorInfo{}, false
	}
	return c.locatorInfo(id), true
}

func (c *Cache) locatorInfo(id uint32) LocatorInfo {
	cold := c.locators.cold.at(id)
	info := LocatorInfo{ID: id, Usable: cold.causes == 0}
	for cause := range numCauses {
		if cold.causes>>cause&1 != 0 {
			info.Causes = append(info.Causes, cause)
		}
	}
	if c.lists(cold.via, id) {
		info.Key = c.entries.at(cold.via).eid.key()
	}
	if m := c.locators.measured[id]; m != nil {
		info.RTT = m.rtt
		info.PacketsOut, info.OctetsOut = m.packetsOut, m.octetsOut
		info.PacketsIn, info.OctetsIn = m.packetsIn, m.octetsIn
	}
	return info
}
