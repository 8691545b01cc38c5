package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

// eidPlane is the data plane, as far as it has to know whose packets are ours.
func (n *Node) eidPlane() interface {
	SetEIDs(instance uint32, eids []netip.Prefix) error
} {
	if n.fast != nil {
		return n.fast
	}
	return n.forwarder
}

// EIDs are the EID-Prefixes that the node has now.
func (n *Node) EIDs() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	return eidsOf(n.conf)
}

// isEID reports whether an address is in one of the EID-Prefixes that the node has
// now.
func (n *Node) isEID(a netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return isEID(n.conf)(a)
}

// takeOver puts another configuration into force: tell hands it to the control
// plane, within the Runner. Packets of an EID-Prefix that is new are carried before
// anybody is told of it, and those of one that is gone until all have been. On an
// error all stays as it was. n.mu is held.
func (n *Node) takeOver(ctx context.Context, cfg *conf.Node, tell func(now time.Time) error) error {
	was, next := eidsOf(n.conf), eidsOf(cfg)
	other := !slices.Equal(was, next)
	if other {
		if err := n.holdsLocator(subtract(next, was)); err != nil {
			return err
		}
		all := slices.Concat(was, subtract(next, was))
		if err := n.carry(was, all); err != nil {
			return errors.Join(err, n.carry(all, was))
		}
	}
	var failed error
	if err := n.runner.Do(ctx, func(now time.Time) { failed = tell(now) }); err != nil || failed != nil {
		if other {
			failed = errors.Join(failed, n.carry(next, was))
		}
		return errors.Join(err, failed)
	}
	n.conf = cfg
	if !other {
		return nil
	}
	n.log.Info("the EID-Prefixes are others now", "eids", next, "before", was)
	if err := n.carry(was, next); err != nil {
		// They are others all the same: what is left over belongs to nobody.
		n.log.Error("the system refused to remove what an EID-Prefix had", "err", err)
	}
	return nil
}

// carry has device and data plane carry the packets of other EID-Prefixes. The
// device leads none to the data plane that would be dropped there, and has the MTU
// that they need.
func (n *Node) carry(was, eids []netip.Prefix) error {
	plane := n.eidPlane()
	if err := plane.SetEIDs(n.conf.IID, slices.Concat(was, subtract(eids, was))); err != nil {
		return err
	}
	if err := n.device.SetEIDs(eids); err != nil {
		return permission(err)
	}
	return plane.SetEIDs(n.conf.IID, eids)
}

// subtract returns what of ps is not among others.
func subtract(ps, others []netip.Prefix) (out []netip.Prefix) {
	for _, p := range ps {
		if !slices.Contains(others, p) {
			out = append(out, p)
		}
	}
	return out
}

// holdsLocator is an error if an EID-Prefix has a locator of ours in it, which then
// could not be one any more (RFC 9300 §4).
func (n *Node) holdsLocator(eids []netip.Prefix) error {
	locals, _ := locatorsOf(n.conf, n.seen)
	for _, p := range eids {
		for _, l := range locals {
			if p.Contains(l.Addr) {
				return fmt.Errorf("the EID-Prefix %v holds the locator %v: an EID is no locator", p, l.Addr)
			}
		}
	}
	return nil
}
