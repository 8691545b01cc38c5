package mapserver

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"

	"github.com/xtrkit/xtrkit/lisp"
)

// Experimental switches on what follows a running peer and our own judgement
// where the text of the standard was not at hand. It may change.
type Experimental struct {
	// PubSub lets registered xTRs subscribe to EID-Prefixes (Publish/Subscribe,
	// RFC 9437): whoever asks with the I bit, its xTR-ID and Site-ID, and the N bit
	// in the EID-Record, is answered by a Map-Notify, and told by further ones
	// when the mapping changes. They are signed with the key that the xTR
	// registers with and go only to locators that it has registered. Anybody else
	// is answered as if he had not asked for that.
	PubSub bool
	// MaxSubscriptions bounds the pairs of xTR and EID-Prefix, default 65536. A
	// single xTR may have a sixteenth of them.
	MaxSubscriptions int
}

// DefaultMaxSubscriptions is that of a zero Experimental.
const DefaultMaxSubscriptions = 1 << 16

// subscriptionTime is how long a subscription lives unless it is renewed. The
// xTRs of package control renew it twice in that time.
const subscriptionTime = 30 * time.Minute

// recordSubscribe is the N bit of an EID-Record in a Map-Request.
const recordSubscribe = 0x80

// subscriber is who subscribes: an xTR, and what its Map-Notifies are signed with.
type subscriber struct {
	holder holder
	site   *site // whose the key is
	key    lisp.Key
}

// subscribeRequest is a Map-Request for a subscription on its way from a Worker
// to the writer.
type subscribeRequest struct {
	subscriber
	about regKey
	end   bool // unsubscribe
	nonce uint64
	to    netip.Addr
	local netip.Addr
}

// subscriptionKey names a subscription.
type subscriptionKey struct {
	holder holder
	about  regKey
}

// subscription is what an xTR wants to hear of.
type subscription struct {
	id        subscriptionKey
	site      *site // whose the key is
	key       lisp.Key
	to, local netip.Addr
	nonce     uint64 // of the last Map-Notify, or of the request
	expires   int64  // ticks
	said      string // the records it was told last
	dirty     bool   // they may be others now
	awaited   *notifyAwaited
	message   []byte
	sent      int
	at        int64 // ticks of the next step
	index     int
}

// subscriptions belongs to the writer.
type subscriptions struct {
	all   map[subscriptionKey]*subscription
	count map[holder]int
	by    map[*instance]*bart.Table[[]*subscription]
	due   subscriptionHeap
}

type subscriptionHeap []*subscription

func (h subscriptionHeap) Len() int           { return len(h) }
func (h subscriptionHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h subscriptionHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *subscriptionHeap) Push(x any) {
	p := x.(*subscription)
	p.index = len(*h)
	*h = append(*h, p)
}

func (h *subscriptionHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return p
}

// subscribe takes a Map-Request for a subscription, if m is one and the sender may
// have it. Who it is shows by its Source EID: an EID that the xTR with the
// given identifiers has registered, and nothing is sent but to its locators.
func (w *Worker) subscribe(d lisp.Datagram, m *lisp.MapRequest) bool {
	const identity = 24
	if !w.s.cfg.Experimental.PubSub || w.behind || m.Reserved&lisp.RequestReservedXTRID == 0 ||
		m.Records[0].Reserved&recordSubscribe == 0 || len(m.Trailer) < identity {
		return false
	}
	iid, about, ok := m.Records[0].Prefix()
	sourceIID, source, okSource := m.SourceEID.EID()
	inst, from := w.set.instances[iid], w.set.instances[sourceIID]
	if !ok || !okSource || inst == nil || from == nil || about.Addr().Is4In6() {
		return false
	}
	if len(w.ecm.Security) > 0 && w.ecm.Security[0] == lisp.ADTypeLISPSEC {
		if _, ok := w.unprotect(d, m.Nonce); !ok {
			return false // it is dropped later
		}
	}
	q := &subscribeRequest{
		about: regKey{inst, about.Masked()}, nonce: uint64(m.Nonce), local: d.Local.Addr(),
		subscriber: subscriber{holder: holder{xtr: lisp.XTRID(m.Trailer[:16]), site: lisp.SiteID(binary.BigEndian.Uint64(m.Trailer[16:]))}},
	}
	q.end = !slices.ContainsFunc(m.ITRRLOCs, func(a lisp.Address) bool { return !a.IsZero() })
	source = source.Unmap()
	r := from.match(w.ticks, netip.PrefixFrom(source, source.BitLen()))
	if r == nil {
		return false
	}
	c := r.find(q.holder)
	if c == nil || !c.live(w.ticks) {
		return false
	}
	q.site = c.site
	if q.key, ok = c.site.key(c.keyID, c.algorithm); !ok || !q.end && !w.addressed(q, m, d, c) {
		return false
	}
	if f := w.lookup(iid, q.about.prefix); f.site == nil || f.site.terms().deny != DenyNone || len(f.servers) > 0 {
		return false
	}
	w.result.Update = &Update{Urgent: true, from: d.Remote, subscribe: q}
	return true
}

// addressed finds where Map-Notifies go: the first ITR-RLOC that the xTR has
// registered, or registers from.
func (w *Worker) addressed(q *subscribeRequest, m *lisp.MapRequest, d lisp.Datagram, c *claim) bool {
	rec, err := w.decoder.decode(c.record)
	if err != nil {
		return false
	}
	for _, a := range m.ITRRLOCs {
		ip, plain := a.IP()
		if ip = ip.Unmap(); !plain || !w.sendable(ip, d) {
			continue
		}
		if ip == c.from || slices.ContainsFunc(rec.Locators, func(l lisp.RLOCRecord) bool {
			r, ok := l.RLOC.IP()
			return ok && r.Unmap() == ip
		}) {
			q.to = ip
			return true
		}
	}
	return false
}

// subscribed applies a Map-Request for a subscription: its nonce must be greater
// than all that went before, so that a repeated one changes nothing.
func (s *Server) subscribed(ticks int64, u *Update) {
	q := u.subscribe
	subs := &s.subscriptions
	id := subscriptionKey{q.holder, q.about}
	p := subs.all[id]
	if p != nil && q.nonce <= p.nonce {
		s.worker.stats.dropped[ReasonReplay].Add(1)
		return
	}
	if q.end {
		if p != nil {
			s.unsubscribe(p)
		}
		return
	}
	if p == nil {
		limit := s.cfg.Experimental.MaxSubscriptions
		if len(subs.all) >= limit || subs.count[q.holder] >= max(limit/16, 1) {
			s.worker.stats.dropped[ReasonSubscriptions].Add(1)
			return
		}
		p = &subscription{id: id}
		s.addSubscription(p)
	}
	s.withdrawPublication(p)
	p.site, p.key, p.to, p.local, p.nonce, p.dirty = q.site, q.key, q.to, q.local, q.nonce, false
	p.expires = ticks + int64(subscriptionTime)
	p.at = p.expires
	heap.Fix(&subs.due, p.index)
	// The answer has the nonce of the request. Who does not get it asks again.
	records := s.mappingsFor(ticks, p.id.about, p.to)
	p.said = s.encoded(records)
	if b, err := p.notify(records); err == nil {
		s.worker.stats.notifies.Add(1)
		s.sendPublication(p, b)
	}
}

func (s *Server) addSubscription(p *subscription) {
	subs := &s.subscriptions
	if subs.all == nil {
		subs.all, subs.count = make(map[subscriptionKey]*subscription), make(map[holder]int)
		subs.by = make(map[*instance]*bart.Table[[]*subscription])
	}
	subs.all[p.id] = p
	subs.count[p.id.holder]++
	t := subs.by[p.id.about.inst]
	if t == nil {
		t = new(bart.Table[[]*subscription])
		subs.by[p.id.about.inst] = t
	}
	same, _ := t.Get(p.id.about.prefix)
	t.Insert(p.id.about.prefix, append(same, p))
	heap.Push(&subs.due, p)
	s.subscriptionCount.Store(int64(len(subs.all)))
}

func (s *Server) unsubscribe(p *subscription) {
	subs := &s.subscriptions
	s.withdrawPublication(p)
	delete(subs.all, p.id)
	if subs.count[p.id.holder]--; subs.count[p.id.holder] == 0 {
		delete(subs.count, p.id.holder)
	}
	t := subs.by[p.id.about.inst]
	same, _ := t.Get(p.id.about.prefix)
	same = slices.DeleteFunc(same, func(o *subscription) bool { return o == p })
	if len(same) > 0 {
		t.Insert(p.id.about.prefix, same)
	} else {
		t.Delete(p.id.about.prefix)
	}
	heap.Remove(&subs.due, p.index)
	s.subscriptionCount.Store(int64(len(subs.all)))
}

func (s *Server) withdrawPublication(p *subscription) {
	if p.awaited != nil {
		s.awaited.Delete(p.awaited.nonce)
		p.awaited, p.message = nil, nil
	}
}

// remapped is called when the mapping of k may be another one: those who have
// subscribed to a part of it, or to more, are told by publish.
func (s *Server) remapped(ticks int64, k regKey) {
	t := s.subscriptions.by[k.inst]
	if t == nil {
		return
	}
	mark := func(same []*subscription) {
		for _, p := range same {
			p.dirty = true
			if p.awaited == nil && p.at > ticks {
				p.at = ticks
				heap.Fix(&s.subscriptions.due, p.index)
			}
		}
	}
	for _, same := range t.Subnets(k.prefix) {
		mark(same)
	}
	for q, same := range t.Supernets(k.prefix) {
		if q != k.prefix {
			mark(same)
		}
	}
}

// publishChanges sends what is due: Map-Notifies for subscriptions, new ones and,
// like other unsolicited ones, again until they are acknowledged.
func (s *Server) publishChanges(ticks int64) {
	subs := &s.subscriptions
	for n := 0; n < expiriesPerStep && len(subs.due) > 0 && subs.due[0].at <= ticks; n++ {
		p := subs.due[0]
		switch {
		case p.expires <= ticks:
			s.unsubscribe(p)
			continue
		case p.awaited != nil && p.sent >= notifyMost:
			s.worker.stats.notifyLost.Add(1)
			s.log.Info("no map-notify-ack, subscriber given up", "peer", p.to, "eid", p.id.about.prefix, "iid", p.id.about.inst.iid)
			s.unsubscribe(p)
			continue
		case p.dirty:
			// The rest of the transmissions of what is no longer so say how it is.
			if p.awaited == nil {
				p.sent = 0
			}
			if !s.compose(ticks, p) && p.awaited == nil {
				p.at = p.expires
				heap.Fix(&subs.due, p.index)
				continue
			}
		}
		p.sent++
		p.at = min(ticks+int64(notifyInterval)<<max(0, p.sent-notifySteady), p.expires)
		heap.Fix(&subs.due, p.index)
		s.worker.stats.unsolicited.Add(1)
		s.sendPublication(p, p.message)
	}
}

// compose makes the next Map-Notify of p, in place of one under way, if there is
// something new to say.
func (s *Server) compose(ticks int64, p *subscription) bool {
	p.dirty = false
	records := s.mappingsFor(ticks, p.id.about, p.to)
	said := s.encoded(records)
	if said == p.said {
		return false
	}
	for p.nonce++; ; p.nonce++ {
		if _, taken := s.awaited.Load(p.nonce); !taken {
			break
		}
	}
	b, err := p.notify(records)
	if err != nil {
		s.log.Error("cannot sign map-notify", "err", err)
		return false
	}
	s.withdrawPublication(p)
	p.said, p.message = said, b
	p.awaited = &notifyAwaited{nonce: p.nonce, key: p.key, subscription: p}
	s.awaited.Store(p.nonce, p.awaited)
	return true
}

// notify makes the signed Map-Notify.
func (p *subscription) notify(records []lisp.EIDRecord) ([]byte, error) {
	m := lisp.MapNotify{
		XTRIDPresent: true, XTRID: p.id.holder.xtr, SiteID: p.id.holder.site, Nonce: lisp.Nonce(p.nonce), Records: records,
	}
	return m.AppendSigned(nil, p.key)
}

func (s *Server) sendPublication(p *subscription, b []byte) {
	local := s.worker.localFor(p.to, lisp.Datagram{Local: netip.AddrPortFrom(p.local, lisp.ControlPort)})
	s.enqueue(lisp.Datagram{Local: local, Remote: netip.AddrPortFrom(p.to, lisp.ControlPort), Bytes: b})
}

// publicationAcked ends the retransmission of a publication.
func (s *Server) publicationAcked(ticks int64, u *Update) {
	p := u.acked.subscription
	if p.awaited != u.acked {
		return // it came twice, or too late
	}
	s.worker.stats.notifyAcks.Add(1)
	s.withdrawPublication(p)
	if p.at = p.expires; p.dirty {
		p.at = ticks
	}
	heap.Fix(&s.subscriptions.due, p.index)
}

// mappingsFor is what a subscriber to k is told: the mapping of k, with nothing
// outside of k, and those of the more specific EID-Prefixes; of what is denied, that
// it is. What does not fit
// one message is not told: a single record with TTL 0 has it asked for again.
// The result is valid until the Worker of s is used again.
func (s *Server) mappingsFor(ticks int64, k regKey, to netip.Addr) []lisp.EIDRecord {
	const header, auth, identity = 16, 32, 24
	room := maxPayloadIPv4
	if to.Is6() {
		room = maxPayloadIPv6
	}
	room -= header + auth + identity
	w := s.worker
	w.ticks, w.asker = ticks, to
	w.reply.Records = w.reply.Records[:0]
	none := func(p netip.Prefix, action lisp.Action, ttl uint32) {
		rec := w.nextRecord()
		rec.Action, rec.TTL = action, ttl
		rec.EID, rec.MaskLen = lisp.EIDAddress(k.inst.iid, p.Addr()), uint8(p.Bits())
	}
	if f := w.lookup(k.inst.iid, k.prefix); f.reg == nil || !w.positive(f.reg, k.inst.iid, k.prefix) {
		deny := DenyNone
		if f.site != nil {
			deny = f.site.terms().deny
		}
		action, ttl := deny.negative()
		none(k.prefix, action, ttl)
	}
	for q, r := range k.inst.regs.Subnets(k.prefix) {
		if q == k.prefix || !r.live(ticks) {
			continue
		}
		if deny := r.site.terms().deny; deny != DenyNone {
			action, ttl := deny.negative()
			none(q, action, ttl)
		} else if !w.positive(r, k.inst.iid, q) {
			continue
		}
		if len(w.reply.Records) > 255 || recordsLen(w.reply.Records) > room {
			w.reply.Records = w.reply.Records[:0]
			none(k.prefix, lisp.ActionNoAction, 0)
			break
		}
	}
	return w.reply.Records
}

// encoded is a list of records in comparable form.
func (s *Server) encoded(records []lisp.EIDRecord) string {
	b, err := (&lisp.MapReply{Records: records}).MarshalBinary()
	if err != nil {
		return ""
	}
	return string(b)
}
