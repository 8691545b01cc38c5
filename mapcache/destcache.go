package mapcache

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// DestinationCache remembers what the trie says of a destination, for as long as
// the View stays the same one. A lookup in a large trie waits for memory several
// times, each time for an address that only the time before has told; one here
// waits once, and for all packets of a batch at the same time.
//
// The zero value is ready for use, by one goroutine at a time. It holds up to
// 1,024 destinations, and doubles while they push each other out, up to 262,144
// in 10 MiB.
type DestinationCache struct {
	stamp   *byte  // of the View
	current uint32 // the number of the View
	pushed  int    // destinations pushed out since the size last changed
	shift   int    // from a hash to an index
	lines   []destination

	at   [batchLen]uint32
	seen uint32 // without it the compiler would leave out the first reads
}

// destination is a line of a DestinationCache.
type destination struct {
	high, low uint64 // the address as an IPv6 one
	slot      slot
	iid       uint32
	current   uint32 // that of the cache, or the line is free
}

const (
	minDestinations = 1 << 10
	maxDestinations = 1 << 18

	// batchLen is how many lookups are under way at once.
	batchLen = 64
)

// ForwardBatch is [View.ForwardBatch]. All Views must be those of one Cache.
func (c *DestinationCache) ForwardBatch(v *View, iid uint32, dst []netip.Addr, hash []uint32, out []Decision) {
	if c.stamp != v.stamp {
		c.renew(v)
	}
	hash, out = hash[:len(dst)], out[:len(dst)]
	for from := 0; from < len(dst); from += batchLen {
		to := min(from+batchLen, len(dst))
		c.choose(v, iid, dst[from:to], hash[from:to], out[from:to])
	}
	v.completeBatch(out)
}

// renew forgets all.
func (c *DestinationCache) renew(v *View) {
	c.stamp = v.stamp
	if c.current++; c.current == 0 || c.lines == nil {
		c.resize(max(minDestinations, len(c.lines)))
	}
}

func (c *DestinationCache) resize(n int) {
	c.lines, c.shift, c.pushed, c.current = make([]destination, n), 64-bits.Len(uint(n-1)), 0, 1
}

// choose fills in all but the locators, for at most batchLen packets.
func (c *DestinationCache) choose(v *View, iid uint32, dst []netip.Addr, hash []uint32, out []Decision) {
	seen := uint32(0)
	for i, a := range dst {
		high, low := words(a)
		at := (high ^ low*0x9e3779b97f4a7c15 ^ uint64(iid)) * 0xd6e8feb86659fd93 >> c.shift
		c.at[i] = uint32(at)
		seen ^= c.lines[at].current // nothing waits for it: all lines are on their way at once
	}
	c.seen = seen
	for i, a := range dst {
		high, low := words(a)
		line := &c.lines[c.at[i]]
		if line.current != c.current || line.low != low || line.high != high || line.iid != iid || !a.IsValid() {
			s, ok := v.lookup(iid, a)
			if !ok {
				out[i] = Decision{}
				continue
			}
			if line.current == c.current {
				c.pushed++
			}
			*line = destination{high, low, s, iid, c.current}
		}
		ch := v.choose(line.slot, hash[i])
		out[i] = Decision{LocatorID: ch.LocatorID, EntryID: ch.EntryID, Verdict: ch.Verdict, Action: ch.Action}
	}
	if c.pushed > len(c.lines) && len(c.lines) < maxDestinations {
		c.resize(2 * len(c.lines))
	}
}

// words is an address as an IPv6 one.
func words(a netip.Addr) (high, low uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}
