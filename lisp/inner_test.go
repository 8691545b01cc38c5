package lisp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func ecmOf(t *testing.T, packet []byte) *EncapsulatedControl {
	t.Helper()
	b, err := (&EncapsulatedControl{Packet: packet}).MarshalBinary()
	require.NoError(t, err)
	var m EncapsulatedControl
	require.NoError(t, m.DecodeFromBytes(b))
	return &m
}

func TestInner(t *testing.T) {
	payload := []byte("odd")
	for _, tt := range []struct{ src, dst string }{
		{"203.0.113.1:49152", "198.51.100.7:4342"}, // RFC 9301-5.8-s1
		{"[2001:db8::1]:4342", "[2001:db8::2]:4342"},
		{"[::ffff:192.0.2.1]:4342", "[::ffff:192.0.2.2]:4342"},
	} {
		in := Inner{netip.MustParseAddrPort(tt.src), netip.MustParseAddrPort(tt.dst), 0, payload}
		b, err := AppendInner([]byte("x"), in)
		require.NoError(t, err)
		b = b[1:]
		got, err := ecmOf(t, b).Inner()
		require.NoError(t, err)
		in.TTL = defaultTTL
		assert.Equal(t, in, got)
		udp := b[len(b)-len(payload)-udpHeaderLen:]
		assert.NotZero(t, binary.BigEndian.Uint16(udp[6:])) // RFC 9301-5.8-4

		padded := append(bytes.Clone(b), 0xff)
		got, err = ecmOf(t, padded).Inner()
		require.NoError(t, err, "octets behind the UDP length")
		assert.Equal(t, payload, got.Payload)

		for i := range b {
			_, err := ecmOf(t, b[:i]).Inner()
			assert.Error(t, err, "cut at %d", i)
			c := bytes.Clone(b)
			c[i] ^= 0x10
			if _, err := ecmOf(t, c).Inner(); err == nil {
				// IPv6 has no checksum over its first line and the hop limit.
				assert.True(t, in.Source.Addr().Is6() && (i < 6 || i == 7), "octet %d changed", i)
			}
		}
	}
}

func TestInnerChecksumZeroIsSentAsOnes(t *testing.T) {
	in := Inner{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:4342"), 9, make([]byte, 2)}
	b, err := AppendInner(nil, in)
	require.NoError(t, err)
	copy(in.Payload, b[26:28]) // the checksum as payload makes the sum zero
	b, err = AppendInner(nil, in)
	require.NoError(t, err)
	assert.Equal(t, []byte{0xff, 0xff}, b[26:28]) // RFC 9301-5.8-4
	_, err = ecmOf(t, b).Inner()
	assert.NoError(t, err)
}

func TestInnerTolerance(t *testing.T) {
	v4, err := AppendInner(nil, Inner{netip.MustParseAddrPort("192.0.2.1:4342"), netip.MustParseAddrPort("192.0.2.2:4342"), 1, []byte("payload")})
	require.NoError(t, err)
	v6, err := AppendInner(nil, Inner{netip.MustParseAddrPort("[2001:db8::1]:4342"), netip.MustParseAddrPort("[2001:db8::2]:4342"), 1, []byte("payload")})
	require.NoError(t, err)
	edit := func(b []byte, f func(b []byte)) []byte {
		b = bytes.Clone(b)
		f(b)
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(b[10:], 0)
			binary.BigEndian.PutUint16(b[10:], ^fold(sumOctets(0, b[:20])))
		}
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
		err  error
	}{
		{"no UDP checksum over IPv4", edit(v4, func(b []byte) { b[26], b[27] = 0, 0 }), nil},
		{"no UDP checksum over IPv6", edit(v6, func(b []byte) { b[46], b[47] = 0, 0 }), ErrMalformed},
		{"wrong UDP checksum", edit(v4, func(b []byte) { b[26] ^= 1 }), ErrMalformed},
		{"IP length wrong, UDP checksum right", edit(v4, func(b []byte) { b[3] -= 4 }), nil},
		{"IP length wrong, no UDP checksum", edit(v4, func(b []byte) { b[3] -= 4; b[26], b[27] = 0, 0 }), ErrMalformed},
		{"UDP length beyond the end", edit(v4, func(b []byte) { b[24] = 1 }), ErrTruncated},
		{"UDP length 7", edit(v4, func(b []byte) { b[25] = 7 }), ErrMalformed},
		// RFC 9301-5.8-3
		{"source port 4341", edit(v4, func(b []byte) { b[21]--; b[26], b[27] = 0, 0 }), ErrMalformed},
		{"destination port 4341", edit(v4, func(b []byte) { b[23]--; b[26], b[27] = 0, 0 }), ErrMalformed},
		{"fragment", edit(v4, func(b []byte) { b[6] = 0x20 }), ErrUnsupported},
		{"DF", edit(v4, func(b []byte) { b[6] = 0x40 }), nil},
		{"TCP", edit(v4, func(b []byte) { b[9] = 6 }), ErrUnsupported},
		{"IHL 4", edit(v4, func(b []byte) { b[0] = 0x44 }), ErrMalformed},
		{"hop-by-hop", edit(v6, func(b []byte) { b[6] = 0 }), ErrUnsupported},
		{"version 5", []byte{0x50, 0, 0}, ErrUnsupported},
		{"nothing", nil, ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := ecmOf(t, tt.b)
			in, err := m.Inner()
			assert.NotEmpty(t, m.String())
			assert.NotEmpty(t, m.LogValue().String())
			if tt.err != nil {
				assert.ErrorIs(t, err, tt.err)
				assert.Zero(t, in)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "payload", string(in.Payload))
		})
	}
	t.Run("IPv4 options", func(t *testing.T) {
		b := append(append(bytes.Clone(v4[:20]), 1, 1, 1, 0), v4[20:]...)
		b = edit(b, func(b []byte) { b[0] = 0x46; b[3] += 4 })
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^fold(sumOctets(0, b[:24])))
		in, err := ecmOf(t, b).Inner()
		require.NoError(t, err)
		assert.Equal(t, "payload", string(in.Payload))
	})
}

func TestAppendInnerErrors(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:4342"), netip.MustParseAddrPort("[2001:db8::1]:4342")
	for name, in := range map[string]Inner{
		"no address":     {},
		"no destination": {Source: v6},
		"families":       {Source: v4, Destination: v6},
		"source 4341":    {Source: netip.AddrPortFrom(v4.Addr(), 4341), Destination: v4}, // RFC 9301-5.8-3
		"dest 4341":      {Source: v4, Destination: netip.AddrPortFrom(v4.Addr(), 4341)}, // RFC 9301-5.8-3
		"too long":       {Source: v4, Destination: v4, Payload: make([]byte, 65536)},
	} {
		_, err := AppendInner(nil, in)
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
}
