package ebpf

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xtrkit/xtrkit/encap"
)

// AddDevice encapsulates in the kernel also what the host sends by a further device
// of the overlay of an instance, such as one that packets with a firewall mark are
// led to (encap.Forwarder.ReadMarked). What the programs leave alone goes on to the
// queue of the device, which somebody has to read. It ends with the device or with
// Close. There may be 60 devices and LANs. It must be called by a thread in the
// network namespace of New, and may be called by anyone at any time.
func (d *Dataplane) AddDevice(instance uint32, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("ebpf: device %s: %w", name, net.ErrClosed)
	}
	i := slices.IndexFunc(d.cfg.Encap.Overlays, func(o encap.Overlay) bool { return o.InstanceID == instance })
	if i < 0 {
		return fmt.Errorf("ebpf: device %s: there is no instance %d", name, instance)
	}
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("ebpf: device %s: %w", name, err)
	}
	at := place{ifi.Index, true}
	known := d.further[ifi.Index] != nil || slices.ContainsFunc(d.fixed, func(a *attachment) bool { return a.at == at })
	err = d.forgetDevices()
	if !known && err == nil {
		err = d.objs.Devices.Put(uint32(ifi.Index), newDevice(&d.cfg.Encap.Overlays[i]))
		if err == nil {
			d.further[ifi.Index], err = attach(d.cfg.Attach, at, d.objs.EncapDevice, d.pins())
		}
		if err != nil {
			delete(d.further, ifi.Index)
			err = errors.Join(err, d.objs.Devices.Delete(uint32(ifi.Index)))
		}
	}
	if err != nil {
		return fmt.Errorf("ebpf: device %s: %w", name, err)
	}
	return nil
}

// forgetDevices forgets the further devices that are not there any more.
func (d *Dataplane) forgetDevices() error {
	var errs []error
	for i, a := range d.further {
		if _, err := net.InterfaceByIndex(i); err == nil {
			continue
		}
		delete(d.further, i)
		errs = append(errs, a.detach())
		if err := d.objs.Devices.Delete(uint32(i)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// newDevice is what the programs know of a device of an overlay.
func newDevice(o *encap.Overlay) bpfDevice {
	v := bpfDevice{Iid: o.InstanceID, ProxyItr: uint32(flag8(o.ProxyITR))}
	for f := range v.Header {
		v.Header[f] = dataHeader(o.InstanceID, f)
	}
	return v
}
