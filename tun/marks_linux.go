package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// marks is the devices for packets with a firewall mark. Reading a TUN device does
// not tell the mark, so that each mark that counts has a device, which a rule by
// the mark leads to.
type marks struct{ devices []*markedDevice }

// markedDevice is a device that only sends us packets: what arrives goes to the
// first one.
type markedDevice struct {
	queue
	name   string
	index  int
	mark   uint32 // 0: the others
	slot   uint32 // of the table and the name
	routes []route
	rules  []rule
}

var _ Device = (*markedDevice)(nil)

// Name returns the name of the network interface.
func (m *markedDevice) Name() string { return m.name }

// Close ends reading. The host's packets with the mark are lost until SetMarks
// finds out.
func (m *markedDevice) Close() error { return m.dev.Close() }

func (m *markedDevice) link() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: m.name, Index: m.index}}
}

// SetMarks makes packets from EIDs, or without a chosen source, that have one of
// these firewall marks come by devices of their own, of which it returns those
// that are new: each must be read. The marks replace the earlier ones; a device
// that is not needed any more is closed and removed. Marks that are not among them
// come by one more device, with Mark 0, packets without a mark by the Interface
// itself. Nothing is to be written to these devices. Bits outside of
// Config.MarkMask do not count.
//
// The devices are called lmn0-0, lmn0-1 and so on. Call SetMarks again after
// Repair: one that somebody has removed is made anew.
//
// It does what it can: an error, which wraps ErrConfig if Config.MarkMask does not
// allow a mark, may come with devices.
func (i *Interface) SetMarks(want []uint32) ([]Marked, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.closed:
		return nil, fmt.Errorf("tun: set marks: %w", os.ErrClosed)
	case i.marks == nil:
		return nil, fmt.Errorf("tun: set marks: %w: no MarkMask", ErrConfig)
	}
	for _, m := range want {
		if m == 0 || m&^i.cfg.MarkMask != 0 {
			return nil, fmt.Errorf("tun: set marks: %w: mark %#x does not fit mask %#x", ErrConfig, m, i.cfg.MarkMask)
		}
	}
	want = append([]uint32{0}, want...)
	var errs []error
	for _, m := range slices.Clone(i.marks.devices) {
		l, err := i.nl.links.LinkByIndex(m.index)
		if err == nil && l.Attrs().Name == m.name && slices.Contains(want, m.mark) {
			continue
		}
		errs = append(errs, i.removeMark(m))
	}
	var added []Marked
	for _, mark := range want {
		if slices.ContainsFunc(i.marks.devices, func(m *markedDevice) bool { return m.mark == mark }) {
			continue
		}
		m, err := i.addMark(mark)
		if err != nil {
			errs = append(errs, fmt.Errorf("mark %#x: %w", mark, err))
			continue
		}
		added = append(added, Marked{mark, m})
	}
	if err := errors.Join(errs...); err != nil {
		return added, fmt.Errorf("tun: set marks: %w", err)
	}
	return added, nil
}

// addMark makes the device of a mark, and leads packets to it.
func (i *Interface) addMark(mark uint32) (*markedDevice, error) {
	slot, name, err := i.freeSlot()
	if err != nil {
		return nil, err
	}
	m := &markedDevice{name: name, mark: mark, slot: slot}
	m.of = i
	err = inNamespace(i.namespace, func() error {
		fd, err := openTUN(name, false)
		if err == nil {
			_, err = m.open(fd)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = i.setUpMark(m)
	if err != nil {
		return nil, errors.Join(err, i.removeMark(m))
	}
	i.marks.devices = append(i.marks.devices, m)
	return m, nil
}

func (i *Interface) setUpMark(m *markedDevice) error {
	l, err := i.nl.links.LinkByName(m.name)
	if err != nil {
		return err
	}
	m.index = l.Attrs().Index
	if err := i.nl.prepareNew(l); err != nil {
		return err
	}
	if err := i.nl.links.LinkSetMTU(l, i.MTU()); err != nil {
		return err
	}
	i.limitSegmentsOf(l)
	if err := i.nl.links.LinkSetTxQLen(l, queueLen); err != nil {
		i.cfg.Logger.Info("the length of the queue stays as it is", "interface", m.name, "err", err)
	}
	return i.leadMark(m)
}

// leadMark leads packets to the device of a mark. What is there already stays.
func (i *Interface) leadMark(m *markedDevice) error {
	if err := i.nl.links.LinkSetUp(m.link()); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	// IPv6 wants the preferred source of a route to be on its device.
	own := slices.DeleteFunc(slices.Clone(i.plan.addrs), netip.Addr.Is4)
	for _, a := range own {
		if _, err := i.nl.addAddr(m.index, a); err != nil {
			return err
		}
	}
	if err := i.nl.awaitLocal(m.index, own); err != nil {
		return err
	}
	if err := i.nl.delMulticast(m.index); err != nil {
		return fmt.Errorf("no multicast route: %w", err)
	}
	table := i.cfg.MarkTable + m.slot
	for _, r := range i.plan.routes {
		if err := i.nl.addRoute(table, m.index, r); err != nil {
			return err
		}
		if !slices.Contains(m.routes, r) {
			m.routes = append(m.routes, r)
		}
	}
	for _, r := range i.plan.marked(i.cfg, m.mark, table) {
		if err := i.nl.addRule(r); err != nil {
			return err
		}
		if !slices.Contains(m.rules, r) {
			m.rules = append(m.rules, r)
		}
	}
	return nil
}

// removeMark removes the device of a mark and what leads to it.
func (i *Interface) removeMark(m *markedDevice) error {
	i.marks.devices = slices.DeleteFunc(i.marks.devices, func(x *markedDevice) bool { return x == m })
	var errs []error
	for _, r := range slices.Backward(m.rules) {
		errs = append(errs, i.nl.delRule(r))
	}
	for _, r := range slices.Backward(m.routes) {
		errs = append(errs, i.nl.delRoute(i.cfg.MarkTable+m.slot, r))
	}
	return errors.Join(append(errs, m.dev.Close())...)
}

// freeSlot returns the number of a table for a mark that nobody uses, and the name
// for its device.
func (i *Interface) freeSlot() (slot uint32, name string, err error) {
	for slot = range uint32(markTables) {
		name = fmt.Sprintf("%s-%d", i.name, slot)
		if slices.ContainsFunc(i.marks.devices, func(m *markedDevice) bool { return m.slot == slot }) {
			continue
		}
		if _, err := i.nl.links.LinkByName(name); err == nil {
			continue
		}
		used := false
		for _, v6 := range []bool{false, true} {
			found, err := i.nl.routes(v6, i.cfg.MarkTable+slot)
			if err != nil {
				return 0, "", err
			}
			used = used || len(found) > 0
		}
		if !used {
			return slot, name, nil
		}
	}
	return 0, "", fmt.Errorf("all %d tables from %d on are %w", markTables, i.cfg.MarkTable, ErrInUse)
}

// repairMarks puts back what others have removed of the devices that are there.
func (i *Interface) repairMarks() error {
	if i.marks == nil {
		return nil
	}
	var errs []error
	for _, m := range i.marks.devices {
		// One that is gone is for SetMarks.
		if _, err := i.nl.links.LinkByIndex(m.index); err == nil {
			errs = append(errs, i.leadMark(m))
		}
	}
	return errors.Join(errs...)
}

func (i *Interface) setMarkMTUs() error {
	if i.marks == nil {
		return nil
	}
	var errs []error
	for _, m := range i.marks.devices {
		err := i.nl.links.LinkSetMTU(m.link(), i.MTU())
		if err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("tun: MTU %d of %s: %w", i.MTU(), m.name, err))
		}
		i.limitSegmentsOf(m.link())
	}
	return errors.Join(errs...)
}

func (i *Interface) closeMarks() error {
	if i.marks == nil {
		return nil
	}
	var errs []error
	for _, m := range slices.Clone(i.marks.devices) {
		errs = append(errs, i.removeMark(m))
	}
	return errors.Join(errs...)
}

// cleanMarks removes the routes for marks that a killed process left, and returns
// how many there were.
func (n *rtnl) cleanMarks(cfg Config) (removed int, err error) {
	for _, v6 := range []bool{false, true} {
		found, err := n.ourRoutes(v6, cfg.MarkTable, markTables)
		if err != nil {
			return removed, err
		}
		alive := map[uint32]bool{} // tables of another process
		for _, r := range found {
			if r.throw {
				continue
			}
			if _, err := n.links.LinkByIndex(r.oif); err == nil {
				alive[r.table] = true
			}
		}
		for _, r := range found {
			if alive[r.table] {
				continue
			}
			if err := n.delRoute(r.table, r.route); err != nil {
				return removed, err
			}
			removed++
		}
	}
	return removed, nil
}

// inNamespace calls f by a thread in a network namespace.
func inNamespace(ns netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	now, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace: %w", err)
	}
	defer func() { _ = now.Close() }()
	if now.Equal(ns) { // nearly always: only tests have several
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace: %w", err)
	}
	err = f()
	if back := netns.Set(now); back != nil {
		return errors.Join(err, fmt.Errorf("network namespace: %w", back)) // the thread stays locked and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}
