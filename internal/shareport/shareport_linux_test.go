package shareport_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/shareport"
)

// open binds a socket after set was called.
func open(t *testing.T, address string, set func(fd int) error) *net.UDPConn {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = set(int(fd)) }); e != nil {
			return e
		}
		return err
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pc.Close() })
	return pc.(*net.UDPConn)
}

func keep(t *testing.T, c *net.UDPConn, n int, v6 bool) {
	t.Helper()
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, rc.Control(func(fd uintptr) { err = shareport.Keep(int(fd), n, v6) }))
	require.NoError(t, err)
}

// TestKeep: what arrives comes to those who receive, though others send from the
// same port; and peers are spread over the receivers.
func TestKeep(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		v6 := address[0] == '['
		if pc, err := net.ListenPacket("udp", address); err == nil {
			_ = pc.Close()
		} else {
			require.NotEqual(t, "1", os.Getenv("XTRKIT_REQUIRE_PRIVILEGED"), "no IPv6 here: %v", err)
			continue
		}
		for _, n := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s %d receivers", address, n), func(t *testing.T) {
				receivers := []*net.UDPConn{open(t, address, shareport.Allow)}
				at := receivers[0].LocalAddr()
				for len(receivers) < n {
					receivers = append(receivers, open(t, at.String(), shareport.Allow))
				}
				keep(t, receivers[0], n, v6)
				sender := open(t, at.String(), func(fd int) error {
					require.NoError(t, shareport.Discard(fd))
					return shareport.Allow(fd)
				})
				more := open(t, at.String(), shareport.Allow) // one that leaves before the others

				const peers = 32
				for i := range peers {
					if i == peers/2 {
						require.NoError(t, more.Close())
					}
					p := open(t, address, func(int) error { return nil })
					_, err := p.WriteTo([]byte{byte(i)}, at)
					require.NoError(t, err)
					_, err = sender.WriteTo([]byte{byte(i)}, p.LocalAddr())
					require.NoError(t, err)
					b := make([]byte, 16)
					require.NoError(t, p.SetReadDeadline(time.Now().Add(time.Minute)))
					_, from, err := p.ReadFrom(b)
					require.NoError(t, err)
					assert.Equal(t, at.String(), from.String(), "the sender's port is the shared one")
				}
				arrived := make(chan int)
				for i, r := range receivers {
					go func() {
						for {
							if _, _, err := r.ReadFrom(make([]byte, 16)); err != nil {
								return
							}
							arrived <- i
						}
					}()
				}
				got := make([]int, n)
				for range peers { // all arrive
					got[<-arrived]++
				}
				for i := range got {
					assert.Positive(t, got[i], "receiver %d has its share: %v", i, got)
				}
			})
		}
	}
}
