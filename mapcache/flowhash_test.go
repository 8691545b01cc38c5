package mapcache

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type hashVector struct {
	name       string
	seed, want uint32
	packet     []byte
}

func hashVectors(t testing.TB) []hashVector {
	t.Helper()
	f, err := os.Open("testdata/flowhash.txt")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var list []hashVector
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line, name, ok := strings.Cut(sc.Text(), "# ")
		if !ok || line == "" {
			continue
		}
		fields := strings.Fields(line)
		require.Len(t, fields, 3)
		seed, err := strconv.ParseUint(fields[0], 16, 32)
		require.NoError(t, err)
		want, err := strconv.ParseUint(fields[1], 16, 32)
		require.NoError(t, err)
		packet, err := hex.DecodeString(fields[2])
		require.NoError(t, err)
		list = append(list, hashVector{name, uint32(seed), uint32(want), packet})
	}
	return list
}

func TestFlowHashVectors(t *testing.T) {
	t.Parallel()
	vectors := hashVectors(t)
	require.Greater(t, len(vectors), 30)
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, v.want, FlowHash(v.seed, v.packet)) // RFC 9300-12-s1, 9300-12-2
		})
	}
}

// The published vector of lookup3 is over octets: little-endian words, and a
// length of 30 where jhash counts 32.
func TestJhashIsLookup3(t *testing.T) {
	t.Parallel()
	text := append([]byte("Four score and seven years ago"), 0, 0)
	var words []uint32
	for ; len(text) > 0; text = text[4:] {
		words = append(words, binary.LittleEndian.Uint32(text))
	}
	seed := uint32(0)
	assert.Equal(t, uint32(0x17770551), jhash(seed-2, words...))
	assert.Equal(t, uint32(0xdeadbeef), jhash(0))
}

func TestFlowHashTuple(t *testing.T) {
	t.Parallel()
	a4, b4 := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	a6, b6 := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
	const seed = 0x12345678
	byName := make(map[string]hashVector)
	for _, v := range hashVectors(t) {
		if v.seed == seed {
			byName[v.name] = v
		}
	}
	tests := []struct {
		vector   string
		src, dst netip.Addr
		proto    uint8
	}{
		{"IPv4 UDP", a4, b4, 17},
		{"IPv4 UDP", netip.AddrFrom16(a4.As16()), b4, 17},
		{"IPv4 SCTP", a4, b4, 132},
		{"IPv4 ICMP: addresses", a4, b4, 1},
		{"IPv4 last fragment: addresses", a4, b4, 0},
		{"IPv6 UDP", a6, b6, 17},
		{"IPv6 ICMPv6: addresses", a6, b6, 58},
		{"no IP version", a4, b6, 17},
		{"no IP version", netip.Addr{}, b6, 17},
	}
	for _, tt := range tests {
		require.Contains(t, byName, tt.vector)
		assert.Equal(t, byName[tt.vector].want, FlowHashTuple(seed, tt.src, tt.dst, tt.proto, 12345, 443), tt.vector)
	}
	assert.Zero(t, FlowHash(seed, nil))
}

// FuzzFlowHash reads packets as they come: no panic, and what a router on the way
// or the next packet of the flow changes does not count.
func FuzzFlowHash(f *testing.F) {
	for _, v := range hashVectors(f) {
		f.Add(v.seed, v.packet, uint8(1))
	}
	f.Fuzz(func(t *testing.T, seed uint32, p []byte, noise uint8) {
		h := FlowHash(seed, p)
		q := slices.Clone(p)
		var free []int // octets outside of the definition
		switch {
		case len(p) >= 20 && p[0]>>4 == 4:
			free = []int{1, 2, 3, 4, 5, 8, 10, 11}
		case len(p) >= 40 && p[0]>>4 == 6:
			free = []int{1, 2, 3, 4, 5, 7}
			q[0] ^= noise & 15
		}
		for _, i := range free {
			q[i] ^= noise
		}
		require.Equal(t, h, FlowHash(seed, q))
		if len(p) >= 24 && p[0] == 0x45 && binary.BigEndian.Uint16(p[6:])&0x3fff == 0 {
			src, _ := netip.AddrFromSlice(p[12:16])
			dst, _ := netip.AddrFromSlice(p[16:20])
			require.Equal(t, h, FlowHashTuple(seed, src, dst, p[9],
				binary.BigEndian.Uint16(p[20:]), binary.BigEndian.Uint16(p[22:])))
		}
	})
}
