package ebpf

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/tun"
)

// What comes by the device of a mark is encapsulated in the kernel too, once it was
// added, and leaves by the uplink that the mark names. A device that has gone is
// forgotten.
func TestAddDevice(t *testing.T) {
	n, links := twoUplinks(t, 0xffff, tun.Config{MarkMask: 0xffff})
	var marked []tun.Marked
	require.NoError(t, n.host.Do(func() (err error) {
		require.ErrorContains(t, n.kernel.AddDevice(7, n.tun.Name()), "no instance 7")
		require.Error(t, n.kernel.AddDevice(0, "none"))
		if marked, err = n.tun.SetMarks([]uint32{uint32(links[1].A.Index)}); err != nil {
			return err
		}
		for _, m := range marked {
			for range 2 { // the second time it is there
				require.NoError(t, n.kernel.AddDevice(0, m.Device.Name()))
			}
		}
		return nil
	}))
	require.Len(t, n.kernel.further, 2)

	w := newWire(t, links[1].B.Host, links[1].B.Index, nil)
	c, err := n.host.ListenPacket("udp", "10.1.0.1:0")
	require.NoError(t, err)
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, links[1].A.Index))
	}))
	_, err = c.WriteTo([]byte{1}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.2.0.1:9")))
	require.NoError(t, err)
	assert.Equal(t, "198.51.101.1", parseOuter(w.read(t, 1, isData)[0]).src.Addr().String())
	assert.EqualValues(t, 1, n.stats().KernelEncapsulated.Packets)

	known := func() (count int) {
		var i uint32
		var v bpfDevice
		for it := n.kernel.objs.Devices.Iterate(); it.Next(&i, &v); {
			count++
		}
		return count
	}
	assert.Equal(t, 3, known())
	require.NoError(t, n.host.Do(func() error {
		_, err := n.tun.SetMarks(nil) // leaves the one for all other marks
		require.NoError(t, err)
		return n.kernel.AddDevice(0, n.tun.Name()) // which is there from the start
	}))
	assert.Len(t, n.kernel.further, 1)
	assert.Equal(t, 2, known())
	require.NoError(t, n.host.Do(n.kernel.Close))
	require.ErrorIs(t, n.kernel.AddDevice(0, n.tun.Name()), net.ErrClosed)
}
