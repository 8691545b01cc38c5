package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Mode is what a node is.
type Mode uint8

// Modes.
const (
	// ModeMN is a mobile node: a host that is its own site.
	ModeMN Mode = iota
	// ModeXTR is a router of a site.
	ModeXTR
	// ModePxTR is a router between LISP sites and the rest of the world: a
	// Proxy-ITR, a Proxy-ETR or both.
	ModePxTR
)

// String is the name in the file.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

var modeNames = [...]string{"MN", "xTR", "PxTR"}

// Proxy is what a node does for others.
type Proxy struct {
	ITR []netip.Prefix // aggregates of EIDs that it takes packets to, from outside of LISP
	ETR []netip.Prefix // EIDs that it takes packets from, to outside of LISP
}

// Any reports whether there is anything to do.
func (p Proxy) Any() bool { return len(p.ITR)+len(p.ETR) > 0 }

func modeOptions(o options) {
	o["router-mode"] = flag().of(roleXTR)
	o["allowed-dst-eids"] = option{kind: kindList, role: roleXTR}
	o["pxtr"] = option{kind: kindSection, once: true, role: roleXTR, sub: options{
		"pitr-eids": {kind: kindList}, "petr-eids": {kind: kindList}, "iid": number(-1, maxIID),
		"rloc-address": o["database-mapping"].sub["rloc-address"],
		"rloc-iface":   o["database-mapping"].sub["rloc-iface"],
	}}
}

// nodeMode reads operating-mode, or router-mode of LISPmob.
func (r *reader) nodeMode(g *group) Mode {
	router := g.on("router-mode", false)
	mode := g.str("operating-mode", "")
	switch strings.ToUpper(mode) {
	case "":
		if router {
			return ModeXTR
		}
		return ModeMN
	case "MN":
		if router {
			g.errorf("router-mode", "operating-mode in line %d says MN", g.lineOf("operating-mode"))
		}
		return ModeMN
	case "XTR":
		return ModeXTR
	case "PXTR":
		return ModePxTR
	case "MS":
		g.errorf("operating-mode", "this file is for a Map-Server: start lispms with it")
	case "RTR":
		g.errorf("operating-mode", "this file is for an RTR: start lispms with it")
	case "DDT", "DDT-MR":
		g.errorf("operating-mode", "%s is not supported: there is no DDT; use map-resolver", mode)
	default:
		hint := Suggest(mode, []string{"MN", "MS", "xTR", "PxTR", "RTR", "DDT", "DDT-MR"})
		if hint != "" {
			hint = "; did you mean " + hint + "?"
		}
		g.errorf("operating-mode", "'%s' is not a mode%s", mode, hint)
	}
	return ModeXTR // to which nothing else of the file is wrong
}

// pxtr reads the section of that name.
func (r *reader) pxtr(g *group, n *Node) {
	sections := g.groups["pxtr"]
	if len(sections) == 0 {
		if n.Mode == ModePxTR {
			g.errorf("operating-mode", "PxTR needs a section pxtr { pitr-eids = { ... } petr-eids = { ... } rloc-iface { ... } }")
		}
		return
	}
	s := sections[0]
	if n.Mode == ModeMN {
		r.probs.errorf(s.line, s.name, "a mobile node takes no packets of others: say operating-mode = xTR or PxTR")
		return
	}
	n.Proxy = Proxy{ITR: r.prefixes(s, "pitr-eids"), ETR: r.prefixes(s, "petr-eids")}
	if !n.Proxy.Any() && len(r.probs.errors) == 0 {
		r.probs.errorf(s.line, s.name, "has neither pitr-eids nor petr-eids")
	}
	iid := r.iid(s)
	if len(n.Mappings) > 0 && n.Mappings[0].IID != iid {
		s.errorf("iid", "there is one device, and so one instance: iid %d, or that of the database-mapping in line %d", iid, n.Mappings[0].Line)
	}
	n.IID = iid
	var m DatabaseMapping
	r.locatorSources(s, &m)
	n.Locators = m.Locators
	if len(n.Locators) == 0 && len(n.Mappings) == 0 && len(r.probs.errors) == 0 {
		r.probs.errorf(s.line, s.name, "has no locator: add rloc-iface { interface = ... }")
	}
}

// prefixes reads a list of EID-Prefixes.
func (r *reader) prefixes(g *group, name string) (out []netip.Prefix) {
	for _, v := range g.list(name) {
		p, ok := parsePrefix(v.text)
		if !ok {
			r.probs.errorf(v.line, join(g.name, name), notPrefix, v.text)
			continue
		}
		if p != p.Masked() {
			r.probs.warnf(v.line, join(g.name, name), "'%s' has bits behind its length; taken as %s", v.text, p.Masked())
		}
		out = append(out, p.Masked())
	}
	return out
}

// family keeps the locator sources of one address family, if the file or the
// command line wants only one.
func (r *reader) family(g *group, n *Node) {
	if !g.has("rloc-family") {
		return
	}
	f := int(g.num("rloc-family", 4))
	if f == 5 {
		g.errorf("rloc-family", "is 4 or 6")
		return
	}
	other := func(s LocatorSource) bool { return s.Family != f }
	for i := range n.Mappings {
		m := &n.Mappings[i]
		m.Locators = slices.DeleteFunc(m.Locators, other)
		if len(m.Locators) == 0 {
			r.probs.errorf(m.Line, "database-mapping", "has no locator left: rloc-family is %d", f)
		}
	}
	n.Locators = slices.DeleteFunc(n.Locators, other)
}
