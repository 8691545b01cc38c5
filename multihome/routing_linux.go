package multihome

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Routing makes what a locator sends leave by the locator's own uplink, also when
// the main table's best default route is another's: a table for each uplink, and
// rules by source address. That also lets strict reverse path filtering
// (rp_filter 1) pass what arrives there.
//
// It acts on the network namespace of the thread that called NewRouting, and is
// safe for concurrent use.
type Routing struct {
	cfg    RoutingConfig
	handle *netlink.Handle

	mu     sync.Mutex
	routes []tableRoute // that we added
	closed bool
	left   bool // there may be routes of an earlier process
}

// NewRouting removes what a killed process left, or takes it over (RoutingConfig.Keep).
func NewRouting(cfg RoutingConfig) (*Routing, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("multihome: netlink: %w", err)
	}
	r := &Routing{cfg: cfg, handle: h}
	if cfg.Keep {
		r.left = true
		return r, nil
	}
	if err := errors.Join(r.setRules(nil), r.removeTables(nil)); err != nil {
		h.Close()
		return nil, fmt.Errorf("multihome: %w", err)
	}
	return r, nil
}

// Set makes rules and routes what these interfaces need for these locators, and
// puts back what others have removed. It tries everything, and the error says
// what failed.
func (r *Routing) Set(ifs []Interface, locators []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("multihome: set routes: %w", net.ErrClosed)
	}
	p := makePlan(r.cfg.TableBase, ifs, locators)
	var err error
	if r.left {
		if err = r.removeTables(p.routes); err != nil {
			err = fmt.Errorf("multihome: %w", err)
		}
		r.left = err != nil
	}
	return errors.Join(err, r.apply(p))
}

// Close removes everything, or nothing (RoutingConfig.Keep). It is idempotent.
func (r *Routing) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	defer r.handle.Close()
	if r.cfg.Keep {
		return nil
	}
	return r.apply(plan{})
}

func (r *Routing) apply(p plan) error {
	var errs []error
	for _, t := range p.routes { // first where the rules lead
		if err := r.setRoute(t); err != nil {
			errs = append(errs, fmt.Errorf("default route of table %d: %w", t.Table, err))
		}
	}
	errs = append(errs, r.setRules(p.rules))
	r.routes = slices.DeleteFunc(r.routes, func(t tableRoute) bool {
		if slices.ContainsFunc(p.routes, t.sameTable) {
			return false
		}
		// The kernel may have removed it with the link.
		err := r.handle.RouteDel(r.route(t))
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("default route of table %d: %w", t.Table, err))
			return false
		}
		return true
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("multihome: %w", err)
	}
	return nil
}

// setRoute makes t the default route of its table. One of others stays, and is an
// error.
func (r *Routing) setRoute(t tableRoute) error {
	set := r.handle.RouteAdd
	i := slices.IndexFunc(r.routes, t.sameTable)
	if i >= 0 {
		set = r.handle.RouteReplace
	}
	if err := set(r.route(t)); err != nil {
		return err
	}
	if i >= 0 {
		r.routes[i] = t
	} else {
		r.routes = append(r.routes, t)
	}
	return nil
}

func (r *Routing) route(t tableRoute) *netlink.Route {
	bits := 32
	if t.IPv6 {
		bits = 128
	}
	n := &netlink.Route{
		Dst:   &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
		Table: t.Table, LinkIndex: t.IfIndex, Protocol: netlink.RouteProtocol(r.cfg.Protocol),
	}
	switch {
	case !t.Gateway.IsValid():
		n.Scope = netlink.SCOPE_LINK
	case t.Gateway.Is6() && !t.IPv6:
		n.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: t.Gateway.AsSlice()}
	default:
		// On the link, whatever the address of the interface says: it is so in the
		// main table.
		n.Gw, n.Flags = t.Gateway.AsSlice(), int(netlink.FLAG_ONLINK)
	}
	return n
}

// setRules adds the rules that are wanted and not there, and removes ours that
// are not wanted.
func (r *Routing) setRules(want []sourceRule) error {
	have, err := r.handle.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	found := make([]bool, len(want))
	var errs []error
	for _, h := range have {
		if h.Protocol != r.cfg.Protocol || h.Priority != r.cfg.Priority && h.Priority != r.cfg.Priority+1 {
			continue
		}
		i := slices.IndexFunc(want, func(w sourceRule) bool { return same(r.rule(w), &h) })
		if i >= 0 && !found[i] {
			found[i] = true
			continue
		}
		if err := r.handle.RuleDel(&h); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("rule %v: %w", h, err))
		}
	}
	for i, w := range want {
		if found[i] {
			continue
		}
		if err := r.handle.RuleAdd(r.rule(w)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("rule from %v: %w", w.From, err))
		}
	}
	return errors.Join(errs...)
}

func same(a, b *netlink.Rule) bool {
	return a.Priority == b.Priority && a.Table == b.Table && a.SuppressPrefixlen == b.SuppressPrefixlen &&
		a.Src != nil && b.Src != nil && a.Src.IP.Equal(b.Src.IP) && a.Src.Mask.String() == b.Src.Mask.String()
}

func (r *Routing) rule(s sourceRule) *netlink.Rule {
	n := netlink.NewRule()
	bits := s.From.BitLen()
	n.Family = netlink.FAMILY_V4
	if bits == 128 {
		n.Family = netlink.FAMILY_V6
	}
	n.Src = &net.IPNet{IP: s.From.AsSlice(), Mask: net.CIDRMask(bits, bits)}
	n.Protocol, n.Priority, n.Table = r.cfg.Protocol, r.cfg.Priority+1, s.Table
	if s.Table == 0 {
		n.Priority, n.Table, n.SuppressPrefixlen = r.cfg.Priority, unix.RT_TABLE_MAIN, 0
	}
	return n
}

// removeTables removes routes of ours from all tables that can be ours, but for those
// to keep, which count as added by us from then on.
func (r *Routing) removeTables(keep []tableRoute) error {
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := r.handle.RouteListFiltered(family, &netlink.Route{
			Table: unix.RT_TABLE_UNSPEC, Protocol: netlink.RouteProtocol(r.cfg.Protocol),
		}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
			errs = append(errs, fmt.Errorf("routes: %w", err))
		}
		for _, x := range all {
			if x.Table <= r.cfg.TableBase || x.Table > r.cfg.TableBase+1<<20 {
				continue
			}
			i := slices.IndexFunc(keep, func(t tableRoute) bool { return t.Table == x.Table && t.IPv6 == (family == netlink.FAMILY_V6) })
			if i >= 0 {
				if !slices.ContainsFunc(r.routes, keep[i].sameTable) {
					r.routes = append(r.routes, keep[i])
				}
				continue
			}
			if err := r.handle.RouteDel(&x); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("route of table %d: %w", x.Table, err))
			}
		}
	}
	return errors.Join(errs...)
}
