package node

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// notAllowed are static mappings that have everything forwarded natively that is
// not among the destinations that the file allows.
func notAllowed(cfg *conf.Node) (out []mapcache.Mapping) {
	if len(cfg.AllowedEIDs) == 0 {
		return nil
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		for _, p := range without(netip.MustParsePrefix(all), cfg.AllowedEIDs) {
			out = append(out, mapcache.Mapping{
				Key: mapcache.Key{IID: cfg.IID, Prefix: p}, Action: lisp.ActionNativelyForward,
				TTL: mapcache.TTLForever, Origin: mapcache.OriginStatic,
			})
		}
	}
	return out
}

// without returns the fewest prefixes that cover p but for what some prefixes
// cover: at most one for each bit of each of them.
func without(p netip.Prefix, but []netip.Prefix) []netip.Prefix {
	touched := false
	for _, b := range but {
		if b.Bits() <= p.Bits() && b.Contains(p.Addr()) {
			return nil
		}
		touched = touched || b.Overlaps(p)
	}
	if !touched {
		return []netip.Prefix{p}
	}
	left, right := halves(p)
	return append(without(left, but), without(right, but)...)
}

func halves(p netip.Prefix) (left, right netip.Prefix) {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(p.Addr(), p.Bits()+1), netip.PrefixFrom(upper, p.Bits()+1)
}
