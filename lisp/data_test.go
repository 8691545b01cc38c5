package lisp

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func headerHex(h DataHeader) string {
	b := make([]byte, DataHeaderLen)
	PutDataHeader(b, h)
	return hex.EncodeToString(b)
}

func TestDataHeaderVectors(t *testing.T) {
	for _, tt := range []struct {
		vector string
		want   DataHeader
		text   string
	}{
		{"data-plain", DataHeader{}, "LISP"}, // RFC 9300-5.3-s1
		{"data-iid", DataHeader{}.WithInstanceID(0xabcdef), "LISP iid 11259375"},
		{"data-nonce-lsb", DataHeader{}.WithNonce(0x123456, false).WithLSBs(3), "LISP nonce 0x123456 lsbs 0x3"},
		{"data-echo-iid", DataHeader{}.WithInstanceID(0xabcdef).WithLSBs(3).WithNonce(0x123456, true), "LISP nonce 0x123456 echo lsbs 0x3 iid 11259375"},
		{"data-mapversion", DataHeader{}.WithMapVersions(1, 2), "LISP map-versions 1 2"},
		{"data-v6", DataHeader{}, "LISP"},
		{"data-gpe-eth", DataHeader{}.WithInstanceID(0xabcdef).WithNextProtocol(NextEthernet), "LISP next-protocol Ethernet iid 11259375"},
		{"data-map-notify", DataHeader{}.WithInstanceID(InstanceIDControl), "LISP iid 16777215"},
	} {
		b := vector(t, tt.vector)
		h, err := ParseDataHeader(b)
		require.NoError(t, err)
		assert.Equal(t, tt.want, h, tt.vector)
		assert.Equal(t, hex.EncodeToString(b[:8])[:8], headerHex(h)[:8])
		assert.Equal(t, tt.text, h.String())
	}
	_, err := ParseDataHeader(make([]byte, 7))
	assert.Equal(t, ErrTruncated, err)
}

func TestDataHeaderFields(t *testing.T) {
	parse := func(s string) DataHeader {
		h, err := ParseDataHeader(unhex(t, s))
		require.NoError(t, err)
		return h
	}
	t.Run("N and V", func(t *testing.T) {
		h := parse("9012345600000000")
		n, ok := h.Nonce() // RFC 9300-5.3-9
		assert.True(t, ok)
		assert.Equal(t, uint32(0x123456), n)
		_, _, ok = h.MapVersions() // RFC 9300-5.3-9
		assert.False(t, ok)
	})
	t.Run("never both", func(t *testing.T) {
		assert.Equal(t, "1000100200000000", headerHex(DataHeader{}.WithNonce(0xffffff, true).WithMapVersions(1, 2))) // RFC 9300-5.3-8, 9300-5.3-11
		assert.Equal(t, "8000000100000000", headerHex(DataHeader{}.WithMapVersions(0xfff, 0xfff).WithNonce(1, false)))
	})
	t.Run("reserved", func(t *testing.T) {
		plain, marked := parse("c012345600000003"), parse("c412345600000003")
		n, ok := marked.Nonce() // RFC 9300-5.3-12
		want, _ := plain.Nonce()
		assert.True(t, ok)
		assert.Equal(t, want, n)
		assert.Equal(t, "c412345600000003", headerHex(marked))
	})
	t.Run("E without N", func(t *testing.T) {
		assert.False(t, parse("2000000000000000").EchoRequest())
		assert.True(t, parse("a000000000000000").EchoRequest())
	})
	t.Run("instance and LSBs", func(t *testing.T) {
		// RFC 9300-5.3-s2
		h := DataHeader{}.WithInstanceID(7)
		assert.Equal(t, "0800000000000700", headerHex(h))
		_, ok := h.LSBs()
		assert.False(t, ok)
		l, ok := parse("48000000000007ff").LSBs()
		assert.True(t, ok)
		assert.Equal(t, uint32(0xff), l)
		l, _ = parse("40000000ffffffff").LSBs()
		assert.Equal(t, uint32(0xffffffff), l)
		_, ok = parse("00000000ffffffff").LSBs()
		assert.False(t, ok)
		assert.Equal(t, "48000000000007ff", headerHex(h.WithLSBs(0x1ff)))
		assert.Equal(t, "48000000000007ff", headerHex(DataHeader{}.WithLSBs(0x1ff).WithInstanceID(7)))
		_, ok = parse("0000000000000700").InstanceID()
		assert.False(t, ok)
	})
	t.Run("KK", func(t *testing.T) {
		for k := range uint8(4) { // RFC 9300-5.3-s3
			b := make([]byte, 8)
			b[0] = k
			h, err := ParseDataHeader(b)
			require.NoError(t, err)
			assert.Equal(t, k, h.KeyID())
			assert.Equal(t, k, h.Flags())
		}
		assert.Contains(t, parse("0200000000000000").String(), "key 2")
	})
	t.Run("GPE", func(t *testing.T) {
		// RFC 9305-3-1
		h := DataHeader{}.WithNonce(0xffffff, true).WithNextProtocol(NextIPv6)
		assert.Equal(t, "0400000200000000", headerHex(h))
		assert.Equal(t, "0400000200000000", headerHex(DataHeader{}.WithMapVersions(1, 2).WithNextProtocol(NextIPv6)))
		p, ok := h.NextProtocol()
		assert.True(t, ok)
		assert.Equal(t, NextIPv6, p)
		p, ok = parse("f4ffff0300000000").NextProtocol()
		assert.True(t, ok)
		assert.Equal(t, NextEthernet, p)
		assert.Equal(t, "LISP next-protocol Ethernet lsbs 0x0", parse("f4ffff0300000000").String())
		_, ok = DataHeader{}.NextProtocol()
		assert.False(t, ok)
	})
}

// TestDataHeaderLegal builds headers by all methods in any order and finds no
// combination that a sender must not make.
func TestDataHeaderLegal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		var h DataHeader
		for range rng.IntN(8) {
			switch rng.IntN(5) {
			case 0:
				h = h.WithInstanceID(rng.Uint32())
			case 1:
				h = h.WithNonce(rng.Uint32(), rng.IntN(2) == 0)
			case 2:
				h = h.WithMapVersions(uint16(rng.Uint32()), uint16(rng.Uint32()))
			case 3:
				h = h.WithLSBs(rng.Uint32())
			case 4:
				h = h.WithNextProtocol(NextProtocol(rng.Uint32()))
			}
		}
		f := h.Flags()
		n, l, e, v, p := f&0x80 != 0, f&0x40 != 0, f&0x20 != 0, f&0x10 != 0, f&0x04 != 0
		require.False(t, n && v, h) // RFC 9300-5.3-8
		require.False(t, e && !n, h)
		require.False(t, p && (n || e || v), h) // RFC 9305-3-1
		if p {
			require.Zero(t, h.hi&0x00ffff00, h)
		}
		if !n && !v && !p {
			require.Zero(t, h.hi&0x00ffffff, h) // RFC 9300-5.3-s1
		}
		if iid, ok := h.InstanceID(); ok && !l {
			require.Equal(t, iid<<8, h.lo, h) // RFC 9300-5.3-s2
		}
		require.Zero(t, f&0x03)
	}
}

func TestShimHeader(t *testing.T) {
	// RFC 9305-3-2, 9305-3-4
	b, err := ShimHeader{Type: 1, Next: 0x81, Data: []byte("12345678")}.AppendBinary(nil)
	require.NoError(t, err)
	assert.Equal(t, "01020081"+hex.EncodeToString([]byte("12345678")), hex.EncodeToString(b))
	b, err = ShimHeader{Type: 2, Next: NextIPv4}.AppendBinary(b)
	require.NoError(t, err)
	h, n, err := ParseShimHeader(b)
	require.NoError(t, err)
	assert.Equal(t, ShimHeader{1, 0, 0x81, []byte("12345678")}, h)
	assert.True(t, h.Next.IsShim())
	h, m, err := ParseShimHeader(b[n:])
	require.NoError(t, err)
	assert.False(t, h.Next.IsShim())
	assert.Len(t, b, n+m)
	for i := range n {
		_, _, err := ParseShimHeader(b[:i])
		assert.Equal(t, ErrTruncated, err)
	}
	_, err = ShimHeader{Data: []byte("123")}.AppendBinary(nil)
	assert.ErrorIs(t, err, ErrMalformed)
	_, err = ShimHeader{Data: make([]byte, 1024)}.AppendBinary(nil)
	assert.ErrorIs(t, err, ErrMalformed)
	for p := range 256 {
		assert.NotEmpty(t, NextProtocol(p).String())
	}
}

func TestVXLANGPE(t *testing.T) {
	h := NewVXLANGPEHeader(100, NextIPv4)
	b := make([]byte, 8)
	PutVXLANGPEHeader(b, h)
	assert.Equal(t, "0c00000100006400", hex.EncodeToString(b))
	got, err := ParseVXLANGPEHeader(b)
	require.NoError(t, err)
	assert.Equal(t, h, got)
	vni, ok := got.VNI()
	assert.True(t, ok)
	assert.Equal(t, uint32(100), vni)
	assert.Equal(t, NextIPv4, got.NextProtocol())
	assert.Equal(t, "VXLAN-GPE vni 100 next-protocol IPv4", got.String())
	vxlan, err := ParseVXLANGPEHeader(unhex(t, "0b00000000000000"))
	require.NoError(t, err)
	assert.Equal(t, NextEthernet, vxlan.NextProtocol())
	assert.True(t, vxlan.OAM())
	assert.True(t, vxlan.Replicated())
	_, err = ParseVXLANGPEHeader(unhex(t, "1c00000000000000"))
	assert.Equal(t, ErrUnsupported, err)
	_, err = ParseVXLANGPEHeader(b[:7])
	assert.Equal(t, ErrTruncated, err)
	assert.Equal(t, "VXLAN-GPE next-protocol Ethernet", VXLANGPEHeader{}.String())
}

func TestMapVersions(t *testing.T) {
	// RFC 9302-6-2
	for _, tt := range []struct {
		a, b uint16
		want int
	}{
		{69, 69, 0},
		{70, 69, 1},
		{69 + 2048, 69, 1},
		{69 + 2049, 69, -1},
		{68, 69, -1},
		{69 + 4095 - 4096, 69, -1},
		{1, 4095, 1},
		{4095, 1, -1},
		{1, 2049, -1},
		{2049, 1, 1},
	} {
		assert.Equal(t, tt.want, CompareMapVersions(tt.a, tt.b), "%d %d", tt.a, tt.b)
		assert.Equal(t, -tt.want, CompareMapVersions(tt.b, tt.a), "%d %d", tt.b, tt.a)
	}
	// RFC 9302-6.1-4
	assert.Equal(t, uint16(1), NextMapVersion(4095))
	assert.Equal(t, uint16(1), NextMapVersion(NullMapVersion))
	assert.Equal(t, uint16(2), NextMapVersion(1))
}
