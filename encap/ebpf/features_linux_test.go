package ebpf

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/tun"
)

// A router encapsulates what comes from its LAN where it comes in, with a TTL less,
// and what arrives for the LAN is forwarded to it; super-packets stay whole or are
// cut again for a LAN without offload.
func TestRouterMode(t *testing.T) {
	for _, noOffload := range []bool{false, true} {
		t.Run(fmt.Sprintf("offload %v", !noOffload), func(t *testing.T) {
			requireBPF(t)
			lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)
			c, a, b := lab.Host("c"), lab.Router("a"), lab.Host("b")
			lan := lab.Link(c, a, netlab.LinkConfig{A: netlab.At("10.1.0.2/24", "fd00:1::2/64"), B: netlab.At("10.1.0.1/24", "fd00:1::1/64"), NoOffload: noOffload})
			c.DefaultVia("10.1.0.1", "fd00:1::1")
			up := lab.Link(a, b, netlab.LinkConfig{A: netlab.At("198.51.100.1/24"), B: netlab.At("198.51.100.2/24")})
			router := newNode(t, a, nodeConfig{
				backend: inKernel, eids: []string{"10.1.0.1/24", "fd00:1::1/64"},
				locals:   []mapcache.Local{{IfIndex: up.A.Index, Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
				mappings: []mapcache.Mapping{mapTo(0, "10.2.0.1/32", "198.51.100.2", 0), mapTo(0, "fd00:2::1/128", "198.51.100.2", 0)},
				tun:      tun.Config{Router: true},
				ebpf:     func(c *Config) { c.LANs = []LAN{{IfIndex: lan.B.Index}} },
			})
			peer := newNode(t, b, nodeConfig{
				backend: inKernel, eids: []string{"10.2.0.1/32", "fd00:2::1/128"},
				locals:   []mapcache.Local{{IfIndex: up.B.Index, Addr: addr("198.51.100.2"), Priority: 1, Weight: 1, Up: true}},
				mappings: []mapcache.Mapping{mapTo(0, "10.1.0.0/24", "198.51.100.1", 0), mapTo(0, "fd00:1::/64", "198.51.100.1", 0)},
			})
			for _, f := range [][2]string{{"10.1.0.2", "10.2.0.1"}, {"fd00:1::2", "fd00:2::1"}} {
				exchange(t, c, b, f[0], f[1], 100)
				exchange(t, b, c, f[1], f[0], 100)
				transfer(t, c, b, f[0], f[1], 4<<20)
				transfer(t, b, c, f[1], f[0], 4<<20)
			}
			s := router.stats()
			assert.NotZero(t, s.KernelEncapsulated.Packets)
			assert.Equal(t, s.Encapsulated, s.KernelEncapsulated)
			assert.Equal(t, s.Decapsulated, s.KernelDecapsulated)
			s.Drops[encap.DropScope] = 0 // what a router says on every link
			assert.Equal(t, [encap.NumDropReasons]uint64{}, s.Drops)

			// TTL: one less, whoever forwards.
			w := newWire(t, b, ifindexOf(t, b, peer.tun.Name()), nil)
			from := newWire(t, c, lan.A.Index, lan.B.HardwareAddr())
			for _, sp := range []spec{
				{src: "10.1.0.2", dst: "10.2.0.1", ttl: 9, sport: 77, dport: 78},
				{src: "fd00:1::2", dst: "fd00:2::1", ttl: 9, sport: 77, dport: 78},
			} {
				from.send(t, sp.build())
				sp.ttl = 8
				want := sp.build()
				got := w.read(t, 1, func(b []byte) bool { return len(b) == len(want) && b[len(b)-7] == 77 })
				assert.Equal(t, want, got[0])
			}
			// Who has none left is told by the host.
			from.send(t, spec{src: "10.1.0.2", dst: "10.2.0.1", ttl: 1, sport: 77, dport: 78}.build())
			exceeded := from.read(t, 1, func(b []byte) bool { return b[0]>>4 == 4 && b[9] == unix.IPPROTO_ICMP && b[20] == 11 })
			assert.Equal(t, addr("10.1.0.1").AsSlice(), exceeded[0][12:16])
		})
	}
}

func ifindexOf(t *testing.T, h *netlab.Host, name string) int {
	t.Helper()
	l, err := h.Netlink().LinkByName(name)
	require.NoError(t, err)
	return l.Attrs().Index
}

// A frame with a priority tag is for the host like any other, and comes by the
// socket; one of another VLAN is not.
func TestVLANTags(t *testing.T) {
	n, device, peer := conformanceNode(t, inKernel)
	inner := func(i byte) []byte {
		return spec{src: "10.2.0.1", dst: "10.1.9.7", ttl: 64, payload: []byte{i}}.build()
	}
	for i, tag := range []uint16{5, 0, 7 << 13} {
		packet := spec{src: "198.51.100.2", dst: "198.51.100.1"}.data([8]byte{}, inner(byte(i)))
		frame := append(append([]byte(nil), peer.to...), 2, 0, 0, 0, 0, 1, 0x81, 0, byte(tag>>8), byte(tag), 8, 0)
		peer.sendFrame(t, append(frame, packet...))
	}
	for i, got := range device.read(t, 2, func([]byte) bool { return true }) {
		assert.Equal(t, inner(byte(i+1)), got)
	}
	s := n.stats()
	assert.EqualValues(t, 2, s.Decapsulated.Packets)
	assert.Zero(t, s.KernelDecapsulated)
}

// twoUplinks is a node with two wires to b.
func twoUplinks(t *testing.T, mask uint32, device tun.Config) (n *node, links [2]*netlab.Link) {
	t.Helper()
	requireBPF(t)
	lab := netlab.Test(t, netlab.TUN, netlab.PolicyRouting)
	a, b := lab.Host("a"), lab.Host("b")
	var locals []mapcache.Local
	for i := range links {
		own := fmt.Sprintf("198.51.10%d.1", i)
		links[i] = lab.Link(a, b, netlab.LinkConfig{A: netlab.At(own + "/24"), B: netlab.At(fmt.Sprintf("198.51.10%d.2/24", i))})
		locals = append(locals, mapcache.Local{IfIndex: links[i].A.Index, Addr: addr(own), Priority: uint8(1 + i), Weight: 1, Up: true})
		b.MustRun("ip", "addr", "add", "203.0.113.9/32", "dev", links[i].B.Name)
		a.MustRun("ip", "route", "add", "203.0.113.9/32", "via", fmt.Sprintf("198.51.10%d.2", i), "metric", fmt.Sprint(i+1))
	}
	n = newNode(t, a, nodeConfig{
		backend: inKernel, eids: []string{"10.1.0.1/32"}, locals: locals,
		mappings: []mapcache.Mapping{mapTo(0, "10.2.0.0/16", "203.0.113.9", 0)},
		ebpf:     func(c *Config) { c.MarkMask = mask },
		tun:      device,
	})
	return n, links
}

// The firewall mark of a packet is the index of the uplink that it leaves by, with
// that uplink's address; without one Priority decides.
func TestMark(t *testing.T) {
	n, links := twoUplinks(t, 0xffff, tun.Config{})
	for i, mark := range []int{0, links[1].A.Index, links[0].A.Index, 0x70000 | links[1].A.Index} {
		w := newWire(t, links[0].B.Host, links[[]int{0, 1, 0, 1}[i]].B.Index, nil)
		c, err := n.host.ListenPacket("udp", "10.1.0.1:0")
		require.NoError(t, err)
		raw, err := c.(*net.UDPConn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark))
		}))
		_, err = c.WriteTo([]byte{byte(i)}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.2.0.1:9")))
		require.NoError(t, err)
		got := parseOuter(w.read(t, 1, isData)[0])
		assert.Equal(t, fmt.Sprintf("198.51.10%d.1", []int{0, 1, 0, 1}[i]), got.src.Addr().String(), "mark %x", mark)
		require.NoError(t, c.Close())
	}
	s := n.stats()
	assert.EqualValues(t, 4, s.KernelEncapsulated.Packets)
	// Of an interface that is none of ours: user space decides.
	assert.Equal(t, [NumSlowReasons]uint64{}, s.Slow)
}

// An uplink that goes down: from SetLocals on not one packet leaves by it.
func TestUplinkGoes(t *testing.T) {
	n, links := twoUplinks(t, 0, tun.Config{})
	device := newWire(t, n.host, ifindexOf(t, n.host, n.tun.Name()), nil)
	second := newWire(t, links[1].B.Host, links[1].B.Index, nil)
	send := func(i int) {
		device.send(t, spec{src: "10.1.0.1", dst: "10.2.0.1", sport: uint16(i), dport: 9, payload: []byte{1}}.build())
	}
	send(1)
	first := newWire(t, links[0].B.Host, links[0].B.Index, nil)
	send(2)
	first.read(t, 1, isData)
	var locals []mapcache.Local
	for _, l := range n.fwd.LocalPaths() {
		l.Up = l.IfIndex != links[0].A.Index
		locals = append(locals, l.Local)
	}
	require.NoError(t, n.host.Do(func() error { return n.plane.SetLocals(locals) }))
	for i := range 20 {
		send(10 + i)
	}
	second.read(t, 20, isData)
	assert.EqualValues(t, 22, n.stats().KernelEncapsulated.Packets)
}

// The path MTU that an ICMP error tells counts in the kernel too: what is larger is
// user space's, which tells the source.
func TestPathMTU(t *testing.T) {
	requireBPF(t)
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)
	a, r, b := lab.Host("a"), lab.Router("r"), lab.Host("b")
	up := lab.Link(a, r, netlab.LinkConfig{A: netlab.At("198.51.100.1/24"), B: netlab.At("198.51.100.9/24")})
	far := lab.Link(r, b, netlab.LinkConfig{A: netlab.At("203.0.113.9/24"), B: netlab.At("203.0.113.2/24"), MTU: 1300})
	a.DefaultVia("198.51.100.9")
	b.DefaultVia("203.0.113.9")
	n := newNode(t, a, nodeConfig{
		backend: inKernel, eids: []string{"10.1.0.1/32"},
		locals:   []mapcache.Local{{IfIndex: up.A.Index, Addr: addr("198.51.100.1"), Priority: 1, Weight: 1, Up: true}},
		mappings: []mapcache.Mapping{mapTo(0, "10.2.0.1/32", "203.0.113.2", 0)},
	})
	peer := newNode(t, b, nodeConfig{
		backend: inKernel, eids: []string{"10.2.0.1/32"},
		locals:   []mapcache.Local{{IfIndex: far.B.Index, Addr: addr("203.0.113.2"), Priority: 1, Weight: 1, Up: true}},
		mappings: []mapcache.Mapping{mapTo(0, "10.1.0.1/32", "198.51.100.1", 0)},
		encap:    func(c *encap.Config) { c.KeepDeviceMTU = true }, // or a would know by the MSS
	})
	transfer(t, a, b, "10.1.0.1", "10.2.0.1", 8<<20)
	s := n.stats()
	assert.NotZero(t, s.OuterErrors, "the ICMP error was obeyed")
	assert.NotZero(t, s.ICMPSent, "and the source was told")
	assert.Greater(t, s.KernelEncapsulated.Packets, uint64(5000), "the rest is the kernel's")
	assert.Less(t, s.Encapsulated.Packets-s.KernelEncapsulated.Packets, uint64(200))
	assert.NotZero(t, peer.stats().KernelDecapsulated.Packets)

	before := n.stats()
	tooBig := spec{src: "10.1.0.1", dst: "10.2.0.1", flags: layers.IPv4DontFragment, payload: make([]byte, 1300-36-27)}
	newWire(t, a, ifindexOf(t, a, n.tun.Name()), nil).send(t, tooBig.build())
	judge(t, n, &before, &conformanceCase{drop: encap.DropTooBig, slow: "size"})
}

// From the change on no packet goes to a locator that is gone, while 4000 mappings
// are changed and a flow goes on.
func TestChurn(t *testing.T) {
	n, device, peer := conformanceNode(t, inKernel)
	n.insert(t, mapTo(0, "10.80.0.1/32", "198.51.100.2", 0))
	packet := spec{src: "10.1.0.1", dst: "10.80.0.1", sport: 5, dport: 6, payload: []byte{1}}.build()
	old := mapcache.Locator{Addr: addr("198.51.100.2")}
	for i := range 40 {
		for j := range 100 {
			m := mapTo(0, fmt.Sprintf("10.81.%d.%d/32", i%7, j), fmt.Sprintf("203.0.113.%d", 1+(i+j)%200), 0)
			m.TTL, m.Origin = mapcache.TTLForever, mapcache.OriginStatic
			require.NoError(t, n.cache.Insert(time.Now(), m))
		}
		n.cache.SetReachable(old, i%2 == 1)
		n.publish(t)
		before := n.stats()
		device.send(t, packet)
		if i%2 == 1 {
			peer.read(t, 1, isData)
		}
		require.NoError(t, netlab.Eventually(t.Context(), "the packet is done with", func() bool {
			s := n.stats()
			return handled(&s.Stats) > handled(&before.Stats)
		}))
		s := n.stats()
		assert.EqualValues(t, i%2, s.KernelEncapsulated.Packets-before.KernelEncapsulated.Packets)
		assert.EqualValues(t, 1-i%2, s.Drop(encap.DropNoLocator)-before.Drop(encap.DropNoLocator))
	}
}
