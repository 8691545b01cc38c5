package multihome

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NetlinkConfig makes a Netlink.
type NetlinkConfig struct {
	// Protocol is what marks our own routes, rules and addresses (rtm_protocol);
	// removing one of them makes the next Snapshot Lost, and so does what may have
	// taken one along: an uplink that was set down, or lost an address. 0: none.
	Protocol uint8
	// Devices are the names of our own devices, or patterns as of path.Match.
	// Whatever happens to one makes the next Snapshot Lost: a device that was set
	// down has lost its routes.
	Devices []string
}

// Netlink is the Source of a Linux host: the network namespace of the thread that
// called NewNetlink.
//
// It asks for the whole list of links, addresses and main-table routes after each
// change of a link, an address or a default route. That is cheap for hosts; with
// a full Internet table it takes about half a second.
type Netlink struct {
	cfg      NetlinkConfig
	file     *os.File
	conn     syscall.RawConn
	listing  sync.Mutex // handle and routes, until they are closed
	handle   *netlink.Handle
	routes   defaultRoutes
	closed   bool
	buf      []byte
	listed   bool
	uplinks  []int // indices of those with a default route, when listed last
	devices  []int // and of our own devices
	overruns atomic.Uint64
}

var _ Source = (*Netlink)(nil)

// What wakes us. The numbers are those of RTNLGRP_*.
const groups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1) |
	1<<(unix.RTNLGRP_NEXTHOP-1)

// ifaProto is IFA_PROTO, since Linux 5.18.
const ifaProto = 11

// NewNetlink subscribes to the kernel's changes.
func NewNetlink(cfg NetlinkConfig) (*Netlink, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("multihome: netlink: %w", err)
	}
	routes, err := openDefaultRoutes()
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("multihome: netlink: %w", err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		routes.close()
		return nil, fmt.Errorf("multihome: netlink socket: %w", err)
	}
	n := &Netlink{cfg: cfg, handle: h, routes: routes, file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10)}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = n.Close()
		return nil, fmt.Errorf("multihome: subscribe: %w", err)
	}
	if n.conn, err = n.file.SyscallConn(); err != nil {
		_ = n.Close()
		return nil, fmt.Errorf("multihome: %w", err)
	}
	return n, nil
}

// Close ends the subscription and a Next that waits. A second one returns an error.
func (n *Netlink) Close() error {
	err := n.file.Close()
	n.listing.Lock()
	defer n.listing.Unlock()
	if !n.closed {
		n.closed = true
		n.handle.Close()
		n.routes.close()
	}
	return err
}

// Overruns says how often the kernel had more to tell than we had room for. Such
// a loss costs nothing but a Snapshot.
func (n *Netlink) Overruns() uint64 { return n.overruns.Load() }

// Next implements Source.
func (n *Netlink) Next(ctx context.Context) (Snapshot, error) {
	// The deadline is how a waiting read is told that the context has ended.
	if err := n.file.SetReadDeadline(time.Time{}); err != nil {
		return Snapshot{}, fmt.Errorf("multihome: netlink: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = n.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var lost bool
	for relevant := !n.listed; !relevant; {
		more, gone, err := n.receive()
		if ctx.Err() != nil {
			return Snapshot{}, ctx.Err()
		}
		if err != nil {
			return Snapshot{}, fmt.Errorf("multihome: netlink: %w", err)
		}
		relevant, lost = more || gone, lost || gone
	}
	snap, whole, err := n.list()
	if err != nil {
		return Snapshot{}, fmt.Errorf("multihome: netlink: %w", err)
	}
	n.listed = whole // else the next Next looks again
	n.uplinks, n.devices = n.uplinks[:0], n.devices[:0]
	for _, r := range snap.Routes {
		n.uplinks = append(n.uplinks, r.IfIndex)
	}
	for _, l := range snap.Links {
		if n.isDevice(l.Name) {
			n.devices = append(n.devices, l.Index)
		}
	}
	snap.Lost = lost
	return snap, nil
}

// receive reads all messages that wait, at least one, and says whether one of
// them is about something that a Snapshot shows, or about a loss of ours.
func (n *Netlink) receive() (relevant, lost bool, err error) {
	read := false
	waitErr := n.conn.Read(func(fd uintptr) bool {
		for {
			size, _, e := unix.Recvfrom(int(fd), n.buf, 0)
			switch {
			case errors.Is(e, unix.EAGAIN):
				return read
			case errors.Is(e, unix.EINTR):
				continue
			case errors.Is(e, unix.ENOBUFS):
				n.overruns.Add(1)
				read, relevant, lost = true, true, true
				continue
			case e != nil:
				err = e
				return true
			}
			read = true
			msgs, e := syscall.ParseNetlinkMessage(n.buf[:size])
			if e != nil {
				relevant, lost = true, true // cut off: as good as lost
				continue
			}
			for _, m := range msgs {
				a, b := n.classify(m)
				relevant, lost = relevant || a, lost || b
			}
		}
	})
	return relevant, lost, errors.Join(err, waitErr)
}

// list asks for what there is. It reports false if that changed under our eyes
// again and again, so that something may be missing.
func (n *Netlink) list() (Snapshot, bool, error) {
	n.listing.Lock()
	defer n.listing.Unlock()
	if n.closed {
		return Snapshot{}, false, os.ErrClosed
	}
	return atRest(n.listOnce)
}

// listTries bounds how often a list is asked for that changes meanwhile, as on a host
// that starts many containers.
const listTries = 10

func atRest(list func() (Snapshot, error)) (snap Snapshot, whole bool, err error) {
	for range listTries {
		if snap, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return snap, true, err
		}
	}
	return snap, false, nil
}

// listOnce returns what was listed with netlink.ErrDumpInterrupted too.
func (n *Netlink) listOnce() (Snapshot, error) {
	var s Snapshot
	var interrupted error
	failed := func(err error) bool {
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			interrupted, err = err, nil
		}
		return err != nil
	}
	links, err := n.handle.LinkList()
	if failed(err) {
		return s, fmt.Errorf("links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		s.Links = append(s.Links, Link{
			Index: a.Index, Name: a.Name, Up: a.RawFlags&unix.IFF_UP != 0,
			Running: a.RawFlags&unix.IFF_RUNNING != 0, Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
		})
	}
	addrs, err := n.handle.AddrList(nil, netlink.FAMILY_ALL)
	if failed(err) {
		return s, fmt.Errorf("addresses: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		s.Addrs = append(s.Addrs, Addr{
			IfIndex: a.LinkIndex, Addr: ip.Unmap(), Prefix: bits,
			// An optimistic address can be used before the detection ends (RFC 4429).
			Tentative: a.Flags&unix.IFA_F_DADFAILED != 0 ||
				a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0,
			Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
			Temporary:  ip.Is6() && a.Flags&unix.IFA_F_TEMPORARY != 0,
		})
	}
	for _, v6 := range []bool{false, true} {
		if s.Routes, err = n.routes.list(s.Routes, v6); failed(err) {
			return s, err
		}
	}
	return s, interrupted
}

// classify says whether a message is about what a Snapshot shows, and whether
// about something of ours that is gone.
func (n *Netlink) classify(m syscall.NetlinkMessage) (relevant, lost bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return true, true
		}
		// struct ifinfomsg: family, type, index, flags. A link that is set down takes
		// our routes with it, of which the kernel does not tell.
		down := binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP == 0
		return true, down && n.carries(int(binary.NativeEndian.Uint32(m.Data[4:]))) ||
			n.isDevice(text(attribute(m.Data, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)))
	case unix.RTM_NEWADDR:
		return true, false
	case unix.RTM_DELADDR:
		if len(m.Data) < unix.SizeofIfAddrmsg {
			return true, true
		}
		// struct ifaddrmsg: family, prefix length, flags, scope, index. So does the
		// last address of an interface. Of one of a device of ours an older kernel
		// does not know whose it was.
		proto := attribute(m.Data, unix.SizeofIfAddrmsg, ifaProto)
		index := int(binary.NativeEndian.Uint32(m.Data[4:]))
		return true, n.carries(index) || slices.Contains(n.devices, index) || n.ours(first(proto))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.Data) < unix.SizeofRtMsg {
			return true, true
		}
		// struct rtmsg: family, dst_len, src_len, tos, table, protocol.
		gone := m.Header.Type == unix.RTM_DELROUTE && n.ours(m.Data[5])
		return m.Data[1] == 0 && m.Data[4] == unix.RT_TABLE_MAIN, gone
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		// IPv4 routes that lead there go along, of which the kernel does not tell.
		return true, false
	case unix.RTM_DELRULE:
		return false, n.ours(first(attribute(m.Data, unix.SizeofRtMsg, unix.FRA_PROTOCOL)))
	default:
		return false, false
	}
}

// carries reports whether routes of ours may lead through an interface.
func (n *Netlink) carries(index int) bool {
	return n.cfg.Protocol != 0 && slices.Contains(n.uplinks, index)
}

// isDevice reports whether a name is one of our own devices'.
func (n *Netlink) isDevice(name string) bool {
	return slices.ContainsFunc(n.cfg.Devices, func(p string) bool { ok, _ := path.Match(p, name); return ok })
}

func (n *Netlink) ours(protocol uint8) bool { return protocol != 0 && protocol == n.cfg.Protocol }

func first(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// text returns a string attribute without the octet that ends it.
func text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return string(b[:len(b)-1])
}
