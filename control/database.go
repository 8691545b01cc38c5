package control

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// localMapping is one EID-Prefix of ours with the record that announces it.
type localMapping struct {
	DatabaseMapping
	record lisp.EIDRecord    // in the order of RFC 9301 §5.4: IPv4 before IPv6, ascending
	merged []lisp.RLOCRecord // of other xTRs of the site, as the Map-Servers say
}

// loadDatabase makes db the database. It must be a clean one. The records have
// the locators we have now.
func (e *Engine) loadDatabase(db []DatabaseMapping) error {
	// An address behind a mapping cannot be needed to reach the mapping
	// system (RFC 9301 §8.1).
	for _, a := range e.cfg.MapResolvers {
		if isEID(db, a.Addr()) {
			return fmt.Errorf("control: Map-Resolver %v is one of our own EIDs: %w", a, ErrConfig)
		}
	}
	for _, s := range e.cfg.MapServers {
		if isEID(db, s.Addr.Addr()) {
			return fmt.Errorf("control: Map-Server %v is one of our own EIDs: %w", s.Addr, ErrConfig)
		}
	}
	// Sorted so that the more-specifics of a prefix follow it directly.
	db = slices.Clone(db)
	slices.SortFunc(db, func(a, b DatabaseMapping) int { return compareKeys(a.Key, b.Key) })
	e.cfg.Database = db
	e.db = make([]localMapping, len(db))
	e.dbPos = make(map[mapcache.Key]int, len(db))
	for i, m := range db {
		e.db[i] = localMapping{DatabaseMapping: m, record: e.makeRecord(&m, nil)}
		e.dbPos[m.Key] = i
	}
	return nil
}

// storeDatabase keeps the lookup table of our prefixes.
func (e *Engine) storeDatabase(now time.Time) error {
	e.versionDatabase(now)
	for i := range e.db {
		if err := e.insertLocal(now, &e.db[i]); err != nil {
			return fmt.Errorf("control: database mapping %v: %w: %w", e.db[i].Key, err, ErrConfig)
		}
	}
	e.database.Changes()
	e.database.Publish()
	return nil
}

// SetDatabase replaces what this xTR is authoritative for. What is new is
// registered at once, what is gone is withdrawn from the Map-Servers, and peers
// in conversation are solicited to ask again. After Withdraw it does nothing. On
// an error, which wraps ErrConfig, nothing has changed.
func (e *Engine) SetDatabase(now time.Time, db []DatabaseMapping) error {
	db, err := cleanDatabase(db, &e.cfg.Closed)
	if err != nil {
		return err
	}
	now = e.tick(now)
	defer e.collect(now)
	if e.withdrawing {
		return nil
	}
	before, positions := e.db, e.dbPos
	if err := e.loadDatabase(db); err != nil {
		return err
	}
	// An EID is no RLOC: a locator may be one now, or no more.
	locals := e.usableLocals(e.given)
	all := !slices.Equal(locals, e.locals)
	if all {
		e.changeLocals(now, locals)
		for i := range e.db {
			e.db[i].record = e.makeRecord(&e.db[i].DatabaseMapping, nil)
		}
	}
	c := databaseChange{all: all, changed: make(map[mapcache.Key]bool), removed: make(map[mapcache.Key]lisp.EIDRecord)}
	var moved []mapcache.Key
	for i := range e.db {
		m := &e.db[i]
		pos, had := positions[m.Key]
		if had {
			m.merged = before[pos].merged
		}
		if had && sameRecord(&before[pos].record, &m.record) {
			continue
		}
		c.changed[m.Key] = true
		if !had || !slices.Equal(before[pos].record.Locators, m.record.Locators) {
			moved = append(moved, m.Key)
		}
	}
	for i := range before {
		if k := before[i].Key; !e.isOurs(k) {
			c.removed[k] = before[i].record
			moved = append(moved, k)
			e.database.Remove(now, k)
			for _, s := range e.servers {
				delete(s.others, k)
			}
		}
	}
	if err := e.storeDatabase(now); err != nil {
		e.log.Error("database mapping not stored", "err", err)
	}
	if len(e.given) == 0 || !all && len(c.changed) == 0 && len(c.removed) == 0 {
		return nil // before the first SetLocals there is nothing to tell
	}
	e.arrange(now, c)
	e.setDefaults(now)
	e.renewNAT(now, nil)
	if all {
		e.hurryRequests(now)
		e.rebuildPaths(now)
	}
	e.solicit(now, moved)
	return nil
}

func sameRecord(a, b *lisp.EIDRecord) bool {
	return a.TTL == b.TTL && a.MapVersion == b.MapVersion && slices.Equal(a.Locators, b.Locators)
}

// isOurs reports whether k is in the database.
func (e *Engine) isOurs(k mapcache.Key) bool {
	_, ok := e.dbPos[k]
	return ok
}

func compareKeys(a, b mapcache.Key) int {
	return cmp.Or(cmp.Compare(a.IID, b.IID), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
}

// isEID reports whether a, outside any instance, is an EID of db.
func isEID(db []DatabaseMapping, a netip.Addr) bool {
	for i := range db {
		if db[i].IID == 0 && db[i].Prefix.Contains(a) {
			return true
		}
	}
	return false
}

// SetLocals replaces our own locators. A change is registered at once and
// quickly repeated, and peers in conversation are solicited to ask for it;
// Map-Requests under way are repeated with the new ITR-RLOCs.
func (e *Engine) SetLocals(now time.Time, ls []mapcache.Local) {
	now = e.tick(now)
	defer e.collect(now)
	e.given = slices.Clone(ls)
	e.forgetSilent(now, e.given)
	e.relocate(now)
}

// relocate follows a change of our own locators, or of what is known of them.
func (e *Engine) relocate(now time.Time) { e.relocateBut(now, nil) }

// relocateBut is relocate when except has told its RTR already.
func (e *Engine) relocateBut(now time.Time, except *natLocal) {
	locals := e.usableLocals(e.given)
	same := slices.Equal(locals, e.locals)
	if !e.natMoved() && same {
		return
	}
	if same {
		e.setFamilies()
	} else {
		e.changeLocals(now, locals)
	}
	var moved []mapcache.Key
	for i := range e.db {
		m := &e.db[i]
		old := m.record.Locators
		m.record = e.makeRecord(&m.DatabaseMapping, nil)
		if !slices.Equal(old, m.record.Locators) {
			moved = append(moved, m.Key)
		}
	}
	if err := e.storeDatabase(now); err != nil {
		e.log.Error("database mapping not stored", "err", err)
	}
	e.setDefaults(now)
	e.arrange(now, databaseChange{all: true, rtrs: same && len(e.registrations) > 0})
	e.renewNAT(now, except)
	if e.nat != nil {
		e.silentSeq++ // others of ours may be spared now
	}
	e.hurryRequests(now)
	e.rebuildPaths(now)
	e.solicit(now, moved)
}

// usableLocals returns what of ls can be a locator, sorted, once each.
func (e *Engine) usableLocals(ls []mapcache.Local) []mapcache.Local {
	locals := make([]mapcache.Local, 0, len(ls))
	for _, l := range ls {
		l.Addr = l.Addr.Unmap().WithZone("")
		switch {
		case !usableUnicast(l.Addr):
			e.log.Warn("own locator is no unicast address", "rloc", l.Addr)
		case isEID(e.cfg.Database, l.Addr):
			// RFC 9300 §4: an EID is no RLOC.
			e.log.Warn("own locator is one of our EIDs", "rloc", l.Addr)
		default:
			l.Up = l.Up && !e.isSilent(l.Addr)
			locals = append(locals, l)
		}
	}
	slices.SortStableFunc(locals, func(a, b mapcache.Local) int { return a.Addr.Compare(b.Addr) })
	locals = slices.CompactFunc(locals, func(a, b mapcache.Local) bool { return a.Addr == b.Addr })
	if e.nat != nil {
		return e.directLocals(e.now, locals)
	}
	return locals
}

func (e *Engine) changeLocals(now time.Time, locals []mapcache.Local) {
	e.locals = locals
	e.emit(LocalsChanged{Stamp{now}, e.Locals()})
	e.setFamilies()
}

// setFamilies tells the map-cache to which families of locators we can send.
func (e *Engine) setFamilies() {
	var have4, have6 bool
	for _, l := range e.locals {
		have4 = have4 || l.Up && l.Addr.Is4()
		have6 = have6 || l.Up && l.Addr.Is6()
	}
	e.cache.SetSourceFamilies(e.natFamilies(have4, have6))
}

// Locals returns our own locators, sorted by address, IPv4 first.
func (e *Engine) Locals() []mapcache.Local {
	ls := slices.Clone(e.locals)
	if e.nat != nil {
		ls = e.nat.withLocals(ls)
	}
	return ls
}

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

// makeRecord builds the record that announces m with the locators we have now, to
// everybody or in a Map-Register by an RTR.
func (e *Engine) makeRecord(m *DatabaseMapping, by *natt.Route) lisp.EIDRecord {
	locals := e.announcedLocals(by)
	r := lisp.EIDRecord{
		TTL:     uint32(min(m.TTL/time.Minute, lisp.TTLUnlimited-1)),
		MaskLen: uint8(m.Prefix.Bits()),

		MapVersion: e.mapVersion(m.Key),
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
		for _, l := range locals {
			add(l.rloc, l.Priority, l.Weight, l.own, l.up)
		}
	}
	for _, c := range m.RLOCs {
		if c.Remote {
			add(c.Addr, c.Priority, c.Weight, false, true)
			continue
		}
		for _, l := range locals {
			if c.Addr == l.Addr || !c.Addr.IsValid() && c.IfIndex == l.IfIndex && ofFamily(l.Addr, c.Family) {
				add(l.rloc, c.Priority, c.Weight, l.own, l.up)
			}
		}
	}
	fitLocators(&r)
	sortLocators(&r)
	return r
}

func ofFamily(a netip.Addr, family uint8) bool {
	return family == 0 || a.Is4() == (family == 4)
}

// recordBudget is what one record may take, so that it fits any message of
// ours: 576 octets less IP and UDP header, and the header, digest and identity of a
// Map-Register with the ECM around it. A Map-Reply's header and LISP-SEC data take less.
const recordBudget = 576 - 28 - (16 + 32 + 24) - (4 + 28)

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
	if !ok {
		b, _ := a.MarshalBinary()
		return len(b)
	}
	n := 2 + ip.BitLen()/8
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

// localInTurn is localFor after that many failures: each time another one, and
// again the best after all have been tried. One of Priority 255 is only for want
// of another.
func (e *Engine) localInTurn(remote netip.Addr, failures int) (mapcache.Local, bool) {
	var ls []mapcache.Local
	for _, l := range e.locals {
		if l.Up && l.Addr.Is4() == remote.Is4() {
			ls = append(ls, l)
		}
	}
	if len(ls) == 0 {
		return mapcache.Local{}, false
	}
	slices.SortStableFunc(ls, func(a, b mapcache.Local) int { return cmp.Compare(a.Priority, b.Priority) })
	for len(ls) > 1 && ls[len(ls)-1].Priority == 255 {
		ls = ls[:len(ls)-1]
	}
	return ls[failures%len(ls)], true
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
