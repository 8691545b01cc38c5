package ebpf_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// A Dataplane in front of a Forwarder: what is given to a control.Runner, in the place
// of the Forwarder alone. It takes root, so this example is not run.
func ExampleNew() {
	if err := ebpf.Probe(); err != nil {
		fmt.Println("user space only:", err)
		return
	}
	eid := netip.MustParsePrefix("192.0.2.1/32")
	device, err := tun.Create(tun.Config{EIDs: []netip.Prefix{eid}})
	if err != nil {
		fmt.Println(err)
		return
	}
	cache := mapcache.New(mapcache.Config{})
	sockets := encap.UDPConfig{NoGRO: true}
	underlay, err := encap.NewUDP(sockets)
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := encap.Config{
		Overlays: []encap.Overlay{{Device: device, EIDs: []netip.Prefix{eid}}},
		View:     cache.View, Underlay: underlay,
	}
	forwarder, err := encap.NewForwarder(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = forwarder.Close() }()
	plane, err := ebpf.New(ebpf.Config{Forwarder: forwarder, Encap: cfg, UDP: sockets, Cache: cache})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = plane.Close() }() // before the Forwarder
	go func() { _ = forwarder.Run(context.Background()) }()
	_ = plane.SetLocals([]mapcache.Local{{Addr: netip.MustParseAddr("203.0.113.5"), Priority: 1, Weight: 100, Up: true}})
	for range time.Tick(5 * time.Second) { // what a Runner does
		plane.Usage(func(u mapcache.Usage) { fmt.Println(u.Key, u.PacketsOut) })
	}
}
