package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// handleEncapsulated takes a Map-Request out of an Encapsulated Control Message
// (RFC 9301 §5.8), as a Map-Server forwards it. Other contents are for others.
func (e *Engine) handleEncapsulated(now time.Time, d lisp.Datagram) bool {
	if err := e.ecm.DecodeFromBytes(d.Bytes); err != nil {
		e.drop(now, DropMalformed, d.Remote, err.Error)
		return true
	}
	inner, err := e.ecm.Inner()
	if err != nil {
		e.drop(now, DropMalformed, d.Remote, err.Error)
		return true
	}
	if lisp.TypeOf(inner.Payload) != lisp.TypeMapRequest {
		return false
	}
	return e.handleMapRequest(now, d, inner.Payload, inner.Source, true)
}

// handleMapRequest takes a Map-Request (RFC 9301 §5.2) that b holds, the
// sender's socket being source: a question for an EID of ours, an RLOC-probe, or
// an SMR.
func (e *Engine) handleMapRequest(now time.Time, d lisp.Datagram, b []byte, source netip.AddrPort, encapsulated bool) bool {
	m := &e.mapRequest
	if err := m.DecodeFromBytes(b); err != nil {
		e.drop(now, DropMalformed, d.Remote, err.Error)
		return true
	}
	if m.Probe && encapsulated {
		e.drop(now, DropEncapsulated, d.Remote, nil) // RFC 9301 §5.8
		return true
	}
	if m.SMR {
		return e.handleSMR(now, d, m)
	}
	found, eid := e.findRecords(m)
	if len(found) == 0 && !m.Probe {
		e.drop(now, DropNotOurEID, d.Remote, m.String)
		return false
	}
	e.stats.MapRequestsReceived++
	var sec *replySecurity
	if encapsulated && len(e.ecm.Security) > 0 {
		// An answer without LISP-SEC data would be discarded (RFC 9303 §6.9).
		var claimed bool
		if sec, claimed = e.unwrapRequest(now, d, m.Nonce); sec == nil {
			return claimed
		}
	}
	to, ok := e.reply(now, d, m, source, found, eid, sec)
	if ok {
		e.hint(now, to)
		if !m.Probe {
			e.smrAnswered(now, m, eid)
		}
	}
	if ok && !m.Probe {
		e.emit(MapRequestReceived{Stamp: Stamp{now}, EID: eid, From: to})
	}
	return true
}

const (
	// maxRequestRecords bounds what one Map-Request makes us look up. Nobody is
	// known to send more than one record, as RFC 9301 §5.2 demands.
	maxRequestRecords = 16
	// maxReplyRecords bounds the overlapping EID-Prefixes of an answer. As many
	// fit maxReplyMessages of the least size.
	maxReplyRecords = 256
)

// findRecords returns the positions in db of what answers m: for each record
// our best match and its more-specifics (RFC 9301 §5.5), and the EID asked for.
func (e *Engine) findRecords(m *lisp.MapRequest) (found []int, eid mapcache.Key) {
	for i := range m.Records[:min(len(m.Records), maxRequestRecords)] {
		rec := &m.Records[i]
		if m.Probe && rec.EID.IsZero() && len(e.db) > 0 {
			// lispers.net probes so right after a Map-Reply. Any mapping of ours
			// shows that we are here.
			found = append(found, 0)
			continue
		}
		iid, p, ok := rec.Prefix()
		if !ok {
			continue
		}
		k, err := cleanKey(mapcache.Key{IID: iid, Prefix: p})
		if err != nil {
			continue
		}
		from, to, ok := e.lookupLocal(k.IID, k.Prefix)
		if !ok {
			continue
		}
		eid = k
		for ; from < to && len(found) < maxReplyRecords; from++ {
			found = append(found, from)
		}
	}
	return found, eid
}

// handleSMR takes a Solicit-Map-Request (RFC 9301 §6.1): a site whose mapping we
// may have cached says that it changed. It is not believed, only asked about
// through the mapping system. The changed EID is the source EID, as all known
// senders have it; the record is tried after it.
func (e *Engine) handleSMR(now time.Time, d lisp.Datagram, m *lisp.MapRequest) bool {
	eids := append(make([]lisp.Address, 0, 2), m.SourceEID)
	for i := range m.Records[:min(len(m.Records), 1)] {
		eids = append(eids, m.Records[i].EID)
	}
	for _, a := range eids {
		iid, ip, ok := a.EID()
		if !ok {
			continue
		}
		ent, ok := e.cache.LookupEntry(iid, ip.Unmap())
		if !ok || e.configured(&ent) {
			continue
		}
		// The sender may be any address, as it is a new one after a handover. So
		// a flood costs what these limits allow, and nothing that misses need.
		from := d.Remote.Addr().Unmap()
		if !e.smrSources.allow(now, from) || !e.smrLimit.AllowN(now, 1) {
			e.drop(now, DropSMRRate, d.Remote, ent.String)
			return true
		}
		e.stats.SMRsReceived++
		e.emit(MapRequestReceived{Stamp: Stamp{now}, EID: ent.Key, From: from, SMR: true})
		e.cache.MarkSMR(now, ent.Key)
		e.refresh(now, ent.Key, reasons{smr: true})
		e.refreshSiblings(now, ent)
		return true
	}
	e.drop(now, DropNotCached, d.Remote, m.String)
	return true
}

// maxSiblings bounds the further entries that one SMR makes us ask for.
const maxSiblings = 3

// refreshSiblings asks for entries in use with the locators of ent too. An SMR
// names one EID and the next to the same locator waits three seconds, while a node
// that moves takes all its EIDs along, usually one of each family. Which of the
// locators are up may differ: one of the entries may be older.
func (e *Engine) refreshSiblings(now time.Time, ent mapcache.Entry) {
	asked := []mapcache.Key{ent.Key}
	looks := 4 * maxSiblings
	for _, r := range ent.RLOCs {
		t := e.targets[r.Locator]
		if t == nil {
			continue
		}
		for i := 0; i < t.keys.len() && looks > 0; i++ {
			looks--
			k := t.keys.at(i)
			if slices.Contains(asked, k) {
				continue
			}
			o, ok := e.cache.Get(k)
			if !ok || o.Origin == mapcache.OriginStatic || !sameLocators(o.RLOCs, ent.RLOCs) || !e.smrLimit.AllowN(now, 1) {
				continue
			}
			e.refresh(now, k, reasons{smr: true})
			if asked = append(asked, k); len(asked) > maxSiblings {
				return
			}
		}
	}
}

// sameLocators reports whether two mappings list the same locators, in any state.
func sameLocators(a, b []mapcache.RLOC) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(r mapcache.RLOC) bool {
		return !slices.ContainsFunc(b, func(o mapcache.RLOC) bool { return o.Locator == r.Locator })
	})
}
