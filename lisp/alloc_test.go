package lisp

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNoAllocations(t *testing.T) {
	for _, name := range []string{"map-request-v4", "map-request-v6-2itr", "map-reply-2loc", "map-register-sha256-16", "map-notify"} {
		b := vector(t, name)
		m, err := Parse(b)
		require.NoError(t, err)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if m.DecodeFromBytes(b) != nil {
				panic("decode")
			}
		}), "decode %s", name)
		buf := make([]byte, 0, len(b))
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if out, err := m.AppendBinary(buf); err != nil || len(out) != len(b) {
				panic("encode")
			}
		}), "encode %s", name)
	}
	// An instance costs nothing either.
	b, err := (&MapReply{Records: []EIDRecord{{
		MaskLen: 24, EID: EIDAddress(7, netip.MustParseAddr("192.0.2.0")), Locators: site().Locators,
	}}}).MarshalBinary()
	require.NoError(t, err)
	var m MapReply
	require.NoError(t, m.DecodeFromBytes(b))
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if m.DecodeFromBytes(b) != nil {
			panic("decode")
		}
		if iid, p, ok := m.Records[0].Prefix(); !ok || iid != 7 || p.Bits() != 24 {
			panic("prefix")
		}
	}), "decode an instance")
	b = vector(t, "data-echo-iid")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		h, err := ParseDataHeader(b)
		if err != nil {
			panic("data header")
		}
		PutDataHeader(b, h)
	}))
}
