package shareport

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Allow lets the socket fd, not bound yet, share its port with others of this
// user that were allowed to.
func Allow(fd int) error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// Where a program finds what tells peers apart, from the network header on.
const (
	network        = 0xfff00000 // SKF_NET_OFF of the kernel
	source4, port4 = 12, 20
	source6, port6 = 20, 40 // the last four octets of the source
)

// Keep makes what arrives at the port of fd come to the first n sockets that
// were bound to it, of which fd is one, by the peer: one peer's datagrams to one
// socket. All n must have been allowed to share it.
func Keep(fd, n int, v6 bool) error {
	source, port := uint32(source4), uint32(port4)
	if v6 {
		source, port = source6, port6
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: network + source},
		{Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: network + port},
		{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_X},
		{Code: unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K, K: 0x9e3779b1},
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 16},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(n)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, prog); err != nil {
		return fmt.Errorf("keep what arrives at a shared port: %w", os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF", err))
	}
	return nil
}

// Discard makes the socket fd drop whatever arrives at it, so that nobody fills
// its buffer.
func Discard(fd int) error {
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter[0]})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}
