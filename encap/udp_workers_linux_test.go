package encap

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestUDPWorkers: several sockets share what arrives, and what comes from one
// source and port stays with one of them, in order.
func TestUDPWorkers(t *testing.T) {
	for _, to := range []netip.Addr{addr("127.0.0.3"), addr("::1")} {
		cfg := UDPConfig{Listen: []netip.Addr{to}, Port: freePort(t, to), Workers: 3}
		u, err := NewUDP(cfg)
		require.NoError(t, err)
		defer u.Close()
		require.Len(t, u.Receivers(), 3)
		_, err = NewUDP(cfg)
		require.ErrorIs(t, err, unix.EADDRINUSE, "a second router on the port is noticed")

		sender, err := NewUDP(UDPConfig{Listen: []netip.Addr{to}, Port: freePort(t, to), SourcePorts: 32})
		require.NoError(t, err)
		defer sender.Close()
		path, err := sender.Open(mapcache.Local{Addr: to, Up: true})
		require.NoError(t, err)
		defer path.Close()
		const flows, each = 64, 5
		for i := range each {
			for flow := range uint32(flows) {
				out := datagramsOf(netip.AddrPortFrom(to, cfg.Port), flow<<26, 64, 0, 10+i)
				require.True(t, path.Send(out))
			}
		}
		type arrival struct {
			worker, size int
			port         uint16
		}
		arrivals := make(chan arrival, flows*each)
		for w, r := range u.Receivers() {
			go func() {
				batch := make([]Incoming, r.BatchSize())
				for {
					got, err := r.Receive(batch)
					if err != nil {
						return // closed
					}
					for _, in := range batch[:got] {
						arrivals <- arrival{w, len(in.Bytes), in.Remote.Port()}
					}
				}
			}()
		}
		workers, last := map[uint16]int{}, map[uint16]int{}
		used := map[int]bool{}
		for range flows * each {
			a := <-arrivals
			if was, ok := workers[a.port]; ok {
				assert.Equal(t, was, a.worker, "one source port, one worker")
			}
			assert.GreaterOrEqual(t, a.size, last[a.port], "in order")
			workers[a.port], used[a.worker], last[a.port] = a.worker, true, a.size
		}
		assert.Len(t, used, 3)
	}
}
