package natt

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Reasons that a Binding shows.
const (
	reasonNoServer   = "no Map-Server of this address family"
	reasonNoSite     = "no EID-Prefix to ask for"
	reasonUnanswered = "Info-Request unanswered: Map-Server unreachable or not NAT-capable, " +
		"or it refuses our key or EID-Prefix (check both, and its log)"
	reasonNotCapable = "Info-Request unanswered: the Map-Server is not NAT-capable, but takes our Map-Registers"
	reasonInfoKey    = "Info-Reply authentication failed: key mismatch, check the key of this Map-Server"
	reasonNoRTR      = "the Map-Server names no RTR: one has to be configured there"
	reasonNoFamily   = "the Map-Server names no RTR of this address family: one has to be configured there"
	reasonNotifyKey  = "Map-Notify authentication failed: key mismatch, check the key of this Map-Server"
	reasonNoNotify   = "no Map-Notify: Map-Server unreachable, or it refuses the registration (check the key, and its log)"
	reasonStaleRTRs  = "no RTR answers, and no Info-Reply has named one for too long: Map-Server unreachable"
)

// askAgain sends Info-Requests, again and again until one is answered.
func (x *XTR) askAgain(now time.Time) {
	if len(x.cfg.Servers) == 0 {
		x.state, x.infoAt, x.reason = Unanswered, time.Time{}, reasonNoServer
		return
	}
	if x.infoSends >= infoSends {
		x.infoSends, x.infoAt = 0, now.Add(infoSleep)
		if x.state == Detecting || x.state == Unanswered {
			x.state = Unanswered
			if x.reason != reasonInfoKey {
				x.reason = x.unanswered(now)
			}
		}
		return
	}
	x.infoAt = now.Add(min(infoFirstWait<<x.infoSends, infoMostWait))
	x.infoSends++
	asked := 0
	for _, s := range x.cfg.Servers {
		if x.ask(now, s) {
			asked++
		}
	}
	if asked == 0 {
		x.infoSends, x.infoAt, x.reason = 0, now.Add(infoSleep), reasonNoSite
	}
	x.speak.asked(x, now)
}

// unanswered is why, as far as is known.
func (x *XTR) unanswered(now time.Time) string {
	if !x.heard.IsZero() && now.Sub(x.heard) < heardLife {
		return reasonNotCapable
	}
	return reasonUnanswered
}

// Heard tells that server has just acknowledged a Map-Register that went straight to
// it: it is reachable, and key and EID-Prefix are right. So it says more about
// Info-Requests that are unanswered.
func (x *XTR) Heard(now time.Time, server netip.AddrPort) {
	if !slices.Contains(x.cfg.Servers, server) {
		return
	}
	now = x.tick(now)
	x.heard = now
	if x.state == Unanswered && x.reason == reasonUnanswered {
		x.reason = reasonNotCapable
	}
	x.tell(now)
}

// ask sends an Info-Request to server.
func (x *XTR) ask(now time.Time, server netip.AddrPort) bool {
	for n, q := range x.asked {
		if now.Sub(q.at) >= nonceLife {
			delete(x.asked, n)
		}
	}
	if len(x.asked) >= maxNonces {
		x.stats.Dropped[DropQueueFull]++
		return true
	}
	iid, eid, ok := x.cfg.Registrar.Site(server)
	if !ok {
		return false
	}
	n := lisp.Nonce(x.random())
	q := question{server: server, iid: iid, eid: eid, at: now}
	b, err := x.speak.infoRequest(x, q, n)
	if err != nil {
		x.stats.Dropped[DropEncode]++
		x.cfg.Logger.Error("info-request not encoded", "map_server", server, "err", err)
		return true
	}
	x.asked[n] = q
	x.stats.InfoRequestsSent++
	x.send(x.speak.infoPort(x), server, b)
	return true
}

// handleInfoReply takes an Info-Reply. Only the one that answers an outstanding
// nonce, comes from whom it was sent to and verifies is looked into.
func (x *XTR) handleInfoReply(now time.Time, d lisp.Datagram) bool {
	var m lisp.InfoReply
	if err := m.DecodeFromBytes(d.Bytes); err != nil {
		return false // an Info-Request is for a Map-Server
	}
	q, ok := x.asked[m.Nonce]
	if x.withdrawing || !ok || now.Sub(q.at) >= nonceLife {
		x.drop(DropNonce, d.Remote, m.Nonce.String())
		return false
	}
	if netip.AddrPortFrom(d.Remote.Addr().Unmap(), d.Remote.Port()) != q.server {
		x.drop(DropSender, d.Remote, m.Nonce.String())
		return true
	}
	if why, err := x.speak.checkReply(x, q, &m, d.Bytes); err != nil {
		x.drop(why, d.Remote, err.Error())
		if why == DropAuthentication && (x.state == Detecting || x.state == Unanswered) {
			x.reason = reasonInfoKey
		}
		return true
	}
	t, err := m.Traversal()
	if err != nil {
		x.drop(DropMalformed, d.Remote, err.Error())
		return true
	}
	addr, ok := t.GlobalETR.IP()
	if !ok {
		x.drop(DropMalformed, d.Remote, "no global address")
		return true
	}
	// Each answer counts once, and those to earlier questions no more.
	for n, o := range x.asked {
		if o.server == q.server && !o.at.After(q.at) {
			delete(x.asked, n)
		}
	}
	x.stats.InfoRepliesReceived++
	ttl := time.Duration(min(m.TTL, maxListMinutes)) * time.Minute
	s := sighting{global: netip.AddrPortFrom(addr.Unmap(), t.ETRPort), until: now.Add(max(ttl, minRedetect))}
	named := 0
	for _, r := range t.RTRs {
		a, ok := r.IP()
		if a = a.Unmap(); !ok || !usable(a) || a == x.cfg.Local {
			continue
		}
		named++
		if a.Is4() == x.cfg.Local.Is4() && !slices.Contains(s.rtrs, a) && len(s.rtrs) < maxListed {
			s.rtrs = append(s.rtrs, a)
		}
	}
	x.infoSends = 0
	x.saw(now, q.server, s, named, ttl)
	return true
}

// translated reports whether somebody sees another address or port than ours.
func (x *XTR) translated(global netip.AddrPort) bool {
	return global != netip.AddrPortFrom(x.cfg.Local, x.speak.infoPort(x))
}

// saw draws the conclusions from what server has said.
func (x *XTR) saw(now time.Time, server netip.AddrPort, s sighting, named int, ttl time.Duration) {
	before := x.seen[server]
	x.seen[server] = s
	// What another one has said holds no longer than its TTL.
	maps.DeleteFunc(x.seen, func(_ netip.AddrPort, s sighting) bool { return now.After(s.until) })
	if !x.translated(s.global) && !x.cfg.Always && !x.anyTranslated() {
		x.state, x.reason = Public, ""
		x.dropRTRs()
		x.moves = 0
		x.infoAt = now.Add(x.early(min(max(ttl, minRedetect), maxRedetect)))
		return
	}
	moved := before.global.IsValid() && before.global != s.global
	if moved {
		x.mappingMoved(before.global, s.global)
	} else {
		x.moves = 0
	}
	x.infoAt = now.Add(x.early(x.keepAlive))
	x.mergeRTRs(now)
	switch {
	case len(x.rtrs) == 0:
		x.state, x.reason = NoRTR, reasonNoRTR
		if named > 0 {
			x.reason = reasonNoFamily
		}
		x.registerAt = time.Time{}
	case !x.state.NATed() || x.state == NoRTR:
		x.state, x.reason = Registering, ""
		x.race(now)
	case moved:
		// The RTR has to learn where we are now. One that is silent stays so.
		tries, waiting := x.tries, !x.answered()
		x.beginRound(now)
		if waiting {
			x.tries = max(x.tries, tries)
		}
	}
}

// mappingMoved counts how often the NAT had another port for us than the time
// before. Once is a NAT that was restarted; again and again is a binding that
// doesn't live from one keep-alive to the next.
func (x *XTR) mappingMoved(before, after netip.AddrPort) {
	if before.Addr() != after.Addr() {
		x.moves = 0 // another NAT, or another address of it
		return
	}
	if x.moves++; x.moves < 2 || x.keepAlive == x.cfg.MinKeepAlive {
		return
	}
	x.keepAlive = max(x.keepAlive/2, x.cfg.MinKeepAlive)
	x.cfg.Logger.Info("nat binding is short-lived", "keep_alive", x.keepAlive)
}

func (x *XTR) anyTranslated() bool {
	for _, s := range x.seen {
		if x.translated(s.global) {
			return true
		}
	}
	return false
}

// mergeRTRs makes rtrs what the Map-Servers name. An RTR in use that is no longer
// among them is left.
func (x *XTR) mergeRTRs(now time.Time) {
	var all []*relay
	for _, server := range x.cfg.Servers {
		s := x.seen[server]
		if now.After(s.until) {
			continue
		}
		for _, a := range s.rtrs {
			if slices.ContainsFunc(all, func(r *relay) bool { return r.addr == a }) || len(all) >= maxListed {
				continue
			}
			r := &relay{addr: a}
			if i := slices.IndexFunc(x.rtrs, func(r *relay) bool { return r.addr == a }); i >= 0 {
				r = x.rtrs[i]
			}
			all = append(all, r)
		}
	}
	for _, r := range all {
		r.until = x.namedUntil(r.addr)
	}
	x.rtrs = all
	x.racing = slices.DeleteFunc(x.racing, func(r *relay) bool { return !slices.Contains(all, r) })
	if x.current == nil || slices.Contains(all, x.current) {
		return
	}
	gone := x.current.addr
	x.cfg.Logger.Info("the map-server no longer names our rtr", "rtr", gone)
	if len(all) == 0 {
		x.dropRTRs()
		return
	}
	x.failover(now, fmt.Sprintf("RTR %v is no longer offered", gone))
}

// namedUntil is how long a Map-Server's word for an RTR holds.
func (x *XTR) namedUntil(rtr netip.Addr) (until time.Time) {
	for _, s := range x.seen {
		if slices.Contains(s.rtrs, rtr) && s.until.After(until) {
			until = s.until
		}
	}
	return until
}

// early takes up to a tenth off d, so that many nodes don't keep in step.
func (x *XTR) early(d time.Duration) time.Duration {
	return d - time.Duration(x.random()%uint64(d/10+1))
}
