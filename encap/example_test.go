package encap_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// A Forwarder is what package control steers.
var _ control.Dataplane = (*encap.Forwarder)(nil)

// oneShot is a Device that hands over one packet.
type oneShot struct {
	packets chan []byte
	closed  chan struct{}
}

func (d *oneShot) Name() string   { return "example" }
func (d *oneShot) MTU() int       { return 1464 }
func (d *oneShot) BatchSize() int { return 1 }
func (d *oneShot) Close() error   { close(d.closed); return nil }

func (d *oneShot) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-d.packets:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	case <-d.closed:
		return 0, os.ErrClosed
	}
}

func (d *oneShot) Write(bufs [][]byte, _ int) (int, error) { return len(bufs), nil }

// printer is an Underlay that prints what would be sent.
type printer struct{ printed chan struct{} }

func (u printer) Open(l mapcache.Local) (encap.Path, error) { return path{u, l}, nil }
func (u printer) Receivers() []encap.Receiver               { return nil }
func (u printer) WriteDatagram(lisp.Datagram) error         { return nil }
func (u printer) Close() error                              { return nil }

type path struct {
	u     printer
	local mapcache.Local
}

func (p path) Send(out []encap.Outgoing) bool {
	for _, o := range out {
		fmt.Printf("from %v to %v, TTL %d, traffic class 0x%02x, %d octets: % x ...\n",
			p.local.Addr, o.Remote, o.TTL, o.TOS, len(o.Bytes), o.Bytes[:12])
	}
	close(p.u.printed)
	return true
}

func (p path) MTU() int               { return 1500 }
func (p path) PathMTU(netip.Addr) int { return 1500 }
func (p path) Close() error           { return nil }

// A Forwarder with a device and an underlay of one's own. On a Linux host they
// are what package tun and NewUDP make.
func ExampleForwarder() {
	cache := mapcache.New(mapcache.Config{})
	err := cache.Insert(time.Now(), mapcache.Mapping{
		Key:   mapcache.Key{IID: 7, Prefix: netip.MustParsePrefix("10.2.0.0/16")},
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("203.0.113.2")}, Priority: 1, Weight: 100}},
		TTL:   time.Hour,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	cache.Publish()

	device := &oneShot{make(chan []byte, 1), make(chan struct{})}
	underlay := printer{make(chan struct{})}
	f, err := encap.NewForwarder(encap.Config{
		Overlays: []encap.Overlay{{
			InstanceID: 7, Device: device, EIDs: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/32")},
		}},
		View:     cache.View,
		Underlay: underlay,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = f.SetLocals([]mapcache.Local{{Addr: netip.MustParseAddr("198.51.100.1"), Priority: 1, Weight: 100, Up: true}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()

	packet := make([]byte, 20) // from 10.1.0.1 to 10.2.0.1
	packet[0], packet[1], packet[8], packet[9] = 0x45, 0xb8, 64, 59
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	copy(packet[12:], []byte{10, 1, 0, 1, 10, 2, 0, 1})
	device.packets <- packet
	<-underlay.printed
	cancel()
	fmt.Println(<-ended, f.Stats().Encapsulated.Packets)
	// Output:
	// from 198.51.100.1 to 203.0.113.2:4341, TTL 64, traffic class 0xb8, 28 octets: 08 00 00 00 00 00 07 00 45 b8 00 14 ...
	// <nil> 1
}
