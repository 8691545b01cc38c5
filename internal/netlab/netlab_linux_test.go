package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	runHelper() // does not return in a helper process
	Main(m)
}

// pair makes a - r - b with both families.
func pair(t *testing.T, ab, bb LinkConfig) (lab *Lab, a, r, b *Host) {
	lab = Test(t, IPv6)
	a, r, b = lab.Host("a"), lab.Router("r"), lab.Host("b")
	ab.A, ab.B = At("10.0.1.2/24", "2001:db8:1::2/64"), At("10.0.1.1/24", "2001:db8:1::1/64")
	bb.A, bb.B = At("10.0.2.2/24", "2001:db8:2::2/64"), At("10.0.2.1/24", "2001:db8:2::1/64")
	lab.Link(a, r, ab)
	lab.Link(b, r, bb)
	a.DefaultVia("10.0.1.1", "2001:db8:1::1")
	b.DefaultVia("10.0.2.1", "2001:db8:2::1")
	return lab, a, r, b
}

// exchange sends one datagram from a to b's address and one back, and returns the
// source that b saw.
func exchange(t *testing.T, a, b *Host, from, to string) netip.AddrPort {
	t.Helper()
	server, err := b.ListenPacket("udp", net.JoinHostPort(to, "0"))
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	client, err := a.ListenPacket("udp", net.JoinHostPort(from, "4000"))
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	deadline := time.Now().Add(awaitLimit)
	require.NoError(t, server.SetDeadline(deadline))
	require.NoError(t, client.SetDeadline(deadline))

	buf := make([]byte, 100)
	_, err = client.WriteTo([]byte("there"), server.LocalAddr())
	require.NoError(t, err)
	n, peer, err := server.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "there", string(buf[:n]))
	_, err = server.WriteTo([]byte("back"), peer)
	require.NoError(t, err)
	n, _, err = client.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "back", string(buf[:n]))
	return peer.(*net.UDPAddr).AddrPort()
}

func TestForwarding(t *testing.T) {
	_, a, _, b := pair(t, LinkConfig{}, LinkConfig{})
	assert.Equal(t, "10.0.1.2", exchange(t, a, b, "10.0.1.2", "10.0.2.2").Addr().String())
	assert.Equal(t, "2001:db8:1::2", exchange(t, a, b, "2001:db8:1::2", "2001:db8:2::2").Addr().String())
}

func TestTCPAcross(t *testing.T) {
	for name, cfg := range map[string]LinkConfig{
		"plain":      {},
		"no offload": {NoOffload: true, MTU: 1400},
		"relayed":    {Relay: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, _, b := pair(t, LinkConfig{}, cfg)
			ln, err := b.Listen("tcp", "[2001:db8:2::2]:0")
			require.NoError(t, err)
			defer func() { _ = ln.Close() }()
			const size = 1 << 20
			got := make(chan int64, 1)
			go func() {
				c, err := ln.Accept()
				if err != nil {
					got <- -1
					return
				}
				n, _ := io.Copy(io.Discard, c)
				got <- n
			}()
			c, err := a.Dial(t.Context(), "tcp", ln.Addr().String())
			require.NoError(t, err)
			_, err = c.Write(make([]byte, size))
			require.NoError(t, err)
			require.NoError(t, c.Close())
			assert.EqualValues(t, size, <-got)
		})
	}
}

func TestMTU(t *testing.T) {
	_, a, r, _ := pair(t, LinkConfig{MTU: 1280}, LinkConfig{})
	for _, h := range []*Host{a, r} {
		l, err := h.Netlink().LinkByName("eth0")
		require.NoError(t, err)
		assert.Equal(t, 1280, l.Attrs().MTU)
	}
}

func TestMTUTooSmallForIPv6(t *testing.T) {
	lab := Test(t)
	a, b := lab.Host("a"), lab.Host("b")
	lab.Link(a, b, LinkConfig{A: At("10.0.0.1/24"), B: At("10.0.0.2/24"), MTU: 600})
	exchange(t, a, b, "10.0.0.1", "10.0.0.2")
}

func TestDelay(t *testing.T) {
	lab, a, _, b := pair(t, LinkConfig{}, LinkConfig{Delay: 50 * time.Millisecond})
	start := time.Now()
	exchange(t, a, b, "10.0.1.2", "10.0.2.2")
	// Twice the delay for the datagrams themselves; a lower bound only.
	assert.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond)
	require.NoError(t, lab.Err())
}

func TestDelayKeepsOrder(t *testing.T) {
	lab := Test(t)
	a, b := lab.Host("a"), lab.Host("b")
	k := lab.Link(a, b, LinkConfig{A: At("10.0.0.1/24"), B: At("10.0.0.2/24"), Delay: 100 * time.Millisecond})
	server, err := b.ListenPacket("udp4", "10.0.0.2:0")
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	client, err := a.Dial(t.Context(), "udp4", server.LocalAddr().String())
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	const n = 200
	for i := range n {
		if i == n/2 {
			k.SetDelay(0) // what comes later may not overtake
		}
		_, err := client.Write([]byte{byte(i)})
		require.NoError(t, err)
	}
	require.NoError(t, server.SetDeadline(time.Now().Add(awaitLimit)))
	buf := make([]byte, 10)
	for i := range n {
		_, _, err := server.ReadFrom(buf)
		require.NoError(t, err)
		require.Equal(t, byte(i), buf[0])
	}
	assert.Zero(t, k.Lost())
}

func TestDrop(t *testing.T) {
	lab := Test(t)
	a, b := lab.Host("a"), lab.Host("b")
	first := true
	k := lab.Link(a, b, LinkConfig{
		A: At("10.0.0.1/24"), B: At("10.0.0.2/24"),
		Drop: func(fromA bool, frame []byte) bool {
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			drop := fromA && first && p.Layer(layers.LayerTypeUDP) != nil
			first = first && !drop
			return drop
		},
	})
	server, err := b.ListenPacket("udp4", "10.0.0.2:0")
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	client, err := a.Dial(t.Context(), "udp4", server.LocalAddr().String())
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	for _, s := range []string{"lost", "kept"} {
		_, err = client.Write([]byte(s))
		require.NoError(t, err)
	}
	require.NoError(t, server.SetDeadline(time.Now().Add(awaitLimit)))
	buf := make([]byte, 10)
	n, _, err := server.ReadFrom(buf)
	require.NoError(t, err)
	assert.Equal(t, "kept", string(buf[:n]))
	k.SetDrop(nil)
	assert.Zero(t, k.Lost())
}

func TestMasquerade(t *testing.T) {
	lab := Test(t, NAT, IPv6)
	a, nat, b := lab.Host("a"), lab.Router("nat"), lab.Host("b")
	lab.Link(a, nat, LinkConfig{A: At("192.168.1.2/24", "fd00:1::2/64"), B: At("192.168.1.1/24", "fd00:1::1/64")})
	out := lab.Link(nat, b, LinkConfig{A: At("203.0.113.1/24", "2001:db8::1/64"), B: At("203.0.113.2/24", "2001:db8::2/64")})
	a.DefaultVia("192.168.1.1", "fd00:1::1")
	nat.Masquerade(out.A, NATConfig{})

	assert.Equal(t, "203.0.113.1", exchange(t, a, b, "192.168.1.2", "203.0.113.2").Addr().String())
	assert.Equal(t, "2001:db8::1", exchange(t, a, b, "fd00:1::2", "2001:db8::2").Addr().String())

	// From outside there is no way in, though b has a route.
	b.AddRoute("192.168.1.0/24", "203.0.113.1")
	inner, err := a.ListenPacket("udp4", "192.168.1.2:5000")
	require.NoError(t, err)
	defer func() { _ = inner.Close() }()
	outer, err := b.Dial(t.Context(), "udp4", "192.168.1.2:5000")
	require.NoError(t, err)
	defer func() { _ = outer.Close() }()
	_, err = outer.Write([]byte("unasked"))
	require.NoError(t, err)
	// What b sends to the NAT afterwards on the same wire comes out first.
	exchange(t, a, b, "192.168.1.2", "203.0.113.2")
	require.NoError(t, inner.SetReadDeadline(time.Now()))
	_, _, err = inner.ReadFrom(make([]byte, 10))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestMasqueradeRandomPorts(t *testing.T) {
	lab := Test(t, NAT)
	a, nat, b := lab.Host("a"), lab.Router("nat"), lab.Host("b")
	lab.Link(a, nat, LinkConfig{A: At("192.168.1.2/24"), B: At("192.168.1.1/24")})
	out := lab.Link(nat, b, LinkConfig{A: At("203.0.113.1/24"), B: At("203.0.113.2/24", "203.0.113.3/24", "203.0.113.4/24")})
	a.DefaultVia("192.168.1.1")
	nat.Masquerade(out.A, NATConfig{RandomPorts: true})
	seen := map[uint16]bool{}
	for _, to := range []string{"203.0.113.2", "203.0.113.3", "203.0.113.4"} {
		seen[exchange(t, a, b, "192.168.1.2", to).Port()] = true
	}
	assert.Greater(t, len(seen), 1, "one port to three destinations seen from one port")
}

func TestSysctl(t *testing.T) {
	lab := Test(t)
	a, b := lab.Host("a"), lab.Host("b")
	a.Sysctl("net/ipv4/ip_default_ttl", "33")
	read := func(h *Host) (s string) {
		require.NoError(t, h.Do(func() error {
			x, err := os.ReadFile("/proc/sys/net/ipv4/ip_default_ttl")
			s = strings.TrimSpace(string(x))
			return err
		}))
		return s
	}
	assert.Equal(t, "33", read(a))
	assert.Equal(t, "64", read(b))
}

func TestInterfaceChanges(t *testing.T) {
	lab := Test(t, IPv6)
	a, b := lab.Host("a"), lab.Host("b")
	k := lab.Link(a, b, LinkConfig{A: End{Name: "wlan0"}, B: At("10.0.0.2/24", "2001:db8::2/64")})
	assert.Equal(t, "wlan0", k.A.Name)
	assert.Equal(t, "eth0", k.B.Name)
	k.A.AddAddr("10.0.0.1/24")
	k.A.AddAddr("2001:db8::1/64")
	exchange(t, a, b, "10.0.0.1", "10.0.0.2")
	exchange(t, a, b, "2001:db8::1", "2001:db8::2")
	k.A.Down()
	require.NoError(t, b.Await(t.Context(), "carrier gone", func(nlh *netlink.Handle) (bool, error) {
		l, err := nlh.LinkByIndex(k.B.Index)
		return err == nil && l.Attrs().OperState == netlink.OperLowerLayerDown || err == nil && l.Attrs().OperState == netlink.OperDown, err
	}))
	k.A.Up()
	exchange(t, a, b, "10.0.0.1", "10.0.0.2")
	k.A.DelAddr("10.0.0.1/24")
	k.A.SetMTU(1300)
	l, err := a.Netlink().LinkByName("wlan0")
	require.NoError(t, err)
	assert.Equal(t, 1300, l.Attrs().MTU)
	assert.Equal(t, l.Attrs().HardwareAddr, k.A.HardwareAddr())
}

func TestAwaitEnds(t *testing.T) {
	a := Test(t).Host("a")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := a.Await(ctx, "what never comes", func(*netlink.Handle) (bool, error) { return false, nil })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "what never comes")
	err = Eventually(ctx, "pigs to fly", func() bool { return false })
	assert.ErrorContains(t, err, "pigs to fly")
}

func TestDo(t *testing.T) {
	lab := Test(t)
	a, b := lab.Host("a"), lab.Host("b")
	ino := func() uint64 {
		n, err := netnsInode("/proc/thread-self/ns/net")
		require.NoError(t, err)
		return n
	}
	outside := ino()
	require.NoError(t, a.Do(func() error {
		inA := ino()
		assert.NotEqual(t, outside, inA)
		require.NoError(t, b.Do(func() error {
			assert.NotEqual(t, inA, ino())
			return nil
		}))
		assert.Equal(t, inA, ino())
		return nil
	}))
	assert.Equal(t, outside, ino())
	assert.ErrorIs(t, a.Do(func() error { return io.EOF }), io.EOF)

	// A function that ends its goroutine leaves no thread behind in the host.
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Do(func() error {
			require.FailNow(&testing.T{}, "as a test would")
			return nil
		})
	}()
	<-done
	assert.Equal(t, outside, ino())
}

func TestPrograms(t *testing.T) {
	lab := Test(t)
	a, b := lab.Host("a"), lab.Host("b")
	lab.Link(a, b, LinkConfig{A: At("10.0.0.1/24"), B: At("10.0.0.2/24")})
	c := a.Self(t.Context())
	c.Env = helperEnv("addresses")
	out, err := c.Output()
	require.NoError(t, err)
	assert.Contains(t, string(out), "10.0.0.1/24")
	assert.NotContains(t, string(out), "10.0.0.2/24")

	_, err = a.Run(t.Context(), "no-such-program")
	assert.ErrorIs(t, err, ErrNoProgram)
}

func TestProgramsEndWithTheLab(t *testing.T) {
	lab := Test(t)
	c := lab.Host("a").Self(t.Context())
	c.Env = helperEnv("wait")
	stdout, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	_, err = io.ReadFull(stdout, make([]byte, 6))
	require.NoError(t, err)
	require.NoError(t, lab.Close())
	assert.ErrorContains(t, c.Wait(), "killed")
	assert.Error(t, c.host.Command(t.Context(), "true").Run())
}

func TestAfterClose(t *testing.T) {
	Require(t, Veth)
	lab := New(t.Context())
	require.NoError(t, lab.Close())
	require.NoError(t, lab.Close())
	assert.ErrorContains(t, lab.Host("late").Do(func() error { return nil }), "closed")
	assert.ErrorContains(t, lab.Err(), "closed")
}

func TestErrorsStick(t *testing.T) {
	Require(t, Veth)
	lab := New(t.Context())
	defer func() { require.NoError(t, lab.Close()) }()
	a, b := lab.Host("a"), lab.Host("b")
	a.AddRoute("default", "nonsense")
	err := lab.Err()
	require.ErrorContains(t, err, "nonsense")
	lab.Link(a, b, LinkConfig{})
	assert.Equal(t, err, lab.Err())
	links, lerr := a.Netlink().LinkList()
	require.NoError(t, lerr)
	assert.Len(t, links, 1)
	c := lab.Host("c")
	assert.ErrorIs(t, c.Do(func() error { return nil }), err)
	assert.ErrorIs(t, c.Command(t.Context(), "true").Run(), err)
	_, cerr := c.Capture(filepath.Join(t.TempDir(), "x"))
	assert.ErrorIs(t, cerr, err)
}

func TestCapture(t *testing.T) {
	lab := Test(t, PacketSockets, IPv6)
	a, b := lab.Host("a"), lab.Host("b")
	path := filepath.Join(t.TempDir(), "captures", "b.pcapng")
	capture, err := b.Capture(path)
	require.NoError(t, err)
	lab.Link(a, b, LinkConfig{A: At("10.0.0.1/24"), B: At("10.0.0.2/24"), NoOffload: true})
	exchange(t, a, b, "10.0.0.1", "10.0.0.2")
	exchange(t, b, b, "127.0.0.1", "127.0.0.1")
	require.NoError(t, capture.Stop())
	require.NoError(t, capture.Stop())
	assert.Positive(t, capture.Packets())

	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r, err := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	require.NoError(t, err)
	seen := map[string]int{}
	for {
		data, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		intf, err := r.Interface(ci.InterfaceIndex)
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), ci.Timestamp, time.Minute)
		p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
		if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
			seen[intf.Name+" "+string(udp.Payload)]++
			if intf.Name == "eth0" {
				want := udp.Checksum
				require.NoError(t, udp.SetNetworkLayerForChecksum(p.NetworkLayer()))
				buf := gopacket.NewSerializeBuffer()
				require.NoError(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, udp, gopacket.Payload(udp.Payload)))
				assert.Equal(t, fmt.Sprintf("%#x", want), fmt.Sprintf("%#x", udp.Checksum), "a finished checksum")
			}
		}
	}
	assert.Equal(t, map[string]int{"eth0 there": 1, "eth0 back": 1, "lo there": 1, "lo back": 1}, seen)
}

func TestCaptureTUN(t *testing.T) {
	lab := Test(t, TUN)
	a := lab.Host("a")
	fd := -1
	require.NoError(t, a.Do(func() (err error) {
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		ifr, err := unix.NewIfreq("lmn0")
		require.NoError(t, err)
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}))
	defer func() { _ = unix.Close(fd) }()
	path := filepath.Join(t.TempDir(), "a.pcapng")
	_, err := a.Capture(path)
	require.NoError(t, err)
	e := &Interface{Host: a, Name: "lmn0"}
	require.NoError(t, e.find())
	require.NoError(t, e.setFlags(true))
	e.AddAddr("10.9.9.1/24")
	c, err := a.Dial(t.Context(), "udp4", "10.9.9.2:9")
	require.NoError(t, err)
	_, err = c.Write([]byte("raw"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, lab.Close()) // stops the capture too

	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	r, err := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	require.NoError(t, err)
	for {
		data, ci, err := r.ReadPacketData()
		require.NoError(t, err, "the packet is not in the file")
		intf, err := r.Interface(ci.InterfaceIndex)
		require.NoError(t, err)
		if strings.HasSuffix(string(data), "raw") {
			assert.Equal(t, "lmn0", intf.Name)
			assert.Equal(t, linkTypeRaw, intf.LinkType)
			assert.EqualValues(t, 0x45, data[0])
			return
		}
	}
}
