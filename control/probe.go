package control

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// probeTarget is a remote locator that map-cache entries use.
type probeTarget struct {
	locator mapcache.Locator
	keys    keySet // the entries
	paths   []*path
	down    bool
	wide    bool      // probed from all our locators, not only from those that traffic leaves from
	next    int       // which key the next search for another mapping begins at
	used    time.Time // when packets were reported last
}

// pathKey names a path: one of our locators and a remote one.
type pathKey struct {
	local   netip.Addr
	locator mapcache.Locator
}

// path is a pair of locators that is probed, however many entries use it.
type path struct {
	timer
	key    pathKey
	local  mapcache.Local
	target *probeTarget

	nonces   []lisp.Nonce // of the probes since cycle, and of the time after
	cycle    time.Time    // when the first of them was sent
	waiting  bool
	misses   int // probes of this cycle that went unanswered
	eid      int // which of the target's keys the next probe names
	seen     bool
	down     bool
	rtt      time.Duration
	class    uint8     // of rtt, with ProbeConfig.PreferRTT; 0: none yet
	classAt  time.Time // when it left another one; zero: it is the first
	slower   bool      // and that it was for a slower one
	sent     uint64
	answered uint64
}

// Path is a snapshot of a path that is probed.
type Path struct {
	Local   netip.Addr
	Locator mapcache.Locator
	EIDs    int  // map-cache entries that use the locator
	Known   bool // it has answered, or been found down
	Down    bool
	RTT     time.Duration // smoothed; 0: unknown
	// Sent and Answered count probes: the loss is their difference, up to the
	// probe under way.
	Sent, Answered uint64
}

// Paths returns all paths, in order.
func (e *Engine) Paths() []Path {
	ps := make([]Path, 0, len(e.paths))
	for _, p := range e.sortedPaths() {
		ps = append(ps, Path{
			Local: p.key.local, Locator: p.key.locator, EIDs: p.target.keys.len(), Known: p.seen || p.down,
			Down: p.down, RTT: p.rtt, Sent: p.sent, Answered: p.answered,
		})
	}
	return ps
}

func (e *Engine) sortedPaths() []*path {
	ps := make([]*path, 0, len(e.paths))
	for _, p := range e.paths {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b *path) int {
		if c := compareLocators(a.key.locator, b.key.locator); c != 0 {
			return c
		}
		return a.key.local.Compare(b.key.local)
	})
	return ps
}

// probeable reports whether a locator of a mapping is worth probing. Proxy-ETRs
// are not: they are authoritative for nothing that a probe could name. What is
// behind a NAT, or before ours, is kept by the messages of its registration.
func (e *Engine) probeable(r mapcache.RLOC) bool {
	if e.cfg.Probe.Interval < 0 || r.Priority == 255 || r.Down || r.NAT || e.petrs[r.Locator] {
		return false
	}
	for _, p := range e.cfg.Probe.Exclude {
		if p.Contains(r.Addr) {
			return false
		}
	}
	_, ours := e.localByAddr(r.Addr)
	return !ours
}

// useLocators notes that the entry k uses the locators of after, and no longer
// those of before.
func (e *Engine) useLocators(now time.Time, k mapcache.Key, before, after []mapcache.RLOC) {
	for _, r := range after {
		if !e.probeable(r) {
			continue
		}
		t := e.targets[r.Locator]
		if t == nil {
			t = &probeTarget{locator: r.Locator}
			e.targets[r.Locator] = t
			t.keys.add(k)
			e.addPaths(now, t)
		}
		t.keys.add(k)
	}
	for _, r := range before {
		t := e.targets[r.Locator]
		if t == nil || slices.ContainsFunc(after, func(o mapcache.RLOC) bool { return o.Locator == r.Locator && e.probeable(o) }) {
			continue
		}
		t.keys.remove(k)
		if t.keys.len() == 0 {
			for _, p := range t.paths {
				e.removePath(now, p)
			}
			delete(e.targets, r.Locator)
			if t.down {
				e.cache.SetReachable(t.locator, true) // nothing is known of it any more
			}
		}
	}
}

// probeLocals are the locators that probes to that family leave from: those
// that traffic leaves from, which are the ones of best priority; and silent ones,
// to find out when they are not any more.
func (e *Engine) probeLocals(is4 bool) []mapcache.Local {
	var out []mapcache.Local
	for _, l := range e.locals {
		if !l.Up || l.Addr.Is4() != is4 {
			continue
		}
		if len(out) > 0 && l.Priority < out[0].Priority {
			out = out[:0]
		}
		if len(out) == 0 || l.Priority == out[0].Priority {
			out = append(out, l)
		}
	}
	for _, l := range e.locals {
		if l.Addr.Is4() == is4 && e.isSilent(l.Addr) {
			out = append(out, l)
		}
	}
	return out
}

// localsFor are the locators that probes to t leave from.
func (e *Engine) localsFor(t *probeTarget) []mapcache.Local {
	is4 := t.locator.Addr.Is4()
	if !t.wide {
		return e.probeLocals(is4)
	}
	return slices.DeleteFunc(slices.Clone(e.locals), func(l mapcache.Local) bool {
		return l.Addr.Is4() != is4 || !l.Up && !e.isSilent(l.Addr)
	})
}

func (e *Engine) addPaths(now time.Time, t *probeTarget) {
	for _, l := range e.localsFor(t) {
		k := pathKey{l.Addr, t.locator}
		if p := e.paths[k]; p != nil {
			p.local = l
			continue
		}
		if len(e.paths) >= e.cfg.Probe.MaxPaths {
			e.drop(now, DropTooManyPaths, netip.AddrPortFrom(t.locator.Addr, e.cfg.Probe.Port), nil)
			continue
		}
		p := &path{key: k, local: l, target: t}
		p.fire = func(now time.Time) { e.pathTimer(now, p) }
		e.paths[k] = p
		t.paths = append(t.paths, p)
		e.rankPath(p)
		// Soon, but many new paths spread over the interval.
		spread := min(max(time.Second, time.Duration(max(len(e.paths), len(e.targets)))*10*time.Millisecond), e.cfg.Probe.Interval)
		e.timers.set(&p.timer, now.Add(time.Millisecond+e.jitter(spread)))
	}
}

func (e *Engine) removePath(now time.Time, p *path) {
	e.timers.stop(&p.timer)
	e.forgetProbes(p)
	e.count(p, -1)
	delete(e.paths, p.key)
	e.rankPair(p.key, 0)
	e.forgetUnprobed(now, p.key.local)
}

// rebuildPaths follows a change of our own locators. A locator that is on another
// interface now begins anew.
func (e *Engine) rebuildPaths(now time.Time) {
	for _, p := range e.sortedPaths() {
		same := func(l mapcache.Local) bool { return l.Addr == p.key.local && l.IfIndex == p.local.IfIndex }
		if !slices.ContainsFunc(e.localsFor(p.target), same) {
			e.removePath(now, p)
			p.target.paths = slices.DeleteFunc(p.target.paths, func(o *path) bool { return o == p })
		}
	}
	targets := make([]*probeTarget, 0, len(e.targets))
	for _, t := range e.targets {
		targets = append(targets, t)
	}
	slices.SortFunc(targets, func(a, b *probeTarget) int { return compareLocators(a.locator, b.locator) })
	for _, t := range targets {
		e.addPaths(now, t)
		e.judge(now, t)
	}
}

// pathTimer runs at the start of a cycle of probes, and when one of its probes
// was not answered in time.
func (e *Engine) pathTimer(now time.Time, p *path) {
	if !p.waiting {
		e.forgetProbes(p)
		p.cycle, p.misses = now, 0
		e.probe(now, p)
		return
	}
	p.misses++
	if p.misses < e.cfg.Probe.Tries {
		// By another EID-Prefix: the one asked for may have moved away.
		p.eid++
		e.probe(now, p)
		return
	}
	p.waiting = false
	e.nextCycle(now, p)
	if !p.down {
		e.setPath(p, true)
		e.emit(ProbeDown{Stamp{now}, p.key.local, p.key.locator, p.misses, p.rtt})
	}
	e.judge(now, p.target)
}

// nextCycle sets when p is probed again: an interval after the last time,
// jittered.
func (e *Engine) nextCycle(now time.Time, p *path) {
	i := e.cfg.Probe.Interval
	if e.fast(now, p.target) {
		i = min(i, e.cfg.Probe.Fast)
	}
	e.timers.set(&p.timer, later(p.cycle.Add(i-i/10+e.jitter(i/5)), now.Add(time.Millisecond)))
}

// probe sends one RLOC-probe (RFC 9301 §7.1): a Map-Request with the P bit,
// never encapsulated, from our locator to theirs.
func (e *Engine) probe(now time.Time, p *path) {
	k := p.target.keys.at(p.eid)
	m := lisp.MapRequest{
		Probe: true,
		Nonce: e.nonce(),
		// The answer must come back by the same pair.
		ITRRLOCs: []lisp.Address{lisp.AddressFrom(p.key.local)},
		Records:  []lisp.RequestRecord{{MaskLen: uint8(k.Prefix.Bits()), EID: lisp.EIDAddress(k.IID, k.Prefix.Addr())}},
	}
	p.nonces = append(p.nonces, m.Nonce)
	e.requests[m.Nonce] = request{path: p, sent: now}
	if e.send(p.local, netip.AddrPortFrom(p.key.locator.Addr, e.cfg.Probe.Port), m.AppendBinary) {
		e.stats.ProbesSent++
		p.sent++
	}
	p.waiting = true
	wait := e.cfg.Probe.Timeout
	if p.rtt > 0 && e.fast(now, p.target) {
		wait = min(wait, e.cfg.Probe.Fast)
	}
	wait = max(wait, min(2*p.rtt, probeMaxTimeout))
	e.timers.set(&p.timer, now.Add(wait))
}

// usedTime is how long a locator counts as in use after packets were reported.
const usedTime = 15 * time.Second

// fast reports whether the probes to t are to find out quickly.
func (e *Engine) fast(now time.Time, t *probeTarget) bool {
	return e.cfg.Probe.Fast > 0 && !t.used.IsZero() && now.Sub(t.used) < usedTime
}

// locatorUsed takes note of packets to or from l.
func (e *Engine) locatorUsed(now time.Time, l mapcache.Locator) {
	t := e.targets[cleanLocator(l)]
	if t == nil {
		return
	}
	idle := !e.fast(now, t)
	t.used = now
	if !idle || !e.fast(now, t) {
		return
	}
	for _, p := range t.paths {
		if at := now.Add(e.jitter(e.cfg.Probe.Fast)); !p.waiting && at.Before(p.at) {
			e.timers.set(&p.timer, at)
		}
	}
}

// hintInterval is the least time between the probes that hints cause on a path.
const hintInterval = 3 * time.Second

// hint is told that a locator that is down may be up again, since something
// came from it. That may be forged, so it is only a reason to probe now.
func (e *Engine) hint(now time.Time, a netip.Addr) {
	t := e.targets[e.learned(a)]
	if t != nil && t.down {
		e.probeSoon(now, t)
	}
}

// unreachable is told that an ICMP error says that packets to a locator do not
// arrive. That may be forged, too.
func (e *Engine) unreachable(now time.Time, l mapcache.Locator) {
	if t := e.targets[cleanLocator(l)]; t != nil && !t.down {
		e.probeSoon(now, t)
	}
}

// probeSoon probes t as soon as hintInterval allows.
func (e *Engine) probeSoon(now time.Time, t *probeTarget) {
	for _, p := range t.paths {
		if at := p.cycle.Add(hintInterval); !p.waiting && at.Before(p.at) {
			e.timers.set(&p.timer, later(at, now.Add(time.Millisecond)))
		}
	}
}

func (e *Engine) forgetProbes(p *path) {
	for _, n := range p.nonces {
		delete(e.requests, n)
	}
	p.nonces = p.nonces[:0]
}

// handleProbeReply takes a Map-Reply with the P bit and the nonce of a probe.
func (e *Engine) handleProbeReply(now time.Time, d lisp.Datagram, m *lisp.MapReply, req request) {
	p := req.path
	for i := range m.Records {
		if !m.Records[i].Authoritative {
			e.drop(now, DropNotAuthoritative, d.Remote, m.Records[i].String) // RFC 9301 §5.4
			return
		}
	}
	if a, ok := probedLocator(m.Records); ok && a != p.key.locator.Addr {
		e.drop(now, DropWrongLocator, d.Remote, func() string { return fmt.Sprintf("%v instead of %v", a, p.key.locator.Addr) })
		return
	}
	rtt := now.Sub(req.sent)
	delete(e.requests, m.Nonce)
	p.nonces = slices.DeleteFunc(p.nonces, func(n lisp.Nonce) bool { return n == m.Nonce })
	e.stats.ProbeRepliesRecv++
	p.answered++
	p.rtt = smooth(p.rtt, rtt)
	e.cache.SetRTT(p.key.locator, p.rtt)
	if p.waiting {
		p.waiting = false
		e.nextCycle(now, p)
	}
	e.classify(now, p)
	if p.down || !p.seen {
		e.setPath(p, false)
		e.emit(ProbeUp{Stamp{now}, p.key.local, p.key.locator, rtt})
	} else {
		e.rankPath(p)
	}
	e.echoOverruled(now, p.key.locator)
	e.judge(now, p.target)
	e.compareProbed(now, m, p.target.keys.at(p.eid))
}

// probedLocator is the first locator with the p bit (RFC 9301 §5.4).
func probedLocator(records []lisp.EIDRecord) (netip.Addr, bool) {
	for i := range records {
		for j := range records[i].Locators {
			if l := &records[i].Locators[j]; l.Probed {
				ip, ok := l.RLOC.IP()
				return ip.Unmap(), ok
			}
		}
	}
	return netip.Addr{}, false
}

// compareProbed looks at the mappings that a probe reply carries. When one
// differs from the cached one the mapping system is asked: an ETR that the
// EID-Prefix has left would still answer. So would an xTR that has got the
// address of one that has left, but not for probed, the EID-Prefix asked about.
func (e *Engine) compareProbed(now time.Time, m *lisp.MapReply, probed mapcache.Key) {
	known := false
	for i := range m.Records {
		rec := &m.Records[i]
		k, ok := recordKey(rec)
		if !ok {
			continue
		}
		known = known || k.IID == probed.IID && k.Prefix.Overlaps(probed.Prefix)
		ent, ok := e.cache.Get(k)
		if !ok || ent.Origin == mapcache.OriginStatic || e.sameMapping(&ent, rec) {
			continue
		}
		e.refresh(now, k, reasons{})
	}
	if known {
		return
	}
	if ent, ok := e.cache.Get(probed); ok && ent.Origin != mapcache.OriginStatic {
		e.refresh(now, probed, reasons{})
	}
}

func sameRLOCs(a, b []mapcache.RLOC) bool {
	if len(a) != len(b) {
		return false
	}
	for _, r := range a {
		if !slices.Contains(b, r) {
			return false
		}
	}
	return true
}

// judge tells the map-cache whether t is reachable, which it is while any path
// to it is. When it is not, the entries that are left without a locator are
// asked for again: they may have moved.
func (e *Engine) judge(now time.Time, t *probeTarget) {
	down := len(t.paths) > 0
	for _, p := range t.paths {
		down = down && p.down
	}
	if down && e.widen(now, t) {
		return // what they say comes first
	}
	e.judgeUplinks(now, t)
	e.narrow(now, t)
	if down != t.down {
		t.down = down
		e.cache.SetReachable(t.locator, !down)
	}
	if !down {
		return
	}
	const atOnce = 64 // the others follow in the next cycles
	for range min(t.keys.len(), atOnce) {
		k := t.keys.at(t.next)
		t.next = (t.next + 1) % t.keys.len()
		if ent, ok := e.cache.Get(k); ok && ent.Origin != mapcache.OriginStatic && !e.anyReachable(ent.RLOCs) {
			e.refresh(now, k, reasons{})
		}
	}
}

func (e *Engine) anyReachable(rs []mapcache.RLOC) bool {
	for _, r := range rs {
		if r.Priority != 255 && !r.Down {
			if t := e.targets[r.Locator]; t == nil || !t.down {
				return true
			}
		}
	}
	return false
}

func compareLocators(a, b mapcache.Locator) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	if a.Port != b.Port {
		return int(a.Port) - int(b.Port)
	}
	if a.Format != b.Format {
		return int(a.Format) - int(b.Format)
	}
	if a.NAT != b.NAT {
		if a.NAT {
			return 1
		}
		return -1
	}
	return a.IfIndex - b.IfIndex
}

// keySet is a set of keys in a repeatable order.
type keySet struct {
	list []mapcache.Key
	pos  map[mapcache.Key]int // only once it pays
}

const keySetScan = 16

func (s *keySet) len() int { return len(s.list) }

// at returns one of the keys, any number counting round and round.
func (s *keySet) at(i int) mapcache.Key { return s.list[i%len(s.list)] }

func (s *keySet) find(k mapcache.Key) int {
	if s.pos == nil {
		return slices.Index(s.list, k)
	}
	if i, ok := s.pos[k]; ok {
		return i
	}
	return -1
}

func (s *keySet) add(k mapcache.Key) {
	if s.find(k) >= 0 {
		return
	}
	s.list = append(s.list, k)
	switch {
	case s.pos != nil:
		s.pos[k] = len(s.list) - 1
	case len(s.list) > keySetScan:
		s.pos = make(map[mapcache.Key]int, 2*len(s.list))
		for i, k := range s.list {
			s.pos[k] = i
		}
	}
}

func (s *keySet) remove(k mapcache.Key) {
	i := s.find(k)
	if i < 0 {
		return
	}
	last := len(s.list) - 1
	s.list[i] = s.list[last]
	s.list = s.list[:last]
	if s.pos != nil {
		delete(s.pos, k)
		if i < last {
			s.pos[s.list[i]] = i
		}
	}
}
