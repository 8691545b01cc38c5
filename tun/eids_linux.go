package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
)

// SetEIDs replaces Config.EIDs: addresses, routes and rules follow, also of the
// devices of SetMarks. What stays is not touched, so nothing that belongs to other
// EIDs is lost; what programs had bound to an address that goes is.
//
// With an error that wraps ErrConfig (also if an EID is one of the locators, or an
// IPv6 EID does not go with the MTU) nothing has changed. Another one says what the
// system refused: if that was something new, all is as before. A host that is made a
// router for a new family of EIDs remains one until Close.
func (i *Interface) SetEIDs(eids []netip.Prefix) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return fmt.Errorf("tun: set EIDs: %w", os.ErrClosed)
	}
	cfg := i.cfg
	cfg.EIDs, cfg.MTU = slices.Clone(eids), i.MTU()
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	next := makePlan(cfg)
	for _, l := range i.given {
		if slices.Contains(next.addrs, l) {
			return fmt.Errorf("tun: %w: EID %v is one of our locators", ErrConfig, l)
		}
	}
	oldEIDs, old := i.cfg.EIDs, i.plan
	i.cfg.EIDs, i.plan = cfg.EIDs, next
	if err := i.extend(); err != nil {
		i.cfg.EIDs, i.plan = oldEIDs, old
		return fmt.Errorf("tun: EIDs of %s: %w", i.name, errors.Join(err, i.extend(), i.retire(next.addrs)))
	}
	if err := i.retire(old.addrs); err != nil {
		return fmt.Errorf("tun: EIDs of %s: %w", i.name, err)
	}
	return nil
}

// extend adds what the plan has and the host has not. The locators come first: they
// must pass by the rules of a new family.
func (i *Interface) extend() error {
	if _, err := i.addBypasses(); err != nil {
		return err
	}
	if err := i.lead(); err != nil {
		return err
	}
	return i.repairMarks()
}

// retire removes what was set up and is not in the plan any more, the other way
// round. addrs are the addresses of another plan.
func (i *Interface) retire(addrs []netip.Addr) error {
	var errs []error
	if i.marks != nil {
		for _, m := range i.marks.devices {
			errs = append(errs, i.retireMark(m, addrs))
		}
	}
	var err error
	i.rules, err = i.retireRules(i.rules, i.plan.rules)
	errs = append(errs, err)
	i.routes, err = i.retireRoutes(i.cfg.Table, i.routes)
	errs = append(errs, err)
	i.addrs = slices.DeleteFunc(i.addrs, func(a netip.Addr) bool {
		if slices.Contains(i.plan.addrs, a) {
			return false
		}
		err := i.nl.delAddr(i.index, a)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(append(errs, i.dropBypasses())...)
}

// retireMark is retire for the device of a mark. One that is gone is for SetMarks.
func (i *Interface) retireMark(m *markedDevice, addrs []netip.Addr) error {
	if _, err := i.nl.links.LinkByIndex(m.index); err != nil {
		return nil //nolint:nilerr // nothing of it is left
	}
	table := i.cfg.MarkTable + m.slot
	var errs [2]error
	m.rules, errs[0] = i.retireRules(m.rules, i.plan.marked(i.cfg, m.mark, table))
	m.routes, errs[1] = i.retireRoutes(table, m.routes)
	err := errors.Join(errs[:]...)
	for _, a := range addrs {
		if a.Is6() && !slices.Contains(i.plan.addrs, a) {
			err = errors.Join(err, i.nl.delAddr(m.index, a))
		}
	}
	return err
}

// retireRules removes the rules that are not wanted, and returns those that are
// left.
func (i *Interface) retireRules(rules, wanted []rule) (left []rule, err error) {
	for _, r := range slices.Backward(rules) {
		if !slices.Contains(wanted, r) {
			if e := i.nl.delRule(r); e == nil {
				continue
			} else {
				err = errors.Join(err, e)
			}
		}
		left = append(left, r)
	}
	slices.Reverse(left)
	return left, err
}

// retireRoutes removes the routes of a table that lead where no route of the plan
// does, and returns those that are left.
func (i *Interface) retireRoutes(table uint32, routes []route) (left []route, err error) {
	for _, r := range routes {
		switch {
		case slices.Contains(i.plan.routes, r):
			left = append(left, r)
		case slices.ContainsFunc(i.plan.routes, func(p route) bool { return p.dst == r.dst }):
			// Another one has taken its place.
		default:
			if e := i.nl.delRoute(table, r); e != nil {
				err = errors.Join(err, e)
				left = append(left, r)
			}
		}
	}
	return left, err
}

// addBypasses adds the rules of the locators, and returns which are new.
func (i *Interface) addBypasses() (added []netip.Addr, err error) {
	for _, l := range i.given {
		if !i.hasFamily(l.Is6()) || slices.Contains(i.locals, l) {
			continue
		}
		if err := i.nl.addRule(bypass(i.cfg, l)); err != nil {
			return added, err
		}
		added, i.locals = append(added, l), append(i.locals, l)
	}
	return added, nil
}

// dropBypasses removes the rules of what is no locator any more, or has no rules to
// pass by.
func (i *Interface) dropBypasses() error {
	for _, l := range slices.Clone(i.locals) {
		if i.hasFamily(l.Is6()) && slices.Contains(i.given, l) {
			continue
		}
		if err := i.nl.delRule(bypass(i.cfg, l)); err != nil {
			return err
		}
		i.locals = slices.DeleteFunc(i.locals, func(x netip.Addr) bool { return x == l })
	}
	return nil
}
