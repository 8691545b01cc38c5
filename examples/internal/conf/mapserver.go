package conf

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// MapServerNode is the configuration of lispms.
type MapServerNode struct {
	File     string
	Warnings []Problem

	Debug         int
	ControlIface  string // the interface to serve; empty: all
	ControlSocket string // where the status can be read; empty: the default of the program
	Sites         []Site
}

// Site is a LISP site: EID-Prefixes that are registered with one key.
type Site struct {
	Name       string
	Key        Key
	ProxyReply bool // answer for the site even when its ETRs do not ask for it
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
	g := r.open(src, roleMS)
	m := &MapServerNode{File: file}
	if r.probs.err() == nil {
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
	m.ControlIface = g.str("control-iface", "")
	m.ControlSocket = g.str("control-socket", "")
	r.scope(g)
	switch mode := g.str("operating-mode", "MS"); strings.ToUpper(mode) {
	case "MS":
	case "MN", "XTR":
		g.errorf("operating-mode", "this file is for a node: start lispmn with it")
	default:
		g.errorf("operating-mode", "%s is not supported; lispms is a Map-Server and Map-Resolver (MS)", mode)
	}
	for _, s := range g.groups["lisp-site"] {
		r.site(s, m)
	}
	if len(m.Sites) == 0 && len(r.probs.errors) == 0 {
		r.probs.errorf(0, "", "there is no lisp-site: nobody could register")
	}
}

// site reads one lisp-site. Sections with the same name are one site, whose
// EID-Prefixes may come in one Map-Register; without a name, the EID-Prefix
// is the name.
func (r *reader) site(g *group, m *MapServerNode) {
	prefix, okPrefix := r.needPrefix(g, "eid-prefix")
	key, okKey := r.key(g)
	if !okPrefix || !okKey {
		return
	}
	sp := SitePrefix{IID: r.iid(g), Prefix: prefix, AcceptMoreSpecifics: g.on("accept-more-specifics", false)}
	for _, s := range m.Sites {
		for _, other := range s.Prefixes {
			if other.IID == sp.IID && other.Prefix == sp.Prefix {
				g.errorf("eid-prefix", "%s is in the site of line %d already", prefix, s.Line)
				return
			}
		}
	}
	name := prefix.String()
	if sp.IID != 0 {
		name = fmt.Sprintf("[%d]%s", sp.IID, prefix)
	}
	site := Site{Name: g.str("name", name), Key: key, ProxyReply: g.on("proxy-reply", false), Line: g.line}
	for i, s := range m.Sites {
		if s.Name != site.Name {
			continue
		}
		if s.Key != site.Key || s.ProxyReply != site.ProxyReply {
			g.errorf("name", "site %s has another key or proxy-reply in line %d", s.Name, s.Line)
			return
		}
		m.Sites[i].Prefixes = append(m.Sites[i].Prefixes, sp)
		return
	}
	site.Prefixes = []SitePrefix{sp}
	m.Sites = append(m.Sites, site)
}
