package natt

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// bucket is a token bucket for a burst of one second. The zero rate has none.
type bucket struct {
	rate   float64
	tokens float64
	last   time.Time
}

func newBucket(rate float64) bucket { return bucket{rate: rate, tokens: burst(rate)} }

func burst(rate float64) float64 { return max(rate, 1) }

func (b *bucket) allow(now time.Time) bool {
	if !b.last.IsZero() {
		if d := now.Sub(b.last); d > 0 { // a clock that goes back refills nothing
			b.tokens = min(burst(b.rate), b.tokens+d.Seconds()*b.rate)
		}
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// sourceSlots is how many sources are told apart. Sources that share a slot by
// chance share its allowance; the seed keeps an attacker from choosing whose.
const sourceSlots = 1 << 10

// sourceBuckets is a bucket for each source address, in fixed memory.
type sourceBuckets struct {
	seed  uint64
	rate  float64
	slots [sourceSlots]bucket
}

func (s *sourceBuckets) allow(now time.Time, a netip.Addr) bool {
	b := &s.slots[s.hash(a)%sourceSlots]
	if b.rate == 0 {
		*b = newBucket(s.rate)
	}
	return b.allow(now)
}

// hash takes an IPv4 address or the /64 of an IPv6 address.
func (s *sourceBuckets) hash(a netip.Addr) uint64 {
	b := a.As16()
	h := s.seed ^ binary.BigEndian.Uint64(b[:8])
	if a.Is4() {
		h ^= binary.BigEndian.Uint64(b[8:])
	}
	// The finaliser of splitmix64.
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
