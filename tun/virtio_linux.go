package tun

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/virtio"
)

// readOctets ends a ReadVirtio: more would fall out of the processor's cache
// before anyone looks at it.
const readOctets = 128 << 10

// maxParts is UIO_MAXIOV of Linux.
const maxParts = 1024

// virtioIO reads and writes packets as the kernel has them.
type virtioIO struct {
	raw syscall.RawConn // nil without IFF_VNET_HDR

	readMu  sync.Mutex
	bufs    [][]byte // arguments and results of tryRead
	sizes   []int
	offset  int
	n       int
	errno   unix.Errno
	readAll func(fd uintptr) bool

	writeMu    sync.Mutex
	iovs       []unix.Iovec
	writeErrno unix.Errno
	writeOnce  func(fd uintptr) bool
}

// open finds out whether the file of the device is one for virtio headers.
func (v *virtioIO) open(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var flags uint16
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ifr, err := unix.NewIfreq("")
		if err == nil {
			err = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr)
		}
		if ioctlErr = err; err == nil {
			flags = ifr.Uint16()
		}
	})
	if err = errors.Join(err, ioctlErr); err != nil || flags&unix.IFF_VNET_HDR == 0 {
		return err
	}
	v.raw = raw
	v.readAll, v.writeOnce = v.tryRead, v.tryWrite
	v.iovs = make([]unix.Iovec, 0, maxParts)
	return nil
}

// maxSegments bounds the segments of what the host hands over in one piece, so
// that it fits into one UDP datagram with 8 octets of data header for each, which
// the kernel cuts again on its way out; 64 is what that takes since it was made.
func maxSegments(mtu int) int { return min(64, max(1, (65535-40-8)/(mtu+8))) }

// HasVirtio reports whether packets cross the device with a virtio_net_hdr, and
// ReadVirtio and WriteVirtio work. An adopted device may have none.
func (q *queue) HasVirtio() bool { return q.virtio.raw != nil }

// ReadVirtio waits for packets and returns those that are there, as Read does,
// but as the host has them: unsegmented, and with checksums to be finished. What
// is to be done says the virtio_net_hdr in the 10 octets before
// bufs[i][offset]. Each buffer must hold offset + 65535 octets. Read and
// ReadVirtio must not be used at the same time.
func (q *queue) ReadVirtio(bufs [][]byte, sizes []int, offset int) (int, error) {
	v := &q.virtio
	if offset < virtio.HeaderLen {
		return 0, fmt.Errorf("tun: %w: no room for the virtio header", ErrConfig)
	}
	v.readMu.Lock()
	defer v.readMu.Unlock()
	v.bufs, v.sizes, v.offset, v.n, v.errno = bufs, sizes, offset, 0, 0
	if err := v.raw.Read(v.readAll); err != nil {
		return 0, fmt.Errorf("tun: read from %s: %w", q.of.name, rawError(err))
	}
	if v.n == 0 && v.errno != 0 {
		return 0, fmt.Errorf("tun: read from %s: %w", q.of.name, closedError(v.errno))
	}
	return v.n, nil
}

// tryRead is called with the device's descriptor; false waits until it can be
// read.
func (v *virtioIO) tryRead(fd uintptr) bool {
	octets := 0
	for v.n < len(v.bufs) && octets < readOctets {
		b := v.bufs[v.n][v.offset-virtio.HeaderLen:]
		n, _, errno := unix.Syscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return v.n > 0
		case errno != 0 || n < virtio.HeaderLen:
			v.errno = errno // comes again if there are packets to return first
			return true
		default:
			v.sizes[v.n] = int(n) - virtio.HeaderLen
			octets += int(n)
			v.n++
		}
	}
	return true
}

// WriteVirtio sends one packet, gathered from parts, of which the first begins
// with its virtio_net_hdr. The error wraps what the host said of the packet: Linux
// takes several UDP datagrams in one (GSO) since 6.2.
func (q *queue) WriteVirtio(parts [][]byte) error {
	v := &q.virtio
	if len(parts) > maxParts || len(parts) == 0 || len(parts[0]) < virtio.HeaderLen {
		return fmt.Errorf("tun: %w: %d parts", ErrConfig, len(parts))
	}
	v.writeMu.Lock()
	defer v.writeMu.Unlock()
	v.iovs = v.iovs[:0]
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		v.iovs = append(v.iovs, unix.Iovec{Base: &p[0]})
		v.iovs[len(v.iovs)-1].SetLen(len(p))
	}
	v.writeErrno = 0
	err := v.raw.Write(v.writeOnce)
	if err != nil {
		err = rawError(err)
	}
	clear(v.iovs) // not to keep the packet
	if err == nil && v.writeErrno != 0 {
		err = closedError(v.writeErrno)
	}
	if err != nil {
		q.of.writeErrors.Add(1)
		return fmt.Errorf("tun: write to %s: %w", q.of.name, err)
	}
	return nil
}

// tryWrite is called with the device's descriptor; false waits until it can be
// written.
func (v *virtioIO) tryWrite(fd uintptr) bool {
	for {
		_, _, v.writeErrno = unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v.iovs[0])), uintptr(len(v.iovs)))
		switch v.writeErrno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		return true
	}
}

// rawError is what the descriptor of a device says. Nobody sets deadlines, so that
// it can only be closed, for which a syscall.RawConn has an error of its own.
func rawError(err error) error { return fmt.Errorf("%w: %w", os.ErrClosed, err) }

// closedError is what a device says that is gone.
func closedError(errno unix.Errno) error {
	if errno == unix.EBADFD {
		return os.ErrClosed
	}
	return errno
}
