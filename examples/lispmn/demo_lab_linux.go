package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
)

// resolverDelay is how long a packet takes to or from the Map-Server, so that
// a mapping takes at least twice that: the time that first packets are held.
const resolverDelay = 100 * time.Millisecond

// site is a host of the demo: where it is, and for a mobile node who it is.
type site struct {
	name       string
	rloc, gw   [2]string // address and router, IPv4 and IPv6
	eid        [2]string // its EIDs; empty: none
	delay      time.Duration
	key        string // what it signs with
	registered string // what its EIDs are registered under at the Map-Server
	more       []uplink
}

// uplink is a further interface of a site.
type uplink struct {
	addr, gw string
	later    bool // it is not there at the start
}

// The hosts around the router. The stranger claims to be b.
var (
	siteA = site{
		name: "a", rloc: [2]string{"10.0.1.2", "fd00:0:0:1::2"}, gw: [2]string{"10.0.1.1", "fd00:0:0:1::1"},
		eid: [2]string{"192.0.2.1", "2001:db8::1"}, key: "what only a knows", registered: "site-a",
	}
	siteB = site{
		name: "b", rloc: [2]string{"10.0.2.2", "fd00:0:0:2::2"}, gw: [2]string{"10.0.2.1", "fd00:0:0:2::1"},
		eid: [2]string{"192.0.2.2", "2001:db8::2"}, key: "what only b knows", registered: "site-b",
	}
	siteMS = site{
		name: "ms", rloc: [2]string{"10.0.3.2", "fd00:0:0:3::2"}, gw: [2]string{"10.0.3.1", "fd00:0:0:3::1"},
		delay: resolverDelay,
	}
	siteStranger = site{
		name: "stranger", rloc: [2]string{"10.0.4.2", "fd00:0:0:4::2"}, gw: [2]string{"10.0.4.1", "fd00:0:0:4::1"},
		eid: siteB.eid, key: "a guess",
	}
	siteWeb = site{
		name: "web", rloc: [2]string{"198.51.100.80", "fd00:0:0:5::80"}, gw: [2]string{"198.51.100.1", "fd00:0:0:5::1"},
	}
	demoSites = []site{siteA, siteB, siteMS, siteStranger, siteWeb}
)

// IPv4 and IPv6 index the addresses of a site.
const (
	ipv4 = 0
	ipv6 = 1
)

func (s site) eidAddr(family int) netip.Addr  { return netip.MustParseAddr(s.eid[family]) }
func (s site) rlocAddr(family int) netip.Addr { return netip.MustParseAddr(s.rloc[family]) }

// demoLab is the network of the demo and the programs in it.
type demoLab struct {
	opt      demoOptions
	dir      string // configurations, sockets and logs
	lab      *netlab.Lab
	hosts    map[string]*netlab.Host
	children map[string]*child
	links    map[string]*netlab.Link // of sites to the router: a/eth0
	captures []*netlab.Capture
	log      *eventLog
	streams  *streams // of the demos of handovers and of NATs
	quiet    time.Duration
	sites    []site

	pings     []pingReport
	transfers []transferReport
	nodes     []nodeReport
	registry  []registryReport
}

// newDemoLab builds the network: a router in the middle, a link to each host.
func newDemoLab(ctx context.Context, opt demoOptions, live io.Writer) (*demoLab, error) {
	sweepDead()
	dir, err := os.MkdirTemp(statusd.TempDir(), fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return nil, err
	}
	d := &demoLab{
		opt: opt, dir: dir, quiet: quiet, lab: netlab.New(context.WithoutCancel(ctx)),
		hosts: map[string]*netlab.Host{}, children: map[string]*child{}, links: map[string]*netlab.Link{}, log: newEventLog(live),
	}
	core := d.lab.Router("core")
	d.hosts["core"] = core
	d.sites = demoSites
	switch {
	case opt.multihome:
		d.sites = multihomeSites
	case opt.pxtr:
		d.sites = pxtrSites
	case opt.nat:
		d.sites = natSites
		return d.complete(d.buildNAT(core))
	}
	for _, s := range d.sites {
		d.attach(core, s)
		for i, u := range s.more {
			if !u.later {
				err = errors.Join(err, d.attachMore(s, i, u))
			}
		}
	}
	// The internet knows how to reach a's EIDs where a is now, so that hosts
	// without LISP can answer a. Nothing but LISP leads to b's EIDs.
	if opt.pxtr {
		d.attachProxies()
		return d.complete(err)
	}
	core.AddRoute(siteA.eid[ipv4]+"/32", siteA.rloc[ipv4])
	core.AddRoute(siteA.eid[ipv6]+"/128", siteA.rloc[ipv6])
	return d.complete(err)
}

// complete is the end of newDemoLab, whatever was built.
func (d *demoLab) complete(err error) (*demoLab, error) {
	err = errors.Join(err, d.lab.Err())
	if err == nil && d.opt.capture != "" {
		err = d.startCaptures()
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

const dirPrefix = "lispmn-demo-" // and the process id, of the directory of a demo

// sweepDead removes the directories of demos that were killed: there are keys in
// them.
func sweepDead() {
	dirs, _ := filepath.Glob(filepath.Join(statusd.TempDir(), dirPrefix+"*"))
	for _, d := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(d), dirPrefix), "-")
		if pid, err := strconv.Atoi(owner); err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = os.RemoveAll(d)
		}
	}
}

// attach adds a host, linked to the router.
func (d *demoLab) attach(core *netlab.Host, s site) {
	h := d.lab.Host(s.name)
	d.hosts[s.name] = h
	d.links[s.name+"/eth0"] = d.lab.Link(h, core, netlab.LinkConfig{
		A:     netlab.End{Name: "eth0", Addrs: []string{s.rloc[ipv4] + "/24", s.rloc[ipv6] + "/64"}},
		B:     netlab.End{Name: "to-" + s.name, Addrs: []string{s.gw[ipv4] + "/24", s.gw[ipv6] + "/64"}},
		Delay: s.delay,
		Relay: d.opt.relayed == s.name,
		// Whoever looks in between shall see what a wire carries, not packets that
		// are still to be cut and have no checksum yet.
		NoOffload: true,
	})
	h.DefaultVia(s.gw[ipv4], s.gw[ipv6])
}

func (d *demoLab) startCaptures() error {
	if err := os.MkdirAll(d.opt.capture, 0o755); err != nil {
		return err
	}
	for _, h := range d.lab.Hosts() {
		c, err := h.Capture(d.opt.captureFile(h.Name()))
		if err != nil {
			return err
		}
		d.captures = append(d.captures, c)
	}
	return nil
}

// names lists the hosts that run a program, in a fixed order.
func (d *demoLab) names() []string {
	var names []string
	for _, s := range d.sites {
		if d.children[s.name] != nil {
			names = append(names, s.name)
		}
	}
	return names
}

// logs names the files that may explain a failure.
func (d *demoLab) logs() []string {
	var ls []string
	for _, name := range d.names() {
		if tail := d.children[name].logTail(5); tail != "" {
			ls = append(ls, fmt.Sprintf("the log of %s, which ends:\n%s", name, tail))
		}
	}
	return ls
}

// close ends the programs and removes the network.
func (d *demoLab) close() error {
	var errs []error
	for _, c := range slices.Backward(d.captures) {
		errs = append(errs, c.Stop())
	}
	for _, c := range d.children {
		c.forget()
	}
	errs = append(errs, d.lab.Close(), os.RemoveAll(d.dir))
	return errors.Join(errs...)
}
