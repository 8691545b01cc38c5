package ebpf

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxRouteChecks bounds how many locators are looked at a time.
const maxRouteChecks = 256

// routes knows the IPv6 locators that no route leads to. A program could only drop what
// is for them, without a word; the slow path counts it and tells the source. (For IPv4
// the kernel takes a locator without a route for one on the uplink's link, on either
// path, and tells us of one that does not answer there.)
type routes struct {
	handle *netlink.Handle
	none   map[netip.Addr]bool
	used   map[netip.Addr]bool // since the last check
}

func newRoutes() (r routes, err error) {
	r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	r.none, r.used = make(map[netip.Addr]bool), make(map[netip.Addr]bool)
	return r, err
}

// use notes a locator that packets were sent to.
func (r *routes) use(a netip.Addr) {
	if a.Is6() && len(r.used) < maxRouteChecks {
		r.used[a] = true
	}
}

// check looks at the routes to the locators that are in use, and to those that had
// none, by our own locators. It reports whether something is new.
func (r *routes) check(own []ownLocator) (news bool) {
	for a := range r.none {
		if len(r.used) < 2*maxRouteChecks {
			r.used[a] = true
		}
	}
	for a := range r.used {
		if none := !r.leads(a, own); none != r.none[a] {
			news = true
			if none {
				r.none[a] = true
			} else {
				delete(r.none, a)
			}
		}
	}
	clear(r.used)
	return news
}

// ownLocator is a locator of ours that is up.
type ownLocator struct {
	addr    netip.Addr
	ifindex int
}

// leads tells whether a route leads to a locator from one of ours; also where that can't
// be found out.
func (r *routes) leads(a netip.Addr, own []ownLocator) bool {
	for _, o := range own {
		if o.addr.Is4() != a.Is4() {
			continue
		}
		_, err := r.handle.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{OifIndex: o.ifindex, SrcAddr: o.addr.AsSlice()})
		if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINVAL) {
			return true
		}
	}
	return false
}

// checkRoutes has the slow path take what no route leads to.
func (d *Dataplane) checkRoutes() {
	var own []ownLocator
	for i := range d.ways {
		if w := &d.ways[i]; w.Up && w.IfIndex != 0 {
			own = append(own, ownLocator{w.Addr, w.IfIndex})
		}
	}
	if len(own) == 0 || !d.routes.check(own) {
		return
	}
	if err := d.mirror.rewriteLocators(); err != nil {
		d.cfg.Logger.Warn("locators without a route", "err", err)
	}
}
