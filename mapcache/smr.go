package mapcache

import "time"

// smrHold is how long an entry marked by an SMR is not marked again, unless it
// was stored meanwhile: the request that the first one caused is on its way.
const smrHold = 10 * time.Second

// solicited is what is known of the SMRs for an entry. Few entries have it.
type solicited struct {
	count  uint32
	last   int64
	marked bool // and not stored since
}

// MarkSMR takes note of a Solicit-Map-Request for k (RFC 9301 §6.1): of the entry
// of exactly k, or else the longest that covers k. The entry stays in use, and the
// next Advance reports it for refresh, once, used or not. The mark goes when the
// entry is stored again.
//
// It reports whether a refresh will follow: not if there is no such entry, if it is
// static or gleaned, and not within 10 seconds of the last SMR that was taken, if
// the refresh that it caused is still awaited. Whether the sender of the SMR may
// send it is for the caller to check. Entry shows how many came.
func (c *Cache) MarkSMR(now time.Time, k Key) bool {
	t := c.since(now)
	s, ok := c.match(k.normal())
	if !ok {
		return false
	}
	id := s.entry()
	e := c.entries.at(id)
	if !e.origin.verified() || e.expires <= t {
		return false
	}
	smr := c.solicited[id]
	if smr == nil {
		smr = new(solicited)
		c.solicited[id] = smr
	}
	smr.count++
	if smr.marked && t-smr.last < int64(smrHold) {
		return false
	}
	smr.marked, smr.last = true, t
	e.phase = phaseSolicited
	c.plan(t, id)
	return true
}
