package conf

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Node is the configuration of lispmn.
type Node struct {
	File     string
	Warnings []Problem // what the file asks for and does not get

	Debug         int // 0..3, see LogLevel
	MapResolvers  []netip.Addr
	MapServers    []MapServer
	Mappings      []DatabaseMapping // one per EID-Prefix
	Static        []StaticMapping
	ProxyETRs     []RLOC       // take packets to destinations that are not EIDs
	ProxyITRs     []netip.Addr // are told of each handover
	Probing       Probing
	SiteScope     bool   // ipv6-scope = SITE: prefer unique local IPv6 addresses as locators
	ControlSocket string // where the status can be read; empty: the default of the program
	StateFile     string // what the node keeps over restarts; empty: the default of the program
	Device        Device
}

// Device is the TUN device and its routing table. Zero values stand for the
// defaults of package tun.
type Device struct {
	Name  string
	MTU   int
	Table uint32
}

// MapServer is a Map-Server to register with.
type MapServer struct {
	Addr       netip.Addr
	Key        Key
	ProxyReply bool
}

// DatabaseMapping is one EID-Prefix of ours and where its locators come from.
type DatabaseMapping struct {
	IID      uint32
	Prefix   netip.Prefix
	TTL      time.Duration
	Locators []LocatorSource
	Line     int
}

// LocatorSource says where a locator comes from: an interface, of which the
// address of one family is taken, or an address of the host.
type LocatorSource struct {
	Interface        string     // empty: Addr is given
	Family           int        // 4 or 6
	Addr             netip.Addr // invalid: from Interface
	Priority, Weight uint8
	Line             int
}

// StaticMapping is an entry of the map-cache that is configured.
type StaticMapping struct {
	IID    uint32
	Prefix netip.Prefix
	RLOCs  []RLOC
}

// RLOC is a remote locator.
type RLOC struct {
	Addr             netip.Addr
	Priority, Weight uint8
}

// Probing is how locators of peers are probed. The zero value is the default.
type Probing struct {
	Off           bool
	Interval      time.Duration
	Retries       int // probes after the first unanswered one until the locator is down
	RetryInterval time.Duration
}

// Defaults of the options that have one.
const (
	defaultPriority = 1
	defaultWeight   = 100
	defaultTTL      = 10 // minutes
)

// LoadNode reads the file of lispmn. The error is an *Error when the file was
// read but cannot be used.
func LoadNode(ctx context.Context, path string, opt Options) (*Node, error) {
	src, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseNode(ctx, path, src, opt)
}

// ParseNode is LoadNode for the text of a file.
func ParseNode(ctx context.Context, file, src string, opt Options) (*Node, error) {
	r := newReader(ctx, file, opt)
	g := r.open(src, roleXTR)
	n := &Node{File: file}
	if r.probs.err() == nil { // what follows a syntax error would only confuse
		r.node(g, n)
	}
	sortByLine(r.probs.warnings)
	n.Warnings = r.probs.warnings
	if err := r.probs.err(); err != nil {
		return nil, err
	}
	return n, nil
}

func (r *reader) node(g *group, n *Node) {
	n.Debug = r.debug(g)
	r.nodeMode(g)
	n.ControlSocket = g.str("control-socket", "")
	n.StateFile = g.str("state-file", "")
	n.SiteScope = r.scope(g)
	n.Device = Device{Name: g.str("tun-name", ""), MTU: int(g.num("tun-mtu", 0)), Table: uint32(g.num("tun-table", 0))}
	if len(n.Device.Name) > 15 || strings.ContainsAny(n.Device.Name, "/ %\n\t") {
		g.errorf("tun-name", "'%s' cannot be the name of an interface (1 to 15 characters, no '/', '%%' or space)", n.Device.Name)
	}
	if e := g.str("encapsulation", "LISP"); !strings.EqualFold(e, "LISP") {
		g.errorf("encapsulation", "'%s' is not supported; LISP is", e)
	}
	n.Probing = r.probing(g)
	r.mapResolvers(g, n)
	n.ProxyITRs = r.addressList(g, "proxy-itrs")
	r.mapServers(g, n)
	for _, d := range g.groups["database-mapping"] {
		r.databaseMapping(d, n)
	}
	for _, s := range g.groups["static-map-cache"] {
		r.static(s, n)
	}
	r.proxyETRs(g, n)
	r.complete(n)
}

// nodeMode refuses the modes that this program does not have.
func (r *reader) nodeMode(g *group) {
	switch mode := g.str("operating-mode", "MN"); strings.ToUpper(mode) {
	case "MN":
	case "MS":
		g.errorf("operating-mode", "this file is for a Map-Server: start lispms with it")
	case "XTR", "RTR", "DDT", "DDT-MR":
		g.errorf("operating-mode", "%s is not supported yet; MN (a mobile node) is", mode)
	default:
		hint := suggest(mode, []string{"MN", "MS", "xTR", "RTR", "DDT", "DDT-MR"})
		if hint != "" {
			hint = "; did you mean " + hint + "?"
		}
		g.errorf("operating-mode", "'%s' is not a mode%s", mode, hint)
	}
}

func (r *reader) scope(g *group) bool {
	switch s := g.str("ipv6-scope", "GLOBAL"); strings.ToUpper(s) {
	case "GLOBAL":
	case "SITE":
		return true
	default:
		g.errorf("ipv6-scope", "'%s' is neither GLOBAL nor SITE", s)
	}
	return false
}

func (r *reader) probing(g *group) Probing {
	sections := g.groups["rloc-probing"]
	if len(sections) == 0 {
		return Probing{}
	}
	s := sections[0]
	p := Probing{
		Interval:      time.Duration(s.num("rloc-probe-interval", 0)) * time.Second,
		Retries:       int(s.num("rloc-probe-retries", 3)),
		RetryInterval: time.Duration(s.num("rloc-probe-retries-interval", 10)) * time.Second,
	}
	if !s.has("rloc-probe-interval") {
		r.probs.warnf(s.line, s.name, "has no rloc-probe-interval, so locators are not probed")
	}
	if p.Retries > 5 {
		s.warnf("rloc-probe-retries", "5 is the highest value")
		p.Retries = 5
	}
	if p.Interval == 0 {
		return Probing{Off: true}
	}
	p.RetryInterval = min(max(p.RetryInterval, time.Second), p.Interval)
	return p
}

func (r *reader) mapResolvers(g *group, n *Node) {
	n.MapResolvers = r.addressList(g, "map-resolver")
}

// addressList reads a list of addresses and names.
func (r *reader) addressList(g *group, name string) (out []netip.Addr) {
	for _, v := range g.list(name) {
		as, err := r.addresses(v.text)
		if err != nil {
			r.probs.errorf(v.line, name, "%v", err)
			continue
		}
		out = append(out, as...)
	}
	return out
}

func (r *reader) mapServers(g *group, n *Node) {
	for _, s := range g.groups["map-server"] {
		addr, okAddr := r.needAddress(s, "address")
		key, okKey := r.key(s)
		if !okAddr || !okKey {
			continue
		}
		for _, other := range n.MapServers {
			if other.Addr == addr {
				s.errorf("address", "%s is given twice", addr)
			}
		}
		n.MapServers = append(n.MapServers, MapServer{Addr: addr, Key: key, ProxyReply: s.on("proxy-reply", false)})
	}
}

func (r *reader) static(s *group, n *Node) {
	prefix, ok := r.needPrefix(s)
	if !ok {
		return
	}
	m := StaticMapping{IID: r.iid(s), Prefix: prefix}
	if s.has("rloc") {
		if a, ok := r.needAddress(s, "rloc"); ok {
			m.RLOCs = append(m.RLOCs, RLOC{Addr: a, Priority: octet(s, "priority", defaultPriority), Weight: octet(s, "weight", defaultWeight)})
		}
	}
	for _, l := range s.groups["rloc-address"] {
		if rloc, ok := r.rloc(l); ok {
			m.RLOCs = append(m.RLOCs, rloc)
		}
	}
	if len(m.RLOCs) == 0 {
		r.probs.errorf(s.line, s.name, "has no locator: add rloc-address { address = ... }")
	}
	n.Static = append(n.Static, m)
}

// rloc reads the body of rloc-address or proxy-etr.
func (r *reader) rloc(g *group) (RLOC, bool) {
	a, ok := r.needAddress(g, "address")
	return RLOC{Addr: a, Priority: octet(g, "priority", defaultPriority), Weight: octet(g, "weight", defaultWeight)}, ok
}

func (r *reader) proxyETRs(g *group, n *Node) {
	for _, kind := range []struct {
		name   string
		family int
	}{{"proxy-etr", 0}, {"proxy-etr-ipv4", 4}, {"proxy-etr-ipv6", 6}} {
		for _, s := range g.groups[kind.name] {
			rloc, ok := r.rloc(s)
			if !ok {
				continue
			}
			if kind.family != 0 {
				s.warnf("address", "%s gets packets to IPv4 and IPv6 destinations", rloc.Addr)
			}
			if !slices.ContainsFunc(n.ProxyETRs, func(o RLOC) bool { return o.Addr == rloc.Addr }) {
				n.ProxyETRs = append(n.ProxyETRs, rloc)
			}
		}
	}
}

// octet reads a priority or weight; the table has checked its range.
func octet(g *group, name string, def int64) uint8 { return uint8(g.num(name, def)) }

// complete reports what a usable file lacks.
func (r *reader) complete(n *Node) {
	if len(n.Mappings) == 0 && len(r.probs.errors) == 0 {
		r.probs.errorf(0, "", "there is no database-mapping: the node needs at least one EID")
	}
	if len(n.MapServers) == 0 && len(r.probs.errors) == 0 {
		r.probs.warnf(0, "", "there is no map-server: nobody will find this node")
	}
	if len(n.MapResolvers) == 0 && len(r.probs.errors) == 0 {
		r.probs.warnf(0, "", "there is no map-resolver: only destinations in static-map-cache can be reached")
	}
}
