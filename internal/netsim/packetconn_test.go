package netsim

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// served makes a network in a bubble that runs by the bubble's clock.
func served(t *testing.T, f func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{Seed: 1})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { n.Serve(ctx) })
		f(t, n)
		cancel()
		wg.Wait()
	})
}

func TestPacketConn(t *testing.T) {
	served(t, func(t *testing.T, n *Network) {
		var a, b *Node
		n.Do(func() {
			a, _, _ = host(n, "a", n.Internet(), Link{Latency: 10 * time.Millisecond}, "192.0.2.1")
			b, _, _ = host(n, "b", n.Internet(), Link{Latency: 5 * time.Millisecond}, "192.0.2.2", "2001:db8::2")
		})
		ca, err := a.ListenPacket(ap("192.0.2.1:4342"))
		require.NoError(t, err)
		cb, err := b.ListenPacket(ap("0.0.0.0:4342"))
		require.NoError(t, err)
		_, err = b.ListenPacket(ap("0.0.0.0:4342"))
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.Equal(t, "192.0.2.1:4342", ca.LocalAddr().String())

		begin := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { // echo
			buf := make([]byte, 100)
			for {
				k, from, err := cb.ReadFrom(buf)
				if err != nil {
					assert.ErrorIs(t, err, net.ErrClosed)
					return
				}
				_, err = cb.WriteTo(buf[:k], from)
				assert.NoError(t, err)
			}
		})
		buf := make([]byte, 100)
		for i := range 100 {
			_, err = ca.WriteTo([]byte{byte(i)}, cb.LocalAddrOf(t, b))
			require.NoError(t, err)
			k, from, err := ca.ReadFrom(buf)
			require.NoError(t, err)
			assert.Equal(t, []byte{byte(i)}, buf[:k])
			assert.Equal(t, "192.0.2.2:4342", from.String())
		}
		assert.Equal(t, 100*30*time.Millisecond, time.Since(begin), "virtual time")
		require.NoError(t, cb.Close())
		require.NoError(t, cb.Close())
		wg.Wait()
		_, err = cb.WriteTo([]byte("x"), ca.LocalAddr())
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = ca.WriteTo([]byte("x"), &net.TCPAddr{})
		require.Error(t, err)
		// The port is free again.
		cb, err = b.ListenPacket(ap("0.0.0.0:4342"))
		require.NoError(t, err)
		require.NoError(t, cb.Close())
	})
}

// LocalAddrOf is the address of the node on the port of c, which may be bound to all.
func (c *PacketConn) LocalAddrOf(t *testing.T, nd *Node) net.Addr {
	t.Helper()
	return &net.UDPAddr{IP: nd.ifaces[0].addrs[0].AsSlice(), Port: int(c.local.Port())}
}

func TestPacketConnDeadline(t *testing.T) {
	served(t, func(t *testing.T, n *Network) {
		var a *Node
		n.Do(func() { a, _, _ = host(n, "a", n.Internet(), Link{}, "192.0.2.1") })
		c, err := a.ListenPacket(ap("192.0.2.1:1"))
		require.NoError(t, err)
		defer c.Close()
		buf := make([]byte, 10)
		begin := time.Now()
		require.NoError(t, c.SetDeadline(begin.Add(time.Minute)))
		_, _, err = c.ReadFrom(buf)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		assert.True(t, ne.Timeout())
		assert.Equal(t, time.Minute, time.Since(begin))
		_, _, err = c.ReadFrom(buf)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "until it is set anew")
		// A deadline set while a read waits.
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		time.AfterFunc(time.Minute, func() { assert.NoError(t, c.SetReadDeadline(time.Now())) })
		_, _, err = c.ReadFrom(buf)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 2*time.Minute, time.Since(begin))
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
		require.NoError(t, c.SetWriteDeadline(time.Now()))
		_, err = c.WriteTo([]byte("self"), c.LocalAddr())
		require.NoError(t, err)
		k, _, err := c.ReadFrom(buf)
		require.NoError(t, err)
		assert.Equal(t, "self", string(buf[:k]))
	})
}

func TestPacketConnQueueIsBounded(t *testing.T) {
	n := New(Config{Start: start})
	a, _, core := host(n, "a", n.Internet(), Link{}, "192.0.2.1")
	c, err := a.ListenPacket(ap("192.0.2.1:1"))
	require.NoError(t, err)
	for range connQueue + 10 {
		a.Send(message("192.0.2.1:1", "x"))
	}
	a.Send(message("192.0.2.1:2", "another port is the core's"))
	n.Run(0)
	assert.EqualValues(t, 10, n.Count(QueueFull))
	assert.Len(t, core.got, 1)
	require.NoError(t, c.Close())
	a.Send(message("192.0.2.1:1", "x"))
	n.Run(0)
	assert.Len(t, core.got, 2)
}
