package rtrd

import (
	"time"

	"github.com/xtrkit/xtrkit/examples/internal/dataplane"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// Status returns the present state of the RTR.
func (r *RTR) Status(now time.Time) *statusd.RTR {
	cache := r.engine.Cache()
	// What went since the data plane was last asked.
	r.plane().Usage(func(u mapcache.Usage) { r.engine.AddUsage(now, u) })
	s := &statusd.RTR{
		Locals: dataplane.Locals(r.engine.Locals()), Traffic: dataplane.Traffic(r.forwarder, r.fast, cache), Refused: map[string]uint64{},
	}
	s.Traffic.UserSpace = r.whyUser
	for _, x := range r.core.Relays() {
		s.Relays = append(s.Relays, statusd.Relay{
			IID: x.IID, Prefix: x.Prefix, XTRID: x.XTRID.String(), Local: x.Local, Global: x.Global, MapServer: x.MapServer,
			Priority: x.Priority, Weight: x.Weight, Verified: x.Verified, Expires: x.Expires,
		})
	}
	for e := range cache.All() {
		s.MapCache = append(s.MapCache, dataplane.Entry(e, cache))
	}
	c := r.core.Stats()
	s.Counters = map[string]uint64{
		"map-registers": c.Registers, "relayed": c.Relayed, "unconfirmable": c.Unconfirmable, "map-notifies": c.Notifies,
		"unsolicited": c.Unsolicited, "data-map-notifies": c.DataMapNotifies, "info-requests": c.InfoRequests,
	}
	for i, n := range c.Dropped {
		if n > 0 {
			s.Refused[natt.RTRReason(i).String()] = n
		}
	}
	return s
}
