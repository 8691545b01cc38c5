package tun

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// envHelper makes the test program create a device and wait to be killed.
const envHelper = "TUN_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(envHelper) != "" {
		i, err := Create(nodeConfig)
		if err == nil {
			err = i.SetLocals(locators)
		}
		fmt.Println("created", err)
		select {}
	}
	netlab.Main(m)
}

const (
	eid4, eid6   = "192.0.2.1", "2001:db8:e::1"
	rloc4, rloc6 = "10.0.0.2", "2001:db8:a::2"
	far4, far6   = "203.0.113.9", "2001:db8:f::9"
)

var (
	nodeConfig = Config{EIDs: prefixes(eid4+"/32", eid6+"/128")}
	locators   = []netip.Addr{netip.MustParseAddr(rloc4), netip.MustParseAddr(rloc6)}
)

// network is a node with an uplink to a router, and a host far behind it that
// knows a way back to the EIDs too.
type network struct {
	lab             *netlab.Lab
	node, near, far *netlab.Host
}

func newNetwork(t *testing.T) network {
	lab := netlab.Test(t, netlab.TUN, netlab.IPv6, netlab.PolicyRouting)
	n := network{lab, lab.Host("node"), lab.Router("near"), lab.Host("far")}
	lab.Link(n.node, n.near, netlab.LinkConfig{
		A: netlab.At(rloc4+"/24", "10.0.0.3/24", rloc6+"/64", "2001:db8:a::3/64"),
		B: netlab.At("10.0.0.1/24", "2001:db8:a::1/64"),
	})
	lab.Link(n.far, n.near, netlab.LinkConfig{
		A: netlab.At(far4+"/24", far6+"/64"),
		B: netlab.At("203.0.113.1/24", "2001:db8:f::1/64"),
	})
	n.node.DefaultVia("10.0.0.1", "2001:db8:a::1")
	n.far.DefaultVia("203.0.113.1", "2001:db8:f::1")
	n.near.AddRoute(eid4+"/32", rloc4)
	n.near.AddRoute(eid6+"/128", rloc6)
	// The strictest setting: it must work with the rules.
	n.node.Sysctl("net/ipv4/conf/all/rp_filter", "1")
	return n
}

// create makes the device in a host.
func create(t *testing.T, h *netlab.Host, cfg Config) *Interface {
	t.Helper()
	var i *Interface
	require.NoError(t, h.Do(func() (err error) {
		i, err = Create(cfg)
		return err
	}))
	t.Cleanup(func() { assert.NoError(t, i.Close()) })
	return i
}

// readAll decodes what a device reads, until it is closed.
func readAll(dev Device) <-chan gopacket.Packet {
	out := make(chan gopacket.Packet, 1000)
	go func() {
		defer close(out)
		bufs, sizes := buffers(dev)
		for {
			n, err := dev.Read(bufs, sizes, 20)
			if err != nil {
				return
			}
			for j := range n {
				b := bytes.Clone(bufs[j][20 : 20+sizes[j]])
				first := gopacket.Decoder(layers.LayerTypeIPv4)
				if b[0]>>4 == 6 {
					first = layers.LayerTypeIPv6
				}
				out <- gopacket.NewPacket(b, first, gopacket.Default)
			}
		}
	}()
	return out
}

func buffers(dev Device) (bufs [][]byte, sizes []int) {
	for range dev.BatchSize() {
		bufs = append(bufs, make([]byte, 1<<16))
	}
	return bufs, make([]int, len(bufs))
}

// next returns the next packet of a device, as "source > destination payload".
func next(t *testing.T, packets <-chan gopacket.Packet) string {
	t.Helper()
	select {
	case p, ok := <-packets:
		require.True(t, ok, "the device was closed")
		payload := ""
		switch l := p.TransportLayer().(type) {
		case *layers.UDP:
			payload = string(l.Payload)
		case *layers.TCP:
			if l.SYN {
				payload = "SYN"
			}
		}
		src, dst := p.NetworkLayer().NetworkFlow().Endpoints()
		return fmt.Sprintf("%s > %s %s", src, dst, payload)
	case <-time.After(10 * time.Second):
		require.Fail(t, "no packet came out of the device")
		return ""
	}
}

// send sends one datagram from a host, from an address or (with "") from none in
// particular, over an interface or (with "") whichever.
func send(t *testing.T, h *netlab.Host, from, device, to, payload string) error {
	t.Helper()
	dst, err := netip.ParseAddr(to)
	require.NoError(t, err)
	return h.Do(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var opErr error
			err := c.Control(func(fd uintptr) {
				if device != "" {
					opErr = unix.BindToDevice(int(fd), device)
				}
			})
			return errors.Join(err, opErr)
		}}
		network := "udp4"
		if dst.Is6() {
			network = "udp6"
		}
		c, err := lc.ListenPacket(t.Context(), network, net.JoinHostPort(from, "0"))
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		_, err = c.WriteTo([]byte(payload), &net.UDPAddr{IP: dst.AsSlice(), Port: 7, Zone: dst.Zone()})
		return err
	})
}

// listener receives datagrams at port 7 of a host.
func listener(t *testing.T, h *netlab.Host) func() string {
	c, err := h.ListenPacket("udp", ":7")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return func() string {
		t.Helper()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		buf := make([]byte, 100)
		n, from, err := c.ReadFrom(buf)
		require.NoError(t, err, "no packet arrived")
		return from.(*net.UDPAddr).AddrPort().Addr().Unmap().String() + " " + string(buf[:n])
	}
}

func TestWhereTrafficGoes(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, nodeConfig)
	require.NoError(t, dev.SetLocals(locators))
	packets := readAll(dev)
	far, near := listener(t, n.far), listener(t, n.near)
	require.Equal(t, "lmn0", dev.Name())

	for _, tt := range []struct{ name, from, device, to, tunnel, far, near string }{
		{name: "an application", to: far4, tunnel: eid4 + " > " + far4},
		{name: "an application, IPv6", to: far6, tunnel: eid6 + " > " + far6},
		{name: "an application that chose the EID", from: eid4, to: far4, tunnel: eid4 + " > " + far4},
		{name: "an application that chose the EID, IPv6", from: eid6, to: far6, tunnel: eid6 + " > " + far6},
		{name: "from the EID to the local network", from: eid4, to: "10.0.0.1", tunnel: eid4 + " > 10.0.0.1"},
		{name: "from the EID to the local network, IPv6", from: eid6, to: "2001:db8:a::1", tunnel: eid6 + " > 2001:db8:a::1"},
		{name: "to the local network", to: "10.0.0.1", near: rloc4},
		{name: "to the local network, IPv6", to: "2001:db8:a::1", near: "2001:db8:a::"},
		{name: "from the locator", from: rloc4, to: far4, far: rloc4},
		{name: "from the locator, IPv6", from: rloc6, to: far6, far: rloc6},
		{name: "from another address of the host", from: "10.0.0.3", to: far4, far: "10.0.0.3"},
		{name: "from another address of the host, IPv6", from: "2001:db8:a::3", to: far6, far: "2001:db8:a::3"},
		{name: "bound to the uplink", device: "eth0", to: far4, far: rloc4},
		{name: "bound to the uplink, IPv6", device: "eth0", to: far6, far: "2001:db8:a::"},
		{name: "natively, with the EID", from: eid4, device: "eth0", to: far4, far: eid4},
		{name: "natively, with the EID, IPv6", from: eid6, device: "eth0", to: far6, far: eid6},
		{name: "bound to the device", device: "lmn0", to: far4, tunnel: eid4 + " > " + far4},
		{name: "bound to the device, IPv6", device: "lmn0", to: far6, tunnel: eid6 + " > " + far6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, send(t, n.node, tt.from, tt.device, tt.to, tt.name))
			switch {
			case tt.tunnel != "":
				assert.Equal(t, tt.tunnel+" "+tt.name, next(t, packets))
			case tt.far != "":
				got := far()
				assert.Contains(t, got, tt.far)
				assert.Contains(t, got, " "+tt.name)
			default:
				got := near()
				assert.Contains(t, got, tt.near)
				assert.Contains(t, got, " "+tt.name)
			}
		})
	}

	t.Run("TCP", func(t *testing.T) {
		for to, want := range map[string]string{far4: eid4 + " > " + far4 + " SYN", far6: eid6 + " > " + far6 + " SYN"} {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := n.node.Dial(ctx, "tcp", net.JoinHostPort(to, "80"))
				done <- err
			}()
			assert.Equal(t, want, next(t, packets))
			cancel()
			assert.Error(t, <-done)
		}
	})
	assert.Zero(t, dev.Stats())
}

func TestStaysOnItsLink(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, nodeConfig)
	require.NoError(t, dev.SetLocals(locators))
	packets := readAll(dev)
	for _, to := range []string{"224.0.0.251", "239.1.2.3", "255.255.255.255", "10.0.0.255", "169.254.7.7", "ff02::fb", "ff05::2", "ff0e::1", "fe80::7%eth0"} {
		// Some of them cannot be sent at all without an interface, which is fine.
		_ = send(t, n.node, "", "", to, "to "+to)
	}
	for _, to := range []string{"169.254.7.7", "10.0.0.255"} {
		_ = send(t, n.node, eid4, "", to, "to "+to)
	}
	_ = send(t, n.node, eid6, "", "fe80::7%eth0", "link-local")
	_ = send(t, n.node, eid6, "", "ff05::2", "site multicast")
	// What comes next is the first to leave.
	require.NoError(t, send(t, n.node, "", "", far4, "last"))
	got := next(t, packets)
	for got == eid4+" > 10.0.0.255 to 10.0.0.255" {
		got = next(t, packets) // the broadcast address of a network that the EID is not in
	}
	assert.Equal(t, eid4+" > "+far4+" last", got)
}

func TestFromTheTunnel(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, nodeConfig)
	packets := readAll(dev)
	for _, tt := range []struct{ eid, peer string }{{eid4, far4}, {eid6, far6}, {eid4, "10.0.0.77"}} {
		app, err := n.node.ListenPacket("udp", net.JoinHostPort(tt.eid, "4000"))
		require.NoError(t, err)
		require.NoError(t, app.SetDeadline(time.Now().Add(10*time.Second)))

		eid, peer := net.ParseIP(tt.eid), net.ParseIP(tt.peer)
		var ip gopacket.SerializableLayer
		udp := &layers.UDP{SrcPort: 5000, DstPort: 4000}
		if eid.To4() != nil {
			l := &layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolUDP, SrcIP: peer, DstIP: eid}
			require.NoError(t, udp.SetNetworkLayerForChecksum(l))
			ip = l
		} else {
			l := &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: layers.IPProtocolUDP, SrcIP: peer, DstIP: eid}
			require.NoError(t, udp.SetNetworkLayerForChecksum(l))
			ip = l
		}
		buf := gopacket.NewSerializeBuffer()
		require.NoError(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, udp, gopacket.Payload("in")))
		sent, err := dev.Write([][]byte{append(make([]byte, Headroom), buf.Bytes()...)}, Headroom)
		require.NoError(t, err)
		assert.Equal(t, 1, sent)

		b := make([]byte, 10)
		k, from, err := app.ReadFrom(b)
		require.NoError(t, err)
		assert.Equal(t, "in", string(b[:k]))
		_, err = app.WriteTo([]byte("out"), from)
		require.NoError(t, err)
		assert.Equal(t, tt.eid+" > "+tt.peer+" out", next(t, packets))
		require.NoError(t, app.Close())
	}
}

// TestNativeAnswers has the far host answer what left the uplink with an EID as
// its source.
func TestNativeAnswers(t *testing.T) {
	n := newNetwork(t)
	n.node.Sysctl("net/ipv4/conf/all/rp_filter", "2")
	create(t, n.node, nodeConfig)
	for eid, to := range map[string]string{eid4: far4, eid6: far6} {
		server, err := n.far.ListenPacket("udp", net.JoinHostPort(to, "7"))
		require.NoError(t, err)
		app, err := n.node.ListenPacket("udp", net.JoinHostPort(eid, "4000"))
		require.NoError(t, err)
		deadline := time.Now().Add(10 * time.Second)
		require.NoError(t, errors.Join(server.SetDeadline(deadline), app.SetDeadline(deadline)))
		require.NoError(t, send(t, n.node, eid, "eth0", to, "ask"))
		b := make([]byte, 10)
		_, from, err := server.ReadFrom(b)
		require.NoError(t, err)
		from.(*net.UDPAddr).Port = 4000
		_, err = server.WriteTo([]byte("answer"), from)
		require.NoError(t, err)
		k, _, err := app.ReadFrom(b)
		require.NoError(t, err)
		assert.Equal(t, "answer", string(b[:k]))
		require.NoError(t, errors.Join(server.Close(), app.Close()))
	}
}

func TestOnlyDestinations(t *testing.T) {
	n := newNetwork(t)
	cfg := nodeConfig
	cfg.Destinations = prefixes("198.51.100.0/24", "2001:db8:5::/48", "10.0.0.64/26")
	dev := create(t, n.node, cfg)
	require.NoError(t, dev.SetLocals(locators))
	packets := readAll(dev)
	far := listener(t, n.far)
	for to, want := range map[string]string{
		"198.51.100.7":  eid4 + " > 198.51.100.7 x",
		"2001:db8:5::7": eid6 + " > 2001:db8:5::7 x",
		"10.0.0.77":     eid4 + " > 10.0.0.77 x", // asked for explicitly
	} {
		require.NoError(t, send(t, n.node, "", "", to, "x"))
		assert.Equal(t, want, next(t, packets))
	}
	require.NoError(t, send(t, n.node, "", "", far4, "native"))
	assert.Equal(t, rloc4+" native", far())
	require.NoError(t, send(t, n.node, "", "", far6, "native"))
	assert.Contains(t, far(), "2001:db8:a::")
	require.NoError(t, send(t, n.node, eid4, "", far4, "answer"))
	assert.Equal(t, eid4+" > "+far4+" answer", next(t, packets))
}

func TestLocatorInsideAnEIDPrefix(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, Config{EIDs: prefixes("10.0.0.0/8")})
	packets := readAll(dev)
	far := listener(t, n.far)
	require.NoError(t, send(t, n.node, rloc4, "", far4, "before"))
	assert.Equal(t, rloc4+" > "+far4+" before", next(t, packets))
	require.NoError(t, dev.SetLocals(locators))
	require.NoError(t, send(t, n.node, rloc4, "", far4, "bypassed"))
	assert.Equal(t, rloc4+" bypassed", far())
	require.NoError(t, dev.SetLocals(nil))
	require.NoError(t, send(t, n.node, rloc4, "", far4, "after"))
	assert.Equal(t, rloc4+" > "+far4+" after", next(t, packets))
	assert.ErrorIs(t, dev.SetLocals([]netip.Addr{{}}), ErrConfig)
}

// TestTCPThrough carries TCP between two hosts by their devices alone.
func TestTCPThrough(t *testing.T) {
	lab := netlab.Test(t, netlab.TUN, netlab.IPv6, netlab.PolicyRouting)
	a, b := lab.Host("a"), lab.Host("b")
	devA := create(t, a, Config{EIDs: prefixes("192.0.2.1/32", "2001:db8::1/128")})
	devB := create(t, b, Config{EIDs: prefixes("192.0.2.2/32", "2001:db8::2/128"), MTU: 1300})
	for _, d := range [][2]Device{{devA, devB}, {devB, devA}} {
		go func() {
			bufs, sizes := buffers(d[0])
			for {
				n, err := d[0].Read(bufs, sizes, Headroom)
				if err != nil {
					return
				}
				out := make([][]byte, n)
				for j := range n {
					out[j] = bufs[j][:Headroom+sizes[j]]
				}
				if _, err := d[1].Write(out, Headroom); err != nil {
					return
				}
			}
		}()
	}
	for _, to := range []string{"192.0.2.2", "2001:db8::2"} {
		ln, err := b.Listen("tcp", net.JoinHostPort(to, "0"))
		require.NoError(t, err)
		data := make([]byte, 4<<20)
		for j := range data {
			data[j] = byte(j * j >> 7)
		}
		got := make(chan []byte, 1)
		go func() {
			defer close(got)
			c, err := ln.Accept()
			if err != nil {
				return
			}
			h := sha256.New()
			_, _ = io.Copy(h, c)
			got <- h.Sum(nil)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := a.Dial(ctx, "tcp", ln.Addr().String())
		cancel()
		require.NoError(t, err)
		_, err = c.Write(data)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		want := sha256.Sum256(data)
		assert.Equal(t, want[:], <-got)
		require.NoError(t, ln.Close())
	}
	assert.Zero(t, devA.Stats())
	assert.Zero(t, devB.Stats())
}

// state is what a host's kernel says of rules, routes and addresses, octet for
// octet but for the counters of IPv6 routes.
func state(t *testing.T, h *netlab.Host) map[string][]string {
	t.Helper()
	s := map[string][]string{}
	require.NoError(t, h.Do(func() error {
		for name, get := range map[string]struct {
			request int
			answer  uint16
			header  int
		}{
			"rules":     {unix.RTM_GETRULE, unix.RTM_NEWRULE, unix.SizeofRtMsg},
			"routes":    {unix.RTM_GETROUTE, unix.RTM_NEWROUTE, unix.SizeofRtMsg},
			"addresses": {unix.RTM_GETADDR, unix.RTM_NEWADDR, unix.SizeofIfAddrmsg},
		} {
			for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
				req := nl.NewNetlinkRequest(get.request, unix.NLM_F_DUMP)
				req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
				all, err := req.Execute(unix.NETLINK_ROUTE, get.answer)
				require.NoError(t, err)
				for _, m := range all {
					line := fmt.Sprintf("%x", m[:get.header])
					attrs, err := nl.ParseRouteAttr(m[get.header:])
					require.NoError(t, err)
					for _, a := range attrs {
						if name == "routes" && a.Attr.Type == unix.RTA_CACHEINFO {
							continue
						}
						line += fmt.Sprintf(" %d=%x", a.Attr.Type, a.Value)
					}
					s[name] = append(s[name], line)
				}
			}
			slices.Sort(s[name])
		}
		return nil
	}))
	return s
}

// userSetup gives a node rules and routes of its user's, some of them close to ours.
func userSetup(t *testing.T, n network) map[string][]string {
	t.Helper()
	require.NoError(t, n.node.Do(func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			for _, priority := range []int{4339, 4345, 10000} {
				r := netlink.NewRule()
				r.Family, r.Priority, r.Table, r.Mark = family, priority, 4342, 99
				require.NoError(t, netlink.RuleAdd(r))
			}
		}
		for _, dst := range []string{"198.18.0.0/15", "2001:db8:77::/48"} {
			_, p, err := net.ParseCIDR(dst)
			require.NoError(t, err)
			l, err := netlink.LinkByName("eth0")
			require.NoError(t, err)
			for _, table := range []int{254, 4340, 4342} {
				// One of them even with our protocol number, in another table.
				require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: p, Table: table, Protocol: Protocol}))
			}
		}
		return nil
	}))
	return state(t, n.node)
}

func TestCloseLeavesWhatWasThere(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	for _, cfg := range []Config{
		nodeConfig,
		{EIDs: nodeConfig.EIDs, Destinations: prefixes("198.51.100.0/24", "2001:db8:5::/48")},
		{EIDs: prefixes("10.0.0.0/8", "192.0.2.1/24"), Name: "other", MTU: 600},
	} {
		dev := create(t, n.node, cfg)
		require.NoError(t, dev.SetLocals(locators))
		require.NotEqual(t, before, state(t, n.node))
		require.NoError(t, dev.Close())
		require.NoError(t, dev.Close())
		assert.Equal(t, before, state(t, n.node))
		assert.ErrorIs(t, dev.SetLocals(nil), os.ErrClosed)
		assert.ErrorIs(t, dev.SetMTU(1400), os.ErrClosed)
		_, err := n.node.Netlink().LinkByName(dev.Name())
		assert.ErrorAs(t, err, &netlink.LinkNotFoundError{})
	}
}

// killed creates a device in another process and kills that.
func killed(t *testing.T, n network) {
	t.Helper()
	c := n.node.Self(t.Context())
	c.Env = append(os.Environ(), envHelper+"=1")
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	line := make([]byte, len("created <nil>\n"))
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	require.Equal(t, "created <nil>\n", string(line))
	require.NoError(t, c.Process.Kill())
	require.ErrorContains(t, c.Wait(), "killed")
}

func TestAfterKill(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	clean := create(t, n.node, nodeConfig)
	require.NoError(t, clean.SetLocals(locators))
	running := state(t, n.node)
	require.NoError(t, clean.Close())

	far := listener(t, n.far)
	for range 2 {
		killed(t, n)
		require.NotEqual(t, before["rules"], state(t, n.node)["rules"], "the test is meant to begin with leftovers")
		// Meanwhile the host is as reachable as without us.
		require.NoError(t, send(t, n.node, "", "", far4, "native"))
		require.Equal(t, rloc4+" native", far())
		require.NoError(t, send(t, n.node, rloc6, "", far6, "native"))
		require.Equal(t, rloc6+" native", far())
	}
	dev := create(t, n.node, nodeConfig)
	require.NoError(t, dev.SetLocals(locators))
	now := state(t, n.node)
	assert.Equal(t, running["rules"], now["rules"])
	assert.Len(t, now["routes"], len(running["routes"])) // the device's index differs
	assert.Len(t, now["addresses"], len(running["addresses"]))
	packets := readAll(dev)
	require.NoError(t, send(t, n.node, "", "", far4, "again"))
	assert.Equal(t, eid4+" > "+far4+" again", next(t, packets))
	require.NoError(t, dev.Close())
	assert.Equal(t, before, state(t, n.node))

	killed(t, n)
	require.NoError(t, n.node.Do(func() error { return Cleanup(nodeConfig) }))
	assert.Equal(t, before, state(t, n.node))
	require.NoError(t, n.node.Do(func() error { return Cleanup(nodeConfig) }))
}

// persistent makes a TUN device that outlives its makers, down, with an address.
func persistent(t *testing.T, h *netlab.Host, flags uint16) {
	require.NoError(t, h.Do(func() error {
		fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer func() { _ = unix.Close(fd) }()
		require.NoError(t, attach(fd, "lmn0", unix.IFF_TUN|unix.IFF_NO_PI|flags))
		require.NoError(t, unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
		l, err := netlink.LinkByName("lmn0")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetMTU(l, 1333))
		a, err := netlink.ParseAddr("10.77.0.1/24")
		require.NoError(t, err)
		return netlink.AddrAdd(l, a)
	}))
}

func TestAdoptByName(t *testing.T) {
	for name, flags := range map[string]uint16{"one queue": 0, "several queues": unix.IFF_MULTI_QUEUE} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			persistent(t, n.node, flags)
			before := userSetup(t, n)
			dev := create(t, n.node, nodeConfig)
			packets := readAll(dev)
			require.NoError(t, send(t, n.node, "", "", far6, "adopted"))
			for got := ""; got != eid6+" > "+far6+" adopted"; got = next(t, packets) {
				// The device is its owner's, who may let IPv6 talk there.
			}
			require.NoError(t, dev.Close())
			assert.Equal(t, before, state(t, n.node))

			killed(t, n)
			require.NotEqual(t, before["addresses"], state(t, n.node)["addresses"])
			require.NoError(t, create(t, n.node, nodeConfig).Close())
			assert.Equal(t, before["rules"], state(t, n.node)["rules"])
			var addrs []string
			require.NoError(t, n.node.Do(func() error {
				l, err := netlink.LinkByName("lmn0")
				require.NoError(t, err)
				all, err := netlink.AddrList(l, netlink.FAMILY_V4)
				for _, a := range all {
					addrs = append(addrs, a.IPNet.String())
				}
				return err
			}))
			assert.Equal(t, []string{"10.77.0.1/24"}, addrs)
		})
	}
}

func TestAdoptByDescriptor(t *testing.T) {
	n := newNetwork(t)
	var f *os.File
	require.NoError(t, n.node.Do(func() error {
		fd, err := openTUN("theirs")
		f = os.NewFile(uintptr(fd), "tun")
		return err
	}))
	cfg := nodeConfig
	cfg.File = f
	dev := create(t, n.node, cfg)
	assert.Equal(t, "theirs", dev.Name())
	packets := readAll(dev)
	require.NoError(t, send(t, n.node, "", "", far4, "x"))
	for got := ""; got != eid4+" > "+far4+" x"; got = next(t, packets) {
	}
	_, err := f.Stat()
	assert.ErrorIs(t, err, os.ErrClosed)

	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	_, err = Create(Config{File: null})
	assert.ErrorContains(t, err, "not a TUN device")
	_, err = null.Stat()
	assert.ErrorIs(t, err, os.ErrClosed)
}

func TestInUse(t *testing.T) {
	n := newNetwork(t)
	other := Config{Name: "lmn1", EIDs: nodeConfig.EIDs, Table: 99, RulePriority: 99}
	expect := func(what string, cfg Config) {
		t.Helper()
		before := state(t, n.node)
		err := n.node.Do(func() error {
			i, err := Create(cfg)
			if err == nil {
				_ = i.Close()
			}
			return err
		})
		require.ErrorIs(t, err, ErrInUse)
		assert.ErrorContains(t, err, what)
		assert.Equal(t, before, state(t, n.node), "the one who has it must not notice")
	}
	create(t, n.node, nodeConfig)
	expect("lmn0", Config{EIDs: nodeConfig.EIDs})
	expect("table 4341", Config{Name: "lmn1", EIDs: nodeConfig.EIDs, RulePriority: 99})
	expect("eth0", Config{Name: "eth0"})
	require.ErrorIs(t, n.node.Do(func() error { return Cleanup(nodeConfig) }), ErrInUse)
	require.ErrorIs(t, n.node.Do(func() error { return Cleanup(Config{Name: "lmn1"}) }), ErrInUse)

	require.NoError(t, n.node.Do(func() error {
		r := netlink.NewRule()
		r.Priority, r.Table = 103, 254
		return netlink.RuleAdd(r)
	}))
	expect("103", other)
	n.node.MustRun("ip", "route", "add", "198.18.0.0/15", "via", "10.0.0.1", "table", "98")
	other.RulePriority, other.Table = 110, 98
	expect("table 98", other)
	n.node.MustRun("ip", "route", "add", "blackhole", "198.18.0.0/15", "table", "97")
	other.Table = 97
	expect("198.18.0.0/15", other)
}

func TestRepair(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	dev := create(t, n.node, nodeConfig)
	require.NoError(t, dev.SetLocals(locators))
	running := state(t, n.node)
	require.NoError(t, dev.Repair())
	require.Equal(t, running, state(t, n.node))

	require.NoError(t, n.node.Do(func() error {
		require.NoError(t, netlink.LinkSetDown(dev.link())) // takes routes and an address along
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			rules, err := netlink.RuleList(family)
			require.NoError(t, err)
			for _, r := range rules {
				if r.Protocol == Protocol {
					d := netlink.NewRule()
					d.Family, d.Priority = family, r.Priority
					require.NoError(t, netlink.RuleDel(d))
				}
			}
		}
		return nil
	}))
	require.Equal(t, before["rules"], state(t, n.node)["rules"])
	require.NoError(t, dev.Repair())
	now := state(t, n.node)
	assert.Equal(t, running["rules"], now["rules"])
	assert.Equal(t, running["routes"], now["routes"])
	assert.Len(t, now["addresses"], len(running["addresses"])) // one has a new time stamp
	require.NoError(t, dev.Close())
	assert.Equal(t, before, state(t, n.node))
	assert.ErrorIs(t, dev.Repair(), os.ErrClosed)
}

func TestStrictReversePathWarning(t *testing.T) {
	n := newNetwork(t)
	for _, tt := range []struct {
		all, uplink string
		warn        bool
	}{{"1", "0", true}, {"0", "1", true}, {"0", "0", false}, {"1", "2", false}, {"2", "1", false}} {
		n.node.Sysctl("net/ipv4/conf/all/rp_filter", tt.all)
		n.node.Sysctl("net/ipv4/conf/eth0/rp_filter", tt.uplink)
		var log bytes.Buffer
		cfg := nodeConfig
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		dev := create(t, n.node, cfg)
		require.NoError(t, dev.SetLocals(locators))
		require.NoError(t, dev.SetLocals(locators)) // warns of new ones only
		want := 0
		if tt.warn {
			want = 1
		}
		assert.Equal(t, want, strings.Count(log.String(), "sysctl=net.ipv4.conf.eth0.rp_filter"), "%+v: %s", tt, log.String())
		require.NoError(t, dev.Close())
	}
}

func TestFailureUndoesEverything(t *testing.T) {
	n := newNetwork(t)
	before := userSetup(t, n)
	n.node.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	err := n.node.Do(func() error {
		_, err := Create(nodeConfig)
		return err
	})
	require.ErrorContains(t, err, "address "+eid6)
	assert.Equal(t, before, state(t, n.node))

	_, err = Create(Config{MTU: 1})
	assert.ErrorIs(t, err, ErrConfig)
	assert.ErrorIs(t, Cleanup(Config{MTU: 1}), ErrConfig)
}

func TestMTU(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, nodeConfig)
	assert.Equal(t, 1444, dev.MTU())
	require.NoError(t, dev.SetMTU(1300))
	assert.Equal(t, 1300, dev.MTU())
	l, err := n.node.Netlink().LinkByName("lmn0")
	require.NoError(t, err)
	assert.Equal(t, 1300, l.Attrs().MTU)
	assert.ErrorIs(t, dev.SetMTU(1279), ErrConfig)
	assert.ErrorIs(t, dev.SetMTU(0), ErrConfig)
	_, err = dev.Read([][]byte{make([]byte, 1319)}, make([]int, 1), 20)
	assert.ErrorIs(t, err, ErrConfig)
}

func TestWriteErrors(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, nodeConfig)
	_, err := dev.Write([][]byte{append(make([]byte, Headroom), "\xffno IP packet"...)}, Headroom)
	assert.ErrorIs(t, err, unix.EINVAL)
	_, err = dev.Write([][]byte{make([]byte, 100)}, 0)
	assert.Error(t, err)
	assert.Equal(t, Stats{WriteErrors: 2}, dev.Stats())
}

func TestCloseUnblocksRead(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, nodeConfig)
	done := make(chan error, 1)
	go func() {
		bufs, sizes := buffers(dev)
		_, err := dev.Read(bufs, sizes, 0)
		done <- err
	}()
	require.NoError(t, dev.Close())
	assert.ErrorIs(t, <-done, os.ErrClosed)
}

// TestInUserNamespace runs the tests that matter once more, without real root.
func TestInUserNamespace(t *testing.T) {
	netlab.Require(t, netlab.TUN)
	c := exec.Command("/proc/self/exe", "-test.run", "^(TestWhereTrafficGoes|TestAfterKill|TestCloseLeavesWhatWasThere)$")
	c.Env = append(os.Environ(), netlab.EnvMode+"=userns", netlab.EnvRequire+"=1")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
