package mapcache

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/xtrkit/xtrkit/lisp"
)

// slot is the value of the trie. It must never get a Clone method: the trie
// would call it for every neighbour of every update.
type slot struct{ set, entry uint32 }

// instance wraps the trie of an instance: a *bart.Table has a Clone method, see slot.
type instance struct{ table *bart.Table[slot] }

// View is what packets are forwarded by: the mappings as of one Publish and the
// reachability of locators as it is now. It is safe for concurrent use. Take one
// per batch of packets and drop it: it keeps alive what it shows.
type View struct {
	main      *bart.Table[slot]
	sets      vec[hotSet]
	locators  vec[hotLocator]
	used      bitmap
	down      bitmap
	instances *bart.Table[instance]
}

// Decision says what to do with a packet.
type Decision struct {
	Locator   Locator // where to tunnel it, if Verdict is Encapsulate
	LocatorID uint32  // small number of Locator for counters, never 0; reused some time after the locator is gone
	EntryID   uint32  // small number of the entry, 0 on a Miss; reused likewise
	Verdict   Verdict
	Action    lisp.Action // of the negative mapping behind Native, Drop and SendRequest
}

// Forward decides about a packet to dst in instance iid, whose flow has the given
// hash (FlowHash), and marks the entry that it finds as used. It allocates
// nothing and takes no lock. An IPv4-mapped dst is looked up as IPv4; an invalid
// one is a Miss.
func (v *View) Forward(iid uint32, dst netip.Addr, hash uint32) (d Decision) {
	table := v.main
	if iid != 0 {
		if table = v.instance(iid); table == nil {
			return d
		}
	}
	if dst.Is4In6() {
		dst = dst.Unmap()
	}
	s, ok := table.Lookup(dst)
	if !ok {
		return d
	}
	v.used.set(s.entry)
	d.EntryID = s.entry
	set := v.sets.at(s.set)
	if set.verdict != Encapsulate {
		d.Verdict, d.Action = set.verdict, set.action
		return d
	}
	id := v.pick(set, hash)
	if id == noLocator {
		d.Verdict = NoLocator
		return d
	}
	d.Verdict, d.LocatorID, d.Locator = Encapsulate, id, v.locators.at(id).Locator
	return d
}

// pick returns the locator of a flow, or noLocator.
func (v *View) pick(set *hotSet, hash uint32) uint32 {
	bucket := uint64(hash) * uint64(set.buckets) >> 32
	var id uint32
	switch {
	case set.buckets <= inlineMax: // 0 buckets: inline[0] is noLocator
		id = set.inline[bucket]
	default:
		id = set.choice.members[set.choice.far[bucket]].id()
	}
	if v.down.test(id) {
		return set.choice.rendezvous(v, hash)
	}
	return id
}

func (v *View) instance(iid uint32) *bart.Table[slot] {
	if iid > maxIID {
		return nil
	}
	in, _ := v.instances.Lookup(instanceAddr(iid))
	return in.table
}

// instanceAddr maps an Instance ID to a key of the trie of instances.
func instanceAddr(iid uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(iid >> 16), byte(iid >> 8), byte(iid)})
}

func instancePrefix(iid uint32) netip.Prefix { return netip.PrefixFrom(instanceAddr(iid), 24) }
