package control

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// loopTTL is how long packets to a node are dropped that the mapping system says
// is behind this RTR, and that is not: it may register any time.
const loopTTL = 15 * time.Second

// rtrCore is what a Runner does for natt.RTR beside stepping it.
type rtrCore interface {
	SetRLOCs([]netip.Addr)
	NextChange() (natt.RelayChange, bool)
	Moved(now, asked time.Time, iid uint32, prefix netip.Prefix)
	Host(name string, global netip.Addr) (netip.AddrPort, bool)
	NextName() (natt.NameChange, bool)
}

var _ rtrCore = (*natt.RTR)(nil)

// SetRTR makes the Engine that of an RTR: host finds where a host of lispers.net
// is (natt.RTR.Host), nil without. Mappings that lead to nobody but ourselves are
// dropped for 15 s. The Runner calls it when it has a core of RoleRTR; whoever
// steps both without a Runner does.
func (e *Engine) SetRTR(host func(name string, global netip.Addr) (netip.AddrPort, bool)) {
	e.rtr, e.hosts = true, host
}

// stepRelays passes on what the RTR has learned, and what Engine has.
func (r *Runner) stepRelays(now time.Time) {
	rtr, ok := r.cores[RoleRTR].(rtrCore)
	if !ok || r.cfg.Engine == nil {
		return
	}
	for _, k := range r.cfg.Engine.takeMoved() {
		rtr.Moved(now, k.asked, k.IID, k.Prefix)
	}
	for c, ok := rtr.NextChange(); ok; c, ok = rtr.NextChange() {
		r.cfg.Engine.SetRelays(now, c)
	}
	for c, ok := rtr.NextName(); ok; c, ok = rtr.NextName() {
		r.cfg.Engine.SetHost(now, c)
	}
}

// relayMoved is an EID-Prefix that was found elsewhere, and when that was asked for.
type relayMoved struct {
	mapcache.Key
	asked time.Time
}

// takeMoved returns the EID-Prefixes that were found elsewhere since the last call.
func (e *Engine) takeMoved() []relayMoved {
	ks := e.relaysMoved
	e.relaysMoved = nil
	return ks
}

// SetHost has packets to a host of lispers.net go where it sends from now. One
// that is gone stays in the mappings until they are refreshed.
func (e *Engine) SetHost(now time.Time, c natt.NameChange) {
	now = e.tick(now)
	defer e.collect(now)
	if !c.Before.IsValid() || !c.Since.IsValid() {
		return
	}
	before, since := natLocator(c.Before), natLocator(c.Since)
	var moved []mapcache.Mapping
	for ent := range e.cache.All() {
		if ent.Origin != mapcache.OriginMapReply || !slices.ContainsFunc(ent.RLOCs, func(r mapcache.RLOC) bool { return r.Locator == before }) {
			continue
		}
		m := ent.Mapping
		m.TTL, m.RLOCs = ent.Expires.Sub(now), slices.Clone(ent.RLOCs)
		for i := range m.RLOCs {
			if m.RLOCs[i].Locator == before {
				m.RLOCs[i].Locator = since
			}
		}
		moved = append(moved, m)
	}
	for _, m := range moved {
		if err := e.cache.Insert(now, m); err != nil {
			e.log.Warn("a host behind a NAT is not reached", "eid", m.Key, "err", err)
		}
	}
}

// rtrLocator is where packets to a locator of a mapping go, as an RTR sees it: a
// host of lispers.net by the port that it sends from, and never to ourselves.
func (e *Engine) rtrLocator(a lisp.Address) (l mapcache.Locator, ok bool) {
	ip, name, ok := natt.NamedLocator(a)
	if !ok {
		return l, false
	}
	if _, ours := e.localByAddr(ip); ours {
		return l, false
	}
	if name != "" && e.hosts != nil {
		// Behind the @ is the port that the Map-Server saw, which is another one.
		name, _, _ = strings.Cut(name, "@")
		if at, known := e.hosts(name, ip); known {
			return natLocator(at), true
		}
	}
	return e.learned(ip), name == ""
}

func natLocator(at netip.AddrPort) mapcache.Locator {
	return cleanLocator(mapcache.Locator{Addr: at.Addr(), Port: at.Port(), NAT: true})
}

func localAddrs(ls []mapcache.Local) []netip.Addr {
	as := make([]netip.Addr, len(ls))
	for i, l := range ls {
		as[i] = l.Addr
	}
	return as
}
