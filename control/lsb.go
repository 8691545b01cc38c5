package control

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// statusInterval is the least time between two changes of the status of a site's
// locators that Locator-Status-Bits make: the action on them must be limited (RFC
// 9300 §3). The data plane reports what came too soon again, if it is still so.
const statusInterval = time.Second

// statusBits: a packet from a site carries other Locator-Status-Bits than before
// (RFC 9300 §10). What goes to 0 is not used any more, at once; what goes to 1 is
// used again.
func (e *Engine) statusBits(now time.Time, d mapcache.Discovery) {
	ent, ok := e.cache.LookupEntry(d.Key.IID, d.Key.Prefix.Addr())
	if !ok {
		return
	}
	s := e.closed.sites[ent.Key]
	if s == nil || s.entry != ent.ID {
		return
	}
	from := netip.AddrPortFrom(d.Locator.Addr, d.Locator.Port)
	if !slices.ContainsFunc(s.locators, func(l mapcache.Locator) bool { return l.Addr == d.Locator.Addr }) {
		// Every xTR that sends LSBs is an ETR too (RFC 9300 §13.1).
		e.drop(now, DropForeignStatus, from, d.Key.String)
		return
	}
	lsbs := d.LSBs & (1<<len(s.locators) - 1) // none is beyond the locators
	if lsbs == s.lsbs {
		return
	}
	if !s.changed.IsZero() && now.Sub(s.changed) < statusInterval {
		e.drop(now, DropStatusRate, from, d.Key.String)
		return
	}
	s.lsbs, s.changed = lsbs, now
	e.cache.SetStatus(ent.Key, func(l mapcache.Locator) bool {
		down, _ := s.down(l)
		return down
	})
	e.signalEntry(s, ent.MapVersion)
	e.emit(StatusBits{Stamp{now}, ent.Key, d.Locator.Addr, lsbs, len(s.locators)})
	if ent, ok = e.cache.Get(ent.Key); ok && !e.anyReachable(ent.RLOCs) {
		e.refresh(now, ent.Key, reasons{})
	}
}

// StatusBits says that the Locator-Status-Bits of a site changed (RFC 9300 §10).
type StatusBits struct {
	Stamp
	Key      mapcache.Key
	From     netip.Addr // the locator that the packet came from
	LSBs     uint32     // bit i is the locator at position i of the mapping
	Locators int        // how many there are
}

func (e StatusBits) String() string {
	return fmt.Sprintf("locator-status-bits of %v: %0*b from %v", e.Key, min(e.Locators, 32), e.LSBs, e.From)
}
