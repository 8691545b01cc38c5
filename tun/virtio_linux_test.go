package tun

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/internal/virtio"
)

// superUDP is a datagram to the EID whose checksum, of the pseudo-header alone,
// is to be finished.
func superUDP(t *testing.T, port uint16, payload []byte) []byte {
	ip := &layers.IPv4{
		Version: 4, TTL: 9, Protocol: layers.IPProtocolUDP,
		SrcIP: net.ParseIP("198.51.100.7"), DstIP: net.ParseIP(eid4),
	}
	udp := &layers.UDP{SrcPort: 7, DstPort: layers.UDPPort(port)}
	require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
	buf := gopacket.NewSerializeBuffer()
	require.NoError(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		ip, udp, gopacket.Payload(payload)))
	b := buf.Bytes()
	var sum uint32
	for i := 12; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum += 17 + uint32(len(b)-20)
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[26:], uint16(sum&0xffff+sum>>16))
	return b
}

// The host takes super-packets gathered from parts, of all sizes, and hands some
// over in turn.
func TestVirtio(t *testing.T) {
	h := netlab.Test(t, netlab.TUN).Host("node")
	dev := create(t, h, Config{EIDs: prefixes(eid4 + "/32")})
	require.True(t, dev.HasVirtio())
	c, err := h.ListenPacket("udp4", eid4+":0")
	require.NoError(t, err)
	defer c.Close()
	local := c.LocalAddr().(*net.UDPAddr).AddrPort()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(waitTime)))

	whole, refused := netlab.Linux(6, 2), uint64(0) // whether UDP segments cross the device as one
	got := make([]byte, 1<<16)
	for _, size := range []int{1, 36, 1372, 1400} {
		for _, n := range []int{1, 2, 3, 33, 44, 46} {
			payload := bytes.Repeat([]byte("payload."), 1<<13)[:size*n-size/2]
			b := superUDP(t, local.Port(), payload)
			v := virtio.Header{Flags: virtio.NeedsChecksum, ChecksumStart: 20, ChecksumOffset: 6}
			if n > 1 {
				v.GSO, v.HeaderLen, v.SegmentSize = virtio.GSOUDP, 28, uint16(size)
			}
			head := make([]byte, virtio.HeaderLen, virtio.HeaderLen+28)
			v.Put(head)
			parts := [][]byte{append(head, b[:28]...), b[28 : 28+size/2], nil, b[28+size/2:]}
			err := dev.WriteVirtio(parts)
			if n > 1 && !whole {
				require.ErrorIs(t, err, unix.EINVAL) // and encap writes them one by one
				refused++
				continue
			}
			require.NoError(t, err)
			for len(payload) > 0 {
				m, _, err := c.ReadFrom(got)
				require.NoError(t, err, "%d segments of %d octets, and %d are still to come", n, size, len(payload))
				require.Equal(t, payload[:min(size, len(payload))], got[:m])
				payload = payload[m:]
			}
		}
	}

	// The other way: three segments come as one packet, where the kernel can.
	raw, err := c.(*net.UDPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000))
	}))
	_, err = c.(*net.UDPConn).WriteToUDPAddrPort(make([]byte, 2500), netip.MustParseAddrPort("198.51.100.7:9"))
	require.NoError(t, err)
	bufs, sizes := buffers(dev)
	for {
		n, err := dev.ReadVirtio(bufs, sizes, 20)
		require.NoError(t, err)
		require.Positive(t, n)
		if bufs[0][20]>>4 != 4 {
			continue // the kernel's own
		}
		v := virtio.Get(bufs[0][10:])
		assert.EqualValues(t, virtio.NeedsChecksum, v.Flags)
		if !whole {
			assert.Zero(t, v.GSO)
			assert.Equal(t, 28+1000, sizes[0])
			break
		}
		assert.EqualValues(t, virtio.GSOUDP, v.GSO)
		assert.EqualValues(t, 1000, v.SegmentSize)
		assert.Equal(t, 28+2500, sizes[0])
		break
	}
	_, err = dev.ReadVirtio(bufs, sizes, 9)
	require.ErrorIs(t, err, ErrConfig)

	// What the host does not understand is refused and counted.
	bad := make([]byte, virtio.HeaderLen+28)
	virtio.Header{GSO: 77}.Put(bad)
	require.ErrorIs(t, dev.WriteVirtio([][]byte{bad}), unix.EINVAL)
	assert.EqualValues(t, refused+1, dev.Stats().WriteErrors)
	require.ErrorIs(t, dev.WriteVirtio(nil), ErrConfig)
	require.ErrorIs(t, dev.WriteVirtio([][]byte{bad[:9]}), ErrConfig)
}
