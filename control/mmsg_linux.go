package control

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/mmsg"
	"github.com/xtrkit/xtrkit/lisp"
)

// maxMessages is how many datagrams one system call takes.
const maxMessages = 64

// batchConn reads and writes a UDP socket by recvmmsg and sendmmsg, without
// allocation. One goroutine at a time may read, and one write.
type batchConn struct {
	raw     syscall.RawConn
	ipv4    bool
	port    uint16
	in, out messages
}

// messages is what one system call needs.
type messages struct {
	headers  [maxMessages]mmsg.Header
	names    [maxMessages]mmsg.Sockaddr
	iovs     [maxMessages]unix.Iovec
	controls [maxMessages][64]byte

	call  []mmsg.Header // argument and results of try
	n     int
	errno unix.Errno
	try   func(fd uintptr) bool
}

// newBatchConn returns nil when the socket's descriptor is not to be had.
func newBatchConn(pc *net.UDPConn, local netip.AddrPort) *batchConn {
	raw, err := pc.SyscallConn()
	if err != nil {
		return nil
	}
	b := &batchConn{raw: raw, ipv4: local.Addr().Is4(), port: local.Port()}
	b.in.prepare(mmsg.Receive)
	b.out.prepare(mmsg.Send)
	return b
}

func (m *messages) prepare(f func(fd uintptr, msgs []mmsg.Header) (int, unix.Errno)) {
	for i := range m.headers {
		h := &m.headers[i].Hdr
		h.Iov = &m.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		h.Control = &m.controls[i][0]
	}
	m.try = func(fd uintptr) bool {
		for {
			m.n, m.errno = f(fd, m.call)
			if m.errno != unix.EINTR {
				return m.errno != unix.EAGAIN
			}
		}
	}
}

func (m *messages) point(i int, b []byte) *unix.Msghdr {
	m.iovs[i].Base = unsafe.SliceData(b)
	m.iovs[i].SetLen(len(b))
	return &m.headers[i].Hdr
}

func (b *batchConn) read(ds []lisp.Datagram) (int, error) {
	m := &b.in
	ds = ds[:min(len(ds), maxMessages)]
	for i := range ds {
		h := m.point(i, ds[i].Bytes)
		h.Namelen = mmsg.SockaddrLen
		h.SetControllen(len(m.controls[i]))
		h.Flags = 0
	}
	m.call = m.headers[:len(ds)]
	if err := b.raw.Read(m.try); err != nil {
		return 0, err
	}
	if m.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", m.errno)
	}
	for i := range ds[:m.n] {
		h := &m.headers[i]
		dst, ifIndex := packetInfo(m.controls[i][:h.Hdr.Controllen])
		ds[i] = lisp.Datagram{
			Local: netip.AddrPortFrom(dst, b.port), Remote: m.names[i].Get(), IfIndex: ifIndex, Bytes: ds[i].Bytes[:h.N],
		}
	}
	return m.n, nil
}

// packetInfo returns the address that a datagram was sent to and its interface.
func packetInfo(b []byte) (netip.Addr, int) {
	for {
		level, typ, data, rest, ok := mmsg.NextControl(b)
		if !ok {
			return netip.Addr{}, 0
		}
		b = rest
		switch {
		case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(data[8:12])), int(binary.NativeEndian.Uint32(data))
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(data)).Unmap(), int(binary.NativeEndian.Uint32(data[16:]))
		}
	}
}

// write sends what it can; see Conn.WriteDatagrams.
func (b *batchConn) write(ds []lisp.Datagram) (sent int, first error) {
	m := &b.out
	for len(ds) > 0 {
		batch := ds[:min(len(ds), maxMessages)]
		ds = ds[len(batch):]
		for i := range batch {
			h := m.point(i, batch[i].Bytes)
			h.Namelen = m.names[i].Set(batch[i].Remote)
			b.setSource(h, m.controls[i][:], &batch[i])
		}
		for at := 0; at < len(batch); {
			m.call = m.headers[at:len(batch)]
			if err := b.raw.Write(m.try); err != nil {
				if first == nil {
					first = fmt.Errorf("control: send to %v: %w", batch[at].Remote, err)
				}
				return sent, first // closed
			}
			if m.errno != 0 { // it is about the first one: go on behind it
				if first == nil {
					first = fmt.Errorf("control: send to %v: %w", batch[at].Remote, os.NewSyscallError("sendmmsg", m.errno))
				}
				at++
				continue
			}
			sent += m.n
			at += m.n
		}
	}
	return sent, first
}

// setSource encodes the local address and interface of d.
func (b *batchConn) setSource(h *unix.Msghdr, buf []byte, d *lisp.Datagram) {
	src := d.Local.Addr()
	if !src.IsValid() && d.IfIndex == 0 {
		h.SetControllen(0)
		return
	}
	if b.ipv4 {
		data, _ := mmsg.PutControl(buf, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		clear(data)
		binary.NativeEndian.PutUint32(data, uint32(d.IfIndex))
		if src.Is4() {
			a := src.As4()
			copy(data[4:], a[:])
		}
		h.SetControllen(unix.CmsgSpace(unix.SizeofInet4Pktinfo))
		return
	}
	data, _ := mmsg.PutControl(buf, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	clear(data)
	if src.Is6() {
		a := src.As16()
		copy(data, a[:])
	}
	binary.NativeEndian.PutUint32(data[16:], uint32(d.IfIndex))
	h.SetControllen(unix.CmsgSpace(unix.SizeofInet6Pktinfo))
}

// sharePort lets further sockets bind to the port of this one, which must be
// called after the first is bound and before the others are.
func sharePort(c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
}

// receiveBuffer asks for a large receive buffer, past the system's limit if we may.
func receiveBuffer(pc *net.UDPConn, size int) {
	raw, err := pc.SyscallConn()
	if err != nil {
		return
	}
	var set error
	if raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	}) != nil || set != nil {
		_ = pc.SetReadBuffer(size) // what there is then is what there is
	}
}
