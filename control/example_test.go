package control_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// An Engine is stepped by hand: time is an argument, datagrams go in and out.
func ExampleEngine() {
	engine, err := control.New(control.Config{
		Database: []control.DatabaseMapping{{Key: mapcache.Key{Prefix: netip.MustParsePrefix("192.0.2.1/32")}}},
		MapServers: []control.MapServer{{
			Addr: netip.MustParseAddrPort("198.18.0.1:4342"),
			Key:  lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("secret")},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	engine.SetLocals(now, []mapcache.Local{{Addr: netip.MustParseAddr("203.0.113.1"), Priority: 1, Weight: 100, Up: true}})

	// Nobody answers: the same message is sent again when it is due.
	for range 3 {
		for d, ok := engine.Next(); ok; d, ok = engine.Next() {
			fmt.Println(lisp.TypeOf(d.Bytes), "to", d.Remote)
		}
		now = engine.Deadline()
		engine.Advance(now)
	}
	fmt.Println(engine.Registrations()[0].State)
	// Output:
	// Map-Register to 198.18.0.1:4342
	// Map-Register to 198.18.0.1:4342
	// Map-Register to 198.18.0.1:4342
	// unanswered
}

// A Runner drives an Engine over real sockets.
func ExampleRunner() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	conn, err := control.Listen(ctx, control.ListenConfig{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	engine, err := control.New(control.Config{Port: conn.LocalAddrs()[0].Port()})
	if err != nil {
		fmt.Println(err)
		return
	}
	runner, err := control.NewRunner(control.RunnerConfig{
		Conn: conn, Engine: engine,
		OnEvent: func(e control.Event) { fmt.Println(e) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	go func() { done <- runner.Run(ctx) }()
	runner.SetLocals(time.Now(), []mapcache.Local{{Addr: netip.MustParseAddr("127.0.0.1"), Up: true}})
	// Whoever needs the Engine asks the Runner.
	err = runner.Do(ctx, func(time.Time) { fmt.Println(len(engine.Locals()), "locator") })
	if err != nil {
		fmt.Println(err)
	}
	cancel()
	fmt.Println(<-done)
	// Unordered output:
	// 1 locator
	// own locators: 127.0.0.1
	// <nil>
}
