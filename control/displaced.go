package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// recentNotifies is how many unsolicited Map-Notifies of a Map-Server are known
// again. They are retransmitted until acknowledged, and could be replayed.
const recentNotifies = 32

// seenBefore reports whether an unsolicited Map-Notify came already.
func (s *mapServer) seenBefore(n lisp.Nonce) bool {
	if slices.Contains(s.notifies, n) {
		return true
	}
	if len(s.notifies) >= recentNotifies {
		s.notifies = slices.Delete(s.notifies, 0, 1)
	}
	s.notifies = append(s.notifies, n)
	return false
}

// noteRegistered looks at what a verified Map-Notify of s says about EID-Prefixes
// of ours. Where registrations are merged it has the locators of the site's other
// xTRs, which our Map-Replies then have too. Where they are not, and it has none of
// ours, another xTR has taken the EID-Prefix over: its traffic still comes here
// until those who send it ask again, so they are told.
func (e *Engine) noteRegistered(now time.Time, s *mapServer, records []lisp.EIDRecord, unsolicited bool) {
	var moved []mapcache.Key
	for i := range records {
		rec := &records[i]
		k, ok := recordKey(rec)
		if !ok || !e.isOurs(k) {
			continue
		}
		m := &e.db[e.dbPos[k]]
		others := otherLocators(rec, &m.record)
		switch {
		case s.Merge:
			if len(others) > 0 {
				s.others[k] = otherXTRs{others, now}
			} else {
				delete(s.others, k)
			}
			if all := e.mergedLocators(now, k); !slices.Equal(all, m.merged) {
				m.merged = all
				moved = append(moved, k)
			}
		case unsolicited && len(others) == len(rec.Locators) && (hasOwn(&m.record) || e.nat.any()):
			ev := Displaced{Stamp: Stamp{now}, MapServer: s.Addr, EID: k}
			for _, l := range others {
				if ip, ok := l.RLOC.IP(); ok {
					ev.RLOCs = append(ev.RLOCs, ip)
				}
			}
			e.emit(ev)
			moved = append(moved, k)
		}
	}
	if len(moved) > 0 {
		e.versionDatabase(now) // which ordinal is whose
	}
	e.solicit(now, moved)
}

// otherXTRs is what a Map-Server said last of the locators of the site's other xTRs.
type otherXTRs struct {
	rlocs []lisp.RLOCRecord
	at    time.Time
}

// mergedLocators are the locators of the site's other xTRs for k that any
// Map-Server knows of. They need not agree, as an xTR may have reached only some;
// one that is not heard of any more does not count.
func (e *Engine) mergedLocators(now time.Time, k mapcache.Key) (all []lisp.RLOCRecord) {
	for _, s := range e.servers {
		o := s.others[k]
		if now.Sub(o.at) > registrationLife {
			continue
		}
		for _, l := range o.rlocs {
			if !slices.ContainsFunc(all, func(a lisp.RLOCRecord) bool { return a.RLOC == l.RLOC }) {
				all = append(all, l)
			}
		}
	}
	return all
}

// otherLocators are the locators of rec that own has not, as another's.
func otherLocators(rec, own *lisp.EIDRecord) (out []lisp.RLOCRecord) {
	for _, l := range rec.Locators {
		ip, ok := l.RLOC.IP()
		if ok && !usableUnicast(ip.Unmap()) || slices.ContainsFunc(own.Locators, func(o lisp.RLOCRecord) bool { return o.RLOC == l.RLOC }) {
			continue
		}
		l.Local, l.Probed = false, false
		out = append(out, l)
	}
	return out
}

// hasOwn reports whether a record of ours has a locator that traffic can come to.
func hasOwn(own *lisp.EIDRecord) bool {
	return slices.ContainsFunc(own.Locators, func(l lisp.RLOCRecord) bool { return l.Local && l.Reachable })
}

// siteRecord is the record of m as a Map-Reply has it.
func siteRecord(m *localMapping) lisp.EIDRecord {
	if len(m.merged) == 0 {
		return m.record
	}
	r := m.record
	r.Locators = append(slices.Clone(r.Locators), m.merged...)
	fitLocators(&r)
	sortLocators(&r)
	return r
}

func sortLocators(r *lisp.EIDRecord) {
	slices.SortStableFunc(r.Locators, func(a, b lisp.RLOCRecord) int {
		x, _ := a.RLOC.IP()
		y, _ := b.RLOC.IP()
		return x.Compare(y)
	})
	r.Locators = slices.CompactFunc(r.Locators, func(a, b lisp.RLOCRecord) bool { return a.RLOC == b.RLOC })
}

// Displaced says that a Map-Server has another xTR's locators for an EID-Prefix
// of ours, and none of ours: it has moved away, or is configured twice. Peers in
// conversation were told to ask again.
type Displaced struct {
	Stamp
	MapServer netip.AddrPort
	EID       mapcache.Key
	RLOCs     []netip.Addr // where it is now
}

func (e Displaced) String() string {
	return "Map-Server " + e.MapServer.Addr().String() + " says that " + e.EID.String() + " is now at " + addrList(e.RLOCs)
}
