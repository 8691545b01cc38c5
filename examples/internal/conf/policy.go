package conf

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// UplinkPolicy says which uplink some packets leave by.
type UplinkPolicy struct {
	ByMark                bool // the firewall mark is the index of the interface
	Sources, Destinations []netip.Prefix
	DSCPs                 []uint8
	Mark                  uint32   // 0: whatever the mark
	Interfaces            []string // names and patterns, the best first; empty: as without policy
	Unusable              Unusable
	Line                  int
}

// Unusable says what becomes of packets whose uplink cannot be used.
type Unusable string

// What becomes of them.
const (
	UnusableFallback Unusable = "fallback" // they leave as without policy
	UnusableDrop     Unusable = "drop"
	UnusableNext     Unusable = "next" // the policies that follow decide
)

// String shows the policy without the number of its line.
func (p UplinkPolicy) String() string {
	what := fmt.Sprintf("by %s", strings.Join(p.Interfaces, ", "))
	if p.ByMark {
		what = "by firewall mark"
	}
	return fmt.Sprintf("%s: source %v destination %v dscp %v mark %#x, else %s", what, p.Sources, p.Destinations, p.DSCPs, p.Mark, p.Unusable)
}

// The tables that multihome.Routing takes: the number of its first one, and that
// plus the index of an interface.
const firstUplinkTable, lastUplinkTable = 434100, 434100 + 1<<20

func policyOptions(o options) {
	o["firewall-marks"] = option{kind: kindSection, once: true, role: roleXTR, sub: options{
		"mask": number(1, 1<<32-1), "unusable": {},
	}}
	o["uplink-policy"] = option{kind: kindSection, role: roleXTR, sub: options{
		"source": {kind: kindList}, "destination": {kind: kindList}, "dscp": {kind: kindList}, "mark": number(1, 1<<32-1),
		"interface": {kind: kindList}, "unusable": {},
	}}
}

// policies reads which uplinks packets leave by, in the order of the file.
func (r *reader) policies(g *group, n *Node) {
	if t := n.Device.Table; t >= firstUplinkTable && t <= lastUplinkTable {
		g.errorf("tun-table", "tables %d to %d are for the uplinks; choose another, such as 4341", firstUplinkTable, lastUplinkTable)
	}
	for _, s := range g.groups["firewall-marks"] {
		n.MarkMask = uint32(s.num("mask", 1<<32-1))
		n.Policies = append(n.Policies, UplinkPolicy{
			ByMark: true, Line: s.line,
			Unusable: Unusable(r.oneOf(s, "unusable", string(UnusableFallback), []string{string(UnusableFallback), string(UnusableDrop)})),
		})
	}
	for _, s := range g.groups["uplink-policy"] {
		n.Policies = append(n.Policies, r.policy(s, n))
	}
	slices.SortStableFunc(n.Policies, func(a, b UplinkPolicy) int { return cmp.Compare(a.Line, b.Line) })
}

func (r *reader) policy(s *group, n *Node) UplinkPolicy {
	p := UplinkPolicy{
		Sources: r.prefixes(s, "source"), Destinations: r.prefixes(s, "destination"), Mark: uint32(s.num("mark", 0)), Line: s.line,
		Unusable: Unusable(r.oneOf(s, "unusable", string(UnusableFallback), []string{string(UnusableFallback), string(UnusableDrop), string(UnusableNext)})),
	}
	if p.Mark != 0 && n.MarkMask == 0 {
		n.MarkMask = 1<<32 - 1
	}
	if p.Mark&^n.MarkMask != 0 {
		s.errorf("mark", "%#x has bits that the mask %#x of firewall-marks has not", p.Mark, n.MarkMask)
	}
	for _, v := range s.list("dscp") {
		d, err := strconv.ParseUint(v.text, 0, 8)
		if err != nil || d > 63 {
			r.probs.errorf(v.line, join(s.name, "dscp"), "'%s' is not a number from 0 to 63", v.text)
			continue
		}
		p.DSCPs = append(p.DSCPs, uint8(d))
	}
	for _, v := range s.list("interface") {
		if _, err := path.Match(v.text, ""); err != nil || v.text == "" {
			r.probs.errorf(v.line, join(s.name, "interface"), "'%s' is not a pattern", v.text)
			continue
		}
		if !n.sends(v.text) {
			r.probs.warnf(v.line, join(s.name, "interface"), "no database-mapping has a locator of %s, so nothing leaves by it", v.text)
		}
		p.Interfaces = append(p.Interfaces, v.text)
	}
	if len(p.Interfaces) == 0 && p.Unusable == UnusableNext {
		r.probs.errorf(s.line, s.name, "does nothing: add interface = { ... }")
	}
	return p
}

// sends reports whether there may be a locator on an interface.
func (n *Node) sends(name string) bool {
	matches := func(s LocatorSource) bool {
		a, _ := path.Match(s.Interface, name)
		b, _ := path.Match(name, s.Interface)
		return a || b || s.Addr.IsValid() && !s.Remote
	}
	return slices.ContainsFunc(n.Locators, matches) ||
		slices.ContainsFunc(n.Mappings, func(m DatabaseMapping) bool { return slices.ContainsFunc(m.Locators, matches) })
}
