package node

import (
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/examples/internal/conf"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// natConfig has the node find out about NATs, unless the file says off: who is
// behind one most often does not know. Who registers nothing has nothing to ask for.
func natConfig(cfg *conf.Node) control.NATConfig {
	c := control.NATConfig{
		Enable: !cfg.NAT.Off && len(cfg.Mappings) > 0 && len(cfg.MapServers) > 0,
		Always: cfg.NAT.Always, KeepAlive: cfg.NAT.KeepAlive, MinKeepAlive: cfg.NAT.MinKeepAlive, HostName: cfg.NAT.HostName,
	}
	switch cfg.NAT.Variant {
	case conf.OldDraft:
		c.Variant = natt.Old
	case conf.LispersNet:
		c.Variant = natt.LispersNet
	}
	return c
}

// dataMessage hands the messages of the data port to the control plane.
func (n *Node) dataMessage(d lisp.Datagram) { n.runner.HandleData(d) }

// bindings say how the own locators get through NATs.
func bindings(bs []natt.Binding, now time.Time) []statusd.Binding {
	out := make([]statusd.Binding, 0, len(bs))
	for i := range bs {
		b := &bs[i]
		out = append(out, statusd.Binding{
			Local: b.Local, IfIndex: b.IfIndex, State: b.State.String(), Text: b.Text(now), Global: b.Global, RTR: b.RTR,
			RTT: b.RTT, LastNotify: b.LastNotify, KeepAlive: b.KeepAlive, Reason: b.Reason,
		})
	}
	return out
}
