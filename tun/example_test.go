package tun_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/xtrkit/xtrkit/tun"
	"github.com/xtrkit/xtrkit/tun/tuntest"
)

// A mobile node's device, with one EID of each family. It takes root, so this
// example is not run.
func ExampleCreate() {
	dev, err := tun.Create(tun.Config{EIDs: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/32"),
		netip.MustParsePrefix("2001:db8::1/128"),
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = dev.Close() }()
	if err := dev.SetLocals([]netip.Addr{netip.MustParseAddr("203.0.113.5")}); err != nil {
		fmt.Println(err)
		return
	}
	dump(dev)
}

// A device in memory takes the real one's place in tests.
func Example() {
	dev := tuntest.New(tuntest.Config{})
	ctx := context.Background()
	_ = dev.Send(ctx, []byte{0x45, 0, 0, 20}, []byte{0x60, 0})
	dumpOnce(dev)
	// Output:
	// IPv4, 4 octets
	// IPv6, 2 octets
}

// dump prints what the host sends through a device, until it is closed.
func dump(dev tun.Device) {
	for dumpOnce(dev) == nil {
	}
}

func dumpOnce(dev tun.Device) error {
	bufs := make([][]byte, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, dev.MTU())
	}
	sizes := make([]int, len(bufs))
	n, err := dev.Read(bufs, sizes, 0)
	for i := range n {
		fmt.Printf("IPv%d, %d octets\n", bufs[i][0]>>4, sizes[i])
	}
	return err
}
