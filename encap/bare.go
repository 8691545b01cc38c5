package encap

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/lisp"
)

// bareControl hands on what is a control message without a data header
// (Config.BareControl), and reports whether it was one. A Map-Server's control port
// is the source of nothing else, with that variant; data from an RTR comes from its
// data port.
func (f *Forwarder) bareControl(in *Incoming, b []byte) bool {
	if in.Remote.Port() != lisp.ControlPort || f.cfg.Control == nil {
		return false
	}
	if t := lisp.TypeOf(b); t != lisp.TypeInfo && t != lisp.TypeMapNotify {
		return false
	}
	f.cfg.Control(lisp.Datagram{
		Local: netip.AddrPortFrom(in.Local, dataPort), Remote: in.Remote, IfIndex: in.IfIndex, Bytes: b,
	})
	return true
}
