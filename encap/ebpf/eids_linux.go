package ebpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xtrkit/xtrkit/mapcache"
)

// SetEIDs replaces the EID-Prefixes of an instance, in the Forwarder (see
// encap.Forwarder.SetEIDs) and in the kernel. If the kernel has no room for all,
// those before stay. It must be called by a thread in the network namespace of New.
func (d *Dataplane) SetEIDs(instance uint32, eids []netip.Prefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("ebpf: set EIDs: %w", net.ErrClosed)
	}
	before := d.eids[instance]
	added := without(eids, before)
	if err := d.putEIDs(instance, added); err != nil {
		return errors.Join(fmt.Errorf("ebpf: EIDs of instance %d: %w", instance, err), d.deleteEIDs(instance, added))
	}
	if err := d.f.SetEIDs(instance, eids); err != nil {
		return errors.Join(err, d.deleteEIDs(instance, added))
	}
	d.eids[instance] = slices.Clone(eids)
	err := d.deleteEIDs(instance, without(before, eids))
	if err = errors.Join(err, d.setInstances()); err != nil { // the MTU of the device may be another
		return fmt.Errorf("ebpf: EIDs of instance %d: %w", instance, err)
	}
	return nil
}

// without returns the prefixes of ps that are not among others, masked.
func without(ps, others []netip.Prefix) (out []netip.Prefix) {
	for _, p := range ps {
		p = p.Masked()
		if !slices.ContainsFunc(others, func(o netip.Prefix) bool { return o.Masked() == p }) {
			out = append(out, p)
		}
	}
	return out
}

func (d *Dataplane) putEIDs(instance uint32, ps []netip.Prefix) error {
	for _, p := range ps {
		if err := d.objs.OwnEids.Put(makeKey(mapcache.MakeKey(instance, p)).prefix(), uint32(1)); err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
	}
	return nil
}

func (d *Dataplane) deleteEIDs(instance uint32, ps []netip.Prefix) error {
	var errs []error
	for _, p := range ps {
		err := d.objs.OwnEids.Delete(makeKey(mapcache.MakeKey(instance, p)).prefix())
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("%v: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
