package xtrkit_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun/tuntest"
)

// startMapServer runs a Map-Server and Map-Resolver at an address.
func startMapServer(ctx context.Context, at netip.Addr, key lisp.Key) {
	core, err := mapserver.New(mapserver.Config{Locals: []netip.Addr{at}, Sites: []mapserver.Site{{
		Name: "hosts", Keys: []lisp.Key{key},
		Prefixes: []mapserver.SitePrefix{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true}},
	}}})
	check(err)
	run(ctx, at, control.RunnerConfig{Cores: map[control.Role]control.Core{control.RoleMapServer: core}})
}

// startXTR runs an xTR with one EID, and returns its device when it is registered:
// one in memory, for which tun.Create makes the real one of a Linux host.
func startXTR(ctx context.Context, rloc, eid, server netip.Addr, key lisp.Key) *tuntest.Device {
	prefix, at4342 := netip.PrefixFrom(eid, 32), netip.AddrPortFrom(server, lisp.ControlPort)
	engine, err := control.New(control.Config{
		Database:     []control.DatabaseMapping{{Key: mapcache.Key{Prefix: prefix}}},
		MapServers:   []control.MapServer{{Addr: at4342, Key: key}},
		MapResolvers: []netip.AddrPort{at4342},
	})
	check(err)
	underlay, err := encap.NewUDP(encap.UDPConfig{Listen: []netip.Addr{rloc}})
	check(err)
	device := tuntest.New(tuntest.Config{})
	forwarder, err := encap.NewForwarder(encap.Config{
		Overlays: []encap.Overlay{{Device: device, EIDs: []netip.Prefix{prefix}}},
		View:     engine.Cache().View, Underlay: underlay,
	})
	check(err)
	go func() { check(forwarder.Run(ctx)) }()
	registered := make(chan bool, 1)
	runner := run(ctx, rloc, control.RunnerConfig{Engine: engine, Dataplane: forwarder, OnEvent: func(e control.Event) {
		if e, ok := e.(control.Registered); ok && !e.Again {
			registered <- true
		}
	}})
	runner.SetLocals(time.Now(), []mapcache.Local{{Addr: rloc, Priority: 1, Weight: 100, Up: true}})
	<-registered
	return device
}

// run has a Runner drive cores from the control port of an address.
func run(ctx context.Context, at netip.Addr, cfg control.RunnerConfig) *control.Runner {
	conn, err := control.Listen(ctx, control.ListenConfig{Addrs: []netip.AddrPort{netip.AddrPortFrom(at, lisp.ControlPort)}})
	check(err)
	cfg.Conn = conn
	runner, err := control.NewRunner(cfg)
	check(err)
	go func() { check(runner.Run(ctx)) }()
	return runner
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Two xTRs and a Map-Server, in one process and without any privilege: their
// locators are loopback addresses, their devices are in memory.
func Example_xTR() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	key := lisp.Key{Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("a shared secret")}
	addr := netip.MustParseAddr
	startMapServer(ctx, addr("127.43.41.1"), key)
	a := startXTR(ctx, addr("127.43.41.2"), addr("10.0.0.1"), addr("127.43.41.1"), key)
	b := startXTR(ctx, addr("127.43.41.3"), addr("10.0.0.2"), addr("127.43.41.1"), key)

	check(a.Send(ctx, packet(addr("10.0.0.1"), addr("10.0.0.2"), "hello")))
	p, err := b.Receive(ctx)
	check(err)
	fmt.Println(netip.AddrFrom4([4]byte(p[12:])), "->", netip.AddrFrom4([4]byte(p[16:])), string(p[20:]))
	// Output: 10.0.0.1 -> 10.0.0.2 hello
}

// packet makes an IPv4 packet, as the host's kernel would.
func packet(src, dst netip.Addr, payload string) []byte {
	b := append([]byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 64, 253, 0, 0}, src.AsSlice()...)
	b = append(append(b, dst.AsSlice()...), payload...)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	b[10], b[11] = byte(sum>>8), byte(sum)
	return b
}
