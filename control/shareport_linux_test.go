package control

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/shareport"
	"github.com/xtrkit/xtrkit/lisp"
)

// TestSharePort: the data plane of an RTR sends from the control port, and what
// arrives there comes to the control plane all the same, however many sockets
// that has.
func TestSharePort(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, sockets := range []int{1, 3} {
			if address[0] == '[' {
				haveIPv6(t)
			}
			c, err := Listen(t.Context(), ListenConfig{Addrs: []netip.AddrPort{netip.MustParseAddrPort(address)}, Sockets: sockets, SharePort: true})
			require.NoError(t, err)
			defer c.Close()
			require.Len(t, c.Readers(), sockets)
			at := c.LocalAddrs()[0]
			lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error { return onSocket(rc, shareport.Allow) }}
			sender, err := lc.ListenPacket(t.Context(), "udp", at.String())
			require.NoError(t, err)
			defer sender.Close()

			const n = 100 // enough for each socket to get some
			for range n {
				peer, err := net.Dial("udp", at.String())
				require.NoError(t, err)
				_, err = peer.Write([]byte("to control"))
				require.NoError(t, err)
				require.NoError(t, peer.Close())
			}
			arrived := make(chan int)
			for i, s := range c.sockets {
				go func() {
					for {
						ds := []lisp.Datagram{{Bytes: make([]byte, 100)}}
						if _, err := s.ReadDatagrams(ds); err != nil {
							return
						}
						arrived <- i
					}
				}()
			}
			got := make([]int, sockets)
			for range n { // all arrive
				got[<-arrived]++
			}
			for i := range got {
				assert.Positive(t, got[i], "socket %d of %d", i, sockets)
			}

			_, err = Listen(t.Context(), ListenConfig{Addrs: []netip.AddrPort{at}, SharePort: true})
			assert.ErrorIs(t, err, syscall.EADDRINUSE, "another control plane is found out")
		}
	}
}
