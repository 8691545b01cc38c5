package dataplane

import (
	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/encap/ebpf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Traffic is what a Forwarder has counted, and the data plane before it, which is nil
// if there is none. What is for locators is then that of the map-cache, since the
// Forwarder does not know of all.
func Traffic(f *encap.Forwarder, fast *ebpf.Dataplane, cache *mapcache.Cache) statusd.Traffic {
	if fast == nil {
		return traffic(f.Stats())
	}
	s := fast.Stats()
	t := traffic(s.Stats)
	t.Locators = locators(cache)
	t.Kernel = &statusd.KernelTraffic{
		Encapsulated: statusd.Counter(s.KernelEncapsulated), Decapsulated: statusd.Counter(s.KernelDecapsulated),
		Entries: s.Entries, AllSlow: s.AllSlow, Slow: make(map[string]uint64),
	}
	for r, c := range s.Slow {
		if c > 0 {
			t.Kernel.Slow[ebpf.SlowReason(r).String()] = c
		}
	}
	return t
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

// locators is what went to and came from the locators of a map-cache.
func locators(cache *mapcache.Cache) []statusd.LocatorTraffic {
	var ts []statusd.LocatorTraffic
	for l, i := range cache.Locators() {
		if i.PacketsOut+i.PacketsIn > 0 {
			ts = append(ts, statusd.LocatorTraffic{
				Addr: l.Addr,
				Out:  statusd.Counter{Packets: i.PacketsOut, Octets: i.OctetsOut},
				In:   statusd.Counter{Packets: i.PacketsIn, Octets: i.OctetsIn},
			})
		}
	}
	return ts
}

// Entry tells of an entry of a map-cache, or of a database, whose locators nothing is
// measured of: cache is nil then.
func Entry(e mapcache.Entry, cache *mapcache.Cache) statusd.Entry {
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

// Locals tells of our own locators.
func Locals(ls []mapcache.Local) []statusd.Local {
	out := make([]statusd.Local, 0, len(ls))
	for _, l := range ls {
		out = append(out, statusd.Local{Addr: l.Addr, IfIndex: l.IfIndex, Priority: l.Priority, Weight: l.Weight, Up: l.Up})
	}
	return out
}
