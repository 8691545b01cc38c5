package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// solicitor is what is known of SMRs to be sent (RFC 9301 §6.1): of a change that
// is not told yet, and of the peers that are being told.
type solicitor struct {
	timer             // when the change is told at the latest
	changed keySet    // EID-Prefixes of ours that changed, until it is told
	since   time.Time // when the first of them did
	waiting bool      // for Map-Notifies
	peers   map[netip.Addr]*smrPeer
	talked  recentTable
}

// smrPeer is a locator that SMRs go to, and afterwards the reason why none goes
// there again too soon.
type smrPeer struct {
	timer
	rloc  netip.Addr
	items []smrItem
	last  time.Time // when one was sent there; zero: not yet
}

// smrItem is one EID-Prefix of ours that a peer is told about.
type smrItem struct {
	changed mapcache.Key
	record  mapcache.Key // an EID-Prefix of the peer
	sends   int
}

// Rules of SMRs.
const (
	smrSends    = 2                      // the SMR and one repetition
	smrNotify   = 300 * time.Millisecond // how long Map-Notifies are waited for
	smrGather   = time.Second            // changes are gathered for so long at most
	smrPace     = time.Millisecond       // between the SMRs to many peers
	maxSMRItems = 64                     // EID-Prefixes that one peer is told of
	maxTalked   = 4096                   // addresses in one generation of recentTable
)

// solicit takes note that the locators of our EID-Prefixes ks changed, ks being
// new or gone included. Peers are told once the Map-Servers have acknowledged the
// change, for that is where they will ask; or 300 ms after they were told. What
// changes meanwhile goes along, for a second at most.
func (e *Engine) solicit(now time.Time, ks []mapcache.Key) {
	s := &e.smr
	if len(ks) == 0 || e.withdrawing || e.cache.Len()+len(s.talked.cur)+len(e.cfg.SMR.ProxyITRs) == 0 {
		return // nobody can know of them
	}
	if !s.waiting {
		s.waiting, s.since = true, now
	}
	for _, k := range ks {
		s.changed.add(k)
	}
	last := s.since.Add(smrGather)
	registered := now
	if e.announced.next.After(now) { // the Map-Servers are told only then
		registered, last = e.announced.next, last.Add(smrNotify)
	}
	at := registered.Add(smrNotify)
	if at.After(last) {
		at = later(last, now.Add(time.Millisecond))
	}
	e.timers.set(&s.timer, at)
	e.acknowledged(now)
}

// acknowledged tells the peers if all Map-Servers know of the change.
func (e *Engine) acknowledged(now time.Time) {
	if !e.smr.waiting {
		return
	}
	for _, r := range e.registrations {
		switch r.state {
		case StateRegistered, StateWithdrawn:
		case StateIdle:
			if r.index != 0 {
				return // its turn comes
			}
		default:
			return
		}
	}
	e.tellPeers(now)
}

// tellPeers begins to send SMRs for what changed.
func (e *Engine) tellPeers(now time.Time) {
	s := &e.smr
	e.timers.stop(&s.timer)
	changed := s.changed.list
	s.changed, s.waiting = keySet{}, false
	begun := 0
	for _, t := range e.audience(now, changed) {
		p := s.peers[t.rloc]
		if p == nil {
			if len(s.peers) >= e.cfg.SMR.MaxPeers {
				e.drop(now, DropTooManyPeers, netip.AddrPortFrom(t.rloc, lisp.ControlPort), nil)
				continue
			}
			p = &smrPeer{rloc: t.rloc}
			p.fire = func(now time.Time) { e.peerTimer(now, p) }
			s.peers[t.rloc] = p
		}
		for _, k := range changed {
			if t.record.Prefix.IsValid() {
				if sameKind(t.record, k) {
					e.addItem(now, p, smrItem{changed: k, record: t.record})
				}
				continue
			}
			// Of a Proxy-ITR no EID-Prefix is known.
			e.addItem(now, p, smrItem{changed: k, record: k})
		}
		at := now.Add(time.Duration(begun) * smrPace)
		if !p.last.IsZero() {
			at = later(at, p.last.Add(smrInterval))
		}
		if p.index == 0 || at.Before(p.at) {
			e.timers.set(&p.timer, at)
		}
		begun++
	}
}

func sameKind(a, b mapcache.Key) bool {
	return a.IID == b.IID && a.Prefix.Addr().Is4() == b.Prefix.Addr().Is4()
}

func (e *Engine) addItem(now time.Time, p *smrPeer, it smrItem) {
	i := slices.IndexFunc(p.items, func(o smrItem) bool { return o.changed == it.changed })
	switch {
	case i >= 0:
		p.items[i] = it // it changed again
	case len(p.items) >= maxSMRItems:
		e.drop(now, DropTooManyPeers, netip.AddrPortFrom(p.rloc, lisp.ControlPort), it.changed.String)
	default:
		p.items = append(p.items, it)
	}
}

// smrTarget is a locator to be told, with an EID-Prefix of it that we know: peers
// check that it is one of theirs. There is one for each instance and family of
// EIDs that traffic goes to there; peers that take two families in one SMR are
// known to die of it.
type smrTarget struct {
	rloc   netip.Addr
	record mapcache.Key // the zero Key if none is known
}

// audience are the peers to tell that the EID-Prefixes changed moved: those that
// we exchanged data with lately, or everyone in the map-cache; and the Proxy-ITRs.
func (e *Engine) audience(now time.Time, changed []mapcache.Key) []smrTarget {
	type kind struct {
		iid uint32
		is4 bool
	}
	kindOf := func(k mapcache.Key) kind { return kind{k.IID, k.Prefix.Addr().Is4()} }
	kinds := make(map[kind]bool)
	for _, k := range changed {
		kinds[kindOf(k)] = true
	}
	var out []smrTarget
	have := make(map[smrTarget]bool) // by locator, with a key of the kind; and without
	add := func(a netip.Addr, record mapcache.Key) {
		t := smrTarget{rloc: a}
		if record.Prefix.IsValid() {
			zero := netip.IPv6Unspecified()
			if record.Prefix.Addr().Is4() {
				zero = netip.IPv4Unspecified()
			}
			t.record = mapcache.HostKey(record.IID, zero)
		}
		if _, ours := e.localByAddr(a); ours || have[t] {
			return
		}
		have[t], have[smrTarget{rloc: a}] = true, true
		out = append(out, smrTarget{a, record})
	}
	if e.cfg.SMR.Window > 0 {
		for ent := range e.cache.All() {
			if !kinds[kindOf(ent.Key)] {
				continue
			}
			used := e.cfg.SMR.All || e.recent(now, ent.LastUsed) ||
				ent.Origin != mapcache.OriginStatic && e.recent(now, ent.Created) // for a packet
			for _, r := range ent.RLOCs {
				if r.Priority != 255 && !r.Down && !e.petrs[r.Locator] && (used || e.recent(now, e.smr.talked.last(r.Addr))) {
					add(r.Addr, ent.Key)
				}
			}
		}
		for _, a := range e.smr.talked.since(now.Add(-e.cfg.SMR.Window)) {
			if !have[smrTarget{rloc: a}] && usableUnicast(a) && !e.petrs[e.learned(a)] {
				add(a, mapcache.Key{}) // it sends, though nothing goes there
			}
		}
	}
	for _, a := range e.cfg.SMR.ProxyITRs {
		if !have[smrTarget{rloc: a}] {
			add(a, mapcache.Key{})
		}
	}
	return out
}

// recent reports whether t is in the time that peers in conversation are known by.
func (e *Engine) recent(now, t time.Time) bool {
	return !t.IsZero() && now.Sub(t) <= e.cfg.SMR.Window
}

// peerTimer runs when the next SMR to p may go out: three seconds after the last.
func (e *Engine) peerTimer(now time.Time, p *smrPeer) {
	next := -1
	for i := range p.items {
		if n := p.items[i].sends; n < smrSends && (next < 0 || n < p.items[next].sends) {
			next = i
		}
	}
	local, ok := e.smrLocal(p.rloc)
	if next < 0 || !ok {
		// Told, or not to be told from where we are now.
		delete(e.smr.peers, p.rloc)
		return
	}
	it := &p.items[next]
	it.sends++
	p.last = now
	e.sendSMR(now, local, p.rloc, *it)
	if it.sends == smrSends {
		p.items = slices.Delete(p.items, next, next+1)
	}
	e.timers.set(&p.timer, now.Add(smrInterval+e.jitter(smrInterval/10)))
}

// sendSMR sends one SMR: a Map-Request straight to the peer's locator. The Source
// EID is what changed, an address always: that is where all known receivers look,
// and some die of none. RFC 9301 §5.2 allows one record, which is the peer's.
func (e *Engine) sendSMR(now time.Time, local mapcache.Local, to netip.Addr, it smrItem) {
	m := lisp.MapRequest{
		SMR:          true,
		DontMapReply: true,
		Nonce:        e.nonce(),
		SourceEID:    lisp.EIDAddress(it.changed.IID, it.changed.Prefix.Addr()),
		ITRRLOCs:     e.smrRLOCs(),
		Records:      []lisp.RequestRecord{{MaskLen: uint8(it.record.Prefix.Bits()), EID: lisp.EIDAddress(it.record.IID, it.record.Prefix.Addr())}},
	}
	if e.send(local, netip.AddrPortFrom(to, lisp.ControlPort), m.AppendBinary) {
		e.stats.SMRsSent++
		e.emit(SMRSent{Stamp{now}, it.changed, to, it.sends})
	}
}

// smrAnswered takes note that a peer which we told asks for eid: it need not be
// told again. What it was not told yet needs no SMR either if it asks for that of
// its own, as one does that asks for all it knows of us after the first SMR; but
// only right after an SMR, for the request may be forged. Its S-bit says nothing:
// a request that is one of several causes may not carry it.
func (e *Engine) smrAnswered(now time.Time, m *lisp.MapRequest, eid mapcache.Key) {
	if len(e.smr.peers) == 0 {
		return
	}
	for _, a := range m.ITRRLOCs {
		ip, ok := a.IP()
		if !ok {
			continue
		}
		p := e.smr.peers[ip.Unmap()]
		if p == nil {
			continue
		}
		invoked := !p.last.IsZero() && now.Sub(p.last) < smrInterval
		p.items = slices.DeleteFunc(p.items, func(it smrItem) bool {
			return (it.sends > 0 || invoked) && it.changed.IID == eid.IID && it.changed.Prefix.Overlaps(eid.Prefix)
		})
	}
}

// recentTable remembers when something happened with an address, in bounded
// memory: two generations of which the older is forgotten when the newer is full.
type recentTable struct{ cur, old map[netip.Addr]time.Time }

func (t *recentTable) note(now time.Time, a netip.Addr) {
	if _, ok := t.cur[a]; !ok && len(t.cur) >= maxTalked || t.cur == nil {
		t.old, t.cur = t.cur, make(map[netip.Addr]time.Time)
	}
	t.cur[a] = now
}

// last is when a was noted last, zero if that is not known.
func (t *recentTable) last(a netip.Addr) time.Time {
	if at, ok := t.cur[a]; ok {
		return at
	}
	return t.old[a]
}

// since returns the addresses noted since at, sorted.
func (t *recentTable) since(at time.Time) []netip.Addr {
	var out []netip.Addr
	for a, when := range t.old {
		if _, newer := t.cur[a]; !newer && !when.Before(at) {
			out = append(out, a)
		}
	}
	for a, when := range t.cur {
		if !when.Before(at) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// AddUsage takes what a data plane reports about a locator: it goes to the
// map-cache, and a change of our mappings is told to those with whom there was
// traffic lately.
func (e *Engine) AddUsage(now time.Time, u mapcache.Usage) {
	now = e.tick(now)
	e.cache.AddUsage(now, u)
	if a := u.Locator.Addr.Unmap(); a.IsValid() && u.PacketsOut+u.PacketsIn > 0 {
		e.smr.talked.note(now, a)
		e.locatorUsed(now, u.Locator)
	}
}
