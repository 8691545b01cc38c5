package encap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/xtrkit/xtrkit/mapcache"
)

// localTable is our own locators and the ways to send from them. It is never
// changed: SetLocals makes a new one.
type localTable struct {
	locals []mapcache.Local
	paths  []Path // by index of locals; nil where Up is false
	mtus   []int  // largest outer packet, by index of locals

	// sole is 1 + the index of the only locator of a family that packets may leave
	// from; 0 if there are several, or none.
	sole [2]int
}

// findSole sets sole.
func (t *localTable) findSole() {
	var usable [2]int
	for i, l := range t.locals {
		if f := family(l.Addr); l.Up && l.Priority != 255 {
			usable[f]++
			t.sole[f] = i + 1
		}
	}
	for f, n := range usable {
		if n > 1 {
			t.sole[f] = 0
		}
	}
}

// owns reports whether a is one of our locators, up or not.
func (t *localTable) owns(a netip.Addr) bool {
	for i := range t.locals {
		if t.locals[i].Addr == a {
			return true
		}
	}
	return false
}

// choose returns the index of the locator that packets of a flow to l leave
// from.
func (t *localTable) choose(l *mapcache.Locator, hash uint32) (int, bool) {
	if l.IfIndex == 0 {
		if i := t.sole[family(l.Addr)]; i > 0 {
			return i - 1, true
		}
		return mapcache.ChooseLocal(t.locals, l.Addr, hash)
	}
	for i := range t.locals {
		x := &t.locals[i]
		if x.IfIndex == l.IfIndex && x.Up && x.Addr.Is4() == l.Addr.Is4() {
			return i, true
		}
	}
	return 0, false
}

// SetLocals replaces the set of our own locators: packets leave from them, and
// arriving packets must be for one of them. Locators that stay keep their
// sockets and source ports. One that can't be opened counts as down; the others
// are in effect, and the error says what failed.
func (f *Forwarder) SetLocals(ls []mapcache.Local) error {
	f.localsMu.Lock()
	defer f.localsMu.Unlock()
	if f.closed.Load() {
		return fmt.Errorf("encap: set locators: %w", errClosed)
	}
	old := f.locals.Load()
	next := &localTable{
		locals: slices.Clone(ls),
		paths:  make([]Path, len(ls)),
		mtus:   make([]int, len(ls)),
	}
	var errs []error
	kept := make([]bool, len(old.locals))
	for i := range next.locals {
		l := &next.locals[i]
		l.Addr = l.Addr.Unmap()
		if !l.Up {
			continue
		}
		if l.Addr.IsMulticast() || l.Addr.IsUnspecified() || !l.Addr.IsValid() {
			l.Up = false
			errs = append(errs, fmt.Errorf("locator %v is not a unicast address", l.Addr))
			continue
		}
		for j, o := range old.locals {
			if o.Addr == l.Addr && o.IfIndex == l.IfIndex && old.paths[j] != nil && !kept[j] {
				next.paths[i], kept[j] = old.paths[j], true
			}
		}
		if next.paths[i] == nil {
			p, err := f.cfg.Underlay.Open(*l)
			if err != nil {
				l.Up = false
				errs = append(errs, fmt.Errorf("locator %v: %w", l.Addr, err))
				continue
			}
			next.paths[i] = p
		}
		next.mtus[i] = f.linkMTU(next.paths[i])
	}
	next.findSole()
	f.locals.Store(next)
	if err := f.setDeviceMTUs(next); err != nil {
		errs = append(errs, err)
	}
	for j, p := range old.paths {
		if p != nil && !kept[j] {
			_ = p.Close()
		}
	}
	if f.cfg.Native != nil {
		if err := f.cfg.Native.SetLocals(next.locals); err != nil {
			errs = append(errs, fmt.Errorf("native forwarding: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("encap: %w", err)
	}
	return nil
}

// linkMTU is the constant L of RFC 9300 §7.1 for packets that leave by a path.
func (f *Forwarder) linkMTU(p Path) int {
	mtu := p.MTU()
	switch {
	case mtu <= 0 && f.cfg.MTU > 0:
		mtu = f.cfg.MTU
	case mtu <= 0:
		mtu = DefaultMTU
	case f.cfg.MTU > 0:
		mtu = min(mtu, f.cfg.MTU)
	}
	return min(mtu, 0xffff) // lo has 65536
}
