package ebpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// outer is what a test reads of an outer header.
type outer struct {
	src, dst     netip.AddrPort
	tos, ttl     uint8
	df           bool
	udp, payload []byte
}

func parseOuter(b []byte) outer {
	var o outer
	var src, dst netip.Addr
	if b[0]>>4 == 4 {
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		o.tos, o.ttl, o.df = b[1], b[8], binary.BigEndian.Uint16(b[6:]) == 0x4000
		o.udp = b[20:]
	} else {
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		o.tos, o.ttl, o.df = b[0]<<4|b[1]>>4, b[7], true
		o.udp = b[40:]
	}
	o.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(o.udp))
	o.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(o.udp[2:]))
	o.payload = o.udp[8:]
	return o
}

// agreeDecap runs a frame through the program, and if that does anything with it
// checks that user space does the same. It returns the verdict.
func (tw *twin) agreeDecap(t testing.TB, packet []byte) int32 {
	t.Helper()
	before := tw.kernel.Stats()
	verdict, got := tw.run(t, tw.kernel.objs.DecapEther, ethernet(packet))
	if verdict == -1 {
		return verdict
	}
	o := parseOuter(packet)
	in := encap.Incoming{
		Bytes: o.payload, Remote: o.src, Local: o.dst.Addr(), TTL: o.ttl, TOS: o.tos, HasTOS: true,
	}
	if o.dst.Port() == lisp.VXLANGPEPort {
		in.Format = mapcache.FormatVXLANGPE
	}
	delivered, why := tw.userDecap(t, in)
	if verdict == redirected {
		require.Equal(t, encap.DropNone, why, "%x", packet)
		require.Equal(t, [][]byte{got}, delivered, "%x", packet)
		return verdict
	}
	require.EqualValues(t, 2, verdict)
	require.Equal(t, why, tw.dropped(&before), "%x", packet)
	require.NotEqual(t, encap.DropNone, why, "%x", packet)
	return verdict
}

// agreeEncap is agreeDecap for a packet on its way out. The program gets it as it
// was before we forwarded it.
func (tw *twin) agreeEncap(t testing.TB, packet []byte) int32 {
	t.Helper()
	before := append([]byte(nil), packet...)
	if len(packet) < 20 || packet[0]>>4 != 4 && packet[0]>>4 != 6 {
		verdict, _ := tw.run(t, tw.kernel.objs.EncapLan, ethernet(before))
		require.EqualValues(t, -1, verdict)
		return verdict
	}
	if packet[0]>>4 == 4 {
		before[8]++
		sum := uint32(binary.BigEndian.Uint16(packet[10:])) + 0xfeff // that is -0x100
		binary.BigEndian.PutUint16(before[10:], uint16(sum+sum>>16))
	} else {
		before[7]++
	}
	verdict, got := tw.run(t, tw.kernel.objs.EncapLan, ethernet(before))
	if verdict == -1 {
		return verdict
	}
	require.EqualValues(t, redirected, verdict)
	out := tw.userEncap(t, packet)
	require.Len(t, out, 1, "%x", packet)
	u, k := out[0], parseOuter(got)
	tw.sameOuter(t, u, got)
	if packet[0]>>4 == 4 && onesSum(packet[:20]) == 0xffff && packet[0] == 0x45 {
		require.EqualValues(t, 0xffff, onesSum(k.payload[8:28]), "inner checksum %x", packet)
	}
	if packet[0]>>4 == 4 {
		copy(k.payload[18:20], u.Bytes[18:20])
	}
	require.Equal(t, u.Bytes, k.payload, "%x", packet)
	return verdict
}

// sameOuter checks that the outer header that a program wrote is that of user space.
func (tw *twin) sameOuter(t testing.TB, u sent, got []byte) {
	t.Helper()
	k := parseOuter(got)
	require.Equal(t, u.Remote, k.dst)
	require.Equal(t, u.from, k.src.Addr())
	require.Equal(t, u.TTL, k.ttl)
	require.Equal(t, u.TOS, k.tos)
	require.Equal(t, !u.MayFragment, k.df)
	require.EqualValues(t, len(u.Bytes)+8, binary.BigEndian.Uint16(k.udp[4:]), "UDP length")
	require.Zero(t, binary.BigEndian.Uint16(k.udp[6:]), "UDP checksum") // RFC 9300-5.3-2
	if got[0]>>4 == 4 {
		require.EqualValues(t, len(u.Bytes)+28, binary.BigEndian.Uint16(got[2:]))
		require.EqualValues(t, 0xffff, onesSum(got[:20]), "outer checksum")
	} else {
		require.EqualValues(t, len(u.Bytes)+8, binary.BigEndian.Uint16(got[4:]))
	}
}

// onesSum is the ones' complement sum of 16-bit words.
func onesSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// agreementTwin has all there is to agree on: both families, several locators,
// negative mappings, formats, an Instance ID.
func agreementTwin(t testing.TB, check encap.SourceCheck, iid uint32) *twin {
	t.Helper()
	var locals []mapcache.Local
	for _, a := range []string{"198.51.100.1", "198.51.100.11", "2001:db8:a::1", "2001:db8:a::11"} {
		locals = append(locals, mapcache.Local{Addr: addr(a), Priority: 1, Weight: 50, Up: true})
	}
	tw := newTwin(t, nodeConfig{
		iid: iid, eids: []string{"10.1.0.1/16", "fd00:1::1/48"}, locals: locals,
		udp: encap.UDPConfig{ZeroChecksum: []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0")}, VXLANGPE: true},
	}, func(c *encap.Config) { c.SourceCheck = check })
	for _, m := range []mapcache.Mapping{
		mapTo(iid, "10.2.0.0/16", "198.51.100.2", mapcache.FormatLISP),
		mapTo(iid, "10.2.0.1/32", "2001:db8:a::2", mapcache.FormatGPE),
		mapTo(iid, "fd00:2::/48", "198.51.100.2", mapcache.FormatGPE),
		mapTo(iid, "fd00:2::1/128", "2001:db8:a::2", mapcache.FormatVXLANGPE),
		{Key: mapcache.MakeKey(iid, prefix("10.2.9.0/24")), Action: lisp.ActionDropNoReason},
	} {
		tw.insert(t, m)
	}
	return tw
}

// steps is how many random packets a test tries.
func steps(n int) int {
	if s, err := strconv.Atoi(os.Getenv("XTRKIT_EBPF_STEPS")); err == nil {
		return s
	}
	return n
}

var (
	insideSources = []string{"10.2.0.1", "10.2.3.4", "10.2.9.1", "10.7.0.1", "fd00:2::1", "fd00:2::77", "fd00:9::1", "10.1.0.9", "fd00:1::9", "127.0.0.1", "fe80::1"}
	insideTargets = []string{"10.1.0.1", "10.1.7.7", "fd00:1::1", "fd00:1::7", "10.2.0.1", "10.2.3.4", "fd00:2::5", "fd00:2::1", "10.8.0.1", "224.0.0.1", "ff02::1", "198.51.100.1", "169.254.0.1", "::ffff:1.2.3.4", "10.2.9.1"}
	outsides      = []string{"198.51.100.2", "198.51.100.9", "2001:db8:a::2", "2001:db8:a::9"}
	ours          = []string{"198.51.100.1", "2001:db8:a::1", "198.51.100.11", "2001:db8:a::11"}
	dataHeaders   = []byte{0x00, 0x08, 0x0c, 0x04, 0x88, 0x48, 0x18, 0x28, 0x09, 0x0a}
)

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// sameFamily picks one of the family of a.
func sameFamily(rng *rand.Rand, a string, list []string) string {
	for {
		if b := pick(rng, list); addr(b).Is4() == addr(a).Is4() {
			return b
		}
	}
}

// randomInner makes a packet that is valid, or nearly so.
func randomInner(rng *rand.Rand, sources, targets []string) []byte {
	s := spec{
		src: pick(rng, sources), tos: uint8(rng.Uint32()), ttl: uint8(1 + rng.IntN(254)),
		proto: pick(rng, []layers.IPProtocol{layers.IPProtocolUDP, layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4, layers.IPProtocolSCTP}),
		sport: uint16(rng.Uint32()), dport: pick(rng, []uint16{53, 4341, 4790, 443, 5000}), payload: make([]byte, rng.IntN(200)),
	}
	s.dst = sameFamily(rng, s.src, targets)
	if rng.IntN(4) == 0 {
		s.flags, s.fragment = layers.IPv4Flag(rng.IntN(4)), uint16(rng.IntN(2)*5)
		s.options = pick(rng, [][]byte{nil, {7, 4, 1, 2}, {7, 8, 1, 2, 3, 4, 5, 6}})
		s.extType = pick(rng, []layers.IPProtocol{0, 43, 44, 51, 60})
		s.extension = pick(rng, [][]byte{nil, make([]byte, 8), {0, 1, 15: 0}, {0, 0, 0, 8, 0, 0, 0, 9}})
	}
	return s.build()
}

// mutate damages a packet now and then.
func mutate(rng *rand.Rand, b []byte) []byte {
	for rng.IntN(3) == 0 && len(b) > 0 {
		switch rng.IntN(3) {
		case 0:
			b[rng.IntN(min(len(b), 80))] ^= byte(1 << rng.IntN(8))
		case 1:
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		default:
			b = b[:rng.IntN(len(b)+1)]
		}
	}
	return b
}

// fixOuter makes the IPv4 header checksum right again, most of the time.
func fixOuter(rng *rand.Rand, b []byte) {
	if len(b) >= 20 && b[0] == 0x45 && rng.IntN(8) > 0 {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^onesSum(b[:20]))
	}
}

// randomOuter makes a data packet to us that is valid, or nearly so, most of them of an
// instance.
func randomOuter(rng *rand.Rand, iid uint32, outsides, sources, targets []string) []byte {
	header := [8]byte{pick(rng, dataHeaders), 3: byte(rng.IntN(4))}
	if rng.IntN(2) == 0 {
		header[0] = 0
		if iid != 0 {
			header[0] = 8
		}
	}
	id := iid
	if rng.IntN(10) == 0 {
		id = rng.Uint32() >> 8
	}
	binary.BigEndian.PutUint32(header[4:], id<<8)
	s := spec{src: pick(rng, outsides), tos: uint8(rng.Uint32()), ttl: uint8(1 + rng.IntN(255))}
	s.dst = sameFamily(rng, s.src, ours)
	if rng.IntN(4) == 0 {
		s.dport = lisp.VXLANGPEPort
	}
	frame := mutate(rng, s.data(header, mutate(rng, randomInner(rng, sources, targets))))
	fixOuter(rng, frame)
	return frame
}

// Whatever arrives, and whatever is to leave: if a program does something with it,
// user space does the same.
func TestAgreement(t *testing.T) {
	for _, c := range []struct {
		name  string
		check encap.SourceCheck
		iid   uint32
	}{{"plain", encap.SourceUnchecked, 0}, {"source check, instance", encap.SourceStrict, 0xabcdef}} {
		t.Run(c.name, func(t *testing.T) {
			tw := agreementTwin(t, c.check, c.iid)
			rng := rand.New(rand.NewPCG(3, uint64(c.iid)))
			verdicts := map[string]map[int32]int{"in": {}, "out": {}}
			for range steps(20000) {
				frame := randomOuter(rng, c.iid, outsides, insideSources, insideTargets)
				verdicts["in"][tw.agreeDecap(t, frame)]++

				out := mutate(rng, randomInner(rng, append(insideTargets, "10.1.0.1", "10.1.0.2", "fd00:1::1", "fd00:1::2"), insideTargets))
				if len(out) > 8 && (out[0]>>4 == 4 && out[8] == 255 || out[0]>>4 == 6 && out[7] == 255) {
					continue // as it can't be after it was forwarded
				}
				verdicts["out"][tw.agreeEncap(t, out)]++
			}
			t.Log(verdicts)
			for _, v := range []int32{redirected, -1, 2} {
				require.Greater(t, verdicts["in"][v], steps(20000)/500, "in")
			}
			for _, v := range []int32{redirected, -1} {
				require.Greater(t, verdicts["out"][v], steps(20000)/500, "out")
			}
		})
	}
}
