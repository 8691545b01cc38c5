package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// ownMapping is what packets of a closed network have to say of an EID-Prefix of
// ours.
type ownMapping struct {
	version  uint16            // 0: the mapping has none
	locators []lisp.RLOCRecord // of the version; nil: none were announced yet
	ordinals []netip.Addr      // of the locators in our Map-Replies
	ttl      time.Duration
	since    time.Time        // when they were first announced
	retired  []retiredVersion // that may still be in a map-cache, oldest first
	useLSBs  time.Time        // from when
}

// retiredVersion is a version that has been replaced, and until when a map-cache
// can have it: it was given its TTL at the latest when it was replaced.
type retiredVersion struct {
	version uint16
	until   time.Time
}

// maxRetired bounds the versions kept of a mapping.
const maxRetired = 64

// mapVersion is the Map-Version Number of the mapping of k.
func (e *Engine) mapVersion(k mapcache.Key) uint16 {
	if e.closed == nil {
		return 0
	}
	if o := e.closed.own[k]; o != nil {
		return o.version
	}
	return 0
}

// MapVersions returns the Map-Version Numbers of our mappings, for
// DatabaseMapping.MapVersion of the next run: a number that starts anew would be
// taken for an old one by a Map-Server and by map-caches.
func (e *Engine) MapVersions() map[mapcache.Key]uint16 {
	out := make(map[mapcache.Key]uint16)
	if e.closed != nil {
		for k, o := range e.closed.own {
			if o.version != 0 {
				out[k] = o.version
			}
		}
	}
	return out
}

// versionDatabase gives the records of the database their Map-Version Numbers: a
// mapping that differs from what was announced is a new version (RFC 9302 §6, §7).
func (e *Engine) versionDatabase(now time.Time) {
	c := e.closed
	if c == nil {
		return
	}
	for k := range c.own {
		if !e.isOurs(k) {
			delete(c.own, k)
		}
	}
	for i := range e.db {
		m := &e.db[i]
		o := c.own[m.Key]
		if o == nil {
			o = &ownMapping{version: e.firstVersion(m.MapVersion)}
			c.own[m.Key] = o
		}
		e.versionMapping(now, o, m)
		m.record.MapVersion = o.version
	}
	e.signalOwn(now)
}

// firstVersion is the number that a mapping begins with: the configured one. None
// is made up where none is wanted (RFC 9302 §6).
func (e *Engine) firstVersion(configured uint16) uint16 {
	if configured == RandomMapVersion {
		return uint16(1 + e.random()%0xfff)
	}
	return configured
}

// versionMapping follows a change of the record of m.
func (e *Engine) versionMapping(now time.Time, o *ownMapping, m *localMapping) {
	after, ordinals := m.record.Locators, ordinalsOf(m)
	defer func() { o.locators, o.ordinals, o.ttl = slices.Clone(after), ordinals, m.TTL }()
	if len(e.given) == 0 {
		return // nothing is announced before the first SetLocals
	}
	if o.since.IsZero() {
		o.since = now
		o.useLSBs = now.Add(e.cfg.Closed.UseLSBTime)
		return
	}
	if !slices.Equal(o.ordinals, ordinals) {
		// RFC 9300 §13.1: the ordinals that others know are out of date.
		o.useLSBs = now.Add(e.cfg.Closed.UseLSBTime)
	}
	if o.version == 0 || slices.EqualFunc(o.locators, after, func(a, b lisp.RLOCRecord) bool {
		if e.cfg.Closed.LocatorStatusBits {
			a.Reachable = b.Reachable // that is what the status bits are for
		}
		return a == b
	}) {
		return
	}
	if len(o.retired) >= maxRetired {
		o.retired = slices.Delete(o.retired, 1, 2) // the oldest is still accepted
	}
	o.retired = append(o.retired, retiredVersion{o.version, now.Add(o.ttl)})
	o.version = lisp.NextMapVersion(o.version)
}

// ordinalsOf are the locators of m in the order of our Map-Replies, those of other
// xTRs of the site included.
func ordinalsOf(m *localMapping) (as []netip.Addr) {
	for _, l := range siteRecord(m).Locators {
		ip, _ := l.RLOC.IP()
		as = append(as, ip)
	}
	return as
}

// oldest returns the oldest version that can still be in a map-cache, 0 for any,
// and when that changes, zero for never.
func (o *ownMapping) oldest(now time.Time) (uint16, time.Time) {
	for len(o.retired) > 0 && !o.retired[0].until.After(now) {
		o.retired = o.retired[1:]
	}
	// What was announced before this run is not known.
	if before := o.since.Add(o.ttl); before.After(now) {
		return 0, before
	}
	if len(o.retired) > 0 {
		return o.retired[0].version, o.retired[0].until
	}
	return o.version, time.Time{}
}

// signalOwn tells the data plane what our EID-Prefixes have to say, and comes back
// when time changes it.
func (e *Engine) signalOwn(now time.Time) {
	c := e.closed
	list := make([]mapcache.LocalSignal, 0, len(e.db))
	var next time.Time
	soon := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for i := range e.db {
		o := c.own[e.db[i].Key]
		sig := mapcache.LocalSignal{Key: e.db[i].Key}
		if o.version != 0 {
			var until time.Time
			sig.MapVersion = o.version
			if !o.since.IsZero() {
				sig.Oldest, until = o.oldest(now)
				soon(until)
			}
		}
		if e.cfg.Closed.LocatorStatusBits && !o.since.IsZero() {
			sig.LSBs, sig.UseLSBs = statusOf(siteRecord(&e.db[i]).Locators), !o.useLSBs.After(now)
			soon(o.useLSBs)
		}
		list = append(list, sig)
	}
	c.signals.Locals = list
	if next.IsZero() {
		e.timers.stop(&c.ownTimer)
	} else {
		e.timers.set(&c.ownTimer, next)
	}
}

// statusOf returns the LSBs of a mapping of ours: bit i is the locator at position
// i of our Map-Replies (RFC 9300 §5.3).
func statusOf(locators []lisp.RLOCRecord) (lsbs uint32) {
	for i := range locators[:min(len(locators), 32)] {
		if locators[i].Reachable {
			lsbs |= 1 << i
		}
	}
	return lsbs
}

// outdated reports whether rec, which somebody who is not authoritative for it
// sends, is an older version than the entry in the map-cache. What the ETR itself
// says is always believed.
func (e *Engine) outdated(k mapcache.Key, rec *lisp.EIDRecord) bool {
	if e.closed == nil || !e.cfg.Closed.MapVersions || rec.Authoritative {
		return false
	}
	ent, ok := e.cache.Get(k)
	return ok && mapcache.NewerMapVersion(ent.MapVersion, rec.MapVersion)
}

// newerSource: a site uses a newer version of its mapping than we have (RFC 9302
// §7.2), so it is asked for.
func (e *Engine) newerSource(now time.Time, d mapcache.Discovery) {
	ent, ok := e.cache.LookupEntry(d.Key.IID, d.Key.Prefix.Addr())
	if ok && ent.Origin == mapcache.OriginMapReply && mapcache.NewerMapVersion(d.MapVersion, ent.MapVersion) {
		e.refresh(now, ent.Key, reasons{})
	}
}

// staleKey names an ITR that uses an old version of one of our mappings.
type staleKey struct {
	rloc netip.Addr
	key  mapcache.Key
}

// stalePeer is such an ITR, while it does so.
type stalePeer struct {
	timer
	sends int
	seen  time.Time // when it last did
	next  time.Time // when it may be told again
}

const (
	staleForget = 2 * time.Minute // without stale packets an ITR is forgotten
	maxStale    = 1024
)

// staleVersion: an ITR uses an old version of a mapping of ours (RFC 9302 §7.1).
// It is told by an SMR, as often as the rules for Map-Requests allow; when ten
// repetitions were in vain, its stale packets are dropped.
func (e *Engine) staleVersion(now time.Time, d mapcache.Discovery) {
	own, ok := e.database.LookupEntry(d.Key.IID, d.Key.Prefix.Addr())
	if !ok || !usableUnicast(d.Locator.Addr) || !mapcache.NewerMapVersion(e.mapVersion(own.Key), d.MapVersion) {
		return
	}
	k := staleKey{d.Locator.Addr, own.Key}
	p := e.closed.stale[k]
	if p == nil {
		if len(e.closed.stale) >= maxStale {
			e.drop(now, DropTooManyPeers, netip.AddrPortFrom(k.rloc, lisp.ControlPort), k.key.String)
			return
		}
		p = &stalePeer{}
		p.fire = func(now time.Time) { e.staleTimer(now, k, p) }
		e.closed.stale[k] = p
		e.timers.set(&p.timer, now.Add(staleForget))
	}
	p.seen = now
	if now.Before(p.next) {
		return
	}
	record := mapcache.HostKey(own.IID, d.Source)
	if !d.Source.IsValid() || !sameKind(record, own.Key) {
		record = own.Key
	}
	if !e.smrNow(now, k.rloc, smrItem{changed: own.Key, record: record, sends: p.sends + 1}) {
		return // the next report comes soon
	}
	p.sends++
	// All of the mappings that it has old versions of take turns.
	wait := time.Duration(0)
	for o := range e.closed.stale {
		if o.rloc == k.rloc {
			wait += smrInterval
		}
	}
	if p.sends > requestRetries {
		wait = max(wait, requestSilence)
		if p.sends == requestRetries+1 {
			e.refuseStale(k.rloc, 1)
		}
	}
	p.next = now.Add(wait)
}

// smrNow sends one SMR, unless one has just been sent there or none can be.
func (e *Engine) smrNow(now time.Time, to netip.Addr, it smrItem) bool {
	local, ok := e.localFor(to)
	p := e.smr.peers[to]
	if !ok || p != nil && !p.last.IsZero() && now.Sub(p.last) < smrInterval {
		return false
	}
	if p == nil {
		if len(e.smr.peers) >= e.cfg.SMR.MaxPeers {
			e.drop(now, DropTooManyPeers, netip.AddrPortFrom(to, lisp.ControlPort), it.changed.String)
			return false
		}
		p = &smrPeer{rloc: to}
		p.fire = func(now time.Time) { e.peerTimer(now, p) }
		e.smr.peers[to] = p
	}
	p.last = now
	e.sendSMR(now, local, to, it)
	next := now.Add(smrInterval) // what else is to be told, or nothing
	if p.index != 0 {
		next = later(next, p.at)
	}
	e.timers.set(&p.timer, next)
	return true
}

func (e *Engine) staleTimer(now time.Time, k staleKey, p *stalePeer) {
	if at := p.seen.Add(staleForget); at.After(now) {
		e.timers.set(&p.timer, at)
		return
	}
	delete(e.closed.stale, k)
	if p.sends > requestRetries {
		e.refuseStale(k.rloc, -1)
	}
}

func (e *Engine) refuseStale(a netip.Addr, by int) {
	if e.closed.refused[a] += by; e.closed.refused[a] == 0 {
		delete(e.closed.refused, a)
	}
	e.signalLocator(a)
}
