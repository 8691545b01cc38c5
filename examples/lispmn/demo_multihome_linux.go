package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// handoverDelay is how far away the Map-Server is when handovers are measured.
const handoverDelay = 10 * time.Millisecond

// quiet is how long nothing may change before a handover that is measured: what
// follows closer is held back by the limits of the protocol (RFC 9301 §6.1).
const quiet = 5 * time.Second

// The hosts of the demo of handovers: both nodes have two uplinks, and a gets a
// third one while it talks.
var (
	multiA = func() site {
		s := siteA
		s.more = []uplink{{addr: "10.0.6.2", gw: "10.0.6.1"}, {addr: "10.0.8.2", gw: "10.0.8.1", later: true}}
		return s
	}()
	multiB = func() site {
		s := siteB
		s.more = []uplink{{addr: "10.0.7.2", gw: "10.0.7.1"}}
		return s
	}()
	multiMS = func() site {
		s := siteMS
		s.delay = handoverDelay
		return s
	}()
	// The Map-Server comes first, so that no two ends of a link have the same
	// interface index: the kernel tells of a lost carrier up to a second later then.
	multihomeSites = []site{multiMS, multiA, multiB}
)

// renumbered is the address that a's first uplink changes to.
const renumbered = "10.0.1.3"

var multihomeSteps = []demoStep{
	{"The Map-Server starts, " + handoverDelay.String() + " away", startMapServer, []string{"examples/internal/mapserverd"}},
	{
		"Two mobile nodes register, each with two uplinks", registerMultihomed,
		[]string{"multihome/state.go (what is usable)", "examples/internal/node/uplinks.go", "control/register.go"},
	},
	{"TCP and a datagram each millisecond flow between them, both ways", startStreams, lookAtPath},
	{"a's first uplink is pulled out", handover(unplug("a", "eth0")), lookAtHandover},
	{"a's first uplink is back", handover(plugIn("a", "eth0")), lookAtHandover},
	{"a's first uplink gets another address", handover(renumber), lookAtHandover},
	{"b's first uplink loses its default route", handover(loseRoute), lookAtHandover},
	{"b's first uplink has its default route again", handover(regainRoute), lookAtHandover},
	{"a's first uplink goes silent: RLOC-probing finds out", handover(silence), append([]string{"control/probe.go"}, lookAtHandover...)},
	{"a gets a third uplink, and loses the first two", handover(thirdUplink), lookAtHandover},
	{"The TCP connections have carried all, unchanged", endStreams, lookAtPath},
	{"The nodes stop: EIDs withdrawn, devices, routes and rules gone", stopMultihomed, []string{"examples/internal/node/node.go (Run)", "multihome/routing_linux.go", "tun/cleanup_linux.go"}},
}

var lookAtHandover = []string{
	"multihome/state.go (what is usable)", "examples/internal/node/uplinks.go", "control/register.go and control/smr.go",
	"encap/locals.go (the locators that the data plane uses)", "ip rule and ip route show table all, in a node",
}

// attachMore adds a further uplink, less preferred than those before.
func (d *demoLab) attachMore(s site, i int, u uplink) error {
	h, name := d.hosts[s.name], fmt.Sprintf("eth%d", i+1)
	d.links[s.name+"/"+name] = d.lab.Link(h, d.hosts["core"], netlab.LinkConfig{
		A:         netlab.End{Name: name, Addrs: []string{u.addr + "/24"}},
		B:         netlab.End{Name: fmt.Sprintf("to-%s%d", s.name, i+1), Addrs: []string{u.gw + "/24"}},
		NoOffload: true,
		Relay:     d.opt.relayed == s.name,
	})
	if err := d.lab.Err(); err != nil {
		return err
	}
	return d.defaultRoute(s.name, u.gw, 100*(i+1))
}

// defaultRoute adds a default route with a metric.
func (d *demoLab) defaultRoute(host, gw string, metric int) error {
	err := d.hosts[host].Netlink().RouteReplace(&netlink.Route{Gw: net.ParseIP(gw), Priority: metric})
	if err != nil {
		return fmt.Errorf("%s: default route via %s: %w", host, gw, err)
	}
	return nil
}

// multihomeConfig is the configuration of a node with several uplinks, the first
// of which is preferred.
func (d *demoLab) multihomeConfig(s site) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# host %s of lispmn demo -multihome\n", s.name)
	fmt.Fprintf(&b, "debug = 1\ncontrol-socket = %q\n", filepath.Join(d.dir, s.name+".sock"))
	fmt.Fprintf(&b, "state-file = %q\n", filepath.Join(d.dir, s.name+".state"))
	fmt.Fprintf(&b, "map-resolver = { %s }\n", siteMS.rloc[ipv4])
	fmt.Fprintf(&b, "map-server {\n    address = %s\n    key-type = 2    # HMAC-SHA-256-128\n    key = %q\n}\n", siteMS.rloc[ipv4], s.key)
	b.WriteString("rloc-probing {\n    rloc-probe-interval = 2\n    rloc-probe-retries = 1\n    rloc-probe-retries-interval = 1\n}\n")
	for _, eid := range s.eid {
		fmt.Fprintf(&b, "database-mapping {\n    eid-prefix = %s\n", eid)
		for i := range len(s.more) + 1 {
			fmt.Fprintf(&b, "    rloc-iface {\n        interface = eth%d\n        priority = %d\n    }\n", i, i+1)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func registerMultihomed(ctx context.Context, d *demoLab) (seen []string, err error) {
	mark := d.log.mark()
	for _, s := range []site{multiA, multiB} {
		if _, err := d.start(ctx, s.name, d.multihomeConfig(s)); err != nil {
			return seen, err
		}
	}
	for _, s := range []site{multiA, multiB} {
		if _, err := d.children[s.name].ready(ctx); err != nil {
			return seen, err
		}
		for _, eid := range s.eid {
			_, err := d.log.await(ctx, mark, s.name, "registered", func(e statusd.Event) bool { return strings.Contains(e.Text, eid+"/") })
			if err != nil {
				return seen, fmt.Errorf("%s is not registered for %s: %w", s.name, eid, err)
			}
		}
		seen = append(seen, fmt.Sprintf("%s has verified Map-Notifies for %s and %s at %s and %s", s.name, s.eid[ipv4], s.eid[ipv6], s.rloc[ipv4], s.more[0].addr))
	}
	return seen, nil
}

// streams is the conversation that goes on during the handovers.
type streams struct {
	flows  [2]*probe.Flow // from a, from b
	paced  [2]*probe.Paced
	cancel context.CancelFunc
}

var directions = [2]string{"a to b", "b to a"}

func startStreams(ctx context.Context, d *demoLab) (seen []string, err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.streams = &streams{cancel: cancel}
	ends := [2]site{multiA, multiB}
	for i := range ends {
		from, to := ends[i], ends[1-i]
		out, err := d.hosts[from.name].ListenPacket("udp", net.JoinHostPort(from.eid[ipv4], "49201"))
		if err != nil {
			return seen, err
		}
		in, err := d.hosts[to.name].ListenPacket("udp", net.JoinHostPort(to.eid[ipv4], "49202"))
		if err != nil {
			return seen, err
		}
		f := probe.StartFlow(out, in, in.LocalAddr(), time.Millisecond)
		d.streams.flows[i] = f
		if _, err := f.Outage(ctx, time.Now()); err != nil {
			return seen, err
		}
		// TCP over IPv6 EIDs.
		address := net.JoinHostPort(to.eid[ipv6], demoPort)
		ln, err := d.hosts[to.name].Listen("tcp", address)
		if err != nil {
			return seen, err
		}
		context.AfterFunc(ctx, func() { _ = ln.Close() })
		go func() { _ = probe.Receive(ctx, ln) }()
		c, err := d.hosts[from.name].Dial(ctx, "tcp", address)
		if err != nil {
			return seen, err
		}
		d.streams.paced[i] = probe.StartPaced(c, 64<<10, 10*time.Millisecond)
		seen = append(seen, directions[i]+": "+c.RemoteAddr().String())
	}
	return seen, nil
}

// change is something that happens to the network.
type change func(ctx context.Context, d *demoLab) error

// handover makes a change after a time of quiet, and measures how long each
// direction was interrupted.
func handover(do change) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) (seen []string, err error) {
		select {
		case <-time.After(d.quiet):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		return handoverNow(do)(ctx, d)
	}
}

// handoverNow is handover without the time of quiet.
func handoverNow(do change) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) (seen []string, err error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		since := time.Now()
		if err := do(ctx, d); err != nil {
			return nil, err
		}
		for i, f := range d.streams.flows {
			gap, err := f.Outage(ctx, since)
			if err != nil {
				return seen, fmt.Errorf("%s: %w", directions[i], err)
			}
			seen = append(seen, fmt.Sprintf("%s: interrupted for %s", directions[i], ms(gap)))
		}
		return seen, nil
	}
}

// unplug takes the other end of a link down: the carrier is gone.
func unplug(host, name string) change {
	return func(_ context.Context, d *demoLab) error {
		d.links[host+"/"+name].B.Down()
		return d.lab.Err()
	}
}

func plugIn(host, name string) change {
	return func(_ context.Context, d *demoLab) error {
		d.links[host+"/"+name].B.Up()
		return d.lab.Err()
	}
}

func renumber(_ context.Context, d *demoLab) error {
	a := d.links["a/eth0"].A
	a.DelAddr(multiA.rloc[ipv4] + "/24")
	a.AddAddr(renumbered + "/24")
	if err := d.lab.Err(); err != nil {
		return err
	}
	return d.defaultRoute("a", multiA.gw[ipv4], 0)
}

func loseRoute(_ context.Context, d *demoLab) error {
	everything := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	return d.hosts["b"].Netlink().RouteDel(&netlink.Route{Dst: everything, Gw: net.ParseIP(multiB.gw[ipv4])})
}

func regainRoute(_ context.Context, d *demoLab) error {
	return d.defaultRoute("b", multiB.gw[ipv4], 0)
}

// silence makes the router drop what is for a's first uplink, without a word.
func silence(_ context.Context, d *demoLab) error {
	return d.hosts["core"].Netlink().RouteAdd(&netlink.Route{
		Dst: &net.IPNet{IP: net.ParseIP(renumbered), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_BLACKHOLE,
	})
}

func thirdUplink(ctx context.Context, d *demoLab) error {
	mark := d.log.mark()
	if err := d.attachMore(multiA, 1, multiA.more[1]); err != nil {
		return err
	}
	_, err := d.log.await(ctx, mark, siteMS.name, "registered", func(e statusd.Event) bool {
		return strings.Contains(e.Text, multiA.more[1].addr)
	})
	if err != nil {
		return err
	}
	if err := unplug("a", "eth0")(ctx, d); err != nil {
		return err
	}
	return unplug("a", "eth1")(ctx, d)
}

func endStreams(ctx context.Context, d *demoLab) (seen []string, err error) {
	var f findings
	for i := range directions {
		d.streams.flows[i].Stop()
		r, err := d.streams.paced[i].Finish(ctx)
		if err != nil {
			return seen, err
		}
		seen = append(seen, fmt.Sprintf("%s: %d MiB in one connection, %d segments sent again; %d datagrams lost", directions[i], r.Octets>>20, r.Retransmits, d.streams.flows[i].Lost()))
		f.check(r.Octets > 0, "%s: nothing was sent", directions[i])
	}
	d.streams.cancel()
	return seen, f.err()
}

func stopMultihomed(ctx context.Context, d *demoLab) ([]string, error) {
	if d.opt.keep {
		return []string{"left running, as -keep asks"}, nil
	}
	seen, err := d.stopAndCheck(ctx)
	if err != nil {
		return seen, err
	}
	return append(seen, "no lmn0, no rule and no route of ours on a and b"), d.children[siteMS.name].stop()
}
