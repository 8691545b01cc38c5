package conf

import (
	"net/netip"
	"time"
)

// databaseMapping reads one section. LISPmob writes one section per interface
// of the same EID-Prefix, OpenOverlayRouter one section with all locators;
// both end up as one mapping per EID-Prefix.
func (r *reader) databaseMapping(g *group, n *Node) {
	prefix, ok := r.needPrefix(g)
	if !ok {
		return
	}
	iid := r.iid(g)
	ttl := time.Duration(g.num("ttl", defaultTTL)) * time.Minute
	if g.has("ttl") && ttl == 0 {
		g.errorf("ttl", "0 would withdraw the mapping")
	}
	m := n.mappingOf(iid, prefix)
	if m == nil {
		if err := n.admits(iid, prefix); err != nil {
			g.errorf("eid-prefix", "%v", err)
			return
		}
		n.Mappings = append(n.Mappings, DatabaseMapping{IID: iid, Prefix: prefix, TTL: ttl, Line: g.line})
		m = &n.Mappings[len(n.Mappings)-1]
	} else if g.has("ttl") && m.TTL != ttl {
		g.errorf("ttl", "differs from the one in line %d for the same EID-Prefix", m.Line)
	}
	before := len(m.Locators)
	r.locatorSources(g, m)
	if len(m.Locators) == before && len(r.probs.errors) == 0 {
		r.probs.errorf(g.line, g.name, "has no locator: add rloc-iface { interface = ... } or interface = ...")
	}
}

func (n *Node) mappingOf(iid uint32, prefix netip.Prefix) *DatabaseMapping {
	for i := range n.Mappings {
		if n.Mappings[i].IID == iid && n.Mappings[i].Prefix == prefix {
			return &n.Mappings[i]
		}
	}
	return nil
}

func (r *reader) locatorSources(g *group, m *DatabaseMapping) {
	if name := g.str("interface", ""); name != "" {
		r.legacyInterface(g, name, m)
	} else {
		for _, o := range []string{"priority", "weight", "priority_v4", "weight_v4", "priority_v6", "weight_v6"} {
			if g.has(o) && !g.has("rloc") {
				g.errorf(o, "belongs to an interface; inside rloc-iface and rloc-address it is called priority and weight")
			}
		}
	}
	if g.has("rloc") {
		r.addressSource(g, "rloc", m)
	}
	for _, a := range g.groups["rloc-address"] {
		r.addressSource(a, "address", m)
	}
	for _, i := range g.groups["rloc-iface"] {
		name, ok := i.need("interface")
		family := int(i.num("ip_version", 4))
		if family == 5 {
			i.errorf("ip_version", "is 4 or 6")
		}
		if ok {
			r.addSource(i, m, LocatorSource{Interface: name, Family: family, Priority: octet(i, "priority", defaultPriority), Weight: octet(i, "weight", defaultWeight), Line: i.line})
		}
	}
}

// legacyInterface reads interface with priority_v4 and so on. A family whose
// priority is -1 is not used, nor one without a priority when the other has
// one. priority and weight are the defaults of both families.
func (r *reader) legacyInterface(g *group, name string, m *DatabaseMapping) {
	either := g.has("priority_v4") || g.has("priority_v6")
	for _, f := range []struct {
		family           int
		priority, weight string
	}{{4, "priority_v4", "weight_v4"}, {6, "priority_v6", "weight_v6"}} {
		if either && !g.has(f.priority) {
			continue
		}
		p := g.num(f.priority, g.num("priority", defaultPriority))
		if p < 0 {
			continue
		}
		w := g.num(f.weight, g.num("weight", defaultWeight))
		r.addSource(g, m, LocatorSource{Interface: name, Family: f.family, Priority: uint8(p), Weight: uint8(w), Line: g.line})
	}
}

// addressSource reads a locator that is given by address. It must be an
// address, not a name: it is one of this host.
func (r *reader) addressSource(g *group, option string, m *DatabaseMapping) {
	text, ok := g.need(option)
	if !ok {
		return
	}
	remote := !g.on("local", true)
	a, err := netip.ParseAddr(text)
	if err != nil || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Zone() != "" {
		g.errorf(option, "'%s' is not an IP address of this host (names of explicit locator paths are not supported)", text)
		return
	}
	a = a.Unmap()
	r.addSource(g, m, LocatorSource{Addr: a, Family: familyOf(a), Priority: octet(g, "priority", defaultPriority), Weight: octet(g, "weight", defaultWeight), Remote: remote, Line: g.line})
}

func (r *reader) addSource(g *group, m *DatabaseMapping, s LocatorSource) {
	for _, o := range m.Locators {
		if o.Interface == s.Interface && o.Family == s.Family && o.Addr == s.Addr {
			r.probs.errorf(g.line, g.name, "%s has the same locator in line %d already", m.Prefix, o.Line)
			return
		}
	}
	m.Locators = append(m.Locators, s)
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}
