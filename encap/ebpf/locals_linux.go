package ebpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

const (
	maxLocals = 8  // MAX_LOCALS
	maxPorts  = 64 // MAX_PORTS

	manyAddresses = 1 << 31 // more than FEW
)

// localSet is our own locators as the programs know them.
type localSet struct {
	addrs    map[netip.Addr]uint16 // all of them, up or not, with a port that data arrives at beside 4341
	families [2]bool               // of which one is up: IPv4, IPv6
	set      bool                  // SetLocals was called
	slow     bool                  // the programs can't choose among them as the Forwarder does
}

func (s *localSet) owns(a netip.Addr) bool {
	_, ok := s.addrs[a]
	return ok
}

// unsourced tells whether no locator of the family of a is up.
func (s *localSet) unsourced(a netip.Addr) bool {
	return s.set && !s.families[flag8(a.Is6())]
}

// SetLocals replaces our own locators, in the Forwarder and in the kernel, and
// attaches to their interfaces.
func (d *Dataplane) SetLocals(ls []mapcache.Local) error {
	err := d.f.SetLocals(ls)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return err
	}
	if e := d.setLocals(d.f.LocalPaths()); e != nil {
		err = errors.Join(err, fmt.Errorf("ebpf: %w", e))
	}
	return err
}

func (d *Dataplane) setLocals(ways []encap.LocalPath) error {
	d.ways = ways
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	next := localSet{addrs: make(map[netip.Addr]uint16), set: true}
	wanted := make(map[place]bool)
	var lists [2]bpfLocalList
	for i := range ways {
		w := &ways[i]
		next.addrs[w.Addr] = dataPort(w)
		salt := w.Salt() // of the locator as it was given
		if w.IfIndex == 0 {
			var err error
			if w.IfIndex, err = interfaceWith(w.Addr); err != nil {
				note(err)
				continue
			}
		}
		wanted[place{ifindex: w.IfIndex}] = true
		if !w.Up {
			continue
		}
		family := flag8(w.Addr.Is6())
		next.families[family] = true
		list := &lists[family]
		if list.Count == maxLocals || len(w.Ports) == 0 || len(w.Ports) > maxPorts {
			next.slow = true
			continue
		}
		list.Local[list.Count] = newLocal(w, salt)
		list.Count++
	}
	markBest(ways, &lists)

	few := bpfFewAddresses{Count: manyAddresses}
	note(d.objs.Few.Put(uint32(0), few)) // until all is as it will be
	// A new address counts as ours before packets are sent from it, an old one
	// until none is.
	for a := range next.addrs {
		note(d.objs.Addresses.Put(addressOf(a), uint32(next.addrs[a])))
	}
	old := d.locals
	d.locals = next
	note(d.mirror.rewriteLocators())
	generation := d.settings.Generation ^ 1
	for family := range lists {
		note(d.objs.Locals.Put(2*generation+uint32(family), lists[family]))
	}
	d.settings.Generation = generation
	note(d.writeSettings())
	for a := range old.addrs {
		if !next.owns(a) {
			note(d.objs.Addresses.Delete(addressOf(a)))
		}
	}
	if len(next.addrs) <= len(few.Address) {
		i := 0
		for a, port := range next.addrs {
			few.Address[i], few.NatPort[i] = addressOf(a), uint32(port)
			i++
		}
		note(d.objs.Few.Put(uint32(0), few)) // the count last
		few.Count = uint32(i)
		note(d.objs.Few.Put(uint32(0), few))
	}
	note(d.setInstances()) // the MTU of the devices may have followed the uplinks
	note(d.takeOver())
	note(d.attachUplinks(wanted))
	note(d.settle())
	return errors.Join(errs...)
}

func newLocal(w *encap.LocalPath, salt uint32) bpfLocal {
	l := bpfLocal{
		Addr: words(w.Addr), Ifindex: uint32(w.IfIndex), Salt: salt, Mtu: uint32(w.MTU),
		Weight: uint16(w.Weight), Ports: uint16(len(w.Ports)), NatPort: networkOrder(w.NATPort),
	}
	for i, p := range w.Ports {
		l.Port[i] = networkOrder(p)
	}
	return l
}

// dataPort is the port, beside 4341, that a NAT lets data in by: not that of the
// control plane, which an RTR sends from.
func dataPort(w *encap.LocalPath) uint16 {
	if w.NATPort == lisp.ControlPort {
		return 0
	}
	return w.NATPort
}

// markBest marks, by family, the locators that mapcache.ChooseLocal chooses among.
func markBest(ways []encap.LocalPath, lists *[2]bpfLocalList) {
	var at [2]int
	best := [2]int{2 * 255, 2 * 255}
	for pass := range 2 {
		at = [2]int{}
		for i := range ways {
			w := &ways[i]
			family := flag8(w.Addr.Is6())
			list := &lists[family]
			if !w.Up || w.IfIndex == 0 || at[family] == int(list.Count) {
				continue
			}
			level := 2 * int(w.Priority)
			if w.Weight == 0 {
				level++
			}
			if pass == 0 {
				best[family] = min(best[family], level)
			} else if level == best[family] && level < 2*255 {
				list.Local[at[family]].Best = 1
			}
			at[family]++
		}
	}
}

// attachUplinks attaches to new interfaces and detaches from those that are none of
// our locators' any more.
func (d *Dataplane) attachUplinks(wanted map[place]bool) error {
	var errs []error
	for at := range wanted {
		if d.uplinks[at] != nil {
			continue
		}
		if a := d.lans[at.ifindex]; a != nil {
			errs = append(errs, d.removeLAN(at.ifindex, a)) // it was a LAN
		}
		prog := d.objs.DecapEther
		ether, err := isEthernet(at.ifindex)
		if !ether {
			prog = d.objs.DecapRaw
		}
		if err == nil {
			d.uplinks[at], err = attach(d.cfg.Attach, at, prog, d.pins())
		}
		if err != nil {
			delete(d.uplinks, at)
			errs = append(errs, err) // its packets take the slow path
		}
	}
	for at, a := range d.uplinks {
		if !wanted[at] {
			errs = append(errs, a.detach())
			delete(d.uplinks, at)
		}
	}
	return errors.Join(errs...)
}
