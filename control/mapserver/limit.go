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

// knownSlots is how many addresses are remembered that a valid Map-Register came
// from lately, and knownFor in seconds how long. Of two that share a slot by
// chance the later counts.
const (
	knownSlots = 1 << 15
	knownFor   = 5 * 60
)

// limits are the token buckets that keep unauthenticated requests from making
// the server a reflector. Safe for concurrent use; memory is fixed.
type limits struct {
	seed      uint64
	perSource bucketParams
	total     bucketParams
	sources   []bucket
	all       bucket
	known     []atomic.Uint64 // upper half of the hash, and the second
	vouched   bucket          // as all, for those known
}

func newLimits(perSource, total float64, seed uint64) *limits {
	l := &limits{seed: seed, perSource: newBucketParams(perSource), total: newBucketParams(total)}
	if l.perSource.on {
		l.sources = make([]bucket, sourceSlots)
	}
	if l.total.on {
		l.known = make([]atomic.Uint64, knownSlots)
	}
	return l
}

// allow is allowN for one token.
func (l *limits) allow(now int64, from, to netip.Addr) bool { return l.allowN(now, from, to, 1) }

// allowN takes n tokens from the buckets of both addresses and of the whole. An
// invalid address, or to equal to from, takes none.
func (l *limits) allowN(now int64, from, to netip.Addr, n int) bool {
	if l.perSource.on {
		if from.IsValid() && !l.sources[l.hash(from)%sourceSlots].takeN(now, l.perSource, n) {
			return false
		}
		if to.IsValid() && to != from && !l.sources[l.hash(to)%sourceSlots].takeN(now, l.perSource, n) {
			return false
		}
	}
	switch {
	case !l.total.on:
		return true
	case l.isKnown(now, from):
		return l.vouched.takeN(now, l.total, n)
	}
	return l.all.takeN(now, l.total, n)
}

// vouch remembers an address that a valid Map-Register came from.
func (l *limits) vouch(now int64, a netip.Addr) {
	if !l.total.on || !a.IsValid() {
		return
	}
	h := l.hash(a)
	v := h&^0xffffffff | uint64(uint32(now/int64(time.Second)))
	if slot := &l.known[h%knownSlots]; slot.Load() != v {
		slot.Store(v)
	}
}

func (l *limits) isKnown(now int64, a netip.Addr) bool {
	h := l.hash(a)
	v := l.known[h%knownSlots].Load()
	return v != 0 && v>>32 == h>>32 && uint32(now/int64(time.Second))-uint32(v) < knownFor
}

// hash takes an IPv4 address or the /64 of an IPv6 address.
func (l *limits) hash(a netip.Addr) uint64 {
	b := a.As16()
	h := l.seed ^ binary.BigEndian.Uint64(b[:8])
	if a.Is4() {
		h ^= binary.BigEndian.Uint64(b[8:])
	}
	return mix(h)
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

func (b *bucket) take(now int64, p bucketParams) bool { return b.takeN(now, p, 1) }

// takeN takes n tokens, or all if there are never so many.
func (b *bucket) takeN(now int64, p bucketParams, n int) bool {
	cost := min(uint64(n)*p.cost, p.burst)
	ms := uint32(now / int64(time.Millisecond))
	for {
		old := b.v.Load()
		last, debt := uint32(old>>32), old&0xffffffff
		// A clock that went backwards, or half a wrap, repays nothing.
		if elapsed := ms - last; elapsed < 1<<31 {
			debt -= min(debt, uint64(elapsed)*1024)
		}
		ok := debt+cost <= p.burst
		if ok {
			debt += cost
		}
		if b.v.CompareAndSwap(old, uint64(ms)<<32|debt) {
			return ok
		}
	}
}
