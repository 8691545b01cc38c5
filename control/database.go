package control

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// localMapping is one EID-Prefix of ours with the record that announces it.
type localMapping struct {
	DatabaseMapping
	record lisp.EIDRecord // in the order of RFC 9301 §5.4: IPv4 before IPv6, ascending
}

// loadDatabase sorts Config.Database so that the more-specifics of a prefix
// follow it directly.
func (e *Engine) loadDatabase() error {
	e.db = make([]localMapping, len(e.cfg.Database))
	for i, m := range e.cfg.Database {
		e.db[i].DatabaseMapping = m
	}
	slices.SortFunc(e.db, func(a, b localMapping) int { return compareKeys(a.Key, b.Key) })
	e.dbPos = make(map[mapcache.Key]int, len(e.db))
	for i := range e.db {
		e.dbPos[e.db[i].Key] = i
	}
	// An address behind a mapping cannot be needed to reach the mapping
	// system (RFC 9301 §8.1).
	for _, a := range e.cfg.MapResolvers {
		if e.isEID(a.Addr()) {
			return fmt.Errorf("control: Map-Resolver %v is one of our own EIDs: %w", a, ErrConfig)
		}
	}
	for _, s := range e.cfg.MapServers {
		if e.isEID(s.Addr.Addr()) {
			return fmt.Errorf("control: Map-Server %v is one of our own EIDs: %w", s.Addr, ErrConfig)
		}
	}
	for i := range e.db {
		e.db[i].record = e.makeRecord(&e.db[i].DatabaseMapping)
		if err := e.insertLocal(time.Time{}, &e.db[i]); err != nil {
			return fmt.Errorf("control: database mapping %v: %w: %w", e.db[i].Key, err, ErrConfig)
		}
	}
	e.database.Changes()
	e.database.Publish()
	return nil
}

func compareKeys(a, b mapcache.Key) int {
	return cmp.Or(cmp.Compare(a.IID, b.IID), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
}

// isEID reports whether a, outside any instance, is an EID of ours.
func (e *Engine) isEID(a netip.Addr) bool {
	for i := range e.db {
		if e.db[i].IID == 0 && e.db[i].Prefix.Contains(a) {
			return true
		}
	}
	return false
}

// SetLocals replaces our own locators. A change is registered at once and
// quickly repeated; Map-Requests under way are repeated with the new ITR-RLOCs.
func (e *Engine) SetLocals(now time.Time, ls []mapcache.Local) {
	now = e.tick(now)
	defer e.collect(now)
	locals := make([]mapcache.Local, 0, len(ls))
	for _, l := range ls {
		l.Addr = l.Addr.Unmap().WithZone("")
		switch {
		case !usableUnicast(l.Addr):
			e.log.Warn("own locator is no unicast address", "rloc", l.Addr)
		case e.isEID(l.Addr):
			// RFC 9300 §4: an EID is no RLOC.
			e.log.Warn("own locator is one of our EIDs", "rloc", l.Addr)
		default:
			locals = append(locals, l)
		}
	}
	slices.SortStableFunc(locals, func(a, b mapcache.Local) int { return a.Addr.Compare(b.Addr) })
	locals = slices.CompactFunc(locals, func(a, b mapcache.Local) bool { return a.Addr == b.Addr })
	if slices.Equal(locals, e.locals) {
		return
	}
	e.locals = locals
	e.emit(LocalsChanged{Stamp{now}, slices.Clone(locals)})
	for i := range e.db {
		m := &e.db[i]
		m.record = e.makeRecord(&m.DatabaseMapping)
		if err := e.insertLocal(now, m); err != nil {
			e.log.Error("database mapping not stored", "eid", m.Key, "err", err)
		}
	}
	e.database.Changes()
	e.database.Publish()
	var have4, have6 bool
	for _, l := range locals {
		have4 = have4 || l.Up && l.Addr.Is4()
		have6 = have6 || l.Up && l.Addr.Is6()
	}
	e.cache.SetSourceFamilies(have4, have6)
	e.restartRegistration(now)
	e.hurryRequests(now)
	e.rebuildPaths(now)
}

// Locals returns our own locators, sorted by address, IPv4 first.
func (e *Engine) Locals() []mapcache.Local { return slices.Clone(e.locals) }

// insertLocal keeps the lookup table of our prefixes.
func (e *Engine) insertLocal(now time.Time, m *localMapping) error {
	mapping := mapcache.Mapping{
		Key: m.Key, TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
		Action: lisp.ActionNoAction, Authoritative: true,
	}
	for _, l := range m.record.Locators {
		ip, _ := l.RLOC.IP()
		mapping.RLOCs = append(mapping.RLOCs, mapcache.RLOC{
			Locator:  cleanLocator(mapcache.Locator{Addr: ip}),
			Priority: l.Priority, Weight: l.Weight, Down: !l.Reachable,
		})
	}
	return e.database.Insert(now, mapping)
}

// makeRecord builds the record that announces m with the locators we have now.
func (e *Engine) makeRecord(m *DatabaseMapping) lisp.EIDRecord {
	r := lisp.EIDRecord{
		TTL:     uint32(min(m.TTL/time.Minute, lisp.TTLUnlimited-1)),
		MaskLen: uint8(m.Prefix.Bits()),
		// We are an ETR of the EID-Prefix (RFC 9301 §5.4).
		Authoritative: true,
		EID:           lisp.EIDAddress(m.IID, m.Prefix.Addr()),
	}
	add := func(a netip.Addr, priority, weight uint8, local, up bool) {
		r.Locators = append(r.Locators, lisp.RLOCRecord{
			Priority: priority, Weight: weight, MPriority: 255,
			Local: local, Reachable: up, RLOC: lisp.AddressFrom(a),
		})
	}
	if len(m.RLOCs) == 0 {
		for _, l := range e.locals {
			add(l.Addr, l.Priority, l.Weight, true, l.Up)
		}
	}
	for _, c := range m.RLOCs {
		if c.Remote {
			add(c.Addr, c.Priority, c.Weight, false, true)
			continue
		}
		for _, l := range e.locals {
			if c.Addr == l.Addr || !c.Addr.IsValid() && c.IfIndex == l.IfIndex {
				add(l.Addr, c.Priority, c.Weight, true, l.Up)
			}
		}
	}
	fitLocators(&r)
	slices.SortStableFunc(r.Locators, func(a, b lisp.RLOCRecord) int {
		x, _ := a.RLOC.IP()
		y, _ := b.RLOC.IP()
		return x.Compare(y)
	})
	r.Locators = slices.CompactFunc(r.Locators, func(a, b lisp.RLOCRecord) bool { return a.RLOC == b.RLOC })
	return r
}

// recordBudget is what one record may take, so that it fits any message of
// ours: 576 octets less IP and UDP header, message header with the longest
// digest, and identity.
const recordBudget = 576 - 28 - 16 - 32 - 24

// fitLocators leaves out the least preferred locators of a record that would
// not fit a message.
func fitLocators(r *lisp.EIDRecord) {
	slices.SortStableFunc(r.Locators, func(a, b lisp.RLOCRecord) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Weight, a.Weight))
	})
	for len(r.Locators) > maxLocators || recordLen(r) > recordBudget {
		r.Locators = r.Locators[:len(r.Locators)-1]
	}
}

// recordLen is the encoded size of a record of ours.
func recordLen(r *lisp.EIDRecord) int {
	n := 10 + addressLen(r.EID)
	for i := range r.Locators {
		n += 6 + addressLen(r.Locators[i].RLOC)
	}
	return n
}

func addressLen(a lisp.Address) int {
	iid, ip, ok := a.EID()
	n := 2
	if ok {
		n += ip.BitLen() / 8
	}
	if iid != 0 {
		n += 12 // Instance-ID LCAF
	}
	return n
}

// payloadLimit is how long a control message to remote may be (RFC 9301 §5).
func (e *Engine) payloadLimit(remote netip.Addr) int {
	mtu, header := 576, 20+8
	if remote.Is6() {
		mtu, header = 1280, 40+8
	}
	if e.cfg.PathMTU != 0 {
		mtu = e.cfg.PathMTU
	}
	return mtu - header
}

// splitRecords says how many of the first n records, whose sizes size gives, go
// into a message with room octets for them. It is at least one.
func splitRecords(n, room int, size func(i int) int) int {
	used := 0
	for i := range min(n, maxRecords) {
		if used += size(i); used > room && i > 0 {
			return i
		}
	}
	return min(n, maxRecords)
}

// localFor chooses the locator that a message to remote leaves from.
func (e *Engine) localFor(remote netip.Addr) (mapcache.Local, bool) {
	best := -1
	for i, l := range e.locals {
		if !l.Up || l.Addr.Is4() != remote.Is4() {
			continue
		}
		if best < 0 || l.Priority < e.locals[best].Priority {
			best = i
		}
	}
	if best < 0 {
		return mapcache.Local{}, false
	}
	return e.locals[best], true
}

// localByAddr returns the locator with that address.
func (e *Engine) localByAddr(a netip.Addr) (mapcache.Local, bool) {
	i, ok := slices.BinarySearchFunc(e.locals, a, func(l mapcache.Local, a netip.Addr) int { return l.Addr.Compare(a) })
	if !ok {
		return mapcache.Local{}, false
	}
	return e.locals[i], true
}

// lookupLocal finds what of ours answers a request for an EID-Prefix: the
// longest of our prefixes that covers it, else the longest that covers its
// address. It returns the range in db of that prefix and its more-specifics.
func (e *Engine) lookupLocal(iid uint32, p netip.Prefix) (from, to int, ok bool) {
	from, found := e.dbPos[mapcache.Key{IID: iid, Prefix: p.Masked()}] // as probes have it
	if !found {
		ent, found := e.database.LookupEntry(iid, p.Addr())
		if !found {
			return 0, 0, false
		}
		from = e.dbPos[ent.Key]
		for bits := p.Bits() - 1; ent.Prefix.Bits() > p.Bits() && bits >= 0; bits-- {
			k := mapcache.Key{IID: iid, Prefix: netip.PrefixFrom(p.Addr(), bits).Masked()}
			if i, there := e.dbPos[k]; there {
				from = i
				break
			}
		}
	}
	top := e.db[from].Key
	for to = from + 1; to < len(e.db); to++ {
		if k := e.db[to].Key; k.IID != top.IID || !top.Prefix.Contains(k.Prefix.Addr()) {
			break
		}
	}
	return from, to, true
}
