package mapserver

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// LISPSEC configures LISP-SEC (RFC 9303) at the Map-Resolver and Map-Server.
// Without keys and protected paths, protected Map-Requests are dropped.
//
// Towards ETRs no more is needed than the keys of the sites: the One-Time Key for
// an ETR is wrapped with the one that it registers with.
type LISPSEC struct {
	// ITRKeys are the keys shared with ITRs, which must not be those of sites
	// (RFC 9303 §6.5). Key ID and secret are used. Several keys may have one ID:
	// each is tried.
	ITRKeys []lisp.Key
	// MapServers are the keys shared with Map-Servers of Config.Resolver, where
	// they stand among the ITRKeys.
	MapServers map[netip.AddrPort]lisp.Key
	// ProtectedPaths are the addresses of ITRs, ETRs and Map-Servers that the
	// way to is kept confidential and integral by other means, such as IPsec or
	// DTLS. Only with them One-Time Keys are exchanged unencrypted
	// (NULL-KEY-WRAP-128).
	ProtectedPaths []netip.Prefix
}

func (c *LISPSEC) check() error {
	for _, k := range c.ITRKeys {
		if len(k.Secret) == 0 {
			return fmt.Errorf("%w: LISP-SEC key %d has no secret", ErrConfig, k.ID)
		}
	}
	for a, k := range c.MapServers {
		if len(k.Secret) == 0 {
			return fmt.Errorf("%w: LISP-SEC key of Map-Server %v has no secret", ErrConfig, a)
		}
	}
	return nil
}

func (c *LISPSEC) protectedPath(a netip.Addr) bool {
	return slices.ContainsFunc(c.ProtectedPaths, func(p netip.Prefix) bool { return p.Contains(a) })
}

// protected is what a Worker takes from one protected Map-Request.
type protected struct {
	data      lisp.ECMSecurity // of the request
	itr, ms   lisp.OTK
	kdf       lisp.KDFID  // that made the second of the first
	hmac      lisp.HMACID // for what we sign
	cantSign  bool        // E bit
	vouchedIn uint32      // instance ID of
	vouched   netip.Prefix
}

// unprotect takes the ITR-OTK out of the Encapsulated Control Message in w.ecm,
// and derives the MS-OTK (RFC 9303 §6.6, §6.7.1). It reports why not.
func (w *Worker) unprotect(d lisp.Datagram, n lisp.Nonce) (Reason, bool) {
	sec := &w.sec
	s := &sec.data
	if err := s.DecodeFromBytes(w.ecm.Security); err != nil {
		return ReasonMalformed, false
	}
	c := w.set.lispsec
	if s.Wrap == lisp.WrapNull && !c.protectedPath(d.Remote.Addr()) {
		return ReasonUnprotectedPath, false
	}
	err := lisp.ErrAuth
	if s.Wrap == lisp.WrapNull {
		sec.itr, err = lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, n, nil)
	}
	for i := 0; i < len(c.ITRKeys) && err != nil && s.Wrap != lisp.WrapNull; i++ {
		if k := &c.ITRKeys[i]; k.ID == s.KeyID {
			sec.itr, err = lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, n, k.Secret)
		}
	}
	if err != nil {
		return ReasonSecurity, false
	}
	// What the ITR prefers, if we know it.
	sec.kdf, sec.hmac, sec.cantSign = lisp.KDFHKDFSHA256, lisp.HMACSHA256, false
	if s.EIDAD.KDF == lisp.KDFHKDFSHA1 {
		sec.kdf = lisp.KDFHKDFSHA1
	}
	if s.RequestedHMAC == lisp.HMACSHA1 {
		sec.hmac = lisp.HMACSHA1
	}
	if sec.ms, err = sec.itr.Derive(sec.kdf); err != nil {
		return ReasonSecurity, false
	}
	return 0, true
}

// resolveProtected answers a protected Map-Request by what RFC 9303 §6.7 table 1
// says first: for an ETR that asked for proxy replies, by one that can sign, or
// negatively. Only its first EID-Record counts, since the answer is protected by
// a key for one Map-Reply.
func (w *Worker) resolveProtected(d lisp.Datagram, m *lisp.MapRequest, to, local netip.AddrPort, answerable bool) bool {
	if reason, ok := w.unprotect(d, m.Nonce); !ok {
		w.dropProtected(reason, d)
		return true
	}
	iid, asked, ok := m.Records[0].Prefix()
	if !ok || asked.Addr().Is4In6() {
		w.drop(ReasonEID, lisp.TypeMapRequest, d)
		return true
	}
	asked = asked.Masked()
	found := w.lookup(iid, asked)
	if len(found.servers) > 0 {
		w.resolveElsewhere(d, m, found.servers)
		return true
	}
	unsigned := false
	if found.forward {
		signers := 0
		for _, c := range w.claims {
			if c.flags&flagSecurity != 0 {
				signers++
			}
		}
		w.sec.cantSign = signers < len(w.claims)
		unsigned = signers == 0
		if !unsigned && w.forwardProtected(d, m, iid, asked, found.reg) {
			return true
		}
	}
	switch {
	case m.DontMapReply:
		w.drop(ReasonNoReply, lisp.TypeMapRequest, d)
		return true
	case !answerable:
		w.drop(ReasonNoITRRLOC, lisp.TypeMapRequest, d)
		return true
	case unsigned:
		w.unsignable(found, iid, asked, to)
	case found.reg != nil:
		// Also for an ETR in this process, which is as trusted (RFC 9303 §7.3).
		w.sec.cantSign = false
		found.alone = !w.fitsOne(found, to)
		w.answer(found, iid, asked, to)
	default:
		w.negative(found, iid, asked, to)
	}
	if len(w.reply.Records) == 0 {
		return true
	}
	w.sec.vouchedIn, w.sec.vouched, _ = w.reply.Records[0].Prefix()
	if found.reg != nil {
		w.sec.vouched = found.reg.key.prefix
	}
	w.replyProtected(d, local, to)
	return true
}

// dropProtected drops a protected Map-Request, with a line in the log now and then.
func (w *Worker) dropProtected(reason Reason, d lisp.Datagram) {
	w.drop(reason, lisp.TypeMapRequest, d)
	if w.s.securityWarnings.take(w.ticks, onePerSecond) {
		w.s.log.Warn("protected map-request dropped", "peer", d.Remote, "reason", reason.String())
	}
}

// forwardProtected sends the Map-Request to one of the ETRs that can sign, with
// the MS-OTK and the EID-Prefix that we vouch for (RFC 9303 §6.7.1). It returns
// false when that is in this process.
func (w *Worker) forwardProtected(d lisp.Datagram, m *lisp.MapRequest, iid uint32, asked netip.Prefix, r *registration) bool {
	able := slices.DeleteFunc(slices.Clone(w.claims), func(c *claim) bool { return c.flags&flagSecurity == 0 })
	signers := &registration{key: r.key, site: r.site, many: &able}
	to, ok := w.chooseRLOC(d, uint64(m.Nonce), signers)
	if !ok {
		w.drop(ReasonNoRLOC, lisp.TypeMapRequest, d)
		return true
	}
	if to == d.Local.Addr() || slices.Contains(w.s.locals, to) {
		return false
	}
	wrap := r.site.terms().wrap
	key, ok := w.keyOfETR(signers, to)
	switch {
	case wrap == lisp.WrapNull && !w.set.lispsec.protectedPath(to):
		w.dropProtected(ReasonUnprotectedPath, d)
		return true
	case !ok:
		w.dropProtected(ReasonKey, d) // rotated away since it registered
		return true
	}
	w.sec.vouchedIn, w.sec.vouched = iid, r.key.prefix
	ad := lisp.ECMSecurity{RequestedHMAC: w.sec.data.RequestedHMAC, KeyID: key.ID, Wrap: wrap}
	b, err := w.eidAD(&ad.EIDAD)
	if err == nil {
		ad.WrappedOTK, err = lisp.WrapOTK(wrap, w.sec.ms, m.Nonce, key.Secret)
	}
	if err == nil {
		b, err = ad.AppendBinary(b[:0])
	}
	if err != nil {
		w.s.log.Error("cannot protect map-request", "err", err)
		return true
	}
	remote := netip.AddrPortFrom(to, lisp.ControlPort)
	if !w.forwardTo(d, b, remote) {
		return true
	}
	w.event(func() Event {
		return Forwarded{Time: w.now, Site: r.site.name, IID: iid, Asked: asked, From: d.Remote, To: remote}
	})
	return true
}

// passOn makes the LISP-SEC data of a Map-Request that goes on to a Map-Server
// of the resolver's table: with the ITR-OTK wrapped for that, if this server
// shares keys with ITRs, and as it came otherwise (RFC 9303 §6.6). It is not ok
// if the request is to be dropped.
func (w *Worker) passOn(d lisp.Datagram, n lisp.Nonce, to netip.AddrPort) ([]byte, bool) {
	c := w.set.lispsec
	if len(w.ecm.Security) == 0 || w.ecm.Security[0] != lisp.ADTypeLISPSEC {
		return nil, true
	}
	if len(c.ITRKeys) == 0 && !c.protectedPath(d.Remote.Addr()) {
		return w.ecm.Security, true
	}
	if reason, ok := w.unprotect(d, n); !ok {
		w.dropProtected(reason, d)
		return nil, false
	}
	key, ok := c.MapServers[to]
	wrap := lisp.WrapAES
	if !ok {
		if wrap = lisp.WrapNull; !c.protectedPath(to.Addr()) {
			w.dropProtected(ReasonUnprotectedPath, d)
			return nil, false
		}
	}
	ad := w.sec.data
	ad.KeyID, ad.Wrap = key.ID, wrap
	var err error
	if ad.WrappedOTK, err = lisp.WrapOTK(wrap, w.sec.itr, n, key.Secret); err != nil {
		w.s.log.Error("cannot protect map-request", "err", err)
		return nil, false
	}
	b, err := ad.AppendBinary(nil)
	if err != nil {
		w.s.log.Error("cannot protect map-request", "err", err)
		return nil, false
	}
	return b, true
}

// keyOfETR is the key that the ETR with that locator registers with.
func (w *Worker) keyOfETR(r *registration, rloc netip.Addr) (lisp.Key, bool) {
	for _, c := range r.claims() {
		rec, err := w.decoder.decode(c.record)
		if err != nil || !slices.ContainsFunc(rec.Locators, func(l lisp.RLOCRecord) bool {
			ip, ok := l.RLOC.IP()
			return ok && ip.Unmap() == rloc
		}) {
			continue
		}
		if k, ok := r.site.key(c.keyID, c.algorithm); ok {
			return k, true
		}
	}
	return lisp.Key{}, false
}

// around is the part of the registered EID-Prefix around p that has no more
// specific one.
func (f *finding) around(p netip.Prefix) netip.Prefix {
	if p.Bits() < f.reg.key.prefix.Bits() {
		p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
	}
	return hole(p, f.reg.key.prefix.Bits(), func(q netip.Prefix) bool {
		return contains(f.inst.table(), q, f.within) || f.inst.regs.contains(q, f.reg.key.prefix)
	})
}

// eidAD makes the EID-AD: what we vouch for, under the ITR-OTK. It returns it
// encoded too.
func (w *Worker) eidAD(e *lisp.EIDAD) ([]byte, error) {
	*e = lisp.EIDAD{KDF: w.sec.kdf, CantSign: w.sec.cantSign, Records: []lisp.RequestRecord{{
		MaskLen: uint8(w.sec.vouched.Bits()), EID: lisp.EIDAddress(w.sec.vouchedIn, w.sec.vouched.Addr()),
	}}}
	if err := e.Sign(w.sec.itr, w.sec.hmac); err != nil {
		return nil, err
	}
	return e.AppendBinary(nil)
}

// unsignable adds a record that says that there are no locators, since none of
// the ETRs can sign (RFC 9303 §6.7, rule 3). An ITR that asks without LISP-SEC
// will learn more.
func (w *Worker) unsignable(f finding, iid uint32, asked netip.Prefix, to netip.AddrPort) {
	prefix := f.around(asked)
	rec := w.nextRecord()
	rec.Action, rec.TTL = lisp.ActionDropNoReason, ttlUnregistered
	rec.EID, rec.MaskLen = lisp.EIDAddress(iid, prefix.Addr()), uint8(prefix.Bits())
	w.stats.negatives.Add(1)
	w.event(func() Event {
		return Negative{
			Time: w.now, Site: f.site.name, IID: iid, Asked: asked, EID: prefix,
			Action: lisp.ActionDropNoReason, TTL: ttlUnregistered * time.Minute, To: to,
		}
	})
}

// securityRoom is what LISP-SEC adds to a Map-Reply at most: an EID-AD with one
// IPv6 EID-Prefix in an instance, and the PKT-AD.
const securityRoom = 4 + 8 + 4 + 28 + 16 + 4 + 16

// fitsOne reports whether a Map-Reply has room for the registration and all that
// are more specific.
func (w *Worker) fitsOne(f finding, to netip.AddrPort) bool {
	room := maxPayloadIPv4 - securityRoom
	if to.Addr().Is6() {
		room = maxPayloadIPv6 - securityRoom
	}
	used := 12
	for _, r := range f.inst.regs.Subnets(f.reg.key.prefix) {
		for _, c := range r.current(w.ticks, w.claims[:0]) {
			used += len(c.record)
		}
		if used > room {
			return false
		}
	}
	return true
}

// replyProtected sends the collected records in one Map-Reply with both parts of
// the authentication data (RFC 9303 §6.7.2).
func (w *Worker) replyProtected(d lisp.Datagram, local, to netip.AddrPort) {
	start := len(w.buf)
	var e lisp.EIDAD
	ad, err := w.eidAD(&e)
	if err == nil {
		w.out = lisp.MapReply{Nonce: w.reply.Nonce, Records: w.reply.Records}
		ad, err = w.out.AppendSecured(w.buf, ad, w.sec.ms, w.sec.hmac)
	}
	if err != nil {
		w.s.log.Error("cannot protect map-reply", "err", err)
		return
	}
	w.buf = ad
	ifIndex := d.IfIndex
	if local.Addr() != d.Local.Addr() {
		ifIndex = 0
	}
	w.send(local, to, ifIndex, start)
}
