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
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/xtrkit/xtrkit/encap"
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
	if strings.HasPrefix(cfg.Kind, "lisp-gpe") {
		format = mapcache.FormatGPE
	}
	workers := 1
	if strings.HasSuffix(cfg.Kind, severalQueues) {
		workers = queues
	}
	local, eid := netip.MustParseAddr(cfg.Local), netip.MustParseAddr(cfg.EID)
	cache := mapcache.New(mapcache.Config{})
	err = cache.Insert(time.Now(), mapcache.Mapping{
		Key: mapcache.HostKey(0, netip.MustParseAddr(cfg.PeerEID)), TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr(cfg.Remote), Format: format}, Priority: 1, Weight: 1}},
	})
	if err != nil {
		return nil, err
	}
	cache.Publish()
	self := netip.PrefixFrom(eid, eid.BitLen())
	lmn, err := tun.Create(tun.Config{EIDs: []netip.Prefix{self}, Queues: workers})
	if err != nil {
		return nil, err
	}
	underlay, err := encap.NewUDP(encap.UDPConfig{Workers: workers})
	if err != nil {
		return nil, errors.Join(err, lmn.Close())
	}
	overlay := encap.Overlay{Device: lmn, EIDs: []netip.Prefix{self}}
	for _, q := range lmn.Queues()[1:] {
		overlay.Queues = append(overlay.Queues, q)
	}
	f, err := encap.NewForwarder(encap.Config{Overlays: []encap.Overlay{overlay}, View: cache.View, Underlay: underlay})
	if err != nil {
		return nil, errors.Join(err, lmn.Close(), underlay.Close())
	}
	link, err := linkOf(cfg.Local)
	if err == nil {
		err = errors.Join(lmn.SetLocals([]netip.Addr{local}),
			f.SetLocals([]mapcache.Local{{IfIndex: link.Attrs().Index, Addr: local, Priority: 1, Weight: 1, Up: true}}))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Run(context.Background()) }()
	return func() error {
		if cfg.Stats {
			showStats(os.Stderr, cfg, f.Stats(), lmn.Stats())
		}
		return errors.Join(f.Close(), <-ended)
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
	err = d.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s:%d\nallowed_ip=%s/32\n",
		cfg.Private, port, cfg.PeerPublic, cfg.Remote, port, cfg.PeerEID))
	if err == nil {
		err = d.Up()
	}
	if err == nil {
		err = leadTo(name, cfg.EID, cfg.PeerEID)
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

// leadTo sets a device up, gives it an address, and leads packets to another
// through it.
func leadTo(device, addr, to string) error {
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
	dst, err := netlink.ParseIPNet(to + "/32")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK})
}
