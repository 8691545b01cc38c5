package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/mmsg"
)

const (
	udpBatch  = 64
	ipUDPLen  = 20 + 8
	udpBuffer = 16 << 20
	// drainTime is how long nothing has to arrive for a trial to be over.
	drainTime = 20 * time.Millisecond
)

// udpTest sends UDP datagrams of one size from a to b.
type udpTest struct {
	send, receive int // sockets
	messages      [udpBatch]mmsg.Header
	iov           unix.Iovec
	payload       []byte
	names         []unix.RawSockaddrInet4 // of many destinations; none: the socket has one
	next          int                     // of names
	received      atomic.Uint64
	stop          atomic.Bool
	wg            sync.WaitGroup
}

// newUDPTest opens the sockets for IP packets of size octets, to one destination or
// to many.
func newUDPTest(c *contender, size int, many bool) (*udpTest, error) {
	u := &udpTest{payload: make([]byte, size-ipUDPLen), send: -1, receive: -1}
	at := unix.SockaddrInet4{Addr: c.target.As4()}
	err := c.b.Do(func() (err error) {
		if u.receive, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		// What the receiver of the benchmark loses says nothing about the contender.
		_ = unix.SetsockoptInt(u.receive, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer)
		if many {
			return unix.Bind(u.receive, &unix.SockaddrInet4{})
		}
		return unix.Bind(u.receive, &at)
	})
	if err == nil {
		var name unix.Sockaddr
		if name, err = unix.Getsockname(u.receive); err == nil {
			at.Port = name.(*unix.SockaddrInet4).Port
			err = c.a.Do(func() (err error) {
				if u.send, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				_ = unix.SetsockoptInt(u.send, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, udpBuffer)
				if many {
					u.names = manyNames(at.Port)
					return unix.Bind(u.send, &unix.SockaddrInet4{Addr: c.source.As4()})
				}
				return unix.Connect(u.send, &at)
			})
		}
	}
	if err != nil {
		u.closeSockets()
		return nil, fmt.Errorf("UDP sockets: %w", err)
	}
	u.iov.Base = &u.payload[0]
	u.iov.SetLen(len(u.payload))
	for i := range u.messages {
		u.messages[i].Hdr.Iov = &u.iov
		u.messages[i].Hdr.SetIovlen(1)
	}
	u.wg.Go(u.count)
	return u, nil
}

func (u *udpTest) close() {
	u.stop.Store(true)
	u.wg.Wait()
	u.closeSockets()
}

func (u *udpTest) closeSockets() {
	for _, fd := range []int{u.send, u.receive} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// count receives, on a thread of its own.
func (u *udpTest) count() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var messages [udpBatch]mmsg.Header
	var bufs [udpBatch][2048]byte
	var iovs [udpBatch]unix.Iovec
	for i := range messages {
		iovs[i].Base = &bufs[i][0]
		iovs[i].SetLen(len(bufs[i]))
		messages[i].Hdr.Iov = &iovs[i]
		messages[i].Hdr.SetIovlen(1)
	}
	poll := []unix.PollFd{{Fd: int32(u.receive), Events: unix.POLLIN}}
	for !u.stop.Load() {
		n, errno := mmsg.Receive(uintptr(u.receive), messages[:])
		if errno == 0 {
			u.received.Add(uint64(n))
			continue
		}
		_, _ = unix.Poll(poll, int(drainTime.Milliseconds()))
	}
}

// trial is how one rate went.
type trial struct {
	sent, arrived uint64
	took          time.Duration
}

func (t trial) loss() float64 {
	if t.arrived >= t.sent {
		return 0
	}
	return float64(t.sent-t.arrived) / float64(t.sent)
}

func (t trial) sendRate() float64    { return float64(t.sent) / t.took.Seconds() }
func (t trial) arrivalRate() float64 { return float64(t.arrived) / t.took.Seconds() }

// trial sends at a rate of packets a second, 0 for all it can, for a time.
func (u *udpTest) trial(rate float64, d time.Duration) (trial, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var t trial
	before := u.received.Load()
	for start := time.Now(); ; {
		t.took = time.Since(start)
		if t.took >= d {
			break
		}
		n := udpBatch
		if rate > 0 {
			due := rate*t.took.Seconds() - float64(t.sent)
			if due < udpBatch/2 {
				// Until half a batch is due; the granularity is that of the
				// system's timers.
				pause := time.Duration((udpBatch/2 - due) / rate * float64(time.Second))
				ts := unix.NsecToTimespec(int64(min(pause, time.Millisecond)))
				_ = unix.Nanosleep(&ts, nil)
				due = rate*time.Since(start).Seconds() - float64(t.sent)
			}
			if n = min(n, int(due)); n <= 0 {
				continue
			}
		}
		sent, errno := u.emit(n)
		switch errno {
		case 0:
			t.sent += uint64(sent)
		case unix.EAGAIN, unix.ENOBUFS, unix.EINTR:
			runtime.Gosched()
		default:
			return t, fmt.Errorf("sendmmsg: %w", errno)
		}
	}
	for last := u.received.Load(); ; {
		time.Sleep(drainTime)
		now := u.received.Load()
		if now == last {
			t.arrived = now - before
			break
		}
		last = now
	}
	if t.sent == 0 {
		return t, errors.New("nothing was sent")
	}
	return t, nil
}

// emit sends n messages, to the next destinations if there are many.
func (u *udpTest) emit(n int) (int, unix.Errno) {
	if len(u.names) > 0 {
		for i := range n {
			h := &u.messages[i].Hdr
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&u.names[(u.next+i)%len(u.names)])), unix.SizeofSockaddrInet4
		}
		u.next = (u.next + n) % len(u.names)
	}
	return mmsg.Send(uintptr(u.send), u.messages[:n])
}

// awaitOne sends packets until one arrives.
func (u *udpTest) awaitOne() error {
	before := u.received.Load()
	for range 200 {
		if _, errno := u.emit(1); errno != 0 && errno != unix.EAGAIN {
			return fmt.Errorf("sendmmsg: %w", errno)
		}
		time.Sleep(drainTime)
		if u.received.Load() != before {
			return nil
		}
	}
	return errors.New("no packet arrives")
}

// ping measures round trips of ICMP echoes, one at a time.
func ping(c *contender, n int) ([]time.Duration, error) {
	fd := -1
	to := &unix.SockaddrInet4{Addr: c.target.As4()}
	err := c.a.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	wait := unix.NsecToTimeval(time.Second.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rtts := make([]time.Duration, 0, n)
	lost := 0
	for seq := uint16(1); len(rtts) < n; seq++ {
		start := time.Now()
		if err := unix.Sendto(fd, echo(seq), 0, to); err != nil {
			return nil, err
		}
		switch ok, err := awaitEcho(fd, c.target, seq); {
		case err != nil:
			return nil, err
		case ok:
			rtts = append(rtts, time.Since(start))
		default:
			if lost++; lost > n/10+5 {
				return nil, errors.New("echoes are lost")
			}
		}
		time.Sleep(time.Millisecond)
	}
	return rtts, nil
}

const echoID = 0x4341

func echo(seq uint16) []byte {
	b := make([]byte, 8+56)
	b[0] = 8
	b[4], b[5], b[6], b[7] = echoID>>8, echoID&0xff, byte(seq>>8), byte(seq)
	sum := uint32(8<<8) + echoID + uint32(seq)
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	b[2], b[3] = byte(sum>>8), byte(sum)
	return b
}

// awaitEcho waits for the reply to one echo.
func awaitEcho(fd int, from netip.Addr, seq uint16) (bool, error) {
	var b [256]byte
	var sa unix.RawSockaddrInet4
	for {
		salen := uint32(unsafe.Sizeof(sa))
		n, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0,
			uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&salen)))
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false, nil
		default:
			return false, &net.OpError{Op: "read", Net: "icmp", Err: errno}
		}
		if n >= 28 && netip.AddrFrom4(sa.Addr) == from && b[20] == 0 && b[24] == echoID>>8 && b[25] == echoID&0xff &&
			b[26] == byte(seq>>8) && b[27] == byte(seq) {
			return true, nil
		}
	}
}
