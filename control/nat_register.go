package control

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

var _ natt.Registrar = (*natEngine)(nil)

// errNoServer is for what is said to come from a Map-Server that isn't ours.
var errNoServer = errors.New("control: not one of our Map-Servers")

func (n *natEngine) server(a netip.AddrPort) *mapServer {
	for _, s := range n.e.servers {
		if s.Addr == a {
			return s
		}
	}
	return nil
}

// Site implements natt.Registrar.
func (n *natEngine) Site(netip.AddrPort) (uint32, netip.Prefix, bool) {
	if len(n.e.db) == 0 {
		return 0, netip.Prefix{}, false
	}
	k := n.e.db[0].Key
	return k.IID, k.Prefix, true
}

// SignInfo implements natt.Registrar.
func (n *natEngine) SignInfo(b []byte, server netip.AddrPort, m *lisp.InfoRequest) ([]byte, error) {
	s := n.server(server)
	if s == nil {
		return b, errNoServer
	}
	return m.AppendSigned(b, s.Key)
}

// VerifyInfo implements natt.Registrar.
func (n *natEngine) VerifyInfo(server netip.AddrPort, b []byte) error {
	s := n.server(server)
	if s == nil {
		return errNoServer
	}
	return lisp.Verify(b, s.Key)
}

// MapRegisters implements natt.Registrar: all registrations, with what r changes
// in them.
func (n *natEngine) MapRegisters(now time.Time, r natt.Route) []natt.Register {
	e := n.e
	if r.Variant == natt.LispersNet {
		rec := lisp.EIDRecord{Locators: r.LispersNetRLOCs(0, 0)}
		if l := recordLen(&rec); l > n.locatorsLen {
			n.locatorsLen = l
			e.arrange(now, databaseChange{})
		}
	}
	var out []natt.Register
	for _, reg := range slices.Clone(e.registrations) {
		if reg.gone != nil && !now.Before(reg.giveUp) {
			e.forget(reg)
			continue
		}
		s := reg.server
		if s.Addr.Addr().Is4() != r.Local.Is4() {
			continue // the inner packet has one family
		}
		e.landed(reg)
		nonce := e.nextRegisterNonce(now)
		m := lisp.MapRegister{
			// Draft §5.1.1: nobody but the RTR can ask us, and we have to hear of it.
			ProxyReply: true, WantMapNotify: true, XTRIDPresent: true,
			UseTTL: s.UseTTL, Merge: s.Merge, SecurityCapable: !e.cfg.LISPSEC.NoETR,
			RTR:   r.Variant == natt.Old,
			Nonce: nonce, XTRID: e.cfg.XTRID, SiteID: e.cfg.SiteID,
			Records: e.natRecords(reg, &r),
		}
		if r.Variant == natt.LispersNet {
			m.UseTTL = true
		}
		b, err := m.AppendSigned(nil, s.Key)
		if err != nil {
			e.log.Error("map-register not encoded", "map_server", s.Addr, "rtr", r.RTR, "err", err)
			continue
		}
		n.remember(nonce, reg)
		if !r.Withdraw && reg.state != StateWithdrawing {
			reg.held = now
		}
		if !n.reachesBut(reg, r.Local) {
			reg.lastSent, reg.nonce = now, nonce
			if reg.state == StateIdle {
				reg.state = StateWaiting
			}
		}
		e.stats.MapRegistersSent++
		out = append(out, natt.Register{Server: s.Addr, Nonce: nonce, Message: b})
	}
	return out
}

// reachesBut reports whether the Map-Server of r is spoken to directly, other than by
// a, which may have been likely public until now.
func (n *natEngine) reachesBut(r *registration, a netip.Addr) bool {
	return slices.ContainsFunc(n.e.locals, func(l mapcache.Local) bool {
		return l.Up && l.Addr != a && l.Addr.Is4() == r.server.Addr.Addr().Is4()
	})
}

func (n *natEngine) remember(nonce lisp.Nonce, r *registration) {
	if len(n.olds) >= maxNATNonces {
		delete(n.nonces, n.olds[0])
		n.olds = slices.Delete(n.olds, 0, 1)
	}
	n.nonces[nonce], n.olds = r, append(n.olds, nonce)
}

// recordSizes is registerSizes: a record by an RTR has other locators.
func (n *natEngine) recordSizes() func(*lisp.EIDRecord) int {
	if n.e.cfg.NAT.Variant == natt.LispersNet {
		return func(r *lisp.EIDRecord) int { return max(recordLen(r), n.locatorsLen+addressLen(r.EID)) }
	}
	more := 0 // see announcedLocals
	for _, x := range n.xtrs {
		l := 6 + addressLen(lisp.AddressFrom(x.Addr))
		if b := x.xtr.Binding(); !b.Direct && b.State != natt.Registered && b.State != natt.Silent {
			more += l // its RTR, in nobody's place
		}
		if len(n.xtrs) > 1 {
			more += l // which is told of it
		}
	}
	return func(r *lisp.EIDRecord) int {
		l := recordLen(r)
		return max(l, min(l+more, recordBudget))
	}
}

// natRecords are what a Map-Register of reg by r says.
func (e *Engine) natRecords(reg *registration, r *natt.Route) []lisp.EIDRecord {
	records := slices.Clone(reg.gone)
	if reg.gone == nil {
		for _, k := range reg.keys {
			rec := e.makeRecord(&e.db[e.dbPos[k]].DatabaseMapping, r)
			reg.server.knows[k] = true
			records = append(records, rec)
		}
	}
	for i := range records {
		if r.Withdraw || reg.state == StateWithdrawing {
			records[i].TTL = 0
		}
		if r.Variant == natt.LispersNet {
			priority, weight := uint8(1), uint8(100)
			if ls := records[i].Locators; len(ls) > 0 {
				priority, weight = ls[0].Priority, ls[0].Weight
			}
			records[i].Locators = r.LispersNetRLOCs(priority, weight)
		}
	}
	return records
}

// Notify implements natt.Registrar.
func (n *natEngine) Notify(now time.Time, r natt.Route, server netip.AddrPort, b []byte, solicited bool) error {
	e := n.e
	s := n.server(server)
	if s == nil {
		return errNoServer
	}
	if err := lisp.Verify(b, s.Key); err != nil {
		e.drop(now, DropAuthentication, server, err.Error)
		return err
	}
	var m lisp.MapNotify
	if err := m.DecodeFromBytes(b); err != nil {
		e.drop(now, DropMalformed, server, err.Error)
		return err
	}
	e.stats.MapNotifiesReceived++
	if !solicited {
		if !e.ownNonce(m.Nonce) && !s.seenBefore(m.Nonce) {
			e.noteRegistered(now, s, m.Records, true)
		}
		return nil
	}
	reg := n.nonces[m.Nonce]
	if reg == nil || !slices.Contains(e.registrations, reg) || e.withdrawing && reg.state == StateWithdrawn {
		return nil // it is another registration by now, or none any more
	}
	if !e.reaches(reg) {
		reg.rtr, reg.first = r.RTR, reg.lastSent
		reg.local, reg.vain = mapcache.Local{Addr: r.Local}, netip.Addr{}
		e.registered(now, reg, e.missing(reg, m.Records))
		e.timers.stop(&reg.timer) // the RTR's machine has its own period
	}
	e.noteRegistered(now, s, m.Records, false)
	return nil
}

// registersByRTR reports whether r is left to the RTRs, since none of our locators
// can be used directly.
func (e *Engine) registersByRTR(now time.Time, r *registration) bool {
	if e.nat == nil {
		return false
	}
	e.timers.stop(&r.timer)
	r.message = nil
	switch {
	case r.state == StateIdle && len(e.nat.bound()) > 0:
		r.state = StateWaiting
	case r.state == StateWithdrawing && len(e.nat.bound()) == 0 && (!e.withdrawing || len(e.nat.xtrs) == 0):
		r.state = StateWithdrawn // there is no way to say so
	default:
	}
	if r.state != StateRegistered {
		r.fail(now, e.nat.why())
	}
	return true
}

// why is what keeps us from registering.
func (n *natEngine) why() string {
	for _, x := range n.xtrs {
		if b := x.xtr.Binding(); b.State != natt.Registered {
			if b.Reason != "" {
				return b.Reason
			}
			return b.State.String()
		}
	}
	if len(n.xtrs) == 0 {
		return "no own locator is up"
	}
	return "waiting for the Data-Map-Notify"
}

// announced is a locator as our records have it: one of our own, or the RTR that
// stands for it.
type announced struct {
	mapcache.Local
	rloc    netip.Addr
	own, up bool
}

// announcedLocals are our locators as others are to know them; with a route, as
// the Map-Register that goes by it says. The RTRs are there with R = 1. When
// several of ours go by the same RTR it is told of them, with R = 0, to divide
// traffic among them (draft §5.3).
func (e *Engine) announcedLocals(r *natt.Route) []announced {
	out := make([]announced, 0, len(e.locals))
	for _, l := range e.locals {
		if r != nil && l.Addr == r.Local {
			continue // it was likely public until just now
		}
		out = append(out, announced{l, l.Addr, true, l.Up})
	}
	if e.nat == nil {
		return out
	}
	bound := e.nat.bound()
	if r != nil {
		bound = slices.DeleteFunc(bound, func(b natAnnounced) bool { return b.Addr == r.Local })
		if x := e.nat.find(r.Local); x != nil {
			bound = append(bound, natAnnounced{x.Local, r.RTR})
		}
	}
	var behind []announced
	for _, b := range bound {
		out = append(out, announced{b.Local, b.rtr, false, true})
		if r != nil && b.rtr == r.RTR {
			behind = append(behind, announced{b.Local, b.Addr, true, false})
		}
	}
	if len(behind) > 1 {
		out = append(out, behind...)
	}
	return out
}
