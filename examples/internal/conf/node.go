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

	Mode                   Mode
	IID                    uint32 // the instance of all Mappings and of Proxy
	Debug                  int    // 0..3, see LogLevel
	LogFile                string // empty: standard error
	MapResolvers           []netip.Addr
	MapServers             []MapServer
	Mappings               []DatabaseMapping // one per EID-Prefix
	Static                 []StaticMapping
	AllowedEIDs            []netip.Prefix // all other destinations are forwarded natively; empty: none is
	ProxyETRs              []RLOC         // take packets to destinations that are not EIDs
	ProxyETRs4, ProxyETRs6 []RLOC         // instead, those of one family
	ProxyITRs              []netip.Addr   // are told of each handover
	Proxy                  Proxy
	Locators               []LocatorSource // besides those of the Mappings
	Encapsulation          string          // LISP, LISP-GPE or VXLAN-GPE
	ControlPort            uint16          // 0: 4342
	MapRequestRetries      int             // 0: the default
	LISPSEC                LISPSEC
	NAT                    NAT
	Closed                 Closed
	Probing                Probing
	Dataplane              Dataplane
	Graceful               bool // packets go on in the kernel while no process runs
	LANFastPath            bool // the kernel takes a LAN's packets where they come in, before the host's firewall
	UplinkMode             UplinkMode
	Policies               []UplinkPolicy // in the order of the file
	MarkMask               uint32         // which bits of firewall marks count; 0: none
	SiteScope              bool           // ipv6-scope = SITE: prefer unique local IPv6 addresses as locators
	ControlSocket          string         // where the status can be read; empty: the default of the program
	StateFile              string         // what the node keeps over restarts; empty: the default of the program
	Device                 Device
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
	Merge      bool
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
	Remote           bool // of another ETR of the site: announced as it is
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
	Fast          time.Duration // between probes where packets go; 0: as elsewhere
	PreferRTT     bool          // of two that may be used, the one with the shorter round-trip time
}

// Defaults of the options that have one.
const (
	defaultPriority = 1
	defaultWeight   = 100
	defaultTTL      = 10 // minutes
	maxRetries      = 10
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
	n := &Node{File: file}
	if g := r.open(src, func(*section) role { return roleXTR }); g != nil {
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
	n.Mode = r.nodeMode(g)
	n.LogFile = g.str("log-file", "")
	n.ControlSocket = g.str("control-socket", "")
	n.StateFile = g.str("state-file", "")
	n.SiteScope = r.scope(g)
	n.Device = Device{Name: g.str("tun-name", ""), MTU: int(g.num("tun-mtu", 0)), Table: uint32(g.num("tun-table", 0))}
	if len(n.Device.Name) > 15 || strings.ContainsAny(n.Device.Name, "/ %\n\t") {
		g.errorf("tun-name", "'%s' cannot be the name of an interface (1 to 15 characters, no '/', '%%' or space)", n.Device.Name)
	}
	n.Encapsulation = r.oneOf(g, "encapsulation", "LISP", []string{"LISP", "LISP-GPE", "VXLAN-GPE"})
	n.ControlPort = uint16(g.num("control-port", 0))
	n.MapRequestRetries = r.retries(g)
	n.AllowedEIDs = r.prefixes(g, "allowed-dst-eids")
	n.Probing = r.probing(g)
	r.uplinks(g, n)
	r.mapResolvers(g, n)
	n.ProxyITRs = r.addressList(g, "proxy-itrs")
	r.mapServers(g, n)
	for _, d := range g.groups["database-mapping"] {
		r.databaseMapping(d, n)
	}
	r.lispdroid(g, n)
	if len(n.Mappings) > 0 {
		n.IID = n.Mappings[0].IID
	}
	r.pxtr(g, n)
	r.family(g, n)
	for _, s := range g.groups["static-map-cache"] {
		r.static(s, n)
	}
	r.proxyETRs(g, n)
	r.lispdroidProxyETRs(g, n)
	r.nodeSecurity(g, n)
	r.nodeNAT(g, n)
	r.policies(g, n)
	r.complete(n)
}

// retries reads how often a Map-Request is sent again. 0 is the default, as it
// was for OpenOverlayRouter, which then took 3.
func (r *reader) retries(g *group) int {
	n := int(g.num("map-request-retries", 0))
	if n > maxRetries {
		g.warnf("map-request-retries", "%d is the highest value (RFC 9301 §5.3)", maxRetries)
	}
	return min(n, maxRetries)
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

// probing reads rloc-probing, or the options of lispdroid in its place.
func (r *reader) probing(g *group) Probing {
	s, name, line := g, "rloc-probe-retries", g.lineOf("rloc-probe-retries")
	if sections := g.groups["rloc-probing"]; len(sections) > 0 {
		s, name, line = sections[0], "rloc-probing", sections[0].line
	} else if !g.has("rloc-probe-interval") && !g.has("rloc-probe-retries") {
		return Probing{}
	}
	p := Probing{
		Interval:      time.Duration(s.num("rloc-probe-interval", 0)) * time.Second,
		Retries:       int(s.num("rloc-probe-retries", 3)),
		RetryInterval: time.Duration(s.num("rloc-probe-retries-interval", 10)) * time.Second,
		Fast:          time.Duration(s.num("rloc-probe-fast-interval", 0)) * time.Millisecond,
	}
	if !s.has("rloc-probe-interval") {
		r.probs.warnf(line, name, "has no rloc-probe-interval, so locators are not probed")
	}
	if p.Retries > 5 {
		s.warnf("rloc-probe-retries", "5 is the highest value")
		p.Retries = 5
	}
	if p.Fast != 0 && p.Fast < minFast {
		s.errorf("rloc-probe-fast-interval", "is at least %d (milliseconds), or 0 for none", minFast.Milliseconds())
	}
	if p.Interval == 0 {
		return Probing{Off: true}
	}
	p.RetryInterval = min(max(p.RetryInterval, time.Second), p.Interval)
	return p
}

// minFast is the shortest time between probes.
const minFast = 10 * time.Millisecond

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
		n.MapServers = append(n.MapServers, MapServer{Addr: addr, Key: key, ProxyReply: s.on("proxy-reply", false), Merge: s.on("merge", false)})
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
	for _, o := range []string{"priority", "weight"} {
		if s.has(o) && !s.has("rloc") {
			s.warnf(o, "ignored: it belongs to rloc; rloc-address has its own")
		}
	}
	for _, l := range s.groups["rloc-address"] {
		if rloc, ok := r.rloc(l); ok {
			m.RLOCs = append(m.RLOCs, rloc)
		}
	}
	if len(m.RLOCs) == 0 && len(r.probs.errors) == 0 {
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
		name string
		to   *[]RLOC
	}{{"proxy-etr", &n.ProxyETRs}, {"proxy-etr-ipv4", &n.ProxyETRs4}, {"proxy-etr-ipv6", &n.ProxyETRs6}} {
		for _, s := range g.groups[kind.name] {
			rloc, ok := r.rloc(s)
			if ok && !slices.ContainsFunc(*kind.to, func(o RLOC) bool { return o.Addr == rloc.Addr }) {
				*kind.to = append(*kind.to, rloc)
			}
		}
	}
}

// octet reads a priority or weight; the table has checked its range.
func octet(g *group, name string, def int64) uint8 { return uint8(g.num(name, def)) }

// complete reports what a usable file lacks.
func (r *reader) complete(n *Node) {
	if len(n.Mappings) == 0 && !n.Proxy.Any() && len(r.probs.errors) == 0 {
		r.probs.errorf(0, "", "there is no database-mapping: the node needs at least one EID")
	}
	r.reachable(n)
	if len(n.MapServers) == 0 && len(n.Mappings) > 0 && len(r.probs.errors) == 0 {
		r.probs.warnf(0, "", "there is no map-server: nobody will find this node")
	}
	if len(n.MapResolvers) == 0 && len(r.probs.errors) == 0 {
		r.probs.warnf(0, "", "there is no map-resolver: only destinations in static-map-cache can be reached")
	}
}
