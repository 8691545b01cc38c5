package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestBareControl: control messages without a data header are handed on only where
// that is configured, from port 4342, and of the two types that there are.
func TestBareControl(t *testing.T) {
	info, err := (&lisp.InfoReply{Nonce: 1}).MarshalBinary()
	require.NoError(t, err)
	notify, err := (&lisp.MapNotify{Nonce: 1}).MarshalBinary()
	require.NoError(t, err)
	request, err := (&lisp.MapRequest{ITRRLOCs: []lisp.Address{{}}}).MarshalBinary()
	require.NoError(t, err)
	ok := packetSpec{src: eidB4, dst: eidA4, payloadLen: 100}.build()

	for _, on := range []bool{false, true} {
		var got [][]byte
		x := newA(t, &memNet{}, "", func(c *nodeConfig) {
			c.change = func(c *Config) {
				c.BareControl = on
				c.Control = func(d lisp.Datagram) {
					assert.Equal(t, netip.MustParseAddrPort("192.0.2.1:4341"), d.Local)
					got = append(got, clone(d.Bytes))
				}
			}
		})
		for _, port := range []uint16{lisp.ControlPort, lisp.DataPort} {
			for _, b := range [][]byte{info, notify, request} {
				in := from(rlocB4, rlocA4, b)
				in.Remote = netip.AddrPortFrom(in.Remote.Addr(), port)
				x.pull(in)
			}
		}
		if !on {
			assert.Empty(t, got)
			continue
		}
		assert.Equal(t, [][]byte{info, notify}, got)
		assert.Len(t, x.pull(from(rlocB4, rlocA4, encapsulated(0, 0, 0, ok))), 1, "data goes on")
	}
}
