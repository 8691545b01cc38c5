package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// admits says why n cannot have a further EID-Prefix.
func (n *Node) admits(iid uint32, p netip.Prefix) error {
	switch a := p.Addr(); {
	case n.Mode == ModePxTR:
		return errors.New("a PxTR has no EIDs of its own: say operating-mode = xTR to be both")
	case p.Bits() == 0:
		return fmt.Errorf("%s holds every address there is", p)
	case a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsUnspecified() && p.IsSingleIP():
		return fmt.Errorf("%s are no addresses that a host can be reached at", p)
	case n.Mode == ModeMN && !p.IsSingleIP():
		return fmt.Errorf("a mobile node is one host: %s must be a /%d (say operating-mode = xTR for a router)", p, a.BitLen())
	}
	for _, m := range n.Mappings {
		if m.IID != iid {
			return fmt.Errorf("there is one device, and so one instance: iid %d (line %d) or %d", m.IID, m.Line, iid)
		}
		if n.Mode == ModeMN && m.Prefix.Addr().Is4() == p.Addr().Is4() {
			// The device has one address per family, as packets without an
			// explicit source need one answer to which EID they come from.
			return fmt.Errorf("a mobile node has one EID per address family: %s (line %d) or %s", m.Prefix, m.Line, p)
		}
	}
	return nil
}

// reachable reports addresses that must be reached without LISP, and are EIDs of ours
// (RFC 9301 §8.1).
func (r *reader) reachable(n *Node) {
	for _, m := range n.Mappings {
		ours := func(what string, a netip.Addr) {
			if a.IsValid() && m.Prefix.Contains(a) {
				r.probs.errorf(m.Line, "database-mapping.eid-prefix", "%s holds the %s %s, which has to be outside of it", m.Prefix, what, a)
			}
		}
		for _, a := range n.MapResolvers {
			ours("Map-Resolver", a)
		}
		for _, s := range n.MapServers {
			ours("Map-Server", s.Addr)
		}
		for _, o := range n.Mappings {
			for _, l := range o.Locators {
				ours("locator", l.Addr)
			}
		}
	}
}

// AddMapping adds an EID-Prefix with the locators of another one: of the longest
// that holds it, else of the first. A ttl of 0 is that one's too. The slice of
// Mappings is a new one; on an error, which says what to do, nothing has changed.
func (n *Node) AddMapping(iid uint32, p netip.Prefix, ttl time.Duration) error {
	if len(n.Mappings) == 0 {
		return errors.New("there is no EID-Prefix whose locators it could have: add it to the configuration and reload")
	}
	like := n.Mappings[0]
	held := -1
	for _, m := range n.Mappings {
		switch {
		case m.IID == iid && m.Prefix == p:
			return fmt.Errorf("%v is in the database already", p)
		case m.Prefix.Bits() <= p.Bits() && m.Prefix.Contains(p.Addr()) && m.Prefix.Bits() > held:
			like, held = m, m.Prefix.Bits()
		}
	}
	if err := n.admits(iid, p); err != nil {
		return err
	}
	like.Prefix = p
	if ttl != 0 {
		like.TTL = ttl
	}
	n.Mappings = append(slices.Clone(n.Mappings), like)
	return nil
}

// RemoveMapping takes an EID-Prefix out, and reports whether it was there. The slice
// of Mappings is a new one.
func (n *Node) RemoveMapping(iid uint32, p netip.Prefix) bool {
	left := slices.DeleteFunc(slices.Clone(n.Mappings), func(m DatabaseMapping) bool { return m.IID == iid && m.Prefix == p })
	found := len(left) < len(n.Mappings)
	n.Mappings = left
	return found
}
