package control

import (
	"fmt"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// What an RTR knows of a node behind a NAT is better than what the mapping system
// says, which is that the RTR has to be asked. So relays are entries of the
// map-cache that no Map-Reply with a locator of ours replaces. They are not
// probed: no Map-Reply comes back through the NAT.

// RelayMoved says that the mapping system has an EID-Prefix elsewhere which this
// RTR had relays for. The core of the RTR is to be told: natt.RTR.Moved. The Runner
// does.
type RelayMoved struct {
	Stamp
	EID mapcache.Key
}

func (e RelayMoved) String() string {
	return fmt.Sprintf("%v is not behind this RTR any more", e.EID)
}

// SetRelays takes over how an EID-Prefix that is registered with the RTR of this
// process is reached, or that it is not any more: what natt.RTR.NextChange
// returns, on the loop that steps both.
func (e *Engine) SetRelays(now time.Time, c natt.RelayChange) {
	now = e.tick(now)
	defer e.collect(now)
	k := mapcache.MakeKey(c.IID, c.Prefix)
	if !k.Prefix.IsValid() {
		return
	}
	m := mapcache.Mapping{Key: k, TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic}
	for i := range c.Relays {
		r := &c.Relays[i]
		m.RLOCs = append(m.RLOCs, mapcache.RLOC{
			Locator: cleanLocator(mapcache.Locator{
				Addr: r.Global.Addr(), Port: r.Global.Port(), IfIndex: r.IfIndex, NAT: true,
			}),
			Priority: r.Priority, Weight: r.Weight,
		})
	}
	switch old, ok := e.cache.Get(k); {
	case len(m.RLOCs) == 0 && e.relays[k]:
		delete(e.relays, k)
		e.cache.Remove(now, k)
	case len(m.RLOCs) == 0:
	case ok && old.Origin == mapcache.OriginStatic && !e.relays[k]:
		e.log.Warn("a node behind a NAT is not reached: its EID-Prefix has a static mapping", "eid", k)
	default:
		if err := e.cache.Insert(now, m); err != nil {
			e.log.Warn("a node behind a NAT is not reached", "eid", k, "err", err)
			return
		}
		if e.relays == nil {
			e.relays = make(map[mapcache.Key]bool)
		}
		e.relays[k] = true
	}
	if c.Resolve {
		e.refresh(now, k, reasons{})
		if p := e.pending[k]; p != nil && p.phase == resting && !p.why.smr {
			// Packets go astray, a Map-Server says: no rest that an SMR has made.
			e.timers.set(&p.timer, later(p.lastSent.Add(requestInterval), now.Add(time.Millisecond)))
		}
	}
}

// keepsRelay reports whether the relays of k stay as they are, when a Map-Reply
// with rec has come for it, which was asked for at some time: as long as the
// mapping system leads to us.
func (e *Engine) keepsRelay(now, asked time.Time, k mapcache.Key, rec *lisp.EIDRecord) bool {
	if !e.relays[k] || rec.Negative() {
		// A Map-Server that has just started knows nobody; the node knows better.
		return true
	}
	for i := range rec.Locators {
		if ip, ok := rec.Locators[i].RLOC.IP(); ok {
			if _, ours := e.localByAddr(ip.Unmap()); ours {
				return true
			}
		}
	}
	delete(e.relays, k)
	e.cache.Remove(now, k)
	e.relaysMoved = append(e.relaysMoved, relayMoved{k, asked})
	e.emit(RelayMoved{Stamp{now}, k})
	return false
}

// configured reports whether the entry of the map-cache is one that the mapping
// system has no say in.
func (e *Engine) configured(ent *mapcache.Entry) bool {
	return ent.Origin == mapcache.OriginStatic && !e.relays[ent.Key]
}
