package lisp

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// site is the record of the registrations among the vectors.
func site() EIDRecord {
	return EIDRecord{
		TTL: 1440, MaskLen: 24, Authoritative: true, EID: ip("192.0.2.0"),
		Locators: []RLOCRecord{{Priority: 1, Weight: 100, MPriority: 255, Local: true, Reachable: true, RLOC: ip("203.0.113.1")}},
	}
}

const vectorNonce = 0x0123456789abcdef

// TestMessages holds the vectors against the fields that the digest states.
func TestMessages(t *testing.T) {
	request := MapRequest{
		Nonce: vectorNonce, SourceEID: ip("192.0.2.1"), ITRRLOCs: []Address{ip("203.0.113.1")},
		Records: []RequestRecord{{MaskLen: 32, EID: ip("198.51.100.7")}},
	}
	edit := func(f func(*MapRequest)) *MapRequest {
		m := request
		f(&m)
		return &m
	}
	digests := loadVectors(t).Digests
	register := func(alg Algorithm, digest string) MapRegister {
		return MapRegister{
			ProxyReply: true, WantMapNotify: true, Nonce: 1,
			Auth: Authentication{0, alg, unhex(t, digests[digest])}, Records: []EIDRecord{site()},
		}
	}
	xtrID := XTRID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	withID := register(AlgorithmHMACSHA1, "map-register-xtrid covering trailer")
	withID.XTRIDPresent, withID.XTRID, withID.SiteID = true, xtrID, 0x42
	sha1 := register(AlgorithmHMACSHA1, "map-register-sha1-20")
	hkdf := register(AlgorithmHMACSHA256HKDF, "map-register-hkdf")
	for name, want := range map[string]Message{
		"map-request-v4": &request,
		// RFC 9301-5.2-7, 9301-5.3-1, 9301-5.3-2: IRC is the number of ITR-RLOCs less one.
		"map-request-v6-2itr": edit(func(m *MapRequest) {
			m.SourceEID = ip("2001:db8:1::1")
			m.ITRRLOCs = []Address{ip("203.0.113.1"), ip("2001:db8:ffff::1")}
			m.Records = []RequestRecord{{MaskLen: 128, EID: ip("2001:db8:2::7")}}
		}),
		"map-request-probe": edit(func(m *MapRequest) {
			m.Probe, m.SourceEID = true, Address{}
			m.Records = []RequestRecord{{MaskLen: 24, EID: ip("198.51.100.0")}}
		}),
		"map-request-smr": edit(func(m *MapRequest) {
			m.SMR, m.DontMapReply, m.SourceEID = true, true, ip("192.0.2.0")
			m.Records = []RequestRecord{{MaskLen: 24, EID: ip("198.51.100.0")}}
		}),
		"map-request-smr-invoked": edit(func(m *MapRequest) {
			m.SMRInvoked, m.SourceEID = true, ip("198.51.100.0")
			m.ITRRLOCs = []Address{ip("203.0.113.2")}
			m.Records = []RequestRecord{{MaskLen: 24, EID: ip("192.0.2.0")}}
		}),
		"map-request-M": edit(func(m *MapRequest) {
			r := site()
			m.MapData = &r
		}),
		"map-reply-2loc": &MapReply{Nonce: vectorNonce, Records: []EIDRecord{{
			TTL: 1440, MaskLen: 24, Authoritative: true, EID: ip("198.51.100.0"),
			// RFC 9300-12-1: each locator with its own priority and weight.
			Locators: []RLOCRecord{
				{Priority: 1, Weight: 75, MPriority: 255, Local: true, Reachable: true, RLOC: ip("203.0.113.1")},
				{Priority: 1, Weight: 25, MPriority: 255, Reachable: true, RLOC: ip("2001:db8:ffff::2")},
			},
		}}},
		"map-reply-probe": &MapReply{Probe: true, Nonce: vectorNonce, Records: []EIDRecord{{
			TTL: 1440, MaskLen: 24, Authoritative: true, EID: ip("198.51.100.0"),
			Locators: []RLOCRecord{{Priority: 1, Weight: 100, MPriority: 255, Local: true, Probed: true, Reachable: true, RLOC: ip("203.0.113.1")}},
		}}},
		"map-register-sha1-20": &sha1,
		"map-register-hkdf":    &hkdf,
		"map-register-xtrid":   &withID,
		"map-notify": &MapNotify{
			Nonce: 1, Auth: Authentication{0, AlgorithmHMACSHA1, unhex(t, digests["map-notify-sha1-20"])},
			Records: []EIDRecord{site()},
		},
		"map-notify-I": &MapNotify{
			XTRIDPresent: true, Nonce: 1, Auth: Authentication{0, AlgorithmHMACSHA1, unhex(t, digests["map-notify-I"])},
			Records: []EIDRecord{site()}, XTRID: xtrID, SiteID: 0x42,
		},
		"map-notify-ack": &MapNotifyAck{
			Nonce: 1, Auth: Authentication{0, AlgorithmHMACSHA256, unhex(t, digests["map-notify-ack-sha256-16"])},
			Records: []EIDRecord{site()},
		},
		"info-request": &InfoRequest{
			Nonce: vectorNonce, Auth: Authentication{0, AlgorithmHMACSHA1, unhex(t, digests["info-request"])},
			MaskLen: 24, EID: ip("192.0.2.0"),
		},
		"info-reply": &InfoReply{
			Nonce: vectorNonce, Auth: Authentication{0, AlgorithmHMACSHA1, unhex(t, digests["info-reply"])},
			TTL: 1440, MaskLen: 24, EID: ip("192.0.2.0"),
			NAT: lcaf(t, &NATTraversal{4342, 61000, ip("203.0.113.99"), ip("198.18.0.1"), Address{}, []Address{ip("198.18.0.10")}}),
		},
		"info-request-lispersnet": &InfoRequest{Nonce: 0xefcdab8967452301, Host: name("host1"), Auth: Authentication{Data: []byte{}}},
		"map-referral-node": &MapReferral{Nonce: vectorNonce, Records: []ReferralRecord{{
			TTL: 1440, MaskLen: 16, EID: ip("198.51.0.0"), Action: ReferralNode, Signatures: nil,
			Referrals: []RLOCRecord{
				{MPriority: 255, Reachable: true, RLOC: ip("198.18.1.1")},
				{MPriority: 255, Reachable: true, RLOC: ip("198.18.1.2")},
			},
		}}},
		"map-referral-msack": &MapReferral{Nonce: vectorNonce, Records: []ReferralRecord{{
			TTL: 1440, MaskLen: 24, EID: ip("198.51.100.0"), Action: ReferralMapServerACK, Incomplete: true,
			Referrals: []RLOCRecord{{MPriority: 255, Reachable: true, RLOC: ip("198.18.1.9")}},
		}}},
		// RFC 9304-3-1
		"shared-ext": &SharedExtension{SubType: 0x123, Data: make([]byte, 6)},
	} {
		t.Run(name, func(t *testing.T) {
			b := vector(t, name)
			out, err := want.MarshalBinary()
			require.NoError(t, err)
			require.Equal(t, b, out)
			got, err := Parse(b)
			require.NoError(t, err)
			normalize(got)
			normalize(want)
			assert.Equal(t, want, got)
		})
	}
}

// normalize makes empty and nil slices equal.
func normalize(m Message) {
	if r, ok := m.(*MapReferral); ok {
		for i := range r.Records {
			if len(r.Records[i].Signatures) == 0 {
				r.Records[i].Signatures = nil
			}
		}
	}
}

// TestNegativeReplies: ACT means something only in a record without locators.
func TestNegativeReplies(t *testing.T) {
	for _, tt := range []struct {
		vector  string
		ttl     uint32
		maskLen uint8
		action  Action
		text    string
	}{
		// RFC 9301-5.4-s2
		{"map-reply-negative", 15, 22, ActionNativelyForward, "natively-forward"},
		{"map-reply-policy-denied", 1, 22, ActionDropPolicyDenied, "drop/policy-denied"},
	} {
		var m MapReply
		require.NoError(t, m.DecodeFromBytes(vector(t, tt.vector)))
		require.Len(t, m.Records, 1)
		r := &m.Records[0]
		assert.Equal(t, tt.ttl, r.TTL)
		assert.Equal(t, tt.maskLen, r.MaskLen)
		assert.Equal(t, tt.action, r.Action)
		assert.True(t, r.Negative())
		assert.Contains(t, m.String(), tt.text)
	}
	positive := EIDRecord{EID: ip("192.0.2.0"), MaskLen: 24, Action: ActionDropNoReason, Locators: []RLOCRecord{{RLOC: ip("203.0.113.1")}}}
	assert.NotContains(t, positive.String(), "drop", "the action of a record with locators means nothing")
}

// TestReservedBits: zero in messages that are built, ignored and kept in
// messages that are received.
func TestReservedBits(t *testing.T) {
	loc := []RLOCRecord{{RLOC: ip("203.0.113.1")}}
	for _, tt := range []struct {
		name  string
		plain Message
		mask  uint32 // of the reserved bits in the first word
	}{
		// RFC 9301-5.2-5, 9301-5.2-6
		{"Map-Request", &MapRequest{ITRRLOCs: []Address{ip("203.0.113.1")}, Records: []RequestRecord{{MaskLen: 32, EID: ip("192.0.2.1")}}}, 0x003f8000},
		// RFC 9301-5.4-2
		{"Map-Reply", &MapReply{Records: []EIDRecord{{EID: ip("192.0.2.1"), Locators: loc}}}, 0x01ffff00},
		// RFC 9301-5.6-2, 9301-5.6-3
		{"Map-Register", &MapRegister{}, 0x01ffe200},
		{"Map-Notify", &MapNotify{}, 0x03ffff00},
		{"Map-Notify-Ack", &MapNotifyAck{}, 0x03ffff00},
		{"Map-Referral", &MapReferral{}, 0x0fffff00},
		// RFC nat19i-4.1-2
		{"Info-Request", &InfoRequest{}, 0x07ffffff},
		{"Info-Reply", &InfoReply{}, 0x07ffffff},
		// RFC 9301-5.8-2
		{"ECM", &EncapsulatedControl{}, 0x009fffff},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clean, err := tt.plain.MarshalBinary()
			require.NoError(t, err)
			for i := range 4 {
				assert.Zero(t, clean[i]&byte(tt.mask>>(24-8*i)), "sent as zero")
			}
			dirty := bytes.Clone(clean)
			for i := range 4 {
				dirty[i] |= byte(tt.mask >> (24 - 8*i))
			}
			m, err := Parse(dirty)
			require.NoError(t, err)
			out, err := m.MarshalBinary()
			require.NoError(t, err)
			assert.Equal(t, dirty, out)
		})
	}
	t.Run("records", func(t *testing.T) {
		b := vector(t, "map-reply-2loc")
		b[18], b[19] = b[18]|0x0f, 0xff // the 12 bits behind A
		b[20] |= 0xf0                   // Rsvd before the Map-Version
		b[32], b[33] = 0xff, b[33]|0xf8 // unused flags of a locator
		var m MapReply
		require.NoError(t, m.DecodeFromBytes(b))
		r := m.Records[0]
		assert.Equal(t, uint16(0xfff), r.Reserved)
		assert.Equal(t, uint8(0xf), r.Rsvd)
		assert.Zero(t, r.MapVersion)
		assert.Equal(t, uint16(0x1fff), r.Locators[0].Unused)
		assert.True(t, r.Locators[0].Local)
		assert.False(t, r.Locators[0].Probed)
		out, err := m.MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, b, out)
	})
}

// TestFlags sets one flag at a time and looks for its bit.
func TestFlags(t *testing.T) {
	itr := []Address{ip("203.0.113.1")}
	for _, tt := range []struct {
		bit uint32
		m   Message
	}{
		{0x08000000, &MapRequest{ITRRLOCs: itr, Authoritative: true}},
		{0x02000000, &MapRequest{ITRRLOCs: itr, Probe: true}},
		{0x01000000, &MapRequest{ITRRLOCs: itr, SMR: true}},
		{0x00800000, &MapRequest{ITRRLOCs: itr, PITR: true}},
		{0x00400000, &MapRequest{ITRRLOCs: itr, SMRInvoked: true}},
		{0x00200000, &MapRequest{ITRRLOCs: itr, Reserved: RequestReservedMobileNode}},
		{0x00100000, &MapRequest{ITRRLOCs: itr, Reserved: RequestReservedXTRID}},
		{0x00008000, &MapRequest{ITRRLOCs: itr, Reserved: RequestReservedNAT}},
		{0x00004000, &MapRequest{ITRRLOCs: itr, LocalXTR: true}},
		{0x00002000, &MapRequest{ITRRLOCs: itr, DontMapReply: true}},
		{0x00001f00, &MapRequest{ITRRLOCs: make([]Address, 32)}},
		{0x08000000, &MapReply{Probe: true}},
		{0x04000000, &MapReply{EchoNonce: true}},
		{0x02000000, &MapReply{Security: true}},
		{0x08000000, &MapRegister{ProxyReply: true}},
		{0x04000000, &MapRegister{SecurityCapable: true}},
		{0x02000000, &MapRegister{XTRIDPresent: true}},
		{0x01000000, &MapRegister{RTR: true}},
		{0x00001000, &MapRegister{EIDNotify: true}},
		{0x00000800, &MapRegister{UseTTL: true}},
		{0x00000400, &MapRegister{Merge: true}},
		{0x00000200, &MapRegister{MobileNode: true}},
		{0x00000100, &MapRegister{WantMapNotify: true}},
		{0x08000000, &MapNotify{XTRIDPresent: true}},
		{0x04000000, &MapNotify{RTRAuth: true}},
		{0x08000000, &InfoReply{}},
		// RFC 8111-5-1
		{0x04000000, &EncapsulatedControl{DDT: true}},
		{0x02000000, &EncapsulatedControl{ToETR: true}},
		{0x01000000, &EncapsulatedControl{ToMS: true}},
		{0x00400000, &EncapsulatedControl{RTR: true}},
		{0x00200000, &EncapsulatedControl{Relayed: true}},
	} {
		b, err := tt.m.MarshalBinary()
		require.NoError(t, err)
		w := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		assert.Equal(t, tt.bit, w&^0xf0000000, "%#v", tt.m)
		got, err := Parse(b)
		require.NoError(t, err)
		out, err := got.MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, b, out)
	}
}

func TestEncodeErrors(t *testing.T) {
	itr := []Address{ip("203.0.113.1")}
	for _, tt := range []struct {
		name string
		m    Message
	}{
		// RFC 9301-5.2-7
		{"no ITR-RLOC", &MapRequest{}},
		{"33 ITR-RLOCs", &MapRequest{ITRRLOCs: make([]Address, 33)}},
		{"256 records", &MapRequest{ITRRLOCs: itr, Records: make([]RequestRecord, 256)}},
		{"reserved", &MapRequest{ITRRLOCs: itr, Reserved: 0x80}},
		{"mask-len", &MapRequest{ITRRLOCs: itr, Records: []RequestRecord{{MaskLen: 33, EID: ip("192.0.2.1")}}}},
		{"map data", &MapRequest{ITRRLOCs: itr, MapData: &EIDRecord{MaskLen: 33, EID: ip("192.0.2.1")}}},
		{"256 records", &MapReply{Records: make([]EIDRecord, 256)}},
		{"reserved", &MapReply{Reserved: 1 << 17}},
		{"256 locators", &MapReply{Records: []EIDRecord{{Locators: make([]RLOCRecord, 256)}}}},
		{"action", &MapReply{Records: []EIDRecord{{Action: 8}}}},
		{"reserved", &MapReply{Records: []EIDRecord{{Reserved: 1 << 12}}}},
		{"reserved", &MapReply{Records: []EIDRecord{{Rsvd: 1 << 4}}}},
		{"map-version", &MapReply{Records: []EIDRecord{{MapVersion: 1 << 12}}}},
		{"flags", &MapReply{Records: []EIDRecord{{Locators: []RLOCRecord{{Unused: 1 << 13}}}}}},
		{"256 records", &MapRegister{Records: make([]EIDRecord, 256)}},
		{"reserved", &MapRegister{Reserved: 1 << 11}},
		{"authentication", &MapRegister{Auth: Authentication{Data: make([]byte, 65536)}}},
		{"record", &MapRegister{Records: []EIDRecord{{Action: 8}}}},
		{"256 records", &MapNotify{Records: make([]EIDRecord, 256)}},
		{"reserved", &MapNotifyAck{Reserved: 1 << 18}},
		{"authentication", &MapNotify{Auth: Authentication{Data: make([]byte, 65536)}}},
		{"256 records", &MapReferral{Records: make([]ReferralRecord, 256)}},
		{"reserved", &MapReferral{Reserved: 1 << 20}},
		{"16 signatures", &MapReferral{Records: []ReferralRecord{{Signatures: make([]ReferralSignature, 16)}}}},
		{"signature", &MapReferral{Records: []ReferralRecord{{Signatures: []ReferralSignature{{Reserved: 1 << 24}}}}}},
		{"reserved", &InfoRequest{Reserved: 1 << 27}},
		{"mask-len", &InfoReply{MaskLen: 33, EID: ip("192.0.2.1")}},
		{"sub-type", &SharedExtension{SubType: 1 << 12}},
		{"reserved", &EncapsulatedControl{Reserved: 1 << 22}},
		{"security", &EncapsulatedControl{Security: []byte{1}}},
		{"empty", &Raw{}},
	} {
		_, err := tt.m.MarshalBinary()
		assert.ErrorIs(t, err, ErrMalformed, "%s: %s", tt.m.Type(), tt.name)
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		name, hex, message, field string
		offset                    int
		err                       error
	}{
		{"empty", "", "message", "Type", 0, ErrTruncated},
		{"cut nonce", "1000000101234567", "Map-Request", "Nonce", 4, ErrTruncated},
		// RFC 9301-5.1-1
		{"unknown AFI", "1000000101234567 89abcdef 0063 c0000201", "Map-Request", "Source EID Address", 12, ErrUnsupported},
		{"unknown AFI of an ITR-RLOC", "1000000101234567 89abcdef 0000 0063 c0000201", "Map-Request", "ITR-RLOC Address", 14, ErrUnsupported},
		{"mask-len 33", "1000000101234567 89abcdef 0000 0001cb007101 0021 0001c6336407", "Map-Request", "EID mask-len", 21, ErrMalformed},
		{"mask-len 255", "2000000101234567 89abcdef 000005a0 00ff 0000 0000 0001c6336407", "Map-Reply", "EID mask-len", 17, ErrMalformed},
		{"mask-len 33 in an instance", "2000000101234567 89abcdef 000005a0 0021 0000 0000 400300000220000a00abcdef0001c6336400", "Map-Reply", "EID mask-len", 17, ErrMalformed},
		{"locators that are not there", "2000000101234567 89abcdef 000005a0 ff18 0000 0000 0001c6336407", "Map-Reply", "RLOC-Record", 28, ErrTruncated},
		{"I without xTR-ID", "3200000001234567 89abcdef 00000000 000102030405060708090a0b0c0d0e0f 00000000000000", "Map-Register", "xTR-ID", 16, ErrTruncated},
		{"authentication that is not there", "3000000001234567 89abcdef 0001ffff 00", "Map-Register", "Authentication Data", 16, ErrTruncated},
		{"name without end", "1000000001234567 89abcdef 0011 6162", "Map-Request", "Source EID Address", 12, ErrTruncated},
		{"LCAF beyond the end", "1000000001234567 89abcdef 4003 0000 0200 ffff 00", "Map-Request", "Source EID Address", 12, ErrTruncated},
		{"signature that is not there", "6000000101234567 89abcdef 000005a0 0018 0000 1000 0001c6336407", "Map-Referral", "Signature Section", 28, ErrTruncated},
		{"no AD", "88000000", "ECM", "Authentication Data", 4, ErrTruncated},
		{"cut AD", "88000000 02000000 00000014 00", "ECM", "Authentication Data", 4, ErrTruncated},
		{"no Sub-type", "f1", "Shared-Extension", "Sub-type", 0, ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, string(bytes.ReplaceAll([]byte(tt.hex), []byte(" "), nil)))
			m, err := Parse(b)
			require.ErrorIs(t, err, tt.err)
			assert.Nil(t, m)
			var de *DecodeError
			require.ErrorAs(t, err, &de)
			assert.Equal(t, DecodeError{tt.message, tt.field, tt.offset, de.Err}, *de)
			assert.Contains(t, err.Error(), tt.message)
		})
	}
	for _, m := range []Message{
		new(MapRequest), new(MapReply), new(MapRegister), new(MapNotify), new(MapNotifyAck), new(MapReferral),
		new(InfoRequest), new(InfoReply), new(EncapsulatedControl), new(SharedExtension),
	} {
		assert.ErrorIs(t, m.DecodeFromBytes(make([]byte, 64)), ErrMalformed, "%T: a message of another type", m)
		assert.ErrorIs(t, m.UnmarshalBinary(nil), ErrTruncated, "%T", m)
	}
}

// TestTruncation cuts every vector at every octet: no panic, and what decodes
// encodes to the same octets.
func TestTruncation(t *testing.T) {
	for _, v := range loadVectors(t).Vectors {
		b := unhex(t, v.Hex)
		for n := range len(b) + 1 {
			checkRoundTrip(t, b[:n:n])
		}
	}
}

// TestReuse decodes one message after another into the same struct.
func TestReuse(t *testing.T) {
	var m MapReply
	for _, name := range []string{"map-reply-2loc", "map-reply-negative", "map-reply-2loc", "map-reply-lispsec", "map-reply-probe"} {
		b := vector(t, name)
		require.NoError(t, m.DecodeFromBytes(b))
		out, err := m.MarshalBinary()
		require.NoError(t, err)
		assert.Equal(t, b, out, name)
	}
	b := vector(t, "map-register-xtrid")
	var r MapRegister
	require.NoError(t, r.UnmarshalBinary(b))
	want := bytes.Clone(b)
	clear(b)
	out, err := r.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, want, out, "UnmarshalBinary copies")
}

// RFC 9301-5.2-8
func TestManyRecords(t *testing.T) {
	m := MapRequest{ITRRLOCs: []Address{ip("203.0.113.1")}}
	for i := range 255 {
		m.Records = append(m.Records, RequestRecord{MaskLen: 32, EID: AddressFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))})
	}
	b, err := m.MarshalBinary()
	require.NoError(t, err)
	var got MapRequest
	require.NoError(t, got.DecodeFromBytes(b))
	assert.Equal(t, m.Records, got.Records)
}

func TestPrefix(t *testing.T) {
	for _, tt := range []struct {
		eid     Address
		maskLen uint8
		iid     uint32
		want    string
		ok      bool
	}{
		{ip("192.0.2.1"), 24, 0, "192.0.2.1/24", true}, // host bits stay
		{ip("2001:db8::1"), 128, 0, "2001:db8::1/128", true},
		{ip("::ffff:192.0.2.1"), 128, 0, "::ffff:192.0.2.1/128", true},
		{ip("192.0.2.1"), 33, 0, "", false},
		{EIDAddress(1<<31, netip.MustParseAddr("192.0.2.0")), 24, 1 << 31, "192.0.2.0/24", true},
		{addressFromHex(t, "400300000200000c000000070001c6336400ffff"), 32, 7, "198.51.100.0/32", true},
		{addressFromHex(t, "4003000002080006010000000000"), 0, 0, "", false},
		{Address{}, 0, 0, "", false},
		{name("x"), 0, 0, "", false},
	} {
		r := EIDRecord{MaskLen: tt.maskLen, EID: tt.eid}
		iid, p, ok := r.Prefix()
		assert.Equal(t, tt.ok, ok, tt.eid)
		if tt.ok {
			assert.Equal(t, tt.iid, iid)
			assert.Equal(t, tt.want, p.String())
		}
		q := RequestRecord{MaskLen: tt.maskLen, EID: tt.eid}
		qi, qp, qok := q.Prefix()
		assert.Equal(t, []any{iid, p, ok}, []any{qi, qp, qok})
	}
}

func TestCheckSend(t *testing.T) {
	itr := []Address{ip("203.0.113.1")}
	ask := []RequestRecord{{MaskLen: 32, EID: ip("192.0.2.1")}}
	withLocators := func(ls ...RLOCRecord) []EIDRecord {
		return []EIDRecord{{EID: ip("192.0.2.1"), MaskLen: 32, Locators: ls}}
	}
	probed := withLocators(RLOCRecord{Probed: true, RLOC: ip("203.0.113.1")})
	both := withLocators(RLOCRecord{Probed: true, RLOC: ip("203.0.113.1")}, RLOCRecord{Probed: true, RLOC: ip("203.0.113.2")})
	disordered := withLocators(RLOCRecord{RLOC: ip("2001:db8::1")}, RLOCRecord{RLOC: ip("203.0.113.1")})
	for _, m := range []Message{
		&MapRequest{ITRRLOCs: itr, Records: ask},
		&MapReply{Probe: true, Records: probed},
		&MapReply{Records: []EIDRecord{{Action: ActionNativelyForward}}},
		&MapRegister{Records: []EIDRecord{site()}},
		&MapNotify{Records: []EIDRecord{site()}}, &MapNotifyAck{}, &MapReferral{}, &InfoRequest{}, &SharedExtension{},
		&InfoReply{NAT: lcaf(t, &NATTraversal{})},
	} {
		assert.NoError(t, CheckSend(m), "%s", m)
	}
	e, err := Parse(vector(t, "ecm-map-request-v4"))
	require.NoError(t, err)
	assert.NoError(t, CheckSend(e))
	for _, m := range []Message{
		&MapRequest{ITRRLOCs: itr, Records: ask, Reserved: 1}, // RFC 9301-5.2-5, 9301-5.2-6
		&MapRequest{ITRRLOCs: itr},
		&MapRequest{ITRRLOCs: itr, Records: []RequestRecord{{Reserved: 0x80}}},
		&MapRequest{ITRRLOCs: itr, Records: ask, MapData: &probed[0]}, // RFC 9301-5.4-11
		&MapRegister{Records: probed},                                 // RFC 9301-5.4-11
		&MapNotify{Records: probed}, &MapReply{Records: probed}, &MapReply{Probe: true, Records: both},
		&MapReply{Reserved: 1},                                            // RFC 9301-5.4-2
		&MapReply{Records: disordered}, &MapRegister{Records: disordered}, // RFC 9301-5.5-5
		&MapReply{Records: []EIDRecord{{Action: 1, Locators: site().Locators}}}, // RFC 9301-5.4-s2
		&MapRegister{Records: []EIDRecord{{Action: 1}}},                         // RFC 9301-5.4-s2
		&MapRegister{Reserved: 1}, &MapRegister{MobileNode: true},               // RFC 9301-5.6-2, 9301-5.6-3
		&MapRegister{Records: withLocators(RLOCRecord{Unused: 1})}, &MapRegister{Records: []EIDRecord{{Rsvd: 1}}},
		&MapNotify{Reserved: 1}, &MapNotifyAck{Reserved: 1}, &MapReferral{Reserved: 1},
		&MapReferral{Records: []ReferralRecord{{Signatures: []ReferralSignature{{Algorithm: SignatureRSASHA1}}}}}, // RFC 8111-6.4.1-3
		&MapReferral{Records: []ReferralRecord{{Signatures: []ReferralSignature{{Reserved: 1}}}}},                 // RFC 8111-6.4.1-4
		&MapReferral{Records: []ReferralRecord{{Reserved: 1}}},
		&MapReferral{Records: []ReferralRecord{{Referrals: disordered[0].Locators}}},
		&InfoRequest{Host: name("x")},                                       // RFC nat19i-4.1-1
		&InfoRequest{EIDReserved: 1}, &InfoReply{Reserved: 1}, &InfoReply{}, // RFC nat19i-4.1-2
		&EncapsulatedControl{Reserved: 1}, &EncapsulatedControl{}, // RFC 9301-5.8-2
	} {
		assert.ErrorIs(t, func() error {
			err := CheckSend(m)
			if _, empty := m.(*EncapsulatedControl); empty && err != nil {
				return ErrMalformed
			}
			return err
		}(), ErrMalformed, "%s", m)
	}
	packet, err := AppendInner(nil, Inner{mustAddrPort("192.0.2.1:4342"), mustAddrPort("192.0.2.2:4342"), 0, vector(t, "map-request-probe")})
	require.NoError(t, err)
	assert.ErrorIs(t, CheckSend(&EncapsulatedControl{Packet: packet}), ErrMalformed)
	clear(packet[26:28])
	assert.ErrorIs(t, CheckSend(&EncapsulatedControl{Packet: packet}), ErrMalformed)
}

func TestLogValue(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range loadVectors(t).Vectors {
		m, err := Parse(unhex(t, v.Hex))
		if err != nil {
			continue
		}
		out.Reset()
		log.Info("received", "message", m)
		assert.Contains(t, out.String(), "message.type=", v.Name)
	}
	out.Reset()
	key := Key{ID: 3, Algorithm: AlgorithmHMACSHA256, Secret: []byte("do not show")}
	log.Info("key", "key", key, "pointer", &key, "otk", OTK{1, 2, 3})
	assert.NotContains(t, out.String(), "do not show")
	assert.Contains(t, out.String(), "key.id=3")
}

// TestRandomMessages: what can be built comes back, and its digest is right.
func TestRandomMessages(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 4)), t}
	for n := range 2000 {
		b := g.message(n)
		m, err := Parse(b)
		require.NoError(t, err)
		out, err := m.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, out)
		_ = Screen(m)
		switch m := m.(type) {
		case *MapRegister:
			require.NoError(t, Verify(b, keyOf(m.Auth.KeyID, m.Auth.Algorithm, false)))
		case *MapNotify:
			require.NoError(t, Verify(b, keyOf(m.Auth.KeyID, m.Auth.Algorithm, false)))
		}
	}
}

func TestIdentifierText(t *testing.T) {
	type ids struct {
		Nonce Nonce
		XTRID XTRID
	}
	want := ids{0xffffffffffffffff, XTRID{1, 2, 15: 3}}
	b, err := json.Marshal(want)
	require.NoError(t, err)
	assert.Equal(t, `{"Nonce":"0xffffffffffffffff","XTRID":"01020000000000000000000000000003"}`, string(b))
	var got ids
	require.NoError(t, json.Unmarshal(b, &got))
	assert.Equal(t, want, got)
	require.NoError(t, got.Nonce.UnmarshalText([]byte("7")))
	assert.Equal(t, Nonce(7), got.Nonce)
	assert.ErrorIs(t, got.Nonce.UnmarshalText([]byte("x")), ErrMalformed)
	assert.ErrorIs(t, got.XTRID.UnmarshalText([]byte("01")), ErrMalformed)
	assert.ErrorIs(t, got.XTRID.UnmarshalText([]byte("zz")), ErrMalformed)
}

func TestTypeOf(t *testing.T) {
	assert.Equal(t, Type(0), TypeOf(nil))
	assert.Equal(t, "0x0123456789abcdef", Nonce(vectorNonce).String())
}
