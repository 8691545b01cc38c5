package natt

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// race registers by several RTRs at the same time: the first that answers is the
// nearest, there and back and to the Map-Server.
func (x *XTR) race(now time.Time) {
	x.racing = nil
	if !x.speak.chooses() {
		x.current = x.rtrs[0]
		for _, r := range x.rtrs {
			x.punch(r.addr)
		}
		x.beginRound(now)
		return
	}
	for _, rested := range []bool{true, false} {
		for _, r := range x.rtrs {
			if len(x.racing) < maxRace && r != x.current && now.Before(r.until) && !now.Before(r.silent) == rested {
				x.racing = append(x.racing, r)
			}
		}
		if len(x.racing) > 0 {
			break // what was silent lately is for when there is nothing else
		}
	}
	x.beginRound(now)
}

// beginRound registers all there is by the RTR in use, or by those that are tried.
// What is under way by another RTR than the one in use may still arrive.
func (x *XTR) beginRound(now time.Time) {
	maps.DeleteFunc(x.sent, func(_ lisp.Nonce, s registered) bool { return x.current == nil || s.route.RTR == x.current.addr })
	x.tries, x.slots, x.stale = 0, nil, false
	x.register(now)
}

// register sends what is not answered yet of the round.
func (x *XTR) register(now time.Time) {
	x.tries++
	for n, s := range x.sent {
		if now.Sub(s.at) >= nonceLife {
			delete(x.sent, n)
		}
	}
	if x.current != nil {
		x.registerBy(now, x.current)
	}
	for _, r := range x.racing {
		x.registerBy(now, r)
	}
	x.registerAt = now.Add(x.retry())
}

// retry is how long an answer is waited for: so short that another RTR is in use
// before the second keep-alive would be due.
func (x *XTR) retry() time.Duration {
	wait := min(registerWait, max(x.keepAlive/6, 500*time.Millisecond))
	if x.tries > registerSends {
		wait = min(wait<<min(x.tries-registerSends, 8), x.keepAlive)
	}
	return wait
}

func (x *XTR) registerBy(now time.Time, r *relay) {
	route := x.route(r)
	rs := x.cfg.Registrar.MapRegisters(now, route)
	if len(x.slots) != len(rs) {
		x.slots = make([]bool, len(rs))
	}
	for i, reg := range rs {
		if x.slots[i] && r == x.current {
			continue
		}
		x.registerOne(now, route, reg, i)
	}
}

// route is the way by r.
func (x *XTR) route(r *relay) Route {
	rt := Route{
		Variant: x.cfg.Variant, Local: x.cfg.Local, RTR: r.addr, RTRs: []netip.Addr{r.addr},
		Global: x.Binding().Global, Withdraw: x.withdrawing,
	}
	if !x.speak.chooses() {
		rt.RTRs, rt.Name = nil, x.cfg.HostName
		for _, r := range x.rtrs {
			rt.RTRs = append(rt.RTRs, r.addr)
		}
	}
	return rt
}

// registerAgain runs when a keep-alive is due, or an answer is missing.
func (x *XTR) registerAgain(now time.Time) {
	switch {
	case x.withdrawing:
		x.leave(now)
	case x.answered():
		x.beginRound(now)
	case x.tries < registerSends:
		if x.tries == registerSends/2 {
			// It may be that we are elsewhere: look, while the RTR is asked again.
			x.infoSends, x.infoAt = 0, now
		}
		x.register(now)
	case slices.Contains(x.slots, true):
		// The RTR lives, a Map-Server doesn't answer by it.
		x.reason = "no Map-Notify from a Map-Server by RTR " + x.current.addr.String()
		x.tries = 0
		x.register(now)
		x.registerAt = now.Add(x.early(x.speak.period(x)))
	case x.current == nil:
		x.reason = x.inVain()
		before, tries := x.racing, x.tries
		for _, r := range before {
			r.silent = now.Add(rtrRest)
		}
		x.race(now)
		if slices.Equal(before, x.racing) {
			x.tries = tries + 1
			x.registerAt = now.Add(x.retry())
		}
	case !x.speak.chooses():
		x.reason = reasonNoNotify
		if x.state == Registered {
			x.state = Silent
		}
		x.register(now)
	default:
		x.failover(now, fmt.Sprintf("RTR %v is silent", x.current.addr))
	}
}

// inVain is why no RTR is found.
func (x *XTR) inVain() string {
	who := fmt.Sprintf("%d RTRs", len(x.racing))
	switch len(x.racing) {
	case 0:
		return reasonStaleRTRs
	case 1:
		who = "RTR " + x.racing[0].addr.String()
	}
	return "no Data-Map-Notify from " + who + ": RTR or Map-Server unreachable, or the Map-Server refuses the registration (check the logs of both)"
}

// answered reports whether all of the round is acknowledged.
func (x *XTR) answered() bool { return len(x.slots) > 0 && !slices.Contains(x.slots, false) }

// failover tries the other RTRs. The one that is silent is announced until one of
// them has answered, and is asked again with them: nothing would be better without.
func (x *XTR) failover(now time.Time, why string) {
	x.current.silent = now.Add(rtrRest)
	if x.state == Registered {
		x.state = Silent
	}
	x.reason = why
	tries := x.tries
	x.race(now)
	x.tries = max(x.tries, min(tries, registerSends+8)) // the pace slows down all the same
	if len(x.racing) > 0 && tries <= registerSends {
		x.tries = 1
	}
	x.registerAt = now.Add(x.retry())
}

// dropRTRs ends the use of an RTR.
func (x *XTR) dropRTRs() {
	x.rtrs, x.current, x.racing, x.slots = nil, nil, nil, nil
	clear(x.sent)
	x.registerAt, x.lastNotify = time.Time{}, time.Time{}
}

// handleMapNotify takes the Map-Notify that came by rtr, made by server.
func (x *XTR) handleMapNotify(now time.Time, rtr netip.Addr, server netip.AddrPort, b []byte) bool {
	from := netip.AddrPortFrom(rtr, lisp.ControlPort)
	var m lisp.MapNotify
	if err := m.DecodeFromBytes(b); err != nil {
		x.drop(DropMalformed, from, err.Error())
		return true
	}
	if m.XTRIDPresent && m.XTRID != x.cfg.XTRID && m.XTRID != (lisp.XTRID{}) {
		x.stats.Dropped[DropXTRID]++
		if x.warnings.AllowN(x.now, 1) {
			x.cfg.Logger.Error("data-map-notify for another xtr", "rtr", rtr, "xtr_id", m.XTRID.String())
		}
		return true
	}
	s, solicited := x.sent[m.Nonce]
	switch {
	case solicited && s.route.RTR != rtr:
		x.drop(DropSender, from, m.Nonce.String())
		return true
	case !solicited && (x.current == nil || x.current.addr != rtr):
		x.drop(DropNonce, from, m.Nonce.String())
		return true
	case !solicited:
		s.route, s.server = x.route(x.current), server
	}
	if err := x.cfg.Registrar.Notify(now, s.route, s.server, b, solicited); err != nil {
		x.drop(DropAuthentication, from, err.Error())
		if solicited {
			// Who knows the nonce is on the path, or the peer has another key.
			x.reason = reasonNotifyKey
		}
		return true
	}
	x.stats.NotifiesReceived++
	if !solicited {
		return true
	}
	delete(x.sent, m.Nonce)
	x.acknowledged(now, s)
	return true
}

// acknowledged takes a verified answer to a Map-Register.
func (x *XTR) acknowledged(now time.Time, s registered) {
	if x.withdrawing {
		x.withdrawalAcknowledged(now, s)
		return
	}
	i := slices.IndexFunc(x.rtrs, func(r *relay) bool { return r.addr == s.route.RTR })
	if i < 0 {
		return
	}
	r := x.rtrs[i]
	r.rtt, r.silent = now.Sub(s.at), time.Time{}
	if r != x.current {
		if !slices.Contains(x.racing, r) {
			// Late, we have chosen. But now the Map-Server has heard that one last.
			if x.current != nil {
				x.beginRound(now)
			}
			return
		}
		x.choose(now, r)
		return
	}
	raced := len(x.racing) > 0
	x.racing = nil // it speaks again before another one did
	x.state, x.reason, x.lastNotify = Registered, "", now
	if s.slot < len(x.slots) {
		x.slots[s.slot] = true
	}
	switch {
	case raced:
		x.beginRound(now) // what the others have relayed may have been the latest
	case !x.answered():
	default:
		x.registerAt = now.Add(x.early(x.speak.period(x)))
	}
}

// choose takes r, which was the first to answer.
func (x *XTR) choose(now time.Time, r *relay) {
	alone := x.current == nil && len(x.racing) == 1 && len(x.slots) == 1 && !x.stale
	if x.current != nil {
		x.stats.Failovers++
	}
	x.current, x.racing = r, nil
	x.state, x.reason, x.lastNotify = Registered, "", now
	if alone {
		x.slots[0] = true
		clear(x.sent)
		x.registerAt = now.Add(x.early(x.speak.period(x)))
		return
	}
	// The Map-Servers have to hear it last that this is the one.
	x.beginRound(now)
}
