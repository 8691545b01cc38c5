package multihome

import (
	"net/netip"
	"slices"
)

// Snapshot is what a host has at one time.
type Snapshot struct {
	Links  []Link
	Addrs  []Addr
	Routes []Route
	// Lost reports that something of ours, an address, route or rule that this
	// program added, may have been removed by someone else since the last Snapshot.
	Lost bool
}

// Link is a network interface.
type Link struct {
	Index    int
	Name     string
	Up       bool // set up by the administrator
	Running  bool // and has a carrier
	Loopback bool
}

// Addr is an address of an interface.
type Addr struct {
	IfIndex   int
	Addr      netip.Addr // IPv4 never in its IPv6-mapped form, no zone
	Prefix    int        // length of the network's prefix
	Tentative bool       // duplicate detection has not ended, or found one (RFC 4862)
	// Deprecated: no new connections should use it (RFC 4862); Temporary: it is
	// to be given up soon by design (RFC 8981).
	Deprecated, Temporary bool
}

// Route is a default route of the main table. One with several next hops is one
// Route for each.
type Route struct {
	IfIndex int
	IPv6    bool
	Gateway netip.Addr // invalid: the network is on the link
	Metric  int
}

// Interface is what a State says about one interface.
type Interface struct {
	Index int
	Name  string
	Up    bool // set up, with a carrier
	// IPv4 and IPv6 are the addresses that can be locators, the best first.
	IPv4, IPv6 []netip.Addr
	// Default4 and Default6 are the default routes with the least metric; nil:
	// there is none.
	Default4, Default6 *Route
}

// Addrs returns the addresses of one family, the best first.
func (i *Interface) Addrs(v6 bool) []netip.Addr {
	if v6 {
		return i.IPv6
	}
	return i.IPv4
}

// Default returns the best default route of one family, or nil.
func (i *Interface) Default(v6 bool) *Route {
	if v6 {
		return i.Default6
	}
	return i.Default4
}

// Usable says whether the interface can carry traffic of a family, or why not.
func (i *Interface) Usable(v6 bool) Reason {
	switch {
	case !i.Up:
		return LinkDown
	case len(i.Addrs(v6)) == 0:
		return NoAddress
	case i.Default(v6) == nil:
		return NoDefaultRoute
	default:
		return Usable
	}
}

func (i *Interface) equal(o *Interface) bool {
	same := func(a, b *Route) bool { return a == b || a != nil && b != nil && *a == *b }
	return i.Index == o.Index && i.Name == o.Name && i.Up == o.Up &&
		slices.Equal(i.IPv4, o.IPv4) && slices.Equal(i.IPv6, o.IPv6) &&
		same(i.Default4, o.Default4) && same(i.Default6, o.Default6)
}

// Reason says why an interface is not usable for a family.
type Reason uint8

// Reasons.
const (
	Usable Reason = iota
	LinkDown
	NoAddress
	NoDefaultRoute
)

var reasonNames = [...]string{"usable", "link down", "no address", "no default route"}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}
