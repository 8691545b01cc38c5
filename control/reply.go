package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// reply answers m with the mappings at the positions in db that found names. A
// probe is answered even without any: that is what makes the locator reachable
// (RFC 9301 §5.2). eid is what was asked for; sec protects the answer, nil leaves
// it plain. It returns the ITR-RLOC that the answer went to.
func (e *Engine) reply(now time.Time, d lisp.Datagram, m *lisp.MapRequest, source netip.AddrPort,
	found []int, eid mapcache.Key, sec *replySecurity,
) (netip.Addr, bool) {
	if m.DontMapReply {
		e.drop(now, DropNoReplyWanted, d.Remote, nil)
		return netip.Addr{}, false
	}
	to, local, ok := e.chooseITRRLOC(d, m)
	if !ok || source.Port() == 0 {
		e.drop(now, DropNoITRRLOC, d.Remote, nil)
		return netip.Addr{}, false
	}
	// What a Map-Request can make us send is bounded per receiver and in total,
	// so that requests with a false ITR-RLOC harm nobody much (RFC 9301 §5.4).
	// The receiver's bucket is asked first: one that is flooded does not use up
	// the tokens of all, and costs no more than this. Peers that we know have a
	// share of the total that requests with made-up ITR-RLOCs cannot use up.
	known := e.knownPeer(now, to, d.Remote.Addr())
	limits := &e.rlocLimits
	if m.Probe && known && to == d.Remote.Addr().Unmap() {
		// A peer in conversation may probe several times a second, which must not
		// look as if we were gone.
		limits = &e.probeLimits
	}
	allowed := func() bool {
		if limits.allow(now, to) && (known && e.knownLimit.AllowN(now, 1) || e.replyLimit.AllowN(now, 1)) {
			return true
		}
		e.drop(now, DropMapReplyRate, d.Remote, nil)
		return false
	}
	if !allowed() {
		return netip.Addr{}, false
	}
	records := e.replyRecords(found)
	if m.Probe {
		e.markProbed(records, d, local)
	}
	dst := netip.AddrPortFrom(to, source.Port())
	room := e.payloadLimit(to) - 12
	if sec != nil {
		room -= sec.overhead()
		records = e.oneReply(records, eid, room)
	}
	var parts [][]lisp.EIDRecord
	for rest := records; len(rest) > 0 && len(parts) < maxReplyMessages; {
		n := splitRecords(len(rest), room, func(i int) int { return recordLen(&rest[i]) })
		parts = append(parts, rest[:n])
		rest = rest[n:]
	}
	if len(parts) == 0 {
		parts = append(parts, nil)
	}
	for i, part := range parts {
		if i > 0 && !allowed() {
			break
		}
		r := lisp.MapReply{Probe: m.Probe, EchoNonce: e.cfg.Closed.EchoNonce, Nonce: m.Nonce, Records: part}
		encode := r.AppendBinary
		if sec != nil {
			encode = func(b []byte) ([]byte, error) { return r.AppendSecured(b, sec.eidAD, sec.otk, sec.hmac) }
		}
		if !e.send(local, dst, encode) {
			return netip.Addr{}, false
		}
		e.stats.MapRepliesSent++
		if m.Probe {
			e.stats.ProbeRepliesSent++
		}
	}
	return to, true
}

// knownPeer reports whether we have to do with the locator a anyhow, or the
// request came through a Map-Server of ours.
func (e *Engine) knownPeer(now time.Time, a, from netip.Addr) bool {
	if e.isMapServer(from) || e.recent(now, e.smr.talked.last(a)) {
		return true
	}
	_, cached := e.cache.LocatorInfo(e.learned(a))
	return cached
}

// replyRecords are the records of the mappings at found, once each, with one
// TTL so that they time out together (RFC 9301 §5.5).
func (e *Engine) replyRecords(found []int) []lisp.EIDRecord {
	slices.Sort(found)
	found = slices.Compact(found)
	records := make([]lisp.EIDRecord, len(found))
	ttl := uint32(lisp.TTLUnlimited)
	for i, pos := range found {
		records[i] = siteRecord(&e.db[pos])
		ttl = min(ttl, records[i].TTL)
	}
	for i := range records {
		records[i].TTL = ttl
	}
	return records
}

// markProbed sets the p bit on the locator that the probe was sent to.
func (e *Engine) markProbed(records []lisp.EIDRecord, d lisp.Datagram, local mapcache.Local) {
	probed := local.Addr
	if a := d.Local.Addr().Unmap(); a.IsValid() && !a.IsUnspecified() {
		probed = a
	}
	for i := range records {
		for j := range records[i].Locators {
			if ip, _ := records[i].Locators[j].RLOC.IP(); ip == probed {
				// The record is shared with the database: copy before writing.
				records[i].Locators = slices.Clone(records[i].Locators)
				records[i].Locators[j].Probed = true
				return
			}
		}
	}
}

// chooseITRRLOC chooses where a Map-Reply goes and what it leaves from: the
// ITR-RLOC that the request itself came from, else the first of the address
// family it came by, else the first we can send to. An RTR answers probes from behind
// a NAT where they come from.
func (e *Engine) chooseITRRLOC(d lisp.Datagram, m *lisp.MapRequest) (netip.Addr, mapcache.Local, bool) {
	var best netip.Addr
	var from mapcache.Local
	bestRank := 0
	for _, a := range m.ITRRLOCs {
		ip, ok := a.IP()
		if !ok {
			continue // an LCAF that we do not use
		}
		ip = ip.Unmap()
		if !usableUnicast(ip) || ip.IsLoopback() && !e.onLoopback() {
			continue
		}
		local, ok := e.replyLocal(d.Local.Addr(), ip)
		if !ok {
			continue
		}
		rank := 1
		switch {
		case ip == d.Remote.Addr().Unmap():
			rank = 3
		case ip.Is4() == d.Remote.Addr().Unmap().Is4():
			rank = 2
		}
		if rank > bestRank {
			best, from, bestRank = ip, local, rank
		}
	}
	if remote := d.Remote.Addr().Unmap(); e.rtr && m.Probe && bestRank < 3 && (bestRank == 0 && !remote.IsPrivate() || seclusion(best) > seclusion(remote)) {
		// Nodes behind NATs probe their RTR, but know no address of theirs to answer to.
		if local, ok := e.replyLocal(d.Local.Addr(), remote); ok && usableUnicast(remote) {
			return remote, local, true
		}
	}
	return best, from, bestRank > 0
}

// sharedSpace is what carriers have between their customers and their NATs (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// seclusion is how far behind NATs an address is, by its kind.
func seclusion(a netip.Addr) int {
	switch {
	case a.IsPrivate():
		return 2
	case sharedSpace.Contains(a):
		return 1
	}
	return 0
}

// replyLocal is the locator that an answer to remote leaves from: the one that
// the question came to, if it can.
func (e *Engine) replyLocal(came, remote netip.Addr) (mapcache.Local, bool) {
	came, remote = came.Unmap(), remote.Unmap()
	if came.IsValid() && came.Is4() == remote.Is4() {
		if l, ok := e.localByAddr(came); ok {
			return l, true
		}
	}
	return e.localFor(remote)
}
