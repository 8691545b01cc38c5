package natt

import (
	"net/netip"
	"slices"
)

// sharedSpace are the addresses of carrier-grade NATs (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// private reports whether a is of no use outside the network that it is from:
// RFC 1918, 4193, 3927 and 6598, link-local and loopback addresses.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() || sharedSpace.Contains(a)
}

// LikelyPublic reports whether others may well reach us at local as it is: it is an
// address that a NAT would not have given us, or the Map-Servers all have private
// ones, too. Only their answer to an Info-Request tells for sure.
func LikelyPublic(local netip.Addr, servers []netip.AddrPort) bool {
	return !private(local.Unmap()) || !slices.ContainsFunc(servers, func(s netip.AddrPort) bool { return !private(s.Addr().Unmap()) })
}

// direct reports whether our locator is to be announced as it is. One that is likely
// public does not wait for the answer to an Info-Request, which may never come.
func (x *XTR) direct() bool {
	switch x.state {
	case Public:
		return true
	case Detecting:
		return x.likely && (!x.cfg.Always || x.cfg.Mute)
	case Unanswered:
		return x.likely
	default:
		return false
	}
}
