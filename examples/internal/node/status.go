package node

import (
	"context"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// Status returns the present state of the node.
func (n *Node) Status(ctx context.Context) (statusd.Status, error) {
	s := &statusd.Node{
		Device: n.device.Name(), MTU: n.device.MTU(), EIDs: n.EIDs(), Traffic: n.traffic(), Goroutines: runtime.NumGoroutine(), Refused: n.refused.now(),
	}
	n.mu.Lock()
	seen := n.seen
	n.mu.Unlock()
	st := statusd.Status{Program: "lispmn", Version: n.cfg.Version, PID: os.Getpid(), Started: n.started, Node: s}
	err := n.runner.Do(ctx, func(now time.Time) {
		st.Time = now
		// What went since the data plane was last asked.
		n.plane().Usage(func(u mapcache.Usage) { n.engine.AddUsage(now, u) })
		if n.fast != nil { // the forwarder does not know of all
			s.Traffic.Locators = locatorTraffic(n.engine.Cache())
		}
		s.Interfaces = interfaces(seen, n.engine.Locals())
		for _, l := range n.engine.Locals() {
			s.Locals = append(s.Locals, statusd.Local{Addr: l.Addr, IfIndex: l.IfIndex, Priority: l.Priority, Weight: l.Weight, Up: l.Up})
		}
		s.NAT = bindings(n.engine.Bindings(), now)
		for _, r := range n.engine.Registrations() {
			s.Registrations = append(s.Registrations, registration(r))
		}
		for e := range n.engine.Database().All() {
			s.Database = append(s.Database, entry(e, nil))
		}
		for e := range n.engine.Cache().All() {
			s.MapCache = append(s.MapCache, entry(e, n.engine.Cache()))
		}
		for _, p := range n.engine.Paths() {
			s.Paths = append(s.Paths, pathState(p))
		}
		s.Control, s.ControlDrops = counters(n.engine.Stats())
	})
	return st, err
}

// Events tells what happens.
func (n *Node) Events() *statusd.Server { return n.status }

func registration(r control.Registration) statusd.Registration {
	out := statusd.Registration{
		MapServer: r.MapServer.Addr(), State: r.State.String(), Since: r.LastAck, RTT: r.RTT, LastError: r.LastError,
	}
	for _, k := range r.EIDs {
		out.EIDs = append(out.EIDs, k.String())
	}
	return out
}

// entry tells of an entry of a map-cache, or of the database, whose locators
// nothing is measured of.
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
		if r.Down || cache != nil && !cache.Reachable(r.Locator) {
			l.State = "down"
		}
		if cache != nil {
			i, _ := cache.LocatorInfo(r.Locator)
			l.RTT = i.RTT
			l.Out, l.In = statusd.Counter{Packets: i.PacketsOut, Octets: i.OctetsOut}, statusd.Counter{Packets: i.PacketsIn, Octets: i.OctetsIn}
		}
		out.RLOCs = append(out.RLOCs, l)
	}
	return out
}

// interfaces tells of the interfaces of the host, which have these locators.
func interfaces(ifs []multihome.Interface, locals []mapcache.Local) []statusd.Interface {
	out := make([]statusd.Interface, 0, len(ifs))
	for _, i := range ifs {
		out = append(out, statusd.Interface{
			Name: i.Name, Index: i.Index, Up: i.Up, Addrs: append(slices.Clone(i.IPv4), i.IPv6...),
			IPv4: i.Usable(false).String(), IPv6: i.Usable(true).String(),
			Locator: slices.ContainsFunc(locals, func(l mapcache.Local) bool { return l.IfIndex == i.Index }),
		})
	}
	return out
}

func pathState(p control.Path) statusd.Path {
	out := statusd.Path{
		Local: p.Local, Remote: p.Locator.Addr, State: "unknown", RTT: p.RTT, Sent: p.Sent, Answered: p.Answered,
	}
	switch {
	case p.Down:
		out.State = "down"
	case p.Known:
		out.State = "up"
	}
	return out
}

func traffic(s encap.Stats) statusd.Traffic {
	t := statusd.Traffic{
		Encapsulated: statusd.Counter(s.Encapsulated), Decapsulated: statusd.Counter(s.Decapsulated), Native: statusd.Counter(s.Native),
		Held: s.Held, Released: s.Released, HeldNow: s.HeldNow, PolicyFallbacks: s.PolicyFallbacks, Drops: map[string]uint64{},
	}
	for r, c := range s.Drops {
		if c > 0 {
			t.Drops[encap.DropReason(r).String()] = c
		}
	}
	for _, l := range s.Locators {
		t.Locators = append(t.Locators, statusd.LocatorTraffic{Addr: l.Locator.Addr, Out: statusd.Counter(l.Out), In: statusd.Counter(l.In)})
	}
	return t
}

func counters(s control.Stats) (counts, drops map[string]uint64) {
	counts = map[string]uint64{
		"map-requests-sent":     s.MapRequestsSent,
		"map-requests-received": s.MapRequestsReceived,
		"map-replies-sent":      s.MapRepliesSent,
		"map-replies-received":  s.MapRepliesReceived,
		"negative-replies":      s.NegativeReplies,
		"map-registers-sent":    s.MapRegistersSent,
		"map-notifies-received": s.MapNotifiesReceived,
		"probes-sent":           s.ProbesSent,
		"probe-replies-sent":    s.ProbeRepliesSent,
		"probe-replies":         s.ProbeRepliesRecv,
		"smrs-received":         s.SMRsReceived,
		"resolutions-failed":    s.ResolutionsFailed,
	}
	drops = map[string]uint64{}
	for r, c := range s.Dropped {
		if c > 0 {
			drops[control.DropReason(r).String()] = c
		}
	}
	return counts, drops
}
