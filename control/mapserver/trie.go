package mapserver

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// regTrie holds the registrations of one instance by EID-Prefix. One goroutine
// writes it in place; any number read it meanwhile, without a lock. Each read
// sees every registration that stood in the trie all the while, and may or may
// not see one that came or went. A change is one pointer stored and, at times,
// a node made: no copy of a path as in a persistent trie, so that expiring a
// million registrations leaves no gigabytes to the garbage collector.
//
// It goes four bits a step. A node stands where EID-Prefixes part, or where one
// ends above others; a registration alone below a node hangs there whatever its length.
type regTrie struct {
	v4, v6 trieNode
}

// trieItem is what hangs on a node: a node, or a registration. Both have theirs in them.
type trieItem struct {
	node *trieNode
	reg  *registration
}

const (
	stride   = 4
	fanOut   = 1 << stride
	maxDepth = 128 / stride
)

type trieNode struct {
	item  trieItem
	key   trieKey // the bits common to everything here
	depth uint8   // how many steps that are

	// The writer's own.
	kidCount, regCount uint8

	reg atomic.Pointer[registration] // the EID-Prefix with all of key and no more
	// within are those of one to three bits more, by withinIndex; nil when there
	// never was any.
	within atomic.Pointer[[14]atomic.Pointer[registration]]
	kids   [fanOut]atomic.Pointer[trieItem] // by the next four bits
}

// trieKey is an address as a number, IPv4 ones in the upper 32 bits.
type trieKey struct{ hi, lo uint64 }

func keyOf(a netip.Addr) trieKey {
	if a.Is4() {
		b := a.As4()
		return trieKey{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return trieKey{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

// step is the four bits behind depth steps; depth < maxDepth.
func (k trieKey) step(depth uint8) int {
	if depth < 16 {
		return int(k.hi >> (60 - stride*depth) & (fanOut - 1))
	}
	return int(k.lo >> (60 - stride*(depth-16)) & (fanOut - 1))
}

// common is how many bits two keys share.
func (k trieKey) common(o trieKey) int {
	if x := k.hi ^ o.hi; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(k.lo^o.lo)
}

// withinIndex is the place of a prefix of n (1 to 3) bits of the four in v.
func withinIndex(v, n int) int { return 1<<n - 2 + v>>(stride-n) }

func (t *regTrie) root(p netip.Prefix) *trieNode {
	if p.Addr().Is4() {
		return &t.v4
	}
	return &t.v6
}

// Get finds the registration of exactly p.
func (t *regTrie) Get(p netip.Prefix) (*registration, bool) {
	k, l := keyOf(p.Addr()), p.Bits()
	for n := t.root(p); ; {
		extra := l - stride*int(n.depth)
		if extra < stride {
			r := n.own(k, extra)
			return r, r != nil
		}
		it := n.kids[k.step(n.depth)].Load()
		switch {
		case it == nil:
			return nil, false
		case it.reg != nil:
			if it.reg.key.prefix == p {
				return it.reg, true
			}
			return nil, false
		}
		n = it.node
		if at := stride * int(n.depth); at > l || k.common(n.key) < at {
			return nil, false
		}
	}
}

// own is the registration in n itself with extra (0 to 3) bits more than n.
func (n *trieNode) own(k trieKey, extra int) *registration {
	if extra == 0 {
		return n.reg.Load()
	}
	w := n.within.Load()
	if w == nil {
		return nil
	}
	return w[withinIndex(k.step(n.depth), extra)].Load()
}

// LookupPrefixLPM finds the registration of the longest EID-Prefix that covers p.
func (t *regTrie) LookupPrefixLPM(p netip.Prefix) (netip.Prefix, *registration, bool) {
	k, l := keyOf(p.Addr()), p.Bits()
	var best *registration
	for n := t.root(p); ; {
		extra := l - stride*int(n.depth)
		for e := min(extra, stride-1); e >= 0; e-- {
			if r := n.own(k, e); r != nil {
				best = r
				break
			}
			if e > 1 && n.within.Load() == nil {
				e = 1
			}
		}
		if extra < stride {
			break
		}
		it := n.kids[k.step(n.depth)].Load()
		if it == nil {
			break
		}
		if r := it.reg; r != nil {
			if b := r.key.prefix.Bits(); b <= l && k.common(keyOf(r.key.prefix.Addr())) >= b {
				best = r
			}
			break
		}
		n = it.node
		if at := stride * int(n.depth); at > l || k.common(n.key) < at {
			break
		}
	}
	if best == nil {
		return netip.Prefix{}, nil, false
	}
	return best.key.prefix, best, true
}

// Subnets yields p and what is inside it, by address and then by length.
func (t *regTrie) Subnets(p netip.Prefix) iter.Seq2[netip.Prefix, *registration] {
	return func(yield func(netip.Prefix, *registration) bool) {
		k, l := keyOf(p.Addr()), p.Bits()
		for n := t.root(p); ; {
			extra := l - stride*int(n.depth)
			switch {
			case extra <= 0:
				n.all(yield)
				return
			case extra < stride:
				first := k.step(n.depth)
				n.some(first, first+fanOut>>extra, extra, yield)
				return
			}
			it := n.kids[k.step(n.depth)].Load()
			if it == nil {
				return
			}
			if r := it.reg; r != nil {
				if q := r.key.prefix; q.Bits() >= l && k.common(keyOf(q.Addr())) >= l {
					yield(q, r)
				}
				return
			}
			n = it.node
			if k.common(n.key) < min(l, stride*int(n.depth)) {
				return
			}
		}
	}
}

// contains tells whether t has a prefix inside p other than except.
func (t *regTrie) contains(p, except netip.Prefix) bool {
	for q := range t.Subnets(p) {
		if q != except {
			return true
		}
	}
	return false
}

// All yields everything, IPv4 first, by address and then by length.
func (t *regTrie) All() iter.Seq2[netip.Prefix, *registration] {
	return func(yield func(netip.Prefix, *registration) bool) {
		if t.v4.all(yield) {
			t.v6.all(yield)
		}
	}
}

func (n *trieNode) all(yield func(netip.Prefix, *registration) bool) bool {
	if r := n.reg.Load(); r != nil && !yield(r.key.prefix, r) {
		return false
	}
	return n.some(0, fanOut, 1, yield)
}

// some yields what is in n behind the steps from first to before end, and has
// at least extra bits more than n.
func (n *trieNode) some(first, end, extra int, yield func(netip.Prefix, *registration) bool) bool {
	w := n.within.Load()
	for v := first; v < end; v++ {
		for e := extra; w != nil && e < stride; e++ {
			if v&(1<<(stride-e)-1) != 0 {
				continue // it began further in front
			}
			if r := w[withinIndex(v, e)].Load(); r != nil && !yield(r.key.prefix, r) {
				return false
			}
		}
		switch it := n.kids[v].Load(); {
		case it == nil:
		case it.reg != nil:
			if !yield(it.reg.key.prefix, it.reg) {
				return false
			}
		case !it.node.all(yield):
			return false
		}
	}
	return true
}

// set puts r in the place of its EID-Prefix. It is for the writer.
func (t *regTrie) set(r *registration) {
	if r.item.reg == nil {
		r.item.reg = r
	}
	t.root(r.key.prefix).set(keyOf(r.key.prefix.Addr()), r)
}

func (n *trieNode) set(k trieKey, r *registration) {
	l := r.key.prefix.Bits()
	for {
		extra := l - stride*int(n.depth)
		if extra < stride {
			n.setOwn(k, extra, r)
			return
		}
		slot := &n.kids[k.step(n.depth)]
		it := slot.Load()
		switch {
		case it == nil:
			n.kidCount++
			slot.Store(&r.item)
			return
		case it.reg != nil:
			q := it.reg.key.prefix
			if q != r.key.prefix {
				other := keyOf(q.Addr())
				m := newTrieNode(k, min(k.common(other), l, q.Bits())/stride)
				m.set(other, it.reg)
				m.set(k, r)
				it = &m.item
			} else {
				it = &r.item
			}
			slot.Store(it)
			return
		}
		at := stride * int(it.node.depth)
		c := min(k.common(it.node.key), at, l)
		if c < at { // it parts from what is there on the way
			m := newTrieNode(k, c/stride)
			m.kids[it.node.key.step(m.depth)].Store(it)
			m.kidCount++
			m.set(k, r)
			slot.Store(&m.item)
			return
		}
		n = it.node
	}
}

func newTrieNode(k trieKey, depth int) *trieNode {
	n := &trieNode{depth: uint8(depth)}
	n.item.node = n
	switch kept := uint(stride * depth); {
	case kept < 64:
		n.key.hi = k.hi &^ (1<<(64-kept) - 1)
	default:
		n.key = trieKey{k.hi, k.lo &^ (1<<(128-kept) - 1)}
	}
	return n
}

// setOwn sets or, with a nil r, removes a registration in n itself.
func (n *trieNode) setOwn(k trieKey, extra int, r *registration) {
	p := &n.reg
	if extra > 0 {
		w := n.within.Load()
		if w == nil {
			if r == nil {
				return
			}
			w = new([14]atomic.Pointer[registration])
			n.within.Store(w)
		}
		p = &w[withinIndex(k.step(n.depth), extra)]
	}
	old := p.Load()
	if old == nil && r != nil {
		n.regCount++
	}
	if old != nil && r == nil {
		n.regCount--
	}
	p.Store(r)
}

// remove takes the registration of p away. It is for the writer.
func (t *regTrie) remove(p netip.Prefix) {
	k, l := keyOf(p.Addr()), p.Bits()
	var above [maxDepth + 1]*trieNode
	depth := 0
	n := t.root(p)
	for {
		extra := l - stride*int(n.depth)
		if extra < stride {
			n.setOwn(k, extra, nil)
			break
		}
		slot := &n.kids[k.step(n.depth)]
		it := slot.Load()
		if it == nil {
			return
		}
		if it.reg != nil {
			if it.reg.key.prefix != p {
				return
			}
			n.kidCount--
			slot.Store(nil)
			break
		}
		if at := stride * int(it.node.depth); at > l || k.common(it.node.key) < at {
			return
		}
		above[depth] = n
		depth++
		n = it.node
	}
	// Nodes that are no fork any more go.
	for depth > 0 && n.kidCount+n.regCount <= 1 {
		depth--
		parent := above[depth]
		only := n.only()
		parent.kids[k.step(parent.depth)].Store(only)
		if only != nil {
			return
		}
		parent.kidCount--
		n = parent
	}
}

// only is the one thing left in n, or nil.
func (n *trieNode) only() *trieItem {
	for i := range n.kids {
		if it := n.kids[i].Load(); it != nil {
			return it
		}
	}
	if r := n.reg.Load(); r != nil {
		return &r.item
	}
	if w := n.within.Load(); w != nil {
		for i := range w {
			if r := w[i].Load(); r != nil {
				return &r.item
			}
		}
	}
	return nil
}
