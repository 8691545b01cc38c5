package probe

import (
	"net"

	"golang.org/x/sys/unix"
)

// info is what the kernel knows of a connection.
type info struct{ retransmits, mss int }

// tcpInfo asks the kernel. Its count of retransmissions includes SYNs, so right after
// the handshake it is the number of SYNs that were repeated.
func tcpInfo(c net.Conn) (info, bool) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return info{}, false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return info{}, false
	}
	var ti *unix.TCPInfo
	if err := raw.Control(func(fd uintptr) {
		ti, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil || ti == nil {
		return info{}, false
	}
	return info{retransmits: int(ti.Total_retrans), mss: int(ti.Snd_mss)}, true
}
