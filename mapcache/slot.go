package mapcache

// slot is the value of the trie, in 16 octets: an entry, its locator set, and
// for most sets all that a packet needs of it, so that no more memory is touched.
// It must never get a Clone method: the trie would call it for every neighbour of
// every update.
type slot struct {
	// ids has the entry in bits 0..25, the set in 26..51, and how the flows are
	// divided: the number of buckets in 52..57, those of the first locator in 58..63.
	ids      uint64
	locators [2]uint32 // noLocator: the set has to be asked
}

const (
	slotBits    = 26
	slotIDs     = 1 << slotBits // bound of the ids of entries and sets
	slotBuckets = 1 << 6        // bound of the buckets
)

func makeSlot(entry, set uint32, h *hotSet) slot {
	s := slot{ids: uint64(entry) | uint64(set)<<slotBits}
	if first, ok := h.twoWays(&s.locators); ok {
		s.ids |= uint64(h.buckets)<<52 | uint64(first)<<58
	}
	return s
}

func (s slot) entry() uint32 { return uint32(s.ids % slotIDs) }

func (s slot) set() uint32 { return uint32(s.ids >> slotBits % slotIDs) }

// pick returns the locator of a flow, or noLocator.
func (s slot) pick(hash uint32) uint32 {
	bucket := int64(bucketOf(hash, uint32(s.ids>>52%slotBuckets)))
	// 1 if the bucket is not one of the first, without a branch to mispredict.
	return s.locators[uint64(int64(s.ids>>58)-1-bucket)>>63]
}

// bucketOf returns the bucket of a flow among n: 0 if n is 0.
func bucketOf(hash, n uint32) uint64 { return uint64(hash) * uint64(n) >> 32 }

// twoWays gives the locators of a set whose flows go at most two ways, and how
// many buckets the first one has. It is called once for each update of a trie.
func (h *hotSet) twoWays(to *[2]uint32) (first int, ok bool) {
	if h.verdict != Encapsulate || h.buckets == 0 || h.buckets >= slotBuckets {
		return 0, false
	}
	list := [2]uint32{h.bucket(0), h.bucket(int(h.buckets) - 1)}
	for first < int(h.buckets) && h.bucket(first) == list[0] {
		first++
	}
	for i := first; i < int(h.buckets); i++ {
		if h.bucket(i) != list[1] {
			return 0, false
		}
	}
	*to = list
	return first, true
}

// bucket returns the locator of a bucket, noLocator if its member may not be used.
func (h *hotSet) bucket(i int) uint32 {
	if h.buckets <= inlineMax {
		return h.inline[i]
	}
	return h.choice.members[(*h.choice.far)[i]].id()
}
