package mapserver

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"
)

// sourceSlots is how many sources are told apart. Sources that share a slot by
// chance share its allowance; the seed keeps an attacker from choosing whose.
const sourceSlots = 1 << 14

// limits are the token buckets that keep unauthenticated requests from making
// the server a reflector. Safe for concurrent use; memory is fixed.
type limits struct {
	seed      uint64
	perSource bucketParams
	total     bucketParams
	sources   []bucket
	all       bucket
}

func newLimits(perSource, total float64, seed uint64) *limits {
	l := &limits{seed: seed, perSource: newBucketParams(perSource), total: newBucketParams(total)}
	if l.perSource.on {
		l.sources = make([]bucket, sourceSlots)
	}
	return l
}

// allow takes a token from the buckets of both addresses and of the whole. An
// invalid address, or to equal to from, takes none.
func (l *limits) allow(now int64, from, to netip.Addr) bool {
	if l.perSource.on {
		if from.IsValid() && !l.sources[l.slot(from)].take(now, l.perSource) {
			return false
		}
		if to.IsValid() && to != from && !l.sources[l.slot(to)].take(now, l.perSource) {
			return false
		}
	}
	return !l.total.on || l.all.take(now, l.total)
}

// slot hashes an IPv4 address or the /64 of an IPv6 address.
func (l *limits) slot(a netip.Addr) uint64 {
	b := a.As16()
	h := l.seed ^ binary.BigEndian.Uint64(b[:8])
	if a.Is4() {
		h ^= binary.BigEndian.Uint64(b[8:])
	}
	return mix(h) % sourceSlots
}

// mix is the finaliser of splitmix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

type bucketParams struct {
	on    bool
	cost  uint64 // of a token, in units of 1/1024 ms
	burst uint64 // debt allowed, same unit
}

func newBucketParams(rate float64) bucketParams {
	if rate < 0 {
		return bucketParams{}
	}
	cost := uint64(1000 * 1024 / rate)
	return bucketParams{on: true, cost: max(cost, 1), burst: max(1000*1024, cost)}
}

// onePerSecond is the rate of log lines that others can provoke.
var onePerSecond = newBucketParams(1)

// bucket holds the time of its last use in ms (upper 32 bits) and its debt in
// units of 1/1024 ms of its rate (lower 32 bits). The zero value is a full bucket.
type bucket struct{ v atomic.Uint64 }

func (b *bucket) take(now int64, p bucketParams) bool {
	ms := uint32(now / int64(time.Millisecond))
	for {
		old := b.v.Load()
		last, debt := uint32(old>>32), old&0xffffffff
		// A clock that went backwards, or half a wrap, repays nothing.
		if elapsed := ms - last; elapsed < 1<<31 {
			debt -= min(debt, uint64(elapsed)*1024)
		}
		ok := debt+p.cost <= p.burst
		if ok {
			debt += p.cost
		}
		if b.v.CompareAndSwap(old, uint64(ms)<<32|debt) {
			return ok
		}
	}
}
