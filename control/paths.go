package control

import (
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// PairPlane is a Dataplane that chooses by pairs of locators: it is told which
// pairs RLOC-probing has found not to answer, and, with ProbeConfig.PreferRTT,
// which are slower. Another one only knows of locators that no pair reaches.
type PairPlane interface {
	Dataplane
	// SetPairs changes what is known of the pairs it names and of no others. All
	// others have rank 0.
	SetPairs([]mapcache.Pair)
}

// pairBook is what has been told of pairs, and what is to be told.
type pairBook struct {
	told  map[pathKey]uint8 // what is not 0
	dirty map[pathKey]uint8 // what differs from it
	taken bool              // somebody asks
}

// PairChanges returns what has changed since the last call of what a PairPlane
// has to know, in order.
func (e *Engine) PairChanges() []mapcache.Pair {
	e.pairs.taken = true
	if len(e.pairs.dirty) == 0 {
		return nil
	}
	out := make([]mapcache.Pair, 0, len(e.pairs.dirty))
	for k, rank := range e.pairs.dirty {
		out = append(out, mapcache.Pair{Local: k.local, Remote: k.locator, Rank: rank})
		if rank == 0 {
			delete(e.pairs.told, k)
		} else {
			e.pairs.told[k] = rank
		}
	}
	clear(e.pairs.dirty)
	slices.SortFunc(out, func(a, b mapcache.Pair) int {
		if c := compareLocators(a.Remote, b.Remote); c != 0 {
			return c
		}
		return a.Local.Compare(b.Local)
	})
	return out
}

// rankPair notes what a PairPlane is to know of k.
func (e *Engine) rankPair(k pathKey, rank uint8) {
	if e.pairs.told[k] == rank {
		delete(e.pairs.dirty, k)
		return
	}
	e.pairs.dirty[k] = rank
}

// rankPath is rankPair for a path that is probed.
func (e *Engine) rankPath(p *path) {
	rank := p.class
	switch {
	case p.down:
		rank = mapcache.PairDown
	case e.cfg.Probe.PreferRTT && rank == 0:
		rank = unmeasured
	}
	e.rankPair(p.key, rank)
}

// Round-trip times are told apart by class: each class reaches half as far again
// as the one below. A path leaves its class when its time is a fifth beyond it. It
// goes on in one direction freely, as a time does that follows a change, but does
// not turn round within rttHold, so that no flow goes to and fro.
const (
	rttUnit      = time.Millisecond // where the first class ends
	rttHold      = 30 * time.Second
	rttClasses   = 40
	unmeasured   = mapcache.PairDown - 1 // a pair that has not been measured yet
	rttMarginNum = 6
	rttMarginDen = 5
)

// classify puts p into the class of its round-trip time.
func (e *Engine) classify(now time.Time, p *path) {
	if !e.cfg.Probe.PreferRTT || p.rtt <= 0 {
		return
	}
	class := classOf(p.rtt)
	if p.class != 0 {
		low, high := classBounds(p.class)
		if class == p.class || p.rtt*rttMarginNum/rttMarginDen >= low && p.rtt < high*rttMarginNum/rttMarginDen {
			return
		}
		slower := class > p.class
		if !p.classAt.IsZero() && slower != p.slower && now.Sub(p.classAt) < rttHold {
			return
		}
		p.classAt, p.slower = now, slower
	}
	p.class = class
}

// classOf is the class of a round-trip time, from 1 on.
func classOf(rtt time.Duration) uint8 {
	class := uint8(1)
	for high := rttUnit; rtt >= high && class < rttClasses; high += high / 2 {
		class++
	}
	return class
}

// classBounds are the lowest time of a class and that of the next.
func classBounds(class uint8) (low, high time.Duration) {
	high = rttUnit
	for range class - 1 {
		low, high = high, high+high/2
	}
	return low, high
}

// forgetClasses begins anew with the classes of all paths, or ends them.
func (e *Engine) forgetClasses() {
	for _, p := range e.paths {
		p.class, p.classAt = 0, time.Time{}
		e.rankPath(p)
	}
}
