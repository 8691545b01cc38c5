package encap

import (
	"errors"
	"fmt"
	"slices"
)

// leastDeviceMTU is the least MTU that a device gets: every IPv4 host takes that
// (RFC 1122 §3.3.2).
const leastDeviceMTU = 576

// linkWatcher is an Underlay that tells when the MTU of a link may have changed.
type linkWatcher interface {
	watchLinks(changed func()) error
}

// refreshMTUs asks the links of our locators for their MTUs again.
func (f *Forwarder) refreshMTUs() {
	f.localsMu.Lock()
	defer f.localsMu.Unlock()
	if f.closed.Load() {
		return
	}
	old := f.locals.Load()
	mtus := make([]int, len(old.mtus))
	for i, p := range old.paths {
		if p != nil {
			mtus[i] = f.linkMTU(p)
		}
	}
	if slices.Equal(mtus, old.mtus) {
		return
	}
	next := *old
	next.mtus = mtus
	f.locals.Store(&next)
	if err := f.setDeviceMTUs(&next); err != nil {
		f.cfg.Logger.Warn("the MTU of a device stays as it is", "err", err)
	}
}

// setDeviceMTUs makes the MTU of the devices follow the links of our locators:
// what programs then send needs no fragmentation on them. What the path to one
// locator carries less is for that locator's packets alone, whose sources are
// told.
//
// With an IPv6 EID it stays at 1280, below which the kernel takes IPv6 away from
// a device: over smaller links those packets travel in outer fragments.
func (f *Forwarder) setDeviceMTUs(t *localTable) error {
	if f.cfg.KeepDeviceMTU {
		return nil
	}
	room := 0
	for i, l := range t.locals {
		if n := t.mtus[i] - Overhead(l.Addr); l.Up && (room == 0 || n < room) {
			room = n
		}
	}
	if room == 0 {
		return nil
	}
	var errs []error
	for _, o := range f.overlays {
		d, ok := o.device.(interface{ SetMTU(mtu int) error })
		if !ok {
			continue
		}
		least := leastDeviceMTU
		if o.own.Load().hasIPv6 {
			least = minIPv6MTU
		}
		mtu := max(room, least)
		if o.device.MTU() == mtu {
			continue
		}
		if err := d.SetMTU(mtu); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", o.device.Name(), err))
			continue
		}
		f.cfg.Logger.Info("device MTU follows the uplinks", "device", o.device.Name(), "mtu", mtu)
	}
	return errors.Join(errs...)
}
