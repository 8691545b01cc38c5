package conf

import (
	"net/netip"
	"slices"
	"time"
)

// lispdroidOptions are those of lispdroid, LISPmob for Android.
func lispdroidOptions(o options) {
	xtr := roleXTR
	o["use-ms-as-petr"] = flag().of(xtr)
	o["petr-address"] = option{role: xtr}
	o["eid-interface"] = not(ignored, kindString, "the EIDs are on the TUN device").of(xtr)
	o["eid-address-ipv4"] = option{role: xtr}
	o["eid-address-ipv6"] = option{role: xtr}
	o["instance-id"] = number(-1, maxIID).of(xtr)
	o["rloc-probe-interval"] = number(0, maxDelay).of(xtr)
	o["rloc-probe-retries"] = number(0, 1000).of(xtr)
	o["interface"] = option{kind: kindSection, role: xtr, sub: options{
		"name": {}, "device-priority": number(0, maxOctet-1),
		"detect-nat":         notUnless(refused, kindBool, "off", whyNAT),
		"nat-global-address": not(refused, kindString, whyNAT),
	}}
}

// lispdroid reads EIDs that stand outside of any database-mapping, with the
// interfaces they are reached by: the one with the best priority that is up is
// used, which is what Priority means.
func (r *reader) lispdroid(g *group, n *Node) {
	var sources []LocatorSource
	for _, i := range g.groups["interface"] {
		name, ok := i.need("name")
		if !ok {
			continue
		}
		for _, f := range []int{4, 6} {
			sources = append(sources, LocatorSource{
				Interface: name, Family: f, Priority: octet(i, "device-priority", defaultPriority), Weight: defaultWeight, Line: i.line,
			})
		}
	}
	for _, o := range []struct {
		name string
		is4  bool
	}{{"eid-address-ipv4", true}, {"eid-address-ipv6", false}} {
		text := g.str(o.name, "")
		if text == "" {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil || a.Is4() != o.is4 || a.Zone() != "" || a.Is4In6() {
			g.errorf(o.name, "'%s' is not an address of that family", text)
			continue
		}
		p := netip.PrefixFrom(a, a.BitLen())
		if slices.ContainsFunc(n.Mappings, func(m DatabaseMapping) bool { return m.Prefix == p }) {
			continue // with locators of its own
		}
		if len(sources) == 0 {
			g.errorf(o.name, "has no locator: add interface { name = ... } or a database-mapping")
			continue
		}
		n.Mappings = append(n.Mappings, DatabaseMapping{
			IID: uint32(max(g.num("instance-id", 0), 0)), Prefix: p, TTL: defaultTTL * time.Minute, Locators: slices.Clone(sources), Line: g.lineOf(o.name),
		})
	}
	if len(sources) > 0 && !g.has("eid-address-ipv4") && !g.has("eid-address-ipv6") {
		r.probs.warnf(g.groups["interface"][0].line, "interface", "not used: there is neither eid-address-ipv4 nor eid-address-ipv6")
	}
}

// lispdroidProxyETRs reads where packets go that are for no EID.
func (r *reader) lispdroidProxyETRs(g *group, n *Node) {
	if g.on("use-ms-as-petr", false) {
		for _, s := range n.MapServers {
			n.ProxyETRs = append(n.ProxyETRs, RLOC{Addr: s.Addr, Priority: defaultPriority, Weight: defaultWeight})
		}
	}
	if g.has("petr-address") {
		if a, ok := r.needAddress(g, "petr-address"); ok {
			n.ProxyETRs = append(n.ProxyETRs, RLOC{Addr: a, Priority: defaultPriority, Weight: defaultWeight})
		}
	}
}
