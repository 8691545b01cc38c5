package tun

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Cleanup removes what a process that was killed left of a device with this
// configuration: rules, the routes of its table, addresses on a device that
// outlived it, the forwarding of a router. It returns ErrInUse, and removes nothing, if
// a process has the device, or another device that lives has the table or some of the
// priorities. Create does the same first.
func Cleanup(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	n, err := openRTNL()
	if err != nil {
		return fmt.Errorf("tun: clean up: %w", err)
	}
	defer n.close()
	index := 0
	if l, err := n.links.LinkByName(cfg.Name); err == nil {
		if err := notInUse(l); err != nil {
			return err
		}
		fd, err := openTUN(cfg.Name, cfg.Queues > 1)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		index = l.Attrs().Index
		if isOurs(l) {
			if err := persist(fd, false); err != nil {
				return fmt.Errorf("tun: clean up: %w", err)
			}
		}
	}
	err = n.clean(cfg, index, false, nil)
	if err == nil {
		err = cleanForwarding(cfg, cfg.Name)
	}
	if err != nil {
		return fmt.Errorf("tun: clean up: %w", err)
	}
	return nil
}

// cleanForwarding is clean for the sysctls of a router.
func cleanForwarding(cfg Config, device string) error {
	n, err := restoreForwarding(device)
	if n > 0 {
		cfg.Logger.Info("forwarding is as it was before an earlier process", "device", device, "sysctls", n)
	}
	return err
}

// clean removes leftovers. index is our device's, 0 if there is none. If alone is
// set, it is an error, and nothing is removed, if the table or the priorities
// hold something of others. What keep has, if it is not nil, is no leftover.
func (n *rtnl) clean(cfg Config, index int, alone bool, keep *plan) error {
	type leftover struct {
		v6     bool
		rules  []uint32 // priorities
		others []rule   // that have a priority with what is kept
		routes []foundRoute
	}
	var left []leftover
	for _, v6 := range []bool{false, true} {
		l := leftover{v6: v6}
		marks, err := n.rules(v6)
		if err != nil {
			return err
		}
		if err := n.checkPriorities(cfg, v6, index, marks); err != nil {
			return err
		}
		for _, m := range marks {
			switch {
			case m.priority < cfg.RulePriority || m.priority >= cfg.RulePriority+priorities:
			case m.protocol == Protocol && keep != nil:
				if !keep.hasRule(cfg, m.rule) {
					l.others = append(l.others, m.rule)
				}
			case m.protocol == Protocol:
				l.rules = append(l.rules, m.priority)
			case alone:
				return fmt.Errorf("rule priority %d is %w by a rule that is not ours; choose another range", m.priority, ErrInUse)
			}
		}
		routes, err := n.routes(v6, cfg.Table)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.oif != 0 && r.oif != index {
				// Our routes vanish with their device: this one lives. (The kernel
				// shows an IPv6 throw route as one through lo.)
				other, err := n.links.LinkByIndex(r.oif)
				if err == nil && other.Attrs().RawFlags&unix.IFF_LOOPBACK == 0 && (alone || r.protocol == Protocol) {
					return fmt.Errorf("table %d is %w by %s; choose another", cfg.Table, ErrInUse, other.Attrs().Name)
				}
			}
			switch {
			case r.protocol == Protocol && keep != nil && keep.hasRoute(r, index):
			case r.protocol == Protocol:
				l.routes = append(l.routes, r)
			case alone:
				return fmt.Errorf("table %d is %w by a route that is not ours, to %v; choose another", cfg.Table, ErrInUse, r.dst)
			}
		}
		left = append(left, l)
	}
	removed := 0
	for _, l := range left {
		for _, priority := range l.rules {
			if err := n.delMarked(l.v6, priority); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove a rule of priority %d: %w", priority, err)
			}
			removed++
		}
		for _, r := range l.others {
			if err := n.delRule(r); err != nil {
				return err
			}
			removed++
		}
		for _, r := range l.routes {
			if err := n.delRoute(cfg.Table, r.route); err != nil {
				return err
			}
			removed++
		}
	}
	if index != 0 {
		addrs, err := n.addrs(index)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if a.protocol != Protocol || keep != nil && slices.Contains(keep.addrs, a.addr) {
				continue
			}
			if err := n.delAddr(index, a.addr); err != nil {
				return err
			}
			removed++
		}
	}
	more, err := n.cleanMarks(cfg)
	if err != nil {
		return err
	}
	removed += more
	if removed > 0 {
		cfg.Logger.Info("removed what an earlier process left", "device", cfg.Name, "table", cfg.Table, "count", removed)
	}
	return nil
}

// checkPriorities returns an error if the priorities are among those of a device that
// lives. Each device has one rule that does nothing, its last.
func (n *rtnl) checkPriorities(cfg Config, v6 bool, index int, rules []foundRule) error {
	for _, end := range rules {
		first := end.priority - endPriority
		if !end.nop || end.protocol != Protocol || first >= cfg.RulePriority+priorities || cfg.RulePriority >= first+priorities {
			continue
		}
		for _, r := range rules {
			if r.protocol != Protocol || r.priority < first || r.priority > end.priority || r.table == 0 || r.table == mainTable {
				continue
			}
			routes, err := n.routes(v6, r.table)
			if err != nil {
				return err
			}
			for _, x := range routes {
				if x.throw || x.oif == index || x.protocol != Protocol {
					continue
				}
				if l, err := n.links.LinkByIndex(x.oif); err == nil {
					return fmt.Errorf("rule priority %d is %w by %s; choose another range", r.priority, ErrInUse, l.Attrs().Name)
				}
			}
		}
	}
	return nil
}

// prepareNew makes a device of our own quiet before it comes up: no link-local
// address, hence no router solicitation, and no multicast.
func (n *rtnl) prepareNew(link netlink.Link) error {
	const addrGenModeNone = 1
	if err := n.links.LinkSetIP6AddrGenMode(link, addrGenModeNone); err != nil &&
		!errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("no link-local address: %w", err)
	}
	if err := n.links.LinkSetMulticastOff(link); err != nil {
		return fmt.Errorf("multicast off: %w", err)
	}
	return nil
}
