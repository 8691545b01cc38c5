package control

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// NATConfig has an Engine find out which of its locators are behind a NAT, and
// register those by an RTR (draft-ermagan-lisp-nat-traversal-19).
type NATConfig struct {
	// Enable turns it on. Config.XTRID must be set then, and remain the same for
	// ever: RTRs and Map-Servers tell xTRs apart by it.
	Enable bool
	// Variant is what Map-Servers and RTRs speak, default natt.Draft19.
	Variant natt.Variant
	// KeepAlive is how often the bindings of NATs are kept open, default 25 s. It
	// becomes shorter by itself, down to MinKeepAlive, default 5 s.
	KeepAlive, MinKeepAlive time.Duration
	// Always goes by an RTR even where there is no NAT.
	Always bool
	// HostName is what natt.LispersNet goes by; the default is made of XTRID.
	HostName string
}

func (c *NATConfig) check(cfg *Config) error {
	if !c.Enable {
		return nil
	}
	if cfg.XTRID == (lisp.XTRID{}) {
		return fmt.Errorf("control: NAT traversal needs an xTR-ID: %w", ErrConfig)
	}
	some := mapcache.Local{Addr: netip.IPv6Loopback()}
	_, err := natt.NewXTR(c.xtr(cfg, some, &natEngine{}))
	if err != nil {
		return fmt.Errorf("control: %w: %w", err, ErrConfig)
	}
	return nil
}

func (c *NATConfig) xtr(cfg *Config, l mapcache.Local, r *natEngine) natt.XTRConfig {
	x := natt.XTRConfig{
		Variant: c.Variant, Local: l.Addr, IfIndex: l.IfIndex, Port: cfg.Port, Registrar: r, XTRID: cfg.XTRID, HostName: c.HostName,
		KeepAlive: c.KeepAlive, MinKeepAlive: c.MinKeepAlive, Always: c.Always, Mute: r.mute, Rand: cfg.Rand, Logger: cfg.Logger,
	}
	for _, s := range cfg.MapServers {
		x.Servers = append(x.Servers, s.Addr)
	}
	return x
}

// natEngine is what an Engine with NAT traversal has besides.
type natEngine struct {
	e      *Engine
	xtrs   []*natLocal // sorted by address
	nonces map[lisp.Nonce]*registration
	olds   []lisp.Nonce // of nonces, oldest first

	defaults map[mapcache.Key]bool // entries of the map-cache that lead to RTRs
	announce []natAnnounced        // as the records have it
	started  bool
	mute     bool // the Map-Servers answered no Info-Request

	locatorsLen int // of a record with LispersNet, without its EID-Prefix
}

// natLocal is one of our own locators that is up, with its machine.
type natLocal struct {
	timer
	mapcache.Local
	xtr     *natt.XTR
	servers []netip.AddrPort // the Map-Servers that xtr was made with
}

// natAnnounced is an RTR that stands for one of our locators.
type natAnnounced struct {
	mapcache.Local
	rtr netip.Addr
}

// maxNATNonces bounds the Map-Registers by RTRs whose registration is remembered.
const maxNATNonces = 1024

// NATChanged says that a binding has changed in what matters.
type NATChanged struct {
	Stamp
	Old, New natt.Binding
}

func (e NATChanged) String() string {
	return fmt.Sprintf("locator %v: %s", e.New.Local, e.New.Text(e.At))
}

// Bindings says how our own locators get through NATs, those that are up, sorted
// by address. Without NATConfig.Enable there are none.
func (e *Engine) Bindings() []natt.Binding {
	if e.nat == nil {
		return nil
	}
	bs := make([]natt.Binding, len(e.nat.xtrs))
	for i, x := range e.nat.xtrs {
		bs[i] = x.xtr.Binding()
	}
	return bs
}

// NATStats counts what the machine of one of our locators did.
func (e *Engine) NATStats(local netip.Addr) (natt.XTRStats, bool) {
	if e.nat == nil {
		return natt.XTRStats{}, false
	}
	x := e.nat.find(local.Unmap())
	if x == nil {
		return natt.XTRStats{}, false
	}
	return x.xtr.Stats(), true
}

func (e *Engine) openNAT() {
	if e.cfg.NAT.Enable {
		e.nat = &natEngine{e: e, nonces: make(map[lisp.Nonce]*registration), defaults: make(map[mapcache.Key]bool)}
	}
}

func (n *natEngine) find(a netip.Addr) *natLocal {
	i, ok := slices.BinarySearchFunc(n.xtrs, a, func(x *natLocal, a netip.Addr) int { return x.Addr.Compare(a) })
	if !ok {
		return nil
	}
	return n.xtrs[i]
}

// handleNAT offers a message to the machines.
func (e *Engine) handleNAT(now time.Time, d lisp.Datagram) bool {
	if e.nat == nil {
		return false
	}
	for _, x := range e.nat.xtrs {
		if x.xtr.Handle(now, d) {
			e.stepNAT(now, x)
			return true
		}
	}
	return d.Local.Port() == lisp.DataPort && e.handleDataProbe(now, d)
}

// stepNAT passes on what a machine has made of the last thing that happened to it.
func (e *Engine) stepNAT(now time.Time, x *natLocal) {
	for d, ok := x.xtr.Next(); ok; d, ok = x.xtr.Next() {
		if e.out.len() >= maxQueue {
			e.stats.Dropped[DropQueueFull]++
			continue
		}
		e.out.push(d, maxQueue)
	}
	changed := false
	for ev, ok := x.xtr.NextEvent(); ok; ev, ok = x.xtr.NextEvent() {
		changed = true
		e.nat.hear(&ev.New)
		e.emit(NATChanged{Stamp{now}, ev.Old, ev.New})
	}
	if at := x.xtr.Deadline(); at.IsZero() {
		e.timers.stop(&x.timer)
	} else {
		e.timers.set(&x.timer, later(at, now.Add(time.Millisecond)))
	}
	switch {
	case e.withdrawing:
		if !e.nat.withdrawDone() {
			break
		}
		for _, r := range e.registrations {
			if r.state == StateWithdrawing && !e.reaches(r) {
				r.state = StateWithdrawn // nobody answers
			}
		}
	case changed:
		e.rebind(now, x)
	}
}

// heardServer has the machines know that a Map-Server has acknowledged a Map-Register
// that came to it directly.
func (e *Engine) heardServer(now time.Time, s *mapServer) {
	if e.nat == nil {
		return
	}
	for _, x := range e.nat.xtrs {
		x.xtr.Heard(now, s.Addr)
		e.stepNAT(now, x)
	}
}

// plausible reports whether a is likely public, by the Map-Servers there are.
func (n *natEngine) plausible(a netip.Addr) bool {
	return natt.LikelyPublic(a, n.servers())
}

func (n *natEngine) servers() []netip.AddrPort {
	servers := make([]netip.AddrPort, 0, len(n.e.servers))
	for _, s := range n.e.servers {
		servers = append(servers, s.Addr)
	}
	return servers
}

// hear takes note whether the Map-Servers answer Info-Requests at all.
func (n *natEngine) hear(b *natt.Binding) {
	switch b.State {
	case natt.Detecting:
	case natt.Unanswered:
		// Where none was sent there is nothing to conclude.
		n.mute = n.mute || slices.ContainsFunc(n.e.servers, func(s *mapServer) bool { return s.Addr.Addr().Is4() == b.Local.Is4() })
	default:
		n.mute = false
	}
}

// directLocals keeps of our locators, which are sorted, those that need no RTR, as
// far as is known, and has a machine for each that is up.
func (e *Engine) directLocals(now time.Time, locals []mapcache.Local) []mapcache.Local {
	n := e.nat
	var xtrs []*natLocal
	var fresh []*natLocal
	servers := n.servers()
	for _, l := range locals {
		if !l.Up && !e.isSilent(l.Addr) {
			continue
		}
		x := n.find(l.Addr)
		if x == nil && e.withdrawing {
			continue // nothing begins any more
		}
		if x == nil || x.IfIndex != l.IfIndex || !e.withdrawing && !slices.Equal(x.servers, servers) {
			m, err := natt.NewXTR(e.cfg.NAT.xtr(&e.cfg, l, n))
			if err != nil {
				e.log.Error("no nat traversal", "rloc", l.Addr, "err", err)
				continue
			}
			x = &natLocal{xtr: m, servers: servers}
			x.fire = func(now time.Time) {
				x.xtr.Advance(now)
				e.stepNAT(now, x)
			}
			fresh = append(fresh, x)
		}
		x.Local = l
		xtrs = append(xtrs, x)
	}
	for _, x := range n.xtrs {
		if !slices.Contains(xtrs, x) {
			e.timers.stop(&x.timer)
		}
	}
	n.xtrs = xtrs
	for _, x := range fresh {
		e.timers.set(&x.timer, now) // it begins in the next Advance
	}
	return slices.DeleteFunc(locals, func(l mapcache.Local) bool {
		x := n.find(l.Addr)
		return x == nil && !n.plausible(l.Addr) || x != nil && !x.xtr.Binding().Direct
	})
}

// bound are the RTRs that stand for locators of ours.
func (n *natEngine) bound() []natAnnounced {
	var out []natAnnounced
	for _, x := range n.xtrs {
		b := x.xtr.Binding()
		switch {
		case b.State != natt.Registered && b.State != natt.Silent:
		case n.e.cfg.NAT.Variant == natt.LispersNet:
			for _, rtr := range b.RTRs { // all at the same time
				out = append(out, natAnnounced{x.Local, rtr})
			}
		default:
			out = append(out, natAnnounced{x.Local, b.RTR})
		}
	}
	return out
}

// rebind follows a change of what x says.
func (e *Engine) rebind(now time.Time, x *natLocal) {
	// Its own Map-Registers have said so already.
	e.relocateBut(now, x)
	e.tellStranded(now)
	if slices.ContainsFunc(e.nat.xtrs, func(x *natLocal) bool { return x.xtr.Binding().State == natt.Registered }) {
		return
	}
	for _, r := range e.registrations {
		if e.reaches(r) {
			continue
		}
		if r.state == StateRegistered {
			r.state, r.announced = StateUnanswered, false
		}
		r.fail(now, e.nat.why())
	}
}

// reaches reports whether the Map-Server of r is spoken to directly.
func (e *Engine) reaches(r *registration) bool {
	_, ok := e.localFor(r.server.Addr.Addr())
	if !ok {
		_, ok = e.stranded(r)
	}
	return ok
}

// resolves reports whether there is a Map-Resolver that we can ask, or nothing
// that asking would need.
func (e *Engine) resolves() bool {
	if len(e.resolvers) == 0 {
		return hasUp(e.locals)
	}
	return slices.ContainsFunc(e.resolvers, func(r *mapResolver) bool {
		_, ok := e.localFor(r.addr.Addr())
		return ok
	})
}

// spared reports whether packets had better not leave from our locator a: it is
// behind a NAT, each destination would cost a binding there, and there is another
// one of its family that is not (draft §5.1.3).
func (e *Engine) spared(a netip.Addr) bool {
	if e.nat == nil || e.nat.find(a) == nil {
		return false
	}
	if _, direct := e.localByAddr(a); direct {
		return false
	}
	return slices.ContainsFunc(e.locals, func(l mapcache.Local) bool { return l.Up && l.Addr.Is4() == a.Is4() })
}

func hasUp(ls []mapcache.Local) bool {
	return slices.ContainsFunc(ls, func(l mapcache.Local) bool { return l.Up })
}

// withLocals adds those that have a machine to ls, sorted.
func (n *natEngine) withLocals(ls []mapcache.Local) []mapcache.Local {
	for _, x := range n.xtrs {
		if !slices.ContainsFunc(ls, func(l mapcache.Local) bool { return l.Addr == x.Addr }) {
			ls = append(ls, x.Local)
		}
	}
	slices.SortFunc(ls, func(a, b mapcache.Local) int { return a.Addr.Compare(b.Addr) })
	return ls
}

// withdrawNAT tells the Map-Servers by the RTRs that we go.
func (e *Engine) withdrawNAT(now time.Time) {
	if e.nat == nil {
		return
	}
	for _, x := range e.nat.xtrs {
		x.xtr.Withdraw(now)
	}
	for _, x := range e.nat.xtrs {
		e.stepNAT(now, x)
	}
}

// withdrawDone reports whether nothing is to be expected any more of a withdrawal by
// RTRs. n may be nil.
func (n *natEngine) withdrawDone() bool {
	return n == nil || !slices.ContainsFunc(n.xtrs, func(x *natLocal) bool { return !x.xtr.WithdrawDone() })
}

// renewNAT registers again by the RTRs, except for one that has done so.
func (e *Engine) renewNAT(now time.Time, except *natLocal) {
	if e.nat == nil {
		return
	}
	for _, x := range e.nat.xtrs {
		if x != except {
			x.xtr.Renew(now)
			e.stepNAT(now, x)
		}
	}
}

// natMoved reports whether other RTRs stand for our locators than before.
func (e *Engine) natMoved() bool {
	if e.nat == nil {
		return false
	}
	b := e.nat.bound()
	moved := !e.nat.started || !slices.Equal(b, e.nat.announce)
	e.nat.started, e.nat.announce = true, b
	return moved
}

// natFamilies adds the address families that our RTRs have.
func (e *Engine) natFamilies(have4, have6 bool) (bool, bool) {
	if e.nat != nil {
		for _, b := range e.nat.bound() {
			have4, have6 = have4 || b.rtr.Is4(), have6 || b.rtr.Is6()
		}
	}
	return have4, have6
}

// setDefaults keeps the entries of the map-cache that lead everything to the RTRs
// while nothing can be asked for directly (draft §5.1.1, §5.1.3).
func (e *Engine) setDefaults(now time.Time) {
	if e.nat == nil {
		return
	}
	want := make(map[mapcache.Key]bool)
	rlocs := e.nat.defaultRLOCs()
	if len(rlocs) > 0 && !e.resolves() {
		iids := map[uint32]bool{0: true}
		for i := range e.db {
			iids[e.db[i].IID] = true
		}
		for iid := range iids {
			want[mapcache.MakeKey(iid, netip.PrefixFrom(netip.IPv4Unspecified(), 0))] = true
			want[mapcache.MakeKey(iid, netip.PrefixFrom(netip.IPv6Unspecified(), 0))] = true
		}
		if len(e.nat.defaults) == 0 {
			e.flushLearned(now)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(e.nat.defaults), compareKeys) {
		if !want[k] {
			e.cache.Remove(now, k)
			delete(e.nat.defaults, k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(want), compareKeys) {
		if old, ok := e.cache.Get(k); ok && old.Origin == mapcache.OriginStatic && !e.nat.defaults[k] {
			continue // configured
		}
		m := static(mapcache.Mapping{Key: k, RLOCs: rlocs, Authoritative: true})
		if err := e.cache.Insert(now, m); err != nil {
			e.log.Error("default mapping not stored", "eid", k, "err", err)
			continue
		}
		e.nat.defaults[k] = true
	}
}

// flushLearned removes what Map-Replies brought: it can't be asked for again, and
// would have traffic leave past the RTR.
func (e *Engine) flushLearned(now time.Time) {
	var ks []mapcache.Key
	for ent := range e.cache.All() {
		if ent.Origin == mapcache.OriginMapReply {
			ks = append(ks, ent.Key)
		}
	}
	for _, k := range ks {
		e.cache.Remove(now, k)
	}
	e.collect(now)
}

// defaultRLOCs are the RTRs, each by the interface that it is bound by when there
// are several.
func (n *natEngine) defaultRLOCs() []mapcache.RLOC {
	bound := n.bound()
	var out []mapcache.RLOC
	for _, b := range bound {
		r := mapcache.RLOC{Locator: cleanLocator(mapcache.Locator{Addr: b.rtr, NAT: true}), Priority: b.Priority, Weight: b.Weight}
		if len(n.xtrs) > 1 {
			r.IfIndex = b.IfIndex
		}
		if !slices.ContainsFunc(out, func(o mapcache.RLOC) bool { return o.Locator == r.Locator }) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b mapcache.RLOC) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.IfIndex, b.IfIndex))
	})
	return out
}

// any reports whether an RTR stands for a locator of ours. n may be nil.
func (n *natEngine) any() bool { return n != nil && len(n.bound()) > 0 }

// smrLocal is the locator that an SMR to remote leaves from: through a NAT, if
// there is no other, since nothing has to come back.
func (e *Engine) smrLocal(remote netip.Addr) (mapcache.Local, bool) {
	l, ok := e.localFor(remote)
	if ok || e.nat == nil {
		return l, ok
	}
	for _, b := range e.nat.bound() {
		if b.Addr.Is4() == remote.Is4() {
			return b.Local, true
		}
	}
	return l, false
}

// smrRLOCs are the ITR-RLOCs of an SMR: our locators, or the RTRs that stand for
// them.
func (e *Engine) smrRLOCs() []lisp.Address {
	as := e.itrRLOCs()
	if len(as) == 0 && e.nat != nil {
		for _, b := range e.nat.bound() {
			if a := lisp.AddressFrom(b.rtr); !slices.Contains(as, a) && len(as) < maxITRRLOCs {
				as = append(as, a)
			}
		}
	}
	return as
}
