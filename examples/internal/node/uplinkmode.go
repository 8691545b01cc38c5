package node

import (
	"math"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// neverUsed is the Priority of a locator that nothing is sent from.
const neverUsed = 255

// sendBy says from which locators packets leave. In legacy mode that is, of each
// family, the one with the system's best default route; what is announced about
// them stands in the database mappings. All others stay up, to receive.
func sendBy(cfg *conf.Node, locals []mapcache.Local, ifs []multihome.Interface) []mapcache.Local {
	if cfg.UplinkMode != conf.UplinkLegacy {
		return locals
	}
	metric := func(l mapcache.Local) int {
		for i := range ifs {
			if d := ifs[i].Default(l.Addr.Is6()); ifs[i].Index == l.IfIndex && d != nil && l.Up {
				return d.Metric
			}
		}
		return math.MaxInt
	}
	for _, v6 := range []bool{false, true} {
		best := -1
		for i := range locals {
			if locals[i].Addr.Is6() != v6 {
				continue
			}
			locals[i].Priority = neverUsed
			if m := metric(locals[i]); m < math.MaxInt && (best < 0 || m < metric(locals[best])) {
				best = i
			}
		}
		if best >= 0 {
			locals[best].Priority = 1
		}
	}
	return locals
}
