package xtrkit_test

import (
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// A Map-Reply off the wire becomes a mapping, and a packet finds its locator.
func Example() {
	received := mapReply()
	// README begins
	m, err := lisp.Parse(received) // the payload of a datagram from UDP port 4342
	if err != nil {
		log.Fatal(err) // which message, field and octet
	}
	cache, now := mapcache.New(mapcache.Config{}), time.Now()
	for _, r := range m.(*lisp.MapReply).Records {
		iid, prefix, _ := r.Prefix()
		mapping := mapcache.Mapping{Key: mapcache.MakeKey(iid, prefix), TTL: mapcache.RecordTTL(r.TTL)}
		for _, l := range r.Locators {
			addr, _ := l.RLOC.IP()
			mapping.RLOCs = append(mapping.RLOCs, mapcache.RLOC{
				Locator: mapcache.Locator{Addr: addr}, Priority: l.Priority, Weight: l.Weight, Down: !l.Reachable,
			})
		}
		if err := cache.Insert(now, mapping); err != nil {
			log.Fatal(err)
		}
	}
	cache.Publish()
	// Any number of goroutines, no lock, no allocation:
	decision := cache.View().Forward(0, netip.MustParseAddr("198.51.100.7"), 0xfeedbeef)
	fmt.Println(decision.Verdict, decision.Locator.Addr, decision.Locator.Port)
	// README ends

	// Output: encapsulate 203.0.113.1 4341
}

// mapReply is what a Map-Server might send.
func mapReply() []byte {
	b, err := (&lisp.MapReply{
		Nonce: 0x0123456789abcdef,
		Records: []lisp.EIDRecord{{
			TTL: 1440, MaskLen: 24, Authoritative: true,
			EID: lisp.AddressFrom(netip.MustParseAddr("198.51.100.0")),
			Locators: []lisp.RLOCRecord{{
				Priority: 1, Weight: 100, MPriority: 255, Reachable: true,
				RLOC: lisp.AddressFrom(netip.MustParseAddr("203.0.113.1")),
			}},
		}},
	}).MarshalBinary()
	if err != nil {
		log.Fatal(err)
	}
	return b
}
