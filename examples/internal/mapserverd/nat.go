package mapserverd

import (
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/lisp"
)

// natConfig says which RTRs nodes behind NATs are told of.
func natConfig(c *conf.MapServerNAT) mapserver.NAT {
	out := mapserver.NAT{TTL: c.TTL, LispersNet: c.LispersNet}
	for _, r := range c.RTRs {
		rtr := mapserver.RTR{Addr: r.Addr}
		if r.Key.Secret != "" {
			rtr.Key = lisp.Key{ID: r.Key.ID, Algorithm: lisp.Algorithm(r.Key.Type), Secret: []byte(r.Key.Secret)}
		}
		out.RTRs = append(out.RTRs, rtr)
	}
	return out
}
