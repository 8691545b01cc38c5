package mmsg

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Header is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type Header struct {
	Hdr unix.Msghdr
	N   uint32 // octets received or sent
}

// Send is sendmmsg(2), which does not wait. It returns how many of msgs were
// sent; the error is about the first that was not.
func Send(fd uintptr, msgs []Header) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// Receive is recvmmsg(2), which does not wait.
func Receive(fd uintptr, msgs []Header) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// Sockaddr is a socket address of either family.
type Sockaddr struct{ raw unix.RawSockaddrInet6 }

// SockaddrLen is the room in a Sockaddr.
const SockaddrLen = unix.SizeofSockaddrInet6

// Set stores a and returns the length in use.
func (s *Sockaddr) Set(a netip.AddrPort) uint32 {
	if a.Addr().Is4() {
		r := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		r.Family = unix.AF_INET
		putPort(&r.Port, a.Port())
		r.Addr = a.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	s.raw.Family = unix.AF_INET6
	putPort(&s.raw.Port, a.Port())
	s.raw.Flowinfo = 0
	s.raw.Addr = a.Addr().As16()
	s.raw.Scope_id = 0
	return unix.SizeofSockaddrInet6
}

// Get returns the address, IPv4 as such; zones are not kept.
func (s *Sockaddr) Get() netip.AddrPort {
	switch s.raw.Family {
	case unix.AF_INET:
		r := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(r.Addr), getPort(&r.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.raw.Addr).Unmap(), getPort(&s.raw.Port))
	}
	return netip.AddrPort{}
}

func putPort(p *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(p))
	b[0], b[1] = byte(port>>8), byte(port)
}

func getPort(p *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(p))
	return uint16(b[0])<<8 | uint16(b[1])
}

// PutControl writes the header of a control message with n octets of data at
// the start of b, and returns its data and what follows the message.
func PutControl(b []byte, level, typ int32, n int) (data, rest []byte) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(n))
	at := unix.CmsgLen(0)
	return b[at : at+n], b[unix.CmsgSpace(n):]
}

// NextControl takes the first control message of b apart; ok is false at the end.
func NextControl(b []byte) (level, typ int32, data, rest []byte, ok bool) {
	at := unix.CmsgLen(0)
	if len(b) < at {
		return 0, 0, nil, nil, false
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	n := int(h.Len)
	if n < at || n > len(b) {
		return 0, 0, nil, nil, false
	}
	return h.Level, h.Type, b[at:n], b[min(unix.CmsgSpace(n-at), len(b)):], true
}
