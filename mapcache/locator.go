package mapcache

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"net/netip"
	"time"
)

// Cause is a reason to hold a locator for unusable. Causes are independent: the
// locator is used again when none is left.
type Cause uint8

// Causes.
const (
	CauseProbe     Cause = iota // RLOC-probing (RFC 9301 §7.1)
	CauseLSB                    // Locator-Status-Bits (RFC 9300 §10)
	CauseICMP                   // ICMP unreachable for an encapsulated packet
	CauseEchoNonce              // the echo-nonce algorithm (RFC 9300 §10.1)
	CauseAdmin                  // an operator
	causeFamily                 // we have no source address of its family
	numCauses
)

var causeNames = [numCauses]string{"probe", "lsb", "icmp", "echo-nonce", "admin", "no-source"}

func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("cause(%d)", uint8(c))
}

// LocatorInfo is what the cache knows about a locator.
type LocatorInfo struct {
	ID     uint32  // as in Decision.LocatorID
	Usable bool    // no cause against it
	Causes []Cause // why it is not usable
	Key    Key     // an EID-Prefix whose mapping lists the locator, to probe with

	RTT time.Duration // as last measured (SetRTT); 0: not measured
	// What AddUsage has counted since the first mapping listed the locator.
	PacketsOut, OctetsOut uint64
	PacketsIn, OctetsIn   uint64
}

// hotLocator is a Locator in 32 octets, so that two share a cache line. Whether it
// is down is a bit apart.
type hotLocator struct {
	addr    netip.Addr
	ifIndex int32
	port    uint16
	format  Format
	nat     bool
}

func (h *hotLocator) locator() Locator {
	return Locator{Addr: h.addr, Port: h.port, Format: h.format, IfIndex: int(h.ifIndex), NAT: h.nat}
}

// put sets l to it. Field by field: a copy by way of a temporary stalls on its own
// stores.
func (h *hotLocator) put(l *Locator) {
	l.Addr = h.addr
	l.Port = h.port
	l.Format = h.format
	l.IfIndex = int(h.ifIndex)
	l.NAT = h.nat
}

// coldLocator is what only the writer needs.
type coldLocator struct {
	refs   uint32 // locator sets that list it
	via    uint32 // entry id of the last mapping stored with it; may be stale
	causes uint8  // bit set of Cause
}

// noLocator is the locator id of a choice that must never be used, e.g. R=0. Its
// down bit is always set.
const noLocator = 0

type locators struct {
	hot   store[hotLocator]
	down  bitmap
	cold  slab[coldLocator]
	index chains
	ids   ids
	seed  maphash.Seed
	// measured has what is measured, by id. Few locators of a large cache have it.
	measured map[uint32]*measured
	// unsourced holds causeFamily for the families of unusable locators.
	unsourced4, unsourced6 bool
}

func (ls *locators) init() {
	ls.index.init()
	ls.seed = maphash.MakeSeed()
	ls.measured = make(map[uint32]*measured)
	ls.down.grow(noLocator)
	ls.down.set(noLocator)
}

// normal returns l in the form in which locators are compared.
func (l Locator) normal() Locator {
	l.Addr = l.Addr.Unmap().WithZone("")
	if l.Port == 0 {
		l.Port = l.Format.Port()
	}
	return l
}

// encapsulable reports whether packets may be sent to l at all: a locator is
// neither a broadcast nor a link-local multicast address (RFC 9300 §3, RLOC),
// and unicast packets do not go to a multicast address.
func (l Locator) encapsulable() bool {
	return !l.Addr.IsMulticast() && !l.Addr.IsUnspecified() && l.Addr != broadcast4
}

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// String prints the locator with what differs from a plain LISP locator, e.g.
// 192.0.2.1, [2001:db8::1]:5000%2 or 192.0.2.1(vxlan-gpe).
func (l Locator) String() string {
	s := l.Addr.String()
	if l.Port != 0 && l.Port != l.Format.Port() {
		s = netip.AddrPortFrom(l.Addr, l.Port).String()
	}
	if l.IfIndex != 0 {
		s += fmt.Sprintf("%%%d", l.IfIndex)
	}
	if l.Format != FormatLISP {
		s += "(" + l.Format.String() + ")"
	}
	if l.NAT {
		s += "(nat)"
	}
	return s
}

// salt hashes what tells two locators apart.
func (l Locator) salt() uint32 {
	words := [6]uint32{4: uint32(l.Port)<<16 | uint32(l.Format), 5: uint32(l.IfIndex)}
	a := l.Addr.As16()
	for i := range 4 {
		words[i] = be32(a[4*i:])
	}
	return jhash(0, words[:]...)
}

func (ls *locators) hashOf(l Locator) uint32 {
	var b [23]byte
	a := l.Addr.As16()
	copy(b[:], a[:])
	binary.NativeEndian.PutUint32(b[16:], uint32(l.IfIndex))
	binary.NativeEndian.PutUint16(b[20:], l.Port)
	b[22] = byte(l.Format)
	if l.NAT {
		b[22] |= 0x80
	}
	return uint32(maphash.Bytes(ls.seed, b[:]))
}

// find returns the id of a normal locator that some mapping lists, or noLocator.
func (ls *locators) find(l Locator) uint32 {
	if !l.Addr.IsValid() {
		return noLocator
	}
	return ls.search(ls.hashOf(l), l)
}

func (ls *locators) search(hash uint32, l Locator) uint32 {
	return ls.index.find(hash, func(id uint32) bool { return ls.locator(id) == l })
}

func (ls *locators) locator(id uint32) Locator { return ls.hot.at(id).locator() }

// id returns the id of a normal locator and counts a reference to it.
func (ls *locators) id(l Locator, epoch uint64) uint32 {
	hash := ls.hashOf(l)
	id := ls.search(hash, l)
	if id == noLocator {
		id = ls.ids.take()
		ls.index.put(hash, id)
		*ls.hot.slot(id, epoch) = hotLocator{
			addr: l.Addr, port: l.Port, format: l.Format,
			ifIndex: int32(l.IfIndex), nat: l.NAT,
		}
		ls.cold.grow(id)
		ls.down.grow(id)
		ls.down.clear(id)
		if unsourced := ls.unsourced6; unsourced && l.Addr.Is6() || ls.unsourced4 && l.Addr.Is4() {
			ls.mark(id, causeFamily, true)
		}
	}
	ls.cold.at(id).refs++
	return id
}

func (ls *locators) release(id uint32, epoch uint64) {
	c := ls.cold.at(id)
	if c.refs--; c.refs > 0 {
		return
	}
	ls.index.remove(id)
	*ls.hot.slot(id, epoch) = hotLocator{}
	delete(ls.measured, id)
	*c = coldLocator{}
	ls.ids.put(id)
}

// mark adds or removes a cause and reports whether the locator's usability changed.
func (ls *locators) mark(id uint32, cause Cause, down bool) bool {
	c := ls.cold.at(id)
	was := c.causes
	if down {
		c.causes |= 1 << cause
	} else {
		c.causes &^= 1 << cause
	}
	if (was == 0) == (c.causes == 0) {
		return false
	}
	if down {
		ls.down.set(id)
	} else {
		ls.down.clear(id)
	}
	return true
}

// SetReachable says what RLOC-probing found out about l; it is SetDown with
// CauseProbe.
func (c *Cache) SetReachable(l Locator, up bool) { c.SetDown(l, CauseProbe, !up) }

// SetDown adds (down) or withdraws a reason not to use locator l. It takes O(1)
// however many mappings use the locator, and holds for the next packet of every
// View without Publish. A locator that no mapping lists is ignored: state is
// kept for as long as some mapping lists the locator. It reports whether l
// changed between usable and unusable, which is also recorded as a [Change].
func (c *Cache) SetDown(l Locator, cause Cause, down bool) bool {
	id := c.locators.find(l.normal())
	if id == noLocator || cause >= numCauses || !c.locators.mark(id, cause, down) {
		return false
	}
	c.recordLocator(id, down)
	return true
}

// SetSourceFamilies says in which address families we have a locator to send
// from. Locators of another family are not used (RFC 9301 §5.4). Both are
// assumed until it is called. O(number of locators); seen by the next packet.
func (c *Cache) SetSourceFamilies(ipv4, ipv6 bool) {
	ls := &c.locators
	ls.unsourced4, ls.unsourced6 = !ipv4, !ipv6
	for id := uint32(1); id <= ls.ids.next; id++ {
		cold := ls.cold.at(id)
		if cold.refs == 0 {
			continue
		}
		down := ls.unsourced6
		if ls.hot.at(id).addr.Is4() {
			down = ls.unsourced4
		}
		if ls.mark(id, causeFamily, down) {
			c.recordLocator(id, down)
		}
	}
}

// Reachable reports whether nothing speaks against locator l. It is true for
// a locator that no mapping lists.
func (c *Cache) Reachable(l Locator) bool {
	id := c.locators.find(l.normal())
	return id == noLocator || c.locators.cold.at(id).causes == 0
}

// Locators iterates over the locators of all mappings, in no particular order
// that callers may rely on. The cache must not be modified meanwhile, except by
// SetReachable, SetDown, SetRTT and AddUsage.
func (c *Cache) Locators() iter.Seq2[Locator, LocatorInfo] {
	return func(yield func(Locator, LocatorInfo) bool) {
		ls := &c.locators
		searched := false
		for id := uint32(1); id <= ls.ids.next; id++ {
			cold := ls.cold.at(id)
			if cold.refs == 0 {
				continue
			}
			if !c.lists(cold.via, id) && !searched {
				c.findVia() // at most one pass over the entries
				searched = true
			}
			if !yield(ls.locator(id), c.locatorInfo(id)) {
				return
			}
		}
	}
}

// lists reports whether entry is alive and its mapping has the locator.
func (c *Cache) lists(entry, locator uint32) bool {
	if entry == 0 {
		return false
	}
	e := c.entries.at(entry)
	if !e.alive() {
		return false
	}
	for _, m := range c.sets.choice(e.set).members {
		if m.locator == locator {
			return true
		}
	}
	return false
}

// findVia names an entry for every locator.
func (c *Cache) findVia() {
	for id := uint32(1); id <= c.entryIDs.next; id++ {
		if e := c.entries.at(id); e.alive() {
			c.setVia(e.set, id)
		}
	}
}

func (c *Cache) setVia(set, entry uint32) {
	for _, m := range c.sets.choice(set).members {
		c.locators.cold.at(m.locator).via = entry
	}
}
