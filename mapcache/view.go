package mapcache

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/xtrkit/xtrkit/lisp"
)

// instance wraps the trie of an instance: a *bart.Table has a Clone method, see slot.
type instance struct{ table *bart.Table[slot] }

// View is what packets are forwarded by: the mappings as of one Publish and the
// reachability of locators as it is now. It is safe for concurrent use. Take one
// per batch of packets and drop it: it keeps alive what it shows.
type View struct {
	main      *bart.Table[slot]
	macs      *bart.Table[slot]
	sets      vec[hotSet]
	locators  vec[hotLocator]
	used      bitmap
	down      bitmap
	instances *bart.Table[instance]
	stamp     *byte // another one for each View
}

// Decision says what to do with a packet. Its numbers are small, for use as
// indices of counters; some time after an entry or a locator is gone its number
// is given to another.
type Decision struct {
	Locator   Locator // where to tunnel the packet, if Verdict is Encapsulate
	LocatorID uint32  // 0 unless Verdict is Encapsulate
	EntryID   uint32  // 0 on a Miss
	Verdict   Verdict
	Action    lisp.Action // of the negative mapping behind Native, Drop and SendRequest
}

// Choice is a Decision in short, with the locator by its number.
type Choice struct {
	LocatorID uint32
	EntryID   uint32
	Verdict   Verdict
	Action    lisp.Action
}

// Forward decides about a packet to dst in instance iid, whose flow has the given
// hash (FlowHash), and marks the entry that it finds as used. It allocates
// nothing and takes no lock. An IPv4-mapped dst is looked up as IPv4; an invalid
// one is a Miss.
func (v *View) Forward(iid uint32, dst netip.Addr, hash uint32) (d Decision) {
	v.complete(&d, v.Choose(iid, dst, hash))
	return d
}

// ForwardBatch is Forward for packets of one instance to dst[0], dst[1], ...: it
// fills in as many of out as there are dst, and needs as many hashes. The locators are
// read after all lookups, so that the memory they are in is fetched for many
// packets at a time: that pays where most mappings have locators of their own.
func (v *View) ForwardBatch(iid uint32, dst []netip.Addr, hash []uint32, out []Decision) {
	hash, out = hash[:len(dst)], out[:len(dst)]
	for i, a := range dst {
		ch := v.Choose(iid, a, hash[i])
		out[i] = Decision{LocatorID: ch.LocatorID, EntryID: ch.EntryID, Verdict: ch.Verdict, Action: ch.Action}
	}
	v.completeBatch(out)
}

// completeBatch adds the locators of Decisions that are complete but for them.
func (v *View) completeBatch(out []Decision) {
	for i := range out {
		if d := &out[i]; d.Verdict == Encapsulate {
			v.locators.at(d.LocatorID).put(&d.Locator)
		}
	}
}

// complete makes a Decision, zero before, of a Choice.
func (v *View) complete(d *Decision, ch Choice) {
	d.LocatorID, d.EntryID, d.Verdict, d.Action = ch.LocatorID, ch.EntryID, ch.Verdict, ch.Action
	if ch.Verdict == Encapsulate {
		v.locators.at(ch.LocatorID).put(&d.Locator)
	}
}

// Locator returns the locator with the number id of a Choice. The numbers of one
// View do not change their meaning; one that no mapping lists any more, or only
// in a later View, has the zero Locator.
func (v *View) Locator(id uint32) Locator {
	if h := v.locators.find(id); h != nil {
		return h.locator()
	}
	return Locator{}
}

// Choose is Forward without the copy of the locator, for data planes that keep
// something ready per locator.
func (v *View) Choose(iid uint32, dst netip.Addr, hash uint32) Choice {
	s, ok := v.lookup(iid, dst)
	if !ok {
		return Choice{}
	}
	return v.choose(s, hash)
}

// lookup finds the slot of a destination.
func (v *View) lookup(iid uint32, dst netip.Addr) (s slot, ok bool) {
	table := v.table(iid)
	if table == nil {
		return slot{}, false
	}
	if dst.Is4In6() {
		dst = dst.Unmap()
	}
	return table.Lookup(dst)
}

// choose marks the entry of a slot as used, and chooses for a flow. Most often the
// slot says it all.
func (v *View) choose(s slot, hash uint32) Choice {
	entry := s.entry()
	v.used.set(entry)
	if id := s.pick(hash); !v.down.test(id) {
		return Choice{LocatorID: id, EntryID: entry, Verdict: Encapsulate}
	}
	return v.chooseFrom(s.set(), entry, hash)
}

// chooseFrom is choose by the whole locator set.
func (v *View) chooseFrom(set, entry, hash uint32) Choice {
	h := v.sets.at(set)
	if h.verdict != Encapsulate {
		return Choice{EntryID: entry, Verdict: h.verdict, Action: h.action}
	}
	// Without buckets the bucket is 0, and inline[0] is noLocator, which is always down.
	var id uint32
	if bucket := bucketOf(hash, uint32(h.buckets)); h.buckets <= inlineMax {
		id = h.inline[bucket]
	} else {
		id = h.choice.members[(*h.choice.far)[bucket]].id()
	}
	if v.down.test(id) {
		if id = h.choice.fallback(v, hash); id == noLocator {
			return Choice{EntryID: entry, Verdict: NoLocator}
		}
	}
	return Choice{LocatorID: id, EntryID: entry, Verdict: Encapsulate}
}

// table returns the trie of an instance, nil if it has none.
func (v *View) table(iid uint32) *bart.Table[slot] {
	if iid == 0 {
		return v.main
	}
	return v.instance(iid)
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
