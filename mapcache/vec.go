package mapcache

import (
	"slices"
	"sync/atomic"
)

// vec is a snapshot of an array in three levels of fan-out 64. Readers index it
// without synchronisation: a node that a snapshot can reach is never written again.
type vec[T any] struct{ root []*vecMid[T] }

const (
	vecBits = 6
	vecFan  = 1 << vecBits
	vecMask = vecFan - 1
)

type (
	vecMid[T any]  [vecFan]*vecLeaf[T]
	vecLeaf[T any] [vecFan]T
)

// at returns element i, which must have been set before. Read only.
func (v *vec[T]) at(i uint32) *T {
	return &v.root[i>>(2*vecBits)][i>>vecBits&vecMask][i&vecMask]
}

// find returns element i, nil if the snapshot does not reach as far. Read only.
func (v *vec[T]) find(i uint32) *T {
	hi := i >> (2 * vecBits)
	if uint64(hi) >= uint64(len(v.root)) || v.root[hi] == nil {
		return nil
	}
	leaf := v.root[hi][i>>vecBits&vecMask]
	if leaf == nil {
		return nil
	}
	return &leaf[i&vecMask]
}

// store is the writer's side of a vec, which is its snapshot at any time. A write
// copies only the nodes on its path, once per epoch.
type store[T any] struct {
	vec[T]
	epoch        uint64 // of root
	mids, leaves slab[uint64]
}

// slot returns element i for writing. Nodes older than epoch are copied first;
// a node of this epoch is the writer's own and written in place.
func (s *store[T]) slot(i uint32, epoch uint64) *T {
	hi := int(i >> (2 * vecBits))
	if s.epoch != epoch {
		s.root, s.epoch = slices.Clone(s.root), epoch
	}
	for hi >= len(s.root) {
		s.root = append(s.root, nil)
	}
	mid := own(&s.root[hi], &s.mids, i>>(2*vecBits), epoch)
	leaf := own(&mid[i>>vecBits&vecMask], &s.leaves, i>>vecBits, epoch)
	return &leaf[i&vecMask]
}

// own makes the node at p one of this epoch; i is its number among those of its level.
func own[N any](p **N, epochs *slab[uint64], i uint32, epoch uint64) *N {
	epochs.grow(i)
	of := epochs.at(i)
	if *of != epoch {
		n := new(N)
		if *p != nil {
			*n = **p
		}
		*p, *of = n, epoch
	}
	return *p
}

// bitmap is an array of bits that all snapshots share: changed in place by
// atomic operations and growing by whole chunks, so that a copy of the struct
// sees every later change of the bits it covers.
type bitmap struct{ chunks []*bitChunk }

type bitChunk [bitWords]atomic.Uint32

const (
	bitWords  = 1024
	chunkBits = bitWords * 32
)

// grow makes bits 0..i addressable. Older copies stay valid: append never
// writes an element that they can index.
func (b *bitmap) grow(i uint32) {
	for int(i/chunkBits) >= len(b.chunks) {
		b.chunks = append(b.chunks, new(bitChunk))
	}
}

func (b *bitmap) word(i uint32) *atomic.Uint32 {
	return &b.chunks[i/chunkBits][i/32%bitWords]
}

func (b *bitmap) test(i uint32) bool { return b.word(i).Load()>>(i%32)&1 != 0 }

// set loads before it stores: a bit that is set already costs its readers no
// write to shared memory.
func (b *bitmap) set(i uint32) {
	w, bit := b.word(i), uint32(1)<<(i%32)
	if w.Load()&bit == 0 {
		w.Or(bit)
	}
}

// clear reports whether the bit was set.
func (b *bitmap) clear(i uint32) bool {
	w, bit := b.word(i), uint32(1)<<(i%32)
	return w.Load()&bit != 0 && w.And(^bit)&bit != 0
}

// slab is an array of T that grows by chunks and so never moves or copies what
// it holds. Only the writer uses it.
type slab[T any] struct{ chunks []*[slabLen]T }

const slabLen = 256

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/slabLen][i%slabLen] }

func (s *slab[T]) grow(i uint32) {
	for int(i/slabLen) >= len(s.chunks) {
		s.chunks = append(s.chunks, new([slabLen]T))
	}
}

// ids hands out small numbers. A freed number rests while idRest others are
// freed after it, so that counters kept by number outside of this package are
// not soon credited to a successor. Number 0 is never handed out.
type ids struct {
	next uint32
	free []uint32 // a queue: free[head:] in order of release
	head int
}

const idRest = 256

func (p *ids) take() uint32 {
	if p.resting() > idRest {
		id := p.free[p.head]
		p.head++
		if p.head == len(p.free)/2 {
			p.free = p.free[:copy(p.free, p.free[p.head:])]
			p.head = 0
		}
		return id
	}
	p.next++
	return p.next
}

// resting returns how many numbers are not in use.
func (p *ids) resting() int { return len(p.free) - p.head }

func (p *ids) put(id uint32) { p.free = append(p.free, id) }
