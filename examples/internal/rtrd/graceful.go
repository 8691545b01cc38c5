package rtrd

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// inherit takes over by what an earlier process's programs go on to forward packets: the
// nodes behind NATs, until they register again, and the other mappings, until they are
// asked for again.
func (r *RTR) inherit(now time.Time, carried []mapcache.Mapping) error {
	nodes := 0
	mappings, err := r.engine.Import(now, func(yield func(mapcache.Saved) bool) {
		for _, m := range carried {
			if r.registers(m) {
				nodes++
				r.restore(now, m)
			} else if !yield(mapcache.Saved{Mapping: m, Left: m.TTL, Taken: now}) {
				return
			}
		}
	})
	r.engine.SetLocals(now, r.locals) // to ask from
	for c, ok := r.core.NextChange(); ok; c, ok = r.core.NextChange() {
		r.engine.SetRelays(now, c)
	}
	if len(carried) > 0 {
		r.log.Info("what an earlier process knew is in use", "nodes", nodes, "mappings", mappings)
	}
	return err
}

// registers tells the EID-Prefix of a node that registers by this RTR. Those of
// lispers.net don't: where they are is in a Map-Reply.
func (r *RTR) registers(m mapcache.Mapping) bool {
	servers := len(r.cfg.Conf.MapServers) + len(r.cfg.MapServers)
	return servers > 0 && !slices.ContainsFunc(m.RLOCs, func(l mapcache.RLOC) bool { return !l.NAT })
}

func (r *RTR) restore(now time.Time, m mapcache.Mapping) {
	for _, l := range m.RLOCs {
		r.core.Restore(now, natt.Relay{
			IID: m.IID, Prefix: m.Prefix, Global: netip.AddrPortFrom(l.Addr, l.Port), IfIndex: l.IfIndex, Priority: l.Priority, Weight: l.Weight,
		})
	}
}
