package ebpf

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xtrkit/xtrkit/encap"
)

// SetLANs replaces Config.LANs. It attaches to the interfaces that are new, which must
// have Ethernet headers and be none of our uplinks, and detaches from those that are no
// LANs any more; an interface that is gone is forgotten. It does what it can, and the
// error says what it could not: packets from there go the usual way through the host.
// So do those for EIDs of ours; but no mapping should cover other addresses of the host.
// It must be called by a thread in the network namespace of New, and may be called by
// anyone at any time.
func (d *Dataplane) SetLANs(lans []LAN) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("ebpf: LANs: %w", net.ErrClosed)
	}
	var errs []error
	for i, a := range d.lans {
		if slices.ContainsFunc(lans, func(l LAN) bool { return l.IfIndex == i }) {
			if _, err := net.InterfaceByIndex(i); err == nil {
				continue
			}
		}
		errs = append(errs, d.removeLAN(i, a))
	}
	d.heir.places = slices.DeleteFunc(d.heir.places, func(p placed) bool { return !p.at.egress })
	for _, l := range lans {
		if err := d.addLAN(l); err != nil {
			errs = append(errs, fmt.Errorf("interface %d: %w", l.IfIndex, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ebpf: LANs: %w", err)
	}
	return nil
}

func (d *Dataplane) removeLAN(ifindex int, a *attachment) error {
	delete(d.lans, ifindex)
	err := a.detach()
	if e := d.objs.Devices.Delete(uint32(ifindex)); e != nil && !errors.Is(e, ebpf.ErrKeyNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// addLAN adds a LAN, or gives one its instance.
func (d *Dataplane) addLAN(l LAN) error {
	at := place{ifindex: l.IfIndex}
	i := slices.IndexFunc(d.cfg.Encap.Overlays, func(o encap.Overlay) bool { return o.InstanceID == l.InstanceID })
	ether, err := isEthernet(l.IfIndex)
	switch {
	case i < 0:
		return fmt.Errorf("there is no instance %d", l.InstanceID)
	case err != nil:
		return err
	case !ether:
		return errors.New("no Ethernet headers")
	case d.uplinks[at] != nil:
		return errors.New("it is an uplink")
	}
	if err := d.objs.Devices.Put(uint32(l.IfIndex), newDevice(&d.cfg.Encap.Overlays[i])); err != nil || d.lans[l.IfIndex] != nil {
		return err
	}
	d.heir.places = append(d.heir.places, placed{at, d.objs.EncapLan})
	if d.heir.found && !d.heir.settled {
		return nil // with the others
	}
	return d.takeOver()
}
