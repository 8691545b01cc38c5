package encap

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/mapcache"
)

// SourceCheck says whether the outer source of an arriving packet must be a
// locator of its inner source, by the map-cache (the uRPF of RFC 9300 §16). It
// keeps others from sending in the name of an EID, and needs a mapping for
// whoever sends: a packet from an unknown source makes the control plane ask for
// one (mapcache.DiscoverySource). A site that sends from an address which its
// mapping does not list, as behind a NAT, fails the check.
type SourceCheck uint8

const (
	SourceUnchecked SourceCheck = iota // any source
	SourceLoose                        // one that fits, or without a known mapping
	SourceStrict                       // one that fits
)

// unknownSourceRate bounds the discoveries of unknown sources, per second: who
// makes up sources must not make us ask for all of them.
const unknownSourceRate = 20

// fitting is a source that fitted the map-cache, earlier in the batch.
type fitting struct {
	o         *overlay
	eid, rloc netip.Addr
}

// checkSource checks where a packet came from.
func (g *ingress) checkSource(o *overlay, p *inner, rloc netip.Addr) DropReason {
	from := fitting{o, p.src, rloc}
	if from == g.fitting {
		return DropNone
	}
	switch g.view.MatchSource(o.iid, p.src, rloc) {
	case mapcache.SourceMatches:
		g.fitting = from
		return DropNone
	case mapcache.SourceMismatch:
		return DropSourceRLOC
	case mapcache.SourceUnknown:
	}
	if g.f.sourceLimit.Allow() {
		g.f.discover(mapcache.Discovery{Kind: mapcache.DiscoverySource, Key: mapcache.HostKey(o.iid, p.src), Source: p.src})
	}
	if g.f.cfg.SourceCheck == SourceStrict {
		return DropSourceRLOC
	}
	return DropNone
}
