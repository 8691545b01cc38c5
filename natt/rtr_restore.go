package natt

import (
	"container/heap"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Restore takes over a node behind a NAT that an earlier process of this RTR knew: of r
// the EID-Prefix, Global, IfIndex, Priority and Weight count. Until its Expires, or if
// that is zero as long as after a confirmation now, packets go there; the mapping system is
// asked whether it has the EID-Prefix elsewhere. Which xTR it was need not be known: the
// first that a Map-Server confirms takes the place of all that was restored for the
// EID-Prefix, and so does its withdrawal. It reports whether there was room, and nothing
// that is confirmed already.
func (r *RTR) Restore(now time.Time, relay Relay) bool {
	k := eidKey{relay.IID, relay.Prefix.Masked()}
	st := r.eids[k]
	switch {
	case !relay.Prefix.IsValid() || !usable(relay.Global.Addr()) || relay.Global.Port() == 0,
		r.relays >= r.cfg.MaxRelays || st == nil && len(r.eids) >= r.cfg.MaxRelays,
		st != nil && len(st.claims) > 0 && r.restored(k) == nil:
		return false
	}
	if st == nil {
		st = new(eidState)
		r.eids[k] = st
	}
	c := r.restored(k)
	if c == nil {
		c = new(relayClaim)
		st.claims = append(st.claims, c)
	}
	if len(c.relays) >= maxLocals {
		return false
	}
	e := &relayEntry{key: k, claim: c, Relay: relay}
	e.Prefix, e.XTRID, e.Verified = k.prefix, lisp.XTRID{}, time.Time{}
	if e.Expires.IsZero() {
		e.Expires = now.Add(r.cfg.Lifetime)
	}
	c.relays = append(c.relays, e)
	heap.Push(&r.expiry, e)
	r.relays++
	st.resolve = true
	r.touch(k)
	return true
}

// restored finds what was restored for an EID-Prefix: no xTR has the xTR-ID 0.
func (r *RTR) restored(k eidKey) *relayClaim { return r.claim(k, lisp.XTRID{}) }

// supersede takes out what was restored for an EID-Prefix.
func (r *RTR) supersede(now time.Time, k eidKey) {
	if c := r.restored(k); c != nil {
		r.dropClaim(now, k, c, RelayReplaced)
		r.dropEmpty(k, c)
	}
}
