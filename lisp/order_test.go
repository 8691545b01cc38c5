package lisp

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ordered are addresses in the order that locators must have.
func ordered(t *testing.T) []Address {
	return []Address{
		{},
		ip("192.0.2.1"), ip("192.0.2.2"), ip("203.0.113.1"),
		ip("::ffff:192.0.2.1"), ip("2001:db8::1"), ip("2001:db8:ffff::"),
		addressFromHex(t, "0006020000000001"),
		name("a"), name("b"),
		lcaf(t, &Null{}),
		lcaf(t, &AFIList{[]Address{ip("192.0.2.1")}}),
		addressFromHex(t, "400300000200000a000000070001c6336400"),
		EIDAddress(7, netip.MustParseAddr("192.0.2.1")),
		EIDAddress(7, netip.MustParseAddr("192.0.2.2")),
		EIDAddress(8, netip.MustParseAddr("192.0.2.1")),
		EIDAddress(7, netip.MustParseAddr("2001:db8::1")), // a longer LCAF
		lcaf(t, &ASNumber{ASN: 1}),
		lcaf(t, &VendorSpecific{}),
		addressFromHex(t, "4005020000000001"),
	}
}

func TestCompare(t *testing.T) {
	as := ordered(t)
	for i, a := range as {
		for j, b := range as {
			assert.Equal(t, cmp.Compare(i, j), a.Compare(b), "%s %s", a, b)
		}
	}
}

func TestSort(t *testing.T) {
	// RFC 9301-5.5-5, 8060-3-s3
	want := ordered(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var r EIDRecord
		for _, i := range rng.Perm(len(want)) {
			r.Locators = append(r.Locators, RLOCRecord{RLOC: want[i]})
		}
		SortLocators(r.Locators)
		var got []Address
		for _, l := range r.Locators {
			got = append(got, l.RLOC)
		}
		require.Equal(t, want, got)
	}
	records := []EIDRecord{
		{EID: ip("2001:db8::"), MaskLen: 32},
		{EID: ip("192.0.2.0"), MaskLen: 24, Locators: []RLOCRecord{{RLOC: ip("2001:db8::1")}, {RLOC: ip("192.0.2.1")}}},
		{EID: ip("192.0.2.0"), MaskLen: 8},
	}
	sorted := slices.Clone(records)
	SortRecords(sorted)
	assert.Equal(t, uint8(8), sorted[0].MaskLen)
	assert.Equal(t, ip("192.0.2.1"), sorted[1].Locators[0].RLOC)
	assert.Equal(t, ip("2001:db8::"), sorted[2].EID)
}

func TestScreen(t *testing.T) {
	v4 := ip("203.0.113.1")
	unknown := lcaf(t, &RawLCAF{Type: 17, Body: make([]byte, 4)})
	vendor := lcaf(t, &VendorSpecific{OUI: 0x00000c})
	broken := addressFromHex(t, "40030000010000020001")
	list := func(as ...Address) Address { return lcaf(t, &AFIList{as}) }
	path := lcaf(t, &ExplicitPath{[]ExplicitHop{{Address: v4}, {Address: vendor}}})

	reply := func(eid Address, locators ...Address) *MapReply {
		r := EIDRecord{EID: eid}
		for _, a := range locators {
			r.Locators = append(r.Locators, RLOCRecord{RLOC: a})
		}
		return &MapReply{Records: []EIDRecord{r}}
	}
	for _, tt := range []struct {
		name     string
		eid      Address
		locators []Address
		kept     []Address
		drop     bool
	}{
		{"plain", v4, []Address{v4}, []Address{v4}, false},
		// RFC 9306-3-1
		{"unrecognized locator", v4, []Address{unknown, v4}, []Address{v4}, false},
		{"only unrecognized locators", v4, []Address{unknown, broken}, nil, false},
		{"list with one known", v4, []Address{list(unknown, v4)}, []Address{list(unknown, v4)}, false}, // RFC 8060-4.10.5-s1
		{"list with none", v4, []Address{list(unknown)}, nil, false},
		{"empty list", v4, []Address{list()}, []Address{list()}, false},
		// RFC 9306-3-2
		{"unrecognized EID", unknown, []Address{v4}, nil, true},
		{"list of unrecognized EIDs", list(unknown, unknown), []Address{v4}, nil, true},
		{"EID that is partly known", list(unknown, v4), nil, nil, false},
		// RFC 9306-4-5
		{"vendor EID", vendor, nil, nil, true},
		{"vendor locator", v4, []Address{v4, vendor}, nil, true},
		{"vendor in a list", v4, []Address{list(v4, vendor)}, nil, true},
		{"vendor in a path", v4, []Address{path}, nil, true},
		{"instance of a vendor's", lcaf(t, &InstanceID{32, 7, vendor}), nil, nil, true},
		{"instance of a name", lcaf(t, &InstanceID{32, 7, name("a")}), nil, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := reply(tt.eid, tt.locators...)
			err := Screen(m)
			if tt.drop {
				assert.ErrorIs(t, err, ErrUnsupported)
				return
			}
			require.NoError(t, err)
			var kept []Address
			for _, l := range m.Records[0].Locators {
				kept = append(kept, l.RLOC)
			}
			assert.Equal(t, tt.kept, kept)
		})
	}
	assert.NoError(t, Screen(reply(v4, vendor), 1, 0x00000c))

	t.Run("every message", func(t *testing.T) {
		r := []EIDRecord{{EID: v4, Locators: []RLOCRecord{{RLOC: vendor}}}}
		for _, m := range []Message{
			&MapRequest{SourceEID: vendor},
			&MapRequest{ITRRLOCs: []Address{vendor}},
			&MapRequest{Records: []RequestRecord{{EID: vendor}}},
			&MapRequest{MapData: &r[0]},
			&MapRegister{Records: r}, &MapNotify{Records: r}, &MapNotifyAck{Records: r},
			&MapReferral{Records: []ReferralRecord{{EID: vendor}}},
			&MapReferral{Records: []ReferralRecord{{Referrals: r[0].Locators}}},
			&InfoRequest{EID: vendor}, &InfoReply{EID: vendor}, &InfoReply{NAT: vendor},
		} {
			assert.ErrorIs(t, Screen(m), ErrUnsupported, "%T", m)
		}
		q := &MapRequest{SourceEID: unknown, ITRRLOCs: []Address{unknown, v4}}
		require.NoError(t, Screen(q))
		assert.Equal(t, []Address{v4}, q.ITRRLOCs)
		assert.NoError(t, Screen(new(EncapsulatedControl)))
	})
}
