package encap

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/mmsg"
	"github.com/xtrkit/xtrkit/internal/shareport"
	"github.com/xtrkit/xtrkit/mapcache"
)

const (
	// maxMessages is how many messages one sendmmsg takes.
	maxMessages = 64
	// maxSegments and maxSegmented bound what the kernel segments: 64 was
	// UDP_MAX_SEGMENTS when it came, and the whole must be a UDP datagram.
	maxSegments  = 64
	maxSegmented = 65535 - ipv6HeaderLen - udpHeaderLen

	partsPerPacket = 2 // Bytes and Payload of an Outgoing
)

// udpPath sends from one local locator, from one of several source ports.
type udpPath struct {
	cfg     UDPConfig
	local   mapcache.Local
	v6      bool
	ifIndex int // of the interface; 0 if unknown

	probe    udpSocket // is connected to locators to ask for the path MTU, and sends nothing
	zeroLISP bool      // packets in the LISP format have no UDP checksum
	ports    []uint16  // all source ports
	natPort  uint16    // the one for locators behind a NAT; 0 until there is one

	mu sync.Mutex // for what follows
	// computed sends with a UDP checksum, zero without one. Either may be empty
	// if there is no use for it.
	computed, zero udpPool
	segment        bool // UDP_SEGMENT works, for which a checksum is needed

	// What one sendmmsg needs. The control messages are laid out once: TTL,
	// traffic class, and last the segment size, which can be left out.
	messages    [maxMessages]mmsg.Header
	names       [maxMessages]mmsg.Sockaddr
	controls    [maxMessages]sendControl
	runs        [maxMessages]struct{ first, n int } // of the packets
	iovs        []unix.Iovec
	controlLen  int
	segmentLen  int
	call        []mmsg.Header // arguments and result of write
	sent        int
	errno       unix.Errno
	writeOnce   func(fd uintptr) bool
	singleWrite [1]mmsg.Header
}

// udpPool is sockets of equal options, one per source port.
type udpPool struct {
	flows []udpSocket
	loose udpSocket // sends without DF
	nat   *udpPool  // for locators behind a NAT, with one port for all; see udp_nat_linux.go
}

// socket returns the socket for a packet.
func (p *udpPool) socket(o *Outgoing) *udpSocket {
	if o.NAT {
		p = p.nat
	}
	if o.MayFragment {
		return &p.loose
	}
	return &p.flows[sourcePort(o.Hash, len(p.flows))]
}

type udpSocket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
}

// sendControl is the control messages of one message.
type sendControl struct {
	buf               [144]byte
	ttl, tos, segment []byte // in buf
}

func newUDPPath(cfg UDPConfig, l mapcache.Local) (*udpPath, error) {
	p := &udpPath{cfg: cfg, local: l, v6: l.Addr.Is6()}
	ifi, err := interfaceOf(l)
	switch {
	case err == nil:
		p.ifIndex = ifi.Index
	case l.IfIndex != 0: // the kernel would bind to any index
		return nil, err
	}
	if err := p.openAll(); err != nil {
		_ = p.Close()
		return nil, err
	}
	level, ttl, tos := int32(unix.IPPROTO_IP), int32(unix.IP_TTL), int32(unix.IP_TOS)
	if p.v6 {
		level, ttl, tos = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, unix.IPV6_TCLASS
	}
	for i := range p.controls {
		c := &p.controls[i]
		var rest []byte
		c.ttl, rest = mmsg.PutControl(c.buf[:], level, ttl, 4)
		c.tos, rest = mmsg.PutControl(rest, level, tos, 4)
		rest = p.putSource(rest)
		c.segment, _ = mmsg.PutControl(rest, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		h := &p.messages[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&p.names[i]))
		h.Control = &c.buf[0]
	}
	p.controlLen = 2*unix.CmsgSpace(4) + p.sourceLen()
	p.segmentLen = unix.CmsgSpace(2)
	p.writeOnce = p.tryWrite
	return p, nil
}

// openAll opens the sockets that packets may need: those with a checksum always,
// since any locator may be one of LISP-GPE.
func (p *udpPath) openAll() (err error) {
	if p.probe, err = p.open(false, false, false); err != nil {
		return err
	}
	p.segment = !p.cfg.NoOffload && p.probe.segments()
	p.zeroLISP = p.cfg.Checksum == ChecksumZero || p.cfg.Checksum == ChecksumAuto && !p.segment
	if err := p.openPool(&p.computed, false); err != nil {
		return err
	}
	if p.zeroLISP || len(p.cfg.ZeroChecksum) > 0 {
		return p.openPool(&p.zero, true)
	}
	return nil
}

func (p *udpPath) openPool(pool *udpPool, zero bool) (err error) {
	if err := p.openNAT(pool, zero); err != nil {
		return err
	}
	if pool.loose, err = p.open(true, zero, false); err != nil {
		return err
	}
	for range p.cfg.SourcePorts {
		s, err := p.open(false, zero, false)
		if err != nil {
			return err
		}
		pool.flows = append(pool.flows, s)
	}
	return nil
}

// segments reports whether the kernel knows UDP_SEGMENT.
func (s *udpSocket) segments() bool {
	ok := false
	_ = s.raw.Control(func(fd uintptr) {
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		ok = err == nil
	})
	return ok
}

// open opens a socket of the path. Packets from a loose one may be fragmented
// on their way, those from a zero one have no UDP checksum, those from a nat one
// have the port for locators behind a NAT.
func (p *udpPath) open(loose, zero, nat bool) (udpSocket, error) {
	at := netip.AddrPortFrom(p.local.Addr, 0)
	if nat {
		at = p.natSource()
	}
	conn, raw, err := openSocket(at, func(fd int) error {
		s := sockopts{fd: fd}
		if nat {
			s.err = shareport.Allow(fd)
		}
		if p.local.IfIndex != 0 && (!nat || p.cfg.NATPort == 0) {
			s.set(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, p.local.IfIndex, "SO_BINDTOIFINDEX")
		}
		// DF set, and the kernel's path MTU obeyed: a larger packet is EMSGSIZE.
		if !p.v6 {
			discover := unix.IP_PMTUDISC_DO
			if loose {
				discover = unix.IP_PMTUDISC_DONT
			}
			s.set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, discover, "IP_MTU_DISCOVER")
		} else if !loose {
			s.set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, "IPV6_MTU_DISCOVER")
			s.set(unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1, "IPV6_DONTFRAG")
		}
		switch {
		case !zero:
		case p.v6:
			s.set(unix.SOL_UDP, unix.UDP_NO_CHECK6_TX, 1, "UDP_NO_CHECK6_TX")
		default:
			s.set(unix.SOL_SOCKET, unix.SO_NO_CHECK, 1, "SO_NO_CHECK")
		}
		buffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
		if s.err == nil {
			s.err = shareport.Discard(fd)
		}
		return s.err
	})
	if err == nil {
		p.ports = append(p.ports, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	}
	return udpSocket{conn, raw}, err
}

// SendsFrom reports whether a port is one of the source ports.
func (p *udpPath) SendsFrom(port uint16) bool { return slices.Contains(p.ports, port) }

// MTU is the MTU of the locator's interface.
func (p *udpPath) MTU() int {
	if p.ifIndex == 0 {
		return 0
	}
	return socketMTU(p.probe.raw, p.ifIndex)
}

// Close closes the sockets.
func (p *udpPath) Close() error {
	var errs []error
	for _, s := range slices.Concat([]udpSocket{p.probe}, p.computed.all(), p.zero.all()) {
		if s.conn == nil {
			continue // never opened
		}
		if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Send transmits the packets: runs of one flow and equal size as one message
// that the kernel segments, and up to maxMessages messages with one system
// call.
func (p *udpPath) Send(out []Outgoing) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ok = true
	if len(p.iovs) < len(out)*partsPerPacket {
		p.iovs = make([]unix.Iovec, (len(out)+maxSegments)*partsPerPacket)
	}
	n := 0
	var socket *udpSocket
	for i := 0; i < len(out); {
		o := &out[i]
		pool := &p.computed
		if p.cfg.zeroChecksum(p.zeroLISP, o.Format, o.Remote.Addr()) {
			pool = &p.zero
		}
		s := pool.socket(o)
		if n == maxMessages || n > 0 && s != socket {
			ok = p.write(socket, out, n) && ok
			n = 0
		}
		socket = s
		i = p.message(n, out, i, p.segment && pool == &p.computed)
		n++
	}
	if n > 0 {
		ok = p.write(socket, out, n) && ok
	}
	return ok
}

// message lays out message m for the run of packets that starts at out[first]
// and returns the index behind the run. Without segment it is of one packet.
func (p *udpPath) message(m int, out []Outgoing, first int, segment bool) int {
	o := &out[first]
	size, total, n := len(o.Bytes)+len(o.Payload), 0, 0
	iov := first * partsPerPacket // packets before this one had at most as many
	start := iov
	for i := first; i < len(out); i++ {
		x := &out[i]
		length := len(x.Bytes) + len(x.Payload)
		if n > 0 {
			if !segment || n == maxSegments || length > size || total+length > maxSegmented ||
				x.Hash != o.Hash && !o.NAT || x.TTL != o.TTL || x.TOS != o.TOS || x.MayFragment || o.MayFragment || x.NAT != o.NAT || x.Remote != o.Remote || x.Format != o.Format {
				break
			}
		}
		x.Err = nil
		for _, part := range [partsPerPacket][]byte{x.Bytes, x.Payload} {
			if len(part) > 0 {
				p.iovs[iov].Base = &part[0]
				p.iovs[iov].SetLen(len(part))
				iov++
			}
		}
		total += length
		n++
		if length < size {
			break // a short one is the last
		}
	}
	c := &p.controls[m]
	binary.NativeEndian.PutUint32(c.ttl, uint32(o.TTL))
	binary.NativeEndian.PutUint32(c.tos, uint32(o.TOS))
	h := &p.messages[m].Hdr
	if n > 1 {
		binary.NativeEndian.PutUint16(c.segment, uint16(size))
		h.SetControllen(p.controlLen + p.segmentLen)
	} else {
		h.SetControllen(p.controlLen)
	}
	h.Namelen = p.names[m].Set(o.Remote)
	h.Iov = &p.iovs[start]
	h.SetIovlen(iov - start)
	p.runs[m].first, p.runs[m].n = first, n
	return first + n
}

// write sends the first n messages from a socket, and puts errors into their
// packets.
func (p *udpPath) write(s *udpSocket, out []Outgoing, n int) (ok bool) {
	ok = true
	for m := 0; m < n; {
		sent, err := p.transmit(s, p.messages[m:n])
		m += sent
		if err == nil {
			continue
		}
		if p.runs[m].n > 1 && segmentError(err) {
			ok = p.singly(s, out, m, err) && ok
		} else {
			p.fail(out, m, err)
			ok = false
		}
		m++
	}
	return ok
}

// fail puts the error of message m into its packets.
func (p *udpPath) fail(out []Outgoing, m int, err error) {
	if errors.Is(err, unix.EMSGSIZE) {
		err = ErrTooBig
	}
	r := p.runs[m]
	for i := r.first; i < r.first+r.n; i++ {
		out[i].Err = err
	}
}

// segmentError reports whether err may be due to UDP_SEGMENT alone: EIO where
// the device computes no checksums, EINVAL from older kernels and for sizes
// that do not fit, EMSGSIZE when a segment exceeds the path MTU.
func segmentError(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)
}

// singly sends the packets of message m one by one, after the kernel refused
// them as one, and stops using UDP_SEGMENT if that helped.
func (p *udpPath) singly(s *udpSocket, out []Outgoing, m int, cause error) (ok bool) {
	ok = true
	r := p.runs[m]
	iov := r.first * partsPerPacket
	for i := r.first; i < r.first+r.n; i++ {
		one := &p.singleWrite[0]
		*one = p.messages[m]
		one.Hdr.SetControllen(p.controlLen)
		one.Hdr.Iov = &p.iovs[iov]
		parts := 1
		if len(out[i].Payload) > 0 {
			parts = 2
		}
		one.Hdr.SetIovlen(parts)
		iov += parts
		if _, err := p.transmit(s, p.singleWrite[:]); err != nil {
			if errors.Is(err, unix.EMSGSIZE) {
				err = ErrTooBig
			}
			out[i].Err = err
			ok = false
		}
	}
	if ok && p.segment {
		p.segment = false
		p.cfg.Logger.Info("segmentation offload does not work, sending packets one by one",
			"rloc", p.local.Addr, "err", cause)
	}
	return ok
}

// transmit sends messages from a socket until one fails, and returns how many
// were sent. It waits while the socket's buffer is full.
func (p *udpPath) transmit(s *udpSocket, messages []mmsg.Header) (int, error) {
	p.call, p.sent, p.errno = messages, 0, 0
	if err := s.raw.Write(p.writeOnce); err != nil {
		return 0, err
	}
	if p.errno != 0 {
		return 0, errnoError(p.errno)
	}
	return p.sent, nil
}

// tryWrite is called with the socket's descriptor; false waits until it can be
// written.
func (p *udpPath) tryWrite(fd uintptr) bool {
	for {
		p.sent, p.errno = mmsg.Send(fd, p.call)
		switch p.errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		return true
	}
}

// errnoError boxes an errno without allocating for the usual ones.
func errnoError(e unix.Errno) error {
	switch e {
	case unix.EMSGSIZE:
		return errEMSGSIZE
	case unix.ENOBUFS:
		return errENOBUFS
	case unix.ENETUNREACH:
		return errENETUNREACH
	case unix.EHOSTUNREACH:
		return errEHOSTUNREACH
	}
	return e
}

var (
	errEMSGSIZE     error = unix.EMSGSIZE
	errENOBUFS      error = unix.ENOBUFS
	errENETUNREACH  error = unix.ENETUNREACH
	errEHOSTUNREACH error = unix.EHOSTUNREACH
)

// PathMTU asks the kernel for the path MTU to a locator.
func (p *udpPath) PathMTU(remote netip.Addr) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	level, opt := unix.IPPROTO_IP, unix.IP_MTU
	if p.v6 {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	mtu := 0
	_ = p.probe.raw.Control(func(fd uintptr) {
		if unix.Connect(int(fd), unixSockaddr(remote, dataPort)) != nil {
			return
		}
		if v, err := unix.GetsockoptInt(int(fd), level, opt); err == nil {
			mtu = v
		}
	})
	return mtu
}

func unixSockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}
