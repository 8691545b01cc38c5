package ebpf

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// wire is a packet socket at an interface: IP packets without link-layer header.
type wire struct {
	fd, raw int
	ifindex int
	to      net.HardwareAddr
}

func newWire(t testing.TB, h *netlab.Host, ifindex int, to net.HardwareAddr) *wire {
	t.Helper()
	w := &wire{ifindex: ifindex, to: to}
	require.NoError(t, h.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ALL)))
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if w.raw, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("socket", err)
		}
		return os.NewSyscallError("bind", unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ifindex}))
	}))
	t.Cleanup(func() {
		_ = unix.Close(w.fd)
		_ = unix.Close(w.raw)
	})
	return w
}

// send sends a packet.
func (w *wire) send(t testing.TB, packet []byte) {
	t.Helper()
	sa := &unix.SockaddrLinklayer{Ifindex: w.ifindex, Protocol: networkOrder(unix.ETH_P_IP), Halen: uint8(len(w.to))}
	if packet[0]>>4 == 6 {
		sa.Protocol = networkOrder(unix.ETH_P_IPV6)
	}
	copy(sa.Addr[:], w.to)
	require.NoError(t, unix.Sendto(w.fd, packet, 0, sa))
}

// sendFrame sends a frame with its Ethernet header.
func (w *wire) sendFrame(t testing.TB, frame []byte) {
	t.Helper()
	require.NoError(t, unix.Sendto(w.raw, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.ifindex}))
}

// read returns the next n packets that arrive and match.
func (w *wire) read(t testing.TB, n int, match func([]byte) bool) [][]byte {
	t.Helper()
	var got [][]byte
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(waitTime); len(got) < n; {
		left := time.Until(deadline)
		require.Positive(t, left, "%d of %d packets", len(got), n)
		tv := unix.NsecToTimeval(int64(left))
		require.NoError(t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
		m, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue // with a timeout, the kernel does not begin again by itself
		}
		require.NoError(t, err, "%d of %d packets", len(got), n)
		if sa := from.(*unix.SockaddrLinklayer); sa.Pkttype == unix.PACKET_OUTGOING || m < 20 || !match(buf[:m]) {
			continue
		}
		got = append(got, append([]byte(nil), buf[:m]...))
	}
	return got
}

// isData tells a data packet from what else is on a wire.
func isData(b []byte) bool {
	at := 20
	switch {
	case b[0]>>4 == 4 && b[9] == unix.IPPROTO_UDP:
	case b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP:
		at = 40
	default:
		return false
	}
	if len(b) < at+8 {
		return false
	}
	port := binary.BigEndian.Uint16(b[at+2:])
	return port == 4341 || port == 4790
}
