package mapcache

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// DestinationCache remembers what the trie says of destinations of one instance,
// for as long as the View stays the same one. A lookup in a large trie waits for
// memory several times, each time for an address that only the time before has
// told; one here waits once, and for all packets of a batch at the same time.
//
// The zero value is ready for use, by one goroutine at a time. It holds 1,024
// destinations, and doubles while many push each other out, up to half a million
// in 16 MiB.
type DestinationCache struct {
	stamp *byte  // of the View
	iid   uint32 // the instance
	age   uint64 // the number of the View, 1 to maxAge
	shift int    // from a hash to an index of sets
	sets  []destinationSet
	hand  int // which line the next destination gets

	asked, pushed int // since the size was thought about: lookups, and destinations pushed out

	at   [batchLen]uint32
	seen uint64 // without it the compiler would leave out the first reads
}

// destination is a line of a DestinationCache.
type destination struct {
	high, low uint64 // the address as an IPv6 one
	ids       uint64 // of the slot
	// locators has those of the slot in bits 0..25 and 26..51, and the age in
	// 52..63: another than the cache's is a free line.
	locators uint64
}

// destinationSet is where a destination can be.
type destinationSet [4]destination

const (
	minDestinationSets = 1 << 8
	maxDestinationSets = 1 << 17

	ageShift = 2 * slotBits
	maxAge   = 1<<(64-ageShift) - 1

	// batchLen is how many lookups are under way at once.
	batchLen = 64
)

// ForwardBatch is [View.ForwardBatch]. All Views must be those of one Cache.
func (c *DestinationCache) ForwardBatch(v *View, iid uint32, dst []netip.Addr, hash []uint32, out []Decision) {
	if c.stamp != v.stamp || c.iid != iid {
		c.renew(v, iid)
	}
	hash, out = hash[:len(dst)], out[:len(dst)]
	for from := 0; from < len(dst); from += batchLen {
		to := min(from+batchLen, len(dst))
		c.choose(v, iid, dst[from:to], hash[from:to], out[from:to])
	}
	v.completeBatch(out)
	if c.asked += len(dst); c.asked >= 8*len(c.sets) {
		if c.pushed > c.asked/64 && len(c.sets) < maxDestinationSets {
			c.resize(2 * len(c.sets))
		}
		c.asked, c.pushed = 0, 0
	}
}

// renew forgets all.
func (c *DestinationCache) renew(v *View, iid uint32) {
	c.stamp, c.iid = v.stamp, iid
	if c.age++; len(c.sets) == 0 {
		c.resize(minDestinationSets)
	} else if c.age > maxAge {
		c.age = 1
		clear(c.sets)
	}
}

func (c *DestinationCache) resize(n int) {
	c.sets, c.shift, c.age = make([]destinationSet, n), 64-bits.Len(uint(n-1)), 1
}

// choose fills in all but the locators, for at most batchLen packets.
func (c *DestinationCache) choose(v *View, iid uint32, dst []netip.Addr, hash []uint32, out []Decision) {
	seen := uint64(0)
	for i, a := range dst {
		high, low := words(a)
		at := (high ^ low*0x9e3779b97f4a7c15) * 0xd6e8feb86659fd93 >> c.shift
		c.at[i] = uint32(at)
		set := &c.sets[at]
		seen ^= set[0].low ^ set[2].low // nothing waits for them: all are on their way at once
	}
	c.seen = seen
	for i, a := range dst {
		high, low := words(a)
		s, ok := c.find(&c.sets[c.at[i]], high, low)
		if !ok || !a.IsValid() {
			if s, ok = v.lookup(iid, a); !ok {
				out[i] = Decision{}
				continue
			}
			c.keep(&c.sets[c.at[i]], high, low, s)
		}
		ch := v.choose(s, hash[i])
		out[i] = Decision{LocatorID: ch.LocatorID, EntryID: ch.EntryID, Verdict: ch.Verdict, Action: ch.Action}
	}
}

// find looks for a destination in its set.
func (c *DestinationCache) find(set *destinationSet, high, low uint64) (s slot, ok bool) {
	for i := range set {
		if d := &set[i]; d.low == low && d.high == high && d.locators>>ageShift == c.age {
			return slot{d.ids, [2]uint32{uint32(d.locators % slotIDs), uint32(d.locators >> slotBits % slotIDs)}}, true
		}
	}
	return slot{}, false
}

// keep takes a destination that is not in its set.
func (c *DestinationCache) keep(set *destinationSet, high, low uint64, s slot) {
	if s.locators[0] >= slotIDs || s.locators[1] >= slotIDs {
		return
	}
	at := 0
	for at < len(set) && set[at].locators>>ageShift == c.age {
		at++
	}
	if at == len(set) {
		at = c.hand % len(set)
		c.hand++
		c.pushed++
	}
	set[at] = destination{high, low, s.ids, uint64(s.locators[0]) | uint64(s.locators[1])<<slotBits | c.age<<ageShift}
}

// words is an address as an IPv6 one.
func words(a netip.Addr) (high, low uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}
