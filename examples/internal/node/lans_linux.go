package node

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
)

// routesRest is how long the node waits for further changes of the routes before it
// looks at them.
const routesRest = 100 * time.Millisecond

// followLANs has the kernel take packets of a router's LANs where they come in, until
// the context ends. A LAN is an interface that a route to a part of an EID-Prefix leads
// to.
func (n *Node) followLANs(ctx context.Context) {
	if n.fast == nil || !takesLANs(n.cfg.Conf) {
		return
	}
	var before []ebpf.LAN
	done := true
	for ctx.Err() == nil {
		updates, ended := make(chan netlink.RouteUpdate, 64), make(chan struct{})
		stop := context.AfterFunc(ctx, func() { close(ended) })
		err := netlink.RouteSubscribeWithOptions(updates, ended, netlink.RouteSubscribeOptions{})
		for err == nil {
			before, done = n.setLANs(before, !done)
			var again <-chan time.Time
			if !done {
				again = time.After(retryAfter)
			}
			if !awaitRoutes(ctx, updates, again) {
				break
			}
		}
		if stop() {
			close(ended)
		}
		if ctx.Err() == nil { // changes were lost
			n.log.Info("routes to LANs are looked at again", "err", err)
			rest(ctx, retryAfter)
		}
	}
}

// takesLANs says whether packets of LANs are to be taken where they come in. There
// they have not met the host's firewall yet: whoever steers them by its marks, or wants
// them filtered, has them go by the device.
func takesLANs(cfg *conf.Node) bool {
	return cfg.Mode != conf.ModeMN && len(cfg.Policies) == 0 && cfg.LANFastPath
}

// awaitRoutes waits for changes, or until it is time to try again. It reports false when
// there will be none.
func awaitRoutes(ctx context.Context, updates <-chan netlink.RouteUpdate, again <-chan time.Time) bool {
	select {
	case _, ok := <-updates:
		if !ok {
			return false
		}
	case <-again:
	case <-ctx.Done():
		return false
	}
	rest(ctx, routesRest)
	for {
		select {
		case _, ok := <-updates:
			if !ok {
				return false
			}
		default:
			return true
		}
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// setLANs tells the kernel's data plane of the LANs, if they are others than before or it
// is to be tried again, and returns them. done says that nothing is left to be tried.
func (n *Node) setLANs(before []ebpf.LAN, again bool) (lans []ebpf.LAN, done bool) {
	lans, err := n.findLANs()
	if err == nil && (again || !slices.Equal(lans, before)) {
		if !again {
			n.log.Info("packets of LANs are taken where they come in", "interfaces", len(lans))
		}
		err = n.fast.SetLANs(lans)
	}
	n.refused.note(time.Now(), "LANs", err, n.log) // those take the way by the device
	return lans, err == nil
}

// findLANs returns the LANs, sorted.
func (n *Node) findLANs() ([]ebpf.LAN, error) {
	n.mu.Lock()
	eids, iid := eidsOf(n.conf), n.conf.IID
	skip := map[int]bool{}
	for _, i := range n.seen {
		skip[i.Index] = isUplink(n.conf, i)
	}
	n.mu.Unlock()
	var lans []ebpf.LAN
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			l := ebpf.LAN{IfIndex: r.LinkIndex, InstanceID: iid}
			if r.LinkIndex == 0 || skip[r.LinkIndex] || r.Type != unix.RTN_UNICAST || !within(eids, r) || slices.Contains(lans, l) {
				continue
			}
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && !strings.HasPrefix(link.Attrs().Name, n.device.Name()) && link.Attrs().EncapType == "ether" {
				lans = append(lans, l)
			}
		}
	}
	slices.SortFunc(lans, func(a, b ebpf.LAN) int { return a.IfIndex - b.IfIndex })
	return lans, nil
}

// within tells whether a route leads to a part of an EID-Prefix.
func within(eids []netip.Prefix, r netlink.Route) bool {
	if r.Dst == nil {
		return false
	}
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return slices.ContainsFunc(eids, func(p netip.Prefix) bool { return bits >= p.Bits() && p.Contains(a.Unmap()) })
}
