package tun

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Rule priorities, from Config.RulePriority on.
const (
	bypassPriority      = iota // from a locator: skip our rules
	sourcePriority             // from an EID: our table, or that of the mark
	otherSourcePriority        // from an EID, with a mark that has no table: one for those
	directPriority             // source not chosen: a specific route of the main table
	chosenPriority             // source not chosen: our table, or that of the mark
	otherChosenPriority        // source not chosen, with a mark that has no table: one for those
	endPriority                // where bypassPriority goes to
	priorities
)

// rule is one policy rule. Exactly one of table, goTo and nop says what it does.
type rule struct {
	v6       bool
	priority uint32
	from, to netip.Prefix // from 0.0.0.0/32: no source chosen yet
	local    bool         // only what this host sends
	find     bool         // FIB_RULE_FIND_SADDR, IPv6 only
	suppress bool         // a default route does not count
	mark     uint32       // that the packet has within mask
	mask     uint32       // 0: whatever the mark
	table    uint32
	goTo     uint32
	nop      bool
}

// mainTable is the routing table that "ip route" shows.
const mainTable = 254

// String prints the rule as "ip rule" does.
func (r rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: from ", r.priority)
	if r.from.IsValid() {
		b.WriteString(shortPrefix(r.from))
	} else {
		b.WriteString("all")
	}
	if r.to.IsValid() {
		b.WriteString(" to " + shortPrefix(r.to))
	}
	if r.mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x/%#x", r.mark, r.mask)
	}
	if r.local {
		b.WriteString(" iif lo")
	}
	if r.find {
		b.WriteString(" find_saddr")
	}
	switch {
	case r.nop:
		b.WriteString(" nop")
	case r.goTo != 0:
		fmt.Fprintf(&b, " goto %d", r.goTo)
	case r.table == mainTable:
		b.WriteString(" lookup main")
	default:
		fmt.Fprintf(&b, " lookup %d", r.table)
	}
	if r.suppress {
		b.WriteString(" suppress_prefixlength 0")
	}
	return b.String()
}

func shortPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// route is one route of our table: through the device, or a throw, which lets the
// next rule decide.
type route struct {
	dst   netip.Prefix
	src   netip.Addr // preferred source, or zero
	throw bool
}

// notTunnelled are destinations that stay on their link.
var notTunnelled = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

var (
	defaultIPv4 = netip.MustParsePrefix("0.0.0.0/0")
	defaultIPv6 = netip.MustParsePrefix("::/0")
	notChosen   = netip.MustParsePrefix("0.0.0.0/32")
)

// plan is what a Config asks for.
type plan struct {
	addrs  []netip.Addr
	routes []route
	rules  []rule // in the order in which they can be added

	families []bool // that there is anything for; true is IPv6
}

// makePlan returns what c, which has its defaults, asks for.
func makePlan(c Config) plan {
	var p plan
	for _, v6 := range []bool{false, true} {
		p.addFamily(c, v6)
	}
	return p
}

func (p *plan) addFamily(c Config, v6 bool) {
	var source netip.Addr
	var addrs []netip.Addr
	any := false
	for _, e := range c.EIDs {
		if e.Addr().Is6() != v6 {
			continue
		}
		any = true
		if e.IsSingleIP() || e != e.Masked() {
			addrs = append(addrs, e.Addr())
			if !source.IsValid() {
				source = e.Addr()
			}
		}
	}
	proxied := c.Proxy && slices.ContainsFunc(c.Destinations, func(d netip.Prefix) bool { return d.Addr().Is6() == v6 })
	if !any && !proxied {
		return
	}
	p.families = append(p.families, v6)
	p.addrs = append(p.addrs, addrs...)

	all := defaultIPv4
	if v6 {
		all = defaultIPv6
	}
	for _, n := range notTunnelled {
		if n.Addr().Is6() == v6 {
			p.routes = append(p.routes, route{dst: n, throw: true})
		}
	}
	if c.Router {
		for _, e := range c.EIDs {
			if e.Addr().Is6() == v6 && !e.IsSingleIP() {
				p.routes = append(p.routes, route{dst: e.Masked(), throw: true})
			}
		}
	}
	p.routes = append(p.routes, route{dst: all, src: source})

	// The end is there before anything goes to it, and the rule that takes most
	// packets comes last, when all that it needs is there.
	add := func(priority uint32, r rule) {
		r.v6, r.priority = v6, c.RulePriority+priority
		if r.table == c.Table {
			r.mask = c.MarkMask // without a mark, if marks count
		}
		p.rules = append(p.rules, r)
	}
	add(endPriority, rule{nop: true})
	for _, e := range c.EIDs {
		if e.Addr().Is6() == v6 {
			add(sourcePriority, rule{from: e.Masked(), table: c.Table})
		}
	}
	if proxied {
		for _, d := range c.Destinations {
			if d.Addr().Is6() == v6 {
				add(chosenPriority, rule{to: d.Masked(), table: c.Table})
			}
		}
		return // what the host itself sends among it
	}
	if !source.IsValid() {
		return
	}
	// Which packets have no source yet: see the package comment.
	chosen := []rule{{from: notChosen, local: true, table: c.Table}}
	direct := rule{from: notChosen, local: true, table: mainTable, suppress: true}
	if v6 {
		direct.from = netip.Prefix{}
		chosen = nil
		for _, a := range addrs {
			chosen = append(chosen, rule{from: netip.PrefixFrom(a, 128), local: true, find: true, table: c.Table})
		}
	}
	if len(c.Destinations) == 0 {
		add(directPriority, direct)
		for _, r := range chosen {
			add(chosenPriority, r)
		}
		return
	}
	for _, d := range c.Destinations {
		if d.Addr().Is6() != v6 {
			continue
		}
		for _, r := range chosen {
			r.to = d.Masked()
			add(chosenPriority, r)
		}
	}
}

// marked returns the rules of p that lead to our table as ones that lead packets
// with a mark to another table; mark 0 stands for all marks that have none.
func (p *plan) marked(c Config, mark, table uint32) []rule {
	var rs []rule
	for _, r := range p.rules {
		if r.table != c.Table {
			continue
		}
		r.mark, r.table = mark, table
		if mark == 0 {
			r.mask = 0
			r.priority++
		}
		rs = append(rs, r)
	}
	return rs
}

// bypass returns the rule that keeps what comes from a locator out of our table.
func bypass(c Config, locator netip.Addr) rule {
	return rule{
		v6: locator.Is6(), priority: c.RulePriority + bypassPriority,
		from: netip.PrefixFrom(locator, locator.BitLen()),
		goTo: c.RulePriority + endPriority,
	}
}
