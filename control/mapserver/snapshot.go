package mapserver

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Registration is a registered EID-Prefix, for people to look at.
type Registration struct {
	Site  string
	IID   uint32
	EID   netip.Prefix
	RLOCs []lisp.RLOCRecord // merged, as a proxy Map-Reply has them
	Proxy bool              // the server answers for it
	XTRs  []RegisteredXTR   // newest first; those that make the mapping have Current
}

// RegisteredXTR is one xTR's part in a Registration.
type RegisteredXTR struct {
	XTRID     lisp.XTRID // zero when it has none
	SiteID    lisp.SiteID
	From      netip.Addr // source of the last Map-Register
	KeyID     uint8
	Algorithm lisp.Algorithm
	Merge     bool
	Relayed   bool // by an RTR, which is From
	Current   bool
	Nonce     lisp.Nonce
	Seen      time.Time // last Map-Register
	Expiry    time.Time
}

// SiteStatus is a configured site.
type SiteStatus struct {
	Name       string
	Prefixes   []SitePrefix
	Registered int // EID-Prefixes registered now
}

// Registrations lists what is registered at now, by instance and EID-Prefix. Safe
// for concurrent use.
func (s *Server) Registrations(now time.Time) []Registration {
	ticks := s.toTicks(now)
	var all []Registration
	for _, iid := range slices.Sorted(maps.Keys(s.set().instances)) {
		for p, r := range s.set().instances[iid].regs.All() {
			current := r.current(ticks, nil)
			if len(current) == 0 {
				continue
			}
			reg := Registration{Site: r.site.name, IID: iid, EID: p, RLOCs: mergedRLOCs(current), Proxy: r.site.terms().proxy}
			for _, c := range r.claims() {
				if !c.live(ticks) {
					continue
				}
				x := RegisteredXTR{
					XTRID: c.holder().xtr, SiteID: c.holder().site, From: c.from, KeyID: c.keyID, Algorithm: c.algorithm,
					Merge: c.merge(), Relayed: c.flags&flagRelayed != 0, Current: slices.Contains(current, c), Nonce: lisp.Nonce(c.nonce.Load()),
					Seen: s.fromTicks(c.seen.Load()), Expiry: s.fromTicks(c.expires.Load()),
				}
				reg.Proxy = reg.Proxy || x.Current && c.flags&(flagProxy|flagRelayed) != 0
				reg.XTRs = append(reg.XTRs, x)
			}
			all = append(all, reg)
		}
	}
	return all
}

// Sites lists the configured sites by name. Safe for concurrent use.
func (s *Server) Sites(now time.Time) []SiteStatus {
	ticks := s.toTicks(now)
	byName := make(map[string]*SiteStatus)
	for name := range s.set().sites {
		byName[name] = &SiteStatus{Name: name}
	}
	for _, iid := range slices.Sorted(maps.Keys(s.set().instances)) {
		inst := s.set().instances[iid]
		for p, sp := range inst.table().AllSorted() {
			if sp.site == nil {
				continue // of the resolver's table
			}
			if st := byName[sp.site.name]; st != nil { // else Reconfigure is under way
				st.Prefixes = append(st.Prefixes, SitePrefix{IID: iid, Prefix: p, AcceptMoreSpecifics: sp.more})
			}
		}
		for _, r := range inst.regs.All() {
			if st := byName[r.site.name]; st != nil && r.live(ticks) {
				st.Registered++
			}
		}
	}
	all := make([]SiteStatus, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all
}

// mergedRLOCs are the locators of some claims as a proxy Map-Reply has them:
// not local, not probed, sorted, of two with one address the newer.
func mergedRLOCs(claims []*claim) []lisp.RLOCRecord {
	var decoder recordDecoder
	var rlocs []lisp.RLOCRecord
	for _, c := range claims {
		if r, err := decoder.decode(c.record); err == nil {
			rlocs = mergeRLOCs(rlocs, c.announced(r.Locators))
		}
	}
	slices.SortStableFunc(rlocs, compareRLOCs)
	return rlocs
}

func mergeRLOCs(dst, src []lisp.RLOCRecord) []lisp.RLOCRecord {
	for _, l := range src {
		l.Local, l.Probed, l.Unused = false, false, 0
		same := func(e lisp.RLOCRecord) bool { return e.RLOC == l.RLOC }
		if !slices.ContainsFunc(dst, same) && len(dst) < 255 {
			dst = append(dst, l)
		}
	}
	return dst
}

// Stats counts since New. Dropped is indexed by Reason and includes refused
// Map-Registers.
type Stats struct {
	Registers  uint64 // Map-Registers received
	Accepted   uint64 // of these, not refused and not repeated
	Refreshes  uint64 // of these, changed nothing but the lifetime
	Duplicates uint64 // repeated Map-Registers
	Notifies   uint64 // Map-Notifies sent in answer to Map-Registers
	Requests   uint64 // encapsulated Map-Requests received
	Replies    uint64 // EID-Prefixes answered for an ETR
	Negatives  uint64 // EID-Prefixes answered negatively
	Forwards   uint64 // Map-Requests forwarded to an ETR
	Moves      uint64 // mappings that lost locators to others

	UnsolicitedNotifies uint64 // Map-Notifies sent because a mapping moved, repetitions included
	NotifyAcks          uint64 // of these, acknowledged
	NotifiesUnanswered  uint64 // and given up

	InfoRequests uint64 // received
	InfoReplies  uint64 // sent
	Relayed      uint64 // Map-Registers that came by an RTR, of those accepted

	EventsLost uint64
	Dropped    [NumReasons]uint64

	Registrations int // EID-Prefixes registered now
	Subscriptions int // of Experimental.PubSub
	XTRs          int // security associations remembered
}

// Stats is safe for concurrent use.
func (s *Server) Stats() Stats {
	st := Stats{
		Registrations: int(s.registered.Load()), XTRs: int(s.xtrCount.Load()),
		EventsLost: uint64(s.eventsLost.Load()), Subscriptions: int(s.subscriptionCount.Load()),
	}
	s.workersMu.Lock()
	defer s.workersMu.Unlock()
	for _, w := range s.workers {
		c := &w.stats
		st.Registers += c.registers.Load()
		st.Accepted += c.accepted.Load()
		st.Refreshes += c.refreshes.Load()
		st.Duplicates += c.duplicates.Load()
		st.Notifies += c.notifies.Load()
		st.Requests += c.requests.Load()
		st.Replies += c.replies.Load()
		st.Negatives += c.negatives.Load()
		st.Forwards += c.forwards.Load()
		st.Moves += c.moves.Load()
		st.UnsolicitedNotifies += c.unsolicited.Load()
		st.NotifyAcks += c.notifyAcks.Load()
		st.NotifiesUnanswered += c.notifyLost.Load()
		st.InfoRequests += c.infoRequests.Load()
		st.InfoReplies += c.infoReplies.Load()
		st.Relayed += c.relayed.Load()
		for i := range c.dropped {
			st.Dropped[i] += c.dropped[i].Load()
		}
	}
	return st
}
