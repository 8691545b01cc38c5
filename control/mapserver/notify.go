package mapserver

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// An unsolicited Map-Notify is sent again three times after three seconds each,
// then three times after twice as long as before (RFC 9301 §5.7). Then its
// receiver is given up.
const (
	notifyInterval = 3 * time.Second
	notifySteady   = 3 // retransmissions at notifyInterval
	notifyMost     = 1 + 2*notifySteady
)

// notifyKey says to whom unsolicited Map-Notifies go: an xTR, at an address, and
// the key that they are signed with.
type notifyKey struct {
	assoc     xtrKey
	algorithm lisp.Algorithm
	addr      netip.Addr
}

// notifyPeer is what one receiver has not been told or has not acknowledged. One
// Map-Notify at a time is under way, so that a receiver gets no more than one in
// a round-trip time, or in three seconds when it doesn't answer (RFC 8085 §3.1).
type notifyPeer struct {
	key     notifyKey
	local   netip.Addr      // to send from; may be invalid
	path    natt.Path       // by which RTR it goes
	eids    map[regKey]bool // all to tell; true: changed since it was told
	waiting []regKey        // of these, what no message says yet; may name some that are no more in eids
	told    []regKey        // and what the message says
	awaited *notifyAwaited  // nil: no message is under way
	message []byte
	sent    int
	at      int64 // ticks of the next transmission
	index   int   // in the heap
}

// notifyAwaited is what a Worker needs to verify a Map-Notify-Ack. It is immutable.
type notifyAwaited struct {
	peer  *notifyPeer // the writer's
	nonce uint64
	key   lisp.Key

	subscription *subscription // instead of peer
}

// wait is the time from the transmission just made to the next, in ticks.
func (p *notifyPeer) wait() int64 {
	return int64(notifyInterval) << max(0, p.sent-notifySteady)
}

type notifyHeap []*notifyPeer

func (h notifyHeap) Len() int           { return len(h) }
func (h notifyHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h notifyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *notifyHeap) Push(x any) {
	p := x.(*notifyPeer)
	p.index = len(*h)
	*h = append(*h, p)
}

func (h *notifyHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return p
}

// notifies is the state of all unsolicited Map-Notifies. It belongs to the writer.
type notifies struct {
	peers map[notifyKey]*notifyPeer
	due   notifyHeap
	count int // pairs of receiver and EID-Prefix
}

// moved is called when u has changed the registration that was before. If that
// changes the mapping, a Map-Notify goes to the other xTRs that have the
// EID-Prefix registered, and to the locators that are displaced: they were in
// the mapping and are no more.
func (s *Server) moved(now time.Time, ticks int64, u *Update, k regKey, before *registration) {
	after := s.get(k)
	if before == nil || before == after || after == nil || s.cfg.MaxNotifies < 0 {
		return
	}
	// The sender itself hears by its own Map-Notify.
	s.untell(notifyKey{assoc: u.xtr, algorithm: u.algorithm, addr: u.from.Addr()}, k)
	if sameContent(before, after) {
		return
	}
	old, next := before.current(ticks, nil), after.current(ticks, nil)
	if len(old) == 0 || len(next) == 0 || s.effective(before, ticks) == s.effective(after, ticks) {
		return
	}
	told := []netip.Addr{u.from.Addr()}
	for _, c := range after.claims() {
		if c.holder() != u.holder && c.live(ticks) {
			told = s.tell(ticks, c, c.from, u.local, told)
		}
	}
	kept := mergedRLOCs(next)
	var displaced []netip.Addr
	for _, c := range old {
		for _, l := range mergedRLOCs([]*claim{c}) {
			a, plain := l.RLOC.IP()
			if !plain || !l.Reachable || slices.ContainsFunc(kept, func(r lisp.RLOCRecord) bool { return r.RLOC == l.RLOC }) {
				continue
			}
			if a = a.Unmap(); !slices.Contains(displaced, a) {
				displaced = append(displaced, a)
			}
			told = s.tell(ticks, c, a, u.local, told)
		}
	}
	if len(displaced) > 0 {
		s.worker.stats.moves.Add(1)
		s.addEvent(Moved{
			Time: now, Site: after.site.name, IID: k.inst.iid, EID: k.prefix, From: u.from, XTRID: u.holder.xtr,
			Displaced: displaced, RLOCs: kept,
		})
	}
}

// fellBack is called when a claim of r has expired: if others go on, and the
// mapping is another one now, they hear of it.
func (s *Server) fellBack(ticks int64, r *registration, expired *claim) {
	if len(r.claims()) < 2 || s.cfg.MaxNotifies < 0 || !r.live(ticks) ||
		s.effective(r, expired.expires.Load()-1) == s.effective(r, ticks) {
		return
	}
	var told []netip.Addr
	for _, c := range r.claims() {
		if c.live(ticks) {
			told = s.tell(ticks, c, c.from, netip.Addr{}, told)
		}
	}
}

// sameContent tells quickly that one xTR has repeated what it had registered.
func sameContent(before, after *registration) bool {
	if len(before.claims()) != 1 || len(after.claims()) != 1 {
		return false
	}
	a, b := before.claims()[0], after.claims()[0]
	return a.holder() == b.holder() && a.record == b.record
}

// tell notes that the xTR of c is to hear, at addr, of what c is about, unless
// addr has been told already. It is sent by transmit.
func (s *Server) tell(ticks int64, c *claim, addr, local netip.Addr, told []netip.Addr) []netip.Addr {
	if slices.Contains(told, addr) || !s.worker.sendable(addr, lisp.Datagram{}) {
		return told
	}
	told = append(told, addr)
	path, ok := s.pathTo(c, addr)
	if !ok {
		return told
	}
	nk := notifyKey{
		assoc:     xtrKey{site: c.site, keyID: c.keyID, xtr: c.holder().xtr, siteID: c.holder().site},
		algorithm: c.algorithm, addr: addr,
	}
	p := s.notifies.peers[nk]
	if p != nil {
		if _, known := p.eids[c.key]; known {
			p.eids[c.key] = true
			return told
		}
	}
	if s.notifies.count >= s.cfg.MaxNotifies {
		s.worker.stats.dropped[ReasonNotifies].Add(1)
		return told
	}
	if p == nil {
		p = &notifyPeer{key: nk, eids: make(map[regKey]bool), at: ticks}
		if s.notifies.peers == nil {
			s.notifies.peers = make(map[notifyKey]*notifyPeer)
		}
		s.notifies.peers[nk] = p
		heap.Push(&s.notifies.due, p)
	}
	p.path = path
	if local.IsValid() && local.Is4() == addr.Is4() {
		p.local = local
	}
	if len(p.waiting) > 2*len(p.eids)+16 { // most of it is settled
		slices.SortFunc(p.waiting, func(a, b regKey) int { return cmp.Or(cmp.Compare(a.inst.iid, b.inst.iid), a.prefix.Compare(b.prefix)) })
		p.waiting = slices.Compact(p.waiting)
		p.waiting = slices.DeleteFunc(p.waiting, func(k regKey) bool { _, wanted := p.eids[k]; return !wanted })
	}
	p.eids[c.key] = false
	p.waiting = append(p.waiting, c.key)
	s.notifies.count++
	return told
}

// untell forgets that a receiver is to hear of k.
func (s *Server) untell(nk notifyKey, k regKey) {
	if len(s.notifies.peers) == 0 {
		return
	}
	p := s.notifies.peers[nk]
	if p == nil {
		return
	}
	s.settle(p, k)
	if len(p.eids) == 0 {
		s.forgetPeer(p)
	}
}

// settle takes k off the list of a receiver.
func (s *Server) settle(p *notifyPeer, k regKey) {
	if _, ok := p.eids[k]; ok {
		delete(p.eids, k)
		s.notifies.count--
	}
}

func (s *Server) forgetPeer(p *notifyPeer) {
	s.withdrawNotify(p)
	s.notifies.count -= len(p.eids)
	delete(s.notifies.peers, p.key)
	heap.Remove(&s.notifies.due, p.index)
}

// withdrawNotify takes back the message under way: a Map-Notify-Ack for it
// means nothing any more.
func (s *Server) withdrawNotify(p *notifyPeer) {
	if p.awaited != nil {
		s.awaited.Delete(p.awaited.nonce)
		p.awaited, p.message, p.told = nil, nil, nil
	}
}

// transmit sends what is due, a bounded number of messages at a time.
func (s *Server) transmit(now time.Time, ticks int64) {
	s.worker.ticks, s.worker.asker = ticks, netip.Addr{}
	for n := 0; n < expiriesPerStep && len(s.notifies.due) > 0 && s.notifies.due[0].at <= ticks; n++ {
		p := s.notifies.due[0]
		changed := slices.ContainsFunc(p.told, func(k regKey) bool { return p.eids[k] })
		switch {
		case p.awaited != nil && p.sent >= notifyMost:
			s.worker.stats.notifyLost.Add(1)
			s.log.Info("no map-notify-ack, receiver given up", "peer", p.key.addr, "site", p.key.assoc.site.name)
			s.addEvent(NotifyUnanswered{
				Time: now, Site: p.key.assoc.site.name, To: p.destination(), XTRID: p.key.assoc.xtr, EIDs: len(p.eids),
			})
			s.forgetPeer(p)
			continue
		case p.awaited != nil && changed:
			// What it says is no longer so: the rest of its transmissions say how it is.
			sent := p.sent
			p.waiting = slices.Concat(p.told, p.waiting)
			s.withdrawNotify(p)
			if !s.composeNotify(p) {
				continue
			}
			p.sent = sent
		case p.awaited == nil:
			if !s.composeNotify(p) {
				continue
			}
		}
		p.sent++
		p.at = ticks + p.wait()
		heap.Fix(&s.notifies.due, p.index)
		s.worker.stats.unsolicited.Add(1)
		s.enqueue(lisp.Datagram{Local: s.notifyLocal(p), Remote: p.destination(), Bytes: p.message})
	}
}

func (p *notifyPeer) destination() netip.AddrPort {
	return netip.AddrPortFrom(p.key.addr, lisp.ControlPort)
}

func (s *Server) notifyLocal(p *notifyPeer) netip.AddrPort {
	return s.worker.localFor(p.key.addr, lisp.Datagram{Local: netip.AddrPortFrom(p.local, lisp.ControlPort)})
}

// composeNotify makes the next message of p: as many of the mappings, as they
// are now, as fit. If there is nothing to say it forgets p and returns false.
func (s *Server) composeNotify(p *notifyPeer) bool {
	key, ok := p.key.assoc.site.key(p.key.assoc.keyID, p.key.algorithm)
	if !ok {
		s.forgetPeer(p) // the key has gone from the configuration
		return false
	}
	const header, auth, identity = 16, 32, 24
	room := maxPayloadIPv4
	if p.key.addr.Is6() {
		room = maxPayloadIPv6
	}
	room -= header + auth + identity
	if p.path.IsValid() { // the ECM, with the RTR's authentication data and an inner header
		room -= 4 + 8 + auth + 48
	}
	w := s.worker
	w.reply.Records = w.reply.Records[:0]
	i := 0
	for ; i < len(p.waiting) && len(p.told) < 255; i++ {
		k := p.waiting[i]
		if _, wanted := p.eids[k]; !wanted || slices.Contains(p.told, k) {
			continue
		}
		n := len(w.reply.Records)
		r := s.get(k)
		if r == nil || !w.positive(r, k.inst.iid, k.prefix) {
			s.settle(p, k) // it has gone, and nobody displaced anybody
			continue
		}
		size := recordLen(&w.reply.Records[n])
		if size > room && n > 0 {
			w.reply.Records = w.reply.Records[:n]
			break
		}
		room -= size
		p.eids[k] = false
		p.told = append(p.told, k)
	}
	p.waiting = slices.Clone(p.waiting[i:])
	var nonce [8]byte
	_, err := io.ReadFull(s.cfg.Rand, nonce[:])
	if len(p.told) == 0 || err != nil {
		s.forgetPeer(p)
		return false
	}
	p.awaited = &notifyAwaited{peer: p, nonce: binary.BigEndian.Uint64(nonce[:]), key: key}
	m := lisp.MapNotify{
		XTRIDPresent: p.key.assoc.xtr != lisp.XTRID{}, XTRID: p.key.assoc.xtr, SiteID: p.key.assoc.siteID,
		Nonce: lisp.Nonce(p.awaited.nonce), Records: w.reply.Records,
	}
	if p.message, err = s.unsolicitedMessage(p, &m, key); err != nil {
		// Its records were decoded from others, so that they always encode.
		s.log.Error("cannot sign map-notify", "err", err)
		p.awaited = nil
		s.forgetPeer(p)
		return false
	}
	s.awaited.Store(p.awaited.nonce, p.awaited)
	p.sent = 0
	return true
}

// handleNotifyAck verifies a Map-Notify-Ack with the key of the Map-Notify whose
// nonce it has. It costs nothing when there is none.
func (w *Worker) handleNotifyAck(d lisp.Datagram) {
	const end = 12 // of the nonce
	if len(d.Bytes) < end {
		w.drop(ReasonMalformed, lisp.TypeMapNotifyAck, d)
		return
	}
	v, ok := w.s.awaited.Load(binary.BigEndian.Uint64(d.Bytes[end-8:]))
	if !ok {
		w.drop(ReasonUnexpected, lisp.TypeMapNotifyAck, d)
		return
	}
	a := v.(*notifyAwaited)
	if err := lisp.Verify(d.Bytes, a.key); err != nil {
		w.drop(ReasonAuth, lisp.TypeMapNotifyAck, d)
		return
	}
	w.result.Update = &Update{Urgent: true, from: d.Remote, acked: a}
}

// acknowledged ends the retransmission of a Map-Notify; the next one for that
// receiver, if any, is due.
func (s *Server) acknowledged(now time.Time, ticks int64, u *Update) {
	if u.acked.subscription != nil {
		s.publicationAcked(ticks, u)
		return
	}
	p := u.acked.peer
	if p.awaited != u.acked {
		return // it came twice, or too late
	}
	s.worker.stats.notifyAcks.Add(1)
	n := 0
	for _, k := range p.told {
		if changed, ok := p.eids[k]; ok && changed {
			p.waiting = append(p.waiting, k)
		} else if ok {
			s.settle(p, k)
		}
		n++
	}
	s.addEvent(NotifyAcked{Time: now, Site: p.key.assoc.site.name, From: u.from, XTRID: p.key.assoc.xtr, EIDs: n})
	s.withdrawNotify(p)
	if len(p.eids) == 0 {
		s.forgetPeer(p)
		return
	}
	p.at = ticks
	heap.Fix(&s.notifies.due, p.index)
}

// key finds a key of the site.
func (st *site) key(id uint8, alg lisp.Algorithm) (lisp.Key, bool) {
	for _, k := range st.terms().keys {
		if k.ID == id && k.Algorithm == alg {
			return k, true
		}
	}
	return lisp.Key{}, false
}

func recordsLen(rs []lisp.EIDRecord) int {
	n := 0
	for i := range rs {
		n += recordLen(&rs[i])
	}
	return n
}

// recordLen is about how many octets a record takes on the wire; the addresses
// of other forms than plain ones are encoded to see.
func recordLen(r *lisp.EIDRecord) int {
	const fixed, locator = 12, 8 // with the AFI
	n := fixed - 2 + addressLen(r.EID)
	for i := range r.Locators {
		n += locator - 2 + addressLen(r.Locators[i].RLOC)
	}
	return n
}

// addressLen is the length of an address with its AFI.
func addressLen(a lisp.Address) int {
	if ip, plain := a.IP(); plain {
		return 2 + ip.BitLen()/8
	}
	if _, ip, ok := a.EID(); ok { // with an instance ID
		return 14 + ip.BitLen()/8
	}
	b, err := a.MarshalBinary()
	if err != nil {
		return 0
	}
	return len(b)
}
