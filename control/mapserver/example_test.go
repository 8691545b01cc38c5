package mapserver_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/lisp"
)

var (
	exampleKey = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("shared secret")}
	server     = netip.MustParseAddrPort("192.0.2.1:4342")
	etr        = netip.MustParseAddrPort("192.0.2.11:4342")
)

func exampleServer() *mapserver.Server {
	s, err := mapserver.New(mapserver.Config{
		Sites: []mapserver.Site{{
			Name: "berlin", Keys: []lisp.Key{exampleKey},
			Prefixes: []mapserver.SitePrefix{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true}},
		}},
	})
	if err != nil {
		panic(err)
	}
	return s
}

// mapRegister is what an ETR sends.
func mapRegister(eid string, nonce lisp.Nonce) []byte {
	p := netip.MustParsePrefix(eid)
	b, err := (&lisp.MapRegister{
		WantMapNotify: true, Nonce: nonce,
		Records: []lisp.EIDRecord{{
			TTL: 1440, MaskLen: uint8(p.Bits()), EID: lisp.AddressFrom(p.Addr()),
			Locators: []lisp.RLOCRecord{{Priority: 1, Weight: 100, Reachable: true, RLOC: lisp.AddressFrom(etr.Addr())}},
		}},
	}).AppendSigned(nil, exampleKey)
	if err != nil {
		panic(err)
	}
	return b
}

// The core takes datagrams and the time, and gives datagrams and events.
func ExampleServer() {
	s := exampleServer()
	now := time.Now()
	s.Handle(now, lisp.Datagram{Local: server, Remote: etr, Bytes: mapRegister("10.1.0.0/16", 1)})
	for d, ok := s.Next(); ok; d, ok = s.Next() {
		fmt.Println(lisp.TypeOf(d.Bytes), "to", d.Remote, lisp.Verify(d.Bytes, exampleKey) == nil)
	}
	for e, ok := s.NextEvent(); ok; e, ok = s.NextEvent() {
		fmt.Println(e)
	}
	fmt.Println("look again in", s.Deadline().Sub(now))
	// Output:
	// Map-Notify to 192.0.2.11:4342 true
	// registered 10.1.0.0/16 of site berlin by 192.0.2.11:4342 at 192.0.2.11
	// look again in 3m0s
}

// Workers verify and answer in parallel; one goroutine applies what they find.
func ExampleWorker() {
	s := exampleServer()
	now := time.Now()
	updates := make(chan *mapserver.Update)
	var workers sync.WaitGroup
	for i := range 4 {
		w := s.NewWorker() // in a real server it has a socket of its own
		workers.Go(func() {
			eid := fmt.Sprintf("10.%d.0.0/16", i)
			r := w.Handle(now, lisp.Datagram{Local: server, Remote: etr, Bytes: mapRegister(eid, lisp.Nonce(i))})
			if r.Update != nil {
				updates <- r.Update
			}
		})
	}
	go func() { workers.Wait(); close(updates) }()
	for u := range updates {
		s.Apply(now, u)
	}
	fmt.Println(len(s.Registrations(now)), "registered")
	// Output: 4 registered
}

// What one server has accepted another one takes over, after a restart or
// beside it.
func ExampleServer_Save() {
	a, b := exampleServer(), exampleServer()
	now := time.Now()
	a.Handle(now, lisp.Datagram{Local: server, Remote: etr, Bytes: mapRegister("10.1.0.0/16", 1)})
	var file bytes.Buffer
	if err := a.Save(now, &file); err != nil {
		panic(err)
	}
	used, skipped, err := b.Load(now.Add(time.Minute), &file)
	fmt.Println(used, skipped, err)
	fmt.Println(b.Registrations(now)[0].EID)
	// Output:
	// 1 0 <nil>
	// 10.1.0.0/16
}
