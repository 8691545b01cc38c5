package lisp

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// datagram is a UDP datagram of a capture.
type datagram struct {
	src, dst uint16
	payload  []byte
}

// readPcap returns the UDP datagrams of a little-endian Ethernet pcap file.
func readPcap(t testing.TB, file string) []datagram {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, uint32(0xa1b2c3d4), binary.LittleEndian.Uint32(b))
	var ds []datagram
	for b = b[24:]; len(b) > 0; {
		n := binary.LittleEndian.Uint32(b[8:])
		frame := b[16 : 16+n]
		b = b[16+n:]
		ip := frame[14:]
		switch {
		case binary.BigEndian.Uint16(frame[12:]) == 0x0800 && ip[9] == 17:
			ip = ip[ip[0]&0x0f*4:]
		case binary.BigEndian.Uint16(frame[12:]) == 0x86dd && ip[6] == 17:
			ip = ip[40:]
		default:
			continue
		}
		ds = append(ds, datagram{
			binary.BigEndian.Uint16(ip), binary.BigEndian.Uint16(ip[2:]),
			ip[8:binary.BigEndian.Uint16(ip[4:])],
		})
	}
	return ds
}

// TestOOR holds captures of a running OpenOverlayRouter against the codec: all
// messages decode, encode to the same octets, and carry the right digest.
func TestOOR(t *testing.T) {
	files, err := filepath.Glob("testdata/oor/*.pcap")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	seen := map[Type]int{}
	verified, rtrVerified := 0, 0
	site := Key{Algorithm: AlgorithmHMACSHA1, Secret: []byte("secret")}
	rtr := Key{Algorithm: AlgorithmHMACSHA1, Secret: []byte("rtrkey")}
	var control func(t *testing.T, b []byte)
	control = func(t *testing.T, b []byte) {
		m, err := Parse(b)
		require.NoError(t, err)
		seen[m.Type()]++
		out, err := m.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, out)
		assert.NotEmpty(t, m.String())
		switch m := m.(type) {
		case *EncapsulatedControl:
			in, err := m.Inner()
			require.NoError(t, err)
			control(t, in.Payload)
			if len(m.Security) > 0 {
				assert.NoError(t, m.VerifyRTR(rtr))
				rtrVerified++
			}
		case *MapRegister, *MapNotify, *InfoRequest, *InfoReply:
			assert.NoError(t, Verify(b, site))
			verified++
			if n, ok := m.(*MapNotify); ok && n.RTRAuth {
				// Towards the xTR the RTR has emptied the record.
				if a, ok := n.RTRAuthentication(); assert.True(t, ok) && len(a.Data) > 0 {
					assert.NoError(t, VerifyRTRAuthentication(b, rtr))
					rtrVerified++
				}
			}
		}
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			for _, d := range readPcap(t, file) {
				// Type 0 is no message: an RTR sends data from the control port.
				if d.src == DataPort && d.dst != ControlPort || d.dst == DataPort || TypeOf(d.payload) == 0 {
					h, err := ParseDataHeader(d.payload)
					require.NoError(t, err)
					if iid, ok := h.InstanceID(); ok && iid == InstanceIDControl {
						in, err := (&EncapsulatedControl{Packet: d.payload[DataHeaderLen:]}).Inner()
						require.NoError(t, err)
						control(t, in.Payload)
					}
					continue
				}
				control(t, d.payload)
			}
		})
	}
	assert.Equal(t, map[Type]int{
		TypeMapRequest: 43, TypeMapReply: 23, TypeMapRegister: 30, TypeMapNotify: 30, TypeInfo: 14,
		TypeEncapsulatedControl: 45,
	}, seen)
	assert.Equal(t, 74, verified, "digests by the site key")
	assert.Equal(t, 6, rtrVerified, "digests by the key of Map-Server and RTR")
}
