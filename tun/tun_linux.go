package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Interface is a Device of the host, with its addresses, routes and rules. All
// methods are safe for concurrent use, but Reads wait for each other, and so do
// Writes.
type Interface struct {
	queue // the first
	more  []*queue
	name  string
	index int
	cfg   Config

	mtu         atomic.Int64
	readErrors  atomic.Uint64
	writeErrors atomic.Uint64

	// Devices are made and sysctls written at any time, by whatever thread, in the
	// namespace of Create.
	namespace netns.NsHandle

	mu     sync.Mutex // over what follows
	nl     *rtnl
	closed bool
	given  []netip.Addr // by SetLocals
	locals []netip.Addr // of which there is a rule
	plan   plan
	found  netlink.Link // the device as it was adopted; nil if it is our own
	heir   bool         // of an earlier process that let it linger
	// What was done and is to be undone. Addresses that were there before are not
	// among them.
	addrs    []netip.Addr
	routes   []route
	rules    []rule
	forwards []forwarding

	stateFile string // empty if there is none
	marks     *marks // nil if marks do not count
}

var _ Device = (*Interface)(nil)

// Create makes or adopts the device, removes what a killed process left, and
// sets up addresses, routes and rules. If it fails, it has undone what it did.
//
// It acts on the network namespace of the calling thread, and so do the
// Interface's methods, from wherever they are called.
//
// The error wraps ErrConfig, ErrInUse (the device, the table or the rule
// priorities), errors.ErrUnsupported (no TUN) or the system's error.
func Create(cfg Config) (*Interface, error) {
	file := cfg.File
	cfg, err := cfg.withDefaults()
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	i := &Interface{cfg: cfg, plan: makePlan(cfg)}
	i.of = i
	if i.nl, err = openRTNL(); err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, fmt.Errorf("tun: %w", err)
	}
	if i.namespace, err = netns.Get(); err != nil {
		i.nl.close()
		if file != nil {
			_ = file.Close()
		}
		return nil, fmt.Errorf("tun: network namespace: %w", err)
	}
	if err := i.open(); err != nil {
		i.nl.close()
		_ = i.namespace.Close()
		return nil, err
	}
	// Nobody else has the device from here on, so what carries our mark is a dead
	// process's.
	if err = i.cleanUp(); err == nil {
		err = i.setUp()
	}
	if err == nil {
		err = i.Renew()
	}
	if err != nil {
		if !i.heir {
			err = errors.Join(err, i.endLinger())
		}
		_ = i.Close()
		return nil, fmt.Errorf("tun: set up %s: %w", i.name, err)
	}
	return i, nil
}

// open gets the device itself.
func (i *Interface) open() error {
	var fd int
	var err error
	if i.cfg.File != nil {
		fd, err = takeFile(i.cfg.File)
	} else {
		i.found, _ = i.nl.links.LinkByName(i.cfg.Name)
		if err = notInUse(i.found); err == nil {
			fd, err = openTUN(i.cfg.Name, i.cfg.Queues > 1)
		}
	}
	if err != nil {
		return err
	}
	if i.name, err = i.queue.open(fd); err != nil {
		return fmt.Errorf("tun: %s: %w", i.cfg.Name, err)
	}
	link, err := i.nl.links.LinkByName(i.name)
	if err == nil {
		i.index = link.Attrs().Index
		err = i.openLinger()
	}
	if err != nil {
		_ = i.dev.Close()
		return fmt.Errorf("tun: %s: %w", i.name, err)
	}
	if i.cfg.File != nil {
		i.found = link
	}
	for range i.cfg.Queues - 1 {
		q := &queue{of: i}
		if fd, err = openTUN(i.name, true); err == nil {
			_, err = q.open(fd)
		}
		if err != nil {
			if !i.heir {
				err = errors.Join(err, i.endLinger())
			}
			_ = i.closeQueues()
			return fmt.Errorf("tun: %s: a further queue: %w", i.name, err)
		}
		i.more = append(i.more, q)
	}
	return nil
}

// link names the device to the netlink library.
func (i *Interface) link() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: i.name, Index: i.index}}
}

// queueLen is how many packets wait in the device while its reader does not run:
// the kernel's 500 are a few milliseconds of small ones.
const queueLen = 4096

// setUp makes the device usable and leads packets to it.
func (i *Interface) setUp() error {
	if i.found == nil {
		if err := i.nl.prepareNew(i.link()); err != nil {
			return err
		}
	}
	if err := i.nl.links.LinkSetMTU(i.link(), i.cfg.MTU); err != nil {
		return fmt.Errorf("MTU %d: %w", i.cfg.MTU, err)
	}
	i.mtu.Store(int64(i.cfg.MTU))
	i.limitSegments()
	if i.found == nil {
		if err := i.nl.links.LinkSetTxQLen(i.link(), queueLen); err != nil {
			i.cfg.Logger.Info("the length of the queue stays as it is", "interface", i.name, "err", err)
		}
	}
	if i.cfg.MarkMask != 0 {
		i.marks = new(marks)
	}
	return i.lead()
}

// lead sets the device up and leads packets to it. What is there already stays.
func (i *Interface) lead() error {
	if err := i.nl.links.LinkSetUp(i.link()); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	for _, a := range i.plan.addrs {
		isNew, err := i.nl.addAddr(i.index, a)
		if err != nil {
			return err
		}
		if (isNew || i.found == nil) && !slices.Contains(i.addrs, a) {
			i.addrs = append(i.addrs, a)
		}
	}
	if err := i.nl.awaitLocal(i.index, i.plan.addrs); err != nil {
		return err
	}
	if i.found == nil {
		// Each new address brings this route back.
		if err := i.nl.delMulticast(i.index); err != nil {
			return fmt.Errorf("no multicast route: %w", err)
		}
	}
	for _, r := range i.plan.routes {
		if err := i.nl.addRoute(i.cfg.Table, i.index, r); err != nil {
			return err
		}
		if !slices.Contains(i.routes, r) {
			i.routes = append(i.routes, r)
		}
	}
	for _, r := range i.plan.rules {
		if err := i.nl.addRule(r); err != nil {
			return err
		}
		if !slices.Contains(i.rules, r) {
			i.rules = append(i.rules, r)
		}
	}
	return i.forward()
}

// SetLocals tells which addresses are our locators, so that what they send passes
// by our rules even if an EID-Prefix holds them. The list replaces the earlier
// one. A locator that is an EID is an error (ErrConfig), and nothing changes then.
func (i *Interface) SetLocals(locals []netip.Addr) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return fmt.Errorf("tun: set locators: %w", os.ErrClosed)
	}
	var given []netip.Addr
	for _, l := range locals {
		l = l.Unmap().WithZone("")
		if !l.IsValid() || slices.Contains(i.plan.addrs, l) {
			return fmt.Errorf("tun: %w: locator %v is an EID or no address", ErrConfig, l)
		}
		if !slices.Contains(given, l) {
			given = append(given, l)
		}
	}
	i.given = given
	added, err := i.addBypasses()
	if err == nil {
		err = i.dropBypasses()
	}
	if err != nil {
		return fmt.Errorf("tun: %w", err)
	}
	i.warnStrict(added)
	return nil
}

// Repair puts back the addresses, routes and rules that others have removed, as
// happens when the device is set down, or when a network manager that minds
// other people's rules restarts. It does nothing where all is there.
func (i *Interface) Repair() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return fmt.Errorf("tun: repair: %w", os.ErrClosed)
	}
	err := i.lead()
	for _, l := range i.locals {
		err = errors.Join(err, i.nl.addRule(bypass(i.cfg, l)))
	}
	err = errors.Join(err, i.repairMarks())
	if err != nil {
		return fmt.Errorf("tun: repair %s: %w", i.name, err)
	}
	return nil
}

// warnStrict tells of uplinks on which answers from outside LISP would be lost.
func (i *Interface) warnStrict(locators []netip.Addr) {
	addrs, err := i.nl.addrs(0)
	if err != nil {
		return
	}
	for _, a := range addrs {
		if !a.addr.Is4() || !slices.Contains(locators, a.addr) {
			continue
		}
		strict, err := i.nl.strictReversePath(a.index)
		if err != nil || !strict {
			continue
		}
		name := ""
		if l, err := i.nl.links.LinkByIndex(a.index); err == nil {
			name = l.Attrs().Name
		}
		i.cfg.Logger.Warn("strict reverse path filtering drops answers to what leaves an uplink natively with an EID as its source; set the sysctl to 2",
			"interface", name, "sysctl", "net.ipv4.conf."+name+".rp_filter", "rloc", a.addr)
	}
}

// hasFamily reports whether there are EIDs, and so rules, in a family.
func (i *Interface) hasFamily(v6 bool) bool {
	return slices.ContainsFunc(i.plan.rules, func(r rule) bool { return r.v6 == v6 })
}

// SetMTU changes the device's MTU, within the limits of Config.MTU.
func (i *Interface) SetMTU(mtu int) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return fmt.Errorf("tun: set MTU: %w", os.ErrClosed)
	}
	cfg := i.cfg
	if cfg.MTU = mtu; mtu == 0 {
		cfg.MTU = -1 // not the default here
	}
	if _, err := cfg.withDefaults(); err != nil {
		return err
	}
	if err := i.nl.links.LinkSetMTU(i.link(), mtu); err != nil {
		return fmt.Errorf("tun: MTU %d: %w", mtu, err)
	}
	i.mtu.Store(int64(mtu))
	i.limitSegments()
	return i.setMarkMTUs()
}

// limitSegments sets what suits maxSegments on a device of our own.
func (i *Interface) limitSegments() {
	if i.found == nil {
		i.limitSegmentsOf(i.link())
	}
}

// limitSegmentsOf is for speed alone.
func (i *Interface) limitSegmentsOf(l netlink.Link) {
	if err := i.nl.links.LinkSetGSOMaxSegs(l, maxSegments(i.MTU())); err != nil {
		i.cfg.Logger.Info("the number of segments stays as it is", "interface", l.Attrs().Name, "err", err)
	}
}

// Name returns the name of the network interface.
func (i *Interface) Name() string { return i.name }

// MTU returns what Config.MTU or SetMTU asked for last.
func (i *Interface) MTU() int { return int(i.mtu.Load()) }

// Stats returns the counters.
func (i *Interface) Stats() Stats {
	return Stats{ReadErrors: i.readErrors.Load(), WriteErrors: i.writeErrors.Load()}
}

// Close removes the rules, routes and addresses, and the device unless it was
// adopted: that one gets back the MTU it had, and is down again if it was down.
// With Config.Linger it removes nothing. It is idempotent, unblocks Read, and returns what could not be removed.
func (i *Interface) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	i.closed = true
	var errs []error
	if i.cfg.Linger > 0 {
		errs = append(errs, i.renew(), i.closeMarks(), i.closeQueues(), i.namespace.Close())
		i.nl.close()
		return errors.Join(errs...)
	}
	// The reverse of the set-up: first nothing leads here any more.
	errs = append(errs, i.closeMarks())
	for _, r := range slices.Backward(i.rules) {
		errs = append(errs, i.nl.delRule(r))
	}
	for _, l := range i.locals {
		errs = append(errs, i.nl.delRule(bypass(i.cfg, l)))
	}
	for _, r := range slices.Backward(i.routes) {
		errs = append(errs, i.nl.delRoute(i.cfg.Table, r))
	}
	if i.found != nil {
		for _, a := range i.addrs {
			errs = append(errs, i.nl.delAddr(i.index, a))
		}
		if i.found.Attrs().RawFlags&unix.IFF_UP == 0 {
			errs = append(errs, i.nl.links.LinkSetDown(i.link()))
		}
		errs = append(errs, i.nl.links.LinkSetMTU(i.link(), i.found.Attrs().MTU))
	}
	for _, f := range slices.Backward(i.forwards) {
		errs = append(errs, f.restore())
	}
	errs = append(errs, i.forgetForwarding())
	errs = append(errs, i.closeQueues(), i.namespace.Close())
	i.nl.close()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tun: close %s: %w", i.name, err)
	}
	return nil
}
