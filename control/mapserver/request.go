package mapserver

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// TTLs of negative replies in minutes (RFC 9301 §8.3), and how much fits into
// one Map-Reply.
const (
	ttlNotLISP       = 15
	ttlUnregistered  = 1
	maxMoreSpecifics = 16

	// maxAmplification bounds an answer to a multiple of the request's length,
	// since nobody knows who it really is from. Only the one mapping that was
	// asked for may be longer, and takes more tokens then.
	maxAmplification = 8

	// Octets of UDP payload when nothing is known of the path (RFC 9301 §5).
	maxPayloadIPv4 = 576 - 20 - 8
	maxPayloadIPv6 = 1280 - 40 - 8
)

// handleECM answers an encapsulated Map-Request (RFC 9301 §8.3, §8.4). It
// reports whether the message was for this role.
func (w *Worker) handleECM(d lisp.Datagram) bool {
	if err := w.ecm.DecodeFromBytes(d.Bytes); err != nil {
		w.drop(ReasonMalformed, lisp.TypeEncapsulatedControl, d)
		return true
	}
	inner, err := w.ecm.Inner()
	if err != nil {
		w.drop(ReasonInner, lisp.TypeEncapsulatedControl, d)
		return true
	}
	if w.ecm.Relayed && lisp.TypeOf(inner.Payload) == lisp.TypeMapRegister {
		w.handleRelayed(d, inner)
		return true
	}
	if len(inner.Payload) == 0 || lisp.TypeOf(inner.Payload) != lisp.TypeMapRequest {
		w.drop(ReasonInner, lisp.TypeEncapsulatedControl, d)
		return false
	}
	m := &w.request
	if err := m.DecodeFromBytes(inner.Payload); err != nil {
		w.drop(ReasonMalformed, lisp.TypeMapRequest, d)
		return true
	}
	w.stats.requests.Add(1)
	if m.Reserved&lisp.RequestReservedNAT == 0 {
		w.asker = d.Remote.Addr()
	}
	switch {
	case m.Probe:
		w.drop(ReasonProbe, lisp.TypeMapRequest, d)
		return true
	case len(m.Records) == 0:
		w.drop(ReasonNoRecords, lisp.TypeMapRequest, d)
		return true
	}
	return w.resolve(d, m, w.throughNAT(d, m, inner.Source.Port()))
}

// resolve answers each record of a Map-Request, or forwards the request once.
func (w *Worker) resolve(d lisp.Datagram, m *lisp.MapRequest, port uint16) bool {
	w.reply.Nonce, w.reply.Records = m.Nonce, w.reply.Records[:0]
	w.room = maxAmplification * len(d.Bytes)
	to, local, answerable := w.requester(d, m, port)
	// One token for the whole request, before any work; flush takes more if the
	// answer needs several datagrams.
	if !w.s.limits.allow(w.ticks, d.Remote.Addr(), to.Addr()) {
		w.drop(ReasonRate, lisp.TypeMapRequest, d)
		return true
	}
	servers, mixed := w.sameServers(m)
	if servers != nil && !mixed {
		w.resolveElsewhere(d, m, servers)
		return true
	}
	if w.subscribe(d, m) {
		return true
	}
	if len(w.ecm.Security) > 0 && w.ecm.Security[0] == lisp.ADTypeLISPSEC {
		return w.resolveProtected(d, m, to, local, answerable)
	}
	forwarded := false
	for i := range m.Records {
		iid, asked, ok := m.Records[i].Prefix()
		if !ok || asked.Addr().Is4In6() {
			w.drop(ReasonEID, lisp.TypeMapRequest, d)
			continue
		}
		asked = asked.Masked()
		found := w.lookup(iid, asked)
		if found.servers != nil {
			w.drop(ReasonMixed, lisp.TypeMapRequest, d)
			continue
		}
		if found.forward {
			if forwarded {
				continue
			}
			forwarded = true
			if !w.forward(d, m, iid, asked, found.reg) {
				return false // the ETR is in this process
			}
			continue
		}
		switch {
		case m.DontMapReply:
			w.drop(ReasonNoReply, lisp.TypeMapRequest, d)
			return true
		case !answerable:
			w.drop(ReasonNoITRRLOC, lisp.TypeMapRequest, d)
			return true
		case w.room <= 0:
			w.drop(ReasonSize, lisp.TypeMapRequest, d)
			w.flush(d, local, to)
			return true
		}
		first := len(w.reply.Records)
		if found.reg != nil {
			w.answer(found, iid, asked, to)
		} else {
			w.negative(found, iid, asked, to)
		}
		w.room -= recordsLen(w.reply.Records[first:])
	}
	if len(w.reply.Records) > 0 {
		w.flush(d, local, to)
	}
	return true
}

// finding is what is known about an EID.
type finding struct {
	inst    *instance
	site    *site         // nil: no site's
	within  netip.Prefix  // the configured EID-Prefix, if any
	reg     *registration // live, if any
	forward bool          // to an ETR of reg
	servers []*upstream   // it is for one of these to answer
	alone   bool          // to be answered without more specific EID-Prefixes
}

// lookup decides in the order of RFC 9301 §8.3: configured? policy? registered? proxy?
func (w *Worker) lookup(iid uint32, p netip.Prefix) finding {
	f := finding{inst: w.set.instances[iid]}
	if f.inst == nil {
		return f
	}
	lpm, sp, ok := f.inst.table().LookupPrefixLPM(p)
	if !ok {
		// Broader than what is configured, as a refresh of a negative entry may
		// be: its first address decides.
		host := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		if lpm, sp, ok = f.inst.table().LookupPrefixLPM(host); !ok {
			return f
		}
		p = host
	}
	f.site, f.within, f.servers = sp.site, lpm, sp.servers
	if f.servers != nil || f.site.terms().deny != DenyNone {
		return f
	}
	reg := f.inst.match(w.ticks, p)
	if reg == nil && !p.IsSingleIP() && f.inst.regs.contains(p, netip.Prefix{}) {
		// The refresh of a hole in which somebody has registered meanwhile.
		return w.lookup(iid, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	// A registration of the aggregate says nothing about a more specific
	// EID-Prefix configured within it.
	if reg == nil || reg.key.prefix.Bits() < lpm.Bits() {
		return f
	}
	f.reg = reg
	w.claims = reg.current(w.ticks, w.claims[:0])
	f.forward = !f.site.terms().proxy
	for _, c := range w.claims {
		if c.flags&(flagProxy|flagRelayed) != 0 { // a Map-Request doesn't get through a NAT
			f.forward = false
		}
	}
	return f
}

// negative adds a record without locators: the whole hole around what was asked.
func (w *Worker) negative(f finding, iid uint32, asked netip.Prefix, to netip.AddrPort) {
	rec := w.nextRecord()
	rec.Action, rec.TTL = lisp.ActionNativelyForward, ttlNotLISP
	prefix := asked
	name := ""
	switch {
	case f.inst == nil:
		prefix = netip.PrefixFrom(asked.Addr(), 0).Masked()
	case f.site == nil:
		host := netip.PrefixFrom(asked.Addr(), asked.Addr().BitLen())
		prefix = hole(host, 0, f.inst.table().OverlapsPrefix)
	default:
		name = f.site.name
		prefix = w.holeWithin(f, asked)
		rec.Action, rec.TTL = f.site.terms().deny.negative()
	}
	rec.EID, rec.MaskLen = lisp.EIDAddress(iid, prefix.Addr()), uint8(prefix.Bits())
	w.stats.negatives.Add(1)
	action, ttl := rec.Action, time.Duration(rec.TTL)*time.Minute
	w.event(func() Event {
		return Negative{
			Time: w.now, Site: name, IID: iid, Asked: asked, EID: prefix, Action: action, TTL: ttl, To: to,
		}
	})
}

// holeWithin is the part of the configured prefix around p that has no
// registration and no configured prefix of its own.
func (w *Worker) holeWithin(f finding, p netip.Prefix) netip.Prefix {
	regs := f.inst.regs
	taken := func(q netip.Prefix) bool {
		return contains(f.inst.table(), q, f.within) || f.site.terms().deny == DenyNone && regs.contains(q, netip.Prefix{})
	}
	if p.Bits() < f.within.Bits() || taken(p) {
		p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
	}
	return hole(p, f.within.Bits(), taken)
}

// answer adds the record of a registration, and of those more specific within
// it: a Map-Reply for a prefix must not hide them (RFC 9301 §5.5). When that
// is too much, or some are configured but not registered, the record is for the
// part around the EID that has no more specific prefix.
func (w *Worker) answer(f finding, iid uint32, asked netip.Prefix, to netip.AddrPort) {
	prefix := f.reg.key.prefix
	regs := f.inst.regs
	ttl := ^uint32(0)
	var more []*registration
	narrow := f.alone || contains(f.inst.table(), prefix, f.within)
	for p, r := range regs.Subnets(prefix) {
		if narrow || len(more) > maxMoreSpecifics {
			narrow = true
			break
		}
		if p != prefix && r.live(w.ticks) {
			more = append(more, r)
		}
	}
	if narrow {
		more = nil
		prefix = f.around(asked)
	}
	first := len(w.reply.Records)
	if !w.positive(f.reg, iid, prefix) {
		w.drop(ReasonNoRLOC, lisp.TypeMapRequest, lisp.Datagram{Remote: to})
		return
	}
	for _, r := range more {
		w.positive(r, iid, r.key.prefix)
	}
	if len(more) > 0 && recordsLen(w.reply.Records[first:]) > w.room {
		// Too much for this request: only the part without more specifics.
		w.reply.Records = w.reply.Records[:first]
		prefix = f.around(asked)
		w.positive(f.reg, iid, prefix)
	}
	// All records of an overlapping set live equally long.
	for i := range w.reply.Records[first:] {
		ttl = min(ttl, w.reply.Records[first+i].TTL)
	}
	for i := range w.reply.Records[first:] {
		w.reply.Records[first+i].TTL = ttl
	}
	w.stats.replies.Add(1)
	rec := &w.reply.Records[first]
	n, action := len(rec.Locators), rec.Action
	w.event(func() Event {
		return Resolved{
			Time: w.now, Site: f.site.name, IID: iid, Asked: asked, EID: prefix, To: to, RLOCs: n, Action: action,
		}
	})
}

// positive adds the merged record of r under prefix: never authoritative, no
// locator local or probed, in the order of their addresses.
func (w *Worker) positive(r *registration, iid uint32, prefix netip.Prefix) bool {
	w.claims = r.current(w.ticks, w.claims[:0])
	if len(w.claims) == 0 {
		return false
	}
	rec := w.nextRecord()
	rec.TTL = lisp.TTLUnlimited
	for i, c := range w.claims {
		from, err := w.decoder.decode(c.record)
		if err != nil {
			continue // it was encoded by recordEncoder
		}
		rec.TTL = min(rec.TTL, from.TTL)
		if i == 0 {
			rec.MapVersion = from.MapVersion
			rec.Action = from.Action
		}
		rec.Locators = mergeRLOCs(rec.Locators, c.announced(from.Locators))
	}
	if w.set.nat.askers != nil && w.asker.IsValid() {
		rec.Locators = natt.PartialLocators(rec.Locators, w.asker)
	}
	if len(rec.Locators) > 0 {
		rec.Action = lisp.ActionNoAction
	}
	slices.SortStableFunc(rec.Locators, compareRLOCs)
	rec.EID, rec.MaskLen = lisp.EIDAddress(iid, prefix.Addr()), uint8(prefix.Bits())
	return true
}

// compareRLOCs orders locators as a Map-Reply must (RFC 9301 §5.4, RFC 8060 §3):
// IPv4, IPv6, then others by AFI and LCAF type.
func compareRLOCs(a, b lisp.RLOCRecord) int {
	x, _ := a.RLOC.IP()
	y, _ := b.RLOC.IP()
	if x.IsValid() && y.IsValid() {
		return cmp.Or(cmp.Compare(x.BitLen(), y.BitLen()), x.Compare(y))
	}
	return cmp.Or(cmp.Compare(a.RLOC.AFI(), b.RLOC.AFI()), cmp.Compare(lcafType(a.RLOC), lcafType(b.RLOC)))
}

// lcafType is the type of an LCAF, without taking its body apart.
func lcafType(a lisp.Address) byte {
	const at = 4 // behind AFI, Rsvd1 and Flags
	if b, err := a.MarshalBinary(); a.AFI() == lisp.AFILCAF && err == nil && len(b) > at {
		return b[at]
	}
	return 0
}

// nextRecord grows the reply by an empty record, reusing its locator slice.
func (w *Worker) nextRecord() *lisp.EIDRecord {
	n := len(w.reply.Records)
	if n < cap(w.reply.Records) {
		w.reply.Records = w.reply.Records[:n+1]
	} else {
		w.reply.Records = append(w.reply.Records, lisp.EIDRecord{})
	}
	rec := &w.reply.Records[n]
	*rec = lisp.EIDRecord{Locators: rec.Locators[:0]}
	return rec
}

// flush sends the collected records in as many Map-Replies as their size asks
// for; a record that is too large alone goes alone.
func (w *Worker) flush(d lisp.Datagram, local, to netip.AddrPort) {
	limit := maxPayloadIPv4
	if to.Addr().Is6() {
		limit = maxPayloadIPv6
	}
	records := w.reply.Records
	ifIndex := d.IfIndex
	if local.Addr() != d.Local.Addr() {
		ifIndex = 0
	}
	for first := true; len(records) > 0; first = false {
		n := min(len(records), 255)
		for {
			start := len(w.buf)
			w.out = lisp.MapReply{Nonce: w.reply.Nonce, Records: records[:n]}
			b, err := w.out.AppendBinary(w.buf)
			if err == nil && len(b)-start > limit && n > 1 {
				n = (n + 1) / 2
				continue
			}
			if err != nil {
				w.s.log.Error("cannot encode map-reply", "err", err)
				return
			}
			tokens := (len(b) - start + limit - 1) / limit
			if first {
				tokens-- // taken already
			}
			if tokens > 0 && !w.s.limits.allowN(w.ticks, d.Remote.Addr(), to.Addr(), tokens) {
				w.drop(ReasonRate, lisp.TypeMapRequest, d)
				return
			}
			w.buf = b
			w.send(local, to, ifIndex, start)
			break
		}
		records = records[n:]
	}
}

// requester chooses the ITR-RLOC to answer: the first of the family that the
// request came by, else the first of a family the server has. ITR-RLOCs that
// are no plain unicast address, such as LCAFs, are passed over.
func (w *Worker) requester(d lisp.Datagram, m *lisp.MapRequest, port uint16) (to, local netip.AddrPort, ok bool) {
	if port == 0 || port == lisp.DataPort {
		return to, local, false
	}
	for _, a := range m.ITRRLOCs {
		ip, plain := a.IP()
		if ip = ip.Unmap(); !plain || !w.sendable(ip, d) {
			continue
		}
		same := ip.Is4() == d.Remote.Addr().Is4()
		if ok && !same {
			continue
		}
		to, ok = netip.AddrPortFrom(ip, port), true
		if same {
			break
		}
	}
	return to, w.localFor(to.Addr(), d), ok
}

// sendable tells whether a datagram to ip makes sense for the server.
func (w *Worker) sendable(ip netip.Addr, d lisp.Datagram) bool {
	switch {
	case !ip.IsValid(), ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(),
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false
	case ip.IsLoopback() && !d.Remote.Addr().IsLoopback():
		return false
	case ip.Is4() && !w.s.haveIPv4, ip.Is6() && !w.s.haveIPv6:
		return false
	}
	return true
}

// localFor is the address to send to ip from: the one that d came to, if it is of
// that family, else one of Config.Locals, else any.
func (w *Worker) localFor(ip netip.Addr, d lisp.Datagram) netip.AddrPort {
	if l := d.Local.Addr(); l.IsValid() && l.Is4() == ip.Is4() {
		return netip.AddrPortFrom(l, lisp.ControlPort)
	}
	for _, l := range w.s.locals {
		if l.Is4() == ip.Is4() {
			return netip.AddrPortFrom(l, lisp.ControlPort)
		}
	}
	return netip.AddrPortFrom(netip.Addr{}, lisp.ControlPort)
}

// forward passes the unaltered inner packet on to a registered locator. It
// returns false when that is the server itself, whose ETR may take the request.
func (w *Worker) forward(d lisp.Datagram, m *lisp.MapRequest, iid uint32, asked netip.Prefix, r *registration) bool {
	to, ok := w.chooseRLOC(d, uint64(m.Nonce), r)
	if !ok {
		w.drop(ReasonNoRLOC, lisp.TypeMapRequest, d)
		return true
	}
	if to == d.Local.Addr() || slices.Contains(w.s.locals, to) {
		return false
	}
	remote := netip.AddrPortFrom(to, lisp.ControlPort)
	if !w.forwardTo(d, nil, remote) {
		return true
	}
	w.event(func() Event {
		return Forwarded{Time: w.now, Site: r.site.name, IID: iid, Asked: asked, From: d.Remote, To: remote}
	})
	return true
}

// forwardTo passes the inner packet on, octet for octet, in a new ECM, with
// LISP-SEC data if there is any.
func (w *Worker) forwardTo(d lisp.Datagram, security []byte, to netip.AddrPort) bool {
	start := len(w.buf)
	b, err := (&lisp.EncapsulatedControl{Security: security, Packet: w.ecm.Packet}).AppendBinary(w.buf)
	if err != nil {
		w.drop(ReasonMalformed, lisp.TypeEncapsulatedControl, d)
		return false
	}
	w.buf = b
	local, ifIndex := w.localFor(to.Addr(), d), d.IfIndex
	if local.Addr() != d.Local.Addr() {
		ifIndex = 0
	}
	w.send(local, to, ifIndex, start)
	w.stats.forwards.Add(1)
	return true
}

// candidate is a locator that a request can be forwarded to.
type candidate struct {
	addr   netip.Addr
	rank   int // the least is the best
	weight int
}

// chooseRLOC picks among the reachable plain locators of the best priority, by
// their weights and the nonce, so that a retransmitted request, which has a new
// nonce, may find another one. Locators of the family that the request came by
// go first: the ITR can surely be answered from there.
func (w *Worker) chooseRLOC(d lisp.Datagram, nonce uint64, r *registration) (netip.Addr, bool) {
	w.claims = r.current(w.ticks, w.claims[:0])
	w.rlocs = w.rlocs[:0]
	best := math.MaxInt
	for _, c := range w.claims {
		rec, err := w.decoder.decode(c.record)
		if err != nil {
			continue
		}
		for _, l := range rec.Locators {
			ip, plain := l.RLOC.IP()
			if ip = ip.Unmap(); !plain || !l.Reachable || !w.sendable(ip, d) {
				continue
			}
			// Priority 255 bars user packets, not control messages.
			rank := int(l.Priority)
			if ip.Is4() != d.Remote.Addr().Is4() {
				rank += 256
			}
			if rank > best || slices.ContainsFunc(w.rlocs, func(e candidate) bool { return e.addr == ip && e.rank == rank }) {
				continue
			}
			best = rank
			w.rlocs = append(w.rlocs, candidate{ip, rank, int(l.Weight)})
		}
	}
	w.rlocs = slices.DeleteFunc(w.rlocs, func(e candidate) bool { return e.rank != best })
	if len(w.rlocs) == 0 {
		return netip.Addr{}, false
	}
	slices.SortFunc(w.rlocs, func(a, b candidate) int { return a.addr.Compare(b.addr) })
	sum := 0
	for _, c := range w.rlocs {
		sum += c.weight
	}
	pick := mix(nonce)
	if sum == 0 { // weights don't matter
		return w.rlocs[pick%uint64(len(w.rlocs))].addr, true
	}
	at := int(pick % uint64(sum))
	i := 0
	for ; at >= w.rlocs[i].weight; i++ {
		at -= w.rlocs[i].weight
	}
	return w.rlocs[i].addr, true
}
