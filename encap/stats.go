package encap

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/xtrkit/xtrkit/mapcache"
)

// DropReason says why a packet was not forwarded.
type DropReason uint8

// Reasons for a drop. The ones before DropHeader concern an inner packet on
// either side, those up to DropSourceRLOC arriving encapsulated packets, the
// rest packets that were to leave.
const (
	DropNone        DropReason = iota
	DropTruncated              // shorter than its headers say
	DropVersion                // neither IPv4 nor IPv6
	DropMalformed              // impossible header length
	DropTTL                    // inner TTL or hop limit 0
	DropScope                  // multicast, link-local, loopback or broadcast inner address
	DropNesting                // would carry, or carries, more than two data headers
	DropHeader                 // no complete data header, or of a version that we don't know
	DropEncrypted              // KK bits set (RFC 8061), which needs a key we never offered
	DropProtocol               // LISP-GPE or VXLAN-GPE payload that nobody takes, or not of the IP version it says
	DropMapVersion             // Map-Versions that do not fit, or any where our mapping has none (RFC 9302 §6.1, §7)
	DropControl                // instance 0xFFFFFF: control traffic that nobody takes
	DropInstance               // an instance that we have no overlay for
	DropNotLocator             // the outer destination is not one of our locators
	DropSuperPacket            // several segments behind one header that can't be cut
	DropChecksum               // inner IPv4 header checksum wrong, or that of a packet to be cut
	DropECN                    // congestion experienced, and the inner flow does not know ECN (RFC 6040 §4.2)
	DropNotOurEID              // inner destination is not an EID of ours
	DropNotRelayed             // neither source nor destination is registered with this RTR
	DropSourceRLOC             // the mapping of the inner source does not list the outer source, or there is none (Config.SourceCheck)
	DropSource                 // inner source is not an EID of ours
	DropLoop                   // bound for a locator of ours, or for the locator it would be tunnelled to
	DropAction                 // the mapping says drop
	DropRequest                // the mapping says ask again (ACT 2)
	DropNoLocator              // the mapping has no usable locator
	DropNoSource               // we have no usable locator of the family
	DropHoldFull               // held for a mapping, and pushed out by later packets
	DropHoldExpired            // held for a mapping that did not come in time
	DropTooBig                 // exceeds the MTU and must not be fragmented
	DropNative                 // native forwarding failed or is not configured
	DropSend                   // the network refused the encapsulated packet
	DropDevice                 // the device refused the packet
	DropPolicy                 // Config.Policy says so, or names an uplink that it cannot leave by
	numDropReasons
)

var dropReasonNames = [numDropReasons]string{
	"none", "truncated", "ip version", "malformed", "ttl", "scope", "nesting",
	"data header", "encrypted", "next protocol", "map-version", "control", "instance", "not our locator",
	"super-packet", "checksum", "ecn", "not our eid", "not registered", "source locator", "source not our eid", "loop", "action", "send map-request",
	"no locator", "no source locator", "hold full", "hold expired", "too big", "native", "send", "device", "policy",
}

// String is a short name in lower case.
func (r DropReason) String() string {
	if r < numDropReasons {
		return dropReasonNames[r]
	}
	return "unknown"
}

// NumDropReasons is the length of Stats.Drops.
const NumDropReasons = int(numDropReasons)

// Stats is a snapshot of a Forwarder's counters since its start.
type Stats struct {
	Encapsulated Counter // inner packets sent to locators
	Decapsulated Counter // inner packets delivered to the device
	Native       Counter // inner packets forwarded without encapsulation
	Drops        [NumDropReasons]uint64
	Held         uint64 // packets that waited for a mapping, since the start
	Released     uint64 // of those, the ones that left
	HeldNow      int    // packets waiting now
	HeldEIDs     int    // destinations they wait for
	Fragmented   uint64 // inner IPv4 packets cut before encapsulation or native forwarding
	// OuterFragmented counts inner IPv6 packets of up to 1280 octets that
	// exceed the path and are left to the network to fragment.
	OuterFragmented uint64
	Segmented       uint64 // received super-packets of a kernel's tunnel on the same host, cut into their segments
	Finished        uint64 // received packets whose transport checksum such a tunnel had left to us
	ECNOdd          uint64 // combinations of ECN fields that no tunnel ingress produces (RFC 6040 §4.2)
	ICMPSent        uint64 // ICMP errors written to the device
	ICMPLimited     uint64 // ICMP errors that the rate limit suppressed
	// OuterErrors counts ICMP errors about our outer packets that were obeyed,
	// OuterErrorsIgnored those that can't be about one.
	OuterErrors, OuterErrorsIgnored uint64
	// PolicyFallbacks counts packets that left otherwise than Config.Policy wished;
	// a large send in one piece counts once.
	PolicyFallbacks uint64
	DiscoveryDrops  uint64 // discoveries that nobody took in time
	Locators        []LocatorStats
}

// Counter counts packets and octets of inner packets.
type Counter struct{ Packets, Octets uint64 }

// LocatorStats counts inner packets per remote locator. Those of locators beyond
// the first 1,048,576, and of outer sources that no packet went to beyond the first
// 4,096, are together under the zero Locator. What arrives tells an address only: of
// several locators that have it, as nodes behind one NAT do, In is for the one that
// packets began to go to last.
type LocatorStats struct {
	Locator mapcache.Locator
	Out, In Counter
}

// Drop returns the number of packets dropped for a reason.
func (s *Stats) Drop(r DropReason) uint64 { return s.Drops[r] }

// counter is a Counter that several goroutines add to.
type counter struct{ packets, octets atomic.Uint64 }

func (c *counter) add(packets, octets int) {
	c.packets.Add(uint64(packets))
	c.octets.Add(uint64(octets))
}

func (c *counter) load() Counter { return Counter{c.packets.Load(), c.octets.Load()} }

// counters are what Stats shows. The padding keeps the two directions, which
// different goroutines write, on different cache lines.
type counters struct {
	encapsulated, native        counter
	fragmented, outerFragmented atomic.Uint64
	_                           [64]byte
	decapsulated                counter
	ecnOdd                      atomic.Uint64
	segmented, finished         atomic.Uint64
	_                           [64]byte
	held, released              atomic.Uint64
	icmpSent, icmpLimited       atomic.Uint64
	outerErrors                 atomic.Uint64
	outerErrorsIgnored          atomic.Uint64
	discoveryDrops              atomic.Uint64
	policyFallbacks             atomic.Uint64
	drops                       [numDropReasons]atomic.Uint64
}

// maxLocators bounds how many remote locators are counted one by one, and maxIDs
// their numbers in the map-cache; maxSources is the smaller bound for those that
// only packets from outside have named, since anyone can send from any number of
// source addresses. The rest share one counter.
const (
	maxLocators = 1 << 20
	maxIDs      = 1 << 24
	maxSources  = 1 << 12
)

// locatorCounter counts for one remote locator.
type locatorCounter struct {
	locator mapcache.Locator
	closed  *closedLocator // of the address; nil on the public Internet
	pairs   pairRanks
	out     counter
	_       [64]byte
	in      counter

	// Of the map-cache, 1 + its number there, and those beside it in the list of its
	// address; all need the lock of locatorCounters.
	id         uint32
	prev, next *locatorCounter

	// What the last Usage report said; only Usage touches it.
	reported struct{ out, in Counter }
}

// locatorCounters finds the counter of a locator: by the map-cache's locator
// id on the way out, by the outer source address on the way in.
type locatorCounters struct {
	byID atomic.Pointer[[]atomic.Pointer[locatorCounter]]

	mu        sync.RWMutex
	byLocator map[mapcache.Locator]*locatorCounter
	byAddr    map[netip.Addr]*locatorCounter // the last one learned with the address, and by next the others
	other     *locatorCounter
	closed    bool // the network is a closed one

	changes atomic.Uint32 // of byAddr, for what was there before
}

func newLocatorCounters() *locatorCounters {
	return &locatorCounters{
		byLocator: make(map[mapcache.Locator]*locatorCounter),
		byAddr:    make(map[netip.Addr]*locatorCounter),
		other:     new(locatorCounter),
	}
}

// forID returns the counter of l, whose id in the map-cache is id. Ids are used
// again for other locators, hence the comparison.
func (c *locatorCounters) forID(id uint32, l *mapcache.Locator) *locatorCounter {
	if t := c.byID.Load(); t != nil && uint64(id) < uint64(len(*t)) {
		if lc := (*t)[id].Load(); lc != nil && (lc.locator == *l || lc == c.other) {
			return lc
		}
	}
	return c.learn(id, *l)
}

func (c *locatorCounters) learn(id uint32, l mapcache.Locator) *locatorCounter {
	c.mu.Lock()
	defer c.mu.Unlock()
	lc := c.get(l, maxLocators)
	t := c.byID.Load()
	if lc != c.other {
		if old := uint64(lc.id) - 1; t != nil && lc.id != 0 && old < uint64(len(*t)) {
			// If it gets that number again it is learned again.
			(*t)[old].CompareAndSwap(lc, nil)
		}
		lc.id = id + 1
		c.putFirst(lc)
	}
	if id >= maxIDs {
		return lc
	}
	if t == nil || int(id) >= len(*t) {
		size := 64
		for size <= int(id) {
			size *= 2
		}
		grown := make([]atomic.Pointer[locatorCounter], size)
		if t != nil {
			for i := range *t {
				grown[i].Store((*t)[i].Load())
			}
		}
		t = &grown
		c.byID.Store(t)
	}
	(*t)[id].Store(lc)
	return lc
}

// forSource returns the counter of the locator that packets from an outer
// source address belong to.
func (c *locatorCounters) forSource(a netip.Addr) *locatorCounter {
	c.mu.RLock()
	lc := c.byAddr[a]
	full := len(c.byLocator) >= maxSources
	c.mu.RUnlock()
	switch {
	case lc != nil:
		return lc
	case full:
		return c.other
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.get(mapcache.Locator{Addr: a, Port: dataPort}, maxSources)
}

// get finds or makes the counter of l, unless there are limit of them. It needs
// mu.
func (c *locatorCounters) get(l mapcache.Locator, limit int) *locatorCounter {
	lc := c.byLocator[l]
	if lc == nil {
		if len(c.byLocator) >= limit {
			return c.other
		}
		lc = &locatorCounter{locator: l}
		c.byLocator[l] = lc
		if first := c.byAddr[l.Addr]; first != nil {
			lc.closed = first.closed
			lc.insertAfter(first)
		} else {
			c.byAddr[l.Addr] = lc
			if c.closed {
				lc.closed = new(closedLocator)
			}
		}
	}
	return lc
}

func (lc *locatorCounter) insertAfter(x *locatorCounter) {
	lc.prev, lc.next, x.next = x, x.next, lc
	if lc.next != nil {
		lc.next.prev = lc
	}
}

// putFirst makes lc, which get returned, the first one with its address. It needs mu.
func (c *locatorCounters) putFirst(lc *locatorCounter) {
	first := c.byAddr[lc.locator.Addr]
	if first == lc {
		return
	}
	lc.prev.next = lc.next
	if lc.next != nil {
		lc.next.prev = lc.prev
	}
	lc.prev, lc.next, first.prev = nil, first, lc
	c.byAddr[lc.locator.Addr] = lc
	c.changes.Add(1)
}

// live returns the locator with an address and port that packets went to, if it is
// in the map-cache.
func (c *locatorCounters) live(view *mapcache.View, to netip.AddrPort) (mapcache.Locator, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for lc := c.byAddr[to.Addr()]; lc != nil; lc = lc.next {
		if lc.id != 0 && lc.locator.Port == to.Port() && view.Locator(lc.id-1) == lc.locator {
			return lc.locator, true
		}
	}
	return mapcache.Locator{}, false
}

// closedLocator returns what a closed network knows of an outer address, nil if
// there are too many.
func (c *locatorCounters) closedLocator(a netip.Addr) *closedLocator {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lc := c.byAddr[a]; lc != nil {
		return lc.closed
	}
	return c.get(mapcache.Locator{Addr: a, Port: dataPort}, maxLocators).closed
}

// each calls f for every counter, the shared one last.
func (c *locatorCounters) each(f func(*locatorCounter)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, lc := range c.byLocator {
		f(lc)
	}
	f(c.other)
}
