package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// natKeepAlive is how often the nodes of the demo keep their bindings open. By
// default they do it every 25 s, which the demo has no time for.
const natKeepAlive = 2 * time.Second

// natBox is a NAT of the demo: what a node has between itself and the router in
// the middle.
type natBox struct {
	name, behind  string // itself, and the node
	inside        string // its address there, which is the node's router
	outside, next string // its address there, and its router
	random        bool   // its ports: to every peer another one
	carrier       bool   // its router is a NAT, too
}

// The hosts of the demo of NATs: a and b have the same address, behind NATs of
// their own, b's behind that of its provider; c is a public node. a has another uplink, without a NAT, that is not
// plugged in at the start.
var (
	natA = func() site {
		s := siteA
		s.rloc, s.gw = [2]string{"192.168.1.2"}, [2]string{"192.168.1.1"}
		s.more = []uplink{{addr: "198.18.7.2", gw: "198.18.7.1"}}
		return s
	}()
	natB = func() site {
		s := siteB
		s.rloc, s.gw = [2]string{"192.168.1.2"}, [2]string{"192.168.1.1"}
		return s
	}()
	natC = site{
		name: "c", rloc: [2]string{"198.18.6.2"}, gw: [2]string{"198.18.6.1"},
		eid: [2]string{"192.0.2.3", "2001:db8::3"}, key: "what only c knows", registered: "site-c",
	}
	natMS = site{name: siteMS.name, rloc: [2]string{"198.18.3.2"}, gw: [2]string{"198.18.3.1"}}
	rtr1  = site{name: "rtr1", rloc: [2]string{"198.18.4.2"}, gw: [2]string{"198.18.4.1"}, key: "what rtr1 and ms know"}
	rtr2  = site{name: "rtr2", rloc: [2]string{"198.18.5.2"}, gw: [2]string{"198.18.5.1"}, key: "what rtr2 and ms know"}

	natSites = []site{natMS, rtr1, rtr2, natA, natB, natC}
	natRTRs  = []site{rtr1, rtr2}
	natNodes = []site{natA, natB, natC}

	natBoxes = []natBox{
		{name: "nat-a", behind: "a", inside: "192.168.1.1", outside: "198.18.1.2", next: "198.18.1.1", random: true},
		{name: "nat-b", behind: "b", inside: "192.168.1.1", outside: "100.64.0.2", next: "100.64.0.1", carrier: true},
	}
	carrierNAT = natBox{name: "carrier", inside: "100.64.0.1", outside: "198.18.2.2", next: "198.18.2.1"}
)

var lookAtNAT = []string{
	"natt/xtr.go (the node) and natt/rtr.go (the RTR)", "control/nat.go, control/relay.go",
	"encap/relay.go and encap/udp_nat_linux.go (what the RTR sends)", "a capture on every host: run again with -capture DIR",
}

var natSteps = []demoStep{
	{"The Map-Server and two RTRs start", startNATServers, []string{"examples/internal/mapserverd", "examples/internal/rtrd"}},
	{
		"Two nodes behind NATs, with the same address, one behind two of them, and a public one find out what they are and register", registerNATed,
		append([]string{"examples/internal/node/nat.go"}, lookAtNAT...),
	},
	{"Ping a to b: from behind one NAT to behind another", natPing(natA, natB), lookAtNAT},
	{"Ping a to c: out of a NAT, to a public node", natPing(natA, natC), lookAtNAT},
	{"Ping c to b: from a public node into a NAT", natPing(natC, natB), lookAtNAT},
	{"TCP c to a: from a public node into a NAT", natTransfer(natC, natA), lookAtNAT},
	{"TCP and a datagram each millisecond flow between a and b, both ways", startStreams, lookAtNAT},
	{"a's NAT forgets all it knows, as if switched off and on", natChange(flushNAT("nat-a")), lookAtNAT},
	{"The RTR of a and b dies; there is another", natChange(killRTR), lookAtNAT},
	{"a moves out of its NAT, to an uplink without one", natChange(leaveNAT), lookAtNAT},
	{"a moves back behind its NAT", natChange(returnToNAT), lookAtNAT},
	{"The TCP connections have carried all, unchanged", endStreams, lookAtNAT},
	{"The nodes stop: EIDs withdrawn, devices, routes and rules gone", stopNATed, []string{"control/nat.go (withdrawNAT)", "examples/internal/node/node.go (Run)"}},
}

// buildNAT builds the network of the demo of NATs around the router.
func (d *demoLab) buildNAT(core *netlab.Host) error {
	for _, s := range natSites {
		i := slices.IndexFunc(natBoxes, func(b natBox) bool { return b.behind == s.name })
		if i < 0 {
			d.attachNAT(core, s, "to-"+s.name)
			continue
		}
		d.attachNAT(d.buildBox(core, natBoxes[i]), s, "inside")
		for j, u := range s.more {
			if err := d.attachMore(s, j, u); err != nil {
				return err
			}
			d.links[fmt.Sprintf("%s/eth%d", s.name, j+1)].B.Down()
		}
	}
	return d.lab.Err()
}

// attachNAT adds a host with IPv4 only, linked to a router.
func (d *demoLab) attachNAT(router *netlab.Host, s site, name string) {
	h := d.lab.Host(s.name)
	d.hosts[s.name] = h
	d.links[s.name+"/eth0"] = d.lab.Link(h, router, netlab.LinkConfig{
		A:         netlab.End{Name: "eth0", Addrs: []string{s.rloc[ipv4] + "/24"}},
		B:         netlab.End{Name: name, Addrs: []string{s.gw[ipv4] + "/24"}},
		NoOffload: true,
	})
	h.DefaultVia(s.gw[ipv4])
}

// buildBox adds a NAT.
func (d *demoLab) buildBox(core *netlab.Host, b natBox) *netlab.Host {
	next := core
	if b.carrier {
		next = d.buildBox(core, carrierNAT)
	}
	h := d.lab.Router(b.name)
	d.hosts[b.name] = h
	out := d.lab.Link(h, next, netlab.LinkConfig{
		A:         netlab.End{Name: "outside", Addrs: []string{b.outside + "/24"}},
		B:         netlab.End{Name: "to-" + b.name, Addrs: []string{b.next + "/24"}},
		NoOffload: true,
	})
	h.DefaultVia(b.next)
	h.Masquerade(out.A, netlab.NATConfig{RandomPorts: b.random})
	return h
}

// natConfig is the configuration of a node: nothing in it is about NATs but how
// often their bindings are kept open.
func (d *demoLab) natConfig(s site) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# host %s of lispmn demo -nat\n", s.name)
	fmt.Fprintf(&b, "debug = 1\ncontrol-socket = %q\n", filepath.Join(d.dir, s.name+".sock"))
	fmt.Fprintf(&b, "state-file = %q\n", filepath.Join(d.dir, s.name+".state"))
	fmt.Fprintf(&b, "map-resolver = { %s }\n", natMS.rloc[ipv4])
	fmt.Fprintf(&b, "map-server {\n    address = %s\n    key-type = 2    # HMAC-SHA-256-128\n    key = %q\n}\n", natMS.rloc[ipv4], s.key)
	fmt.Fprintf(&b, "nat-traversal {\n    keep-alive = %d    # seconds\n    min-keep-alive = 1\n}\n", natKeepAlive/time.Second)
	for _, eid := range s.eid {
		fmt.Fprintf(&b, "database-mapping {\n    eid-prefix = %s\n", eid)
		for i := range len(s.more) + 1 {
			fmt.Fprintf(&b, "    rloc-iface {\n        interface = eth%d\n        priority = %d\n    }\n", i, i+1)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// natServerConfig is the configuration of the Map-Server.
func (d *demoLab) natServerConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# host ms of lispmn demo -nat\noperating-mode = MS\ndebug = 1\ncontrol-socket = %q\n", filepath.Join(d.dir, natMS.name+".sock"))
	for _, s := range natNodes {
		for _, eid := range s.eid {
			fmt.Fprintf(&b, "lisp-site {\n    name = %s\n    eid-prefix = %s\n    key-type = 2\n    key = %q\n}\n", s.registered, eid, s.key)
		}
	}
	for _, s := range natRTRs {
		fmt.Fprintf(&b, "ms-rtr-node {\n    name = %s\n    address = %s\n    key = %q\n}\n", s.name, s.rloc[ipv4], s.key)
	}
	return b.String()
}

// rtrConfig is the configuration of an RTR.
func (d *demoLab) rtrConfig(s site) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# host %s of lispmn demo -nat\noperating-mode = RTR\ndebug = 1\ncontrol-socket = %q\n", s.name, filepath.Join(d.dir, s.name+".sock"))
	fmt.Fprintf(&b, "map-resolver = { %s }\n", natMS.rloc[ipv4])
	fmt.Fprintf(&b, "rtr-ifaces {\n    rtr-iface {\n        iface = eth0\n    }\n}\nrtr-ms-node {\n    address = %s\n    key = %q\n}\n", natMS.rloc[ipv4], s.key)
	return b.String()
}

func startNATServers(ctx context.Context, d *demoLab) (seen []string, err error) {
	for _, s := range append([]site{natMS}, natRTRs...) {
		config := d.natServerConfig()
		if s.name != natMS.name {
			config = d.rtrConfig(s)
		}
		c, err := d.start(ctx, s.name, config, argMapServer)
		if err != nil {
			return seen, err
		}
		st, err := c.ready(ctx)
		if err != nil {
			return seen, err
		}
		if st.RTR != nil {
			seen = append(seen, fmt.Sprintf("%s is an RTR at %v", s.name, st.RTR.Locals[0].Addr))
		}
	}
	return seen, nil
}

// registerNATed starts the nodes, and waits until each can be reached.
func registerNATed(ctx context.Context, d *demoLab) (seen []string, err error) {
	for _, s := range natNodes {
		if _, err := d.start(ctx, s.name, d.natConfig(s)); err != nil {
			return seen, err
		}
	}
	for _, s := range natNodes {
		want := "registered" // by an RTR
		if s.name == natC.name {
			want = "public"
		}
		b, err := d.binding(ctx, s, want)
		if err != nil {
			return seen, err
		}
		seen = append(seen, fmt.Sprintf("%s at %v: %s", s.name, b.Local, b.Text))
	}
	return seen, d.atRegistry(ctx, natNodes...)
}

// binding waits until a locator of a node is in a state.
func (d *demoLab) binding(ctx context.Context, s site, state string) (statusd.Binding, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		st, err := d.children[s.name].ready(ctx)
		if err != nil {
			return statusd.Binding{}, err
		}
		for _, b := range st.Node.NAT {
			if b.State == state {
				return b, nil
			}
		}
		select {
		case <-ctx.Done():
			return statusd.Binding{}, fmt.Errorf("no locator of %s is %s: %v", s.name, state, st.Node.NAT)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// atRegistry waits until the Map-Server has all EIDs of the sites.
func (d *demoLab) atRegistry(ctx context.Context, sites ...site) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		st, err := d.children[natMS.name].ready(ctx)
		if err != nil {
			return err
		}
		missing := ""
		for _, s := range sites {
			for f := range s.eid {
				if !slices.ContainsFunc(st.MapServer.Registrations, func(e statusd.SiteEntry) bool { return e.Prefix.Addr() == s.eidAddr(f) }) {
					missing = s.eid[f]
				}
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Map-Server does not know %s", missing)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// natPing pings the EIDs of one node from another.
func natPing(from, to site) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) (seen []string, err error) {
		var f findings
		for family := range to.eid {
			r, err := d.ping(ctx, from.name, to.name, to.eidAddr(family), familyName(ipv4))
			if err != nil {
				return seen, err
			}
			_, median := r.MinMedian()
			seen = append(seen, fmt.Sprintf("%s: %d of %d answers, the first after %s, later ones after %s", to.eid[family], r.Received, r.Sent, ms(r.First()), ms(median)))
			f.check(r.Received == r.Sent, "%s: %d of %d pings were lost %v", to.eid[family], r.Sent-r.Received, r.Sent, r.Errors)
			f.check(r.Duplicates == 0, "%s: %d answers came twice", to.eid[family], r.Duplicates)
		}
		relayed, byKernel, err := d.relayed(ctx)
		if err != nil {
			return seen, err
		}
		f.check(relayed > 0, "no RTR has relayed anything")
		text := fmt.Sprintf("the RTRs have relayed %d packets so far", relayed)
		if byKernel != nil {
			f.check(*byKernel > 0, "all that was relayed took the slow path")
			text += fmt.Sprintf(", %d of them in the kernel", *byKernel)
		}
		return append(seen, text), f.err()
	}
}

// relayed counts what all RTRs that run have sent on, and how much of it the kernel
// has; nil if it forwards nothing.
func (d *demoLab) relayed(ctx context.Context) (n uint64, byKernel *uint64, err error) {
	for _, s := range natRTRs {
		if c := d.children[s.name]; c != nil && !c.ended() {
			st, err := c.ready(ctx)
			if err != nil {
				return n, byKernel, err
			}
			n += st.RTR.Traffic.Encapsulated.Packets
			if k := st.RTR.Traffic.Kernel; k != nil {
				sum := k.Encapsulated.Packets
				if byKernel != nil {
					sum += *byKernel
				}
				byKernel = &sum
			}
		}
	}
	return n, byKernel, nil
}

// natTransfer sends data over TCP.
func natTransfer(from, to site) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		address := net.JoinHostPort(to.eid[ipv4], demoPort)
		ln, err := d.hosts[to.name].Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = ln.Close() }()
		go func() { _ = probe.Receive(ctx, ln) }()
		octets := int64(demoOctets)
		if d.opt.capture != "" {
			octets = demoCaptured
		}
		r, err := probe.Transfer(ctx, func(ctx context.Context) (net.Conn, error) {
			return d.hosts[from.name].Dial(ctx, "tcp", address)
		}, octets)
		if err != nil {
			return nil, err
		}
		d.transfers = append(d.transfers, transferReport{path{from.name, to.name, familyName(ipv4), familyName(ipv4)}, r})
		return []string{fmt.Sprintf("%d MiB in %.2f s: %.0f Mbit/s, %d segments sent again", octets>>20, r.Elapsed.Seconds(), r.BitsPerSecond()/1e6, r.Retransmits)}, nil
	}
}

// natChange makes a change to the network and measures how long each direction
// was interrupted.
func natChange(do change) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) ([]string, error) {
		seen, err := handoverNow(do)(ctx, d)
		if err != nil {
			return seen, err
		}
		st, err := d.children[natA.name].ready(ctx)
		if err != nil {
			return seen, err
		}
		for _, b := range st.Node.NAT {
			seen = append(seen, fmt.Sprintf("a at %v: %s", b.Local, b.Text))
		}
		return seen, nil
	}
}

func flushNAT(box string) change {
	return func(_ context.Context, d *demoLab) error {
		d.hosts[box].FlushNAT()
		return d.lab.Err()
	}
}

// killRTR ends the RTR that a goes by, without a word to anybody.
func killRTR(ctx context.Context, d *demoLab) error {
	b, err := d.binding(ctx, natA, "registered")
	if err != nil {
		return err
	}
	for _, s := range natRTRs {
		if s.rlocAddr(ipv4) == b.RTR {
			d.children[s.name].kill()
			return nil
		}
	}
	return fmt.Errorf("a goes by %v, which is no RTR", b.RTR)
}

func leaveNAT(ctx context.Context, d *demoLab) error {
	if err := plugIn("a", "eth1")(ctx, d); err != nil {
		return err
	}
	return unplug("a", "eth0")(ctx, d)
}

func returnToNAT(ctx context.Context, d *demoLab) error {
	if err := plugIn("a", "eth0")(ctx, d); err != nil {
		return err
	}
	return unplug("a", "eth1")(ctx, d)
}

func stopNATed(ctx context.Context, d *demoLab) ([]string, error) {
	if d.opt.keep {
		return []string{"left running, as -keep asks"}, nil
	}
	if err := d.children[natC.name].stop(); err != nil {
		return nil, err
	}
	seen, err := d.stopAndCheck(ctx)
	if err != nil {
		return seen, err
	}
	for _, s := range append(natRTRs, natMS) {
		if c := d.children[s.name]; !c.ended() {
			if err := c.stop(); err != nil {
				return seen, err
			}
		}
	}
	return append(seen, "no lmn0, no rule and no route of ours on a and b"), nil
}
