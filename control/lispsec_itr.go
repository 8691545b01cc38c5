package control

import (
	"fmt"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// protection is what is kept of a protected Map-Request until it is answered
// (RFC 9303 §6.4).
type protection struct {
	otk  lisp.OTK
	hmac int // index of the HMAC requested in LISPSEC.HMACs
	kdf  int // likewise
}

// secured is how far a resolution has come with LISP-SEC.
type secured struct {
	hmac, kdf int  // what to request next
	plain     bool // the mapping system said that nobody can answer it protected
}

// protect makes the authentication data of the Map-Request with nonce n for p to
// r, none if it goes unprotected. It is not ok if it must not be sent.
func (e *Engine) protect(now time.Time, p *pending, r *mapResolver, n lisp.Nonce) (ad []byte, sec *protection, ok bool) {
	c := &e.cfg.LISPSEC
	if c.Mode == LISPSECOff || p.security.plain {
		return nil, nil, true
	}
	k := c.resolverKey(r.addr)
	if k == nil {
		return nil, nil, true // withDefaults has seen to it that none is required
	}
	if k.Wrap == lisp.WrapNull && !c.protectedPath(r.addr.Addr()) {
		e.drop(now, DropUnprotectedPath, r.addr, p.ask.String) // RFC 9303 §6.4
		return nil, nil, false
	}
	sec = &protection{otk: e.oneTimeKey(), hmac: p.security.hmac, kdf: p.security.kdf}
	wrapped, err := lisp.WrapOTK(k.Wrap, sec.otk, n, k.Key.Secret)
	if err == nil {
		ad, err = (&lisp.ECMSecurity{
			RequestedHMAC: c.HMACs[sec.hmac], KeyID: k.Key.ID, Wrap: k.Wrap, WrappedOTK: wrapped,
			EIDAD: lisp.EIDAD{KDF: c.KDFs[sec.kdf]},
		}).AppendBinary(nil)
	}
	if err != nil {
		// All of it is checked or made here, so this is our own fault.
		e.log.Error("map-request not protected", "eid", p.ask, "map_resolver", r.addr, "err", err)
		return nil, nil, false
	}
	return ad, sec, true
}

// verifyReply checks the Map-Reply m to a protected Map-Request (RFC 9303 §6.9)
// and leaves it the records that the Map-Server vouches for. It reports whether
// there is anything to learn from it.
func (e *Engine) verifyReply(now time.Time, d lisp.Datagram, m *lisp.MapReply, req request) bool {
	sec, p := req.sec, req.pending
	if sec == nil {
		return true
	}
	if !m.Security {
		e.drop(now, DropNotSecured, d.Remote, p.ask.String)
		return false
	}
	var s lisp.ReplySecurity
	if err := s.DecodeFromBytes(m.Trailer); err != nil {
		e.drop(now, DropMalformed, d.Remote, err.Error)
		return false
	}
	if !e.functionsAccepted(now, d, p, sec, &s) {
		return false
	}
	if _, err := lisp.VerifySecured(d.Bytes, sec.otk); err != nil {
		// It may be forged, so it does not use up the key: the true one may follow.
		e.drop(now, DropAuthentication, d.Remote, err.Error)
		return false
	}
	// The One-Time Key is used up (RFC 9303 §6.9, §7.6).
	delete(e.requests, m.Nonce)
	p.nonces = slices.DeleteFunc(p.nonces, func(n lisp.Nonce) bool { return n == m.Nonce })
	e.stats.SecuredReplies++
	m.Records = slices.DeleteFunc(m.Records, func(rec lisp.EIDRecord) bool {
		k, ok := recordKey(&rec)
		if ok && authorised(s.EIDAD.Records, k) {
			return false
		}
		e.drop(now, DropOverclaim, d.Remote, rec.String)
		return true
	})
	return !e.fallBack(now, p, req, m, s.EIDAD.CantSign)
}

// authorised reports whether k is within one of the EID-Prefixes of an EID-AD.
// One that contains such an EID-Prefix claims more than the Map-Server knows of
// and is not cut down to it (RFC 9303 §6.9.1).
func authorised(prefixes []lisp.RequestRecord, k mapcache.Key) bool {
	for i := range prefixes {
		iid, p, ok := prefixes[i].Prefix()
		if !ok {
			continue
		}
		a, err := cleanKey(mapcache.Key{IID: iid, Prefix: p})
		if err == nil && a.IID == k.IID && a.Prefix.Bits() <= k.Prefix.Bits() && a.Prefix.Contains(k.Prefix.Addr()) {
			return true
		}
	}
	return false
}

// functionsAccepted checks the functions that a Map-Reply is protected by
// against those requested. If they differ, others are requested: once each, then
// as often as any Map-Request is repeated.
func (e *Engine) functionsAccepted(now time.Time, d lisp.Datagram, p *pending, sec *protection, s *lisp.ReplySecurity) bool {
	c := &e.cfg.LISPSEC
	hmacs := c.HMACs[sec.hmac : sec.hmac+1]
	kdfs := c.KDFs[sec.kdf : sec.kdf+1]
	var next *int
	var count, asked int
	switch {
	case !accepts(hmacs, s.HMACID, lisp.HMACSHA256):
		next, count, asked = &p.security.hmac, len(c.HMACs), sec.hmac
	case !accepts(kdfs, s.EIDAD.KDF, lisp.KDFHKDFSHA256):
		next, count, asked = &p.security.kdf, len(c.KDFs), sec.kdf
	case !accepts(c.HMACs, s.EIDAD.HMACID, lisp.HMACSHA256):
		// The Map-Server is free in the choice, but we need not trust it.
		next, count, asked = &p.security.hmac, len(c.HMACs), sec.hmac
	default:
		return true
	}
	e.drop(now, DropSecurityFunction, d.Remote, func() string {
		return fmt.Sprintf("%v by HMACs %d and %d, KDF %d", p.ask, s.EIDAD.HMACID, s.HMACID, s.EIDAD.KDF)
	})
	if p.phase != asking || *next != asked {
		return false // the next is on its way
	}
	*next = (asked + 1) % count
	if *next != 0 {
		p.waiting = false // it was answered, if not well
		e.timers.set(&p.timer, later(p.lastSent.Add(requestInterval), now.Add(time.Millisecond)))
	}
	return false
}

// accepts reports whether id is in the list, 0 standing for all up to last.
func accepts[T ~uint16](list []T, id, last T) bool {
	return id != 0 && (slices.Contains(list, id) || id <= last && slices.Contains(list, 0))
}

// fallBack asks for p without LISP-SEC if the Map-Server says, verifiably, that
// no ETR could have answered it (RFC 9303 §6.7, E bit) and the policy allows.
func (e *Engine) fallBack(now time.Time, p *pending, req request, m *lisp.MapReply, cantSign bool) bool {
	if !cantSign || e.cfg.LISPSEC.Mode == LISPSECRequired || p.phase != asking || !e.negativeFor(m.Records, p) {
		return false
	}
	p.security.plain, p.waiting = true, false
	req.resolver.answered(now.Sub(req.sent))
	e.stats.LISPSECFallbacks++
	e.log.Warn("no etr of the eid does lisp-sec, asking without", "eid", p.ask, "map_resolver", req.resolver.addr)
	e.timers.set(&p.timer, later(p.lastSent.Add(requestInterval), now.Add(time.Millisecond)))
	return true
}

// negativeFor reports whether the records say that there are no locators for
// what p asks for.
func (e *Engine) negativeFor(records []lisp.EIDRecord, p *pending) bool {
	covering := e.covering(records, p)
	return covering.IsValid() && slices.ContainsFunc(records, func(rec lisp.EIDRecord) bool {
		k, ok := recordKey(&rec)
		return ok && k == mapcache.Key{IID: p.ask.IID, Prefix: covering} && rec.Negative()
	})
}
