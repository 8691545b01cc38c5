package node

import (
	"context"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/dataplane"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// Status returns the present state of the node.
func (n *Node) Status(ctx context.Context) (statusd.Status, error) {
	s := &statusd.Node{
		Device: n.device.Name(), MTU: n.device.MTU(), EIDs: n.EIDs(), Goroutines: runtime.NumGoroutine(), Refused: n.refused.now(),
	}
	n.mu.Lock()
	seen := n.seen
	n.mu.Unlock()
	st := statusd.Status{Program: "lispmn", Version: n.cfg.Version, PID: os.Getpid(), Started: n.started, Node: s}
	err := n.runner.Do(ctx, func(now time.Time) {
		st.Time = now
		// What went since the data plane was last asked.
		n.plane().Usage(func(u mapcache.Usage) { n.engine.AddUsage(now, u) })
		s.Traffic = dataplane.Traffic(n.forwarder, n.fast, n.engine.Cache())
		s.Traffic.UserSpace = n.whyUser
		s.Interfaces = interfaces(seen, n.engine.Locals())
		s.Locals = dataplane.Locals(n.engine.Locals())
		s.NAT = bindings(n.engine.Bindings(), now)
		for _, r := range n.engine.Registrations() {
			s.Registrations = append(s.Registrations, registration(r))
		}
		for e := range n.engine.Database().All() {
			s.Database = append(s.Database, dataplane.Entry(e, nil))
		}
		for e := range n.engine.Cache().All() {
			s.MapCache = append(s.MapCache, dataplane.Entry(e, n.engine.Cache()))
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
