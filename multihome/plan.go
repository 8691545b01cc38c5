package multihome

import (
	"net/netip"
	"slices"
)

// tableRoute is the default route of an uplink in a table of its own.
type tableRoute struct {
	Table int
	Route // its Metric is not used
}

func (t tableRoute) sameTable(o tableRoute) bool { return t.Table == o.Table && t.IPv6 == o.IPv6 }

// sourceRule leads what a locator sends: to a specific route of the main table if
// there is one, else to the default route of its own uplink.
type sourceRule struct {
	From  netip.Addr
	Table int // 0: the main table without its default routes
}

// plan is what Routing wants to be there.
type plan struct {
	routes []tableRoute
	rules  []sourceRule
}

// makePlan gives every locator the default route of its own uplink. In a family
// with one default route, or none, the main table does that already and stays
// alone. An uplink without carrier counts here: the kernel goes on using its
// route, unless told otherwise (ignore_routes_with_linkdown).
func makePlan(base int, ifs []Interface, locators []netip.Addr) plan {
	var p plan
	for _, v6 := range []bool{false, true} {
		uplinks := slices.DeleteFunc(slices.Clone(ifs), func(i Interface) bool { return i.Default(v6) == nil })
		if len(uplinks) < 2 {
			continue
		}
		for _, i := range uplinks {
			if i.Usable(v6) != Usable {
				continue
			}
			table := base + i.Index
			used := false
			for _, a := range i.Addrs(v6) {
				if slices.Contains(locators, a) {
					used = true
					p.rules = append(p.rules, sourceRule{From: a}, sourceRule{From: a, Table: table})
				}
			}
			if used {
				p.routes = append(p.routes, tableRoute{table, *i.Default(v6)})
			}
		}
	}
	return p
}
