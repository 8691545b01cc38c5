package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// learnFormat is learn for one locator of a format.
func (x *node) learnFormat(t testing.TB, iid uint32, eid, rloc string, f mapcache.Format) {
	t.Helper()
	x.insert(t, mapcache.Mapping{
		Key: mapcache.Key{IID: iid, Prefix: prefix(eid)}, TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rloc), Format: f}, Priority: 1, Weight: 1}},
	})
}

func TestFormats(t *testing.T) {
	v4 := packetSpec{src: eidA4, dst: eidB4, tos: 0xba, ttl: 17, sport: 1, dport: 2, payloadLen: 10}.build()
	v6 := packetSpec{src: eidA6, dst: eidB6, tos: 0xba, ttl: 17, sport: 1, dport: 2, payloadLen: 10}.build()
	for _, tt := range []struct {
		name   string
		format mapcache.Format
		iid    uint32
		packet []byte
		header []byte
		port   uint16
	}{
		// RFC 9305-5-1, 9305-5-2: P=0 to whoever has not said that it does LISP-GPE.
		{"LISP IPv4", mapcache.FormatLISP, 0, v4, []byte{0, 0, 0, 0, 0, 0, 0, 0}, 4341},
		{"LISP IPv6", mapcache.FormatLISP, 0, v6, []byte{0, 0, 0, 0, 0, 0, 0, 0}, 4341},
		{"LISP instance", mapcache.FormatLISP, 0xabcdef, v6, []byte{0x08, 0, 0, 0, 0xab, 0xcd, 0xef, 0}, 4341},
		// RFC 9300-4.1-1, 9305-3-1: N, L, E and V are 0, and so are the bits
		// before the Next Protocol. RFC 9305-3-3: no shim header, hence none in
		// a wrong place.
		{"GPE IPv4", mapcache.FormatGPE, 0, v4, []byte{0x0c, 0, 0, 1, 0, 0, 0, 0}, 4341},
		{"GPE IPv6", mapcache.FormatGPE, 0, v6, []byte{0x0c, 0, 0, 2, 0, 0, 0, 0}, 4341},
		{"GPE instance", mapcache.FormatGPE, 0xabcdef, v4, []byte{0x0c, 0, 0, 1, 0xab, 0xcd, 0xef, 0}, 4341},
		{"VXLAN-GPE IPv4", mapcache.FormatVXLANGPE, 7, v4, []byte{0x0c, 0, 0, 1, 0, 0, 7, 0}, 4790},
		{"VXLAN-GPE IPv6", mapcache.FormatVXLANGPE, 7, v6, []byte{0x0c, 0, 0, 2, 0, 0, 7, 0}, 4790},
	} {
		t.Run(tt.name, func(t *testing.T) {
			with := func(c *nodeConfig) { c.change = func(c *Config) { c.Overlays[0].InstanceID = tt.iid } }
			a := newA(t, &memNet{}, "", with)
			a.learnFormat(t, tt.iid, eidB4+"/32", rlocB4, tt.format)
			a.learnFormat(t, tt.iid, eidB6+"/128", rlocB4, tt.format)
			a.push(tt.packet, tt.packet) // the second follows the first
			out := a.underlay.take()
			require.Len(t, out, 2)
			for _, o := range out {
				assert.Equal(t, tt.header, o.Bytes[:8])
				assert.Equal(t, tt.packet, o.Bytes[8:])
				assert.Equal(t, tt.format, o.Format)
				assert.Equal(t, netip.AddrPortFrom(addr(rlocB4), tt.port), o.Remote)
				assert.EqualValues(t, 17, o.TTL)
				assert.EqualValues(t, 0xba, o.TOS) // RFC 9305-4.4-1
			}

			b := newNode(t, &memNet{}, nodeConfig{eids: []string{eidB4 + "/32", eidB6 + "/128"}, rlocs: []string{rlocB4}, change: func(c *Config) { c.Overlays[0].InstanceID = tt.iid }})
			in := from(rlocA4, rlocB4, out[0].Bytes)
			in.TOS, in.Format = 0xba, tt.format
			assert.Equal(t, [][]byte{tt.packet}, b.pull(in))
			in.TOS = 0xbb // congestion experienced on the way
			got := b.pull(in)
			require.Len(t, got, 1)
			var p inner
			require.Equal(t, DropNone, parseInner(got[0], &p))
			assert.EqualValues(t, 0xbb, p.tos) // RFC 9305-4.4-1
			assert.Empty(t, b.drops())
		})
	}
}

// The fragments of a packet have the header of its format.
func TestFormatOfFragments(t *testing.T) {
	x := newA(t, &memNet{}, "")
	x.learnFormat(t, 0, eidB4+"/32", rlocB4, mapcache.FormatGPE)
	x.push(packetSpec{src: eidA4, dst: eidB4, payloadLen: 2000}.build())
	out := x.underlay.take()
	require.Len(t, out, 2)
	for _, o := range out {
		assert.Equal(t, []byte{0x0c, 0, 0, 1, 0, 0, 0, 0}, o.Bytes[:8])
	}
}

func TestFormatChecks(t *testing.T) {
	v4 := packetSpec{src: eidB4, dst: eidA4, payloadLen: 20}.build()
	v6 := packetSpec{src: eidB6, dst: eidA6, payloadLen: 20}.build()
	const vxlan = mapcache.FormatVXLANGPE
	for _, tt := range []struct {
		name   string
		format mapcache.Format
		flags  byte
		low24  uint32
		word2  uint32
		packet []byte
		want   DropReason
	}{
		{"GPE IPv4", 0, 0x04, 1, 0, v4, DropNone},
		{"GPE IPv6", 0, 0x0c, 2, 0, v6, DropNone},
		{"GPE ignores N, E, V and the bits before Next Protocol", 0, 0xb4, 0xffff01, 0, v4, DropNone}, // RFC 9305-3-1
		{"GPE says IPv4, is IPv6", 0, 0x04, 1, 0, v6, DropProtocol},
		{"GPE says IPv6, is IPv4", 0, 0x04, 2, 0, v4, DropProtocol},
		{"GPE reserved", 0, 0x04, 0, 0, v4, DropProtocol},
		{"GPE NSH", 0, 0x04, 4, 0, v4, DropProtocol},
		{"GPE shim", 0, 0x04, 0x80, 0, v4, DropProtocol},
		{"GPE encrypted", 0, 0x05, 1, 0, v4, DropEncrypted},
		{"GPE Ethernet, nobody there", 0, 0x04, 3, 0, v4, DropProtocol},
		{"GPE unknown instance", 0, 0x0c, 1, 9 << 8, v4, DropInstance},
		{"VXLAN-GPE IPv4", vxlan, 0x0c, 1, 0, v4, DropNone},
		{"VXLAN-GPE IPv6, replicated", vxlan, 0x0e, 2, 0, v6, DropNone},
		{"VXLAN-GPE without VNI", vxlan, 0x04, 1, 0, v4, DropHeader},
		{"VXLAN-GPE version 1", vxlan, 0x1c, 1, 0, v4, DropHeader},
		{"VXLAN-GPE version 2", vxlan, 0x2c, 1, 0, v4, DropHeader},
		{"VXLAN-GPE maintenance", vxlan, 0x0d, 1, 0, v4, DropProtocol},
		{"VXLAN: an Ethernet frame", vxlan, 0x08, 0, 0, v4, DropProtocol},
		{"VXLAN-GPE has no instance for control", vxlan, 0x0c, 1, 0xffffff00, v4, DropInstance},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newA(t, &memNet{}, "")
			in := from(rlocB4, rlocA4, encapsulated(tt.flags, tt.low24, tt.word2, tt.packet))
			in.Format = tt.format
			got := x.pull(in)
			if tt.want == DropNone {
				assert.Equal(t, [][]byte{tt.packet}, got)
				assert.Empty(t, x.drops())
				return
			}
			assert.Empty(t, got)
			assert.Equal(t, map[DropReason]uint64{tt.want: 1}, x.drops())
		})
	}
}

func TestEthernet(t *testing.T) {
	type frame struct {
		from string
		b    []byte
	}
	var got []frame
	x := newA(t, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(c *Config) {
			c.Overlays[0].Ethernet = func(remote netip.AddrPort, b []byte) { got = append(got, frame{remote.String(), clone(b)}) }
		}
	})
	b := []byte("any frame at all")
	gpe := from(rlocB4, rlocA4, encapsulated(0x04, 3, 0, b))
	vxlan := from(rlocB4, rlocA4, encapsulated(0x08, 0, 0, b))
	vxlan.Format = mapcache.FormatVXLANGPE
	assert.Empty(t, x.pull(gpe, vxlan))
	assert.Equal(t, []frame{{"192.0.2.2:61000", b}, {"192.0.2.2:61000", b}}, got)
	assert.Empty(t, x.drops())
	assert.Equal(t, Counter{2, uint64(2 * len(b))}, x.Stats().Decapsulated)
	assert.Equal(t, Counter{2, uint64(2 * len(b))}, x.Stats().Locators[0].In)
	// No frame is shorter than its header.
	for _, short := range [][]byte{nil, b[:13]} {
		x.pull(from(rlocB4, rlocA4, encapsulated(0x04, 3, 0, short)))
	}
	assert.Len(t, got, 2)
	assert.Equal(t, map[DropReason]uint64{DropTruncated: 2}, x.drops())
	x.pull(from(rlocB4, rlocA4, encapsulated(0x04, 3, 0, b[:14])))
	require.Len(t, got, 3)
	got = got[:2]
	// Only for a locator of ours, as every packet.
	gpe.Local = addr("192.0.2.99")
	x.pull(gpe)
	assert.Len(t, got, 2)
	assert.Equal(t, map[DropReason]uint64{DropNotLocator: 1, DropTruncated: 2}, x.drops())
}

func TestZeroChecksumChoice(t *testing.T) {
	trusted := UDPConfig{ZeroChecksum: []netip.Prefix{prefix("2001:db8:1::/48"), prefix("192.0.2.1/32")}}
	for _, tt := range []struct {
		name   string
		cfg    UDPConfig
		lisp   bool
		format mapcache.Format
		remote string
		want   bool
	}{
		{"LISP, as the policy says", UDPConfig{}, true, mapcache.FormatLISP, rlocB6, true},
		{"LISP, as the policy says", trusted, false, mapcache.FormatLISP, "192.0.2.1", false},
		// Whatever the policy for LISP.
		{"GPE IPv6", UDPConfig{}, true, mapcache.FormatGPE, rlocB6, false}, // RFC 9305-4.3.1-1, 9305-4.3.1-3, 9305-4.3.1-5, 9305-4.3.1-6
		{"GPE IPv4", UDPConfig{}, true, mapcache.FormatGPE, rlocB4, false}, // RFC 9305-4.3-1
		{"VXLAN-GPE", UDPConfig{}, true, mapcache.FormatVXLANGPE, rlocB6, false},
		{"GPE IPv6 to a trusted peer", trusted, false, mapcache.FormatGPE, "2001:db8:1::7", true}, // RFC 9305-4.3.1-2
		{"GPE IPv6 to another peer", trusted, true, mapcache.FormatGPE, "2001:db8:2::7", false},   // RFC 9305-4.3.1-6
		{"GPE IPv4 to a trusted peer", trusted, false, mapcache.FormatGPE, "192.0.2.1", true},
		{"VXLAN-GPE to a trusted peer", trusted, false, mapcache.FormatVXLANGPE, "192.0.2.1", true},
	} {
		assert.Equal(t, tt.want, tt.cfg.zeroChecksum(tt.lisp, tt.format, addr(tt.remote)), tt.name)
	}
}
