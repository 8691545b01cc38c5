package mapcache_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gaissmai/bart"
	"github.com/stretchr/testify/require"
	"github.com/yl2chen/cidranger"
	"golang.zx2c4.com/wireguard/device"

	"github.com/xtrkit/xtrkit/mapcache"
)

// contender prepares for a list of destinations, and then looks up dst[from:to].
type contender func(dst []netip.Addr) func(from, to int)

// sink keeps what lookups found alive.
var sink uint64

func contenderBart(ps []netip.Prefix) contender {
	table := new(bart.Table[uint64])
	for i, p := range ps {
		table.Insert(p, uint64(i))
	}
	return func(dst []netip.Addr) func(from, to int) {
		return func(from, to int) {
			for _, a := range dst[from:to] {
				v, _ := table.Lookup(a)
				sink += v
			}
		}
	}
}

func contenderChoose(view *mapcache.View) contender {
	return func(dst []netip.Addr) func(from, to int) {
		return func(from, to int) {
			for i, a := range dst[from:to] {
				sink += uint64(view.Choose(0, a, uint32(i)*0x9e3779b1).LocatorID)
			}
		}
	}
}

func contenderForward(view *mapcache.View) contender {
	return func(dst []netip.Addr) func(from, to int) {
		return func(from, to int) {
			for i, a := range dst[from:to] {
				d := view.Forward(0, a, uint32(i)*0x9e3779b1)
				sink += uint64(d.Locator.Port)
			}
		}
	}
}

// contenderBatch forwards 64 packets at a time.
func contenderBatch(view *mapcache.View) contender {
	return func(dst []netip.Addr) func(from, to int) {
		hash := make([]uint32, 64)
		for i := range hash {
			hash[i] = uint32(i) * 0x9e3779b1
		}
		out := make([]mapcache.Decision, len(hash))
		return func(from, to int) {
			for batch := range slices.Chunk(dst[from:to], len(hash)) {
				view.ForwardBatch(0, batch, hash, out)
				for i := range batch {
					sink += uint64(out[i].Locator.Port)
				}
			}
		}
	}
}

// octets is how the rivals from before netip want addresses; that it is done
// beforehand is in their favour.
func octets(dst []netip.Addr) [][]byte {
	list := make([][]byte, len(dst))
	for i, a := range dst {
		list[i] = a.AsSlice()
	}
	return list
}

// contenderAllowedIPs is the table of wireguard-go, from prefixes to 500 peers.
func contenderAllowedIPs(ps []netip.Prefix) contender {
	table := new(device.AllowedIPs)
	peers := make([]device.Peer, 500)
	for i, p := range ps {
		table.Insert(p, &peers[i%len(peers)])
	}
	return func(dst []netip.Addr) func(from, to int) {
		list := octets(dst)
		return func(from, to int) {
			for _, a := range list[from:to] {
				if table.Lookup(a) != nil {
					sink++
				}
			}
		}
	}
}

// rangerEntry is a value in a cidranger.Ranger.
type rangerEntry struct {
	network net.IPNet
	value   int
}

func (e *rangerEntry) Network() net.IPNet { return e.network }

func newRanger(tb testing.TB, ps []netip.Prefix) cidranger.Ranger {
	tb.Helper()
	ranger := cidranger.NewPCTrieRanger()
	for i, p := range ps {
		n := net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		require.NoError(tb, ranger.Insert(&rangerEntry{n, i}))
	}
	return ranger
}

// contenderRanger is cidranger, which returns all prefixes that match: the longest
// is the last one.
func contenderRanger(tb testing.TB, ps []netip.Prefix) contender {
	tb.Helper()
	ranger := newRanger(tb, ps)
	return func(dst []netip.Addr) func(from, to int) {
		list := octets(dst)
		return func(from, to int) {
			for _, a := range list[from:to] {
				if found, _ := ranger.ContainingNetworks(a); len(found) > 0 {
					sink += uint64(found[len(found)-1].(*rangerEntry).value)
				}
			}
		}
	}
}

// lockedMap is what one writes without a trie: a map under a sync.RWMutex, asked
// for every prefix length that occurs.
type lockedMap struct {
	mu   sync.RWMutex
	m    map[netip.Prefix]uint64
	bits [2][]int // lengths that occur, longest first: IPv4, IPv6
}

func newLockedMap(ps []netip.Prefix) *lockedMap {
	l := &lockedMap{m: make(map[netip.Prefix]uint64)}
	for i, p := range ps {
		l.insert(p, uint64(i))
	}
	return l
}

func (l *lockedMap) insert(p netip.Prefix, v uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m[p] = v
	bits := &l.bits[p.Addr().BitLen()/128]
	at, ok := slices.BinarySearchFunc(*bits, p.Bits(), func(have, want int) int { return want - have })
	if !ok {
		*bits = slices.Insert(*bits, at, p.Bits())
	}
}

func (l *lockedMap) lookup(a netip.Addr) (uint64, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, bits := range l.bits[a.BitLen()/128] {
		p, _ := a.Prefix(bits)
		if v, ok := l.m[p]; ok {
			return v, true
		}
	}
	return 0, false
}

func (l *lockedMap) lookups() contender {
	return func(dst []netip.Addr) func(from, to int) {
		return func(from, to int) {
			for _, a := range dst[from:to] {
				v, _ := l.lookup(a)
				sink += v
			}
		}
	}
}

// The rivals have to give the same answers for the comparison to mean anything.
func TestRivalsAgree(t *testing.T) {
	t.Parallel()
	for _, is6 := range []bool{false, true} {
		r := rand.New(rand.NewPCG(3, 4))
		ps := population(r, 11_000, is6)
		bare, locked, ranger := new(bart.Table[uint64]), newLockedMap(ps), newRanger(t, ps)
		allowed, peers := new(device.AllowedIPs), make([]device.Peer, len(ps))
		c := mapcache.New(mapcache.Config{MaxChanges: -1})
		for i, p := range ps {
			bare.Insert(p, uint64(i))
			allowed.Insert(p, &peers[i])
			require.NoError(t, c.Insert(t0, mapcache.Mapping{Key: mapcache.MakeKey(0, p), RLOCs: twoRLOCs(i), TTL: time.Hour}))
		}
		c.Publish()
		view := c.View()
		dst := probes(r, ps, false)[:5000]
		hash, batch := make([]uint32, len(dst)), make([]mapcache.Decision, len(dst))
		for i := range hash {
			hash[i] = r.Uint32()
		}
		view.ForwardBatch(0, dst, hash, batch)
		for i, a := range dst {
			v, ok := bare.Lookup(a)
			w, ok2 := locked.lookup(a)
			if !ok || !ok2 || v != w {
				t.Fatalf("%v: bart %d %v, map %d %v", a, v, ok, w, ok2)
			}
			if allowed.Lookup(a.AsSlice()) != &peers[v] {
				t.Fatalf("%v: AllowedIPs does not give %v", a, ps[v])
			}
			found, err := ranger.ContainingNetworks(a.AsSlice())
			if err != nil || len(found) == 0 || found[len(found)-1].(*rangerEntry).value != int(v) {
				t.Fatalf("%v: cidranger gives %v, not %v", a, found, ps[v])
			}
			d := view.Forward(0, a, hash[i])
			if want := twoRLOCs(int(v))[hash[i]>>31].Addr; d.Locator.Addr != want || batch[i] != d {
				t.Fatalf("%v: %v in a batch, %v alone, not %v", a, batch[i].Locator, d.Locator, want)
			}
		}
	}
}
