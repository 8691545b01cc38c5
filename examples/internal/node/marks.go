package node

import (
	"fmt"
	"path"
	"slices"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/multihome"
	"github.com/xtrkit/xtrkit/tun"
)

// newPolicy makes what firewall-marks and uplink-policy ask for, nil if the file
// has neither: then nobody asks about packets.
func newPolicy(cfg *conf.Node) (*multihome.Policy, error) {
	if len(cfg.Policies) == 0 {
		return nil, nil
	}
	otherwise := map[conf.Unusable]multihome.Otherwise{
		conf.UnusableFallback: multihome.Fallback, conf.UnusableDrop: multihome.DropPacket, conf.UnusableNext: multihome.NextRule,
	}
	p := multihome.PolicyConfig{MarkMask: cfg.MarkMask}
	for _, c := range cfg.Policies {
		p.Rules = append(p.Rules, multihome.Rule{
			Sources: c.Sources, Destinations: c.Destinations, DSCPs: c.DSCPs, Mark: c.Mark,
			Interfaces: c.Interfaces, ByMark: c.ByMark, Otherwise: otherwise[c.Unusable],
		})
	}
	return multihome.NewPolicy(p)
}

// steering is how the data plane asks a policy; nil without one.
func steering(p *multihome.Policy) func(*encap.PolicyPacket) encap.Uplink {
	if p == nil {
		return nil
	}
	return func(q *encap.PolicyPacket) encap.Uplink {
		packet := multihome.Packet{
			Src: q.Src, Dst: q.Dst, Protocol: q.Protocol, DSCP: q.DSCP, Mark: q.Mark.Value, MarkUnknown: q.Mark.Unknown,
		}
		return encap.Uplink(p.Decide(&packet))
	}
}

// marksOf are the firewall marks that name something: interfaces that the file
// names and that are there, usable or not, and what policies name.
func marksOf(cfg *conf.Node, p *multihome.Policy, ifs []multihome.Interface) []uint32 {
	marks := p.Marks()
	if !slices.ContainsFunc(cfg.Policies, func(c conf.UplinkPolicy) bool { return c.ByMark }) {
		return marks
	}
	for _, i := range ifs {
		mark := uint32(i.Index)
		if mark&^cfg.MarkMask == 0 && isUplink(cfg, i) && !slices.Contains(marks, mark) {
			marks = append(marks, mark)
		}
	}
	return marks
}

// isUplink reports whether a locator may come from an interface.
func isUplink(cfg *conf.Node, i multihome.Interface) bool {
	from := func(s conf.LocatorSource) bool {
		if s.Addr.IsValid() {
			return slices.Contains(i.Addrs(s.Addr.Is6()), s.Addr)
		}
		ok, _ := path.Match(s.Interface, i.Name)
		return ok
	}
	return slices.ContainsFunc(cfg.Locators, from) || slices.ContainsFunc(cfg.Mappings, func(m conf.DatabaseMapping) bool {
		return slices.ContainsFunc(m.Locators, from)
	})
}

// steer makes policies and firewall marks stand for the interfaces as they are
// now. The device of a mark is read until it goes, with its uplink or with ours.
func (n *Node) steer(ifs []multihome.Interface) error {
	if n.policy == nil {
		return nil
	}
	n.policy.Update(ifs)
	if n.conf.MarkMask == 0 {
		return nil
	}
	added, err := n.device.SetMarks(marksOf(n.conf, n.policy, ifs))
	iid := n.conf.IID
	for _, m := range added {
		go func() {
			mark := encap.Mark{Value: m.Mark, Unknown: m.Mark == 0}
			if err := n.forwarder.ReadMarked(iid, m.Device, mark); err != nil {
				n.log.Error("packets with a firewall mark are lost", "err", err)
			}
		}()
		n.offloadMark(m)
	}
	if err != nil {
		return fmt.Errorf("firewall marks: %w", err)
	}
	return nil
}

// offloadMark has the kernel take packets with a mark before they get to its
// device, which is the slow path then: the kernel reads the mark itself. What is
// done with a mark that nobody reckons with is for the policy alone.
func (n *Node) offloadMark(m tun.Marked) {
	if n.fast == nil || m.Mark == 0 {
		return
	}
	if err := n.fast.AddDevice(n.conf.IID, m.Device.Name()); err != nil {
		n.log.Warn("packets with a firewall mark are forwarded in user space", "mark", m.Mark, "err", err)
	}
}
