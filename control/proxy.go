package control

import (
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// proxied reports whether we ask for k as a Proxy-ITR.
func (e *Engine) proxied(k mapcache.Key) bool {
	for _, a := range e.cfg.ProxyITR {
		if a.IID == k.IID && a.Prefix.Bits() <= k.Prefix.Bits() && a.Prefix.Contains(k.Prefix.Addr()) {
			return true
		}
	}
	return false
}

// asksFor reports whether a destination is for us to resolve: any is for an xTR,
// those of its aggregates for what is a Proxy-ITR only.
func (e *Engine) asksFor(k mapcache.Key) bool {
	return len(e.cfg.ProxyITR) == 0 || len(e.db) > 0 || e.proxied(k)
}

// proxyETRs are what takes packets to k, which is no EID-Prefix.
func (e *Engine) proxyETRs(k mapcache.Key) []mapcache.RLOC {
	own := e.cfg.ProxyETRs6
	if k.Prefix.Addr().Is4() {
		own = e.cfg.ProxyETRs4
	}
	if len(own) > 0 {
		return own
	}
	return e.cfg.ProxyETRs
}

// Glean tells that a data packet came from an EID behind a locator. If the
// map-cache is configured to take that for a mapping, it does for three seconds,
// and the mapping system is asked whether it is true (RFC 9300 §9). On the public
// Internet that must not be.
func (e *Engine) Glean(now time.Time, iid uint32, eid netip.Addr, l mapcache.Locator) {
	now = e.tick(now)
	defer e.collect(now)
	if e.cache.Glean(now, iid, eid, l) {
		k := mapcache.HostKey(iid, eid)
		e.refresh(now, k, reasons{})
	}
}
