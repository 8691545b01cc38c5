package mapserver

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Apply brings authenticated Map-Registers into the state, in the order given,
// and queues their Map-Notifies. The Updates must come from Workers of this
// Server; each is applied once.
func (s *Server) Apply(now time.Time, us ...*Update) {
	ticks := s.toTicks(now)
	for _, u := range us {
		s.apply(now, ticks, u)
		if u.recycled {
			s.updates.put(u)
		}
	}
	s.transmit(now, ticks)
	s.publishChanges(ticks)
}

func (s *Server) apply(now time.Time, ticks int64, u *Update) {
	switch {
	case u.acked != nil:
		s.acknowledged(now, ticks, u)
		return
	case u.subscribe != nil:
		s.subscribed(ticks, u)
		return
	case u.healthy != nil:
		s.answered(now, ticks, u.healthy)
		return
	}
	if u.set != s.set() && !s.stillFits(u) {
		s.refuse(now, u, ReasonNotConfigured)
		return
	}
	x := s.association(u)
	if x == nil {
		if s.full(s.xtrs.len()) {
			s.refuse(now, u, ReasonLimit)
			return
		}
		x = newXTR(u.xtr)
	}
	v, relaxed := x.judge(ticks, int64(s.cfg.RegisterTimeout), u.algorithm, u.nonce, u.fingerprint)
	switch v {
	case verdictReplay:
		if s.warnings.take(ticks, onePerSecond) {
			s.log.Warn("map-register with an old nonce, possibly replayed",
				"peer", u.from, "site", u.xtr.site.name, "nonce", lisp.Nonce(u.nonce), "last", lisp.Nonce(x.nonce.Load()))
		}
		s.refuse(now, u, ReasonReplay)
		return
	case verdictDuplicate:
		s.duplicate(now, ticks, u)
		return
	case verdictNew:
	}
	// Not for a repeated one, which anybody may send from any address.
	s.limits.vouch(ticks, u.from.Addr())
	if u.path.IsValid() {
		s.worker.stats.relayed.Add(1)
	}
	if u.refresh != nil {
		s.applyRefresh(now, ticks, u, x)
		return
	}
	if i, reason, ok := s.admissible(ticks, u); !ok {
		s.refuseRecord(now, u, &u.items[i], reason)
		return
	}
	if relaxed {
		s.log.Info("xtr was silent and its nonce went back, nonces are no longer enforced until it counts again",
			"peer", u.from, "site", u.xtr.site.name)
		x.run = 0
	}
	s.keepXTR(x)
	x.accept(ticks, u.algorithm, u.nonce, u.fingerprint)
	s.worker.stats.accepted.Add(1)
	for i := range u.items {
		it := &u.items[i]
		o := s.tick(now)
		x.stamp = o
		expires := ticks
		if it.ttl != 0 {
			expires += s.lifetime(u.flags, it.ttl)
		}
		before := s.get(it.key)
		s.mergeClaim(now, ticks, &claimChange{
			key: it.key, site: it.site, holder: u.holder, xtr: x, from: u.from, keyID: u.xtr.keyID, algorithm: u.algorithm,
			flags: u.flags, record: u.records[i], content: o, stamp: o, nonce: u.nonce, expires: expires, seen: ticks,
		}, true)
		s.moved(now, ticks, u, it.key, before)
	}
	s.notePath(x, u.path) // those who are displaced hear by the one before
	s.notify(u)
}

// applyRefresh stamps the claims of a Map-Register that changes nothing.
func (s *Server) applyRefresh(now time.Time, ticks int64, u *Update, x *xtrState) {
	if x.claims == 0 {
		return // all of it is gone meanwhile; the next Map-Register settles it
	}
	x.accept(ticks, u.algorithm, u.nonce, u.fingerprint)
	s.notePath(x, u.path)
	s.worker.stats.accepted.Add(1)
	s.worker.stats.refreshes.Add(1)
	for _, c := range u.refresh {
		if c.replaced || !c.live(ticks) {
			continue // likewise
		}
		c.stamp = s.tick(now)
		x.stamp = c.stamp
		c.nonce.Store(u.nonce)
		c.seen.Store(ticks)
		life := s.lifetime(c.flags, c.ttl())
		c.expires.Store(ticks + life)
		s.record(c, false)
		if s.cfg.EventBuffer > 0 {
			s.addEvent(Registered{
				Time: now, Change: ChangeRefreshed, Site: c.site.name, IID: c.key.inst.iid, EID: c.key.prefix,
				From: u.from, XTRID: u.holder.xtr, Lifetime: time.Duration(life),
			})
		}
	}
}

// duplicate answers a repeated Map-Register with the Map-Notify that it had got
// (the same message makes the same Map-Notify), at a limited rate. One by an RTR
// is not: the RTR would believe that the node is where the repetition comes from,
// which may be somebody who has kept it.
func (s *Server) duplicate(now time.Time, ticks int64, u *Update) {
	s.worker.stats.duplicates.Add(1)
	if len(u.notify.Bytes) > 0 && !u.path.IsValid() {
		if s.limits.allow(ticks, u.from.Addr(), u.from.Addr()) {
			s.notify(u)
		} else {
			s.worker.stats.dropped[ReasonRate].Add(1)
		}
	}
	for i := range u.items {
		s.addEvent(Registered{
			Time: now, Change: ChangeDuplicate, Site: u.items[i].site.name, IID: u.items[i].key.inst.iid,
			EID: u.items[i].key.prefix, From: u.from, XTRID: u.holder.xtr,
		})
	}
}

func (s *Server) notify(u *Update) {
	if len(u.notify.Bytes) > 0 {
		s.worker.stats.notifies.Add(1)
		s.enqueue(u.notify)
	}
}

// admissible checks all records before any is applied.
func (s *Server) admissible(ticks int64, u *Update) (int, Reason, bool) {
	added := 0
	for i := range u.items {
		it := &u.items[i]
		r := s.get(it.key)
		if r == nil || r.find(u.holder) == nil {
			added++
		}
		if added > 0 && s.full(s.claimCount+added-1) {
			return i, ReasonLimit, false
		}
		if r == nil {
			continue
		}
		// RFC 9302 §5: a Map-Register with an old version is dropped.
		if c := r.newest(ticks); c != nil && versionOlder(recordVersion(u.records[i]), recordVersion(c.record)) {
			return i, ReasonVersion, false
		}
	}
	return 0, 0, true
}

func (s *Server) full(n int) bool { return s.cfg.MaxRegistrations > 0 && n >= s.cfg.MaxRegistrations }

func (s *Server) refuse(now time.Time, u *Update, r Reason) {
	var it *registerItem
	switch {
	case len(u.items) > 0:
		it = &u.items[0]
	case len(u.refresh) > 0:
		it = &registerItem{key: u.refresh[0].key, site: u.refresh[0].site}
	}
	s.refuseRecord(now, u, it, r)
}

func (s *Server) refuseRecord(now time.Time, u *Update, it *registerItem, r Reason) {
	s.worker.stats.dropped[r].Add(1)
	e := Refused{
		Time: now, Reason: r, Site: it.site.name, IID: it.key.inst.iid, EID: it.key.prefix, From: u.from, KeyID: u.xtr.keyID,
	}
	s.addEvent(e)
	s.refused(s.toTicks(now), func() Refused { return e })
}

// get finds a registration, live or not.
func (s *Server) get(k regKey) *registration {
	if r, ok := k.inst.regs.Get(k.prefix); ok {
		return r
	}
	r, _ := k.inst.dead.Get(k.prefix)
	return r
}

// claimChange is a claim as it shall become: content, stamp, or both.
type claimChange struct {
	key       regKey
	site      *site
	holder    holder
	xtr       *xtrState
	from      netip.AddrPort
	keyID     uint8
	algorithm lisp.Algorithm
	flags     uint8
	record    []byte // empty: a stamp only
	content   order
	stamp     order
	nonce     uint64
	expires   int64
	seen      int64
}

// mergeClaim brings a change into the state. Content and stamp each are a
// last-writer-wins register, so that the order of arrival and repetitions
// don't matter. local says that it was accepted here. It reports whether
// anything changed.
func (s *Server) mergeClaim(now time.Time, ticks int64, ch *claimChange, local bool) bool {
	r := s.get(ch.key)
	if r == nil {
		r = &registration{key: ch.key, site: ch.site}
	}
	old := r.find(ch.holder)
	newContent := len(ch.record) > 0 && (old == nil || ch.content.compare(old.content) > 0)
	newStamp := old == nil || ch.stamp.compare(old.stamp) > 0
	if !newContent && !newStamp {
		return false
	}
	wasLive := r.live(ticks)
	before := s.effective(r, ticks)
	due := old == nil || newContent || !old.live(ticks) || ch.expires < old.expires.Load()
	c := old
	if newContent || old == nil {
		c = newClaim(ch.key, ch.site)
		c.from = ch.holder.addr
		if old != nil {
			c.xtr, c.stamp = old.xtr, old.stamp
			c.expires.Store(old.expires.Load())
			c.seen.Store(old.seen.Load())
			c.nonce.Store(old.nonce.Load())
			s.retire(old)
		} else {
			s.claimCount++
		}
		if newContent {
			c.content, c.record, c.from = ch.content, string(ch.record), ch.from.Addr()
			c.keyID, c.algorithm, c.flags = ch.keyID, ch.algorithm, ch.flags
		}
		s.setXTR(c, ch.xtr)
		r = r.with(c, old)
	}
	if newStamp {
		c.stamp, c.ended = ch.stamp, false
		c.expires.Store(ch.expires)
		c.seen.Store(ch.seen)
		c.nonce.Store(ch.nonce)
	}
	r = s.boundClaims(r)
	s.publish(ticks, r)
	if due {
		s.schedule(c)
	}
	if local {
		s.record(c, true)
	}
	s.report(now, ticks, r, c, ch.from, before, wasLive)
	return true
}

// setXTR moves a claim that is not published yet to an association, and drops
// the old one if it is of no use any more.
func (s *Server) setXTR(c *claim, x *xtrState) {
	old := c.xtr
	if old == x {
		return
	}
	x.claims++
	if x.idle {
		x.idle = false
		x.site.idle--
	}
	c.xtr = x
	s.releaseXTR(old)
}

// releaseXTR takes a claim off an association. The claim keeps its pointer:
// workers may still be looking at it.
func (s *Server) releaseXTR(x *xtrState) {
	if x == nil {
		return
	}
	if x.claims--; x.claims > 0 {
		return
	}
	// One whose nonces are enforced is remembered (RFC 9301 §5.6).
	if x.enforced(x.algorithm) {
		x.idle = true
		if x.site.idle++; x.site.idle > maxIdle {
			s.forgetIdle(x.site)
		}
		return
	}
	s.forgetXTR(x)
}

// forgetIdle forgets the longer silent half of a site's idle xTRs.
func (s *Server) forgetIdle(of *site) {
	idle := make([]*xtrState, 0, of.idle)
	for x := range s.xtrs.all() {
		if x.idle && x.site == of {
			idle = append(idle, x)
		}
	}
	slices.SortFunc(idle, func(a, b *xtrState) int {
		return cmp.Or(cmp.Compare(a.seen, b.seen), bytes.Compare(a.xtr[:], b.xtr[:]))
	})
	for _, x := range idle[:len(idle)/2] {
		s.forgetXTR(x)
		of.idle--
	}
	s.log.Warn("forgot the nonces of xTRs that have nothing registered", "site", of.name, "xtrs", len(idle)/2)
}

// retire marks a claim as no part of the state any more.
func (s *Server) retire(c *claim) {
	c.replaced = true
	s.expiry.remove(c)
}

// boundClaims drops the oldest claims of an EID-Prefix that has too many.
func (s *Server) boundClaims(r *registration) *registration {
	for len(r.claims()) > maxClaimsPerEID {
		c := r.claims()[len(r.claims())-1]
		r = r.with(nil, c)
		s.dropClaim(c)
	}
	return r
}

func (s *Server) dropClaim(c *claim) {
	s.retire(c)
	s.claimCount--
	s.releaseXTR(c.xtr)
}

// schedule has a claim looked at when it expires.
func (s *Server) schedule(c *claim) {
	s.expiry.sweep(s.claimCount)
	s.expiry.add(c, c.expires.Load())
}

// publish makes r what workers see, or takes it away when nothing of it is live.
func (s *Server) publish(ticks int64, r *registration) {
	k := r.key
	t := k.inst.regs
	old, had := t.Get(k.prefix)
	if r.live(ticks) {
		k.inst.dead.remove(k.prefix)
		if old != r {
			t.set(r)
		}
		if !had {
			s.registered.Add(1)
		}
		return
	}
	if had {
		t.remove(k.prefix)
		s.registered.Add(-1)
	}
	if len(r.claims()) > 0 {
		k.inst.dead.set(r)
	} else {
		k.inst.dead.remove(k.prefix)
	}
}

// logs tells whether what happens to registrations is logged, so that a million
// of them cost nothing if not.
func (s *Server) logs() bool { return s.log.Enabled(context.Background(), slog.LevelInfo) }

// report makes the event of a change.
func (s *Server) report(now time.Time, ticks int64, r *registration, c *claim, from netip.AddrPort, before string, wasLive bool) {
	live := r.live(ticks)
	site, iid, eid := r.site.name, r.key.inst.iid, r.key.prefix
	if !live {
		if wasLive {
			s.remapped(ticks, r.key)
			s.log.Info("registration withdrawn", "eid", eid, "iid", iid, "site", site, "peer", from)
			s.addEvent(Withdrawn{Time: now, Site: site, IID: iid, EID: eid, From: from, XTRID: c.holder().xtr})
		}
		return
	}
	change := ChangeNew
	if wasLive {
		change = ChangeMapping
		if s.effective(r, ticks) == before {
			change = ChangeRefreshed
		}
	}
	if change == ChangeRefreshed {
		s.worker.stats.refreshes.Add(1)
	} else {
		s.remapped(ticks, r.key)
		if s.logs() {
			s.log.Info("registration", "change", change.String(), "eid", eid, "iid", iid, "site", site, "peer", from)
		}
	}
	if s.cfg.EventBuffer < 0 {
		return
	}
	e := Registered{
		Time: now, Change: change, Site: site, IID: iid, EID: eid, From: from, XTRID: c.holder().xtr,
		Lifetime: time.Duration(c.expires.Load() - ticks),
	}
	if change != ChangeRefreshed {
		e.RLOCs = mergedRLOCs(r.current(ticks, nil))
	}
	s.addEvent(e)
}

// effective is the mapping of a registration in comparable form: without what
// differs between xTRs that register the same (L and p bits).
func (s *Server) effective(r *registration, ticks int64) string {
	w := s.worker
	n := len(w.reply.Records)
	defer func() { w.reply.Records = w.reply.Records[:n] }()
	w.ticks, w.asker = ticks, netip.Addr{}
	if !w.positive(r, r.key.inst.iid, r.key.prefix) {
		return ""
	}
	b, err := w.encoder.append(nil, &w.reply.Records[n])
	if err != nil {
		return ""
	}
	return string(b)
}

// expire looks at a claim that is due. It returns when to look again.
func (s *Server) expire(now time.Time, ticks int64, c *claim) (int64, bool) {
	if c.replaced {
		return 0, false
	}
	expires := c.expires.Load()
	if expires > ticks {
		return expires, true
	}
	r := s.get(c.key)
	if r == nil {
		return 0, false
	}
	drop := saturatingAdd(expires, tombstoneTime)
	if drop <= ticks {
		r = r.with(nil, c)
		s.dropClaim(c)
		s.publish(ticks, r)
		return 0, false
	}
	if _, published := c.key.inst.regs.Get(c.key.prefix); published && c.endsUntold(ticks) {
		s.ended(now, c)
		if !r.live(ticks) {
			s.publish(ticks, r)
			// The others of it that have ended come up when it is published no more.
			for _, o := range r.claims() {
				if o.endsUntold(ticks) {
					s.ended(now, o)
				}
			}
		}
		s.fellBack(ticks, r, c)
		s.remapped(ticks, r.key)
	}
	return drop, true
}

// endsUntold reports whether c has expired, not by being withdrawn, and nobody was
// told.
func (c *claim) endsUntold(ticks int64) bool {
	return !c.ended && len(c.record) > 0 && !c.withdrawn() && c.expires.Load() <= ticks
}

// ended tells that c has expired.
func (s *Server) ended(now time.Time, c *claim) {
	c.ended = true
	if s.logs() {
		s.log.Info("registration expired", "eid", c.key.prefix, "iid", c.key.inst.iid, "site", c.site.name, "peer", c.from)
	}
	s.addEvent(Expired{
		Time: now, Site: c.site.name, IID: c.key.inst.iid, EID: c.key.prefix, From: c.from, XTRID: c.holder().xtr,
	})
}
