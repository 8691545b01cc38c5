package conf

// UplinkMode says which uplinks packets leave by.
type UplinkMode string

// Uplink modes, which LISPmob had as build options.
const (
	// UplinkFull sends by any uplink, as priorities and weights say.
	UplinkFull UplinkMode = "full"
	// UplinkLegacy sends by the system's best default route. All uplinks are
	// registered, and packets are received by each.
	UplinkLegacy UplinkMode = "legacy"
)

// Dataplane says where packets are forwarded.
type Dataplane string

// Data planes.
const (
	// DataplaneAuto is the kernel where it lets us, else user space.
	DataplaneAuto Dataplane = "auto"
	DataplaneEBPF Dataplane = "ebpf"
	DataplaneUser Dataplane = "user"
)

func uplinkOptions(o options) {
	o["dataplane"] = option{role: roleXTR | roleRTR}
	o["graceful"] = flag().of(roleXTR | roleRTR)
	o["lan-fast-path"] = flag().of(roleXTR)
	o["uplink-mode"] = option{role: roleXTR}
	o["rloc-probing"].sub["rloc-probe-prefer-rtt"] = flag()
}

// dataplane reads where packets are forwarded.
func (r *reader) dataplane(g *group) Dataplane {
	return Dataplane(r.oneOf(g, "dataplane", string(DataplaneAuto), []string{string(DataplaneAuto), string(DataplaneEBPF), string(DataplaneUser)}))
}

// graceful reads whether packets go on while no process runs.
func graceful(g *group, where Dataplane) bool {
	on := g.on("graceful", false)
	if on && where == DataplaneUser {
		g.warnf("graceful", "is of no use with dataplane = user: packets stop when the program ends")
	}
	return on
}

// uplinks reads how several uplinks are used.
func (r *reader) uplinks(g *group, n *Node) {
	n.UplinkMode = UplinkMode(r.oneOf(g, "uplink-mode", string(UplinkFull), []string{string(UplinkFull), string(UplinkLegacy)}))
	n.Dataplane = r.dataplane(g)
	n.Graceful = graceful(g, n.Dataplane)
	n.LANFastPath = g.on("lan-fast-path", true)
	for _, s := range g.groups["rloc-probing"] {
		n.Probing.PreferRTT = s.on("rloc-probe-prefer-rtt", false)
		if n.Probing.PreferRTT && n.Probing.Off {
			s.warnf("rloc-probe-prefer-rtt", "round-trip times are measured by RLOC-probing, which is off")
		}
	}
}
