package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/pprof"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

const (
	envChild = "XTRKIT_DPBENCH_CHILD"
	ready    = "ready\n"
)

// childConfig says what data plane a process is.
type childConfig struct {
	Kind                string
	EID, PeerEID        string
	Many, PeerMany      string // the first of many EIDs
	Local, Remote       string
	Private, PeerPublic string
	CPUProfile          string
	Stats               bool
}

// serveChild is the data plane that the environment asks for, until stdin ends.
// done is false if it asks for none.
func serveChild(stdin io.Reader, stdout io.Writer) (done bool, err error) {
	text, ok := os.LookupEnv(envChild)
	if !ok {
		return false, nil
	}
	var cfg childConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return true, err
	}
	start := startOurs
	if cfg.Kind == "wireguard" {
		start = startWireGuard
	}
	stop, err := start(cfg)
	if err != nil {
		return true, err
	}
	if cfg.CPUProfile != "" {
		f, err := os.Create(cfg.CPUProfile)
		if err != nil {
			return true, err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return true, err
		}
		defer func() {
			pprof.StopCPUProfile()
			_ = f.Close()
		}()
	}
	if _, err := io.WriteString(stdout, ready); err != nil {
		return true, err
	}
	_, err = io.Copy(io.Discard, stdin)
	return true, errors.Join(err, stop())
}

// startOurs starts an xTR that knows the other one.
func startOurs(cfg childConfig) (stop func() error, err error) {
	format := mapcache.FormatLISP
	sockets := encap.UDPConfig{}
	if strings.Contains(cfg.Kind, "-gpe") {
		format = mapcache.FormatGPE
	}
	if inKernel(cfg.Kind) {
		sockets.NoGRO = true
		sockets.ZeroChecksum = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} // as the VXLAN-GPE device
	}
	workers := 1
	if strings.HasSuffix(cfg.Kind, severalQueues) {
		workers = queues
	}
	local, eid := netip.MustParseAddr(cfg.Local), netip.MustParseAddr(cfg.EID)
	cache := mapcache.New(mapcache.Config{})
	if err := fillCache(cache, &cfg, format); err != nil {
		return nil, err
	}
	self := netip.PrefixFrom(eid, eid.BitLen())
	lmn, err := tun.Create(tun.Config{EIDs: []netip.Prefix{self}, Queues: workers})
	if err != nil {
		return nil, err
	}
	sockets.Workers = workers
	underlay, err := encap.NewUDP(sockets)
	if err != nil {
		return nil, errors.Join(err, lmn.Close())
	}
	overlay := encap.Overlay{Device: lmn, EIDs: []netip.Prefix{self, manyPrefix(cfg.Many)}}
	for _, q := range lmn.Queues()[1:] {
		overlay.Queues = append(overlay.Queues, q)
	}
	forwarding := encap.Config{Overlays: []encap.Overlay{overlay}, View: cache.View, Underlay: underlay}
	if inKernel(cfg.Kind) {
		forwarding.SourceCheck = encap.SourceStrict
	}
	f, err := encap.NewForwarder(forwarding)
	if err != nil {
		return nil, errors.Join(err, lmn.Close(), underlay.Close())
	}
	counters, detach := f.Stats, func() error { return nil }
	link, err := linkOf(cfg.Local)
	if err == nil {
		locals := []mapcache.Local{{IfIndex: link.Attrs().Index, Addr: local, Priority: 1, Weight: 1, Up: true}}
		err = lmn.SetLocals([]netip.Addr{local})
		if inKernel(cfg.Kind) && err == nil {
			var d *ebpf.Dataplane
			if d, err = putInKernel(f, forwarding, sockets, cache, locals); err == nil {
				counters, detach = func() encap.Stats { return d.Stats().Stats }, d.Close
			}
		} else {
			err = errors.Join(err, f.SetLocals(locals))
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Run(context.Background()) }()
	return func() error {
		if cfg.Stats {
			showStats(os.Stderr, cfg, counters(), lmn.Stats())
		}
		return errors.Join(detach(), f.Close(), <-ended)
	}, nil
}

// showStats prints what is not zero.
func showStats(w io.Writer, cfg childConfig, s encap.Stats, t tun.Stats) {
	fmt.Fprintf(w, "%s %s: encapsulated %d, decapsulated %d, held %d, device errors: read %d, write %d", cfg.Kind, cfg.EID,
		s.Encapsulated.Packets, s.Decapsulated.Packets, s.Held, t.ReadErrors, t.WriteErrors)
	for i, n := range s.Drops {
		if n != 0 {
			fmt.Fprintf(w, ", dropped (%v) %d", encap.DropReason(i), n)
		}
	}
	fmt.Fprintln(w)
}

// linkOf returns the interface that has an address.
func linkOf(addr string) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if a.IP.String() == addr {
				return l, nil
			}
		}
	}
	return nil, fmt.Errorf("no interface has the address %s", addr)
}

// wireGuardMTU fits into 1500 octets behind outer IPv4, UDP, and WireGuard's
// header and tag.
const wireGuardMTU = 1500 - 20 - 8 - 32

// startWireGuard starts wireguard-go with one peer.
func startWireGuard(cfg childConfig) (stop func() error, err error) {
	const name = "wg0"
	t, err := wgtun.CreateTUN(name, wireGuardMTU)
	if err != nil {
		return nil, err
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, "wireguard-go: "))
	const port = 51820
	err = d.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s:%d\nallowed_ip=%s/32\nallowed_ip=%v\n",
		cfg.Private, port, cfg.PeerPublic, cfg.Remote, port, cfg.PeerEID, manyPrefix(cfg.PeerMany)))
	if err == nil {
		err = d.Up()
	}
	if err == nil {
		err = leadTo(name, cfg.EID, netip.MustParsePrefix(cfg.PeerEID+"/32"), manyPrefix(cfg.PeerMany))
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return func() error {
		d.Close()
		return nil
	}, nil
}

// leadTo sets a device up, gives it an address, and leads packets to others
// through it.
func leadTo(device, addr string, to ...netip.Prefix) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr + "/32")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return err
	}
	for _, p := range to {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(p), Scope: netlink.SCOPE_LINK, Src: a.IP}); err != nil {
			return err
		}
	}
	return nil
}
