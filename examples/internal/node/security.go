package node

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/lisp"
)

// lispSec says in the terms of package control what the file says of LISP-SEC.
func lispSec(c *conf.LISPSEC) control.LISPSEC {
	out := control.LISPSEC{ProtectedPaths: c.ProtectedPaths, NoETR: c.NoETR}
	switch c.Mode {
	case "preferred":
		out.Mode = control.LISPSECPreferred
	case "required":
		out.Mode = control.LISPSECRequired
	}
	for _, name := range c.HMACs {
		id := lisp.HMACSHA1
		if name == "AUTH-HMAC-SHA-256-128" {
			id = lisp.HMACSHA256
		}
		out.HMACs = append(out.HMACs, id)
	}
	for _, name := range c.KDFs {
		id := lisp.KDFHKDFSHA1
		if name == "HKDF-SHA256" {
			id = lisp.KDFHKDFSHA256
		}
		out.KDFs = append(out.KDFs, id)
	}
	for _, k := range c.Keys {
		r := control.ResolverKey{Key: lisp.Key{ID: k.Key.ID, Secret: []byte(k.Key.Secret)}}
		if k.Addr.IsValid() {
			r.Addr = netip.AddrPortFrom(k.Addr, lisp.ControlPort)
		}
		if k.Null {
			r.Wrap = lisp.WrapNull
		}
		out.Resolvers = append(out.Resolvers, r)
	}
	return out
}
