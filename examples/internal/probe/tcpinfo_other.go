//go:build !linux

package probe

import "net"

// info is what the kernel knows of a connection.
type info struct{ retransmits, mss int }

func tcpInfo(net.Conn) (info, bool) { return info{}, false }
