package netlab

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket opens an AF_PACKET socket in the host's namespace, bound to one
// interface, or to all of them for ifindex 0. Reads on it can be ended by Close.
func packetSocket(h *Host, ifindex int, options ...int) (*os.File, error) {
	var f *os.File
	err := h.Do(func() error {
		// Protocol 0 receives nothing before bind, so that no frame of another
		// interface slips in.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return &MissingFeatureError{Feature: PacketSockets, Err: err, Hint: "is the kernel built with CONFIG_PACKET?"}
		}
		for _, o := range options {
			level := unix.SOL_PACKET
			if o == unix.SO_TIMESTAMPNS {
				level = unix.SOL_SOCKET
			}
			if err := unix.SetsockoptInt(fd, level, o, 1); err != nil {
				_ = unix.Close(fd)
				return fmt.Errorf("packet socket option %d: %w", o, err)
			}
		}
		// Bursts of whole windows must fit. The plain option is capped by a
		// sysctl and the forced one is refused in a user namespace.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<20)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ifindex}); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("bind packet socket: %w", err)
		}
		f = os.NewFile(uintptr(fd), "packet")
		return nil
	})
	return f, err
}

// networkOrder returns v as it is stored in memory in network order.
func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
