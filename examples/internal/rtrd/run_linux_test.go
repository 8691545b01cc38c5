package rtrd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// TestRun: an RTR in a namespace of its own takes what it needs, follows the host's
// interfaces, tells its state, and gives everything back.
func TestRun(t *testing.T) {
	netlab.Require(t, netlab.NetworkNamespaces, netlab.Veth, netlab.PacketSockets) // all are the test's alone
	_, err := New(t.Context(), Config{Conf: parse(t, plain)})
	require.ErrorContains(t, err, "an RTR needs an address: name interfaces that have one in rtr-ifaces")

	attrs := netlink.NewLinkAttrs()
	attrs.Name = "rtr0"
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: "rtr1"}
	require.NoError(t, netlink.LinkAdd(link))
	t.Cleanup(func() { assert.NoError(t, netlink.LinkDel(link)) })
	peer, err := netlink.LinkByName("rtr1")
	require.NoError(t, err)
	for _, l := range []netlink.Link{link, peer} {
		require.NoError(t, netlink.LinkSetUp(l))
	}
	a, err := netlink.ParseAddr("198.51.100.7/24")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(link, a))
	for range 2 { // the second time all is free again
		run(t, link, peer)
	}
}

func run(t *testing.T, link, peer netlink.Link) {
	t.Helper()
	told := make(chan fmt.Stringer, 64)
	r, err := New(t.Context(), Config{Conf: parse(t, plain+"dataplane = user\nmap-resolver = { 198.51.100.8 }"), File: "f", Tell: func(_ time.Time, e fmt.Stringer) { told <- e }})
	require.NoError(t, err)
	assert.Equal(t, []netip.Addr{addr("198.51.100.7")}, r.Addrs())
	conn, err := control.Listen(t.Context(), control.ListenConfig{SharePort: true})
	require.NoError(t, err)
	var c control.RunnerConfig
	steps := 0
	c.Conn, c.AfterStep = conn, func(time.Time) { steps++ }
	r.Join(&c)
	runner, err := control.NewRunner(c)
	require.NoError(t, err)
	r.Begin(time.Now(), runner)
	ctx, cancel := context.WithCancel(t.Context())
	ran, relayed := make(chan error, 1), make(chan error, 1)
	go func() { ran <- runner.Run(ctx) }()
	go func() { relayed <- r.Run(ctx) }()
	status := func() (s *statusd.RTR) {
		require.NoError(t, runner.Do(t.Context(), func(now time.Time) { s = r.Status(now) }))
		return s
	}
	up := func() bool { ls := status().Locals; return len(ls) > 0 && ls[0].Up }
	require.NoError(t, netlab.Eventually(t.Context(), "the locator is up", up))
	assert.Equal(t, []statusd.Local{{Addr: addr("198.51.100.7"), IfIndex: link.Attrs().Index, Priority: 1, Weight: 100, Up: true}}, status().Locals)
	assert.Nil(t, status().Traffic.Kernel)
	assert.Equal(t, "dataplane = user", status().Traffic.UserSpace)

	// Somebody who is not registered gets nothing relayed, and a miss is not asked for.
	pc, err := net.ListenPacket("udp4", "198.51.100.7:0")
	require.NoError(t, err)
	inner, err := lisp.AppendInner(nil, lisp.Inner{
		Source: netip.MustParseAddrPort("10.0.0.1:1"), Destination: netip.MustParseAddrPort("10.0.0.2:2"), Payload: []byte("x"),
	})
	require.NoError(t, err)
	_, err = pc.WriteTo(append(make([]byte, lisp.DataHeaderLen), inner...), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.7:4341")))
	require.NoError(t, err)
	require.NoError(t, pc.Close())
	require.NoError(t, netlab.Eventually(t.Context(), "the packet is dropped", func() bool {
		return status().Traffic.Drops[encap.DropNotRelayed.String()] == 1
	}))

	// An Encapsulated Map-Register that is none is refused, and told of.
	require.NoError(t, runner.Do(t.Context(), func(now time.Time) {
		b, err := (&lisp.EncapsulatedControl{RTR: true, Packet: inner}).MarshalBinary()
		require.NoError(t, err)
		r.core.Handle(now, lisp.Datagram{Local: netip.MustParseAddrPort("198.51.100.7:4342"), Remote: netip.MustParseAddrPort("198.51.100.8:4342"), Bytes: b})
	}))
	refused := 0
	for len(told) > 0 {
		if e, ok := (<-told).(natt.RegisterRefused); ok { // not in words yet
			assert.Equal(t, natt.RTRInner, e.Reason)
			refused++
		}
	}
	assert.Equal(t, 1, refused)
	assert.Len(t, status().Refused, 1)

	require.NoError(t, netlink.LinkSetDown(peer))
	require.NoError(t, netlab.Eventually(t.Context(), "the locator is down", func() bool { return !up() }))
	require.NoError(t, netlink.LinkSetUp(peer))
	require.NoError(t, netlab.Eventually(t.Context(), "the locator is up", up))
	cancel()
	require.NoError(t, <-ran)
	require.NoError(t, <-relayed)
	require.NoError(t, r.Close(), "again")
	assert.Positive(t, steps, "who stepped before steps on")
}
