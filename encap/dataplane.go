package encap

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// The methods in this file, with SetLocals, are what package control asks of a
// data plane.

// mapKey is the host prefix that the control plane is asked for.
func (k holdKey) mapKey() mapcache.Key {
	return mapcache.Key{IID: k.overlay.iid, Prefix: netip.PrefixFrom(k.dst, k.dst.BitLen())}
}

// Apply is told that the map-cache was published with these changes. Packets
// read the map-cache itself, so all there is to do is to let go, in order, the
// held packets whose destination now has a mapping.
func (f *Forwarder) Apply([]mapcache.Change) error {
	if f.hold.busy.Load() == 0 {
		return nil
	}
	f.hold.mu.Lock()
	defer f.hold.mu.Unlock()
	view := f.cfg.View()
	var ready []holdKey
	for p := f.hold.oldest; p != nil; p = p.newer {
		if p.queue.head != p {
			continue // one look per destination, the longest waiting first
		}
		key := p.queue.key
		if view.Forward(key.overlay.iid, key.dst, 0).Verdict != mapcache.Miss {
			ready = append(ready, key)
		}
	}
	for _, key := range ready {
		f.releaseLocked(key)
	}
	return nil
}

// release sends what is held for a destination, if it has a mapping.
func (f *Forwarder) release(key holdKey) {
	f.hold.mu.Lock()
	defer f.hold.mu.Unlock()
	f.releaseLocked(key)
}

func (f *Forwarder) releaseLocked(key holdKey) {
	if f.hold.queues[key] == nil {
		return
	}
	e := f.released
	e.begin()
	if e.view.Forward(key.overlay.iid, key.dst, 0).Verdict == mapcache.Miss {
		return // it was there when somebody looked
	}
	n := f.hold.take(key, func(buf []byte, mark Mark) {
		e.mark = mark
		var p inner
		b := buf[Headroom:]
		if why := parseInner(b, &p); why != DropNone {
			f.drop(why)
			return
		}
		hash := mapcache.FlowHash(f.cfg.FlowSeed, b)
		d := e.view.Forward(key.overlay.iid, p.dst, hash)
		e.decided(key.overlay, buf, &p, hash, &d)
	}, e.flush)
	f.c.released.Add(uint64(n))
}

// PendingMisses appends the destinations that packets are held for to dst, the
// longest waiting first, and returns it. A destination is there until a mapping
// covers it or the last of its packets has waited for Config.HoldTime.
func (f *Forwarder) PendingMisses(dst []mapcache.Key) []mapcache.Key {
	if f.hold.busy.Load() == 0 {
		return dst
	}
	f.hold.mu.Lock()
	defer f.hold.mu.Unlock()
	f.hold.expire(time.Now())
	dst = slices.Grow(dst, len(f.hold.queues))
	for p := f.hold.oldest; p != nil; p = p.newer {
		if p.queue.head == p {
			dst = append(dst, p.queue.key.mapKey())
		}
	}
	return dst
}

// Discoveries wakes the control plane. A discovery that nobody takes is dropped
// and counted; misses stay in PendingMisses.
func (f *Forwarder) Discoveries() <-chan mapcache.Discovery { return f.discoveries }

func (f *Forwarder) discover(d mapcache.Discovery) {
	select {
	case f.discoveries <- d:
	default:
		f.c.discoveryDrops.Add(1)
	}
}

// Usage calls report for each remote locator that carried packets since the
// last call. Map-cache entries are marked as used by the packets themselves, and
// have their counters in Meters (Config.Meter), so the Key of a report is zero.
func (f *Forwarder) Usage(report func(mapcache.Usage)) {
	f.usageMu.Lock()
	defer f.usageMu.Unlock()
	now := time.Now()
	f.remotes.each(func(c *locatorCounter) {
		out, in := c.out.load(), c.in.load()
		was := c.reported
		if out == was.out && in == was.in {
			return
		}
		c.reported.out, c.reported.in = out, in
		report(mapcache.Usage{
			Locator:    c.locator,
			PacketsOut: out.Packets - was.out.Packets, OctetsOut: out.Octets - was.out.Octets,
			PacketsIn: in.Packets - was.in.Packets, OctetsIn: in.Octets - was.in.Octets,
			LastUsed: now,
		})
	})
}

// Send transmits a control datagram from the data port.
func (f *Forwarder) Send(d lisp.Datagram) error {
	if err := f.cfg.Underlay.WriteDatagram(d); err != nil {
		return fmt.Errorf("encap: send to %v: %w", d.Remote, err)
	}
	return nil
}

// Stats returns a snapshot of the counters.
func (f *Forwarder) Stats() Stats {
	s := Stats{
		Encapsulated:    f.c.encapsulated.load(),
		Decapsulated:    f.c.decapsulated.load(),
		Native:          f.c.native.load(),
		Held:            f.c.held.Load(),
		Released:        f.c.released.Load(),
		Fragmented:      f.c.fragmented.Load(),
		OuterFragmented: f.c.outerFragmented.Load(),
		Segmented:       f.c.segmented.Load(),
		Finished:        f.c.finished.Load(),
		ECNOdd:          f.c.ecnOdd.Load(),
		ICMPSent:        f.c.icmpSent.Load(),
		ICMPLimited:     f.c.icmpLimited.Load(),
		PolicyFallbacks: f.c.policyFallbacks.Load(),
		DiscoveryDrops:  f.c.discoveryDrops.Load(),

		OuterErrors:        f.c.outerErrors.Load(),
		OuterErrorsIgnored: f.c.outerErrorsIgnored.Load(),
	}
	for i := range s.Drops {
		s.Drops[i] = f.c.drops[i].Load()
	}
	f.hold.mu.Lock()
	s.HeldNow, s.HeldEIDs = f.hold.packets, len(f.hold.queues)
	f.hold.mu.Unlock()
	f.remotes.each(func(c *locatorCounter) {
		l := LocatorStats{Locator: c.locator, Out: c.out.load(), In: c.in.load()}
		if l.Out != (Counter{}) || l.In != (Counter{}) {
			s.Locators = append(s.Locators, l)
		}
	})
	slices.SortFunc(s.Locators, func(a, b LocatorStats) int { return compareLocators(a.Locator, b.Locator) })
	return s
}

func compareLocators(a, b mapcache.Locator) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	if a.Port != b.Port {
		return int(a.Port) - int(b.Port)
	}
	return a.IfIndex - b.IfIndex
}
