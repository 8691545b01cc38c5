package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ifaProto is the address attribute that holds the protocol number
// (IFA_PROTO, Linux 5.18; older kernels ignore it).
const ifaProto = 11

// addrMessage returns what names a full-length address of an interface.
func addrMessage(index int, a netip.Addr) []nl.NetlinkRequestData {
	return []nl.NetlinkRequestData{
		&nl.IfAddrmsg{IfAddrmsg: unix.IfAddrmsg{
			Family: family(a.Is6()), Prefixlen: uint8(a.BitLen()), Index: uint32(index),
		}},
		nl.NewRtAttr(unix.IFA_LOCAL, a.AsSlice()),
		nl.NewRtAttr(unix.IFA_ADDRESS, a.AsSlice()),
	}
}

// addrFlags: no duplicate address detection, as there is nobody to ask on the device;
// no prefix route, as it would be in the user's main table.
func addrFlags() nl.NetlinkRequestData {
	return nl.NewRtAttr(unix.IFA_FLAGS, u32(unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE))
}

// addAddr adds an address and reports whether it was not there before.
func (n *rtnl) addAddr(index int, a netip.Addr) (bool, error) {
	attrs := addrMessage(index, a)
	attrs = append(attrs, addrFlags(), nl.NewRtAttr(ifaProto, []byte{Protocol}))
	_, err := n.call(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, 0, attrs...)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("address %v: %w", a, err)
	}
	return true, nil
}

// awaitLocal waits until the host takes packets for new IPv6 addresses: the kernel
// makes their routes a little after the addresses.
func (n *rtnl) awaitLocal(index int, addrs []netip.Addr) error {
	waiting := map[netip.Addr]bool{}
	for _, a := range addrs {
		if a.Is6() {
			waiting[a] = true
		}
	}
	for start := time.Now(); len(waiting) > 0; time.Sleep(time.Millisecond) {
		routes, err := n.routes(true, unix.RT_TABLE_LOCAL)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.oif == index && r.dst.IsSingleIP() {
				delete(waiting, r.dst.Addr())
			}
		}
		if len(waiting) > 0 && time.Since(start) > 5*time.Second {
			return fmt.Errorf("address %v did not come up within 5 seconds", slices.Collect(maps.Keys(waiting)))
		}
	}
	return nil
}

// delAddr removes an address, which may be gone already.
func (n *rtnl) delAddr(index int, a netip.Addr) error {
	attrs := addrMessage(index, a)
	_, err := n.call(unix.RTM_DELADDR, unix.NLM_F_ACK, 0, attrs...)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove address %v: %w", a, err)
	}
	return nil
}

// foundAddr is an address as the kernel lists it.
type foundAddr struct {
	addr     netip.Addr
	index    int // of its interface
	protocol uint8
}

// addrs lists the addresses of an interface, or with index 0 of all.
func (n *rtnl) addrs(index int) ([]foundAddr, error) {
	var found []foundAddr
	for _, v6 := range []bool{false, true} {
		all, err := n.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR,
			&nl.IfAddrmsg{IfAddrmsg: unix.IfAddrmsg{Family: family(v6), Index: uint32(index)}})
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		for _, m := range all {
			if len(m) < unix.SizeofIfAddrmsg || m[0] != family(v6) {
				continue
			}
			attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfAddrmsg:])
			if err != nil {
				return nil, fmt.Errorf("list addresses: %w", err)
			}
			f := foundAddr{index: int(binary.NativeEndian.Uint32(m[4:]))}
			var local netip.Addr
			for _, a := range attrs {
				switch a.Attr.Type {
				case unix.IFA_ADDRESS:
					f.addr, _ = netip.AddrFromSlice(a.Value)
				case unix.IFA_LOCAL:
					local, _ = netip.AddrFromSlice(a.Value)
				case ifaProto:
					f.protocol = a.Value[0]
				}
			}
			if local.IsValid() {
				f.addr = local // the other one is the far side of a point-to-point link
			}
			if index == 0 || f.index == index {
				found = append(found, f)
			}
		}
	}
	return found, nil
}

// strictReversePath reports whether the kernel drops an IPv4 packet from an
// interface that it would answer through another one (rp_filter 1).
func (n *rtnl) strictReversePath(index int) (bool, error) {
	const (
		netconfIfindex  = 1
		netconfRPFilter = 3
		all             = -1
	)
	strictest := uint32(0)
	for _, i := range []int32{all, int32(index)} {
		answers, err := n.call(unix.RTM_GETNETCONF, 0, unix.RTM_NEWNETCONF,
			&nl.RtGenMsg{RtGenmsg: unix.RtGenmsg{Family: unix.AF_INET}},
			nl.NewRtAttr(netconfIfindex, u32(uint32(i))))
		if err != nil {
			return false, err
		}
		for _, m := range answers {
			attrs, err := nl.ParseRouteAttr(m[4:])
			if err != nil {
				return false, err
			}
			for _, a := range attrs {
				if a.Attr.Type == netconfRPFilter {
					// The larger number of the two rules, and 2 is the looser way.
					strictest = max(strictest, binary.NativeEndian.Uint32(a.Value))
				}
			}
		}
	}
	return strictest == 1, nil
}
