package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// rtnl is a connection to the kernel's routing subsystem. It reads and writes the
// messages of rules, routes and addresses itself: the library's own ones lack the
// FIND_SADDR flag of rules and the protocol of addresses, and cannot ask for one
// table only, which matters beside a full routing table.
type rtnl struct {
	links  *netlink.Handle
	socket *nl.SocketHandle
}

// openRTNL connects to the current thread's network namespace. The connection
// stays there.
func openRTNL() (*rtnl, error) {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		links.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	// Dumps of one table only, where the kernel can. (The library also offers
	// extended errors, but it panics when a dump ends with one.)
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &rtnl{links, &nl.SocketHandle{Socket: s}}, nil
}

func (n *rtnl) close() {
	n.links.Close()
	n.socket.Close()
}

// call sends one request and returns the answers of type answer.
func (n *rtnl) call(message, flags int, answer uint16, data ...nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(message, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: n.socket}
	for _, d := range data {
		req.AddData(d)
	}
	return req.Execute(unix.NETLINK_ROUTE, answer)
}

// dump is call for lists, again while the list changes under our eyes. A table or
// family that is not there is an empty list.
func (n *rtnl) dump(message int, answer uint16, data ...nl.NetlinkRequestData) (all [][]byte, err error) {
	for range 10 {
		all, err = n.call(message, unix.NLM_F_DUMP, answer, data...)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return all, err
}

func family(v6 bool) uint8 {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// changeRule adds or removes a rule.
func (n *rtnl) changeRule(message, flags int, r rule) error {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: family(r.v6)}}
	attrs := []nl.NetlinkRequestData{
		msg,
		nl.NewRtAttr(unix.FRA_PRIORITY, u32(r.priority)),
		nl.NewRtAttr(unix.FRA_PROTOCOL, []byte{Protocol}),
	}
	if r.from.IsValid() {
		msg.Src_len = uint8(r.from.Bits())
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_SRC, r.from.Addr().AsSlice()))
	}
	if r.to.IsValid() {
		msg.Dst_len = uint8(r.to.Bits())
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_DST, r.to.Addr().AsSlice()))
	}
	if r.mask != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_FWMARK, u32(r.mark)), nl.NewRtAttr(unix.FRA_FWMASK, u32(r.mask)))
	}
	if r.local {
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_IIFNAME, []byte("lo\x00")))
	}
	if r.find {
		msg.Flags |= unix.FIB_RULE_FIND_SADDR
	}
	switch {
	case r.nop:
		msg.Type = unix.FR_ACT_NOP
	case r.goTo != 0:
		msg.Type = unix.FR_ACT_GOTO
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_GOTO, u32(r.goTo)))
	default:
		msg.Type = unix.FR_ACT_TO_TBL
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_TABLE, u32(r.table)))
	}
	if r.suppress {
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_SUPPRESS_PREFIXLEN, u32(0)))
	}
	if _, err := n.call(message, flags, 0, attrs...); err != nil {
		return fmt.Errorf("rule %v: %w", r, err)
	}
	return nil
}

// addRule adds a rule, which may be there already.
func (n *rtnl) addRule(r rule) error {
	err := n.changeRule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, r)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// delRule removes a rule, which may be gone already.
func (n *rtnl) delRule(r rule) error {
	err := n.changeRule(unix.RTM_DELRULE, unix.NLM_F_ACK, r)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}

// foundRule is a rule as the kernel lists it.
type foundRule struct {
	rule
	protocol uint8
}

// rules returns a family's rules.
func (n *rtnl) rules(v6 bool) ([]foundRule, error) {
	all, err := n.dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: family(v6)}})
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var found []foundRule
	for _, m := range all {
		if len(m) < unix.SizeofRtMsg || m[0] != family(v6) {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[unix.SizeofRtMsg:])
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		found = append(found, parseRule(nl.DeserializeRtMsg(m), attrs))
	}
	return found, nil
}

// parseRule is the inverse of changeRule.
func parseRule(msg *nl.RtMsg, attrs []syscall.NetlinkRouteAttr) (f foundRule) {
	f.v6, f.nop, f.find = msg.Family == unix.AF_INET6, msg.Type == unix.FR_ACT_NOP, msg.Flags&unix.FIB_RULE_FIND_SADDR != 0
	for _, a := range attrs {
		number := func() uint32 { return binary.NativeEndian.Uint32(a.Value) }
		prefix := func(bits uint8) netip.Prefix {
			ip, _ := netip.AddrFromSlice(a.Value)
			return netip.PrefixFrom(ip, int(bits))
		}
		switch a.Attr.Type {
		case unix.FRA_PRIORITY:
			f.priority = number()
		case unix.FRA_PROTOCOL:
			f.protocol = a.Value[0]
		case unix.FRA_SRC:
			f.from = prefix(msg.Src_len)
		case unix.FRA_DST:
			f.to = prefix(msg.Dst_len)
		case unix.FRA_FWMARK:
			f.mark = number()
		case unix.FRA_FWMASK:
			f.mask = number()
		case unix.FRA_IIFNAME:
			f.local = string(a.Value) == "lo\x00"
		case unix.FRA_GOTO:
			f.goTo = number()
		case unix.FRA_TABLE:
			if msg.Type == unix.FR_ACT_TO_TBL {
				f.table = number()
			}
		case unix.FRA_SUPPRESS_PREFIXLEN:
			f.suppress = number() == 0
		}
	}
	return f
}

// delMarked removes the first of a family's rules with the priority that is ours.
func (n *rtnl) delMarked(v6 bool, priority uint32) error {
	_, err := n.call(unix.RTM_DELRULE, unix.NLM_F_ACK, 0,
		&nl.RtMsg{RtMsg: unix.RtMsg{Family: family(v6)}},
		nl.NewRtAttr(unix.FRA_PRIORITY, u32(priority)),
		nl.NewRtAttr(unix.FRA_PROTOCOL, []byte{Protocol}))
	return err
}

// routeMessage returns what names a route of a table.
func routeMessage(table uint32, r route) (*nl.RtMsg, []nl.NetlinkRequestData) {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: family(r.dst.Addr().Is6()), Dst_len: uint8(r.dst.Bits()), Protocol: Protocol, Type: unix.RTN_UNICAST,
	}}
	if r.throw {
		msg.Type = unix.RTN_THROW
	}
	return msg, []nl.NetlinkRequestData{
		msg,
		nl.NewRtAttr(unix.RTA_TABLE, u32(table)),
		nl.NewRtAttr(unix.RTA_DST, r.dst.Addr().AsSlice()),
	}
}

// addRoute adds a route to a table, or replaces it.
func (n *rtnl) addRoute(table uint32, index int, r route) error {
	msg, attrs := routeMessage(table, r)
	if !r.throw {
		msg.Scope = unix.RT_SCOPE_LINK
		if r.dst.Addr().Is6() {
			msg.Scope = unix.RT_SCOPE_UNIVERSE
		}
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_OIF, u32(uint32(index))))
	}
	if r.src.IsValid() {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_PREFSRC, r.src.AsSlice()))
	}
	if _, err := n.call(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, 0, attrs...); err != nil {
		return fmt.Errorf("route %v table %d: %w", r.dst, table, err)
	}
	return nil
}

// delRoute removes a route of ours, which may be gone already.
func (n *rtnl) delRoute(table uint32, r route) error {
	msg, attrs := routeMessage(table, r)
	msg.Scope = unix.RT_SCOPE_NOWHERE // any
	msg.Type = unix.RTN_UNSPEC        // any
	_, err := n.call(unix.RTM_DELROUTE, unix.NLM_F_ACK, 0, attrs...)
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove route %v table %d: %w", r.dst, table, err)
	}
	return nil
}

// foundRoute is a route of a table as the kernel lists it.
type foundRoute struct {
	route
	table    uint32
	protocol uint8
	oif      int
}

// routes lists a table.
func (n *rtnl) routes(v6 bool, table uint32) ([]foundRoute, error) {
	all, err := n.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE,
		&nl.RtMsg{RtMsg: unix.RtMsg{Family: family(v6)}}, nl.NewRtAttr(unix.RTA_TABLE, u32(table)))
	if err != nil {
		return nil, fmt.Errorf("list table %d: %w", table, err)
	}
	return parseRoutes(all, v6, func(f *foundRoute) bool { return f.table == table })
}

// ourRoutes lists the routes with our protocol number in n tables from one on.
func (n *rtnl) ourRoutes(v6 bool, first, count uint32) ([]foundRoute, error) {
	all, err := n.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE,
		&nl.RtMsg{RtMsg: unix.RtMsg{Family: family(v6), Protocol: Protocol}})
	if err != nil {
		return nil, fmt.Errorf("list our routes: %w", err)
	}
	return parseRoutes(all, v6, func(f *foundRoute) bool { return f.protocol == Protocol && f.table-first < count })
}

// parseRoutes reads a list of routes.
func parseRoutes(all [][]byte, v6 bool, wanted func(*foundRoute) bool) ([]foundRoute, error) {
	var found []foundRoute
	for _, m := range all {
		if len(m) < unix.SizeofRtMsg || m[0] != family(v6) {
			continue
		}
		msg := nl.DeserializeRtMsg(m)
		attrs, err := nl.ParseRouteAttr(m[unix.SizeofRtMsg:])
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		f := foundRoute{protocol: msg.Protocol}
		f.throw = msg.Type == unix.RTN_THROW
		dst := netip.IPv4Unspecified()
		if v6 {
			dst = netip.IPv6Unspecified()
		}
		f.table = uint32(msg.Table)
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.RTA_TABLE:
				f.table = binary.NativeEndian.Uint32(a.Value)
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(a.Value)
			case unix.RTA_PREFSRC:
				f.src, _ = netip.AddrFromSlice(a.Value)
			case unix.RTA_OIF:
				f.oif = int(binary.NativeEndian.Uint32(a.Value))
			}
		}
		f.dst = netip.PrefixFrom(dst, int(msg.Dst_len))
		if wanted(&f) {
			found = append(found, f)
		}
	}
	return found, nil
}

// delMulticast removes the route by which the kernel would send IPv6 multicast of
// no particular interface through the device.
func (n *rtnl) delMulticast(index int) error {
	_, err := n.call(unix.RTM_DELROUTE, unix.NLM_F_ACK, 0,
		&nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET6, Dst_len: 8, Scope: unix.RT_SCOPE_NOWHERE}},
		nl.NewRtAttr(unix.RTA_TABLE, u32(unix.RT_TABLE_LOCAL)),
		nl.NewRtAttr(unix.RTA_DST, netip.MustParseAddr("ff00::").AsSlice()),
		nl.NewRtAttr(unix.RTA_OIF, u32(uint32(index))))
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
