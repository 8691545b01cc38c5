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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/internal/virtio"
)

// waitTime is when a test gives up what happens within milliseconds.
const waitTime = 3 * time.Minute

// envHelper makes the test program create a device and wait to be killed.
const envHelper = "TUN_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(envHelper) != "" {
		cfg := nodeConfig
		switch os.Getenv(envHelper) {
		case "marks":
			cfg = markedConfig
		case "router":
			cfg = routerConfig
		}
		i, err := Create(cfg)
		if err == nil {
			err = i.SetLocals(locators)
		}
		if err == nil && cfg.MarkMask != 0 {
			_, err = i.SetMarks([]uint32{3, 7})
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
	nodeConfig   = Config{EIDs: prefixes(eid4+"/32", eid6+"/128")}
	routerConfig = Config{EIDs: prefixes("192.0.2.0/24", "2001:db8:e::/48"), Router: true}
	locators     = []netip.Addr{netip.MustParseAddr(rloc4), netip.MustParseAddr(rloc6)}
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
	case <-time.After(waitTime):
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
		require.NoError(t, c.SetReadDeadline(time.Now().Add(waitTime)))
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
		before := ""
		for to, want := range map[string]string{far4: eid4 + " > " + far4 + " SYN", far6: eid6 + " > " + far6 + " SYN"} {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := n.node.Dial(ctx, "tcp", net.JoinHostPort(to, "80"))
				done <- err
			}()
			got := next(t, packets)
			for got == before {
				got = next(t, packets) // the kernel tried once more
			}
			assert.Equal(t, want, got)
			cancel()
			assert.Error(t, <-done)
			before = got
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
		require.NoError(t, app.SetDeadline(time.Now().Add(waitTime)))

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
		deadline := time.Now().Add(waitTime)
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
		ctx, cancel := context.WithTimeout(t.Context(), waitTime)
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

func TestCloseUnblocksReadVirtio(t *testing.T) {
	n := newNetwork(t)
	dev := create(t, n.node, markedConfig)
	added, err := dev.SetMarks(nil)
	require.NoError(t, err)
	marked, ok := added[0].Device.(virtioDevice)
	require.True(t, ok)
	done := make(chan error, 2)
	for _, d := range []virtioDevice{dev, marked} {
		go func() {
			slots, lens := buffers(dev)
			for {
				if _, err := d.ReadVirtio(slots, lens, virtio.HeaderLen); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	require.NoError(t, dev.Close())
	require.ErrorIs(t, <-done, os.ErrClosed)
	require.ErrorIs(t, <-done, os.ErrClosed)
	bufs, sizes := buffers(dev)
	for _, d := range []virtioDevice{dev, marked} {
		_, err = d.ReadVirtio(bufs, sizes, virtio.HeaderLen)
		require.ErrorIs(t, err, os.ErrClosed)
		assert.ErrorIs(t, d.WriteVirtio([][]byte{make([]byte, virtio.HeaderLen+20)}), os.ErrClosed)
	}
}

// virtioDevice is what the data plane reads packets from as the host has them.
type virtioDevice interface {
	ReadVirtio(bufs [][]byte, sizes []int, offset int) (int, error)
	WriteVirtio(parts [][]byte) error
}

// TestInUserNamespace runs the tests that matter once more, without real root.
func TestInUserNamespace(t *testing.T) {
	netlab.Require(t, netlab.TUN)
	c := exec.Command("/proc/self/exe", "-test.run", "^(TestWhereTrafficGoes|TestAfterKill|TestCloseLeavesWhatWasThere)$")
	c.Env = append(os.Environ(), netlab.EnvMode+"=userns", netlab.EnvRequire+"=1")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
