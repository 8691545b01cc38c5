package encap

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawICMP receives ICMP errors of one family.
type rawICMP struct {
	v6   bool
	file *os.File
	raw  syscall.RawConn
	buf  [2048]byte
	n    int
	err  error
	read func(fd uintptr) bool
}

// NewICMP opens raw sockets that receive the ICMP errors of both families, for
// Config.ICMP; that takes the capability CAP_NET_RAW. In a network namespace it
// must be called by a thread that is in it.
func NewICMP() ([]ICMPReceiver, error) {
	var rs []ICMPReceiver
	for _, v6 := range []bool{false, true} {
		r, err := newRawICMP(v6)
		if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			for _, r := range rs {
				_ = r.Close()
			}
			return nil, fmt.Errorf("encap: receive ICMP errors: %w", err)
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func newRawICMP(v6 bool) (*rawICMP, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	r := &rawICMP{v6: v6, file: os.NewFile(uintptr(fd), "raw ICMP")}
	if v6 {
		var f unix.ICMPv6Filter
		for i := range f.Data {
			f.Data[i] = ^uint32(0) // block all but
		}
		f.Data[0] &^= 1<<1 | 1<<2 // Destination Unreachable and Packet Too Big
		err = unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
	} else {
		const icmpFilter = 1
		err = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << 3)) // all but Destination Unreachable
	}
	if err == nil {
		r.raw, err = r.file.SyscallConn()
	}
	if err != nil {
		_ = r.file.Close()
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	r.read = r.tryRead
	return r, nil
}

// Receive waits for an ICMP error.
func (r *rawICMP) Receive() ([]byte, bool, error) {
	for {
		if err := r.raw.Read(r.read); err != nil {
			return nil, r.v6, err
		}
		if errors.Is(r.err, unix.ENOBUFS) || errors.Is(r.err, unix.ENOMEM) {
			continue // passes
		}
		if r.err != nil {
			return nil, r.v6, fmt.Errorf("receive ICMP: %w", r.err)
		}
		b := r.buf[:r.n]
		if r.v6 {
			return b, true, nil
		}
		// Over IPv4 the header is part of what is received.
		if len(b) < ipv4HeaderLen || int(b[0]&15)*4 > len(b) {
			continue
		}
		return b[int(b[0]&15)*4:], false, nil
	}
}

// tryRead is called with the socket's descriptor; false waits until it can be
// read.
func (r *rawICMP) tryRead(fd uintptr) bool {
	for {
		r.n, _, r.err = unix.Recvfrom(int(fd), r.buf[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(r.err, unix.EINTR):
			continue
		case errors.Is(r.err, unix.EAGAIN):
			return false
		}
		return true
	}
}

// Close ends Receive.
func (r *rawICMP) Close() error {
	if err := r.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
