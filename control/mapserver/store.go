package mapserver

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"github.com/xtrkit/xtrkit/lisp"
)

// instance is one EID space: what is configured in it and what is registered.
type instance struct {
	iid   uint32
	sites atomic.Pointer[siteTable] // each immutable

	// regs is what workers read: the registrations that have a live claim.
	regs *regTrie
	// dead are those that have none, kept for late Deltas. It is the writer's own.
	dead *regTrie
}

// siteTable is whose the EID-Prefixes of an instance are.
type siteTable = bart.Table[*sitePrefix]

func newInstance(iid uint32) *instance {
	inst := &instance{iid: iid, regs: new(regTrie), dead: new(regTrie)}
	inst.sites.Store(new(siteTable))
	return inst
}

func (inst *instance) table() *siteTable { return inst.sites.Load() }

// regKey names a registration.
type regKey struct {
	inst   *instance
	prefix netip.Prefix // masked
}

// registration is everything registered for one EID-Prefix. It is immutable;
// the stamps inside its claims are not. That of a single claim is part of the
// claim, since most are.
type registration struct {
	item trieItem // the trie's
	key  regKey
	site *site
	one  [1]*claim // the claim, if it is one
	many *[]*claim // all of them, if they are several
}

// claims are those registered, the newest content first.
func (r *registration) claims() []*claim {
	switch {
	case r.many != nil:
		return *r.many
	case r.one[0] == nil:
		return nil
	}
	return r.one[:]
}

// holder says whose claim it is: an xTR by its identifiers, or by the address
// it registers from when it has none.
type holder struct {
	xtr  lisp.XTRID
	site lisp.SiteID
	addr netip.Addr // only without an xTR-ID
}

// order is a position in the order of all changes everywhere: by the hybrid
// clock, then by server.
type order struct{ seq, origin uint64 }

func (o order) compare(p order) int {
	return cmp.Or(cmp.Compare(o.seq, p.seq), cmp.Compare(o.origin, p.origin))
}

// Flags of a claim, from the Map-Register.
const (
	flagProxy    = 1 << iota // P
	flagSecurity             // S
	flagUseTTL               // T
	flagMerge                // a
	flagMobile               // R
	flagRelayed              // it came by an RTR
)

// claim is what one xTR has registered for one EID-Prefix.
type claim struct {
	registration // with this claim alone

	// Content: fixed.
	from      netip.Addr
	algorithm lisp.Algorithm
	keyID     uint8
	flags     uint8
	// The writer's own, here for their size.
	replaced bool   // another claim stands in its place, or none
	ended    bool   // its end has been told
	inSoon   bool   // of the wheel
	slot     uint16 // of the wheel plus one; 0: in none

	record  string // EID-Record as it came; empty when only a stamp has arrived
	content order

	// Stamps: written by the writer, read by workers.
	expires atomic.Int64 // ticks
	seen    atomic.Int64 // ticks of the last accepted Map-Register
	nonce   atomic.Uint64

	xtr *xtrState // fixed too; workers look at its nonce

	// The writer's own.
	stamp      order
	next, prev *claim // of the wheel, as the following
}

func newClaim(key regKey, of *site) *claim {
	c := &claim{registration: registration{key: key, site: of}}
	c.one[0] = c
	return c
}

// holder says whose c is.
func (c *claim) holder() holder {
	if c.xtr.xtr == (lisp.XTRID{}) {
		return holder{addr: c.from}
	}
	return holder{xtr: c.xtr.xtr, site: c.xtr.siteID}
}

// withdrawn tells by the Record TTL, the first word of an EID-Record.
func (c *claim) withdrawn() bool { return c.ttl() == 0 }

func (c *claim) ttl() uint32 { return recordTTL(c.record) }

// recordTTL is the Record TTL of an encoded EID-Record.
func recordTTL(r string) uint32 {
	return uint32(r[0])<<24 | uint32(r[1])<<16 | uint32(r[2])<<8 | uint32(r[3])
}

// recordVersion is the Map-Version of an encoded EID-Record.
func recordVersion[T []byte | string](r T) uint16 { return (uint16(r[8])<<8 | uint16(r[9])) & 0xfff }

func (c *claim) live(now int64) bool {
	return len(c.record) > 0 && c.expires.Load() > now && !c.withdrawn()
}

func (c *claim) merge() bool { return c.flags&flagMerge != 0 }

// current appends the claims that make the mapping to dst: the newest live one,
// and with it, if it asks for merging, all live ones that ask for the same
// (RFC 9301 §5.6, a bit).
func (r *registration) current(now int64, dst []*claim) []*claim {
	for _, c := range r.claims() {
		switch {
		case !c.live(now):
		case len(dst) == 0:
			dst = append(dst, c)
			if !c.merge() {
				return dst
			}
		case c.merge():
			dst = append(dst, c)
		}
	}
	return dst
}

func (r *registration) live(now int64) bool {
	return slices.ContainsFunc(r.claims(), func(c *claim) bool { return c.live(now) })
}

// newest is the live claim with the newest content.
func (r *registration) newest(now int64) *claim {
	for _, c := range r.claims() {
		if c.live(now) {
			return c
		}
	}
	return nil
}

func (r *registration) find(h holder) *claim {
	for _, c := range r.claims() {
		if c.holder() == h {
			return c
		}
	}
	return nil
}

// with is r with c instead of old; either may be nil.
func (r *registration) with(c, old *claim) *registration {
	list := make([]*claim, 0, len(r.claims())+1)
	for _, e := range r.claims() {
		if e != old {
			list = append(list, e)
		}
	}
	if c != nil {
		i, _ := slices.BinarySearchFunc(list, c, func(e, c *claim) int { return c.content.compare(e.content) })
		list = slices.Insert(list, i, c)
	}
	switch len(list) {
	case 0:
		return &registration{key: r.key, site: r.site}
	case 1:
		return &list[0].registration
	}
	return &registration{key: r.key, site: r.site, many: &list}
}

// match finds the longest live registration that covers p.
func (inst *instance) match(now int64, p netip.Prefix) *registration {
	for {
		lpm, r, ok := inst.regs.LookupPrefixLPM(p)
		if !ok || r.live(now) {
			return r
		}
		// Expired, but not yet removed by the writer.
		if lpm.Bits() == 0 {
			return nil
		}
		p = netip.PrefixFrom(p.Addr(), lpm.Bits()-1).Masked()
	}
}

// siteOf finds whose EID-Prefix p is. It fails when p is longer than configured
// and the site doesn't accept that.
func (inst *instance) siteOf(p netip.Prefix) (*sitePrefix, bool) {
	if inst == nil {
		return nil, false
	}
	lpm, sp, ok := inst.table().LookupPrefixLPM(p)
	if !ok || sp.site == nil || lpm.Bits() != p.Bits() && !sp.more {
		return nil, false
	}
	return sp, true
}

// hole is the least specific prefix that contains p, is at least least bits
// long, and for which taken is false. taken must be monotone: true for every
// prefix that contains one for which it is true.
func hole(p netip.Prefix, least int, taken func(netip.Prefix) bool) netip.Prefix {
	lo, hi := least, p.Bits()
	for lo < hi {
		mid := (lo + hi) / 2
		if taken(netip.PrefixFrom(p.Addr(), mid).Masked()) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return netip.PrefixFrom(p.Addr(), lo).Masked()
}

// contains tells whether t has a prefix inside p other than except.
func contains[V any](t *bart.Table[V], p, except netip.Prefix) bool {
	for q := range t.Subnets(p) {
		if q != except {
			return true
		}
	}
	return false
}
