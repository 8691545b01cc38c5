package multihome_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/multihome"
)

// laptop is a host with a wired and a mobile uplink; the wired one may have lost its carrier.
func laptop(wired bool) multihome.Snapshot {
	return multihome.Snapshot{
		Links: []multihome.Link{
			{Index: 2, Name: "eth0", Up: true, Running: wired},
			{Index: 3, Name: "wwan0", Up: true, Running: true},
		},
		Addrs: []multihome.Addr{
			{IfIndex: 2, Addr: netip.MustParseAddr("198.51.100.7"), Prefix: 24},
			{IfIndex: 3, Addr: netip.MustParseAddr("203.0.113.7"), Prefix: 24},
		},
		Routes: []multihome.Route{
			{IfIndex: 2, Gateway: netip.MustParseAddr("198.51.100.1"), Metric: 100},
			{IfIndex: 3, Gateway: netip.MustParseAddr("203.0.113.1"), Metric: 700},
		},
	}
}

// Watch tells which interfaces can carry traffic, at the start and after each change.
// On a Linux host the Source is what NewNetlink returns.
func ExampleWatch() {
	state, err := multihome.New(multihome.Config{Exclude: []string{"lmn0"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	src := new(multihome.Memory)
	src.Set(laptop(true))
	wired := true
	err = multihome.Watch(ctx, src, state, func(_ time.Time, c multihome.Change) error {
		for _, i := range c.Interfaces {
			fmt.Println(i.Name, i.IPv4, i.Usable(false))
		}
		if !wired {
			stop()
			return nil
		}
		wired = false // the cable is pulled out
		src.Set(laptop(false))
		return nil
	})
	fmt.Println(err)
	// Output:
	// eth0 [198.51.100.7] usable
	// wwan0 [203.0.113.7] usable
	// eth0 [198.51.100.7] link down
	// wwan0 [203.0.113.7] usable
	// <nil>
}

// A Policy sends voice by the wired uplink if there is one, and keeps one prefix off
// the mobile one altogether.
func ExamplePolicy() {
	policy, err := multihome.NewPolicy(multihome.PolicyConfig{Rules: []multihome.Rule{
		{DSCPs: []uint8{46}, Interfaces: []string{"eth*", "wwan*"}},
		{
			Destinations: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			Interfaces:   []string{"eth0"}, Otherwise: multihome.DropPacket,
		},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	voice := multihome.Packet{Dst: netip.MustParseAddr("198.18.0.1"), DSCP: 46}
	backup := multihome.Packet{Dst: netip.MustParseAddr("192.0.2.9")}
	for _, wired := range []bool{true, false} {
		state, err := multihome.New(multihome.Config{})
		if err != nil {
			fmt.Println(err)
			return
		}
		state.Handle(time.Now(), laptop(wired))
		policy.Update(state.Interfaces())
		v, b := policy.Decide(&voice), policy.Decide(&backup)
		fmt.Println("voice by", v.IfIndex, "backup by", b.IfIndex, "or dropped:", b.Drop)
	}
	// Output:
	// voice by 2 backup by 2 or dropped: false
	// voice by 3 backup by 0 or dropped: true
}
