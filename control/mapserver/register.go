package mapserver

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// maxSitesPerRegister bounds the digests computed for one datagram.
const maxSitesPerRegister = 4

// registerItem is a record of a Map-Register with what its EID-Prefix belongs to.
type registerItem struct {
	key  regKey
	site *site
	ttl  uint32
}

// Update is an authenticated Map-Register or Map-Notify-Ack, a Map-Request for a
// subscription, or the answer to a health check, on its way from a Worker to
// Server.Apply. It refers to the Server that made it.
type Update struct {
	// Urgent tells that it changes something. Updates that are not
	// urgent are stamps and may wait to be applied in a batch, for as long as the
	// registrations' lifetimes allow.
	Urgent bool

	xtr         xtrKey
	algorithm   lisp.Algorithm
	flags       uint8
	holder      holder
	from        netip.AddrPort
	nonce       uint64
	fingerprint uint64 // of the Authentication Data

	path natt.Path // by which RTR it came

	items   []registerItem
	records [][]byte // wire form, one for each of items
	refresh []*claim // instead of both, when nothing changes

	notify lisp.Datagram // signed Map-Notify to send when applied; may be empty
	local  netip.Addr    // where the Map-Register came to
	set    *settings     // that it was verified by

	assoc    *xtrState // of a refresh
	recycled bool      // comes from an updatePool

	acked   *notifyAwaited // a Map-Notify-Ack instead
	healthy *healthCheck   // the answer to a health check instead

	subscribe *subscribeRequest // a Map-Request for a subscription instead
}

// handleRegister verifies a Map-Register (RFC 9301 §8.2). No state is made and
// nothing is sent before the Authentication Data has been found right for the
// site of every record.
func (w *Worker) handleRegister(d lisp.Datagram) {
	if !w.handleRefresh(d) {
		w.takeApart(d)
	}
}

// takeApart is handleRegister for whatever is more than a refresh.
func (w *Worker) takeApart(d lisp.Datagram) {
	w.stats.registers.Add(1)
	m := &w.register
	if err := m.DecodeFromBytes(d.Bytes); err != nil {
		w.refuse(ReasonMalformed, nil, d, err)
		return
	}
	if len(m.Records) == 0 {
		w.refuse(ReasonNoRecords, nil, d, nil)
		return
	}
	if !w.relayedOld(d) {
		return
	}
	w.items = w.items[:0]
	for i := range m.Records {
		iid, p, ok := m.Records[i].Prefix()
		if !ok || p.Addr().Is4In6() {
			w.refuse(ReasonEID, nil, d, nil)
			return
		}
		p = p.Masked()
		inst := w.set.instances[iid]
		sp, ok := inst.siteOf(p)
		if !ok {
			w.refuse(ReasonNotConfigured, &registerItem{key: regKey{&instance{iid: iid}, p}}, d, nil)
			return
		}
		w.items = append(w.items, registerItem{key: regKey{inst, p}, site: sp.site, ttl: m.Records[i].TTL})
	}
	var verified [maxSitesPerRegister]*site
	var key lisp.Key // of the first record's site: it signs the Map-Notify
	n := 0
next:
	for i := range w.items {
		it := &w.items[i]
		for _, st := range verified[:n] {
			if st == it.site {
				continue next
			}
		}
		if n == len(verified) {
			w.refuse(ReasonManySites, it, d, nil)
			return
		}
		k, reason, err := it.site.verify(d.Bytes, m)
		if err != nil {
			w.refuse(reason, it, d, err)
			return
		}
		if n == 0 {
			key = k
		}
		verified[n] = it.site
		n++
	}
	w.accept(d, m, key)
}

// verify finds the site's key that the message names and checks the digest.
func (st *site) verify(msg []byte, m *lisp.MapRegister) (lisp.Key, Reason, error) {
	reason, err := ReasonKey, lisp.ErrAuth
	for _, k := range st.terms().keys {
		switch {
		case k.ID != m.Auth.KeyID:
			continue
		case k.Algorithm != m.Auth.Algorithm:
			if reason == ReasonKey {
				reason = ReasonAlgorithm
			}
			continue
		}
		// Where nonces count, a digest must cover the xTR-ID that they belong to.
		k.StrictTrailer = k.StrictTrailer || st.terms().replay == ReplayStrict || k.Algorithm == lisp.AlgorithmHMACSHA256HKDF
		if err = lisp.Verify(msg, k); err == nil {
			return k, 0, nil
		}
		reason = ReasonAuth
		if !errors.Is(err, lisp.ErrAuth) {
			reason = ReasonMalformed
		}
	}
	return lisp.Key{}, reason, err
}

// accept makes the Update and the Map-Notify of an authenticated Map-Register.
func (w *Worker) accept(d lisp.Datagram, m *lisp.MapRegister, key lisp.Key) {
	u := &Update{
		xtr:         xtrKey{site: w.items[0].site, keyID: m.Auth.KeyID},
		algorithm:   m.Auth.Algorithm,
		from:        d.Remote,
		local:       d.Local.Addr(),
		nonce:       uint64(m.Nonce),
		fingerprint: fingerprint(m),
		path:        w.path,
		set:         w.set,
	}
	for _, f := range [...]struct {
		set bool
		bit uint8
	}{
		{m.ProxyReply, flagProxy},
		{m.SecurityCapable, flagSecurity},
		{m.UseTTL, flagUseTTL},
		{m.Merge, flagMerge},
		{m.MobileNode, flagMobile},
		{w.path.IsValid(), flagRelayed},
	} {
		if f.set {
			u.flags |= f.bit
		}
	}
	if m.XTRIDPresent && m.XTRID != (lisp.XTRID{}) {
		u.holder = holder{xtr: m.XTRID, site: m.SiteID}
		u.xtr.xtr, u.xtr.siteID = m.XTRID, m.SiteID
	} else {
		u.holder = holder{addr: d.Remote.Addr()}
	}

	u.refresh = w.unchanged(u, m)
	if u.refresh == nil {
		u.Urgent = true
		u.items = append([]registerItem(nil), w.items...)
		u.records = make([][]byte, len(m.Records))
		for i := range m.Records {
			b, err := w.encoder.append(nil, &m.Records[i])
			if err != nil {
				w.refuse(ReasonMalformed, &w.items[i], d, err)
				return
			}
			u.records[i] = b
		}
	}
	w.result.Update = u
	if !m.WantMapNotify {
		return
	}
	local, remote := notifyPath(d)
	start := len(w.buf)
	rtrAuth := w.path.Variant == natt.Old && w.path.IsValid() && len(w.set.nat.rtrs[w.path.RTR].Secret) > 0
	b, err := appendNotify(w.buf, m, key, rtrAuth)
	if err != nil {
		// Its records were just decoded, so that they always encode.
		w.s.log.Error("cannot sign map-notify", "err", err)
		return
	}
	w.buf = b
	if w.path.IsValid() {
		if !w.wrap(d, start) {
			return
		}
		remote = w.path.Destination()
	}
	if !u.Urgent {
		w.stats.notifies.Add(1)
		w.send(local, remote, d.IfIndex, start)
		return
	}
	u.notify = lisp.Datagram{
		Local: local, Remote: remote, IfIndex: d.IfIndex, Bytes: append([]byte(nil), w.buf[start:]...),
	}
}

// unchanged finds the claims that the Map-Register only refreshes. It returns
// nil unless every record is one, and the nonce is one that needs no judgement
// by the writer: then everything has to pass there.
func (w *Worker) unchanged(u *Update, m *lisp.MapRegister) []*claim {
	claims := make([]*claim, 0, len(w.items))
	for i := range w.items {
		it := &w.items[i]
		r, ok := it.key.inst.regs.Get(it.key.prefix)
		if !ok {
			return nil
		}
		c := r.find(u.holder)
		if c == nil || !c.sameTerms(u) {
			return nil
		}
		if x := c.xtr; x == nil || u.nonce <= x.nonce.Load() {
			return nil
		}
		w.claims = r.current(w.ticks, w.claims[:0])
		current := false
		for _, e := range w.claims {
			current = current || e == c
		}
		if !current {
			return nil
		}
		var err error
		if w.scratch, err = w.encoder.append(w.scratch[:0], &m.Records[i]); err != nil || string(w.scratch) != c.record {
			return nil
		}
		claims = append(claims, c)
	}
	return claims
}

// sameTerms tells whether u registers under the same conditions as c.
func (c *claim) sameTerms(u *Update) bool {
	return c.flags == u.flags && c.keyID == u.xtr.keyID && c.algorithm == u.algorithm && c.from == u.from.Addr()
}

// refuse counts and reports a Map-Register. It is answered by nothing: a
// Map-Notify would be a signature over somebody else's records.
func (w *Worker) refuse(r Reason, it *registerItem, d lisp.Datagram, err error) {
	w.stats.dropped[r].Add(1)
	refused := func() Refused {
		e := Refused{Time: w.now, Reason: r, From: d.Remote, KeyID: w.register.Auth.KeyID, Err: err}
		if it != nil {
			e.IID, e.EID = it.key.inst.iid, it.key.prefix
			if it.site != nil {
				e.Site = it.site.name
			}
		}
		return e
	}
	w.event(func() Event { return refused() })
	w.s.refused(w.ticks, refused)
	w.s.log.Debug("map-register refused", "peer", d.Remote, "reason", r.String(), "err", err)
}

// notifyPath turns the way of a Map-Register round. RFC 9301 §8.2 sends the
// Map-Notify to port 4342, §5 to the port that the Map-Register came from; the
// two differ for peers behind a NAT and for some that register from a random
// port, and those listen on the port they used.
func notifyPath(d lisp.Datagram) (local, remote netip.AddrPort) {
	return netip.AddrPortFrom(d.Local.Addr(), lisp.ControlPort), d.Remote
}

// appendNotify appends the signed Map-Notify: the nonce and the records of the
// Map-Register, with the identifiers if it had them, and a digest of the same
// length. rtrAuth announces an authentication record for an RTR behind it.
func appendNotify(b []byte, m *lisp.MapRegister, key lisp.Key, rtrAuth bool) ([]byte, error) {
	full := key
	full.Truncate = false
	key.Truncate = len(m.Auth.Data) < full.DigestLen()
	n := lisp.MapNotify{
		XTRIDPresent: m.XTRIDPresent, RTRAuth: rtrAuth, Nonce: m.Nonce, Records: m.Records, XTRID: m.XTRID, SiteID: m.SiteID,
	}
	return n.AppendSigned(b, key)
}

// fingerprint recognises a repeated Map-Register. The digest covers all of it,
// and has been verified.
func fingerprint(m *lisp.MapRegister) uint64 {
	return binary.BigEndian.Uint64(m.Auth.Data) ^ uint64(m.Nonce)
}

// recordEncoder encodes records. It reuses its memory.
type recordEncoder struct {
	m       lisp.MapReply
	records [1]lisp.EIDRecord
}

// append appends a record alone: a Map-Reply with nothing else is 12 octets and
// the record.
func (e *recordEncoder) append(b []byte, r *lisp.EIDRecord) ([]byte, error) {
	const header = 12
	start := len(b)
	e.records[0] = *r
	e.m.Records = e.records[:]
	b, err := e.m.AppendBinary(b)
	if err != nil {
		return b[:start], err
	}
	return append(b[:start], b[start+header:]...), nil
}

// recordDecoder decodes records into memory of its own, which it reuses.
type recordDecoder struct {
	m lisp.MapReply
	b []byte
}

// decode is the reverse of recordEncoder.append. The result is valid until the next call.
func (d *recordDecoder) decode(record string) (*lisp.EIDRecord, error) {
	d.b = append(d.b[:0], byte(lisp.TypeMapReply)<<4, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
	d.b = append(d.b, record...)
	if err := d.m.DecodeFromBytes(d.b); err != nil {
		return nil, err
	}
	if len(d.m.Trailer) > 0 {
		return nil, lisp.ErrMalformed
	}
	return &d.m.Records[0], nil
}
