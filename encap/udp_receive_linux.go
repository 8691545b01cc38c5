package encap

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/mmsg"
	"github.com/xtrkit/xtrkit/internal/shareport"
	"github.com/xtrkit/xtrkit/mapcache"
)

// receiveBatch is how many datagrams, each maybe of many segments, one recvmmsg
// takes.
const receiveBatch = 32

// receiveAt leaves the room before a packet that a relay wants.
const receiveAt = Headroom - dataHeaderLen

// udpReceiver is one socket that data packets arrive at.
type udpReceiver struct {
	addr   netip.Addr
	format mapcache.Format // FormatLISP stands for LISP-GPE too
	conn   *net.UDPConn
	raw    syscall.RawConn

	buffers  [][]byte
	messages [receiveBatch]mmsg.Header
	names    [receiveBatch]mmsg.Sockaddr
	iovs     [receiveBatch]unix.Iovec
	controls [receiveBatch][256]byte

	want     int // argument and result of readOnce
	got      int
	errno    unix.Errno
	readOnce func(fd uintptr) bool
}

func newUDPReceiver(cfg UDPConfig, at netip.AddrPort, format mapcache.Format) (*udpReceiver, error) {
	addr := at.Addr()
	conn, raw, err := openSocket(at, func(fd int) error {
		s := sockopts{fd: fd}
		if addr.Is4() {
			s.set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO")
			s.set(unix.IPPROTO_IP, unix.IP_RECVTTL, 1, "IP_RECVTTL")
			s.set(unix.IPPROTO_IP, unix.IP_RECVTOS, 1, "IP_RECVTOS")
		} else {
			s.set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
			s.set(unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1, "IPV6_RECVHOPLIMIT")
			s.set(unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS")
			// RFC 9300 §5.3: a zero checksum must be accepted. The kernel
			// drops such a datagram over IPv6 unless told otherwise.
			s.set(unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1, "UDP_NO_CHECK6_RX")
		}
		if !cfg.NoOffload && !cfg.NoGRO {
			// Kernels before 5.0 have no UDP_GRO and deliver one by one.
			_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
		}
		buffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
		if s.err == nil && cfg.sharesReceive(at.Port()) {
			s.err = shareport.Allow(fd)
		}
		return s.err
	})
	if err != nil {
		return nil, fmt.Errorf("receive at %v: %w", at, err)
	}
	r := &udpReceiver{addr: addr, format: format, conn: conn, raw: raw, buffers: newSlots(receiveBatch)}
	for i := range r.messages {
		h := &r.messages[i].Hdr
		r.iovs[i].Base = &r.buffers[i][receiveAt]
		r.iovs[i].SetLen(len(r.buffers[i]) - receiveAt)
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = &r.controls[i][0]
	}
	r.readOnce = r.tryRead
	if cfg.sharesReceive(at.Port()) {
		if err := r.keepReceiving(cfg.Workers); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return r, nil
}

// BatchSize is how many datagrams Receive returns at most.
func (r *udpReceiver) BatchSize() int { return receiveBatch }

// Receive waits for datagrams.
func (r *udpReceiver) Receive(batch []Incoming) (int, error) {
	r.want = min(len(batch), receiveBatch)
	for i := range r.want {
		h := &r.messages[i].Hdr
		h.Namelen = mmsg.SockaddrLen
		h.SetControllen(len(r.controls[i]))
		h.Flags = 0
	}
	if err := r.raw.Read(r.readOnce); err != nil {
		return 0, err
	}
	switch r.errno {
	case 0:
	case unix.ENOMEM, unix.ENOBUFS:
		return 0, nil // passes
	default:
		return 0, fmt.Errorf("recvmmsg: %w", r.errno)
	}
	for i := range r.got {
		m := &r.messages[i]
		in := &batch[i]
		*in = Incoming{Bytes: r.buffers[i][receiveAt : receiveAt+int(m.N)], buffer: r.buffers[i], Format: r.format, Remote: r.names[i].Get()}
		readControls(in, r.controls[i][:m.Hdr.Controllen])
	}
	return r.got, nil
}

// tryRead is called with the socket's descriptor; false waits until it can be
// read.
func (r *udpReceiver) tryRead(fd uintptr) bool {
	for {
		r.got, r.errno = mmsg.Receive(fd, r.messages[:r.want])
		switch r.errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		return true
	}
}

// readControls takes over what the kernel says beside a datagram.
func readControls(in *Incoming, b []byte) {
	for {
		level, typ, data, rest, ok := mmsg.NextControl(b)
		if !ok {
			return
		}
		b = rest
		switch {
		case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			in.IfIndex = int(binary.NativeEndian.Uint32(data))
			in.Local = netip.AddrFrom4([4]byte(data[8:12]))
		case level == unix.IPPROTO_IP && typ == unix.IP_TTL && len(data) >= 4:
			in.TTL = uint8(binary.NativeEndian.Uint32(data))
		case level == unix.IPPROTO_IP && typ == unix.IP_TOS && len(data) >= 1:
			in.TOS, in.HasTOS = data[0], true
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			in.Local = netip.AddrFrom16([16]byte(data)).Unmap()
			in.IfIndex = int(binary.NativeEndian.Uint32(data[16:]))
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_HOPLIMIT && len(data) >= 4:
			in.TTL = uint8(binary.NativeEndian.Uint32(data))
		case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_TCLASS && len(data) >= 4:
			in.TOS, in.HasTOS = uint8(binary.NativeEndian.Uint32(data)), true
		case level == unix.SOL_UDP && typ == unix.UDP_GRO && len(data) >= 4:
			in.Segment = int(binary.NativeEndian.Uint32(data))
		}
	}
}
