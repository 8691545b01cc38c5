package ebpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// randomRLOCs makes a locator set, from few addresses so that sets share locators.
func randomRLOCs(rng *rand.Rand, most int) []mapcache.RLOC {
	var rs []mapcache.RLOC
	seen := map[netip.Addr]bool{}
	for range 1 + rng.IntN(most) {
		a := netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + rng.IntN(12))})
		if rng.IntN(3) == 0 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(1 + rng.IntN(12))})
		}
		if seen[a] {
			continue
		}
		seen[a] = true
		r := mapcache.RLOC{Locator: mapcache.Locator{Addr: a}, Priority: uint8(rng.IntN(3)), Down: rng.IntN(6) == 0}
		if rng.IntN(10) == 0 {
			r.Priority = 255
		}
		if rng.IntN(3) > 0 {
			r.Weight = uint8(rng.IntN(101))
		}
		rs = append(rs, r)
	}
	return rs
}

// For any locator set, whatever of it is down, and any number of our own locators a
// flow gets the same locator, the same source address and the same source port in
// the kernel as in user space.
func TestChoice(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 6 {
		var locals []mapcache.Local
		for i, a := range []string{"198.51.100.1", "198.51.100.11", "2001:db8:a::1", "2001:db8:a::11"} {
			l := mapcache.Local{Addr: addr(a), Priority: 1, Weight: uint8(rng.IntN(4) * 30), Up: round < 4 || i%2 == 0}
			if round%2 == 1 {
				l.Priority = uint8(rng.IntN(3))
			}
			locals = append(locals, l)
		}
		tw := newTwin(t, nodeConfig{eids: []string{"10.1.0.1/32", "fd00:1::1/128"}, locals: locals}, nil)
		paths := tw.kernel.f.LocalPaths()
		var all []mapcache.Locator
		for i := range 200 {
			rlocs := randomRLOCs(rng, maxMembers)
			for _, r := range rlocs {
				all = append(all, r.Locator)
			}
			for _, p := range []string{fmt.Sprintf("10.2.%d.0/24", i), fmt.Sprintf("fd00:2:%x::/48", i)} {
				tw.insert(t, mapcache.Mapping{Key: mapcache.MakeKey(0, prefix(p)), RLOCs: rlocs})
			}
		}
		fast := 0
		for range 4000 {
			if l := all[rng.IntN(len(all))]; rng.IntN(4) == 0 {
				tw.cache.SetReachable(l, rng.IntN(2) == 0)
				tw.publish(t)
			}
			s := spec{
				src: "10.1.0.1", dst: fmt.Sprintf("10.2.%d.%d", rng.IntN(200), rng.IntN(256)), ttl: 9,
				sport: uint16(rng.Uint32()), dport: uint16(5000 + rng.IntN(1000)),
			}
			if rng.IntN(2) == 0 {
				s.src, s.dst = "fd00:1::1", fmt.Sprintf("fd00:2:%x::%x", rng.IntN(200), rng.IntN(65536))
			}
			packet := s.build()
			hash := mapcache.FlowHash(4341, packet)
			d := tw.cache.View().Forward(0, addr(s.dst), hash)
			verdict, out := tw.run(t, tw.kernel.objs.EncapLan, ethernet(packet))
			at, ok := 0, d.Verdict == mapcache.Encapsulate
			if ok {
				at, ok = mapcache.ChooseLocal(locals, d.Locator.Addr, hash)
			}
			if !ok {
				require.EqualValues(t, -1, verdict, "%v", d)
				continue
			}
			require.EqualValues(t, redirected, verdict, "%v", d)
			fast++
			var src, dst netip.Addr
			udp := out[20:]
			if out[0]>>4 == 4 {
				src, dst = netip.AddrFrom4([4]byte(out[12:16])), netip.AddrFrom4([4]byte(out[16:20]))
			} else {
				src, dst = netip.AddrFrom16([16]byte(out[8:24])), netip.AddrFrom16([16]byte(out[24:40]))
				udp = out[40:]
				require.Equal(t, hash&0xfffff, binary.BigEndian.Uint32(out)&0xfffff, "flow label")
			}
			require.Equal(t, d.Locator.Addr, dst)
			require.Equal(t, locals[at].Addr, src)
			ports := paths[at].Ports
			require.Equal(t, ports[uint64(hash*0x9e3779b1)*uint64(len(ports))>>32], binary.BigEndian.Uint16(udp)) // RFC 9300-12-3
		}
		require.Greater(t, fast, 2000)
	}
}
