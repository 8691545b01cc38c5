package node

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// missing is what was told last of locators that cannot be used.
type missing struct {
	why  []string
	none bool // no locator was up
}

// locators is locatorsNow, with a word about what cannot be used when that has
// changed.
func (n *Node) locators(ifs []multihome.Interface) []mapcache.Local {
	locals, why := locatorsOf(n.conf, ifs)
	locals = sendBy(n.conf, locals, ifs)
	why = append(why, eidsOfUplinks(n.conf, ifs)...)
	none := !slices.ContainsFunc(locals, func(l mapcache.Local) bool { return l.Up })
	if !slices.Equal(why, n.missing.why) || none != n.missing.none {
		for _, w := range why {
			n.log.Info("a locator is not up", "reason", w)
		}
		if none {
			n.log.Warn("no locator is up: nobody can reach this node until one is", "reasons", why)
		}
		n.missing = missing{why, none}
	}
	return locals
}

// eidsOfUplinks tells of uplinks with an address that is an EID of ours, and so can't
// be a locator.
func eidsOfUplinks(cfg *conf.Node, ifs []multihome.Interface) (why []string) {
	for _, i := range ifs {
		if !isUplink(cfg, i) {
			continue // there may be a thousand of them
		}
		ifi, err := net.InterfaceByName(i.Name)
		if err != nil {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && isEID(cfg)(p.Addr()) {
				why = append(why, fmt.Sprintf("the address %v of interface %s is one of our EIDs: an EID is no locator, it belongs to the device alone", p.Addr(), i.Name))
			}
		}
	}
	return why
}
