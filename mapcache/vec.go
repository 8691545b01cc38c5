package mapcache

import (
	"slices"
	"sync/atomic"
)

// vec is a persistent array in three levels of fan-out 64: copying the struct
// takes a snapshot, and a write copies only the nodes on its path, once per
// epoch. Readers index a snapshot without synchronisation because a node that a
// snapshot can reach is never written again.
type vec[T any] struct {
	root  []*vecMid[T]
	epoch uint64 // of root
}

const (
	vecBits = 6
	vecFan  = 1 << vecBits
	vecMask = vecFan - 1
)

type vecMid[T any] struct {
	kids  [vecFan]*vecLeaf[T]
	epoch uint64
}

type vecLeaf[T any] struct {
	v     [vecFan]T
	epoch uint64
}

// at returns element i, which must have been set before. Read only.
func (v *vec[T]) at(i uint32) *T {
	return &v.root[i>>(2*vecBits)].kids[i>>vecBits&vecMask].v[i&vecMask]
}

// slot returns element i for writing. Nodes older than epoch are copied first;
// a node of this epoch is the writer's own and written in place.
func (v *vec[T]) slot(i uint32, epoch uint64) *T {
	hi := int(i >> (2 * vecBits))
	if v.epoch != epoch {
		v.root, v.epoch = slices.Clone(v.root), epoch
	}
	for hi >= len(v.root) {
		v.root = append(v.root, nil)
	}
	mid := v.root[hi]
	switch {
	case mid == nil:
		mid = &vecMid[T]{epoch: epoch}
	case mid.epoch != epoch:
		mid = &vecMid[T]{kids: mid.kids, epoch: epoch}
	}
	v.root[hi] = mid
	at := i >> vecBits & vecMask
	leaf := mid.kids[at]
	switch {
	case leaf == nil:
		leaf = &vecLeaf[T]{epoch: epoch}
	case leaf.epoch != epoch:
		leaf = &vecLeaf[T]{v: leaf.v, epoch: epoch}
	}
	mid.kids[at] = leaf
	return &leaf.v[i&vecMask]
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
	if len(p.free)-p.head > idRest {
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

func (p *ids) put(id uint32) { p.free = append(p.free, id) }
