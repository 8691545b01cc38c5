// Package multihome says which interfaces of a host can carry its traffic, and
// tells when that changes. It is a leaf: it imports nothing else of this module.
//
//	types.go             what the kernel has: links, addresses, default routes
//	state.go             State turns that into usable interfaces, without I/O
//	watch.go             Watch drives a State from a Source
//	memory.go            a Source in memory, for tests and other systems
//	netlink_linux.go     the Source of a Linux host
//	plan.go, routing.go  Routing: what a locator sends leaves by its own uplink
//	policy.go            Policy: which uplink a packet leaves by, without I/O
//
// # The rule
//
// An interface counts, for IPv4 and IPv6 each, if its link is up and has a
// carrier, if it has an address of that family that can be a locator, and if
// there is a default route through it, of whatever metric: an interface that
// leads to one network only does not lead to other locators. An address stays
// known while its interface does not count, so that others can be told that it
// is a locator which is down.
//
// # Snapshots, not events
//
// A Source yields whole pictures of what there is. Kernel messages only say that
// it is time for a new one: lost messages, messages out of order, and what the
// kernel does without a message (an interface that is set down loses its IPv4
// routes silently) need no code of their own. Only our own routes are not in the
// picture: what may have taken them along makes the next Snapshot Lost.
//
// # Policies
//
// A Policy says by which uplink a packet leaves: by its prefixes, its DSCP, its
// firewall mark or a function of the user's, first match. A mark that is the
// index of an interface names that interface, as in LISPmob. It is usable without
// the rest: Update takes the interfaces from wherever they come.
//
//	policy, err := multihome.NewPolicy(multihome.PolicyConfig{Rules: []multihome.Rule{
//		{ByMark: true, Otherwise: multihome.DropPacket},
//		{DSCPs: []uint8{46}, Interfaces: []string{"eth0", "wwan*"}},
//	}})
//	policy.Update(change.Interfaces)     // by Watch, or with a Memory in tests
//	d := policy.Decide(&multihome.Packet{Src: src, Dst: dst, DSCP: 46})
//
// # Concurrency
//
// A State is for one goroutine at a time; Watch is the goroutine for most. A Policy
// decides for any number of goroutines.
package multihome
