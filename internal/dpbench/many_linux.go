package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/internal/netlab"
)

// Each host has many EIDs beside its own one: a prefix of the first 1<<manyBits
// addresses from manyA or manyB on.
const (
	manyA, manyB = "10.132.0.0", "10.128.0.0"
	manyBits     = 18
	// cacheEntries is how many of the other's are in the map-cache of the kernel's
	// data plane.
	cacheEntries = 100_000
	// destinations is how many of them a measurement sends to, one after the other,
	// and spread over all entries.
	destinations = 16384
)

func manyPrefix(first string) netip.Prefix {
	return netip.PrefixFrom(netip.MustParseAddr(first), 32-manyBits)
}

// nth returns the address that is i behind another.
func nth(first string, i int) netip.Addr {
	b := netip.MustParseAddr(first).As4()
	b[1] += byte(i >> 16)
	b[2] += byte(i >> 8)
	b[3] += byte(i)
	return netip.AddrFrom4(b)
}

// deliverMany makes a host take packets to its many EIDs.
func deliverMany(h *netlab.Host, first string) error {
	lo, err := h.Netlink().LinkByName("lo")
	if err != nil {
		return err
	}
	err = h.Netlink().RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: ipNet(manyPrefix(first)), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	})
	if err != nil {
		return fmt.Errorf("local route of %v: %w", manyPrefix(first), err)
	}
	return nil
}

// routeMany leads packets to the other's many EIDs where those to an address go.
func routeMany(h *netlab.Host, first, via string) error {
	return h.Netlink().RouteAdd(&netlink.Route{Dst: ipNet(manyPrefix(first)), Gw: net.ParseIP(via)})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// manyNames are the destinations as a socket wants them.
func manyNames(port int) []unix.RawSockaddrInet4 {
	names := make([]unix.RawSockaddrInet4, destinations)
	for i := range names {
		names[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: nth(manyB, i*(cacheEntries/destinations)).As4()}
		names[i].Port = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, uint16(port)))
	}
	return names
}
