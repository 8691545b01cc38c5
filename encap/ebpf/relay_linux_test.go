package ebpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// What the RTR of the tests knows: EIDs behind NATs, and at public locators.
const (
	natted1, natted1v6 = "10.11.0.1", "fd00:11::1"
	natted2, natted3   = "10.12.0.1", "10.13.0.1" // the NAT of the latter has IPv6
	public, publicV6   = "10.14.0.1", "fd00:14::1"
	dual               = "10.15.0.1" // at a public locator, and behind a NAT if that fails
	unknown            = "10.16.0.1"
	nat1, nat2, nat3   = "198.51.100.2", "198.51.100.3", "2001:db8:a::2"
	site4, site6       = "198.51.100.4", "2001:db8:a::4"
	rtr4, rtr6         = "198.51.100.1", "2001:db8:a::1"
)

func natMapping(iid uint32, eid, rloc string, port uint16) mapcache.Mapping {
	m := mapTo(iid, eid, rloc, mapcache.FormatLISP)
	m.RLOCs[0].NAT, m.RLOCs[0].Port = true, port
	return m
}

func relayMappings(iid uint32) []mapcache.Mapping {
	both := mapTo(iid, host(dual), site4, mapcache.FormatLISP)
	both.RLOCs = append(both.RLOCs, natMapping(iid, host(dual), nat2, 20009).RLOCs[0])
	both.RLOCs[1].Priority = 2
	return []mapcache.Mapping{
		natMapping(iid, host(natted1), nat1, 20001), natMapping(iid, host(natted1v6), nat1, 20001),
		natMapping(iid, "10.12.0.0/24", nat2, 20002), natMapping(iid, host(natted3), nat3, 20003),
		mapTo(iid, host(public), site4, mapcache.FormatLISP), mapTo(iid, host(publicV6), site6, mapcache.FormatLISP), both,
		{Key: mapcache.MakeKey(iid, prefix("10.66.0.0/16")), Action: lisp.ActionDropNoReason},
	}
}

// relayNode is an RTR on one end of a wire, for which the other end is all the
// others.
func relayNode(t *testing.T, b backend, iid uint32, link netlab.LinkConfig) (n *node, peer *wire, l *netlab.Link) {
	t.Helper()
	requireBPF(t)
	lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)
	h, others := lab.Host("rtr"), lab.Host("others")
	link.A = netlab.At(rtr4+"/24", rtr6+"/64")
	link.B = netlab.At(nat1+"/24", nat2+"/24", site4+"/24", nat3+"/64", site6+"/64")
	l = lab.Link(h, others, link)
	return newRTR(t, h, b, iid, l.A.Index, -1, relayMappings(iid)...), newWire(t, others, l.B.Index, l.A.HardwareAddr()), l
}

// newRTR is a node that only relays.
func newRTR(t *testing.T, h *netlab.Host, b backend, iid uint32, ifindex, icmpRate int, mappings ...mapcache.Mapping) *node {
	t.Helper()
	n := &node{host: h, cache: mapcache.New(mapcache.Config{})}
	require.NoError(t, h.Do(func() error {
		sockets := encap.UDPConfig{NATPort: lisp.ControlPort, NoGRO: b == inKernel}
		u, err := encap.NewUDP(sockets)
		require.NoError(t, err)
		native, err := encap.NewNative()
		require.NoError(t, err)
		icmp, err := encap.NewICMP()
		require.NoError(t, err)
		ec := encap.Config{
			Overlays: []encap.Overlay{{InstanceID: iid, Relay: true}}, View: n.cache.View,
			Underlay: u, Native: native, ICMP: icmp, FlowSeed: 4341, ICMPRate: icmpRate,
		}
		n.fwd, err = encap.NewForwarder(ec)
		require.NoError(t, err)
		n.plane = n.fwd
		if b == inKernel {
			n.kernel, err = New(Config{Forwarder: n.fwd, Encap: ec, UDP: sockets, Cache: n.cache})
			require.NoError(t, err)
			n.plane = n.kernel
		}
		return n.plane.SetLocals([]mapcache.Local{
			{IfIndex: ifindex, Addr: addr(rtr4), Priority: 1, Weight: 1, Up: true},
			{IfIndex: ifindex, Addr: addr(rtr6), Priority: 1, Weight: 1, Up: true},
		})
	}))
	forward(t, n.fwd)
	t.Cleanup(func() {
		if n.kernel != nil {
			require.NoError(t, h.Do(n.kernel.Close))
		}
	})
	n.insert(t, mappings...)
	return n
}

// relayCase is a packet that comes to an RTR, and what both data planes make of it.
type relayCase struct {
	name     string
	outside  spec
	header   [8]byte
	inner    spec
	tos, ttl uint8  // of what is sent on, in both headers
	from, to string // the latter with a port
	drop     encap.DropReason
	slow     string
}

func relayCases() []relayCase {
	udp := func(src, dst string) spec {
		return spec{src: src, dst: dst, ttl: 64, sport: 7, dport: 8, payload: make([]byte, 60)}
	}
	out := func(src, dst string) spec { return spec{src: src, dst: dst, ttl: 64} }
	cs := []relayCase{
		{name: "NATed to NATed", outside: out(nat1, rtr4), inner: udp(natted1, natted2), from: rtr4, to: nat2 + ":20002"}, // RFC nat19i-5.3.1-1, nat19i-5.3.1-2, nat19-5.3.1-s1
		{name: "NATed to public", outside: out(nat1, rtr4), inner: udp(natted1, public), from: rtr4, to: site4 + ":4341"}, // RFC nat19i-5.3.1-3
		{name: "public to NATed", outside: out(site4, rtr4), inner: udp(public, natted1), from: rtr4, to: nat1 + ":20001"},
		{name: "unknown to NATed", outside: out(site4, rtr4), inner: udp(unknown, natted1), from: rtr4, to: nat1 + ":20001"},
		{name: "two behind one NAT", outside: out(nat1, rtr4), inner: udp(natted2, natted1), from: rtr4, to: nat1 + ":20001"},
		{name: "IPv6 inside", outside: out(site4, rtr4), inner: udp(publicV6, natted1v6), from: rtr4, to: nat1 + ":20001"},
		{name: "IPv4 to IPv6 outside", outside: out(nat1, rtr4), inner: udp(natted1, natted3), from: rtr6, to: "[" + nat3 + "]:20003"},
		{name: "IPv6 to IPv4 outside", outside: out(nat3, rtr6), inner: udp(natted3, natted1), from: rtr4, to: nat1 + ":20001"},
		{name: "IPv6 outside", outside: out(site6, rtr6), inner: udp(public, natted3), from: rtr6, to: "[" + nat3 + "]:20003"},
		{name: "IPv6 in IPv4 to IPv6 in IPv6", outside: out(nat1, rtr4), inner: udp(natted1v6, publicV6), from: rtr6, to: "[" + site6 + "]:4341"},
		{name: "one that may be behind a NAT", outside: out(site4, rtr4), inner: udp(dual, natted2), from: rtr4, to: nat2 + ":20002"},
		{name: "from one that may be behind a NAT", outside: out(nat2, rtr4), inner: udp(dual, public), from: rtr4, to: site4 + ":4341"},
		{name: "to one that may be behind a NAT", outside: out(nat2, rtr4), inner: udp(public, dual), from: rtr4, to: site4 + ":4341"},

		{name: "neither registered", outside: out(site4, rtr4), inner: udp(public, unknown), drop: encap.DropNotRelayed, slow: "miss"},
		{name: "neither registered, known", outside: out(nat1, rtr4), inner: udp(unknown, public), drop: encap.DropNotRelayed, slow: "source"},
		{name: "a negative mapping", outside: out(nat1, rtr4), inner: udp(natted1, "10.66.0.1"), drop: encap.DropAction, slow: "entry"},
		{name: "TTL ends", outside: spec{src: nat1, dst: rtr4, ttl: 1}, inner: udp(natted1, natted2), drop: encap.DropTTL, slow: "header"},
		{name: "TTL ends inside", outside: out(nat1, rtr4), inner: with(udp(natted1, natted2), func(s *spec) { s.ttl = 1 }), drop: encap.DropTTL, slow: "header"},
		{name: "back to where it comes from", outside: out(site4, rtr4), inner: udp(natted1, public), drop: encap.DropLoop, slow: "source"},
		{name: "for the RTR itself", outside: out(nat1, rtr4), inner: udp(natted1, rtr4), drop: encap.DropLoop, slow: "source"},
		{name: "from the RTR itself", outside: out(nat1, rtr4), inner: udp(rtr4, natted1), drop: encap.DropLoop, slow: "source"},
		{name: "loopback inside", outside: out(nat1, rtr4), inner: udp("127.0.0.1", natted2), drop: encap.DropScope},
		{name: "congestion", outside: spec{src: nat1, dst: rtr4, ttl: 64, tos: 3}, inner: udp(natted1, natted2), drop: encap.DropECN},
		{name: "data in data", outside: out(nat1, rtr4), inner: with(udp(natted1, natted2), func(s *spec) { s.dport = 4341 }), from: rtr4, to: nat2 + ":20002", slow: "header"},
		{name: "a nonce", outside: out(nat1, rtr4), header: [8]byte{0x80, 1, 2, 3}, inner: udp(natted1, natted2), from: rtr4, to: nat2 + ":20002", slow: "flags"},
		{name: "an unknown instance", outside: out(nat1, rtr4), header: [8]byte{0x08, 0, 0, 0, 0, 0, 9}, inner: udp(natted1, natted2), drop: encap.DropInstance, slow: "instance"},
		{name: "as large as fits", outside: out(nat1, rtr4), inner: with(udp(natted1, natted2), func(s *spec) { s.payload = make([]byte, 1500-36-28) }), from: rtr4, to: nat2 + ":20002"},
		{name: "a fragment", outside: out(nat1, rtr4), inner: with(udp(natted1, natted2), func(s *spec) { s.fragment = 9 }), from: rtr4, to: nat2 + ":20002"},
	}
	for i := range cs {
		c := &cs[i]
		c.ttl = c.inner.ttl - 1
	}
	// DSCP of the outer header, ECN of both, the smaller TTL less one.
	for in := range uint8(4) {
		for out, ecn := range [4][4]int{{0, 0, 0, -1}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}}[in] {
			if ecn < 0 {
				continue
			}
			for _, f := range [][4]string{{nat1, rtr4, natted1, public}, {nat3, rtr6, natted3, natted2}, {site4, rtr4, publicV6, natted1v6}} {
				c := relayCase{
					name:    fmt.Sprintf("%s to %s, ECN %d in %d", f[2], f[3], in, out),
					outside: spec{src: f[0], dst: f[1], ttl: 40, tos: 0x28 | uint8(out)}, tos: 0x28 | uint8(ecn), ttl: 39,
					inner: spec{src: f[2], dst: f[3], ttl: 50, tos: 0xb8 | in, sport: 3, dport: 4, payload: make([]byte, 20)},
				}
				c.from, c.to = rtr4, map[string]string{public: site4 + ":4341", natted2: nat2 + ":20002", natted1v6: nat1 + ":20001"}[f[3]]
				cs = append(cs, c)
			}
		}
	}
	return cs
}

func with(s spec, change func(*spec)) spec {
	change(&s)
	return s
}

// isFrom matches data packets of the RTR.
func isFrom(b []byte) bool {
	if len(b) < 48 || b[0]>>4 == 4 && b[9] != 17 || b[0]>>4 == 6 && b[6] != 17 {
		return false
	}
	src := parseOuter(b).src.Addr()
	return src == addr(rtr4) || src == addr(rtr6)
}

// One table of packets to an RTR, and two data planes: both send on the same, and the
// kernel alone where it can.
func TestRelayConformance(t *testing.T) {
	for _, iid := range []uint32{0, 0xabcdef} {
		for _, b := range backends {
			t.Run(fmt.Sprintf("%s, instance %d", b, iid), func(t *testing.T) {
				n, peer, _ := relayNode(t, b, iid, netlab.LinkConfig{NoOffload: true})
				ways := n.fwd.LocalPaths()
				for _, c := range relayCases() {
					t.Run(c.name, func(t *testing.T) {
						plain := encap.DataHeader(iid, mapcache.FormatLISP, false)
						header := c.header
						if header == [8]byte{} {
							header = plain
						} else if iid != 0 && header[0]&8 == 0 {
							header[0] |= 8
							copy(header[4:], plain[4:])
						}
						before := n.stats()
						peer.send(t, c.outside.data(header, c.inner.build()))
						if c.drop == encap.DropNone {
							o := parseOuter(peer.read(t, 1, isFrom)[0])
							c.inner.tos, c.inner.ttl = c.tos, c.ttl
							assert.Equal(t, c.inner.build(), o.payload[8:])
							assert.Equal(t, plain[:], o.payload[:8], "a new data header")
							assert.Equal(t, netip.MustParseAddrPort(c.to), o.dst)
							assert.Equal(t, addr(c.from), o.src.Addr())
							assert.Equal(t, c.tos, o.tos)
							assert.Equal(t, c.ttl, o.ttl) // RFC 9300-5.3-14
							assert.True(t, o.df)
							if o.dst.Port() != 4341 {
								assert.EqualValues(t, 4342, o.src.Port()) // RFC nat19i-5.3.1-2
							} else {
								assert.Contains(t, append(ways[0].Ports, ways[1].Ports...), o.src.Port())
							}
						}
						judge(t, n, &before, &conformanceCase{drop: c.drop, slow: c.slow})
					})
				}
			})
		}
	}
}

// TCP and UDP through an RTR, between every pair of nodes in the kernel and in user
// space, over either family: super-packets stay whole, and the RTR in the kernel does
// all that it can do there.
func TestRelayTraffic(t *testing.T) {
	requireBPF(t)
	for _, c := range []struct {
		name       string
		a, rtr, b  backend
		rtrs, ends [2]string // outer addresses, by node
		all        bool      // of it is the kernel's at the RTR
	}{
		{"kernel, IPv4", inKernel, inKernel, inKernel, [2]string{rtr4, "203.0.113.1"}, [2]string{nat1, "203.0.113.2"}, true},
		{"kernel, IPv6", inKernel, inKernel, inKernel, [2]string{rtr6, "2001:db8:b::1"}, [2]string{nat3, "2001:db8:b::2"}, true},
		{"kernel, IPv4 to IPv6", inKernel, inKernel, inKernel, [2]string{rtr4, "2001:db8:b::1"}, [2]string{nat1, "2001:db8:b::2"}, false},
		{"user space at the ends", inUser, inKernel, inUser, [2]string{rtr4, "203.0.113.1"}, [2]string{nat1, "203.0.113.2"}, false},
		{"user space at the RTR", inKernel, inUser, inKernel, [2]string{rtr4, "203.0.113.1"}, [2]string{nat1, "203.0.113.2"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			lab := netlab.Test(t, netlab.IPv6, netlab.TUN, netlab.PolicyRouting)
			a, r, b := lab.Host("a"), lab.Host("rtr"), lab.Host("b")
			links := [2]*netlab.Link{
				lab.Link(a, r, netlab.LinkConfig{A: netlab.At(nat1+"/24", nat3+"/64"), B: netlab.At(rtr4+"/24", rtr6+"/64")}),
				lab.Link(b, r, netlab.LinkConfig{A: netlab.At("203.0.113.2/24", "2001:db8:b::2/64"), B: netlab.At("203.0.113.1/24", "2001:db8:b::1/64")}),
			}
			eids := [2][2]string{{"10.1.0.1", "fd00:1::1"}, {"10.2.0.1", "fd00:2::1"}}
			var locals []mapcache.Local
			rtr := newRTR(t, r, c.rtr, 0, links[0].B.Index, 0)
			for i, l := range links {
				cfg := nodeConfig{backend: []backend{c.a, c.b}[i]}
				for f := range 2 {
					cfg.eids = append(cfg.eids, host(eids[i][f]))
					m := mapTo(0, host(eids[1-i][f]), c.rtrs[i], mapcache.FormatLISP)
					m.RLOCs[0].NAT = true
					cfg.mappings = append(cfg.mappings, m)
				}
				cfg.locals = []mapcache.Local{{IfIndex: l.A.Index, Addr: addr(c.ends[i]), Priority: 1, Weight: 1, Up: true}}
				newNode(t, l.A.Host, cfg)
				locals = append(locals, mapcache.Local{IfIndex: l.B.Index, Addr: addr(c.rtrs[i]), Priority: 1, Weight: 1, Up: true})
			}
			require.NoError(t, r.Do(func() error { return rtr.plane.SetLocals(locals) }))
			for i := range eids {
				for f := range 2 {
					m := natMapping(0, host(eids[i][f]), c.ends[i], lisp.DataPort)
					m.RLOCs[0].IfIndex = links[i].B.Index
					rtr.insert(t, m)
				}
			}
			hosts := [2]*netlab.Host{a, b}
			for i := range hosts {
				for f := range 2 {
					for _, octets := range []int{1, 1372} {
						exchange(t, hosts[i], hosts[1-i], eids[i][f], eids[1-i][f], octets)
					}
					transfer(t, hosts[i], hosts[1-i], eids[i][f], eids[1-i][f], 4<<20)
				}
			}
			s := rtr.stats()
			t.Logf("%v, of these the kernel %v, slow %v", s.Encapsulated, s.KernelEncapsulated, s.Slow)
			assert.Equal(t, [encap.NumDropReasons]uint64{}, s.Drops)
			assert.Zero(t, s.Decapsulated)
			if c.rtr == inUser {
				return
			}
			assert.Positive(t, s.KernelEncapsulated.Packets)
			if c.all {
				assert.Equal(t, s.Encapsulated, s.KernelEncapsulated)
				assert.Equal(t, [NumSlowReasons]uint64{}, s.Slow)
			}
		})
	}
}

// agreeRelay is agreeDecap at an xTR that is an RTR, too.
func (tw *twin) agreeRelay(t testing.TB, packet []byte) (verdict int32, relayed bool) {
	t.Helper()
	before, userBefore := tw.kernel.Stats(), tw.user.Stats()
	verdict, got := tw.run(t, tw.kernel.objs.DecapEther, ethernet(packet))
	if verdict == -1 {
		return verdict, false
	}
	relayed = tw.kernel.Stats().KernelEncapsulated.Packets > before.KernelEncapsulated.Packets
	o := parseOuter(packet)
	in := encap.Incoming{Bytes: o.payload, Remote: o.src, Local: o.dst.Addr(), TTL: o.ttl, TOS: o.tos, HasTOS: true}
	if !relayed {
		delivered, why := tw.userDecap(t, in)
		if verdict == redirected {
			require.Equal(t, [][]byte{got}, delivered, "%x", packet)
			return verdict, false
		}
		require.Equal(t, why, tw.dropped(&before), "%x", packet)
		require.NotEqual(t, encap.DropNone, why, "%x", packet)
		return verdict, false
	}
	require.EqualValues(t, redirected, verdict)
	tw.under.in <- in
	tw.await(t, &userBefore)
	out := tw.under.take()
	require.Len(t, out, 1, "%x", packet)
	tw.sameOuter(t, out[0], got)
	require.Equal(t, out[0].Bytes, parseOuter(got).payload, "%x", packet)
	if out[0].NAT {
		require.EqualValues(t, lisp.ControlPort, parseOuter(got).src.Port())
	}
	return verdict, true
}

// Whatever arrives at an RTR that is an xTR, too: what a program relays, delivers or
// drops user space does.
func TestRelayAgreement(t *testing.T) {
	for _, c := range []struct {
		check encap.SourceCheck
		iid   uint32
	}{{encap.SourceUnchecked, 0}, {encap.SourceStrict, 0xabcdef}} {
		t.Run(fmt.Sprint(c.iid), func(t *testing.T) {
			var locals []mapcache.Local
			for _, a := range ours {
				locals = append(locals, mapcache.Local{Addr: addr(a), Priority: 1, Weight: 50, Up: true})
			}
			tw := newTwin(t, nodeConfig{
				iid: c.iid, eids: []string{"10.1.0.1/16", "fd00:1::1/48"}, locals: locals, udp: encap.UDPConfig{NATPort: lisp.ControlPort},
			}, func(ec *encap.Config) { ec.Overlays[0].Relay, ec.SourceCheck = true, c.check })
			tw.insert(t, relayMappings(c.iid)...)
			sources := []string{natted1, natted1v6, natted2, natted3, public, publicV6, dual, unknown, "10.1.0.9", "127.0.0.1", rtr4}
			targets := append([]string{"10.1.0.7", "fd00:1::7", "224.0.0.1", "10.66.0.1"}, sources...)
			from := []string{nat1, nat2, nat3, site4, site6}
			rng := rand.New(rand.NewPCG(7, uint64(c.iid)))
			verdicts := map[int32]int{}
			relayed := 0
			for range steps(20000) {
				verdict, onward := tw.agreeRelay(t, randomOuter(rng, c.iid, from, sources, targets))
				verdicts[verdict]++
				if onward {
					relayed++
				}
			}
			t.Log(verdicts, relayed)
			for _, v := range []int32{redirected, -1, 2} {
				require.Greater(t, verdicts[v], steps(20000)/500)
			}
			require.Greater(t, relayed, steps(20000)/500)
			require.Greater(t, verdicts[redirected]-relayed, steps(20000)/500)
		})
	}
}
