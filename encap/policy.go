package encap

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/xtrkit/xtrkit/mapcache"
)

// Mark is the firewall mark of inner packets, as far as it is known by the Device
// they came from: nothing else tells it, see [Forwarder.ReadMarked]. The zero
// Mark is none.
type Mark struct {
	Value uint32
	// Unknown: there is a mark, but none of those that anybody reckons with. Value
	// means nothing then.
	Unknown bool
}

// PolicyPacket is an inner packet as Config.Policy sees it.
type PolicyPacket struct {
	InstanceID uint32
	Src, Dst   netip.Addr
	Protocol   uint8 // of IPv6 the first next header
	DSCP       uint8
	Mark       Mark
}

// Uplink is by which uplink of ours a packet is to leave. The zero Uplink leaves
// that to the priorities and weights of our locators.
type Uplink struct {
	// IfIndex is the interface; 0: any. Packets go to the best locator of the
	// mapping that can be reached from the locators that are up there.
	IfIndex int
	// Only drops packets that cannot leave by IfIndex (DropPolicy); else they
	// leave as without a policy, and are counted (Stats.PolicyFallbacks).
	Only bool
	// Drop drops the packet.
	Drop bool
	// Fallback counts the packet as one that leaves otherwise than was wished.
	Fallback bool
}

// ReadMarked also encapsulates what d hands over: a further device of the overlay
// of an instance, which the host leads packets with a firewall mark to. It returns
// nil when d has been closed, which is the caller's to do, and an error if d
// fails. Any number of them may run. Nothing is written to d.
func (f *Forwarder) ReadMarked(instance uint32, d Device, mark Mark) error {
	o := f.overlay(instance)
	if o == nil {
		return fmt.Errorf("encap: device %s: there is no instance %d", d.Name(), instance)
	}
	if err := f.readDevice(o, d, mark); !ended(err) {
		return fmt.Errorf("encap: device %s: %w", d.Name(), err)
	}
	return nil
}

// steer asks the policy. It returns the locator of ours that the packet is to
// leave from, which may change where it goes to, or -1 if any will do.
func (e *egress) steer(o *overlay, p *inner, hash uint32, d *mapcache.Decision) (local int, why DropReason) {
	u := e.ask(o, p)
	if u.IfIndex != 0 && !u.Drop {
		if local := e.leaveBy(u.IfIndex, o, p, hash, d); local >= 0 {
			return local, DropNone
		}
		u.Drop, u.Fallback = u.Only, true
	}
	if u.Drop {
		return -1, DropPolicy
	}
	e.stray(u)
	return -1, DropNone
}

// ask asks the policy.
func (e *egress) ask(o *overlay, p *inner) Uplink {
	e.strayed = false
	e.subject = PolicyPacket{InstanceID: o.iid, Src: p.src, Dst: p.dst, Protocol: p.proto, DSCP: p.tos >> 2, Mark: e.mark}
	return e.f.cfg.Policy(&e.subject)
}

// stray counts a packet that leaves otherwise than was wished. Each is counted: no
// packet follows it unasked.
func (e *egress) stray(u Uplink) {
	if u.Fallback {
		e.strayed = true
		e.f.c.policyFallbacks.Add(1)
	}
}

// errPolicy says that a packet is not forwarded natively because of the policy.
var errPolicy = errors.New("dropped by policy")

// forwardNative forwards a packet as it is, by the uplink that the policy says.
func (e *egress) forwardNative(o *overlay, b []byte, p *inner) (mtu int, err error) {
	if e.f.cfg.Policy == nil {
		return e.f.cfg.Native.Forward(b)
	}
	u := e.ask(o, p)
	if u.IfIndex != 0 && !u.Drop {
		if s, ok := e.f.cfg.Native.(UplinkSender); ok {
			if mtu, err = s.ForwardBy(u.IfIndex, b); !errors.Is(err, ErrNoUplink) {
				return mtu, err
			}
		}
		u.Drop, u.Fallback = u.Only, true
	}
	if u.Drop {
		return 0, errPolicy
	}
	e.stray(u)
	return e.f.cfg.Native.Forward(b)
}

// leaveBy makes d a way out by an interface, and returns the locator of ours that
// it begins at, -1 if there is none.
func (e *egress) leaveBy(ifIndex int, o *overlay, p *inner, hash uint32, d *mapcache.Decision) int {
	ways := e.locals.by(ifIndex)
	via := mapcache.Via{IfIndex: ifIndex, IPv4: ways[0] >= 0, IPv6: ways[1] >= 0}
	better := *d
	if !via.Carries(&d.Locator) {
		better = e.view.ForwardVia(o.iid, p.dst, hash, via)
		if better.Verdict != mapcache.Encapsulate {
			return -1
		}
	}
	if local := ways[family(better.Locator.Addr)]; e.answers(local, &better) {
		*d = better
		return local
	}
	// No answer on this path: another locator of the mapping may have one.
	via.Except = func(id uint32, l mapcache.Locator) bool {
		if l.Addr == p.dst || e.locals.owns(l.Addr) {
			return true
		}
		c := e.f.remotes.forID(id, &l)
		return c.rank(e.locals.locals[ways[family(l.Addr)]].Addr) == mapcache.PairDown
	}
	better = e.view.ForwardVia(o.iid, p.dst, hash, via)
	if better.Verdict != mapcache.Encapsulate {
		return -1
	}
	*d = better
	return ways[family(better.Locator.Addr)]
}

// answers reports whether nothing is known against the path from a locator of
// ours to that of d.
func (e *egress) answers(local int, d *mapcache.Decision) bool {
	c := e.f.remotes.forID(d.LocatorID, &d.Locator)
	return c.rank(e.locals.locals[local].Addr) != mapcache.PairDown
}

func (c *locatorCounter) rank(local netip.Addr) uint8 {
	if known := c.pairs.Load(); known != nil {
		return rankOf(*known, local)
	}
	return 0
}

// by returns the indices of our best locators that are up on an interface, IPv4
// and IPv6; -1: there is none.
func (t *localTable) by(ifIndex int) [2]int {
	ways := [2]int{-1, -1}
	for i := range t.locals {
		l := &t.locals[i]
		if l.IfIndex != ifIndex || !l.Up || l.Priority == 255 { // RFC 9300 §9
			continue
		}
		if w := &ways[family(l.Addr)]; *w < 0 || l.Priority < t.locals[*w].Priority {
			*w = i
		}
	}
	return ways
}

// family is 0 for IPv4 and 1 for IPv6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
