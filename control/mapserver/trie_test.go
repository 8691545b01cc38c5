package mapserver

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gaissmai/bart"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomPrefix draws from few addresses and all lengths, so that prefixes nest.
func randomPrefix(r *rand.Rand) netip.Prefix {
	var b [16]byte
	for i := range b {
		b[i] = []byte{0, 1, 0x10, 0x80, 0xff}[r.IntN(5)]
	}
	if r.IntN(2) == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:])), r.IntN(33)).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), r.IntN(129)).Masked()
}

// TestTrieIsATable: whatever is set and removed, it answers as bart.Table does.
func TestTrieIsATable(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 3))
		var trie regTrie
		var want bart.Table[*registration]
		var known []netip.Prefix
		pick := func() netip.Prefix {
			if len(known) > 0 && r.IntN(3) > 0 {
				return known[r.IntN(len(known))]
			}
			return randomPrefix(r)
		}
		for i := range 1500 {
			p := pick()
			if growing := i/300%2 == 0; r.IntN(4) > 0 == growing {
				reg := &registration{key: regKey{prefix: p}}
				trie.set(reg)
				want.Insert(p, reg)
				known = append(known, p)
			} else {
				trie.remove(p)
				want.Delete(p)
			}
			for range 3 {
				q := pick()
				wantReg, wantOK := want.Get(q)
				got, ok := trie.Get(q)
				require.Equal(t, wantOK, ok, "%v", q)
				require.Same(t, wantReg, got)
				wantLPM, wantReg, wantOK := want.LookupPrefixLPM(q)
				lpm, got, ok := trie.LookupPrefixLPM(q)
				require.Equal(t, wantOK, ok, "%v", q)
				require.Equal(t, wantLPM, lpm)
				require.Same(t, wantReg, got)
				var a, b []netip.Prefix
				for s := range want.Subnets(q) {
					a = append(a, s)
				}
				for s := range trie.Subnets(q) {
					b = append(b, s)
				}
				require.Equal(t, a, b, "subnets of %v", q)
				require.Equal(t, len(a) > 0, trie.contains(q, netip.Prefix{}))
			}
		}
		var a, b []netip.Prefix
		for p := range want.AllSorted() {
			a = append(a, p)
		}
		for p := range trie.All() {
			b = append(b, p)
			if len(b) == len(a)+1 {
				break
			}
		}
		require.Equal(t, a, b)
		for p := range trie.All() {
			trie.remove(p)
		}
		for _, root := range []*trieNode{&trie.v4, &trie.v6} {
			assert.Zero(t, root.kidCount+root.regCount)
			assert.Nil(t, root.only(), "no node is left behind")
		}
	}
}

// TestTrieUnderReaders: what stays is found all the time, whatever comes and
// goes around it.
func TestTrieUnderReaders(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var trie regTrie
	var stay, move []netip.Prefix
	used := map[netip.Prefix]bool{}
	for len(stay) < 60 || len(move) < 200 {
		p := randomPrefix(r)
		if used[p] {
			continue
		}
		used[p] = true
		if len(stay) < 60 {
			stay = append(stay, p)
			trie.set(&registration{key: regKey{prefix: p}})
		} else {
			move = append(move, p)
		}
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				for _, p := range stay {
					if reg, ok := trie.Get(p); !ok || reg.key.prefix != p {
						assert.Fail(t, "lost", "%v", p)
						return
					}
					host := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
					if lpm, reg, ok := trie.LookupPrefixLPM(host); !ok || !lpm.Contains(p.Addr()) || lpm.Bits() < p.Bits() || reg.key.prefix != lpm {
						assert.Fail(t, "no match", "%v gives %v", host, lpm)
						return
					}
				}
				seen := 0
				for p := range trie.All() {
					if used[p] {
						seen++
					}
				}
				if seen < len(stay) {
					assert.Fail(t, "walk", "%d", seen)
					return
				}
			}
		})
	}
	for range 40 {
		r.Shuffle(len(move), func(i, j int) { move[i], move[j] = move[j], move[i] })
		for _, p := range move {
			trie.set(&registration{key: regKey{prefix: p}})
		}
		for _, p := range move[:150] {
			trie.remove(p)
		}
	}
	stop.Store(true)
	wg.Wait()
}
