package mapcache

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"

	"github.com/xtrkit/xtrkit/lisp"
)

// hotSet is what a packet needs of a locator set: which locator its flow's
// bucket has. Sets with few buckets have them here.
type hotSet struct {
	choice  *choice
	verdict Verdict
	action  lisp.Action
	buckets uint16            // 0: no locator may be used
	inline  [inlineMax]uint32 // locator ids, if buckets <= inlineMax
}

const (
	inlineMax  = 5
	maxBuckets = 256
)

// choice is the whole of a locator set. It is immutable.
type choice struct {
	members []member // in the order of the mapping, at most 255
	far     []uint8  // index of the member per bucket, if more than inlineMax
}

// member is an RLOC of a mapping.
type member struct {
	locator          uint32
	priority, weight uint8
	down             bool // R=0
	never            bool // not an address to send unicast to
}

// usable tells whether the mapping alone allows packets to the member: Priority
// 255 and R=0 do not (RFC 9300 §9).
func (m member) usable() bool { return m.priority != 255 && !m.down && !m.never }

// id is the locator to try for a bucket of the member.
func (m member) id() uint32 {
	if m.usable() {
		return m.locator
	}
	return noLocator
}

// setInfo is what only the writer needs of a set.
type setInfo struct {
	hash uint64
	refs uint32
	next uint32 // the next set with the same hash
}

// sets interns locator sets: equal ones have one id.
type sets struct {
	hot   vec[hotSet]
	info  slab[setInfo]
	index map[uint64]uint32
	ids   ids
	seed  maphash.Seed
}

func (s *sets) init() {
	s.index = make(map[uint64]uint32)
	s.seed = maphash.MakeSeed()
}

func (s *sets) choice(id uint32) *choice { return s.hot.at(id).choice }

// hashOf hashes the content of a set.
func (s *sets) hashOf(verdict Verdict, action lisp.Action, members []member) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	b := [8]byte{byte(verdict), byte(action)}
	_, _ = h.Write(b[:2])
	for _, m := range members {
		_, _ = h.Write(m.append(b[:0]))
	}
	return h.Sum64()
}

func (m member) append(b []byte) []byte {
	flags := byte(0)
	if m.down {
		flags = 1
	}
	return append(binary.NativeEndian.AppendUint32(b, m.locator), m.priority, m.weight, flags)
}

// find returns the id of an existing equal set, or 0.
func (s *sets) find(hash uint64, verdict Verdict, action lisp.Action, members []member) uint32 {
	for id := s.index[hash]; id != 0; id = s.info.at(id).next {
		h := s.hot.at(id)
		if h.verdict == verdict && h.action == action && slices.Equal(h.choice.members, members) {
			return id
		}
	}
	return 0
}

// intern returns the id of the set and counts a reference to it. Each member
// carries a reference to its locator, which passes to the set.
func (c *Cache) intern(verdict Verdict, action lisp.Action, members []member) uint32 {
	s := &c.sets
	hash := s.hashOf(verdict, action, members)
	if id := s.find(hash, verdict, action, members); id != 0 {
		s.info.at(id).refs++
		for _, m := range members {
			c.locators.release(m.locator)
		}
		return id
	}
	id := s.ids.take()
	s.info.grow(id)
	*s.info.at(id) = setInfo{hash: hash, refs: 1, next: s.index[hash]}
	s.index[hash] = id
	ch := &choice{members: slices.Clone(members)}
	hot := hotSet{choice: ch, verdict: verdict, action: action}
	if verdict == Encapsulate {
		order := buckets(ch.members)
		hot.buckets = uint16(len(order)) //nolint:gosec // at most maxBuckets
		if len(order) <= inlineMax {
			for i, m := range order {
				hot.inline[i] = ch.members[m].id()
			}
		} else {
			ch.far = order
		}
	}
	*s.hot.slot(id, c.epoch) = hot
	return id
}

// releaseSet drops a reference to a set, and the set with its last one.
func (c *Cache) releaseSet(id uint32) {
	s := &c.sets
	info := s.info.at(id)
	if info.refs--; info.refs > 0 {
		return
	}
	if first := s.index[info.hash]; first == id {
		if info.next == 0 {
			delete(s.index, info.hash)
		} else {
			s.index[info.hash] = info.next
		}
	} else {
		for s.info.at(first).next != id {
			first = s.info.at(first).next
		}
		s.info.at(first).next = info.next
	}
	for _, m := range s.choice(id).members {
		c.locators.release(m.locator)
	}
	*s.hot.slot(id, c.epoch) = hotSet{}
	*info = setInfo{}
	s.ids.put(id)
}

// buckets shares the flows among the members of the best Priority that has a
// member with R=1, by Weight: bucket b of n takes the flows with hash*n>>32 == b.
// Members with R=0 keep their buckets, so that R=0 moves their own flows only.
// The result is exact if the weights, reduced by their common divisor, sum up to
// at most maxBuckets, and within 1/(2*maxBuckets) of the share otherwise.
func buckets(members []member) []uint8 {
	best := 256
	for _, m := range members {
		if m.usable() {
			best = min(best, int(m.priority))
		}
	}
	if best == 256 {
		return nil
	}
	var at []int // of the members that share the flows
	var weights []int
	divisor, sum := 0, 0
	for pass := range 2 { // the second if all weights are 0: equal shares
		for i, m := range members {
			if int(m.priority) != best || m.never || pass == 0 && m.weight == 0 {
				continue
			}
			w := max(int(m.weight), 1)
			at, weights = append(at, i), append(weights, w)
			divisor, sum = gcd(divisor, w), sum+w
		}
		if len(at) > 0 {
			break
		}
	}
	n := min(sum/divisor, maxBuckets)
	order := make([]uint8, 0, n)
	seen := 0
	for i, w := range weights {
		seen += w
		// Cumulative shares, rounded: no member is off by more than one bucket.
		for end := (seen*n + sum/2) / sum; len(order) < end; {
			order = append(order, uint8(at[i])) //nolint:gosec // at most 255 members
		}
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// rendezvous chooses among the members of the best level that has a usable one:
// lowest Priority first, and Weight 0 only when no other weight is left. Each
// flow prefers the members in a fixed weighted random order of its own, so it
// moves only when its choice goes down, and comes back when it is up again.
func (ch *choice) rendezvous(v *View, hash uint32) uint32 {
	level, id := 2*255, uint32(noLocator)
	var best score
	for _, m := range ch.members {
		if !m.usable() || v.down.test(m.locator) {
			continue
		}
		l := 2 * int(m.priority)
		if m.weight == 0 {
			l++
		}
		if l > level {
			continue
		}
		s := makeScore(hash, v.locators.at(m.locator).locator().salt(), m.weight)
		if l < level || s.less(best) {
			level, id, best = l, m.locator, s
		}
	}
	return id
}

// score is the rank of a candidate for a flow: -log(u)/weight for a u that is
// uniform in (0,1] and fixed by flow and locator. The lowest of several is each
// candidate with a probability in proportion to its weight.
type score struct{ log, weight uint64 }

func makeScore(hash, salt uint32, weight uint8) score {
	u := jhash(hash, salt)
	return score{log: negLog2(u), weight: uint64(max(weight, 1))}
}

// less compares the quotients log/weight without dividing.
func (s score) less(t score) bool { return s.log*t.weight < t.log*s.weight }

// negLog2 returns -log2((u+1)/2^32) in units of 2^-16: by table with linear
// interpolation, in integers, so that a twin in C gives the same.
func negLog2(u uint32) uint64 {
	x := uint64(u) + 1 // 1..2^32
	exp := bits.Len64(x) - 1
	frac := x << (32 - exp) & math.MaxUint32 // below the leading one, 32 bits
	i, rest := frac>>24, frac&(1<<24-1)
	lo, hi := log2Table[i], log2Table[i+1]
	return 32<<16 - (uint64(exp)<<16 + lo + (hi-lo)*rest>>24) //nolint:gosec // exp is 0..32
}

// log2Table[i] is log2(1+i/256) in units of 2^-16.
var log2Table = func() (t [257]uint64) {
	for i := range t {
		t[i] = uint64(math.Round(math.Log2(1+float64(i)/256) * (1 << 16)))
	}
	return t
}()
