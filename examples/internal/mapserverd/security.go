package mapserverd

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/lisp"
)

// lispSec says in the terms of package mapserver what the file says of LISP-SEC.
func lispSec(c *conf.MapServerSEC) mapserver.LISPSEC {
	out := mapserver.LISPSEC{ProtectedPaths: c.ProtectedPaths}
	key := func(k conf.Key) lisp.Key { return lisp.Key{ID: k.ID, Secret: []byte(k.Secret)} }
	for _, k := range c.ITRKeys {
		out.ITRKeys = append(out.ITRKeys, key(k))
	}
	for _, k := range c.MapServers {
		if out.MapServers == nil {
			out.MapServers = map[netip.AddrPort]lisp.Key{}
		}
		out.MapServers[netip.AddrPortFrom(k.Addr, lisp.ControlPort)] = key(k.Key)
	}
	return out
}
