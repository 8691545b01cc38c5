package natt

import (
	"net/netip"
	"slices"
	"time"
)

// leaving is an RTR by which a Map-Server knows us, or may hear of us any moment.
type leaving struct {
	*relay
	done []bool // which Map-Registers of the withdrawal are answered
}

func (l *leaving) answered() bool { return !slices.Contains(l.done, false) }

// Withdraw tells the Map-Servers, by the RTR, that we are no longer here. It is
// the end of all registration. What is under way by other RTRs would register us
// again when it arrives late, so those tell it, too.
func (x *XTR) Withdraw(now time.Time) {
	now = x.tick(now)
	if x.withdrawing {
		return
	}
	x.withdrawing, x.infoAt = true, time.Time{}
	if x.current != nil {
		x.leaveBy(x.current.addr)
	}
	for _, s := range x.sent {
		if now.Sub(s.at) < nonceLife {
			x.leaveBy(s.route.RTR)
		}
	}
	// In the order of their addresses, as a map has none.
	slices.SortFunc(x.leaving, func(a, b *leaving) int { return a.addr.Compare(b.addr) })
	clear(x.sent) // the answer to an earlier Map-Register withdraws nothing
	x.racing, x.tries = nil, 0
	x.leave(now)
	x.tell(now)
}

func (x *XTR) leaveBy(rtr netip.Addr) {
	if !slices.ContainsFunc(x.leaving, func(l *leaving) bool { return l.addr == rtr }) {
		x.leaving = append(x.leaving, &leaving{relay: &relay{addr: rtr}})
	}
}

// leave sends what is not answered yet of the withdrawal.
func (x *XTR) leave(now time.Time) {
	if x.tries < registerSends {
		x.tries++
		for _, l := range x.leaving {
			x.withdrawBy(now, l)
		}
	} else {
		x.leaving = nil // given up
	}
	x.registerAt = now.Add(x.retry())
	x.left()
}

func (x *XTR) withdrawBy(now time.Time, l *leaving) {
	route := x.route(l.relay)
	rs := x.cfg.Registrar.MapRegisters(now, route)
	if len(l.done) != len(rs) {
		l.done = make([]bool, len(rs))
	}
	for i, reg := range rs {
		if !l.done[i] {
			x.registerOne(now, route, reg, i)
		}
	}
}

// left ends the withdrawal when nothing of it is open.
func (x *XTR) left() {
	x.leaving = slices.DeleteFunc(x.leaving, (*leaving).answered)
	if len(x.leaving) == 0 {
		x.withdrawn, x.registerAt = true, time.Time{}
		clear(x.sent)
	}
}

// withdrawalAcknowledged takes a verified answer to a part of the withdrawal.
func (x *XTR) withdrawalAcknowledged(now time.Time, s registered) {
	x.lastNotify = now
	for _, l := range x.leaving {
		if l.addr == s.route.RTR && s.slot < len(l.done) {
			l.done[s.slot] = true
		}
	}
	x.left()
}

// WithdrawDone reports whether a withdrawal has been acknowledged, or nobody knows
// of us or answers.
func (x *XTR) WithdrawDone() bool { return x.withdrawn }

// registerOne sends a Map-Register, the one at slot of its round.
func (x *XTR) registerOne(now time.Time, route Route, reg Register, slot int) {
	if len(x.sent) >= maxNonces {
		x.stats.Dropped[DropQueueFull]++
		return
	}
	if err := x.speak.register(x, route, reg); err != nil {
		x.stats.Dropped[DropEncode]++
		x.cfg.Logger.Error("map-register not encoded", "map_server", reg.Server, "rtr", route.RTR, "err", err)
		return
	}
	x.stats.MapRegistersSent++
	x.sent[reg.Nonce] = registered{route: route, server: reg.Server, slot: slot, at: now}
}
