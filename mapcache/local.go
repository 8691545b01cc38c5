package mapcache

import "net/netip"

// ChooseLocal picks the locator of ours from which to send a flow to remote:
// among those of the same address family that are Up and whose Priority is not
// 255, the lowest Priority, shared by Weight (RFC 9300 §9: which of its own RLOCs
// it sends from is the ITR's choice). The choice is consistent: a flow
// moves only when its locator goes away. It reports false if there is none.
// No allocation; O(len(ls)).
func ChooseLocal(ls []Local, remote netip.Addr, hash uint32) (int, bool) {
	is4 := remote.Unmap().Is4()
	level, at, ties := 2*255, -1, 0
	for i := range ls {
		l := ls[i].level(is4)
		switch {
		case l < level:
			level, at, ties = l, i, 1
		case l == level && at >= 0:
			ties++
		}
	}
	if ties <= 1 {
		return max(at, 0), at >= 0
	}
	var best score
	at = -1
	for i := range ls {
		if ls[i].level(is4) != level {
			continue
		}
		if s := ls[i].score(hash); at < 0 || s.less(best) {
			at, best = i, s
		}
	}
	return at, true
}

// ChooseJoin picks the locator of a mapping by which to join a multicast
// distribution tree: the lowest M Priority, shared by M Weight; never one with
// M Priority 255 (RFC 9301 §5.4). It reports false if there is none.
func ChooseJoin(rlocs []RLOC, hash uint32) (int, bool) {
	level, at := 2*255, -1
	var best score
	for i := range rlocs {
		r := &rlocs[i]
		l := 2 * int(r.MPriority)
		if r.MWeight == 0 {
			l++
		}
		if r.Down || r.MPriority == 255 || l > level {
			continue
		}
		s := makeScore(hash, r.Locator.normal().salt(), r.MWeight)
		if l < level || s.less(best) {
			level, at, best = l, i, s
		}
	}
	return max(at, 0), at >= 0
}

// level orders locators for ChooseLocal; 2*255 and more is unusable.
func (l *Local) level(is4 bool) int {
	a := l.Addr.Unmap()
	if !l.Up || !a.IsValid() || a.Is4() != is4 {
		return 2 * 255
	}
	level := 2 * int(l.Priority)
	if l.Weight == 0 {
		level++
	}
	return level
}

// score ranks l among those of its level for a flow.
func (l *Local) score(hash uint32) score {
	return makeScore(hash, Locator{Addr: l.Addr.Unmap(), IfIndex: l.IfIndex}.salt(), l.Weight)
}
