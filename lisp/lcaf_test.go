package lisp

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func ip(s string) Address { return AddressFrom(netip.MustParseAddr(s)) }

func name(s string) Address {
	a, err := ParseAddress(`"` + s + `"`)
	if err != nil {
		panic(err)
	}
	return a
}

func lcaf(t testing.TB, l LCAF) Address {
	t.Helper()
	a, err := LCAFAddress(l)
	require.NoError(t, err)
	return a
}

func addressFromHex(t testing.TB, s string) Address {
	t.Helper()
	var a Address
	require.NoError(t, a.UnmarshalBinary(unhex(t, s)))
	return a
}

// TestLCAF holds each type against the worked examples of the digest.
func TestLCAF(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	for _, tt := range []struct {
		name string // of the vector that contains hex
		hex  string
		want LCAF
		text string
	}{
		{"lcaf-0-null", "4003000000000000", &Null{}, "null"},
		{
			"lcaf-1-afilist", "40030000010000180001cb007101000220010db8ffff00000000000000000001",
			&AFIList{[]Address{ip("203.0.113.1"), ip("2001:db8:ffff::1")}}, "afi-list(203.0.113.1, 2001:db8:ffff::1)",
		},
		{
			"lcaf-1-name", "400300000100000f0001cb0071010011726c6f632d6100",
			&AFIList{[]Address{ip("203.0.113.1"), name("rloc-a")}}, `afi-list(203.0.113.1, "rloc-a")`,
		},
		{
			// RFC 8060-4.1-s1
			"lcaf-2-iid", "400300000220000a00abcdef0001c6336400",
			&InstanceID{32, 0xabcdef, ip("198.51.100.0")}, "[11259375]198.51.100.0",
		},
		{"lcaf-2-iid-range", "4003000002080006010000000000", &InstanceID{8, 1 << 24, Address{}}, "[16777216/8]"},
		{"lcaf-3-as", "400300000300000a000100000001cb007101", &ASNumber{65536, ip("203.0.113.1")}, "as65536(203.0.113.1)"},
		{
			"lcaf-4-app", "400300000400001200002e060000ffff005001bb0001c6336407",
			&ApplicationData{0x2e, 6, 0, 65535, 80, 443, ip("198.51.100.7")},
			"application-data(198.51.100.7 tos 0x2e protocol 6 local 0-65535 remote 80-443)",
		},
		{
			"lcaf-5-geo", "40030000050000128025182b00793a0c000000120001cb007101",
			&GeoCoordinates{true, Degree{37, 24, 43}, false, Degree{121, 58, 12}, 18, ip("203.0.113.1")},
			"geo(37°24′43″N 121°58′12″W 18m, 203.0.113.1)",
		},
		{
			"lcaf-6-opaque", "400300000600000b0300001122334455667788",
			&OpaqueKey{3, 0, unhex(t, "1122334455667788")}, "opaque-key(1122334455667788, 3 fields, wild 0x0000)",
		},
		{
			// RFC 8060-4.4-s1
			"lcaf-7-nat", "400300000700001810f6ee480001cb0071630001c612000100000001c612000a",
			&NATTraversal{4342, 61000, ip("203.0.113.99"), ip("198.18.0.1"), Address{}, []Address{ip("198.18.0.10")}},
			"nat-traversal(global 203.0.113.99 port 61000, ms 198.18.0.1 port 4342, private none, rtrs 198.18.0.10)",
		},
		{
			"lcaf-8-nonce", "400300000800000a00abcdef0001cb007101",
			&NonceLocator{0xabcdef, ip("203.0.113.1")}, "nonce-locator(203.0.113.1 nonce 0xabcdef)",
		},
		{
			"lcaf-9-mcast", "400300000900001400abcdef000020200001c00002010001ef010101",
			&MulticastInfo{0xabcdef, 32, 32, ip("192.0.2.1"), ip("239.1.1.1")},
			"[11259375](192.0.2.1/32, 239.1.1.1/32)",
		},
		{
			"lcaf-10-elp", "400300000a00001000010001cb00710100060001cb007102",
			&ExplicitPath{[]ExplicitHop{{Strict: true, Address: ip("203.0.113.1")}, {true, true, false, ip("203.0.113.2")}}},
			"elp(203.0.113.1 strict > 203.0.113.2 lookup probe)",
		},
		{
			"lcaf-11-key", "400300000b00002c010005000020" + hex.EncodeToString(key) + "0001cb007101",
			&SecurityKey{5, false, [][]byte{key}, ip("203.0.113.1")}, "security-key(203.0.113.1 algorithm 5, 1 keys)",
		},
		{
			"lcaf-12-sd", "400300000c000010000018200001c00002000001c6336407",
			&SourceDest{24, 32, ip("192.0.2.0"), ip("198.51.100.7")}, "192.0.2.0/24>198.51.100.7/32",
		},
		{
			"lcaf-13-rle", "400300000d000014000000000001cb007101000000800001cb007102",
			&ReplicationList{[]ReplicationEntry{{0, ip("203.0.113.1"), Address{}}, {SignalFreeLevel, ip("203.0.113.2"), Address{}}}},
			"rle(203.0.113.1 level 0, 203.0.113.2 level 128)",
		},
		{
			"lcaf-14-json", "400300000e00000f00077b2261223a317d0001cb007101",
			&JSON{false, []byte(`{"a":1}`), ip("203.0.113.1")}, `json(203.0.113.1 "{\"a\":1}")`,
		},
		{
			"lcaf-15-kv", "400300000f00000c0001cb0071010001c6120001",
			&KeyValue{ip("203.0.113.1"), ip("198.18.0.1")}, "key-value(203.0.113.1: 198.18.0.1)",
		},
		{
			"lcaf-16-encap", "400300001000000a000000050001cb007101",
			&EncapsulationFormat{EncapsulationVXLAN | EncapsulationLISP, ip("203.0.113.1")},
			"encapsulation-format(203.0.113.1 lisp vxlan)",
		},
		{
			// RFC 9306-4-1, 9306-4-2
			"lcaf-255-vendor", "40030000ff0000080000000c01020304",
			&VendorSpecific{0x00000c, []byte{1, 2, 3, 4}}, "vendor-specific(00-00-0c 01020304)",
		},
		{"", "4003010211030004deadbeef", &RawLCAF{1, 2, 17, 3, unhex(t, "deadbeef")}, "lcaf-17(deadbeef)"},
	} {
		t.Run(tt.want.LCAFType().String()+" "+tt.name, func(t *testing.T) {
			if tt.name != "" {
				require.Contains(t, hex.EncodeToString(vector(t, tt.name)), tt.hex)
			}
			a := addressFromHex(t, tt.hex)
			got, err := a.LCAF()
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.text, got.String())
			assert.Equal(t, tt.text, a.String())
			assert.Equal(t, a, lcaf(t, tt.want))
		})
	}
}

// TestLCAFReserved: reserved fields and octets left over are ignored in the
// content and sent as zero, while the address keeps them.
func TestLCAFReserved(t *testing.T) {
	for _, tt := range []struct{ name, dirty, clean string }{
		// RFC 8060-3-1, 8060-3-s1
		{"Rsvd1, Flags, Rsvd2", "4003ffff03ff000a000100000001cb007101", "400300000300000a000100000001cb007101"},
		// RFC 8060-3-s2
		{"octets left over", "400300000300000c000100000001cb007101ffff", "400300000300000a000100000001cb007101"},
		// RFC 8060-4.6-1
		{"ELP Rsvd3", "400300000a000008fff90001cb007101", "400300000a00000800010001cb007101"},
		// RFC 8060-4.7-1, 8060-4.7-2
		{"Security Key Rsvd3, Rsvd4", "400300000b00000f01ff05fe0003aabbcc0001cb007101", "400300000b00000f010005000003aabbcc0001cb007101"},
		{"Encapsulation Format", "400300001000000affffff850001cb007101", "400300001000000a000000050001cb007101"},
		{"Vendor Rsvd3", "40030000ff000005ff00000c01", "40030000ff0000050000000c01"},
		{"instance", "4003ff000220000a000000070001c6336400", "400300000220000a000000070001c6336400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := addressFromHex(t, tt.dirty)
			b, err := a.MarshalBinary()
			require.NoError(t, err)
			assert.Equal(t, tt.dirty, hex.EncodeToString(b))
			l, err := a.LCAF()
			require.NoError(t, err)
			b, err = lcaf(t, l).MarshalBinary()
			require.NoError(t, err)
			assert.Equal(t, tt.clean, hex.EncodeToString(b))
		})
	}
	iid, addr, ok := addressFromHex(t, "4003ff000220000a000000070001c6336400").EID()
	assert.True(t, ok, "an instance with reserved bits is understood")
	assert.Equal(t, uint32(7), iid)
	assert.Equal(t, netip.MustParseAddr("198.51.100.0"), addr)
}

// RFC 8061-6-1
func TestSecurityKeyRevoke(t *testing.T) {
	a := addressFromHex(t, "400300000b00000f010005010003aabbcc0001cb007101")
	l, err := a.LCAF()
	require.NoError(t, err)
	k := l.(*SecurityKey)
	assert.True(t, k.Revoke, "RFC 8111 has a use for it, RFC 8061 callers do not look")
	assert.Equal(t, ip("203.0.113.1"), k.Address)
	b, err := lcaf(t, &SecurityKey{Algorithm: 5, Keys: [][]byte{{1}}}).MarshalBinary()
	require.NoError(t, err)
	assert.Zero(t, b[11], "the R bit of a key as RFC 8061 sends it")
}

func TestLCAFErrors(t *testing.T) {
	for _, s := range []string{
		"40030000010000020001",                                     // AFI list with a cut address
		"4003000001000002fffe",                                     // of an unknown family
		"400300000200000400000001",                                 // instance without AFI
		"4003000007000002ffff",                                     // NAT without ports
		"400300000900000a00000000000021200001",                     // cut multicast
		"400300000900001400abcdef000021200001c00002010001ef010101", // source mask 33
		"400300000c000010000018210001c00002000001c6336407",         // dest mask 33
		"400300000b00000402000000",                                 // keys that are not there
		"400300000e000002ffff",                                     // JSON that is not there
		"40030000ff00000200ff",                                     // vendor without OUI
		"400300000d0000020000",
		"400300000a000003000100",
		"4003000006000000",
		"4003000004000000",
	} {
		a := addressFromHex(t, s)
		_, err := a.LCAF()
		var de *DecodeError
		assert.ErrorAs(t, err, &de, s)
		assert.NotEmpty(t, a.String())
		b, err := a.MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, s, hex.EncodeToString(b))
	}
	for _, l := range []LCAF{
		&ApplicationData{TOS: 1 << 24},
		&NonceLocator{Nonce: 1 << 24},
		&VendorSpecific{OUI: 1 << 24},
		&EncapsulationFormat{Formats: 1 << 7},
		&GeoCoordinates{Latitude: Degree{Degrees: 1 << 15}},
		&SourceDest{SourceMaskLen: 33, Source: ip("192.0.2.1")},
		&MulticastInfo{GroupMaskLen: 129, Group: ip("ff02::1")},
		&ReplicationList{[]ReplicationEntry{{Address: ip("192.0.2.1"), Name: ip("192.0.2.1")}}},
		&RawLCAF{Type: 99, Body: make([]byte, 65536)},
		&JSON{Text: make([]byte, 65536)},
	} {
		_, err := LCAFAddress(l)
		assert.ErrorIs(t, err, ErrMalformed, "%T", l)
	}
	_, err := ip("192.0.2.1").LCAF()
	assert.ErrorIs(t, err, ErrUnsupported)
}

// TestLispersNetLCAF has what lispers.net writes and RFC 8060 does not.
func TestLispersNetLCAF(t *testing.T) {
	t.Run("JSON length in an AFI list", func(t *testing.T) {
		// The LCAF Length of the JSON is 2 too much.
		list := addressFromHex(t, "400300000100001c"+"0001cb007101"+"400300000e00000a"+"0004"+hex.EncodeToString([]byte(`"a"`+" "))+"0000"+"0001cb007102")
		l, err := list.LCAF()
		require.NoError(t, err)
		as := l.(*AFIList).Addresses
		require.Len(t, as, 3)
		j, err := as[1].LCAF()
		require.NoError(t, err)
		assert.Equal(t, &JSON{Text: []byte(`"a" `)}, j)
		assert.Equal(t, ip("203.0.113.2"), as[2])
	})
	t.Run("name behind a replication entry", func(t *testing.T) {
		a := addressFromHex(t, "400300000d000018"+"000000000001cb007101"+"00117800"+"000000010001cb007102")
		l, err := a.LCAF()
		require.NoError(t, err)
		assert.Equal(t, []ReplicationEntry{{0, ip("203.0.113.1"), name("x")}, {1, ip("203.0.113.2"), Address{}}}, l.(*ReplicationList).Entries)
		assert.Equal(t, `rle(203.0.113.1 level 0 "x", 203.0.113.2 level 1)`, a.String())
		assert.Equal(t, a, lcaf(t, l))
	})
}

// TestLCAFDepth: nesting costs no more than the octets it is made of.
func TestLCAFDepth(t *testing.T) {
	a := ip("192.0.2.1")
	for range 40 {
		a = lcaf(t, &AFIList{[]Address{a}})
	}
	s := a.String()
	assert.Less(t, len(s), 2000)
	assert.Equal(t, maxLCAFDepth+1, strings.Count(s, "afi-list("))
	assert.ErrorIs(t, Screen(&MapReply{Records: []EIDRecord{{EID: a}}}), ErrUnsupported)
}

func TestAddressText(t *testing.T) {
	for _, tt := range []struct {
		a    Address
		text string
	}{
		{Address{}, ""},
		{ip("192.0.2.1"), "192.0.2.1"},
		{ip("2001:db8::1"), "2001:db8::1"},
		{ip("::ffff:192.0.2.1"), "::ffff:192.0.2.1"},
		{EIDAddress(7, netip.MustParseAddr("2001:db8::1")), "[7]2001:db8::1"},
		{EIDAddress(1<<32-1, netip.MustParseAddr("192.0.2.1")), "[4294967295]192.0.2.1"},
		{addressFromHex(t, "400300000200000a000000070001c6336400"), "[7/0]198.51.100.0"},
		{addressFromHex(t, "0006020000000001"), "02:00:00:00:00:01"},
		{addressFromHex(t, "4005020000000001"), "afi-16389:020000000001"},
		{addressFromHex(t, "0011726f757465722e6162632e636f6d00"), `"router.abc.com"`},
		{addressFromHex(t, "001161ff2200"), `"a\xff\""`},
		{addressFromHex(t, "400300000300000a000100000001cb007101"), "as65536(203.0.113.1)"},
		{addressFromHex(t, "4003ff000300000a000100000001cb007101"), "afi-16387:ff000300000a000100000001cb007101"},
		{lcaf(t, &InstanceID{MaskLen: 8, IID: 256}), "[256/8]"},
		{lcaf(t, &InstanceID{MaskLen: 32, IID: 7, Address: name("a")}), `[7]"a"`},
		{lcaf(t, &AFIList{}), "afi-list()"},
		{lcaf(t, &AFIList{[]Address{ip("192.0.2.1"), name(`a, ) ( > \" b`), lcaf(t, &AFIList{[]Address{ip("::"), {}}})}}), `afi-list(192.0.2.1, "a, ) ( > \" b", afi-list(::, none))`},
		{lcaf(t, &AFIList{[]Address{addressFromHex(t, "4005020000000001")}}), "afi-16387:0000010000084005020000000001"},
		{lcaf(t, &ExplicitPath{[]ExplicitHop{{Strict: true, Address: ip("192.0.2.1")}, {true, true, false, ip("192.0.2.2")}, {}}}), "elp(192.0.2.1 strict > 192.0.2.2 lookup probe > none)"},
		{lcaf(t, &ReplicationList{[]ReplicationEntry{{0, ip("192.0.2.1"), name("a b")}, {128, ip("192.0.2.2"), Address{}}}}), `rle(192.0.2.1 level 0 "a b", 192.0.2.2 level 128)`},
		{lcaf(t, &KeyValue{ip("2001:db8::1"), name("k: v")}), `key-value(2001:db8::1: "k: v")`},
		{lcaf(t, &SourceDest{24, 0, ip("192.0.2.0"), ip("0.0.0.0")}), "192.0.2.0/24>0.0.0.0/0"},
		{lcaf(t, &MulticastInfo{7, 0, 32, Address{}, ip("239.1.1.1")}), "[7](none/0, 239.1.1.1/32)"},
		{lcaf(t, &GeoCoordinates{Address: ip("192.0.2.1")}), "afi-16387:00000500001200000000000000000000000000" + "01c0000201"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			b, err := tt.a.MarshalText()
			require.NoError(t, err)
			assert.Equal(t, tt.text, string(b))
			var got Address
			require.NoError(t, got.UnmarshalText(b))
			assert.Equal(t, tt.a, got)

			j, err := json.Marshal(tt.a)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(j, &got))
			assert.Equal(t, tt.a, got)
		})
	}
	for _, s := range []string{
		"x", "[7]", "[7", "[x]192.0.2.1", "[7/x]192.0.2.1", "[4294967296]192.0.2.1", `"a`, `"a\x00"`, "afi-1:01",
		"afi-99:01", "afi-x:", "afi-1:zz", "fe80::1%eth0", "[1]fe80::1%eth0",
		"afi-list(x)", "afi-list(192.0.2.1", "elp(192.0.2.1 quick)", "elp(x strict)", "rle(192.0.2.1)", "rle(192.0.2.1 level 256)",
		"rle(192.0.2.1 level 1 192.0.2.1)", "asx(192.0.2.1)", "as1(x)", "key-value(192.0.2.1)", "key-value(x: 192.0.2.1)",
		"192.0.2.0>192.0.2.0", "192.0.2.0/33>192.0.2.0/24", "192.0.2.0/24>x/1", "[7](192.0.2.1/32)", "[7](x/1, 239.1.1.1/32)",
		"geo(192.0.2.1)", strings.Repeat("afi-list(", 20) + "none" + strings.Repeat(")", 20), "02:00:00:00:00", "0200:00:00:00:00:0", "192.0.2.1/24",
	} {
		a := ip("192.0.2.9")
		assert.Error(t, a.UnmarshalText([]byte(s)), s)
		assert.Equal(t, ip("192.0.2.9"), a)
	}
	a, err := ParseAddress("none")
	require.NoError(t, err)
	assert.True(t, a.IsZero())
}

// TestSignalFree: the EID and the locators of signal-free multicast are the same
// in every message.
func TestSignalFree(t *testing.T) {
	eid, err := MulticastEID(0xabcdef, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("239.1.1.1"))
	require.NoError(t, err)
	b, err := eid.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, unhex(t, "400300000900001400abcdef000020200001c00002010001ef010101"), b) // RFC 8378-5.1.2-3
	rloc, err := ReplicationLocator(netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2"))
	require.NoError(t, err)
	l, err := rloc.LCAF()
	require.NoError(t, err)
	for _, e := range l.(*ReplicationList).Entries {
		assert.Equal(t, uint8(128), e.Level) // RFC 8378-5.1.2-4
	}
	records := []EIDRecord{{EID: eid, Locators: []RLOCRecord{{RLOC: rloc}}}}
	for _, m := range []Message{&MapRegister{Records: records}, &MapReply{Records: records}, &MapNotify{Records: records}} {
		b, err := m.MarshalBinary()
		require.NoError(t, err)
		got, err := Parse(b)
		require.NoError(t, err)
		assert.Contains(t, got.String(), "[11259375](192.0.2.1/32, 239.1.1.1/32)/0") // RFC 8378-5.1.2-5
	}
	_, err = MulticastEID(0, netip.Addr{}, netip.MustParseAddr("ff02::1"))
	assert.NoError(t, err)
	for _, bad := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"192.0.2.1", "ff02::1"}} {
		_, err = MulticastEID(0, netip.MustParseAddr(bad[0]), netip.MustParseAddr(bad[1]))
		assert.ErrorIs(t, err, ErrMalformed)
	}
}
