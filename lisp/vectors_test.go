package lisp

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// vectorFile is testdata/vectors.json: messages of an independent encoder.
type vectorFile struct {
	Key     string
	Nonce   string
	Digests map[string]string
	Vectors []struct {
		Name   string
		Hex    string
		UDPSrc uint16 `json:"udp_src"`
		UDPDst uint16 `json:"udp_dst"`
		Note   string
	}
}

func loadVectors(t testing.TB) vectorFile {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	var v vectorFile
	require.NoError(t, json.Unmarshal(b, &v))
	require.NotEmpty(t, v.Vectors)
	return v
}

// vector returns the octets of the vector called name.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	for _, v := range loadVectors(t).Vectors {
		if v.Name == name {
			return unhex(t, v.Hex)
		}
	}
	require.Fail(t, "no such vector", name)
	return nil
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestVectorsRoundTrip(t *testing.T) {
	for _, v := range loadVectors(t).Vectors {
		t.Run(v.Name, func(t *testing.T) {
			b := unhex(t, v.Hex)
			if len(v.Name) > 5 && v.Name[:5] == "data-" {
				h, err := ParseDataHeader(b)
				require.NoError(t, err)
				out := make([]byte, DataHeaderLen)
				PutDataHeader(out, h)
				assert.Equal(t, b[:DataHeaderLen], out)
				return
			}
			m, err := Parse(b)
			require.NoError(t, err)
			assert.Equal(t, TypeOf(b), m.Type())
			out, err := m.MarshalBinary()
			require.NoError(t, err)
			assert.Equal(t, b, out)
			assert.NotEmpty(t, m.String())
			assert.NotEmpty(t, m.LogValue().String())
		})
	}
}

func TestVectorsInner(t *testing.T) {
	for _, v := range loadVectors(t).Vectors {
		b := unhex(t, v.Hex)
		if TypeOf(b) != TypeEncapsulatedControl || v.UDPDst == DataPort {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			var m EncapsulatedControl
			require.NoError(t, m.DecodeFromBytes(b))
			in, err := m.Inner()
			require.NoError(t, err)
			out, err := AppendInner(nil, in)
			require.NoError(t, err)
			assert.Equal(t, m.Packet, out)
		})
	}
}

// TestVectorECMs: the flags, who talks to whom, and what is inside.
func TestVectorECMs(t *testing.T) {
	register := EncapsulatedControl{}
	for _, tt := range []struct {
		name     string
		flags    EncapsulatedControl // without Security and Packet
		src, dst string
		inner    string // the vector that the inner message equals, if any
	}{
		{"ecm-map-request-v4", register, "203.0.113.1:49152", "198.51.100.7:4342", "map-request-v4"},
		{"ecm-map-request-v6", register, "[2001:db8:ffff::1]:49152", "[2001:db8:2::7]:4342", ""},
		{"ecm-ddt", EncapsulatedControl{DDT: true}, "203.0.113.1:49152", "198.51.100.7:4342", "map-request-v4"},
		{"ecm-lispsec-itr", register, "203.0.113.1:49152", "198.51.100.7:4342", "map-request-v4"},
		{"ecm-map-register-rtr", EncapsulatedControl{RTR: true}, "10.0.0.2:40000", "198.18.0.1:4342", ""},
		{"ecm-map-register-relayed", EncapsulatedControl{Relayed: true}, "10.0.0.2:40000", "198.18.0.1:4342", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m EncapsulatedControl
			require.NoError(t, m.DecodeFromBytes(vector(t, tt.name)))
			in, err := m.Inner()
			require.NoError(t, err)
			assert.Equal(t, mustAddrPort(tt.src), in.Source)
			assert.Equal(t, mustAddrPort(tt.dst), in.Destination)
			switch {
			case tt.inner != "":
				assert.Equal(t, vector(t, tt.inner), in.Payload)
			case TypeOf(in.Payload) == TypeMapRequest:
				assert.Contains(t, m.String(), ": Map-Request nonce 0x0123456789abcdef source 2001:db8:1::1 itr-rlocs 2001:db8:ffff::1 records 2001:db8:2::7/128")
			default:
				assert.Equal(t, TypeMapRegister, TypeOf(in.Payload))
				assert.NoError(t, Verify(in.Payload, Key{Algorithm: AlgorithmHMACSHA1, Secret: testKey}))
			}
			m.Security, m.Packet = nil, nil
			assert.Equal(t, tt.flags, m)
		})
	}
}

// TestVectorAddresses has the locators that are not IP and no LCAF of one type.
func TestVectorAddresses(t *testing.T) {
	for vectorName, want := range map[string]string{
		"lcaf-1-mac": "afi-list(02:00:00:00:00:01)", "afi-16389-mac": "02:00:00:00:00:01", "afi-6-mac": "02:00:00:00:00:01",
		"afi-17-name": `"router.abc.com"`,
	} {
		m, err := Parse(vector(t, vectorName))
		require.NoError(t, err)
		assert.Contains(t, m.String(), want, vectorName)
	}
}

func TestVectorDigests(t *testing.T) {
	key := Key{Secret: []byte(loadVectors(t).Key)}
	for _, tt := range []struct {
		name      string
		algorithm Algorithm
		truncate  bool
	}{
		{"map-register-sha1-20", AlgorithmHMACSHA1, false},
		{"map-register-sha1-12", AlgorithmHMACSHA1, true},
		{"map-register-sha256-16", AlgorithmHMACSHA256, true},
		{"map-register-sha256-32", AlgorithmHMACSHA256, false},
		{"map-register-hkdf", AlgorithmHMACSHA256HKDF, true},
		{"map-register-xtrid", AlgorithmHMACSHA1, false},
		{"map-notify", AlgorithmHMACSHA1, false},
		{"map-notify-sha256-16", AlgorithmHMACSHA256, true},
		{"map-notify-I", AlgorithmHMACSHA1, false},
		{"map-notify-ack", AlgorithmHMACSHA256, true},
		{"info-request", AlgorithmHMACSHA1, false},
		{"info-reply", AlgorithmHMACSHA1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := key
			key.Algorithm, key.Truncate = tt.algorithm, tt.truncate
			b := vector(t, tt.name)
			require.NoError(t, Verify(b, key))

			m, err := Parse(b)
			require.NoError(t, err)
			signed, err := m.(interface {
				AppendSigned([]byte, Key) ([]byte, error)
			}).AppendSigned(nil, key)
			require.NoError(t, err)
			assert.Equal(t, b, signed)

			b[len(b)-1] ^= 1
			assert.ErrorIs(t, Verify(b, key), ErrAuth)
		})
	}
}
