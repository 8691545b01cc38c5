package mapcache

import (
	"math"
	"net/netip"
)

// Pair is what probing has found out about the path from a locator of ours to a
// remote one. The control plane says it, and a data plane prefers pairs of a
// lower Rank: [ChooseLocalBy] and [View.ForwardBy] choose so.
type Pair struct {
	Local  netip.Addr
	Remote Locator
	// Rank is 0 for a pair that nothing is said of and that is as good as any.
	// PairDown is one that does not answer. What is between orders those that do,
	// by measured round-trip time for instance.
	Rank uint8
}

// PairDown is the Rank of a pair that does not answer: it is used only if no
// other pair is left.
const PairDown = 255

// CostDown is the least cost of a locator that none of ours reaches.
const CostDown = 1 << 10

// What is added to the cost of a locator, each more than what comes before.
const (
	costBehind = 1 << 8 // it is reached only from a less preferred one of ours
	costIdle   = 1 << 9 // Weight 0 gives it no share while there are others
)

// ChooseLocalBy is [ChooseLocal] where rank tells the Rank of the pair of a
// locator, by its index in ls, with the remote one: what is PairDown counts as
// not Up, and of those of the best Priority that are left only those of the
// lowest Rank share the flows. cost is that Rank, more where a less preferred
// locator has to be taken because all better ones are PairDown, and at least
// CostDown, with the choice of ChooseLocal, if all are. It reports false if
// there is none at all.
// No allocation; O(len(ls)).
func ChooseLocalBy(ls []Local, remote netip.Addr, hash uint32, rank func(i int) uint8) (i, cost int, ok bool) {
	const unusable = 2 * 255
	is4 := remote.Unmap().Is4()
	top, level, lowest, at, ties := unusable, unusable, uint8(PairDown), -1, 0
	for i := range ls {
		l := ls[i].level(is4)
		if l >= unusable {
			continue
		}
		top = min(top, l)
		r := rank(i)
		switch {
		case r == PairDown || l > level:
		case l < level || r < lowest:
			level, lowest, at, ties = l, r, i, 1
		case r == lowest:
			ties++
		}
	}
	if at < 0 {
		i, ok = ChooseLocal(ls, remote, hash)
		return i, CostDown, ok
	}
	cost = int(lowest)
	if level > top {
		cost += costBehind
	}
	if ties == 1 {
		return at, cost, true
	}
	var best score
	at = -1
	for i := range ls {
		if ls[i].level(is4) != level || rank(i) != lowest {
			continue
		}
		if s := ls[i].score(hash); at < 0 || s.less(best) {
			at, best = i, s
		}
	}
	return at, cost, true
}

// ForwardBy is [View.Forward] where cost tells what a locator costs that the
// mapping allows: of those of the best Priority only those of the lowest cost
// share the flows. A flow whose locator is one of them keeps it. Whatever they
// cost, no locator of a worse Priority is taken instead, nor one of Weight 0
// while another has a cost below CostDown.
// No allocation; O(number of locators).
func (v *View) ForwardBy(iid uint32, dst netip.Addr, hash uint32, cost func(id uint32, l Locator) int) Decision {
	d := v.Forward(iid, dst, hash)
	if d.Verdict != Encapsulate {
		return d
	}
	s, ok := v.table(iid).Lookup(dst.Unmap())
	if !ok {
		return d
	}
	ch := v.sets.at(s.set()).choice
	priority := bestPriority(ch.members, v)
	costOf := func(m *member) int {
		c := cost(m.locator, v.locators.at(m.locator).locator())
		if m.weight == 0 && c < CostDown {
			c += costIdle
		}
		return c
	}
	// If the locator is not of that Priority it is just going down or coming up.
	lowest, pick, alone := math.MaxInt, d.LocatorID, true
	for i := range ch.members {
		m := &ch.members[i]
		if m.priority != priority || !m.usable() || v.down.test(m.locator) {
			continue
		}
		switch c := costOf(m); {
		case c < lowest:
			lowest, pick, alone = c, m.locator, true
		case c > lowest:
		case m.locator == d.LocatorID:
			pick = m.locator
		default:
			alone = false
		}
	}
	if pick == d.LocatorID {
		return d
	}
	if !alone {
		pick = ch.favouriteIf(v, priority, hash, func(m *member) bool { return costOf(m) == lowest })
		if pick == noLocator {
			return d
		}
	}
	v.complete(&d, Choice{LocatorID: pick, EntryID: d.EntryID, Verdict: Encapsulate})
	return d
}
