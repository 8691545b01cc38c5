package control

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Experimental switches on what follows a running peer and our own judgement
// where the text of the standard was not at hand. It may change.
type Experimental struct {
	// PubSub subscribes to the EID-Prefixes in the map-cache (Publish/Subscribe,
	// RFC 9437), by a Map-Request with the I bit, our xTR-ID and Site-ID, and the N
	// bit in its EID-Record. A Map-Server that we register with and that
	// agrees answers by a Map-Notify, and sends further ones when the mapping
	// changes. Only what it signs with the key shared with us, and numbers upward
	// from our request, is believed. It needs Config.XTRID.
	PubSub bool
}

// Times of subscriptions.
const (
	subscribeInterval = 15 * time.Minute // renewal, also of what was refused
	subscribeTries    = 3                // at 1, 2 and 4 s
	subscribeSpread   = time.Second      // so that many entries don't ask at once
	maxSubscriptions  = 1 << 16
)

// recordSubscribe is the N bit of an EID-Record in a Map-Request.
const recordSubscribe = 0x80

// subscription is to the EID-Prefix of an entry of the map-cache.
type subscription struct {
	pending            // what Map-Requests are made of; it is not among Engine.pending
	server  *mapServer // that confirmed it; nil: none yet
	nonce   lisp.Nonce // of the last Map-Notify taken; before that, of our first request
	asked   lisp.Nonce // of the request that is not confirmed; 0: none
	last    lisp.Nonce // of any request
}

// noteSubscription follows a change of the map-cache.
func (e *Engine) noteSubscription(now time.Time, k mapcache.Key, present bool) {
	if !e.cfg.Experimental.PubSub {
		return
	}
	s := e.subscriptions[k]
	switch {
	case !present && s != nil:
		e.unsubscribe(now, s)
	case present && s == nil && len(e.subscriptions) < maxSubscriptions:
		ent, ok := e.cache.Get(k)
		if !ok || ent.Origin == mapcache.OriginStatic || len(ent.RLOCs) == 0 {
			return
		}
		s = &subscription{}
		s.key, s.ask, s.subscribe = k, k, true
		s.fire = func(now time.Time) { e.subscribe(now, s) }
		e.subscriptions[k] = s
		e.timers.set(&s.timer, now.Add(time.Millisecond+e.jitter(subscribeSpread)))
	}
}

// resubscribe renews all subscriptions soon, since our locators changed.
func (e *Engine) resubscribe(now time.Time) {
	for _, k := range slices.SortedFunc(maps.Keys(e.subscriptions), compareKeys) {
		s := e.subscriptions[k]
		s.sends = 0
		e.timers.set(&s.timer, now.Add(time.Millisecond+e.jitter(subscribeSpread)))
	}
}

// subscribe sends the Map-Request for s, and waits for the Map-Notify or for the
// next renewal.
func (e *Engine) subscribe(now time.Time, s *subscription) {
	if s.sends >= subscribeTries {
		s.sends, s.asked = 0, 0
		e.timers.set(&s.timer, now.Add(subscribeInterval-e.jitter(subscribeInterval/10)))
		return
	}
	wait := requestInterval << s.sends
	s.asked = 0
	if n := e.subscriptionNonce(now, s); e.sendSubscription(now, s, n) {
		s.asked = n
		if s.server == nil {
			s.nonce = n - 1
		}
	}
	s.sends++
	e.timers.set(&s.timer, now.Add(wait+e.jitter(wait/10)))
}

// subscriptionNonce grows, also across restarts as long as the clock does, so
// that a Map-Server can tell a repeated request; its lower part cannot be
// foretold.
func (e *Engine) subscriptionNonce(now time.Time, s *subscription) lisp.Nonce {
	const random = 24
	n := lisp.Nonce(max(now.Unix(), 0))<<random | lisp.Nonce(e.random()>>(64-random))
	s.last = max(n, s.last+1, s.nonce+1)
	return s.last
}

// sendSubscription sends one Map-Request for s.
func (e *Engine) sendSubscription(now time.Time, s *subscription, n lisp.Nonce) bool {
	if _, ok := e.sourceEID(s.ask.IID, s.ask.Prefix.Addr().Is4()); !ok {
		return false // the Map-Server knows us by an EID of ours
	}
	r := e.pickResolver(now, &s.pending)
	if r < 0 || !e.requestLimit.AllowN(now, 1) {
		return false
	}
	s.resolver = r
	// The answer is not a Map-Reply, so its LISP-SEC key is not kept: it shows the
	// mapping system that we are who we are.
	security, _, ok := e.protect(now, &s.pending, e.resolvers[r], n)
	if ok {
		e.sendMapRequest(&s.pending, e.resolvers[r], n, security)
	}
	return ok
}

// unsubscribe ends a subscription whose entry is gone. It is said once: if that
// is lost the Map-Server finds out by our silence.
func (e *Engine) unsubscribe(now time.Time, s *subscription) {
	e.timers.stop(&s.timer)
	delete(e.subscriptions, s.key)
	if s.server == nil {
		return
	}
	s.end = true
	e.sendSubscription(now, s, e.subscriptionNonce(now, s))
}

// decorate makes a Map-Request one for a subscription. That it names no address
// to answer to ends the subscription.
func (e *Engine) decorate(m *lisp.MapRequest, p *pending) {
	if !p.subscribe {
		return
	}
	if source, ok := e.sourceEID(p.ask.IID, p.ask.Prefix.Addr().Is4()); ok {
		m.SourceEID = lisp.EIDAddress(p.ask.IID, source)
	}
	m.PITR, m.Reserved = false, m.Reserved|lisp.RequestReservedXTRID
	m.Records[0].Reserved |= recordSubscribe
	m.Trailer = binary.BigEndian.AppendUint64(append(m.Trailer, e.cfg.XTRID[:]...), uint64(e.cfg.SiteID))
	if p.end {
		m.ITRRLOCs = []lisp.Address{{}}
	}
}

// handlePublication takes a verified Map-Notify that is about a subscription: its
// confirmation, or a change. It reports whether it is one.
func (e *Engine) handlePublication(now time.Time, d lisp.Datagram, m *lisp.MapNotify, from *mapServer) bool {
	s := e.subscriptionOf(m)
	if s == nil {
		return false
	}
	if x, site, ok := m.Identity(); ok && (x != e.cfg.XTRID || site != e.cfg.SiteID) {
		e.drop(now, DropNotAsked, d.Remote, m.String)
		return true
	}
	switch {
	case s.asked != 0 && m.Nonce == s.asked:
		s.server, s.nonce, s.asked, s.sends = from, m.Nonce, 0, 0
		e.timers.set(&s.timer, now.Add(subscribeInterval-e.jitter(subscribeInterval/10)))
	case s.server == from && m.Nonce == s.nonce:
		e.acknowledge(now, d, from) // once more: the first one was lost
		return true
	case s.server == from && m.Nonce > s.nonce:
		s.nonce = m.Nonce
		e.acknowledge(now, d, from)
	default:
		e.drop(now, DropUnknownNonce, d.Remote, m.Nonce.String)
		return true
	}
	e.stats.Publications++
	e.learnPublished(now, d, m, s.key, from)
	return true
}

// subscriptionOf finds the subscription that m is about: one to an EID-Prefix
// that contains its first record.
func (e *Engine) subscriptionOf(m *lisp.MapNotify) *subscription {
	if len(e.subscriptions) == 0 || len(m.Records) == 0 {
		return nil
	}
	k, ok := recordKey(&m.Records[0])
	if !ok {
		return nil
	}
	var found *subscription
	for bits := k.Prefix.Bits(); bits >= 0; bits-- {
		s := e.subscriptions[mapcache.Key{IID: k.IID, Prefix: netip.PrefixFrom(k.Prefix.Addr(), bits).Masked()}]
		if s != nil && (found == nil || s.asked == m.Nonce || s.nonce+1 == m.Nonce) {
			found = s
		}
	}
	return found
}

// MappingPublished says that a Map-Server confirmed a subscription or published a
// change (Config.Experimental).
type MappingPublished struct {
	Stamp
	MapServer netip.AddrPort
	EID       mapcache.Key // subscribed to
	Mappings  int          // taken into the map-cache
}

func (MappingPublished) event() {}

func (e MappingPublished) String() string {
	return fmt.Sprintf("Map-Server %v publishes %s for %v", e.MapServer.Addr(), count(e.Mappings, "mapping"), e.EID)
}

// learnPublished puts the records of a publication into the map-cache, as far as
// they are within what was subscribed to.
func (e *Engine) learnPublished(now time.Time, d lisp.Datagram, m *lisp.MapNotify, about mapcache.Key, from *mapServer) {
	ev := MappingPublished{Stamp: Stamp{now}, MapServer: from.Addr, EID: about}
	for i := range m.Records {
		rec := &m.Records[i]
		k, ok := recordKey(rec)
		if !ok || k.IID != about.IID || k.Prefix.Bits() < about.Prefix.Bits() || !about.Prefix.Contains(k.Prefix.Addr()) {
			e.drop(now, DropNotAsked, d.Remote, rec.String)
			continue
		}
		if old, ok := e.cache.Get(k); ok && old.Origin == mapcache.OriginStatic {
			continue // what is configured stays
		}
		n := mapcache.Mapping{
			Key: k, TTL: mapcache.RecordTTL(rec.TTL), Origin: mapcache.OriginNotify, Action: rec.Action,
			MapVersion: rec.MapVersion, Asked: about.Prefix,
		}
		switch {
		case !rec.Negative():
			if n.RLOCs = e.usableRLOCs(rec); len(n.RLOCs) == 0 {
				n.Action = lisp.ActionDropNoReason
			}
		case rec.Action == lisp.ActionNativelyForward || rec.Action == lisp.ActionNoAction:
			n.RLOCs = e.proxyETRs(k)
		}
		if n.TTL == 0 {
			e.cache.Remove(now, k)
		} else if err := e.insert(now, rec, &n); err != nil {
			e.drop(now, DropCacheFull, d.Remote, err.Error)
			continue
		}
		ev.Mappings++
	}
	e.emit(ev)
	e.collect(now)
}
