package ebpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// conformanceCase is one packet, and what both data planes make of it. The kernel
// does it alone unless slow says why it does not.
type conformanceCase struct {
	name   string
	packet []byte   // an inner one that is to leave, or an outer one that arrives
	want   [][]byte // inner packets, in data packets or delivered; nil if none
	check  func(t *testing.T, packet outer)
	drop   encap.DropReason
	slow   string // a SlowReason, "socket" if programs take no notice; empty: fast
}

// outgoing are packets that leave by lmn0.
func outgoing() []conformanceCase {
	var cs []conformanceCase
	fast := func(name string, s spec, check func(*testing.T, outer)) {
		b := s.build()
		cs = append(cs, conformanceCase{name: name, packet: b, want: [][]byte{b}, check: check})
	}
	slow := func(name, why string, s spec, drop encap.DropReason) {
		c := conformanceCase{name: name, packet: s.build(), drop: drop, slow: why}
		if drop == encap.DropNone {
			c.want = [][]byte{c.packet}
		}
		cs = append(cs, c)
	}
	for _, f := range families {
		fast(f.name, spec{src: f.a, dst: f.b, tos: 0xb8, ttl: 33, sport: 7, dport: 8, payload: make([]byte, 100)}, func(t *testing.T, o outer) {
			assert.Equal(t, addr(f.rlocA), o.src.Addr())
			assert.Equal(t, addr(f.rlocB), o.dst.Addr())
			assert.EqualValues(t, 4341, o.dst.Port()) // RFC 9300-5.3-1
			assert.EqualValues(t, 33, o.ttl)          // RFC 9300-5.3-14
			assert.EqualValues(t, 0xb8, o.tos)        // RFC 9300-5.3-15
			assert.True(t, o.df)                      // RFC 9300-7.1-3
			assert.Equal(t, make([]byte, 8), o.payload[:8])
		})
		for ecn := range uint8(4) {
			fast(fmt.Sprintf("%s, ECN %d", f.name, ecn), spec{src: f.a, dst: f.b, tos: ecn}, func(t *testing.T, o outer) {
				assert.Equal(t, ecn, o.tos)
			})
		}
	}
	four, six := spec{src: "10.1.0.1", dst: "10.2.0.1", sport: 9, dport: 9}, spec{src: "fd00:1::1", dst: "fd00:2::1", sport: 9, dport: 9}
	with := func(s spec, change func(*spec)) spec {
		change(&s)
		return s
	}
	fast("the last hop", with(four, func(s *spec) { s.ttl = 1 }), func(t *testing.T, o outer) { assert.EqualValues(t, 1, o.ttl) })
	fast("IPv4 options", with(four, func(s *spec) { s.options = []byte{7, 8, 1, 2, 3, 4, 5, 6} }), nil)
	fast("a first fragment", with(four, func(s *spec) { s.flags, s.payload = layers.IPv4MoreFragments, make([]byte, 64) }), nil)
	fast("a later fragment", with(four, func(s *spec) { s.fragment, s.payload = 9, make([]byte, 64) }), nil)
	fast("a hop-by-hop header", with(six, func(s *spec) { s.extType, s.extension = 0, make([]byte, 8) }), nil)
	fast("another protocol", with(four, func(s *spec) { s.proto, s.payload = 89, make([]byte, 30) }), nil)
	fast("TCP", with(four, func(s *spec) { s.proto = layers.IPProtocolTCP }), nil)
	fast("as large as fits", with(four, func(s *spec) { s.flags, s.payload = layers.IPv4DontFragment, make([]byte, 1500-36-28) }), nil)
	slow("one octet more", "size", with(four, func(s *spec) { s.flags, s.payload = layers.IPv4DontFragment, make([]byte, 1500-36-27) }), encap.DropTooBig)
	slow("data in data", "header", with(four, func(s *spec) { s.dport, s.payload = 4341, make([]byte, 40) }), encap.DropNone)
	slow("a foreign source", "source", with(four, func(s *spec) { s.src = "10.9.0.1" }), encap.DropSource)
	slow("one of our locators", "source", with(four, func(s *spec) { s.dst = "198.51.100.1" }), encap.DropLoop)
	slow("a negative mapping", "entry", with(four, func(s *spec) { s.dst = "10.66.0.1" }), encap.DropAction)
	slow("no usable locator", "locator", with(four, func(s *spec) { s.dst = "10.67.0.1" }), encap.DropNoLocator)
	slow("multicast", "header", with(four, func(s *spec) { s.dst = "224.0.0.5" }), encap.DropScope)
	slow("LISP-GPE with a checksum", "locator", with(four, func(s *spec) { s.dst = "10.68.0.1" }), encap.DropNone)
	return cs
}

// quiet is an EID of a's beside a, to which nobody answers.
func quiet(a string) string {
	return map[string]string{"10.1.0.1": "10.1.9.7", "10.3.0.1": "10.3.9.7", "fd00:1::1": "fd00:1:9::7", "fd00:3::1": "fd00:3:9::7"}[a]
}

// unanswered is a payload, with its protocol, that no host answers with an ICMP
// error: an ICMP error.
func unanswered(a string, n int) (layers.IPProtocol, []byte) {
	b := make([]byte, n)
	if addr(a).Is4() {
		return layers.IPProtocolUDP, b
	}
	b[0] = 1 // destination unreachable
	return layers.IPProtocolICMPv6, b
}

// arriving are packets for us that come by the uplink.
func arriving() []conformanceCase {
	var cs []conformanceCase
	plain := [8]byte{}
	one := func(name, why string, b []byte, drop encap.DropReason, want ...[]byte) {
		cs = append(cs, conformanceCase{name: name, packet: b, want: want, drop: drop, slow: why})
	}
	for _, f := range families {
		outside := spec{src: f.rlocB, dst: f.rlocA, tos: 0x28, ttl: 40}
		inner := spec{src: f.b, dst: quiet(f.a), ttl: 50, tos: 0xb8}
		inner.proto, inner.payload = unanswered(f.a, 99)
		merged := inner
		merged.ttl, merged.tos = 40, 0x28
		one(f.name, "", outside.data(plain, inner.build()), 0, merged.build()) // RFC 9300-5.3-17, 9300-5.3-18
		// RFC 6040 Figure 4, by inner and outer field.
		for in, row := range [4][4]int{{0, 0, 0, -1}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}} {
			for out, ecn := range row {
				o, i := outside, inner
				o.tos, i.tos = 0x28|uint8(out), 0xb8|uint8(in)
				name := fmt.Sprintf("%s, ECN %d in %d", f.name, in, out)
				if ecn < 0 {
					one(name, "", o.data(plain, i.build()), encap.DropECN)
					continue
				}
				want := i
				want.ttl, want.tos = 40, 0x28|uint8(ecn)
				one(name, "", o.data(plain, i.build()), 0, want.build())
			}
		}
	}
	outside := spec{src: "198.51.100.2", dst: "198.51.100.1", ttl: 64}
	inner := spec{src: "10.2.0.1", dst: "10.1.9.7", ttl: 64, payload: make([]byte, 50)}.build()
	inner6 := spec{src: "fd00:2::1", dst: "fd00:1:9::7", ttl: 64, proto: layers.IPProtocolICMPv6, payload: append([]byte{1}, make([]byte, 50)...)}.build()
	header := func(b ...byte) (h [8]byte) {
		copy(h[:], b)
		return h
	}
	one("LISP-GPE, IPv4", "", outside.data(header(0x0c, 0, 0, 1), inner), 0, inner)
	one("LISP-GPE, IPv6", "", outside.data(header(0x04, 0, 0, 2), inner6), 0, inner6)
	one("LISP-GPE, not what it says", "header", outside.data(header(0x0c, 0, 0, 2), inner), encap.DropProtocol)
	one("LISP-GPE, Ethernet", "flags", outside.data(header(0x0c, 0, 0, 3), inner), encap.DropProtocol)
	one("instance 0", "", outside.data(header(0x08), inner), 0, inner)
	one("a nonce", "flags", outside.data(header(0x80, 1, 2, 3), inner), 0, inner)
	one("LSBs", "flags", outside.data(header(0x40, 0, 0, 0, 0, 0, 0, 1), inner), 0, inner)
	one("Map-Versions", "flags", outside.data(header(0x10, 0, 0x10, 1), inner), encap.DropMapVersion)
	one("encrypted", "flags", outside.data(header(0x01), inner), encap.DropEncrypted)
	one("an unknown instance", "instance", outside.data(header(0x08, 0, 0, 0, 0, 0, 9), inner), encap.DropInstance)
	one("control messages", "instance", outside.data(header(0x08, 0, 0, 0, 0xff, 0xff, 0xff), inner), encap.DropControl)
	one("not our EID", "", outside.data(plain, spec{src: "10.2.0.1", dst: "10.8.0.1"}.build()), encap.DropNotOurEID)
	one("loopback inside", "", outside.data(plain, spec{src: "127.0.0.1", dst: "10.1.9.7"}.build()), encap.DropScope)
	damaged := append([]byte(nil), inner...)
	damaged[10] ^= 1
	one("inner checksum", "", outside.data(plain, damaged), encap.DropChecksum)
	options := spec{src: "10.2.0.1", dst: "10.1.9.7", ttl: 64, options: []byte{148, 4, 0, 0}}.build()
	one("inner options", "header", outside.data(plain, options), 0, options)
	one("octets behind the packet", "aggregate", outside.data(plain, append(append([]byte(nil), inner...), 1, 2, 3)), 0, inner)
	one("cut off", "header", outside.data(plain, inner[:60]), encap.DropTruncated)
	withOptions := outside
	withOptions.options = []byte{148, 4, 0, 0}
	one("outer options", "socket", withOptions.data(plain, inner), 0, inner)
	return cs
}

// conformanceNode is a node on one end of a wire, for which the other end is a test.
func conformanceNode(t *testing.T, b backend) (n *node, device, peer *wire) {
	t.Helper()
	return changedNode(t, b, func(*nodeConfig) {})
}

// changedNode is a conformanceNode with another configuration.
func changedNode(t *testing.T, b backend, change func(*nodeConfig)) (n *node, device, peer *wire) {
	t.Helper()
	p := newPair(t, netlab.LinkConfig{NoOffload: true}, [2]backend{b, ""}, 0, mapcache.FormatLISP, func(_ int, c *nodeConfig) {
		c.encap = func(c *encap.Config) { c.ICMPRate, c.KeepDeviceMTU = -1, true }
		c.tun.MTU, c.metered = 1500, true
		c.eids = append(c.eids, "10.1.9.1/24", "10.3.9.1/24", "fd00:1:9::1/64", "fd00:3:9::1/64")
		c.mappings = append(c.mappings,
			mapcache.Mapping{Key: mapcache.MakeKey(0, prefix("10.66.0.0/16")), Action: lisp.ActionDropNoReason},
			mapTo(0, "10.67.0.0/16", "198.51.100.67", mapcache.FormatLISP),
			mapTo(0, "10.68.0.0/16", "198.51.100.2", mapcache.FormatGPE),
		)
		change(c)
	})
	n = p.nodes[0]
	n.cache.SetReachable(mapcache.Locator{Addr: addr("198.51.100.67")}, false)
	n.publish(t)
	ifi := 0
	require.NoError(t, n.host.Do(func() error {
		l, err := n.host.Netlink().LinkByName(n.tun.Name())
		if err == nil {
			ifi = l.Attrs().Index
		}
		return err
	}))
	return n, newWire(t, n.host, ifi, nil), newWire(t, p.link.B.Host, p.link.B.Index, p.link.A.HardwareAddr())
}

// One table of packets, and two data planes: both make the same of each, and the
// kernel alone where it can.
func TestConformance(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			n, device, peer := conformanceNode(t, b)
			for _, c := range outgoing() {
				t.Run("out, "+c.name, func(t *testing.T) {
					before := n.stats()
					device.send(t, c.packet)
					for i, got := range peer.read(t, len(c.want), isData) {
						o := parseOuter(got)
						assert.Equal(t, c.want[i], o.payload[8:])
						assert.Contains(t, sourcePorts(n), o.src.Port())
						if c.check != nil {
							c.check(t, o)
						}
					}
					judge(t, n, &before, &c)
				})
			}
			for _, c := range arriving() {
				t.Run("in, "+c.name, func(t *testing.T) {
					before := n.stats()
					peer.send(t, c.packet)
					for i, got := range device.read(t, len(c.want), func([]byte) bool { return true }) {
						assert.Equal(t, c.want[i], got)
					}
					judge(t, n, &before, &c)
				})
			}
		})
	}
}

func sourcePorts(n *node) (ports []uint16) {
	for _, p := range n.fwd.LocalPaths() {
		ports = append(ports, p.Ports...)
	}
	return ports
}

// judge waits until a packet is done with, and looks by which path it went.
func judge(t *testing.T, n *node, before *Stats, c *conformanceCase) {
	t.Helper()
	var s Stats
	require.NoError(t, netlab.Eventually(t.Context(), "the packet to be done with", func() bool {
		s = n.stats()
		return handled(&s.Stats) > handled(&before.Stats)
	}))
	require.EqualValues(t, 1, handled(&s.Stats)-handled(&before.Stats), "handled exactly once")
	for i := range s.Drops {
		want := uint64(0)
		if c.drop == encap.DropReason(i) && c.drop != encap.DropNone {
			want = 1
		}
		require.Equal(t, want, s.Drops[i]-before.Drops[i], "%v", encap.DropReason(i))
	}
	if n.kernel == nil {
		return
	}
	byKernel := s.KernelEncapsulated.Packets - before.KernelEncapsulated.Packets + s.KernelDecapsulated.Packets - before.KernelDecapsulated.Packets
	for i := range s.KernelDrops {
		byKernel += s.KernelDrops[i] - before.KernelDrops[i]
	}
	fast := uint64(0)
	if c.slow == "" {
		fast = 1
	}
	require.Equal(t, fast, byKernel, "by the kernel")
	for i := range s.Slow {
		want := uint64(0)
		if c.slow == SlowReason(i).String() {
			want = 1
		}
		require.Equal(t, want, s.Slow[i]-before.Slow[i], "slow for %v", SlowReason(i))
	}
}

// Fragments of an outer packet are put together by the host, and come by the socket.
func TestOuterFragments(t *testing.T) {
	for _, b := range backends {
		n, device, peer := conformanceNode(t, b)
		inner := spec{src: "10.2.0.1", dst: "10.1.9.7", ttl: 64, payload: make([]byte, 800)}.build()
		whole := spec{src: "198.51.100.2", dst: "198.51.100.1", ttl: 64}.data([8]byte{}, inner)
		at := 20 + 400
		first, second := append([]byte(nil), whole[:at]...), append(append([]byte(nil), whole[:20]...), whole[at:]...)
		for i, f := range [][]byte{first, second} {
			binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
			binary.BigEndian.PutUint16(f[6:], []uint16{0x2000, 400 / 8}[i])
			f[10], f[11] = 0, 0
			binary.BigEndian.PutUint16(f[10:], ^onesSum(f[:20]))
			peer.send(t, f)
		}
		assert.Equal(t, inner, device.read(t, 1, func([]byte) bool { return true })[0])
		if n.kernel != nil {
			s := n.stats()
			assert.EqualValues(t, 2, s.Slow[SlowFragment])
			assert.Zero(t, s.KernelDecapsulated)
		}
	}
}

// A packet without a mapping reaches the hold table, leaves when there is one, and
// the next one is the kernel's. It is handled once.
func TestMissThenFast(t *testing.T) {
	n, device, peer := conformanceNode(t, inKernel)
	packet := func(i uint8) []byte {
		return spec{src: "10.1.0.1", dst: "10.77.0.1", sport: 1, dport: 2, payload: []byte{i}}.build()
	}
	device.send(t, packet(1))
	device.send(t, packet(2))
	key := mapcache.HostKey(0, addr("10.77.0.1"))
	d := <-n.kernel.Discoveries()
	assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoveryMiss, Key: key}, d)
	assert.Equal(t, []mapcache.Key{key}, n.kernel.PendingMisses(nil))
	require.NoError(t, netlab.Eventually(t.Context(), "both are held", func() bool { return n.fwd.Stats().HeldNow == 2 }))
	n.insert(t, mapTo(0, "10.77.0.0/16", "198.51.100.2", mapcache.FormatLISP))
	device.send(t, packet(3))
	for i, got := range peer.read(t, 3, isData) {
		assert.Equal(t, packet(uint8(i+1)), parseOuter(got).payload[8:])
	}
	s := n.stats()
	assert.EqualValues(t, 3, s.Encapsulated.Packets)
	assert.EqualValues(t, 1, s.KernelEncapsulated.Packets)
	assert.EqualValues(t, 2, s.Slow[SlowMiss])
	assert.Empty(t, n.kernel.PendingMisses(nil))
}

// Usage tells what the kernel did: the locator, and the entry that was used; with a
// Meter how much.
func TestUsage(t *testing.T) {
	for _, metered := range []bool{false, true} {
		t.Run(fmt.Sprintf("metered=%v", metered), func(t *testing.T) { testUsage(t, metered) })
	}
}

func testUsage(t *testing.T, metered bool) {
	n, device, peer := changedNode(t, inKernel, func(c *nodeConfig) {
		c.metered = metered
		// Of locators that share an address one counts what arrives: there is but one here.
		c.mappings = slices.DeleteFunc(c.mappings, func(m mapcache.Mapping) bool { return m.Prefix == prefix("10.68.0.0/16") })
	})
	n.kernel.Usage(func(mapcache.Usage) {})
	out := spec{src: "10.1.0.1", dst: "10.2.0.1", payload: make([]byte, 72)}.build()
	for range 3 {
		device.send(t, out)
	}
	peer.read(t, 3, isData)
	in := spec{src: "10.2.0.1", dst: "10.1.9.7", payload: make([]byte, 22)}.build()
	peer.send(t, spec{src: "198.51.100.2", dst: "198.51.100.1"}.data([8]byte{}, in))
	device.read(t, 1, func([]byte) bool { return true })
	var got []mapcache.Usage
	collect := func(u mapcache.Usage) {
		assert.False(t, u.LastUsed.IsZero())
		u.LastUsed = time.Time{}
		got = append(got, u)
	}
	n.kernel.Usage(collect)
	entry := mapcache.Usage{Key: mapcache.MakeKey(0, prefix("10.2.0.1/32")), PacketsOut: 1}
	if metered {
		entry.PacketsOut, entry.OctetsOut, entry.PacketsIn, entry.OctetsIn = 3, 300, 1, 50
	}
	assert.ElementsMatch(t, []mapcache.Usage{
		{Locator: mapcache.Locator{Addr: netip.MustParseAddr("198.51.100.2"), Port: 4341}, PacketsOut: 3, OctetsOut: 300, PacketsIn: 1, OctetsIn: 50},
		entry,
	}, got)
	got = nil
	n.kernel.Usage(collect)
	assert.Empty(t, got, "nothing since")

	// What was counted for a locator is not lost with it.
	device.send(t, out)
	peer.read(t, 1, isData)
	for _, f := range families[:2] {
		n.cache.Remove(time.Now(), mapcache.HostKey(0, addr(f.b)))
	}
	n.publish(t)
	n.kernel.Usage(collect)
	require.Len(t, got, 1)
	assert.EqualValues(t, 1, got[0].PacketsOut)
	assert.Equal(t, addr("198.51.100.2"), got[0].Locator.Addr)
}
