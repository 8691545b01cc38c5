package mapcache

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// gleanedTTL is how long a gleaned entry is used without verification (RFC 9300 §9).
	gleanedTTL = 3 * time.Second
	// maxGleaned bounds the locators of a gleaned entry.
	maxGleaned = 8
)

// Glean takes from a decapsulated packet that its inner source EID is behind the
// outer source locator l (RFC 9300 §9), so that an answer need not wait. It
// reports whether that was news: then the caller verifies it by a Map-Request for
// the EID, whose reply goes to Insert as usual.
//
// Without Config.Gleaning, and where any verified, negative or static mapping
// covers the EID, it does nothing. All gleaned locators of an EID have equal
// Priority and Weight 0. They are used for 3 seconds from the first, and not
// longer by gleaning again meanwhile.
func (c *Cache) Glean(now time.Time, iid uint32, eid netip.Addr, l Locator) bool {
	m := Mapping{Key: HostKey(iid, eid), Origin: OriginGleaned, TTL: gleanedTTL}
	l = l.normal()
	if !c.cfg.Gleaning || iid > maxIID || !eid.IsValid() || !l.Addr.IsValid() || !l.encapsulable() || l.Format >= numFormats {
		return false
	}
	t := c.since(now)
	s, ok := c.match(m.Key)
	if ok {
		e := c.entries.at(s.entry())
		if m.RLOCs = c.rlocs(e.set); e.origin != OriginGleaned || e.expires <= t || len(m.RLOCs) == maxGleaned ||
			slices.ContainsFunc(m.RLOCs, func(r RLOC) bool { return r.Locator == l }) {
			return false
		}
		m.TTL = time.Duration(e.expires - t)
	}
	if !ok && c.size >= c.cfg.MaxEntries && !c.evict(t) {
		return false
	}
	m.RLOCs = append(m.RLOCs, RLOC{Locator: l, Priority: 1, MPriority: 255})
	c.store(t, &m, s)
	return true
}
