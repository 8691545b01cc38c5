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
	far     *[]uint8 // index of the member per bucket, if more than inlineMax
}

// member is an RLOC of a mapping.
type member struct {
	locator            uint32
	priority, weight   uint8
	mpriority, mweight uint8
	down               bool // R=0
	never              bool // not an address to send unicast to
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

// sets interns locator sets: equal ones have one id.
type sets struct {
	hot   store[hotSet]
	refs  slab[uint32]
	index chains
	ids   ids
	seed  maphash.Seed
}

func (s *sets) init() {
	s.index.init()
	s.seed = maphash.MakeSeed()
}

func (s *sets) choice(id uint32) *choice { return s.hot.at(id).choice }

// hashOf hashes the content of a set.
func (s *sets) hashOf(verdict Verdict, action lisp.Action, members []member) uint32 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	b := [16]byte{byte(verdict), byte(action)}
	_, _ = h.Write(b[:2])
	for _, m := range members {
		_, _ = h.Write(m.append(b[:0]))
	}
	return uint32(h.Sum64())
}

func (m member) append(b []byte) []byte {
	flags := byte(0)
	if m.down {
		flags = 1
	}
	return append(binary.NativeEndian.AppendUint32(b, m.locator), m.priority, m.weight, m.mpriority, m.mweight, flags)
}

// find returns the id of an existing equal set, or 0.
func (s *sets) find(hash uint32, verdict Verdict, action lisp.Action, members []member) uint32 {
	return s.index.find(hash, func(id uint32) bool {
		h := s.hot.at(id)
		return h.verdict == verdict && h.action == action && slices.Equal(h.choice.members, members)
	})
}

// intern returns the id of the set and counts a reference to it. Each member
// carries a reference to its locator, which passes to the set.
func (c *Cache) intern(verdict Verdict, action lisp.Action, members []member) uint32 {
	s := &c.sets
	hash := s.hashOf(verdict, action, members)
	if id := s.find(hash, verdict, action, members); id != 0 {
		*s.refs.at(id)++
		for _, m := range members {
			c.locators.release(m.locator, c.epoch)
		}
		return id
	}
	id := s.ids.take()
	s.refs.grow(id)
	*s.refs.at(id) = 1
	s.index.put(hash, id)
	ch := &choice{members: slices.Clone(members)}
	hot := hotSet{choice: ch, verdict: verdict, action: action}
	if priority := bestPriority(ch.members, nil); priority < 255 {
		d := divide(ch.members, priority)
		order := d.buckets(ch.members)
		hot.buckets = uint16(len(order))
		if len(order) <= inlineMax {
			for i, m := range order {
				hot.inline[i] = ch.members[m].id()
			}
		} else {
			ch.far = &order
		}
	}
	*s.hot.slot(id, c.epoch) = hot
	return id
}

// releaseSet drops a reference to a set, and the set with its last one.
func (c *Cache) releaseSet(id uint32) {
	s := &c.sets
	if *s.refs.at(id)--; *s.refs.at(id) > 0 {
		return
	}
	s.index.remove(id)
	for _, m := range s.choice(id).members {
		c.locators.release(m.locator, c.epoch)
	}
	if s.ids.resting() > 4*idRest {
		// Many sets went. Few are written over soon enough.
		*s.hot.slot(id, c.epoch) = hotSet{}
	}
	s.ids.put(id)
}

// division is how the members of one Priority share the flows by Weight: bucket b
// of n takes the flows with hash*n>>32 == b. Members with R=0 keep their buckets,
// so that R=0 moves their own flows only. Shares are exact if the weights,
// reduced by their common divisor, sum up to at most maxBuckets, and within
// 1/(2*maxBuckets) otherwise.
type division struct {
	priority uint8
	equal    bool // all weights are 0: everybody counts 1
	sum, n   int
}

func divide(members []member, priority uint8) division {
	d := division{priority: priority, equal: true}
	divisor := 0
	for _, m := range members {
		if m.priority == priority && !m.never && m.weight > 0 {
			divisor, d.sum, d.equal = gcd(divisor, int(m.weight)), d.sum+int(m.weight), false
		}
	}
	if d.equal {
		divisor = 1
		for _, m := range members {
			d.sum += d.weight(m)
		}
	}
	if d.sum > 0 {
		d.n = min(d.sum/divisor, maxBuckets)
	}
	return d
}

// weight is what a member counts; 0 if it has no part.
func (d *division) weight(m member) int {
	switch {
	case m.priority != d.priority || m.never:
		return 0
	case d.equal:
		return 1
	}
	return int(m.weight)
}

// end is the first bucket behind a member whose weights and those of the members
// before it sum up to seen: no member is off by more than one bucket.
func (d *division) end(seen int) int { return (seen*d.n + d.sum/2) / d.sum }

// buckets returns the member of every bucket.
func (d *division) buckets(members []member) []uint8 {
	order := make([]uint8, 0, d.n)
	seen := 0
	for i, m := range members {
		if w := d.weight(m); w > 0 {
			for seen += w; len(order) < d.end(seen); {
				order = append(order, uint8(i))
			}
		}
	}
	return order
}

// member returns the member whose bucket a flow is in.
func (d *division) member(members []member, hash uint32) int {
	bucket := int(uint64(hash) * uint64(d.n) >> 32)
	seen := 0
	for i, m := range members {
		if w := d.weight(m); w > 0 {
			if seen += w; bucket < d.end(seen) {
				return i
			}
		}
	}
	return -1 // not reached: the last end is n
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// bestPriority returns the lowest Priority of a member with R=1, which is not
// down in v unless v is nil; 255 if there is none.
func bestPriority(members []member, v *View) uint8 {
	best := uint8(255)
	for _, m := range members {
		if m.priority < best && m.usable() && (v == nil || !v.down.test(m.locator)) {
			best = m.priority
		}
	}
	return best
}

// fallback chooses for a flow whose first choice is down. It stays within the
// best Priority that has a locator to use, and there: the locator of its
// bucket, or else its own favourite by Weight. So a flow moves only when
// the locator that it has goes down, or a better one for it comes up.
func (ch *choice) fallback(v *View, hash uint32) uint32 {
	priority := bestPriority(ch.members, v)
	if priority == 255 {
		return noLocator
	}
	d := divide(ch.members, priority)
	m := ch.members[d.member(ch.members, hash)]
	if m.usable() && !v.down.test(m.locator) {
		return m.locator
	}
	return ch.favourite(v, priority, hash)
}

// favourite is weighted rendezvous hashing: each flow has a fixed order of
// preference among the members of a Priority, random but for their weights.
// Members with Weight 0 come last.
func (ch *choice) favourite(v *View, priority uint8, hash uint32) uint32 {
	return ch.favouriteIf(v, priority, hash, func(*member) bool { return true })
}

// favouriteIf is favourite among those members that allowed lets pass.
func (ch *choice) favouriteIf(v *View, priority uint8, hash uint32, allowed func(*member) bool) uint32 {
	id, idle := uint32(noLocator), true
	var best score
	for i := range ch.members {
		m := &ch.members[i]
		if m.priority != priority || !m.usable() || v.down.test(m.locator) || m.weight == 0 && !idle || !allowed(m) {
			continue
		}
		s := makeScore(hash, v.locators.at(m.locator).locator().salt(), m.weight)
		if id == noLocator || m.weight > 0 && idle || s.less(best) {
			id, best = m.locator, s
		}
		idle = idle && m.weight == 0
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
	return 32<<16 - (uint64(exp)<<16 + lo + (hi-lo)*rest>>24)
}

// log2Table[i] is log2(1+i/256) in units of 2^-16.
var log2Table = func() (t [257]uint64) {
	for i := range t {
		t[i] = uint64(math.Round(math.Log2(1+float64(i)/256) * (1 << 16)))
	}
	return t
}()
