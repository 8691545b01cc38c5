package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/probe"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
)

// The hosts of the demo of proxies. Nothing but the PxTR leads from the web, which
// knows no LISP, to the EIDs. b is a stranger to the PxTR: it takes packets to b
// but none from it.
var (
	proxyA = func() site {
		s := siteA
		s.more = []uplink{{addr: "10.0.6.2", gw: "10.0.6.1"}}
		return s
	}()
	sitePxTR = site{
		name: "pxtr", rloc: [2]string{"10.0.9.2", "fd00:0:0:9::2"}, gw: [2]string{"10.0.9.1", "fd00:0:0:9::1"},
	}
	pxtrSites = []site{multiMS, sitePxTR, proxyA, siteB, siteWeb}
)

var pxtrSteps = []demoStep{
	{"The Map-Server starts, " + handoverDelay.String() + " away", startMapServer, []string{"examples/internal/mapserverd"}},
	{
		"A PxTR and two mobile nodes start, which send what is for no EID to it", startProxied,
		[]string{"examples/internal/conf/modes.go", "examples/internal/node/dataplane.go", "tun/doc.go (Proxy)"},
	},
	{
		"a pings a host without LISP: out by the PETR, back by the PITR", pingOut,
		[]string{"control/proxy.go", "encap/ingress.go (ProxyETR)", "encap/egress.go (ProxyITR)"},
	},
	{"The host without LISP pings a: in by the PITR, back by the PETR", pingIn, []string{"control/proxy.go"}},
	{"b's packets are not among those that the PETR accepts", refuseOthers, []string{"encap/ingress.go"}},
	{
		"a's first uplink is pulled out while datagrams flow both ways: the PITR gets the SMR", proxyHandover,
		append([]string{"control/smr.go"}, lookAtHandover...),
	},
	{"a, b and the PxTR stop: nothing of them is left", stopProxied, []string{"examples/internal/node/node.go (Run)", "tun/cleanup_linux.go"}},
}

// attachProxies has the internet lead to the EIDs by the PxTR.
func (d *demoLab) attachProxies() {
	core := d.hosts["core"]
	core.AddRoute("192.0.2.0/24", sitePxTR.rloc[ipv4])
	core.AddRoute("2001:db8::/32", sitePxTR.rloc[ipv6])
}

// pxtrConfig is the configuration of the PxTR.
func (d *demoLab) pxtrConfig() string {
	return fmt.Sprintf(`# host pxtr of lispmn demo -pxtr
operating-mode = PxTR
debug = 1
control-socket = %q
state-file = %q
map-resolver = { %s }
pxtr {
    pitr-eids = { 192.0.2.0/24, 2001:db8::/32 }
    petr-eids = { %s, %s }
    rloc-iface { interface = eth0 }
}
`, filepath.Join(d.dir, "pxtr.sock"), filepath.Join(d.dir, "pxtr.state"), siteMS.rloc[ipv4], siteA.eid[ipv4], siteA.eid[ipv6])
}

func startProxied(ctx context.Context, d *demoLab) (seen []string, err error) {
	if _, err := d.start(ctx, sitePxTR.name, d.pxtrConfig()); err != nil {
		return nil, err
	}
	if _, err := d.children[sitePxTR.name].ready(ctx); err != nil {
		return nil, err
	}
	mark := d.log.mark()
	for _, s := range []site{proxyA, siteB} {
		config := d.multihomeConfig(s) + fmt.Sprintf("proxy-etr { address = %s }\nproxy-itrs = { %s }\n", sitePxTR.rloc[ipv4], sitePxTR.rloc[ipv4])
		if _, err := d.start(ctx, s.name, config); err != nil {
			return seen, err
		}
	}
	for _, s := range []site{proxyA, siteB} {
		for _, eid := range s.eid {
			_, err := d.log.await(ctx, mark, s.name, "registered", func(e statusd.Event) bool { return strings.Contains(e.Text, eid+"/") })
			if err != nil {
				return seen, fmt.Errorf("%s is not registered for %s: %w", s.name, eid, err)
			}
		}
		seen = append(seen, s.name+" is registered")
	}
	return seen, nil
}

// pingOut pings the web from a.
func pingOut(ctx context.Context, d *demoLab) ([]string, error) {
	return d.pingProxied(ctx, "a", "web", siteWeb.rlocAddr)
}

// pingIn pings a from the web.
func pingIn(ctx context.Context, d *demoLab) ([]string, error) {
	return d.pingProxied(ctx, "web", "a", siteA.eidAddr)
}

func (d *demoLab) pingProxied(ctx context.Context, from, dest string, to func(int) netip.Addr) (seen []string, err error) {
	var f findings
	for family := range siteA.eid {
		before, err := d.traffic(ctx, sitePxTR)
		if err != nil {
			return seen, err
		}
		r, err := d.ping(ctx, from, dest, to(family), "a PxTR")
		if err != nil {
			return seen, err
		}
		after, err := d.traffic(ctx, sitePxTR)
		if err != nil {
			return seen, err
		}
		out := after.Traffic.Decapsulated.Packets - before.Traffic.Decapsulated.Packets
		in := after.Traffic.Encapsulated.Packets - before.Traffic.Encapsulated.Packets
		seen = append(seen, fmt.Sprintf("%s: %d of %d answers; the PETR let %d packets out, the PITR %d in", familyName(family), r.Received, r.Sent, out, in))
		f.check(r.Received == r.Sent, "%s: %d of %d pings were lost %v", familyName(family), r.Sent-r.Received, r.Sent, r.Errors)
		f.check(out >= uint64(r.Sent) && in >= uint64(r.Sent), "%s: %d packets went out and %d in by the PxTR, of %d", familyName(family), out, in, r.Sent)
	}
	n, err := d.traffic(ctx, siteA)
	if err != nil {
		return seen, err
	}
	f.check(n.Traffic.Native.Packets == 0, "a forwarded %d packets natively", n.Traffic.Native.Packets)
	return seen, f.err()
}

// refuseOthers checks that the PETR drops what comes from another EID.
func refuseOthers(ctx context.Context, d *demoLab) ([]string, error) {
	before, err := d.traffic(ctx, sitePxTR)
	if err != nil {
		return nil, err
	}
	conn, err := d.hosts["b"].ListenPacket("udp", net.JoinHostPort(siteB.eid[ipv4], "0"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	for ctx.Err() == nil {
		if _, err := conn.WriteTo([]byte("let me out"), &net.UDPAddr{IP: net.ParseIP(siteWeb.rloc[ipv4]), Port: 9}); err != nil {
			return nil, err
		}
		after, err := d.traffic(ctx, sitePxTR)
		if err != nil {
			return nil, err
		}
		if n := after.Traffic.Drops[dropNotOurEID] - before.Traffic.Drops[dropNotOurEID]; n > 0 {
			return []string{fmt.Sprintf("%d packets dropped: %s", n, dropNotOurEID)}, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil, fmt.Errorf("the PxTR dropped nothing: %w", context.Cause(ctx))
}

// dropNotOurEID is the reason for what a PETR does not accept.
const dropNotOurEID = "not our eid"

// proxyHandover measures how long datagrams between a and the web stay away when
// a loses its first uplink.
func proxyHandover(ctx context.Context, d *demoLab) (seen []string, err error) {
	eid, web := net.JoinHostPort(siteA.eid[ipv4], "7000"), net.JoinHostPort(siteWeb.rloc[ipv4], "7000")
	flows := &streams{}
	for i, way := range []struct{ from, to, src, dst string }{{"a", "web", eid, web}, {"web", "a", web, eid}} {
		// Each direction has ports of its own.
		src, dst := strings.Replace(way.src, "7000", fmt.Sprint(7000+i), 1), strings.Replace(way.dst, "7000", fmt.Sprint(7000+i), 1)
		from, err := d.hosts[way.from].ListenPacket("udp", src)
		if err != nil {
			return seen, err
		}
		to, err := d.hosts[way.to].ListenPacket("udp", dst)
		if err != nil {
			_ = from.Close()
			return seen, err
		}
		flow := probe.StartFlow(from, to, to.LocalAddr(), time.Millisecond)
		defer flow.Stop()
		flows.flows[i] = flow
	}
	d.streams = flows
	defer func() { d.streams = nil }()
	mark := d.log.mark()
	ways, err := handover(unplug("a", "eth0"))(ctx, d)
	for i, w := range ways {
		seen = append(seen, strings.Replace(w, directions[i], []string{"a to web", "web to a"}[i], 1))
	}
	if err != nil {
		return seen, err
	}
	e, err := d.log.await(ctx, mark, sitePxTR.name, "map-request-received", func(e statusd.Event) bool {
		return strings.HasPrefix(e.Text, "SMR for "+siteA.eid[ipv4])
	})
	if err != nil {
		return seen, fmt.Errorf("the PITR got no SMR: %w", err)
	}
	seen = append(seen, "the PITR: "+e.Text)
	n, err := d.traffic(ctx, sitePxTR)
	if err != nil {
		return seen, err
	}
	entry, ok := entryFor(n, siteA.eidAddr(ipv4))
	var f findings
	f.check(ok, "the PITR has no mapping of a")
	moved := false
	for _, l := range entry.RLOCs {
		moved = moved || l.Addr.String() == proxyA.more[0].addr && l.State == "up"
	}
	f.check(moved, "the PITR's mapping of a does not have its second uplink: %v", entry.RLOCs)
	return seen, f.err()
}

func stopProxied(ctx context.Context, d *demoLab) (seen []string, err error) {
	seen, err = d.stopAndCheck(ctx)
	if err != nil {
		return seen, err
	}
	if err := d.children[sitePxTR.name].stop(); err != nil {
		return seen, err
	}
	if err := d.checkClean(sitePxTR); err != nil {
		return seen, err
	}
	return seen, d.children[siteMS.name].stop()
}
