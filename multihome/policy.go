package multihome

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// Packet is what a Policy is told of a packet that is to leave the host.
type Packet struct {
	Src, Dst netip.Addr
	Protocol uint8  // of IP; of IPv6 the first next header
	DSCP     uint8  // 0..63
	Mark     uint32 // firewall mark; 0: none
	// MarkUnknown: there is a mark which names nothing, and its value is not known.
	MarkUnknown bool
}

// Otherwise is what becomes of a packet when nothing that its Rule names is usable.
type Otherwise uint8

// What becomes of a packet. Fallback lets it leave as if there were no Policy,
// DropPacket drops it, NextRule asks the rules that follow.
const (
	Fallback Otherwise = iota
	DropPacket
	NextRule
)

// Rule says by which uplink some packets leave. A packet has to match all of
// Sources, Destinations, DSCPs and Mark that are given.
type Rule struct {
	Sources, Destinations []netip.Prefix // one of which holds the address; empty: any
	DSCPs                 []uint8        // one of which the packet has; empty: any
	Mark                  uint32         // that the packet has, within PolicyConfig.MarkMask; 0: any

	// One of the following says by which uplink. Without any, packets leave as if
	// there were no Policy, or are dropped if Otherwise says so.

	// Interfaces are names, or patterns as of path.Match, the best first: the first
	// that is usable counts.
	Interfaces []string
	// ByMark: the mark is the index of the interface, the convention of LISPmob.
	// The rule is for packets with a mark only.
	ByMark bool
	// Choose returns the index of the interface, or 0 if the rule is not for this
	// packet. It is called from several goroutines.
	Choose func(Packet) int

	Otherwise Otherwise
}

// PolicyConfig makes a Policy.
type PolicyConfig struct {
	Rules []Rule // in order: the first that matches decides
	// MarkMask says which bits of a firewall mark are ours; the others are for
	// other software. 0: all.
	MarkMask uint32
}

// Decision is what a Policy says. The zero Decision: leave as if there were none.
type Decision struct {
	IfIndex  int  // the interface to leave by; 0: any
	Only     bool // by no other: drop the packet if it cannot leave by IfIndex
	Drop     bool // drop the packet
	Fallback bool // a rule matched, nothing that it names is usable, and the packet leaves as if there were none
}

// Policy decides which uplink a packet leaves by. Update tells it which interfaces
// are usable; any number of goroutines may call Decide meanwhile.
type Policy struct {
	mask  uint32
	rules atomic.Pointer[[]policyRule]
	base  []policyRule // as configured
}

// policyRule is a Rule made ready for packets.
type policyRule struct {
	src, dst  prefixSet
	dscps     uint64 // bit by DSCP; 0: any
	mark      uint32 // 0: any
	byMark    bool
	choose    func(Packet) int
	otherwise Otherwise
	named     bool // there are names
	names     []string
	ifIndex   int   // what they stand for now, 0: nothing
	usable    []int // indices of all interfaces that are
}

// NewPolicy makes a Policy for which no interface is usable yet. The error wraps
// ErrConfig and names the rule by its place, from 1 on.
func NewPolicy(cfg PolicyConfig) (*Policy, error) {
	p := &Policy{mask: cfg.MarkMask}
	if p.mask == 0 {
		p.mask = ^uint32(0)
	}
	for i, r := range cfg.Rules {
		c, err := p.compile(r)
		if err != nil {
			return nil, fmt.Errorf("multihome: %w: rule %d: %w", ErrConfig, i+1, err)
		}
		p.base = append(p.base, c)
	}
	p.Update(nil)
	return p, nil
}

func (p *Policy) compile(r Rule) (c policyRule, err error) {
	c = policyRule{
		mark: r.Mark, byMark: r.ByMark, choose: r.Choose, otherwise: r.Otherwise,
		named: len(r.Interfaces) > 0, names: slices.Clone(r.Interfaces),
	}
	ways := 0
	for _, way := range []bool{c.named, r.ByMark, r.Choose != nil} {
		if way {
			ways++
		}
	}
	switch {
	case ways > 1:
		return c, fmt.Errorf("more than one of Interfaces, ByMark and Choose")
	case ways == 0 && r.Otherwise == NextRule || r.Otherwise > NextRule:
		return c, fmt.Errorf("it does nothing")
	case r.Mark&^p.mask != 0:
		return c, fmt.Errorf("mark %#x has bits that the mask %#x has not", r.Mark, p.mask)
	}
	for _, n := range r.Interfaces {
		if _, err := path.Match(n, ""); err != nil || n == "" {
			return c, fmt.Errorf("interface pattern %q", n)
		}
	}
	for _, d := range r.DSCPs {
		if d > 63 {
			return c, fmt.Errorf("DSCP %d is not between 0 and 63", d)
		}
		c.dscps |= 1 << d
	}
	if err := c.src.add(r.Sources); err != nil {
		return c, err
	}
	return c, c.dst.add(r.Destinations)
}

// Marks returns the marks that rules name, in no particular order.
func (p *Policy) Marks() []uint32 {
	var marks []uint32
	for _, r := range p.base {
		if r.mark != 0 && !slices.Contains(marks, r.mark) {
			marks = append(marks, r.mark)
		}
	}
	return marks
}

// Update makes the interfaces that are usable in any family those that packets
// may leave by.
func (p *Policy) Update(ifs []Interface) {
	var up []Interface
	var usable []int
	for _, i := range ifs {
		if i.Usable(false) == Usable || i.Usable(true) == Usable {
			up = append(up, i)
			usable = append(usable, i.Index)
		}
	}
	rules := slices.Clone(p.base)
	for n := range rules {
		r := &rules[n]
		r.usable, r.ifIndex = usable, firstUp(r.names, up)
	}
	p.rules.Store(&rules)
}

// firstUp returns the index of the first interface that the first pattern matches
// which matches any.
func firstUp(names []string, up []Interface) int {
	for _, n := range names {
		for _, i := range up {
			if ok, _ := path.Match(n, i.Name); ok {
				return i.Index
			}
		}
	}
	return 0
}

// Decide says by which uplink a packet leaves. It allocates nothing and takes no
// lock; it looks at one rule after the other, which costs a few nanoseconds each.
func (p *Policy) Decide(pkt *Packet) Decision {
	rules := *p.rules.Load()
	for i := range rules {
		r := &rules[i]
		if !r.matches(pkt, p.mask) {
			continue
		}
		index := r.ifIndex
		switch {
		case r.named:
		case r.byMark:
			index = r.check(int(pkt.Mark&p.mask), pkt.MarkUnknown)
		case r.choose != nil:
			if index = r.choose(*pkt); index == 0 {
				continue
			}
			index = r.check(index, false)
		default:
			return Decision{Drop: r.otherwise == DropPacket}
		}
		switch {
		case index != 0:
			return Decision{IfIndex: index, Only: r.otherwise == DropPacket}
		case r.otherwise == DropPacket:
			return Decision{Drop: true}
		case r.otherwise == Fallback:
			return Decision{Fallback: true}
		}
	}
	return Decision{}
}

// matches reports whether the rule is for a packet.
func (r *policyRule) matches(pkt *Packet, mask uint32) bool {
	mark := pkt.Mark & mask
	switch {
	case r.mark != 0 && (mark != r.mark || pkt.MarkUnknown):
		return false
	case r.byMark && mark == 0 && !pkt.MarkUnknown:
		return false
	case r.dscps != 0 && r.dscps>>(pkt.DSCP&63)&1 == 0:
		return false
	}
	return r.src.holds(pkt.Src) && r.dst.holds(pkt.Dst)
}

// check returns the index if the interface is usable, else 0.
func (r *policyRule) check(index int, unknown bool) int {
	if unknown || !slices.Contains(r.usable, index) {
		return 0
	}
	return index
}

// prefixSet is a set of prefixes; the empty one holds every address.
type prefixSet struct {
	few  []netip.Prefix
	many *bart.Lite
}

// fewPrefixes are compared one by one.
const fewPrefixes = 4

func (s *prefixSet) add(ps []netip.Prefix) error {
	for _, p := range ps {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("prefix %v", p)
		}
		s.few = append(s.few, p.Masked())
	}
	if len(s.few) > fewPrefixes {
		s.many = new(bart.Lite)
		for _, p := range s.few {
			s.many.Insert(p)
		}
	}
	return nil
}

func (s *prefixSet) holds(a netip.Addr) bool {
	if len(s.few) == 0 {
		return true
	}
	if a.Is4In6() {
		a = a.Unmap()
	}
	if s.many != nil {
		return s.many.Lookup(a)
	}
	for _, p := range s.few {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
