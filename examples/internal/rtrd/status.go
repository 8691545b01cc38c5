package rtrd

import (
	"context"
	"os"
	"time"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// Status returns the present state of the RTR.
func (r *RTR) Status(ctx context.Context) (statusd.Status, error) {
	s := &statusd.RTR{Traffic: traffic(r.forwarder.Stats()), Refused: map[string]uint64{}}
	st := statusd.Status{Program: "lispms", Version: r.cfg.Version, PID: os.Getpid(), Started: r.started, RTR: s}
	err := r.runner.Do(ctx, func(now time.Time) {
		st.Time = now
		// What went since the data plane was last asked.
		r.forwarder.Usage(func(u mapcache.Usage) { r.engine.AddUsage(now, u) })
		for _, l := range r.engine.Locals() {
			s.Locals = append(s.Locals, statusd.Local{Addr: l.Addr, IfIndex: l.IfIndex, Priority: l.Priority, Weight: l.Weight, Up: l.Up})
		}
		for _, x := range r.core.Relays() {
			s.Relays = append(s.Relays, statusd.Relay{
				IID: x.IID, Prefix: x.Prefix, XTRID: x.XTRID.String(), Local: x.Local, Global: x.Global, MapServer: x.MapServer,
				Priority: x.Priority, Weight: x.Weight, Verified: x.Verified, Expires: x.Expires,
			})
		}
		for e := range r.engine.Cache().All() {
			s.MapCache = append(s.MapCache, entry(e, r.engine.Cache()))
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
	})
	return st, err
}

func entry(e mapcache.Entry, cache *mapcache.Cache) statusd.Entry {
	out := statusd.Entry{
		IID: e.IID, Prefix: e.Prefix, Origin: e.Origin.String(), Created: e.Created, Expires: e.Expires,
		In: statusd.Counter{Packets: e.PacketsIn, Octets: e.OctetsIn}, Out: statusd.Counter{Packets: e.PacketsOut, Octets: e.OctetsOut},
	}
	if e.Negative() {
		out.Action = e.Action.String()
	}
	for _, r := range e.RLOCs {
		l := statusd.RLOC{Addr: r.Addr, Port: r.Port, Priority: r.Priority, Weight: r.Weight, State: "up"}
		if r.Down || !cache.Reachable(r.Locator) {
			l.State = "down"
		}
		i, _ := cache.LocatorInfo(r.Locator)
		l.RTT = i.RTT
		l.Out, l.In = statusd.Counter{Packets: i.PacketsOut, Octets: i.OctetsOut}, statusd.Counter{Packets: i.PacketsIn, Octets: i.OctetsIn}
		out.RLOCs = append(out.RLOCs, l)
	}
	return out
}

func traffic(s encap.Stats) statusd.Traffic {
	t := statusd.Traffic{
		Encapsulated: statusd.Counter(s.Encapsulated), Decapsulated: statusd.Counter(s.Decapsulated), Native: statusd.Counter(s.Native),
		Held: s.Held, Released: s.Released, HeldNow: s.HeldNow, Drops: map[string]uint64{},
	}
	for i, c := range s.Drops {
		if c > 0 {
			t.Drops[encap.DropReason(i).String()] = c
		}
	}
	for _, l := range s.Locators {
		t.Locators = append(t.Locators, statusd.LocatorTraffic{Addr: l.Locator.Addr, Out: statusd.Counter(l.Out), In: statusd.Counter(l.In)})
	}
	return t
}
