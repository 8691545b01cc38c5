package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// pending is one EID-Prefix under resolution, and afterwards the reason why it
// is not asked for again too soon.
type pending struct {
	timer
	kind pendingKind
	key  mapcache.Key // what the rate limit applies to
	ask  mapcache.Key // what the Map-Request names: a host, or a cached EID-Prefix
	why  reasons

	phase    phase
	again    bool // wanted again while it had to rest
	sends    int
	unsent   int // times that no locator of ours could send it
	lastSent time.Time
	waiting  bool // for the answer to the last one
	resolver int  // index of the last Map-Resolver asked
	nonces   []lisp.Nonce
	accepted netip.Prefix // what the Map-Reply covered, once settled
	security secured

	subscribe bool // it asks for a subscription
	end       bool // or for the end of one
}

// reasons says why a mapping is asked for.
type reasons struct {
	refresh  bool // a cached entry is to be confirmed
	expiring bool // its lifetime ends
	smr      bool // its site solicited it
}

// pendingKind says whose room a pending takes, so that no kind of flood stops the
// others.
type pendingKind uint8

const (
	pendingMiss    pendingKind = iota
	pendingRefresh             // of a cached entry
	pendingSMR                 // the same, since an SMR came
	numPendingKinds
)

func (r reasons) kind() pendingKind {
	switch {
	case r.smr:
		return pendingSMR
	case r.refresh:
		return pendingRefresh
	default:
		return pendingMiss
	}
}

// pendingRoom is how many there may be of a kind: as many for entries in use as
// for misses, half of them for SMRs.
func (e *Engine) pendingRoom(k pendingKind) bool {
	if k == pendingMiss {
		return e.waiting[pendingMiss] < e.cfg.MaxPending
	}
	if k == pendingSMR && e.waiting[pendingSMR] >= max(1, e.cfg.MaxPending/2) {
		return false
	}
	return e.waiting[pendingRefresh]+e.waiting[pendingSMR] < e.cfg.MaxPending
}

type phase uint8

const (
	asking  phase = iota // Map-Requests are sent until one is answered
	silent               // all were in vain: 30 s of silence
	resting              // answered; the rate limit still runs
)

// request is an outstanding Map-Request, found by its nonce.
type request struct {
	pending  *pending // either this
	path     *path    // or this, for an RLOC-probe
	resolver *mapResolver
	sent     time.Time
	sec      *protection // with LISP-SEC
}

// Resolve asks the mapping system for destinations. It may be called with the
// same ones as often as they are wanted: a destination under resolution is not
// asked for more often for that. One that the map-cache covers already is handed
// out again by Publish.
func (e *Engine) Resolve(now time.Time, keys []mapcache.Key) {
	now = e.tick(now)
	defer e.collect(now)
	for _, asked := range keys {
		k, err := cleanKey(asked)
		if err != nil || !usableUnicast(k.Prefix.Addr()) {
			continue
		}
		ent, ok := e.cache.LookupEntry(k.IID, k.Prefix.Addr())
		switch {
		case !ok && !e.asksFor(k):
			e.drop(now, DropNotServed, netip.AddrPort{}, k.String)
		case !ok:
			e.request(now, k, k, reasons{})
		case len(ent.RLOCs) == 0 && ent.Action == lisp.ActionSendMapRequest:
			// Every packet asks again, within the rate for the EID-Prefix.
			e.request(now, ent.Key, k, reasons{})
		default:
			e.repeatChange(ent)
		}
	}
}

// refresh asks for a cached entry again.
func (e *Engine) refresh(now time.Time, k mapcache.Key, why reasons) {
	why.refresh = true
	e.request(now, k, k, why)
}

// refreshIn asks for a cached entry that expires after a while, unless somebody
// asks before that.
func (e *Engine) refreshIn(now time.Time, k mapcache.Key, wait time.Duration) {
	why := reasons{refresh: true, expiring: true}
	if wait <= 0 || e.pending[k] != nil || len(e.resolvers) == 0 {
		e.request(now, k, k, why)
		return
	}
	if p := e.newPending(now, k, why); p != nil {
		p.ask, p.why, p.phase, p.again = k, why, resting, true
		e.timers.set(&p.timer, now.Add(wait))
	}
}

func (e *Engine) newPending(now time.Time, key mapcache.Key, why reasons) *pending {
	kind := why.kind()
	if !e.pendingRoom(kind) && (kind != pendingMiss || !e.evictMiss(now)) {
		e.drop(now, DropPendingFull, netip.AddrPort{}, key.String)
		return nil
	}
	p := &pending{key: key, kind: kind}
	e.waiting[kind]++
	p.fire = func(now time.Time) { e.pendingTimer(now, p) }
	e.pending[key] = p
	if kind == pendingMiss {
		for e.misses.len() > 0 && e.pending[e.misses.items[e.misses.head].key] != e.misses.items[e.misses.head] {
			e.misses.pop()
		}
		e.misses.push(p, 2*e.cfg.MaxPending)
	}
	return p
}

// evictMiss makes room for a new miss, which may be of use, by giving up one of
// the oldest: under a flood those are what nobody answers. What the rate limit or
// the silence still applies to stays.
func (e *Engine) evictMiss(now time.Time) bool {
	const looks = 8
	for range min(looks, e.misses.len()) {
		p, _ := e.misses.pop()
		if e.pending[p.key] != p {
			continue // gone already
		}
		if p.phase == asking && now.Sub(p.lastSent) >= requestInterval {
			e.drop(now, DropPendingFull, netip.AddrPort{}, p.key.String)
			e.timers.stop(&p.timer)
			e.forgetNonces(p)
			e.waiting[p.kind]--
			delete(e.pending, p.key)
			return true
		}
		e.misses.push(p, 2*e.cfg.MaxPending)
	}
	return false
}

// request starts a resolution unless one is under way.
func (e *Engine) request(now time.Time, key, ask mapcache.Key, why reasons) {
	if len(e.resolvers) == 0 {
		return
	}
	p := e.pending[key]
	if p == nil {
		if p = e.newPending(now, key, why); p == nil {
			return
		}
	} else if p.phase != asking {
		if p.phase == resting {
			p.again, p.ask = true, ask
			p.why.merge(why)
			if p.lastSent.IsZero() {
				e.restart(now, p, true) // it was only put off
			}
		}
		return
	} else {
		p.why.merge(why)
		return
	}
	p.ask, p.why = ask, why
	e.ask(now, p)
}

func (r *reasons) merge(o reasons) {
	r.refresh = r.refresh || o.refresh
	r.expiring = r.expiring || o.expiring
	r.smr = r.smr || o.smr
}

// pendingTimer runs when a Map-Request was not answered in time, or a time of
// rest or silence is over.
func (e *Engine) pendingTimer(now time.Time, p *pending) {
	switch p.phase {
	case asking:
		if p.waiting {
			p.waiting = false
			e.resolvers[p.resolver].unanswered(now)
		}
		if covered, ok := e.coveredMeanwhile(p); ok {
			e.settle(now, p, covered)
			return
		}
		if p.sends+p.unsent <= e.cfg.MapRequestRetries {
			e.ask(now, p)
			return
		}
		p.phase = silent
		e.stats.ResolutionsFailed++
		e.emit(ResolutionFailed{Stamp{now}, p.ask, p.sends})
		e.timers.set(&p.timer, now.Add(requestSilence))
	case silent:
		_, cached := e.cache.Get(p.key)
		e.restart(now, p, p.why.expiring && cached)
	case resting:
		e.restart(now, p, p.again)
	}
}

// coveredMeanwhile reports whether the answer to another Map-Request covers
// what p asks for after a miss.
func (e *Engine) coveredMeanwhile(p *pending) (netip.Prefix, bool) {
	if p.why.refresh {
		return netip.Prefix{}, false
	}
	ent, ok := e.cache.LookupEntry(p.ask.IID, p.ask.Prefix.Addr())
	return ent.Prefix, ok && (len(ent.RLOCs) > 0 || ent.Action != lisp.ActionSendMapRequest)
}

// restart asks for p from the beginning if it is wanted, else forgets it.
func (e *Engine) restart(now time.Time, p *pending, wanted bool) {
	e.forgetNonces(p)
	if !wanted {
		e.waiting[p.kind]--
		delete(e.pending, p.key)
		return
	}
	p.phase, p.again, p.sends, p.unsent, p.accepted = asking, false, 0, 0, netip.Prefix{}
	p.security = secured{}
	e.ask(now, p)
}

// settle ends the asking for p, since it is answered. Its nonces stay
// outstanding while it rests, for the further Map-Replies that overlapping
// EID-Prefixes may need.
func (e *Engine) settle(now time.Time, p *pending, covering netip.Prefix) {
	if p.phase == resting {
		return
	}
	rest := requestInterval
	if p.why.smr {
		rest = smrInterval
	}
	p.phase, p.again, p.waiting, p.accepted, p.why = resting, false, false, covering, reasons{}
	// A little more than the interval when that is over, so that this never
	// ends in the step that began it.
	e.timers.set(&p.timer, later(p.lastSent.Add(rest), now.Add(time.Millisecond)))
}

// ask sends a Map-Request for p and sets the time to wait for the answer:
// exponential, jittered, never below a second (RFC 9301 §5.3).
func (e *Engine) ask(now time.Time, p *pending) {
	r := e.pickResolver(now, p)
	if r < 0 {
		// Without an uplink nothing is wanted forever: it counts as a try, so that
		// what nobody asks for any more is forgotten. SetLocals starts it anew.
		e.drop(now, DropNoLocal, netip.AddrPort{}, p.ask.String)
		p.unsent++
		e.waitForReply(now, p)
		return
	}
	if !e.requestLimit.AllowN(now, 1) {
		e.drop(now, DropMapRequestRate, netip.AddrPort{}, p.ask.String)
		e.timers.set(&p.timer, now.Add(requestInterval+e.jitter(requestInterval)))
		return
	}
	n := e.nonce()
	security, sec, ok := e.protect(now, p, e.resolvers[r], n)
	if !ok {
		p.unsent++
		e.waitForReply(now, p)
		return
	}
	p.resolver = r
	p.sends++
	p.lastSent, p.waiting = now, true
	e.sendMapRequest(p, e.resolvers[r], n, security)
	p.nonces = append(p.nonces, n)
	e.requests[n] = request{pending: p, resolver: e.resolvers[r], sent: now, sec: sec}
	e.emit(MapRequestSent{Stamp{now}, p.ask, e.resolvers[r].addr, n, p.sends, p.why.refresh, p.why.smr, sec != nil})

	e.waitForReply(now, p)
}

func (e *Engine) waitForReply(now time.Time, p *pending) {
	wait := min(requestInterval<<(p.sends+p.unsent-1), requestBackoff)
	if p.why.smr {
		wait = max(wait, smrInterval)
	}
	e.timers.set(&p.timer, now.Add(wait+e.jitter(wait/10)))
}

// sendMapRequest encapsulates a Map-Request for p to a Map-Resolver, with
// LISP-SEC data if there is any (RFC 9301 §5.3, §5.8).
func (e *Engine) sendMapRequest(p *pending, r *mapResolver, n lisp.Nonce, security []byte) {
	eid := p.ask.Prefix.Addr()
	// Not always by the same uplink, which may be silent without that anybody
	// could tell yet: nobody that answers probes is known.
	turn := max(0, p.sends-1) / len(e.resolvers)
	local, _ := e.localInTurn(r.addr.Addr(), turn)
	m := lisp.MapRequest{
		Nonce:      n,
		SMRInvoked: p.why.smr,
		PITR:       e.proxied(p.ask),
		ITRRLOCs:   e.itrRLOCs(),
		Records:    []lisp.RequestRecord{{MaskLen: uint8(p.ask.Prefix.Bits()), EID: lisp.EIDAddress(p.ask.IID, eid)}},
	}
	if turn > 0 {
		m.ITRRLOCs = firstOf(m.ITRRLOCs, lisp.AddressFrom(local.Addr))
	}
	source, haveEID := e.sourceEID(p.ask.IID, eid.Is4())
	if haveEID && (!p.why.refresh || p.why.smr) && !m.PITR {
		m.SourceEID = lisp.EIDAddress(p.ask.IID, source)
	}
	e.decorate(&m, p)
	// The inner source is an RLOC of ours. With none of the EID's family there
	// is only an EID of ours to take, or nothing: nobody answers to it, the
	// ITR-RLOCs are for that.
	if l, ok := e.localFor(eid); ok {
		source = l.Addr
	} else if !haveEID {
		source = netip.IPv6Unspecified()
		if eid.Is4() {
			source = netip.IPv4Unspecified()
		}
	}
	sent := e.send(local, r.addr, func(b []byte) ([]byte, error) {
		payload, err := m.AppendBinary(nil)
		if err != nil {
			return nil, err
		}
		packet, err := lisp.AppendInner(nil, lisp.Inner{
			Source:      netip.AddrPortFrom(source, e.cfg.Port),
			Destination: netip.AddrPortFrom(eid, lisp.ControlPort),
			Payload:     payload,
		})
		if err != nil {
			return nil, err
		}
		ecm := lisp.EncapsulatedControl{Security: security, Packet: packet}
		return ecm.AppendBinary(b)
	})
	if sent {
		e.stats.MapRequestsSent++
	}
}

// itrRLOCs are the locators that a Map-Reply may come to: all that are up.
func (e *Engine) itrRLOCs() []lisp.Address {
	as := make([]lisp.Address, 0, len(e.locals))
	for _, l := range e.locals {
		if l.Up && !l.Addr.IsLinkLocalUnicast() && len(as) < maxITRRLOCs {
			as = append(as, lisp.AddressFrom(l.Addr))
		}
	}
	return as
}

// firstOf puts a, if it is in the list, to its front: most take the first.
func firstOf(as []lisp.Address, a lisp.Address) []lisp.Address {
	if i := slices.Index(as, a); i > 0 {
		copy(as[1:i+1], as[:i])
		as[0] = a
	}
	return as
}

// sourceEID is the EID of ours that asks. The packet that misses is known by its
// destination only, but it has a source of ours in that instance and family.
func (e *Engine) sourceEID(iid uint32, is4 bool) (netip.Addr, bool) {
	for i := range e.db {
		if k := e.db[i].Key; k.IID == iid && k.Prefix.Addr().Is4() == is4 {
			return k.Prefix.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// hurryRequests repeats what is under way with our new locators, as soon as the
// rate limit allows.
func (e *Engine) hurryRequests(now time.Time) {
	var ps []*pending
	for _, p := range e.pending {
		if p.phase == asking {
			ps = append(ps, p)
		}
	}
	slices.SortFunc(ps, func(a, b *pending) int { return compareKeys(a.key, b.key) })
	for _, p := range ps {
		p.unsent = 0
		rest := requestInterval
		if p.why.smr {
			rest = smrInterval
		}
		e.timers.set(&p.timer, later(now, p.lastSent.Add(rest)))
	}
	e.resubscribe(now)
}

func (e *Engine) forgetNonces(p *pending) {
	for _, n := range p.nonces {
		delete(e.requests, n)
	}
	p.nonces = p.nonces[:0]
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
