package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// handleMapReply takes a Map-Reply (RFC 9301 §5.4): the answer to a Map-Request
// of resolve.go, or to an RLOC-probe of probe.go. Only one that carries an
// outstanding nonce is looked at any further.
func (e *Engine) handleMapReply(now time.Time, d lisp.Datagram) bool {
	m := &e.mapReply
	if err := m.DecodeFromBytes(d.Bytes); err != nil {
		e.drop(now, DropMalformed, d.Remote, err.Error)
		return true
	}
	req, ok := e.requests[m.Nonce]
	if !ok || m.Probe != (req.path != nil) {
		e.drop(now, DropUnknownNonce, d.Remote, m.Nonce.String)
		return false
	}
	if req.path != nil {
		e.handleProbeReply(now, d, m, req)
		return true
	}
	e.handleMapping(now, d, m, req)
	return true
}

// handleMapping takes the records of a Map-Reply into the map-cache: those that
// cover the EID asked for, and those more specific than one that does (RFC 9301
// §5.5).
func (e *Engine) handleMapping(now time.Time, d lisp.Datagram, m *lisp.MapReply, req request) {
	p := req.pending
	if !e.verifyReply(now, d, m, req) {
		return
	}
	covering := e.covering(m.Records, p)
	inside := covering
	if p.phase == resting {
		// The answer has come already. This can only be its continuation.
		covering, inside = netip.Prefix{}, p.accepted
	}
	taken := false
	for i := range m.Records {
		rec := &m.Records[i]
		k, ok := recordKey(rec)
		if ok && e.tooBroad(rec, k) {
			e.drop(now, DropTooBroad, d.Remote, rec.String)
			continue
		}
		if !ok || k.IID != p.ask.IID || !inside.IsValid() || !inside.Contains(k.Prefix.Addr()) ||
			k.Prefix.Bits() < inside.Bits() || p.phase == resting && k.Prefix == inside {
			e.drop(now, DropNotAsked, d.Remote, rec.String)
			continue
		}
		if !e.learn(now, d, rec, k, p, now.Sub(req.sent)) {
			continue
		}
		taken = true
	}
	if !taken {
		return
	}
	e.noteEchoNonce(now, m)
	e.stats.MapRepliesReceived++
	if covering.IsValid() {
		req.resolver.answered(now.Sub(req.sent))
		e.settle(now, p, covering)
	}
}

// covering returns the shortest EID-Prefix of the records that covers what p
// asks for.
func (e *Engine) covering(records []lisp.EIDRecord, p *pending) netip.Prefix {
	var best netip.Prefix
	for i := range records {
		k, ok := recordKey(&records[i])
		if ok && k.IID == p.ask.IID && k.Prefix.Contains(p.ask.Prefix.Addr()) && !e.tooBroad(&records[i], k) &&
			(!best.IsValid() || k.Prefix.Bits() < best.Bits()) {
			best = k.Prefix
		}
	}
	return best
}

// tooBroad reports whether a positive record claims more than the policy
// believes any site to have.
func (e *Engine) tooBroad(rec *lisp.EIDRecord, k mapcache.Key) bool {
	least := e.cfg.MinPrefix6
	if k.Prefix.Addr().Is4() {
		least = e.cfg.MinPrefix4
	}
	return rec.TTL != 0 && !rec.Negative() && k.Prefix.Bits() < least
}

// learn puts one record into the map-cache.
func (e *Engine) learn(now time.Time, d lisp.Datagram, rec *lisp.EIDRecord, k mapcache.Key, p *pending, rtt time.Duration) bool {
	if old, ok := e.cache.Get(k); ok && old.Origin == mapcache.OriginStatic && e.keepsRelay(now, now.Add(-rtt), k, rec) {
		return true // what is configured stays
	}
	if e.outdated(k, rec) {
		e.drop(now, DropOldVersion, d.Remote, rec.String)
		return false
	}
	m := mapcache.Mapping{
		Key: k, TTL: mapcache.RecordTTL(rec.TTL), Origin: mapcache.OriginMapReply, Action: rec.Action,
		Authoritative: rec.Authoritative, MapVersion: rec.MapVersion, Asked: p.ask.Prefix,
	}
	if rec.Negative() {
		e.stats.NegativeReplies++
		if rec.Action == lisp.ActionNativelyForward || rec.Action == lisp.ActionNoAction {
			m.RLOCs = e.proxyETRs(k)
		}
		e.emit(NegativeReply{Stamp{now}, k, rec.Action, m.TTL, d.Remote, rtt, m.RLOCs})
	} else {
		m.RLOCs = e.usableRLOCs(rec)
		if len(m.RLOCs) == 0 {
			// The site has locators, though none that we can use. Its packets
			// must not leave unencapsulated.
			m.Action = lisp.ActionDropNoReason
			if e.rtr && m.TTL != 0 {
				m.TTL = loopTTL
			}
		}
		e.emit(MapReplyReceived{Stamp{now}, k, m.RLOCs, m.TTL, d.Remote, rtt})
	}
	if m.TTL == 0 {
		e.cache.Remove(now, k)
	} else if err := e.insert(now, rec, &m); err != nil {
		e.drop(now, DropCacheFull, d.Remote, err.Error)
		return false
	}
	e.collect(now)
	return true
}

// usableRLOCs takes the locators of a record that packets can be sent to. Other
// kinds of address are skipped (RFC 9306 §3), and so are addresses that no
// locator may have (RFC 9301 §5.4).
func (e *Engine) usableRLOCs(rec *lisp.EIDRecord) []mapcache.RLOC {
	rs := make([]mapcache.RLOC, 0, len(rec.Locators))
	var seen map[mapcache.Locator]bool // only where a scan is too slow
	if len(rec.Locators) > keySetScan {
		seen = make(map[mapcache.Locator]bool, len(rec.Locators))
	}
	twice := func(l mapcache.Locator) bool {
		if seen == nil {
			return slices.ContainsFunc(rs, func(r mapcache.RLOC) bool { return r.Locator == l })
		}
		again := seen[l]
		seen[l] = true
		return again
	}
	for i := range rec.Locators {
		r := &rec.Locators[i]
		var l mapcache.Locator
		if ip, ok := r.RLOC.IP(); ok && !e.rtr {
			l = e.learned(ip)
		} else if e.rtr {
			if l, ok = e.rtrLocator(r.RLOC); !ok {
				continue
			}
		} else {
			continue
		}
		if !usableUnicast(l.Addr) || l.Addr.IsLinkLocalUnicast() || l.Addr.IsLoopback() && !e.onLoopback() || twice(l) {
			continue
		}
		rs = append(rs, mapcache.RLOC{Locator: l, Priority: r.Priority, Weight: r.Weight, Down: !r.Reachable})
	}
	return rs
}

// onLoopback reports whether we ourselves are reached by a loopback address,
// as in tests.
func (e *Engine) onLoopback() bool {
	for _, l := range e.locals {
		if l.Addr.IsLoopback() {
			return true
		}
	}
	return false
}
