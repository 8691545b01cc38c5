package encap

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
)

// ownEIDs are the EID-Prefixes behind a device, as the packets see them. They are
// never changed: SetEIDs makes new ones.
type ownEIDs struct {
	eidSet
	hasIPv6  bool
	forwards bool // packets for others than the host behind the device may arrive
}

// newOwnEIDs checks EID-Prefixes. A Proxy-ETR forwards what arrives.
func newOwnEIDs(eids []netip.Prefix, proxyETR bool) (*ownEIDs, error) {
	own := &ownEIDs{forwards: proxyETR}
	for _, p := range eids {
		if err := plain(p); err != nil {
			return nil, err
		}
		own.add(p.Masked())
		own.hasIPv6 = own.hasIPv6 || p.Addr().Is6()
		own.forwards = own.forwards || !p.IsSingleIP()
	}
	return own, nil
}

func plain(p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Is4In6() {
		return fmt.Errorf("EID-Prefix %v is not a plain prefix", p)
	}
	return nil
}

// isOurs reports whether an address is an EID behind the device of the overlay.
func (o *overlay) isOurs(a netip.Addr) bool { return o.own.Load().contains(a) }

// SetEIDs replaces the EID-Prefixes of an instance (Overlay.EIDs): packets from and
// to those that are new are forwarded when it returns, those of the ones that are
// gone are dropped, and nothing happens to any other. There may be none. It is for
// overlays with a device; the error says that there is no such instance, or which
// prefix is none.
func (f *Forwarder) SetEIDs(instance uint32, eids []netip.Prefix) error {
	o := f.overlay(instance)
	if o == nil {
		return fmt.Errorf("encap: there is no instance %d", instance)
	}
	own, err := newOwnEIDs(eids, len(o.proxyETR.few) > 0)
	if err != nil {
		return fmt.Errorf("encap: instance %d: %w", instance, err)
	}
	f.localsMu.Lock()
	defer f.localsMu.Unlock()
	if f.closed.Load() {
		return fmt.Errorf("encap: set EIDs: %w", errClosed)
	}
	before := o.own.Swap(own)
	if before.hasIPv6 != own.hasIPv6 {
		if err := f.setDeviceMTUs(f.locals.Load()); err != nil {
			return fmt.Errorf("encap: %w", err)
		}
	}
	return nil
}

// eidSet is a set of EID-Prefixes. A node has a few, which are compared one by
// one; a router may have many.
type eidSet struct {
	few  []netip.Prefix
	many *bart.Lite
}

const fewEIDs = 4

func (s *eidSet) add(p netip.Prefix) {
	if s.many == nil && len(s.few) < fewEIDs {
		s.few = append(s.few, p)
		return
	}
	if s.many == nil {
		s.many = new(bart.Lite)
		for _, q := range s.few {
			s.many.Insert(q)
		}
	}
	s.many.Insert(p)
}

func (s *eidSet) contains(a netip.Addr) bool {
	if s.many != nil {
		return s.many.Lookup(a)
	}
	for _, p := range s.few {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
