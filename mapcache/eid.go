package mapcache

import (
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"
)

// eid is a Key in 24 octets, as entries keep it.
type eid struct {
	addr [16]byte // IPv4 as IPv4-mapped; a MAC in the first six
	iid  uint32
	bits uint8
	kind eidKind
}

type eidKind uint8

const (
	eidIPv4 eidKind = iota
	eidIPv6
	eidMAC
)

func packKey(k Key) eid {
	e := eid{iid: k.IID}
	switch {
	case k.isMAC():
		e.kind = eidMAC
		copy(e.addr[:], k.MAC[:])
	case k.Prefix.Addr().Is4():
		e.addr, e.bits = k.Prefix.Addr().As16(), uint8(k.Prefix.Bits())
	default:
		e.kind, e.addr, e.bits = eidIPv6, k.Prefix.Addr().As16(), uint8(k.Prefix.Bits())
	}
	return e
}

func (e *eid) key() Key {
	if e.kind == eidMAC {
		return Key{IID: e.iid, MAC: MAC(e.addr[:6])}
	}
	a := netip.AddrFrom16(e.addr)
	if e.kind == eidIPv4 {
		a = a.Unmap()
	}
	return Key{IID: e.iid, Prefix: netip.PrefixFrom(a, int(e.bits))}
}

// isMAC reports whether the Key names a MAC and nothing else.
func (k Key) isMAC() bool { return k.MAC != MAC{} && !k.Prefix.IsValid() }

// normal returns k in the form in which keys are compared.
func (k Key) normal() Key {
	n := MakeKey(k.IID, k.Prefix)
	n.MAC = k.MAC
	return n
}

// trie returns the trie that has the entries near k, and the prefix of a normal
// k in it. It is nil if the instance has none, and if k names nothing.
func (c *Cache) trie(k Key) (*trie, netip.Prefix) {
	switch {
	case k.isMAC() && k.IID <= maxIID:
		return &c.macs, netip.PrefixFrom(macAddr(k.IID, k.MAC), macTrieBits)
	case !k.Prefix.IsValid() || k.MAC != MAC{}:
		return nil, netip.Prefix{}
	case k.IID == 0:
		return &c.main, k.Prefix
	}
	return c.tries[k.IID], k.Prefix
}

// write is trie for a mutation, making the trie of the instance if need be.
func (c *Cache) write(k Key) (*trie, netip.Prefix) {
	c.dirty = true
	t, p := c.trie(k)
	if k.IID != 0 && !k.isMAC() {
		c.stale[k.IID] = struct{}{}
		if t == nil {
			t = &trie{table: new(bart.Table[slot])}
			c.tries[k.IID] = t
		}
	}
	return t, p
}

// writeSlot has the trie lead from k to an entry and its set.
func (c *Cache) writeSlot(k Key, entry, set uint32) {
	t, p := c.write(k)
	t.insert(p, makeSlot(entry, set, c.sets.hot.at(set)))
}

// find returns the entry of exactly k, which is normal.
func (c *Cache) find(k Key) (slot, bool) {
	t, p := c.trie(k)
	if t == nil {
		return slot{}, false
	}
	return t.table.Get(p)
}

// match returns the entry of exactly k, or else the longest that covers k.
func (c *Cache) match(k Key) (slot, bool) {
	t, p := c.trie(k)
	if t == nil {
		return slot{}, false
	}
	return t.table.LookupPrefix(p)
}

// macsOf iterates over the MAC entries of an instance, in order.
func (c *Cache) macsOf(iid uint32) iter.Seq2[netip.Prefix, slot] {
	return c.macs.table.Subnets(netip.PrefixFrom(macAddr(iid, MAC{}), 24))
}
