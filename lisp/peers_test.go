package lisp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// edited returns the vector called name after f.
func edited(t testing.TB, name string, f func(b []byte)) []byte {
	t.Helper()
	b := vector(t, name)
	f(b)
	return b
}

func set(at int, octets ...byte) func([]byte) { return func(b []byte) { copy(b[at:], octets) } }

// decoded is what m is after Parse, or the test ends.
func decoded[M Message](t *testing.T, m Message) M {
	t.Helper()
	got, ok := m.(M)
	require.True(t, ok, "%T", m)
	return got
}

// eidOf puts an EID into a Map-Reply without locators.
func eidOf(t testing.TB, eid Address, maskLen uint8) []byte {
	t.Helper()
	b, err := (&MapReply{Records: []EIDRecord{{EID: eid, MaskLen: maskLen}}}).MarshalBinary()
	require.NoError(t, err)
	return b
}

// TestDeployedForms has messages of implementations from RFC 6830's time on that
// no RFC describes: each decodes, and encodes to the same octets.
func TestDeployedForms(t *testing.T) {
	nsh := &RawLCAF{Type: 17, Body: []byte{0, 0, 7, 255}}
	for _, tt := range []struct {
		name  string
		b     []byte
		check func(t *testing.T, m Message)
	}{
		{"Map-Request, all reserved bits", edited(t, "map-request-v4", func(b []byte) {
			b[1], b[2], b[24] = b[1]|0x3f, b[2]|0x80, 0xff
		}), func(t *testing.T, m Message) {
			r := decoded[*MapRequest](t, m)
			assert.Equal(t, uint8(0x7f), r.Reserved)
			assert.Equal(t, uint8(0xff), r.Records[0].Reserved)
			assert.False(t, r.LocalXTR || r.DontMapReply || r.SMRInvoked)
		}},
		{"Map-Reply, all reserved bits", edited(t, "map-reply-2loc", func(b []byte) {
			b[0], b[1], b[2] = b[0]|1, 0xff, 0xff
			b[18], b[19], b[20] = b[18]|0x0f, 0xff, b[20]|0xf0
			b[32], b[33] = 0xff, b[33]|0xf8
		}), func(t *testing.T, m Message) {
			r := decoded[*MapReply](t, m)
			assert.Equal(t, uint32(0x1ffff), r.Reserved)
			assert.Equal(t, ActionNoAction, r.Records[0].Action)
			assert.Zero(t, r.Records[0].MapVersion)
		}},
		{"Map-Reply to a probe, received TTL in the reserved bits", edited(t, "map-reply-probe", set(2, 0x3f)), func(t *testing.T, m Message) {
			assert.Equal(t, uint32(0x3f), decoded[*MapReply](t, m).Reserved)
		}},
		{"Map-Register, all bits that RFC 6830 reserves but I", edited(t, "map-register-sha1-20", func(b []byte) {
			b[0], b[1], b[2] = b[0]|0x05, 0xff, 0xff
		}), func(t *testing.T, m Message) {
			r := decoded[*MapRegister](t, m)
			assert.Equal(t, uint16(0x7ff), r.Reserved)
			assert.True(t, r.RTR && r.MobileNode && r.Merge && r.UseTTL && r.EIDNotify)
			assert.False(t, r.XTRIDPresent)
		}},
		{"Map-Register, Key ID of 16 bits", edited(t, "map-register-sha1-20", set(12, 0x01, 0x02)), func(t *testing.T, m Message) {
			a := decoded[*MapRegister](t, m).Auth
			assert.Equal(t, [2]uint8{1, 2}, [2]uint8{a.KeyID, uint8(a.Algorithm)})
		}},
		{"Map-Notify, flags of the Map-Register returned: P is I, nothing follows", edited(t, "map-notify", func(b []byte) { b[0] |= 0x08 }), func(t *testing.T, m Message) {
			n := decoded[*MapNotify](t, m)
			assert.False(t, n.XTRIDPresent)
			assert.Equal(t, uint32(NotifyReservedI), n.Reserved)
			assert.Len(t, n.Records, 1)
		}},
		{"Map-Notify, P, S and all reserved bits returned", edited(t, "map-notify", func(b []byte) {
			b[0], b[1], b[2] = b[0]|0x0f, 0xff, 0xff
		}), func(t *testing.T, m Message) {
			n := decoded[*MapNotify](t, m)
			assert.False(t, n.XTRIDPresent)
			assert.True(t, n.RTRAuth)
			assert.Equal(t, uint32(NotifyReservedI|0x3ffff), n.Reserved)
		}},
		{"Map-Notify, I and 23 octets", append(edited(t, "map-notify", func(b []byte) { b[0] |= 0x08 }), make([]byte, 23)...), func(t *testing.T, m Message) {
			n := decoded[*MapNotify](t, m)
			assert.Len(t, n.Trailer, 23)
			_, _, ok := n.Identity()
			assert.False(t, ok)
		}},
		{"Map-Notify, I and R, both follow", append(edited(t, "map-notify-I", func(b []byte) { b[0] |= 0x04 }), 0, 1, 0, 2, 0xab, 0xcd), func(t *testing.T, m Message) {
			n := decoded[*MapNotify](t, m)
			assert.True(t, n.XTRIDPresent && n.RTRAuth)
			assert.Equal(t, SiteID(0x42), n.SiteID)
			a, ok := n.RTRAuthentication()
			assert.True(t, ok)
			assert.Equal(t, Authentication{0, AlgorithmHMACSHA1, []byte{0xab, 0xcd}}, a)
		}},
		{"Map-Notify, R without I", append(edited(t, "map-notify", func(b []byte) { b[0] |= 0x04 }), 0, 1, 0, 0), func(t *testing.T, m Message) {
			n := decoded[*MapNotify](t, m)
			assert.False(t, n.XTRIDPresent)
			_, ok := n.RTRAuthentication()
			assert.True(t, ok)
		}},
		{"Map-Notify-Ack, I and nothing behind", edited(t, "map-notify-ack", func(b []byte) { b[0] |= 0x08 }), func(t *testing.T, m Message) {
			assert.Equal(t, uint32(NotifyReservedI), decoded[*MapNotifyAck](t, m).Reserved)
		}},
		{"piggybacked record with M clear", edited(t, "map-request-M", func(b []byte) { b[0] &^= 0x04 }), func(t *testing.T, m Message) {
			r := decoded[*MapRequest](t, m)
			assert.Nil(t, r.MapData)
			assert.Len(t, r.Trailer, 28)
		}},
		{"Map-Request of no record", edited(t, "map-request-v4", set(3, 0)), func(t *testing.T, m Message) {
			assert.Empty(t, decoded[*MapRequest](t, m).Records)
		}},
		{"Map-Request for AFI 0", edited(t, "map-request-v4", set(24, 0, 0, 0, 0)), func(t *testing.T, m Message) {
			assert.True(t, decoded[*MapRequest](t, m).Records[0].EID.IsZero())
		}},
		{"SMR with nonce 0", edited(t, "map-request-smr", func(b []byte) { clear(b[4:12]) }), nil},
		{"Map-Reply of no record", edited(t, "map-reply-2loc", set(3, 0)), nil},
		{"padding of a short Ethernet frame", append(vector(t, "map-request-probe"), make([]byte, 14)...), func(t *testing.T, m Message) {
			assert.Len(t, decoded[*MapRequest](t, m).Trailer, 14)
		}},
		{"removed locator as AFI 0", func() []byte {
			r := site()
			r.Locators = append(r.Locators, RLOCRecord{Priority: 255})
			b, err := (&MapReply{Records: []EIDRecord{r}}).MarshalBinary()
			require.NoError(t, err)
			return b
		}(), func(t *testing.T, m Message) {
			assert.True(t, decoded[*MapReply](t, m).Records[0].Locators[1].RLOC.IsZero())
		}},
		{"ACT 6 and 7", edited(t, "map-reply-negative", func(b []byte) { b[18] |= 0xe0 }), func(t *testing.T, m Message) {
			assert.Equal(t, Action(7), decoded[*MapReply](t, m).Records[0].Action)
		}},
		{"ECM without inner IP header", unhex(t, "80000000"+"10f610f6002c0000"+fmt.Sprintf("%x", vector(t, "map-request-v4"))), func(t *testing.T, m Message) {
			e := decoded[*EncapsulatedControl](t, m)
			_, err := e.Inner()
			var de *DecodeError
			require.ErrorAs(t, err, &de)
			assert.Equal(t, "IP version", de.Field)
			assert.ErrorIs(t, err, ErrUnsupported)
		}},
		{"ECM, all reserved bits", edited(t, "ecm-map-request-v4", func(b []byte) { b[1], b[2], b[3] = 0xff, 0xff, 0xff }), func(t *testing.T, m Message) {
			_, err := decoded[*EncapsulatedControl](t, m).Inner()
			assert.NoError(t, err)
		}},
		{"locator of LCAF 17", func() []byte {
			b, err := (&MapReply{Records: []EIDRecord{{EID: ip("192.0.2.0"), MaskLen: 24, Locators: []RLOCRecord{
				{RLOC: ip("203.0.113.1")}, {RLOC: lcaf(t, nsh)},
			}}}}).MarshalBinary()
			require.NoError(t, err)
			return b
		}(), func(t *testing.T, m Message) {
			l, err := decoded[*MapReply](t, m).Records[0].Locators[1].RLOC.LCAF()
			require.NoError(t, err)
			assert.Equal(t, nsh, l)
			require.NoError(t, Screen(m))
			assert.Len(t, decoded[*MapReply](t, m).Records[0].Locators, 1)
		}},
		{"EID of LCAF 17", eidOf(t, lcaf(t, nsh), 0), func(t *testing.T, m Message) {
			assert.ErrorIs(t, Screen(m), ErrUnsupported)
		}},
		{"EID of two MACs", eidOf(t, addressFromHex(t, "400300000c000014"+"00003030"+"4005020000000001"+"4005020000000002"), 0), func(t *testing.T, m Message) {
			assert.Contains(t, m.String(), "02:00:00:00:00:01/48>02:00:00:00:00:02/48")
		}},
		{"(S,G) with the source's mask-len outside", eidOf(t, addressFromHex(t, "400300000900001400abcdef000020200001c00002010001ef010101"), 32), nil},
		{"(S,G) with mask-len 255 outside", eidOf(t, addressFromHex(t, "400300000900001400abcdef000020200001c00002010001ef010101"), 255), nil},
		// RFC 8060-4.1-s1: the LCAF has room for all of them
		{"instance of 32 bits", eidOf(t, EIDAddress(0xfedcba98, netip.MustParseAddr("192.0.2.0")), 24), func(t *testing.T, m Message) {
			iid, p, ok := decoded[*MapReply](t, m).Records[0].Prefix()
			assert.True(t, ok)
			assert.Equal(t, uint32(0xfedcba98), iid)
			assert.Equal(t, "192.0.2.0/24", p.String())
		}},
		{"instance with an IID mask-len of 0 and reserved bits", eidOf(t, addressFromHex(t, "4003ffff02000018"+"00000007"+"000220010db8000000000000000000000000"+"ffff"), 32), func(t *testing.T, m Message) {
			iid, p, ok := decoded[*MapReply](t, m).Records[0].Prefix()
			assert.True(t, ok)
			assert.Equal(t, uint32(7), iid)
			assert.Equal(t, "2001:db8::/32", p.String())
		}},
		{"instance in an instance", eidOf(t, lcaf(t, &InstanceID{32, 7, EIDAddress(8, netip.MustParseAddr("192.0.2.0"))}), 24), func(t *testing.T, m Message) {
			_, _, ok := decoded[*MapReply](t, m).Records[0].Prefix()
			assert.False(t, ok)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkRoundTrip(t, tt.b)
			m, err := Parse(tt.b)
			require.NoError(t, err)
			if tt.check != nil {
				tt.check(t, m)
			}
		})
	}
	b := edited(t, "map-register-sha1-20", func(b []byte) { b[0] |= 0x02 })
	_, err := Parse(b)
	var de *DecodeError
	require.ErrorAs(t, err, &de)
	assert.Equal(t, "xTR-ID", de.Field)
	assert.Equal(t, len(b), de.Offset)
	_, err = (&MapNotify{XTRIDPresent: true, Reserved: NotifyReservedI}).MarshalBinary()
	assert.ErrorIs(t, err, ErrMalformed)
}

// TestHostBits: what stands beyond the mask-len stays, in every message.
func TestHostBits(t *testing.T) {
	eid := ip("198.51.100.7")
	records := []EIDRecord{{EID: eid, MaskLen: 24}}
	for _, m := range []Message{
		&MapRequest{ITRRLOCs: []Address{{}}, Records: []RequestRecord{{EID: eid, MaskLen: 24}}, MapData: &records[0]},
		&MapReply{Records: records}, &MapRegister{Records: records}, &MapNotify{Records: records},
		&MapNotifyAck{Records: records}, &MapReferral{Records: []ReferralRecord{{EID: eid, MaskLen: 24}}},
		&InfoRequest{EID: eid, MaskLen: 24}, &InfoReply{EID: eid, MaskLen: 24},
	} {
		b, err := m.MarshalBinary()
		require.NoError(t, err)
		checkRoundTrip(t, b)
		got, err := Parse(b)
		require.NoError(t, err)
		assert.Contains(t, got.String(), "198.51.100.7/24")
	}
}

// TestAuthenticationLengths: any length decodes; only those of the algorithm are
// believed.
func TestAuthenticationLengths(t *testing.T) {
	for _, n := range []int{0, 1, 7, 11, 13, 15, 17, 19, 21, 31, 33, 255, 256, 1001} {
		a := Authentication{0, AlgorithmHMACSHA1, make([]byte, n)}
		for _, m := range []Message{
			&MapRegister{Auth: a, Records: []EIDRecord{site()}}, &MapNotify{Auth: a, Records: []EIDRecord{site()}},
			&MapNotifyAck{Auth: a}, &InfoRequest{Auth: a}, &InfoReply{Auth: a},
		} {
			b, err := m.MarshalBinary()
			require.NoError(t, err)
			checkRoundTrip(t, b)
			assert.ErrorIs(t, Verify(b, Key{Algorithm: AlgorithmHMACSHA1, Secret: testKey}), ErrAuth, "%T %d", m, n)
		}
	}
}

// TestECMInnerLengths: lengths in the inner headers that disagree with each
// other or with the octets there are. The ECM itself always decodes.
func TestECMInnerLengths(t *testing.T) {
	fix := func(b []byte) {
		if b[4]>>4 == 4 {
			clear(b[14:16])
			binary.BigEndian.PutUint16(b[14:], ^fold(sumOctets(0, b[4:24])))
		}
	}
	const v4, v6 = "ecm-map-request-v4", "ecm-map-request-v6"
	ip4, udp4, ip6, udp6 := 4+2, 4+20+4, 4+4, 4+40+4
	for _, tt := range []struct {
		name, vector string
		at           int
		value        uint16
		field        string // of the error of Inner, empty if there is none
		offset       int
	}{
		{"IPv4 total length 0", v4, ip4, 0, "", 0},
		{"IPv4 total length of the payload alone", v4, ip4, 40, "", 0},
		{"IPv4 total length too large", v4, ip4, 65535, "", 0},
		{"IPv6 payload length 0", v6, ip6, 0, "", 0},
		{"IPv6 payload length with its header", v6, ip6, 120, "", 0},
		{"UDP length 0", v4, udp4, 0, "UDP Length", 24},
		{"UDP length without its header", v4, udp4, 32, "UDP Checksum", 26},
		{"UDP length too large", v4, udp4, 65535, "UDP payload", 28},
		{"UDP length 0 over IPv6", v6, udp6, 0, "UDP Length", 44},
		{"UDP length too large over IPv6", v6, udp6, 1000, "UDP payload", 48},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := edited(t, tt.vector, func(b []byte) {
				binary.BigEndian.PutUint16(b[tt.at:], tt.value)
				fix(b)
			})
			checkRoundTrip(t, b)
			m, err := Parse(b)
			require.NoError(t, err)
			in, err := decoded[*EncapsulatedControl](t, m).Inner()
			if tt.field == "" {
				require.NoError(t, err)
				assert.Equal(t, TypeMapRequest, TypeOf(in.Payload))
				return
			}
			var de *DecodeError
			require.ErrorAs(t, err, &de)
			assert.Equal(t, tt.field, de.Field)
			assert.Equal(t, tt.offset, de.Offset)
		})
	}
}

// TestUnknownFamilyInLCAF: the LCAF says how long it is, so that the message
// decodes; its content names the place. Screen takes the locator out.
func TestUnknownFamilyInLCAF(t *testing.T) {
	const e164 = "0008" + "313233" // no length is known for it
	for _, tt := range []struct {
		typ    LCAFType
		body   string // before the address
		field  string
		offset int
	}{
		{LCAFAFIList, "0001cb007101", "Address", 6},
		{LCAFInstanceID, "00000007", "Address", 4},
		{LCAFASNumber, "00000007", "Address", 4},
		{LCAFApplicationData, "000000000000ffff0000ffff", "Address", 12},
		{LCAFGeoCoordinates, "000000000000000000000000", "Address", 12},
		{LCAFNATTraversal, "10f610f6" + "0000" + "0000" + "0000", "RTR RLOC Address", 10},
		{LCAFNonceLocator, "00000007", "Address", 4},
		{LCAFMulticastInfo, "0000000700000000", "Source Address", 8},
		{LCAFExplicitPath, "00010001cb0071010000", "Reencap Hop", 10},
		{LCAFSecurityKey, "01000100" + "0001aa", "Locator Address", 7},
		{LCAFSourceDest, "00000000" + "0000", "Dest-Prefix", 6},
		{LCAFReplicationList, "00000001", "RTR/ETR", 4},
		{LCAFJSON, "00027b7d", "Optional Address", 4},
		{LCAFKeyValue, "0000", "Value", 2},
		{LCAFEncapsulation, "00000001", "Address", 4},
	} {
		t.Run(tt.typ.String(), func(t *testing.T) {
			body := unhex(t, tt.body+e164)
			a := addressFromHex(t, fmt.Sprintf("40030000%02x00%04x%x", uint8(tt.typ), len(body), body))
			b, err := (&MapRequest{SourceEID: a, ITRRLOCs: []Address{a, ip("203.0.113.1")}, Records: []RequestRecord{{EID: a}}}).MarshalBinary()
			require.NoError(t, err)
			checkRoundTrip(t, b)
			m, err := Parse(b)
			require.NoError(t, err)
			got := decoded[*MapRequest](t, m).ITRRLOCs[0]
			_, err = got.LCAF()
			var de *DecodeError
			require.ErrorAs(t, err, &de)
			assert.Equal(t, DecodeError{"LCAF " + tt.typ.String(), tt.field, tt.offset, de.Err}, *de)
			assert.ErrorIs(t, err, ErrUnsupported)
			assert.Contains(t, err.Error(), "address family 8")
			assert.Contains(t, got.String(), tt.typ.String()+"(")

			reply := &MapReply{Records: []EIDRecord{{EID: ip("192.0.2.1"), Locators: []RLOCRecord{{RLOC: a}, {RLOC: ip("203.0.113.1")}}}}}
			require.NoError(t, Screen(reply))
			assert.Len(t, reply.Records[0].Locators, 1)
		})
	}
}

// TestUnknownFamily: outside of an LCAF nobody knows where the address ends, and
// so where the message goes on. RFC 9301-5.1-1: the error says what to log.
func TestUnknownFamily(t *testing.T) {
	records := func(eid, rloc Address) []EIDRecord {
		return []EIDRecord{{EID: eid, Locators: []RLOCRecord{{RLOC: ip("203.0.113.1")}, {RLOC: rloc}}}}
	}
	mac := addressFromHex(t, "4005020000000001") // its family is made unknown below
	for _, tt := range []struct {
		m     Message
		field string
	}{
		{&MapRequest{SourceEID: mac, ITRRLOCs: []Address{{}}}, "Source EID Address"},
		{&MapRequest{ITRRLOCs: []Address{{}, mac}}, "ITR-RLOC Address"},
		{&MapRequest{ITRRLOCs: []Address{{}}, Records: []RequestRecord{{EID: mac}}}, "EID-Prefix"},
		{&MapRequest{ITRRLOCs: []Address{{}}, MapData: &records(mac, Address{})[0]}, "EID-Prefix"},
		{&MapReply{Records: records(mac, Address{})}, "EID-Prefix"},
		{&MapReply{Records: records(Address{}, mac)}, "Locator"},
		{&MapRegister{Records: records(Address{}, mac)}, "Locator"},
		{&MapNotify{Records: records(Address{}, mac)}, "Locator"},
		{&MapNotifyAck{Records: records(Address{}, mac)}, "Locator"},
		{&MapReferral{Records: []ReferralRecord{{EID: mac}}}, "EID-Prefix"},
		{&InfoRequest{EID: mac}, "EID-Prefix"},
		{&InfoReply{NAT: mac}, "AFI"},
	} {
		t.Run(fmt.Sprintf("%T %s", tt.m, tt.field), func(t *testing.T) {
			b, err := tt.m.MarshalBinary()
			require.NoError(t, err)
			at := bytes.Index(b, []byte{0x40, 0x05, 2})
			copy(b[at:], []byte{0x12, 0x34})
			m, err := Parse(b)
			assert.Nil(t, m)
			var de *DecodeError
			require.ErrorAs(t, err, &de)
			assert.Equal(t, tt.field, de.Field)
			assert.Equal(t, at, de.Offset)
			assert.ErrorIs(t, err, ErrUnsupported)
			assert.Contains(t, err.Error(), "address family 4660")
		})
	}
	assert.False(t, slices.Contains([]AFI{AFINone, AFIIPv4, AFIIPv6, AFIMAC, AFIDistinguishedName, AFILCAF, AFIMAC48}, 0x1234))
}

// TestPeerForms has forms that deployed implementations send beside the RFCs.
func TestPeerForms(t *testing.T) {
	t.Run("lispers.net Map-Notify: trailer without I", func(t *testing.T) {
		var m MapNotify
		b := append(vector(t, "map-notify"), vector(t, "map-notify-I")[len(vector(t, "map-notify")):]...)
		require.NoError(t, m.DecodeFromBytes(b))
		x, s, ok := m.Identity()
		assert.True(t, ok)
		assert.Equal(t, "000102030405060708090a0b0c0d0e0f", x.String())
		assert.Equal(t, SiteID(0x42), s)
		assert.ErrorIs(t, Verify(b, Key{Algorithm: AlgorithmHMACSHA1, Secret: []byte("lisp-test-key")}), ErrAuth,
			"without the I bit nothing may be appended to a signed message")
	})
	t.Run("lispers.net Map-Notify-Ack: no records", func(t *testing.T) {
		b, err := (&MapNotifyAck{Nonce: 1, Trailer: make([]byte, 24)}).AppendSigned(nil, Key{Algorithm: AlgorithmHMACSHA256})
		require.NoError(t, err)
		var m MapNotifyAck
		require.NoError(t, m.DecodeFromBytes(b))
		_, _, ok := m.Identity()
		assert.True(t, ok)
	})
	t.Run("lispers.net Info-Reply: LCAF Length 16", func(t *testing.T) {
		for _, tt := range []struct {
			host string
			rtrs string
			want []Address
		}{
			{"vm", "0000", []Address{{}}},
			{"vm", "0001c612000a0001c612000b", []Address{ip("198.18.0.10"), ip("198.18.0.11")}},
			{"v", "0001c612000a", []Address{ip("198.18.0.10")}}, // a cut that falls between two addresses
		} {
			var m InfoReply
			require.NoError(t, m.DecodeFromBytes(unhex(t, "780000000123456789abcdef"+
				"000000000000000000000000"+"4003000007000010"+"0000c5f0"+"0001cb007163"+"0000"+
				"0011"+hexName(tt.host)+tt.rtrs)))
			n, err := m.Traversal()
			require.NoError(t, err)
			assert.Equal(t, &NATTraversal{0, 0xc5f0, ip("203.0.113.99"), Address{}, name(tt.host), tt.want}, n)
			assert.Contains(t, m.String(), "203.0.113.99")
		}
	})
	t.Run("LCAF ITR-RLOCs", func(t *testing.T) {
		m := MapRequest{ITRRLOCs: []Address{
			lcaf(t, &SecurityKey{Algorithm: 5, Keys: [][]byte{make([]byte, 32)}, Address: ip("203.0.113.1")}),
			lcaf(t, &JSON{Text: []byte("{}")}), ip("203.0.113.1"),
		}}
		b, err := m.MarshalBinary()
		require.NoError(t, err)
		var got MapRequest
		require.NoError(t, got.DecodeFromBytes(b))
		assert.Equal(t, m.ITRRLOCs, got.ITRRLOCs)
	})
	t.Run("authentication data of an unknown type", func(t *testing.T) {
		b := unhex(t, "880000000300000045000000")
		var m EncapsulatedControl
		require.NoError(t, m.DecodeFromBytes(b))
		assert.Equal(t, b[4:], m.Security)
		assert.Empty(t, m.Packet)
		_, err := m.Inner()
		assert.ErrorIs(t, err, ErrTruncated)
		checkRoundTrip(t, b)
		m.Packet = []byte{0x45}
		_, err = m.MarshalBinary()
		assert.ErrorIs(t, err, ErrMalformed)
	})
}

func hexName(s string) string {
	var b bytes.Buffer
	for _, c := range []byte(s + "\x00") {
		const digits = "0123456789abcdef"
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}
