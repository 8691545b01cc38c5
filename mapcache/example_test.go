package mapcache_test

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What a Map-Reply says goes in; what to do with a packet comes out.
func Example() {
	now := time.Date(2012, 10, 1, 12, 0, 0, 0, time.UTC)
	c := mapcache.New(mapcache.Config{})
	err := c.Insert(now, mapcache.Mapping{
		Key: mapcache.MakeKey(0, netip.MustParsePrefix("10.2.0.0/16")),
		RLOCs: []mapcache.RLOC{
			{Locator: mapcache.Locator{Addr: netip.MustParseAddr("192.0.2.1")}, Priority: 1, Weight: 100},
			{Locator: mapcache.Locator{Addr: netip.MustParseAddr("192.0.2.2")}, Priority: 2, Weight: 100},
		},
		TTL: mapcache.RecordTTL(15),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Publish()

	const seed = 7
	src, dst := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	hash := mapcache.FlowHashTuple(seed, src, dst, 6, 50000, 443)
	show := func() {
		d := c.View().Forward(0, dst, hash)
		fmt.Println(d.Verdict, d.Locator)
	}
	show()
	c.SetReachable(mapcache.Locator{Addr: netip.MustParseAddr("192.0.2.1")}, false)
	show() // the very next packet

	fmt.Println(c.View().Forward(0, netip.MustParseAddr("10.3.0.1"), hash).Verdict)
	// Output:
	// encapsulate 192.0.2.1
	// encapsulate 192.0.2.2
	// miss
}

// Our own EID-Prefixes are static mappings in a cache of their own: the one that
// covers a requested EID is the answer to a Map-Request.
func ExampleCache_localDatabase() {
	now := time.Date(2012, 10, 1, 12, 0, 0, 0, time.UTC)
	db := mapcache.New(mapcache.Config{})
	for _, eid := range []string{"10.1.0.0/16", "2001:db8:1::/48"} {
		err := db.Insert(now, mapcache.Mapping{
			Key: mapcache.MakeKey(0, netip.MustParsePrefix(eid)),
			RLOCs: []mapcache.RLOC{
				{Locator: mapcache.Locator{Addr: netip.MustParseAddr("192.0.2.10")}, Priority: 1, Weight: 50},
				{Locator: mapcache.Locator{Addr: netip.MustParseAddr("198.51.100.10")}, Priority: 1, Weight: 50},
			},
			TTL: 24 * time.Hour, Origin: mapcache.OriginStatic, Authoritative: true,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	for _, eid := range []string{"10.1.2.3", "10.2.0.1"} {
		e, ok := db.LookupEntry(0, netip.MustParseAddr(eid))
		fmt.Println(eid, ok)
		for i, r := range e.RLOCs {
			fmt.Printf("  ordinal %d: %v priority %d weight %d\n", i, r.Locator, r.Priority, r.Weight)
		}
	}
	// Output:
	// 10.1.2.3 true
	//   ordinal 0: 192.0.2.10 priority 1 weight 50
	//   ordinal 1: 198.51.100.10 priority 1 weight 50
	// 10.2.0.1 false
}

// Packets are forwarded by any number of goroutines, each batch by one View,
// while one goroutine writes.
func ExampleView_Forward() {
	now := time.Date(2012, 10, 1, 12, 0, 0, 0, time.UTC)
	c := mapcache.New(mapcache.Config{})
	batch := []netip.Addr{netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("10.2.0.2")}

	published := make(chan struct{})
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			<-published
			view := c.View()
			for i, dst := range batch {
				if d := view.Forward(0, dst, uint32(i)); d.Verdict != mapcache.Native {
					fmt.Println("unexpected:", d.Verdict)
				}
			}
		})
	}
	err := c.Insert(now, mapcache.Mapping{
		Key:    mapcache.MakeKey(0, netip.MustParsePrefix("10.2.0.0/16")),
		Action: lisp.ActionNativelyForward, TTL: mapcache.RecordTTL(15),
	})
	c.Publish()
	close(published)
	workers.Wait()
	fmt.Println(err)
	// Output: <nil>
}

// The loop that owns the cache calls Advance at its Deadline, and resolves what
// it returns.
func ExampleCache_Advance() {
	now := time.Date(2012, 10, 1, 12, 0, 0, 0, time.UTC)
	start := now
	c := mapcache.New(mapcache.Config{})
	for i, eid := range []string{"10.2.0.0/16", "10.3.0.0/16"} {
		if err := c.Insert(now, mapcache.Mapping{
			Key:   mapcache.MakeKey(0, netip.MustParsePrefix(eid)),
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("192.0.2.1")}, Priority: 1}},
			TTL:   mapcache.RecordTTL(uint32(10 + i)),
		}); err != nil {
			fmt.Println(err)
		}
	}
	c.Publish()
	for !c.Deadline().IsZero() {
		now = c.Deadline()
		for _, k := range c.Advance(now) {
			fmt.Println(now.Sub(start), "refresh", k)
		}
		c.Publish()
		for _, ch := range c.Changes() {
			if ch.Reason != mapcache.ReasonAdded {
				fmt.Println(now.Sub(start), ch.Reason, ch.Key)
			}
		}
		c.View().Forward(0, netip.MustParseAddr("10.2.0.1"), 0) // one of the two has traffic
	}
	// Output:
	// 9m0s refresh 10.2.0.0/16
	// 10m0s expired 10.2.0.0/16
	// 11m0s expired 10.3.0.0/16
}

// A mirror of the cache, as a data plane in the kernel keeps one, follows the
// change list.
func ExampleCache_Changes() {
	now := time.Date(2012, 10, 1, 12, 0, 0, 0, time.UTC)
	c := mapcache.New(mapcache.Config{})
	l := mapcache.Locator{Addr: netip.MustParseAddr("192.0.2.1")}
	m := mapcache.Mapping{
		Key:   mapcache.MakeKey(7, netip.MustParsePrefix("10.2.0.0/16")),
		RLOCs: []mapcache.RLOC{{Locator: l, Priority: 1}},
		TTL:   time.Hour,
	}
	if err := c.Insert(now, m); err != nil {
		fmt.Println(err)
	}
	c.SetDown(l, mapcache.CauseICMP, true)
	c.Remove(now, m.Key)
	for _, ch := range c.Changes() {
		switch ch.Reason {
		case mapcache.ReasonLocatorUp, mapcache.ReasonLocatorDown:
			fmt.Println(ch.Seq, ch.Reason, ch.Locator)
		default:
			fmt.Println(ch.Seq, ch.Reason, ch.Key, ch.New.Verdict, len(ch.New.RLOCs))
		}
	}
	// Output:
	// 1 added [7]10.2.0.0/16 encapsulate 1
	// 2 locator-down 192.0.2.1
	// 3 removed [7]10.2.0.0/16 miss 0
}

// In an overlay of Ethernet frames the EIDs are MACs, matched exactly, as records of
// AFI 6 or 16389 in an Instance-ID LCAF bring them.
func ExampleView_ForwardMAC() {
	now := time.Date(2012, 10, 1, 12, 0, 0, 0, time.UTC)
	c := mapcache.New(mapcache.Config{})
	record, err := lisp.ParseAddress("[7]02:00:00:00:00:01")
	if err != nil {
		fmt.Println(err)
	}
	key, ok := mapcache.RecordKey(record, 48)
	if !ok {
		fmt.Println("no EID of ours:", record)
	}
	err = c.Insert(now, mapcache.Mapping{
		Key:   key,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("192.0.2.1"), Format: mapcache.FormatVXLANGPE}}},
		TTL:   mapcache.RecordTTL(15),
	})
	if err != nil {
		fmt.Println(err)
	}
	c.Publish()

	frame := []byte{2, 0, 0, 0, 0, 1 /* destination */, 2, 0, 0, 0, 0, 9, 0x08, 0x06}
	d := c.View().ForwardMAC(7, mapcache.MAC(frame[:6]), 0)
	fmt.Println(d.Verdict, d.Locator, d.Locator.Port)
	d = c.View().ForwardMAC(7, mapcache.MAC(frame[6:12]), 0)
	fmt.Println(d.Verdict)
	// Output:
	// encapsulate 192.0.2.1(vxlan-gpe) 4790
	// miss
}

// The source locator of a flow is chosen among ours, in the family of the remote.
func ExampleChooseLocal() {
	ours := []mapcache.Local{
		{Addr: netip.MustParseAddr("192.0.2.10"), Priority: 1, Weight: 100, Up: true},
		{Addr: netip.MustParseAddr("2001:db8::10"), Priority: 1, Weight: 100, Up: true},
	}
	i, ok := mapcache.ChooseLocal(ours, netip.MustParseAddr("2001:db8:2::1"), 12345)
	fmt.Println(ours[i].Addr, ok)
	// Output: 2001:db8::10 true
}
