package encap

import (
	"net/netip"
	"sync/atomic"

	"github.com/xtrkit/xtrkit/mapcache"
)

// pairRanks is what is known of the pairs of our locators with one remote
// locator; nil: nothing. A list is never changed, SetPairs makes a new one.
type pairRanks = atomic.Pointer[[]pairRank]

type pairRank struct {
	local netip.Addr
	rank  uint8
}

// SetPairs takes what is known of pairs of locators. It changes what it names and
// nothing else, and holds from the next batch of packets on: a flow avoids a pair
// while there is one of a lower rank, first by another of our locators of the same
// Priority, then by another locator of the mapping of the same Priority, and then
// by one of ours of a worse Priority. Locators beyond the number that is tracked
// are left alone. It is safe for concurrent use.
func (f *Forwarder) SetPairs(pairs []mapcache.Pair) {
	c := f.remotes
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pairs {
		l := p.Remote
		l.Addr = l.Addr.Unmap().WithZone("")
		if l.Port == 0 {
			l.Port = l.Format.Port()
		}
		lc := c.byLocator[l]
		if lc == nil && p.Rank == 0 {
			continue
		}
		if lc == nil {
			lc = c.get(l, maxLocators)
		}
		if lc == c.other {
			continue
		}
		local := p.Local.Unmap().WithZone("")
		var next []pairRank
		if old := lc.pairs.Load(); old != nil {
			for _, o := range *old {
				if o.local != local {
					next = append(next, o)
				}
			}
		}
		if p.Rank != 0 {
			next = append(next, pairRank{local, p.Rank})
		}
		if next == nil {
			lc.pairs.Store(nil)
			continue
		}
		lc.pairs.Store(&next)
	}
}

func rankOf(ranks []pairRank, local netip.Addr) uint8 {
	for i := range ranks {
		if ranks[i].local == local {
			return ranks[i].rank
		}
	}
	return 0
}

// choosePair returns the locator of ours by which a flow leaves to l, of which
// c is the counter, and what it costs, see [mapcache.ChooseLocalBy].
func (t *localTable) choosePair(l mapcache.Locator, c *locatorCounter, hash uint32) (local, cost int, ok bool) {
	known := c.pairs.Load()
	if known == nil || l.IfIndex != 0 { // the mapping says which
		local, ok = t.choose(&l, hash)
		return local, 0, ok
	}
	return mapcache.ChooseLocalBy(t.locals, l.Addr, hash, func(i int) uint8 { return rankOf(*known, t.locals[i].Addr) })
}

// reroute chooses again, by what is known of pairs, where a packet goes that was
// to go to d, and by which of our locators. c becomes the counter of the locator.
func (e *egress) reroute(o *overlay, p *inner, hash uint32, d *mapcache.Decision, c **locatorCounter) (local int, ok bool) {
	local, cost, ok := e.locals.choosePair(d.Locator, *c, hash)
	if ok && cost == 0 {
		return local, true
	}
	better := e.view.ForwardBy(o.iid, p.dst, hash, func(id uint32, l mapcache.Locator) int {
		if l.Addr == p.dst || e.locals.owns(l.Addr) {
			return mapcache.CostDown
		}
		_, cost, ok := e.locals.choosePair(l, e.f.remotes.forID(id, &l), hash)
		if !ok {
			return mapcache.CostDown
		}
		return cost
	})
	if better.Verdict != mapcache.Encapsulate || better.LocatorID == d.LocatorID {
		return local, ok
	}
	*d = better
	*c = e.f.remotes.forID(d.LocatorID, &d.Locator)
	local, _, ok = e.locals.choosePair(d.Locator, *c, hash)
	return local, ok
}
