package natt

import (
	"cmp"
	"container/heap"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Relay is a node behind a NAT as a Map-Server has confirmed it: packets to the
// EID-Prefix go from port 4342 of RTR to Global. It is a value.
type Relay struct {
	IID    uint32
	Prefix netip.Prefix
	XTRID  lisp.XTRID
	SiteID lisp.SiteID

	Local            netip.Addr     // the node's own idea of its address
	Global           netip.AddrPort // the translated one, as the RTR sees it
	RTR              netip.Addr     // the address of the RTR that the node registers through
	IfIndex          int            // where its messages come in; 0 if unknown
	Priority, Weight uint8          // among the relays of the EID-Prefix; 255: not to be used

	MapServer netip.Addr // that confirmed it
	Verified  time.Time  // when it did so last
	Expires   time.Time
}

// RelayChange says how an EID-Prefix is reached from now on.
type RelayChange struct {
	IID    uint32
	Prefix netip.Prefix
	// Relays are all that there are now; none: it is no node of ours any more.
	Relays []Relay
	// Resolve asks for the mapping system to be asked about the EID-Prefix: it is
	// said to be elsewhere. The Relays hold until the answer, see RTR.Moved.
	Resolve bool
}

type eidKey struct {
	iid    uint32
	prefix netip.Prefix
}

func (k eidKey) compare(o eidKey) int {
	return cmp.Or(cmp.Compare(k.iid, o.iid), k.prefix.Compare(o.prefix))
}

// eidState is what is known of an EID-Prefix.
type eidState struct {
	claims  []*relayClaim // by xTR
	told    []Relay       // in the last RelayChange
	dirty   bool
	resolve bool
}

// relayClaim is what one xTR has for an EID-Prefix. A Map-Register of another
// xTR-ID, or of the same for another EID-Prefix, doesn't touch it.
type relayClaim struct {
	xtr       lisp.XTRID
	merge     bool
	seq       uint64 // of the last confirmation
	relays    []*relayEntry
	confirmed []lisp.Nonce // oldest first
}

type relayEntry struct {
	Relay
	key   eidKey
	claim *relayClaim
	index int // in the heap
}

type relayHeap []*relayEntry

func (h relayHeap) Len() int           { return len(h) }
func (h relayHeap) Less(i, j int) bool { return h[i].Expires.Before(h[j].Expires) }
func (h relayHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *relayHeap) Push(x any) {
	e := x.(*relayEntry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *relayHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

func (h relayHeap) deadline() time.Time {
	if len(h) == 0 {
		return time.Time{}
	}
	return h[0].Expires
}

// claim finds what an xTR has for an EID-Prefix.
func (r *RTR) claim(k eidKey, xtr lisp.XTRID) *relayClaim {
	st := r.eids[k]
	if st == nil {
		return nil
	}
	if i := slices.IndexFunc(st.claims, func(c *relayClaim) bool { return c.xtr == xtr }); i >= 0 {
		return st.claims[i]
	}
	return nil
}

// recordEID is the EID-Prefix of a record, masked.
func recordEID(rec *lisp.EIDRecord) (eidKey, bool) {
	iid, p, ok := rec.Prefix()
	if !ok || p.Addr().Is4In6() {
		return eidKey{}, false
	}
	return eidKey{iid, p.Masked()}, true
}

// verifiedFrom reports whether an xTR has one of the EID-Prefixes confirmed at the
// address and port that it sends from.
func (r *RTR) verifiedFrom(xtr lisp.XTRID, records []lisp.EIDRecord, from netip.AddrPort) bool {
	for i := range records {
		k, ok := recordEID(&records[i])
		if !ok {
			continue
		}
		c := r.claim(k, xtr)
		if c != nil && slices.ContainsFunc(c.relays, func(e *relayEntry) bool { return e.Global == from }) {
			return true
		}
	}
	return false
}

// confirmed reports whether a Map-Register has been confirmed already: somebody
// repeats it from elsewhere.
func (r *RTR) confirmed(m *lisp.MapRegister) bool {
	for i := range m.Records {
		k, ok := recordEID(&m.Records[i])
		if !ok {
			continue
		}
		if c := r.claim(k, m.XTRID); c != nil && slices.Contains(c.confirmed, m.Nonce) {
			return true
		}
	}
	return false
}

// verifiedAs reports whether the node is known to be where an attempt has it.
func (r *RTR) verifiedAs(a *attempt, records []lisp.EIDRecord) bool {
	for i := range records {
		k, ok := recordEID(&records[i])
		if !ok {
			continue
		}
		c := r.claim(k, a.key.xtr)
		if c != nil && slices.ContainsFunc(c.relays, func(e *relayEntry) bool {
			return e.Global == a.from && e.Local == a.local && e.RTR == a.own
		}) {
			return true
		}
	}
	return false
}

// verify takes over what a Map-Server has confirmed: those EID-Prefixes of the
// attempt that the Map-Notify has, with what the Map-Notify says of them, which
// is what the Map-Server has accepted.
func (r *RTR) verify(now time.Time, a *attempt, m *lisp.MapNotify) {
	for i := range m.Records {
		if k, ok := recordEID(&m.Records[i]); ok && slices.Contains(a.eids, k) {
			r.verifyRecord(now, a, m, &m.Records[i], k)
		}
	}
}

func (r *RTR) verifyRecord(now time.Time, a *attempt, m *lisp.MapNotify, rec *lisp.EIDRecord, k eidKey) {
	r.supersede(now, k)
	c := r.claim(k, a.key.xtr)
	if rec.TTL == 0 {
		if c != nil {
			r.dropClaim(now, k, c, RelayWithdrawn)
		}
		return
	}
	if c == nil {
		st := r.eids[k]
		if st == nil && len(r.eids) >= r.cfg.MaxRelays {
			r.drop(now, RTRTableFull, a.from, a.key.xtr, k.prefix.String())
			return
		}
		if st == nil {
			st = new(eidState)
			r.eids[k] = st
		}
		c = &relayClaim{xtr: a.key.xtr}
		st.claims = append(st.claims, c)
	}
	r.seq++
	c.seq, c.merge = r.seq, a.merge
	if len(c.confirmed) >= confirmedNonces {
		c.confirmed = slices.Delete(c.confirmed, 0, 1)
	}
	c.confirmed = append(c.confirmed, m.Nonce)

	// The draft tells a node's own locators by R = 0.
	policy := make(map[netip.Addr][2]uint8)
	for i := range rec.Locators {
		l := &rec.Locators[i]
		if ip, ok := l.RLOC.IP(); ok && !l.Reachable {
			policy[ip.Unmap()] = [2]uint8{l.Priority, l.Weight}
		}
	}
	for _, e := range slices.Clone(c.relays) {
		p, listed := policy[e.Local]
		switch {
		case listed:
			e.Priority, e.Weight = p[0], p[1]
		case e.Local != a.local:
			r.dropRelay(now, e, RelayReplaced)
		}
	}
	i := slices.IndexFunc(c.relays, func(e *relayEntry) bool { return e.Local == a.local })
	if i < 0 {
		if r.relays >= r.cfg.MaxRelays || len(c.relays) >= maxLocals {
			r.drop(now, RTRTableFull, a.from, a.key.xtr, k.prefix.String())
			r.dropEmpty(k, c)
			r.touch(k)
			return
		}
		e := &relayEntry{key: k, claim: c, Relay: Relay{IID: k.iid, Prefix: k.prefix, XTRID: a.key.xtr, Local: a.local}}
		e.Priority, e.Weight = defaultPriority, defaultWeight
		if p, listed := policy[a.local]; listed {
			e.Priority, e.Weight = p[0], p[1]
		}
		e.Expires = now
		c.relays = append(c.relays, e)
		heap.Push(&r.expiry, e)
		r.relays++
		i = len(c.relays) - 1
	}
	e := c.relays[i]
	old := e.Global
	_, e.SiteID, _ = m.Identity()
	e.MapServer = a.key.server
	e.Global, e.RTR, e.IfIndex = a.from, a.own, a.ifIndex
	e.Verified, e.Expires = now, now.Add(r.lifetime(a.useTTL, rec.TTL))
	heap.Fix(&r.expiry, e.index)
	if old != e.Global {
		r.log.Info("node verified", "eid", k.prefix, "iid", k.iid, "peer", e.Global, "rloc", e.Local, "map_server", e.MapServer)
		r.tell(RelayVerified{now, e.Relay, old})
	}
	r.touch(k)
}

// lifetime of what a Map-Register says: as long as its registration lives.
func (r *RTR) lifetime(useTTL bool, minutes uint32) time.Duration {
	const most = 24 * time.Hour
	ttl := most
	if minutes < uint32(most/time.Minute) {
		ttl = time.Duration(minutes) * time.Minute
	}
	if useTTL {
		return ttl
	}
	return min(ttl, r.cfg.Lifetime)
}

// touch notes that an EID-Prefix may be reached in another way now.
func (r *RTR) touch(k eidKey) {
	if st := r.eids[k]; st != nil && !st.dirty {
		st.dirty = true
		r.dirty = append(r.dirty, k)
	}
}

func (r *RTR) expire(now time.Time) {
	for len(r.expiry) > 0 && !r.expiry[0].Expires.After(now) {
		r.dropRelay(now, r.expiry[0], RelayExpired)
	}
}

// dropRelay takes a relay out; the claim goes with its last one.
func (r *RTR) dropRelay(now time.Time, e *relayEntry, why RelayEnd) {
	heap.Remove(&r.expiry, e.index)
	r.relays--
	c := e.claim
	c.relays = slices.DeleteFunc(c.relays, func(o *relayEntry) bool { return o == e })
	r.log.Info("node gone", "eid", e.Prefix, "iid", e.IID, "peer", e.Global, "rloc", e.Local, "reason", why.String())
	r.tell(RelayGone{now, e.Relay, why})
	r.touch(e.key)
	if why != RelayReplaced { // then another one comes
		r.dropEmpty(e.key, c)
	}
}

// dropEmpty takes a claim out that has no relays.
func (r *RTR) dropEmpty(k eidKey, c *relayClaim) {
	if len(c.relays) == 0 {
		st := r.eids[k]
		st.claims = slices.DeleteFunc(st.claims, func(o *relayClaim) bool { return o == c })
	}
}

func (r *RTR) dropClaim(now time.Time, k eidKey, c *relayClaim, why RelayEnd) {
	for len(c.relays) > 0 {
		r.dropRelay(now, c.relays[0], why)
	}
	r.touch(k)
}

// current are the relays that packets to an EID-Prefix go to: those of the xTR
// that was confirmed last, and if it merges, of all that do (RFC 9301 §5.6, a bit).
func (st *eidState) current() []Relay {
	claims := slices.Clone(st.claims)
	slices.SortFunc(claims, func(a, b *relayClaim) int { return cmp.Compare(b.seq, a.seq) })
	var out []Relay
	for i, c := range claims {
		if i > 0 && (!claims[0].merge || !c.merge) {
			continue
		}
		for _, e := range c.relays {
			if e.Priority != priorityUnused {
				out = append(out, e.Relay)
			}
		}
	}
	slices.SortFunc(out, func(a, b Relay) int {
		return cmp.Or(a.Global.Compare(b.Global), a.RTR.Compare(b.RTR), a.Local.Compare(b.Local), slices.Compare(a.XTRID[:], b.XTRID[:]))
	})
	return out
}

// sameWay reports whether packets are treated alike by both.
func sameWay(a, b []Relay) bool {
	return slices.EqualFunc(a, b, func(x, y Relay) bool {
		return x.Global == y.Global && x.RTR == y.RTR && x.IfIndex == y.IfIndex && x.Priority == y.Priority && x.Weight == y.Weight
	})
}

// NextChange returns what has changed for one EID-Prefix since the last call.
func (r *RTR) NextChange() (RelayChange, bool) {
	for len(r.dirty) > 0 {
		k := r.dirty[0]
		r.dirty = r.dirty[1:]
		st := r.eids[k]
		relays := st.current()
		c := RelayChange{IID: k.iid, Prefix: k.prefix, Relays: relays, Resolve: st.resolve}
		same := sameWay(st.told, relays) && !st.resolve
		st.dirty, st.resolve, st.told = false, false, relays
		if len(st.claims) == 0 {
			delete(r.eids, k)
		}
		if !same {
			return c, true
		}
	}
	r.dirty = nil
	return RelayChange{}, false
}

// Relays returns all that there are, in order, also those that no packet goes to
// now.
func (r *RTR) Relays() []Relay {
	out := make([]Relay, 0, r.relays)
	for _, e := range r.expiry {
		out = append(out, e.Relay)
	}
	slices.SortFunc(out, func(a, b Relay) int {
		return cmp.Or(eidKey{a.IID, a.Prefix}.compare(eidKey{b.IID, b.Prefix}), slices.Compare(a.XTRID[:], b.XTRID[:]), a.Local.Compare(b.Local))
	})
	return out
}

// Moved tells that the mapping system has an EID-Prefix elsewhere, with no locator
// of the RTR: its relays are gone. asked is when the mapping system was asked. What
// a Map-Server has confirmed since stays: its answer may have been older.
func (r *RTR) Moved(now, asked time.Time, iid uint32, prefix netip.Prefix) {
	k := eidKey{iid, prefix.Masked()}
	st := r.eids[k]
	if st == nil {
		return
	}
	for _, c := range slices.Clone(st.claims) {
		for _, e := range slices.Clone(c.relays) {
			if e.Verified.After(asked) {
				st.told = nil // whoever asked has it no more
				r.touch(k)
				continue
			}
			r.dropRelay(now, e, RelayMoved)
		}
	}
}
