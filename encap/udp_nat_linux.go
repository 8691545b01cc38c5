package encap

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/mmsg"
	"github.com/xtrkit/xtrkit/internal/shareport"
)

// A NAT lets in, at the port that it made for a flow of the host behind it, only
// what comes from where that flow goes. An RTR therefore sends data from the port
// that the Encapsulated Map-Registers go to. That port has a receiver, which is
// not ours: our sockets share it and leave all that arrives to the receiver (see
// package shareport). They are of their own, as a socket has one setting of DF
// and one lock for all that it sends. They are bound to no address, for what
// arrives would come to them as the more specific ones; each message says which
// address it leaves from.

// natSource is what sockets for locators behind a NAT are bound to.
func (p *udpPath) natSource() netip.AddrPort {
	if p.cfg.NATPort == 0 {
		return netip.AddrPortFrom(p.local.Addr, p.natPort) // the port of the first, when there is one
	}
	if p.v6 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), p.cfg.NATPort)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), p.cfg.NATPort)
}

// openNAT opens the sockets of a pool for locators behind a NAT.
func (p *udpPath) openNAT(pool *udpPool, zero bool) error {
	pool.nat = &udpPool{}
	s, err := p.open(false, zero, true)
	if err != nil {
		return err
	}
	pool.nat.flows = []udpSocket{s}
	p.natPort = p.ports[len(p.ports)-1]
	pool.nat.loose, err = p.open(true, zero, true)
	return err
}

// all returns the sockets of the pool, those never opened included.
func (p *udpPool) all() []udpSocket {
	all := append([]udpSocket{p.loose}, p.flows...)
	if p.nat != nil {
		all = slices.Concat(all, p.nat.all())
	}
	return all
}

// putSource writes the control message with our address, which sockets need that
// are bound to none.
func (p *udpPath) putSource(b []byte) []byte {
	if p.cfg.NATPort == 0 {
		return b
	}
	if p.v6 {
		data, rest := mmsg.PutControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		a := p.local.Addr.As16()
		copy(data, a[:])
		binary.NativeEndian.PutUint32(data[16:], uint32(p.local.IfIndex))
		return rest
	}
	data, rest := mmsg.PutControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	a := p.local.Addr.As4()
	binary.NativeEndian.PutUint32(data, uint32(p.local.IfIndex))
	copy(data[4:], a[:])
	return rest
}

// sourceLen is the room that putSource takes.
func (p *udpPath) sourceLen() int {
	switch {
	case p.cfg.NATPort == 0:
		return 0
	case p.v6:
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
}

// sharesPort reports whether what we receive at a port shares it with what is
// sent to locators behind a NAT.
func (cfg *UDPConfig) sharesPort(port uint16) bool { return cfg.NATPort != 0 && cfg.NATPort == port }

// sharesReceive reports whether a receiver shares its port with anything.
func (cfg *UDPConfig) sharesReceive(port uint16) bool { return cfg.Workers > 1 || cfg.sharesPort(port) }

// keepReceiving makes what arrives at the receiver's port come to the receivers,
// of which there are n.
func (r *udpReceiver) keepReceiving(n int) error {
	var err error
	if e := r.raw.Control(func(fd uintptr) { err = shareport.Keep(int(fd), n, r.addr.Is6()) }); e != nil {
		return e
	}
	return err
}
