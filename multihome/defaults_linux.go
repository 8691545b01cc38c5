package multihome

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// defaultRoutes reads default routes. It does without the library, which makes
// something of each route of all tables first, and does not know of next hops that
// are objects of their own.
type defaultRoutes struct{ socket *nl.SocketHandle }

// openDefaultRoutes connects to the current thread's network namespace.
func openDefaultRoutes() (defaultRoutes, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return defaultRoutes{}, err
	}
	// Lists of one table only, where the kernel can.
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return defaultRoutes{&nl.SocketHandle{Socket: s}}, nil
}

func (d defaultRoutes) close() { d.socket.Close() }

// dump calls f with each message of a list. One that the kernel does not have is
// empty.
func (d defaultRoutes) dump(request int, answer uint16, data header, f func(m []byte)) error {
	req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: d.socket}
	req.AddData(data)
	err := req.ExecuteIter(unix.NETLINK_ROUTE, answer, func(m []byte) bool { f(m); return true })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// header is the fixed part of a message.
type header []byte

func (h header) Len() int          { return len(h) }
func (h header) Serialize() []byte { return h }

// rtaNHID is RTA_NH_ID, since Linux 5.3.
const rtaNHID = 30

// hop is where a route leads. A route has several, or the number of an object that
// says where.
type hop struct {
	ifIndex int
	gateway netip.Addr
}

// list appends the default routes of a family in the main table.
func (d defaultRoutes) list(dst []Route, v6 bool) ([]Route, error) {
	family := uint8(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	var objects []object
	filter := make(header, unix.SizeofRtMsg)
	filter[0], filter[4] = family, unix.RT_TABLE_MAIN
	err := d.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, filter, func(m []byte) {
		// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
		if len(m) < unix.SizeofRtMsg || m[0] != family || m[1] != 0 || m[4] != unix.RT_TABLE_MAIN || m[7] != unix.RTN_UNICAST ||
			binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
			return
		}
		attr := func(kind uint16) []byte { return attribute(m, unix.SizeofRtMsg, kind) }
		r := Route{IPv6: v6, Metric: int(number(attr(unix.RTA_PRIORITY)))}
		hops := multipath(attr(unix.RTA_MULTIPATH))
		if oif := number(attr(unix.RTA_OIF)); oif != 0 {
			hops = append(hops, hop{int(oif), gateway(attr(unix.RTA_GATEWAY), attr(unix.RTA_VIA))})
		}
		for _, h := range hops {
			r.IfIndex, r.Gateway = h.ifIndex, h.gateway
			dst = append(dst, r)
		}
		if id := number(attr(rtaNHID)); id != 0 && hops == nil {
			objects = append(objects, object{id, len(dst), r})
		}
	})
	if objects != nil {
		var failed error
		dst, failed = d.resolve(dst, objects)
		err = errors.Join(err, failed)
	}
	if err != nil {
		return dst, fmt.Errorf("routes: %w", err)
	}
	return dst, nil
}

// object is a route of which only the number of a next hop is known
// (nexthop_compat_mode 0), and its place among the others: of routes that are equally
// good the kernel takes the first.
type object struct {
	id uint32
	at int
	Route
}

// resolve inserts routes to objects.
func (d defaultRoutes) resolve(dst []Route, objects []object) ([]Route, error) {
	hops, groups := map[uint32]hop{}, map[uint32][]uint32{}
	err := d.dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, make(header, unix.SizeofNhmsg), func(m []byte) {
		attr := func(kind uint16) []byte { return attribute(m, unix.SizeofNhmsg, kind) }
		id := number(attr(unix.NHA_ID))
		if oif := number(attr(unix.NHA_OIF)); oif != 0 {
			hops[id] = hop{int(oif), gateway(attr(unix.NHA_GATEWAY), nil)}
		}
		// struct nexthop_grp: id, weight.
		for g := attr(unix.NHA_GROUP); len(g) >= 8; g = g[8:] {
			groups[id] = append(groups[id], number(g[:4]))
		}
	})
	for _, o := range slices.Backward(objects) {
		members := groups[o.id]
		if members == nil {
			members = []uint32{o.id}
		}
		var routes []Route
		for _, member := range members {
			h, ok := hops[member]
			if o.IfIndex, o.Gateway = h.ifIndex, h.gateway; ok {
				routes = append(routes, o.Route)
			}
		}
		dst = slices.Insert(dst, o.at, routes...)
	}
	return dst, err
}

// multipath returns the hops of a route that has several and that are not dead.
func multipath(b []byte) (hops []hop) {
	// struct rtnexthop: length, flags, weight, index; attributes follow.
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			break
		}
		attr := func(kind uint16) []byte { return attribute(b[:size], unix.SizeofRtNexthop, kind) }
		if b[2]&unix.RTNH_F_DEAD == 0 {
			hops = append(hops, hop{int(number(b[4:8])), gateway(attr(unix.RTA_GATEWAY), attr(unix.RTA_VIA))})
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return hops
}

// gateway returns the next hop's address; an IPv4 route can have an IPv6 one (RFC
// 8950), which comes behind its address family.
func gateway(gw, via []byte) netip.Addr {
	if gw == nil && len(via) > 2 {
		gw = via[2:]
	}
	a, _ := netip.AddrFromSlice(gw)
	return a.Unmap()
}

// number returns a 32-bit attribute, 0 if there is none.
func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
