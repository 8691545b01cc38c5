package multihome

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
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
// a full Internet table it takes about a second.
type Netlink struct {
	cfg      NetlinkConfig
	handle   *netlink.Handle
	file     *os.File
	conn     syscall.RawConn
	buf      []byte
	listed   bool
	uplinks  []int // indices of those with a default route, when listed last
	overruns atomic.Uint64
}

var _ Source = (*Netlink)(nil)

// What wakes us. The numbers are those of RTNLGRP_*.
const groups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// ifaProto is IFA_PROTO, since Linux 5.18.
const ifaProto = 11

// NewNetlink subscribes to the kernel's changes.
func NewNetlink(cfg NetlinkConfig) (*Netlink, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("multihome: netlink: %w", err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("multihome: netlink socket: %w", err)
	}
	n := &Netlink{cfg: cfg, handle: h, file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10)}
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

// Close ends the subscription and a Next that waits.
func (n *Netlink) Close() error {
	n.handle.Close()
	return n.file.Close()
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
	snap, err := n.list()
	if err != nil {
		return Snapshot{}, fmt.Errorf("multihome: netlink: %w", err)
	}
	n.listed = true
	n.uplinks = n.uplinks[:0]
	for _, r := range snap.Routes {
		n.uplinks = append(n.uplinks, r.IfIndex)
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

// list asks for what there is.
func (n *Netlink) list() (snap Snapshot, err error) {
	for range 10 { // while it changes under our eyes
		if snap, err = n.listOnce(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return snap, err
}

func (n *Netlink) listOnce() (Snapshot, error) {
	var s Snapshot
	links, err := n.handle.LinkList()
	if err != nil {
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
	if err != nil {
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
		if s.Routes, err = n.defaults(s.Routes, v6); err != nil {
			return s, err
		}
	}
	return s, nil
}

// defaults appends the default routes of a family.
func (n *Netlink) defaults(dst []Route, v6 bool) ([]Route, error) {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	err := n.handle.RouteListFilteredIter(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST,
		func(r netlink.Route) bool {
			// Type 0 is how the library shows next hops that it lists one by one.
			if r.Type != 0 && r.Type != unix.RTN_UNICAST {
				return true
			}
			if len(r.MultiPath) == 0 {
				dst = append(dst, Route{IfIndex: r.LinkIndex, IPv6: v6, Gateway: gateway(r.Gw, r.Via), Metric: r.Priority})
			}
			for _, h := range r.MultiPath {
				if h.Flags&unix.RTNH_F_DEAD == 0 {
					dst = append(dst, Route{IfIndex: h.LinkIndex, IPv6: v6, Gateway: gateway(h.Gw, h.Via), Metric: r.Priority})
				}
			}
			return true
		})
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return dst, fmt.Errorf("routes: %w", err)
	}
	return dst, nil
}

// gateway returns the next hop; an IPv4 route can have an IPv6 one (RFC 8950).
func gateway(gw net.IP, via netlink.Destination) netip.Addr {
	if v, ok := via.(*netlink.Via); ok && gw == nil {
		gw = v.Addr
	}
	a, _ := netip.AddrFromSlice(gw)
	return a.Unmap()
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
		return true, down && n.carries(m.Data[4:]) ||
			n.isDevice(text(attribute(m.Data, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)))
	case unix.RTM_NEWADDR:
		return true, false
	case unix.RTM_DELADDR:
		if len(m.Data) < unix.SizeofIfAddrmsg {
			return true, true
		}
		// struct ifaddrmsg: family, prefix length, flags, scope, index. So does the
		// last address of an interface.
		proto := attribute(m.Data, unix.SizeofIfAddrmsg, ifaProto)
		return true, n.carries(m.Data[4:]) || n.ours(first(proto))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.Data) < unix.SizeofRtMsg {
			return true, true
		}
		// struct rtmsg: family, dst_len, src_len, tos, table, protocol.
		gone := m.Header.Type == unix.RTM_DELROUTE && n.ours(m.Data[5])
		return m.Data[1] == 0 && m.Data[4] == unix.RT_TABLE_MAIN, gone
	case unix.RTM_DELRULE:
		return false, n.ours(first(attribute(m.Data, unix.SizeofRtMsg, unix.FRA_PROTOCOL)))
	default:
		return false, false
	}
}

// carries reports whether routes of ours may lead through the interface whose
// index b begins with.
func (n *Netlink) carries(b []byte) bool {
	return n.cfg.Protocol != 0 && slices.Contains(n.uplinks, int(binary.NativeEndian.Uint32(b)))
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
