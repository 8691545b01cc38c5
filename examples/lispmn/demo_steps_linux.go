package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// demoStep is one thing that the demo shows and checks.
type demoStep struct {
	name string
	// do returns what it saw, and an error that says what was wrong with it.
	do func(context.Context, *demoLab) (seen []string, err error)
	// where says what to look at when it fails.
	where []string
}

// demoSteps are the steps in their order. A first packet must go to an EID that
// the sender has no mapping of, so each pair of pings and transfers begins with
// another kind.
var demoSteps = []demoStep{
	{
		"The Map-Server starts, behind a link that delays everything by " + resolverDelay.String() + " each way", startMapServer,
		[]string{"examples/internal/mapserverd"},
	},
	{
		"Two mobile nodes register their EIDs, signed with HMAC-SHA-256-128", registerNodes(ipv4),
		[]string{"control/register.go and control/handle_mapnotify.go (the nodes)", "control/mapserver/register.go (the Map-Server)"},
	},
	{
		"A stranger claims b's EIDs, with a wrong key, and is refused", refuseStranger,
		[]string{"control/mapserver/register.go"},
	},
	{"Ping a to b, IPv4 EIDs over IPv4 locators; the first packet waits for the mapping", firstPing(ipv4, ipv4), lookAtPath},
	{"TCP a to b, IPv4 EIDs over IPv4 locators", transferStep(ipv4, ipv4, false), lookAtPath},
	{"TCP a to b, IPv6 EIDs over IPv4 locators; the first SYN waits for the mapping", transferStep(ipv6, ipv4, true), lookAtPath},
	{"Ping a to b, IPv6 EIDs over IPv4 locators", laterPing(ipv6, ipv4), lookAtPath},
	{
		"Ping a host without LISP: packets leave as they are, from the EID", nativePing,
		[]string{"control/handle_mapreply.go (the negative Map-Reply)", "encap/native_linux.go", "the route back: ip route on core"},
	},
	{
		"Both nodes move to IPv6 locators: withdraw, restart, register", moveToIPv6,
		[]string{"control/register.go (Withdraw)"},
	},
	{"TCP a to b, IPv4 EIDs over IPv6 locators; the first SYN waits for the mapping", transferStep(ipv4, ipv6, true), lookAtPath},
	{"Ping a to b, IPv4 EIDs over IPv6 locators", laterPing(ipv4, ipv6), lookAtPath},
	{"Ping a to b, IPv6 EIDs over IPv6 locators; the first packet waits for the mapping", firstPing(ipv6, ipv6), lookAtPath},
	{"TCP a to b, IPv6 EIDs over IPv6 locators", transferStep(ipv6, ipv6, false), lookAtPath},
	{
		"The nodes stop: EIDs withdrawn, devices, routes and rules gone", stopNodes,
		[]string{"examples/internal/node/node.go (Run)", "tun/cleanup_linux.go"},
	},
}

var lookAtPath = []string{
	"control/resolve.go and control/handle_mapreply.go (the mapping)", "encap/hold.go (packets that wait)",
	"encap/egress.go and encap/ingress.go", "a capture on every host: run again with -capture DIR",
}

func startMapServer(ctx context.Context, d *demoLab) ([]string, error) {
	c, err := d.start(ctx, siteMS.name, d.mapServerConfig(), argMapServer)
	if err != nil {
		return nil, err
	}
	st, err := c.ready(ctx)
	if err != nil {
		return nil, err
	}
	if len(st.MapServer.Sites) != 2 || len(st.MapServer.Registrations) != 0 {
		return nil, fmt.Errorf("it has %d sites and %d registrations, not 2 and 0", len(st.MapServer.Sites), len(st.MapServer.Registrations))
	}
	return []string{fmt.Sprintf("%d sites, nothing registered", len(st.MapServer.Sites))}, nil
}

// registerNodes starts a and b and waits until both have a verified Map-Notify
// and the Map-Server has their EIDs at their locators of the family.
func registerNodes(family int) func(context.Context, *demoLab) ([]string, error) {
	return func(ctx context.Context, d *demoLab) (seen []string, err error) {
		mark := d.log.mark()
		for _, s := range []site{siteA, siteB} {
			if _, err := d.start(ctx, s.name, d.nodeConfig(s, family)); err != nil {
				return seen, err
			}
		}
		for _, s := range []site{siteA, siteB} {
			if _, err := d.children[s.name].ready(ctx); err != nil {
				return seen, err
			}
			if err := d.registered(ctx, mark, s, family); err != nil {
				return seen, err
			}
			seen = append(seen, fmt.Sprintf("%s has verified Map-Notifies for %s and %s at %s", s.name, s.eid[ipv4], s.eid[ipv6], s.rloc[family]))
		}
		return seen, nil
	}
}

// registered waits until the EIDs of s are acknowledged, and checks both sides.
func (d *demoLab) registered(ctx context.Context, mark int, s site, family int) error {
	for _, eid := range s.eid {
		_, err := d.log.await(ctx, mark, s.name, "registered", func(e statusd.Event) bool { return strings.Contains(e.Text, eid+"/") })
		if err != nil {
			return fmt.Errorf("%s is not registered for %s: %w", s.name, eid, err)
		}
	}
	st, err := d.children[s.name].ready(ctx)
	if err != nil {
		return err
	}
	for _, r := range st.Node.Registrations {
		if r.State != "registered" {
			return fmt.Errorf("%s: registration of %v is %s: %s", s.name, r.EIDs, r.State, r.LastError)
		}
	}
	return d.checkRegistry(ctx, s, family)
}

// checkRegistry checks that the Map-Server has the EIDs of s at its locator, and nowhere else.
func (d *demoLab) checkRegistry(ctx context.Context, s site, family int) error {
	st, err := d.children[siteMS.name].ready(ctx)
	if err != nil {
		return err
	}
	for f := range s.eid {
		i := slices.IndexFunc(st.MapServer.Registrations, func(e statusd.SiteEntry) bool { return e.Prefix.Addr() == s.eidAddr(f) })
		if i < 0 {
			return fmt.Errorf("the Map-Server does not know %s", s.eid[f])
		}
		e := st.MapServer.Registrations[i]
		if len(e.RLOCs) != 1 || e.RLOCs[0].Addr != s.rlocAddr(family) || e.From != s.rlocAddr(family) {
			return fmt.Errorf("the Map-Server has %s from %s at %v, not at %s alone", s.eid[f], e.From, e.RLOCs, s.rloc[family])
		}
	}
	return nil
}

func refuseStranger(ctx context.Context, d *demoLab) ([]string, error) {
	mark := d.log.mark()
	c, err := d.start(ctx, siteStranger.name, d.nodeConfig(siteStranger, ipv4))
	if err != nil {
		return nil, err
	}
	if _, err := c.ready(ctx); err != nil {
		return nil, err
	}
	refused, err := d.log.await(ctx, mark, siteMS.name, "refused", func(e statusd.Event) bool {
		var data struct{ From netip.AddrPort }
		return e.Decode(&data) == nil && data.From.Addr() == siteStranger.rlocAddr(ipv4) && strings.Contains(e.Text, "authentication")
	})
	if err != nil {
		return nil, err
	}
	st, err := c.ready(ctx)
	if err != nil {
		return nil, err
	}
	seen := []string{refused.Text}
	for _, r := range st.Node.Registrations {
		if r.State == "registered" {
			return seen, fmt.Errorf("the stranger believes that %v are registered", r.EIDs)
		}
		seen = append(seen, fmt.Sprintf("the stranger's own view: %v %s", r.EIDs, r.State))
	}
	if err := d.checkRegistry(ctx, siteB, ipv4); err != nil {
		return seen, err
	}
	seen = append(seen, "b's registration is untouched")
	return seen, c.stop()
}

func moveToIPv6(ctx context.Context, d *demoLab) ([]string, error) {
	if err := d.snapshot(ctx, familyName(ipv4)); err != nil {
		return nil, err
	}
	seen, err := d.stopAndCheck(ctx)
	if err != nil {
		return seen, err
	}
	more, err := registerNodes(ipv6)(ctx, d)
	return append(seen, more...), err
}

func stopNodes(ctx context.Context, d *demoLab) ([]string, error) {
	if err := d.snapshot(ctx, familyName(ipv6)); err != nil {
		return nil, err
	}
	if d.opt.keep {
		return []string{"left running, as -keep asks"}, nil
	}
	seen, err := d.stopAndCheck(ctx)
	if err != nil {
		return seen, err
	}
	return append(seen, "no lmn0, no rule and no route of ours on a and b"), d.children[siteMS.name].stop()
}

// stopAndCheck ends both nodes and checks that nothing of them is left.
func (d *demoLab) stopAndCheck(ctx context.Context) (seen []string, err error) {
	mark := d.log.mark()
	for _, s := range []site{siteA, siteB} {
		if err := d.children[s.name].stop(); err != nil {
			return seen, err
		}
		for _, eid := range s.eid {
			_, err := d.log.await(ctx, mark, siteMS.name, "withdrawn", func(e statusd.Event) bool { return strings.Contains(e.Text, eid+"/") })
			if err != nil {
				return seen, fmt.Errorf("the Map-Server does not say that %s is withdrawn: %w", eid, err)
			}
		}
		if err := d.checkClean(s); err != nil {
			return seen, err
		}
		seen = append(seen, fmt.Sprintf("%s withdrew %s and %s", s.name, s.eid[ipv4], s.eid[ipv6]))
	}
	st, err := d.children[siteMS.name].ready(ctx)
	if err != nil {
		return seen, err
	}
	if n := len(st.MapServer.Registrations); n != 0 {
		return seen, fmt.Errorf("the Map-Server still has %d registrations", n)
	}
	return seen, nil
}

// checkClean checks that a host has no device, rule or route of a node any more.
func (d *demoLab) checkClean(s site) error {
	nl := d.hosts[s.name].Netlink()
	links, err := nl.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Type() == "tuntap" {
			return fmt.Errorf("%s still has the device %s", s.name, l.Attrs().Name)
		}
	}
	for _, family := range []int{familyINET, familyINET6} {
		rules, err := nl.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if p := r.Priority; p != 0 && p < 32766 {
				return fmt.Errorf("%s still has the rule %v", s.name, r)
			}
		}
	}
	return nil
}

// findings collects what is wrong with what a step saw.
type findings []error

func (f *findings) check(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}

func (f findings) err() error { return errors.Join(f...) }

func familyName(family int) string {
	if family == ipv4 {
		return "IPv4"
	}
	return "IPv6"
}

// traffic asks a node for what its data plane has counted.
func (d *demoLab) traffic(ctx context.Context, s site) (statusd.Node, error) {
	st, err := d.children[s.name].ready(ctx)
	if err != nil {
		return statusd.Node{}, err
	}
	return *st.Node, nil
}

// heldFor is the least time a packet waits for a mapping: there and back.
const heldFor = 2 * resolverDelay

// toLocator counts what a node sent to a locator.
func toLocator(n statusd.Node, a netip.Addr) (out, in uint64) {
	for _, l := range n.Traffic.Locators {
		if l.Addr == a {
			out, in = out+l.Out.Packets, in+l.In.Packets
		}
	}
	return out, in
}

// entryFor returns the map-cache entry that covers an address.
func entryFor(n statusd.Node, a netip.Addr) (statusd.Entry, bool) {
	for _, e := range n.MapCache {
		if e.Prefix.Contains(a) {
			return e, true
		}
	}
	return statusd.Entry{}, false
}

// checkTunnelled checks that a has the mapping of b's EID, and that at least
// packets went to b's locator and came back from it.
func (f *findings) checkTunnelled(before, after statusd.Node, eid netip.Addr, over int, packets uint64) {
	e, ok := entryFor(after, eid)
	rloc := siteB.rlocAddr(over)
	f.check(ok && len(e.RLOCs) == 1 && e.RLOCs[0].Addr == rloc, "a's map-cache has for %v: %v %v, not %v", eid, e.Prefix, e.RLOCs, rloc)
	outBefore, inBefore := toLocator(before, rloc)
	out, in := toLocator(after, rloc)
	f.check(out-outBefore >= packets && in-inBefore >= packets, "only %d packets went to %v and %d came from it", out-outBefore, rloc, in-inBefore)
}
