package conf

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NAT is NAT traversal at a node (draft-ermagan-lisp-nat-traversal-19).
type NAT struct {
	Off                     bool
	Variant                 string // draft-19, old or lispers.net
	Always                  bool   // by an RTR even where there is no NAT
	KeepAlive, MinKeepAlive time.Duration
	HostName                string // of lispers.net
}

// RTRNode is an RTR that a Map-Server tells nodes of.
type RTRNode struct {
	Name string
	Addr netip.Addr
	Key  Key // without a secret: none is shared
}

// MapServerNAT is NAT traversal at a Map-Server.
type MapServerNAT struct {
	RTRs       []RTRNode
	TTL        time.Duration
	LispersNet bool
}

// RTR is the configuration of a Re-encapsulating Tunnel Router.
type RTR struct {
	MapServers   []RTRMapServer
	MapResolvers []netip.Addr
	Locators     []LocatorSource // by interface; empty: all addresses of the host
	IIDs         []uint32        // whose packets it relays
	Dataplane    Dataplane
	Graceful     bool // packets go on in the kernel while no process runs
	RequireKey   bool
	LispersNet   bool
}

// RTRMapServer is a Map-Server that an RTR works for.
type RTRMapServer struct {
	Addr    netip.Addr
	Key     Key // without a secret: none is shared
	Variant string
}

// Names of variants of NAT traversal.
const (
	Draft19    = "draft-19"
	OldDraft   = "old"
	LispersNet = "lispers.net"
)

var natVariants = []string{Draft19, OldDraft, LispersNet}

// minRTRTTL is the least time that a list of RTRs is good for, as in OOR.
const minRTRTTL = 1

func natOptions(o options) {
	rtrKey := options{"address": {}, "key": {}, "key-type": number(1, 2), "key-id": number(0, maxOctet)}
	o["nat_traversal_support"] = flag().of(roleXTR)
	o["use-nat-tunneling"] = flag().of(roleXTR)
	o["nat-traversal"] = option{kind: kindSection, once: true, role: roleXTR | roleMS | roleRTR, sub: options{
		"nat_aware": flag().of(roleXTR), "variant": option{}.of(roleXTR), "always": flag().of(roleXTR),
		"keep-alive": number(1, maxDelay).of(roleXTR), "min-keep-alive": number(1, maxDelay).of(roleXTR), "host-name": option{}.of(roleXTR),
		"lispers-net": flag().of(roleMS | roleRTR),
		"site_id":     not(ignored, kindString, "a Site-ID is not sent"),
		"xtr_id":      not(ignored, kindString, "the xTR-ID is made at the first start, and kept in the state-file"),
	}}
	o["ms-rtr-node"] = option{kind: kindSection, role: roleMS, sub: with(rtrKey, options{"name": {}})}
	o["ms-rtrs-set"] = option{kind: kindSection, role: roleMS, sub: options{
		"name": {}, "ttl": number(minRTRTTL, maxTTL), "rtrs": {kind: kindList},
	}}
	o["ms-advertised-rtrs-set"] = option{role: roleMS}

	resolver := o["map-resolver"]
	resolver.role |= roleRTR
	o["map-resolver"] = resolver
	o["rtr-ifaces"] = option{kind: kindSection, once: true, role: roleRTR, sub: options{
		"rtr-iface": {kind: kindSection, sub: options{
			"iface": {}, "ip_version": number(4, 6), "priority": number(0, maxOctet), "weight": number(0, maxOctet),
		}},
	}}
	o["rtr-ms-node"] = option{kind: kindSection, role: roleRTR, sub: with(rtrKey, options{"draft-version": {}})}
	o["rtr-iids"] = option{kind: kindList, role: roleRTR}
	o["rtr-require-key"] = flag().of(roleRTR)
	o["rtr-data-iface"] = not(ignored, kindString, "name the interface in rtr-ifaces").of(roleRTR)
	o["rtr-database-mapping"] = option{
		kind: kindSection, support: ignored, role: roleRTR, why: "an RTR has no EIDs of its own", sub: o["database-mapping"].sub,
	}
}

// nodeNAT reads what a node does about NATs. Unless something says off, it
// finds out by itself.
func (r *reader) nodeNAT(g *group, n *Node) {
	n.NAT.Variant = Draft19
	for _, name := range []string{"nat_traversal_support", "use-nat-tunneling"} {
		if !g.on(name, true) {
			n.NAT.Off = true
		}
	}
	for _, s := range g.groups["nat-traversal"] {
		n.NAT = NAT{
			Off:     n.NAT.Off || !s.on("nat_aware", true),
			Variant: r.oneOf(s, "variant", Draft19, natVariants), Always: s.on("always", false),
			KeepAlive:    time.Duration(s.num("keep-alive", 0)) * time.Second,
			MinKeepAlive: time.Duration(s.num("min-keep-alive", 0)) * time.Second,
			HostName:     s.str("host-name", ""),
		}
	}
}

// rtrKey reads the key that an RTR and a Map-Server share, if they do.
func (r *reader) rtrKey(g *group) Key {
	return Key{ID: uint8(g.num("key-id", 0)), Type: int(g.num("key-type", 1)), Secret: Secret(g.str("key", ""))}
}

// mapServerNAT reads which RTRs a Map-Server tells nodes of: those of the set
// that is advertised, or all.
func (r *reader) mapServerNAT(g *group, m *MapServerNode) {
	byName := map[string]RTRNode{}
	for _, s := range g.groups["ms-rtr-node"] {
		a, ok := r.needAddress(s, "address")
		if !ok {
			continue
		}
		node := RTRNode{Name: s.str("name", a.String()), Addr: a, Key: r.rtrKey(s)}
		if _, twice := byName[node.Name]; twice {
			s.errorf("name", "there is an RTR %s already", node.Name)
			continue
		}
		byName[node.Name] = node
		m.NAT.RTRs = append(m.NAT.RTRs, node)
	}
	for _, s := range g.groups["nat-traversal"] {
		m.NAT.LispersNet = s.on("lispers-net", false)
	}
	name := g.str("ms-advertised-rtrs-set", "")
	if name == "" {
		for _, s := range g.groups["ms-rtrs-set"] {
			r.probs.warnf(s.line, s.name, "not used: say ms-advertised-rtrs-set = %s", s.str("name", "NAME"))
		}
		return
	}
	for _, s := range g.groups["ms-rtrs-set"] {
		if s.str("name", "") != name {
			continue
		}
		m.NAT.TTL = time.Duration(s.num("ttl", 0)) * time.Minute
		var first, rest []RTRNode
		for _, v := range s.list("rtrs") {
			node, ok := byName[v.text]
			if !ok {
				if len(r.probs.errors) == 0 { // not the consequence of another one
					s.errorf("rtrs", "there is no ms-rtr-node %s", v.text)
				}
				continue
			}
			first = append(first, node)
		}
		for _, node := range m.NAT.RTRs {
			if !slices.ContainsFunc(first, func(f RTRNode) bool { return f.Name == node.Name }) {
				rest = append(rest, node)
			}
		}
		m.NAT.RTRs = first
		for _, node := range rest {
			g.warnf("ms-advertised-rtrs-set", "the RTR %s is not in it, and not told to anybody", node.Name)
		}
		return
	}
	if len(r.probs.errors) == 0 {
		g.errorf("ms-advertised-rtrs-set", "there is no ms-rtrs-set with the name %s", name)
	}
}

// rtr reads the file of an RTR.
func (r *reader) rtr(g *group, m *MapServerNode) {
	c := &RTR{RequireKey: g.on("rtr-require-key", false)}
	m.RTR = c
	for _, s := range g.groups["nat-traversal"] {
		c.LispersNet = s.on("lispers-net", false)
	}
	for _, s := range g.groups["rtr-ms-node"] {
		a, ok := r.needAddress(s, "address")
		if !ok {
			continue
		}
		ms := RTRMapServer{Addr: a, Key: r.rtrKey(s), Variant: Draft19}
		if strings.EqualFold(s.str("draft-version", ""), "OLD") {
			ms.Variant = OldDraft
		}
		c.MapServers = append(c.MapServers, ms)
	}
	for _, v := range g.list("map-resolver") {
		as, err := r.addresses(v.text)
		if err != nil {
			r.probs.errorf(v.line, "map-resolver", "%v", err)
			continue
		}
		c.MapResolvers = append(c.MapResolvers, as[0])
	}
	for _, s := range g.groups["rtr-ifaces"] {
		for _, i := range s.groups["rtr-iface"] {
			name, ok := i.need("iface")
			if !ok {
				continue
			}
			family := int(i.num("ip_version", 4))
			if family == 5 {
				i.errorf("ip_version", "neither 4 nor 6")
				continue
			}
			c.Locators = append(c.Locators, LocatorSource{
				Interface: name, Family: family, Line: i.line,
				Priority: uint8(i.num("priority", defaultPriority)), Weight: uint8(i.num("weight", defaultWeight)),
			})
		}
	}
	for _, v := range g.list("rtr-iids") {
		iid, err := strconv.ParseUint(v.text, 0, 32)
		if err != nil || iid > maxIID {
			r.probs.errorf(v.line, "rtr-iids", "'%s' is not an instance, which is a number from 0 to %d", v.text, maxIID)
			continue
		}
		c.IIDs = append(c.IIDs, uint32(iid))
	}
	if len(c.IIDs) == 0 {
		c.IIDs = []uint32{0}
	}
	c.Dataplane = r.dataplane(g)
	c.Graceful = graceful(g, c.Dataplane)
}

// serverRole is what a file of lispms is for: a Map-Server, or an RTR, or both: an RTR
// with sites is their Map-Server.
func serverRole(root *section) role {
	who := roleMS
	for _, it := range root.items {
		if it.name == "operating-mode" && len(it.values) == 1 {
			who = roleMS
			if strings.EqualFold(it.values[0].text, "RTR") {
				who = roleRTR
			}
		}
	}
	if who == roleRTR && slices.ContainsFunc(root.items, func(it item) bool { return it.name == "lisp-site" || it.name == "resolver-entry" }) {
		who |= roleMS
	}
	return who
}
