package control

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// uplink is what probes say of one of our own locators: how many of its paths
// have answered, and how many are down.
type uplink struct {
	up, down int
	silent   bool
	asked    bool // the Map-Servers, whether they answer it
}

// LocatorSilent says that one of our own locators was found to be of no use, or
// to be of use again: no probe that left by it is answered, while the same peers
// answer those that leave by another. Nothing but that tells of a provider that
// fails while the link to it stays up. A silent locator counts as down.
type LocatorSilent struct {
	Stamp
	Local  netip.Addr
	Silent bool
}

func (e LocatorSilent) String() string {
	if e.Silent {
		return fmt.Sprintf("own locator %v is silent: only probes from others are answered", e.Local)
	}
	return fmt.Sprintf("own locator %v is no more silent", e.Local)
}

// count notes that p is, by 1, or is no more, by -1, a path in its state.
func (e *Engine) count(p *path, by int) {
	if !p.seen && !p.down {
		return
	}
	u := e.uplinks[p.key.local]
	if u == nil {
		u = &uplink{}
		e.uplinks[p.key.local] = u
	}
	if p.down {
		u.down += by
	} else {
		u.up += by
		u.asked = false
	}
	if u.up == 0 && u.down == 0 && !u.silent {
		delete(e.uplinks, p.key.local)
	}
}

// setPath notes whether p answers.
func (e *Engine) setPath(p *path, down bool) {
	e.count(p, -1)
	p.down, p.seen = down, p.seen || !down
	e.count(p, 1)
	e.rankPath(p)
}

func (e *Engine) isSilent(a netip.Addr) bool {
	u := e.uplinks[a]
	return u != nil && u.silent
}

// widen begins to probe t, which answers none of the locators that traffic
// leaves from, from all others too, and says whether there are any.
func (e *Engine) widen(now time.Time, t *probeTarget) bool {
	if t.wide {
		return false
	}
	t.wide = true
	n := len(t.paths)
	e.addPaths(now, t)
	for _, p := range t.paths[n:] {
		e.timers.set(&p.timer, now.Add(time.Millisecond))
	}
	return len(t.paths) > n
}

// narrow ends what widen began, once a locator that traffic leaves from is
// answered again.
func (e *Engine) narrow(now time.Time, t *probeTarget) {
	usual := e.probeLocals(t.locator.Addr.Is4())
	has := func(p *path) bool {
		return slices.ContainsFunc(usual, func(l mapcache.Local) bool { return l.Addr == p.key.local })
	}
	if !t.wide || !slices.ContainsFunc(t.paths, func(p *path) bool { return p.seen && !p.down && !e.isSilent(p.key.local) && has(p) }) {
		return
	}
	t.wide = false
	t.paths = slices.DeleteFunc(t.paths, func(p *path) bool {
		if has(p) {
			return false
		}
		e.removePath(now, p)
		return true
	})
}

// judgeUplinks compares our locators by how t answers them. One of ours that t
// does not answer, though it answers another, may do for everybody else: pairs are
// avoided one by one (PairPlane). It counts as silent only if nobody answers it, and
// at least two do not who answer another; a Map-Server is one of them. Where pairs
// are not avoided one is enough.
func (e *Engine) judgeUplinks(now time.Time, t *probeTarget) {
	if !slices.ContainsFunc(t.paths, func(p *path) bool { return p.seen && !p.down }) {
		return // nothing to compare with
	}
	for _, p := range t.paths {
		u := e.uplinks[p.key.local]
		switch {
		case u == nil:
		case u.silent && u.up > 0:
			e.setSilent(now, p.key.local, u, false)
		case !u.silent && p.down && u.up == 0:
			e.suspect(now, p.key.local, u)
		}
	}
}

// suspect looks for who does not answer our locator a, of which u tells. If it
// is only one, the Map-Servers are asked, by registering again.
func (e *Engine) suspect(now time.Time, a netip.Addr, u *uplink) {
	var first netip.Addr
	for k, p := range e.paths {
		if k.local != a || !p.down || k.locator.Addr == first || !e.answersAnother(p) {
			continue
		}
		if first.IsValid() || !e.pairs.taken {
			e.setSilent(now, a, u, true)
			return
		}
		first = k.locator.Addr
	}
	switch {
	case !first.IsValid():
	case e.unheard[a]:
		e.setSilent(now, a, u, true)
	case !u.asked:
		u.asked = true
		e.registerFrom(now, a)
	}
}

// answersAnother reports whether another locator of ours than that of p is
// answered by its target.
func (e *Engine) answersAnother(p *path) bool {
	return slices.ContainsFunc(p.target.paths, func(o *path) bool { return o != p && o.seen && !o.down })
}

// heard takes note that a Map-Server answered a Map-Register from our locator a,
// after it did not answer those from the locator before, if that is valid.
func (e *Engine) heard(now time.Time, a, before netip.Addr) {
	delete(e.unheard, a)
	if before == a || !before.IsValid() {
		return
	}
	if _, ours := e.localByAddr(before); !ours {
		return
	}
	e.unheard[before] = true
	if u := e.uplinks[before]; u != nil && !u.silent && u.up == 0 && u.down > 0 {
		e.suspect(now, before, u)
	}
}

func (e *Engine) setSilent(now time.Time, a netip.Addr, u *uplink, silent bool) {
	u.silent = silent
	e.emit(LocatorSilent{Stamp{now}, a, silent})
	e.silentSeq++
	// Not here: this runs while paths are being looked at.
	e.timers.set(&e.silentTimer, now.Add(time.Millisecond))
}

// forgetSilent ends the silence of locators that are gone or down anyway, and of
// those that nothing is left to be compared with: they are better than none, and
// are probed at once.
func (e *Engine) forgetSilent(now time.Time, given []mapcache.Local) {
	for a := range e.unheard {
		if !slices.ContainsFunc(given, func(l mapcache.Local) bool { return l.Up && l.Addr.Unmap().WithZone("") == a }) {
			delete(e.unheard, a)
		}
	}
	var others4, others6 bool
	for _, l := range given {
		if a := l.Addr.Unmap().WithZone(""); l.Up && !e.isSilent(a) {
			others4, others6 = others4 || a.Is4(), others6 || a.Is6()
		}
	}
	var alone []netip.Addr
	for a, u := range e.uplinks {
		if !u.silent {
			continue
		}
		if slices.ContainsFunc(given, func(l mapcache.Local) bool { return l.Up && l.Addr.Unmap().WithZone("") == a }) {
			if others4 && a.Is4() || others6 && a.Is6() {
				continue
			}
			alone = append(alone, a)
		}
		u.silent = false
		e.silentSeq++
		if u.up == 0 && u.down == 0 {
			delete(e.uplinks, a)
		}
	}
	if len(alone) == 0 {
		return
	}
	slices.SortFunc(alone, netip.Addr.Compare)
	for _, a := range alone {
		e.emit(LocatorSilent{Stamp{now}, a, false})
	}
	for _, p := range e.sortedPaths() {
		if !p.waiting && slices.Contains(alone, p.key.local) {
			e.timers.set(&p.timer, now.Add(time.Millisecond))
		}
	}
}

// forgetUnprobed ends the silence of a locator that no probe leaves by any more,
// whose answer could end it.
func (e *Engine) forgetUnprobed(now time.Time, a netip.Addr) {
	if !e.isSilent(a) {
		return
	}
	for _, p := range e.paths {
		if p.key.local == a {
			return
		}
	}
	e.setSilent(now, a, e.uplinks[a], false)
	delete(e.uplinks, a)
}

// withoutSilent returns ls with those down that packets are not to leave from: the
// silent ones, and those behind a NAT where there are others.
func (e *Engine) withoutSilent(ls []mapcache.Local) []mapcache.Local {
	out := slices.Clone(ls)
	for i := range out {
		a := out[i].Addr.Unmap().WithZone("")
		out[i].Up = out[i].Up && !e.isSilent(a) && !e.spared(a)
	}
	return out
}
