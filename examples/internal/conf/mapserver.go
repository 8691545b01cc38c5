package conf

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// MapServerNode is the configuration of lispms.
type MapServerNode struct {
	File     string
	Warnings []Problem

	Debug         int
	LogFile       string // empty: standard error
	ControlIface  string // the interface to serve; empty: all
	ControlSocket string // where the status can be read; empty: the default of the program
	StateFile     string // where registrations are kept over a restart; empty: nowhere
	Sites         []Site
	Resolver      []ResolverEntry
	LISPSEC       MapServerSEC
	NAT           MapServerNAT
	RTR           *RTR // nil: a Map-Server and Map-Resolver alone
}

// ServesSites reports whether it is a Map-Server or Map-Resolver, be it an RTR or not.
func (m *MapServerNode) ServesSites() bool { return len(m.Sites)+len(m.Resolver) > 0 }

// ResolverEntry is an EID-Prefix that other Map-Servers have.
type ResolverEntry struct {
	IID        uint32
	Prefix     netip.Prefix
	MapServers []netip.Addr // in order of preference
}

// Site is a LISP site: EID-Prefixes that are registered with the same keys.
type Site struct {
	Name       string
	Keys       []Key // with different IDs
	ProxyReply bool  // answer for the site even when its ETRs do not ask for it
	Prefixes   []SitePrefix
	Line       int
}

// SitePrefix is an EID-Prefix that a site may register.
type SitePrefix struct {
	IID                 uint32
	Prefix              netip.Prefix
	AcceptMoreSpecifics bool
}

// LoadMapServer reads the file of lispms. The error is an *Error when the file
// was read but cannot be used.
func LoadMapServer(ctx context.Context, path string, opt Options) (*MapServerNode, error) {
	src, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseMapServer(ctx, path, src, opt)
}

// ParseMapServer is LoadMapServer for the text of a file.
func ParseMapServer(ctx context.Context, file, src string, opt Options) (*MapServerNode, error) {
	r := newReader(ctx, file, opt)
	m := &MapServerNode{File: file}
	if g := r.open(src, serverRole); g != nil {
		r.mapServer(g, m)
	}
	sortByLine(r.probs.warnings)
	m.Warnings = r.probs.warnings
	if err := r.probs.err(); err != nil {
		return nil, err
	}
	return m, nil
}

func (r *reader) mapServer(g *group, m *MapServerNode) {
	m.Debug = r.debug(g)
	m.LogFile = g.str("log-file", "")
	m.ControlIface = g.str("control-iface", "")
	m.ControlSocket = g.str("control-socket", "")
	m.StateFile = g.str("state-file", "")
	r.scope(g)
	switch mode := g.str("operating-mode", "MS"); strings.ToUpper(mode) {
	case "MS":
	case "RTR":
		r.rtr(g, m)
		if g.has("control-iface") {
			g.errorf("control-iface", "an RTR takes control messages at all addresses, and so does its Map-Server: leave it out")
		}
	case "MN", "XTR":
		g.errorf("operating-mode", "this file is for a node: start lispmn with it")
	default:
		g.errorf("operating-mode", "%s is not supported; lispms is a Map-Server and Map-Resolver (MS), or an RTR", mode)
	}
	for _, s := range g.groups["lisp-site"] {
		r.site(s, m)
	}
	for _, e := range g.groups["resolver-entry"] {
		r.resolverEntry(e, m)
	}
	r.mapServerSecurity(g, m)
	r.mapServerNAT(g, m)
	switch {
	case len(r.probs.errors) > 0:
	case m.RTR == nil && !m.ServesSites():
		r.probs.errorf(0, "", "there is no lisp-site: nobody could register")
	case m.RTR != nil && !m.ServesSites() && len(m.RTR.MapServers) == 0 && !m.RTR.LispersNet:
		g.errorf("operating-mode", "an RTR needs an rtr-ms-node { address = ... key = ... } for each Map-Server whose nodes it serves, "+
			"or lisp-site sections, to be that Map-Server itself")
	}
}

// resolverEntry reads one resolver-entry.
func (r *reader) resolverEntry(g *group, m *MapServerNode) {
	prefix, ok := r.needPrefix(g)
	e := ResolverEntry{IID: r.iid(g), Prefix: prefix}
	for _, v := range g.list("map-server") {
		as, err := r.addresses(v.text)
		if err != nil {
			r.probs.errorf(v.line, "resolver-entry.map-server", "%v", err)
			return
		}
		e.MapServers = append(e.MapServers, as[0])
	}
	if !ok {
		return
	}
	if len(e.MapServers) == 0 && len(r.probs.errors) == 0 {
		g.errorf("map-server", "there is none to forward Map-Requests to")
		return
	}
	for _, other := range m.Resolver {
		if other.IID == e.IID && other.Prefix == e.Prefix {
			g.errorf("eid-prefix", "%s is in a resolver-entry already", prefix)
			return
		}
	}
	for _, s := range m.Sites {
		for _, p := range s.Prefixes {
			if p.IID == e.IID && p.Prefix == e.Prefix {
				g.errorf("eid-prefix", "%s is in the site of line %d already", prefix, s.Line)
				return
			}
		}
	}
	m.Resolver = append(m.Resolver, e)
}

// site reads one lisp-site. Sections with the same name are one site, whose
// EID-Prefixes may come in one Map-Register; without a name, the EID-Prefix
// is the name. A section that repeats an EID-Prefix of its site with another
// key-id adds a key: both are good until one section is removed.
func (r *reader) site(g *group, m *MapServerNode) {
	prefix, okPrefix := r.needPrefix(g)
	key, okKey := r.key(g)
	if !okPrefix || !okKey {
		return
	}
	sp := SitePrefix{IID: r.iid(g), Prefix: prefix, AcceptMoreSpecifics: g.on("accept-more-specifics", false)}
	name := prefix.String()
	if sp.IID != 0 {
		name = fmt.Sprintf("[%d]%s", sp.IID, prefix)
	}
	site := Site{Name: g.str("name", name), Keys: []Key{key}, ProxyReply: g.on("proxy-reply", false), Line: g.line}
	for i, s := range m.Sites {
		at := slices.IndexFunc(s.Prefixes, func(p SitePrefix) bool { return p.IID == sp.IID && p.Prefix == sp.Prefix })
		rotated := !slices.ContainsFunc(s.Keys, func(k Key) bool { return k.ID == key.ID })
		switch {
		case at >= 0 && (s.Name != site.Name || !rotated):
			g.errorf("eid-prefix", "%s is in the site of line %d already", prefix, s.Line)
			return
		case s.Name != site.Name:
			continue
		case s.ProxyReply != site.ProxyReply, !rotated && !slices.Contains(s.Keys, key):
			g.errorf("name", "site %s has another key or proxy-reply in line %d", s.Name, s.Line)
			return
		}
		if rotated {
			m.Sites[i].Keys = append(s.Keys, key)
		}
		if at < 0 {
			m.Sites[i].Prefixes = append(s.Prefixes, sp)
		}
		return
	}
	site.Prefixes = []SitePrefix{sp}
	m.Sites = append(m.Sites, site)
}
