package encap

import (
	"fmt"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Trace is what would become of a packet from a device.
type Trace struct {
	Drop    DropReason       // why it would not leave; DropNone: it would
	Verdict mapcache.Verdict // what the map-cache says; on a Miss the packet waits for a mapping
	Action  lisp.Action      // of a negative mapping

	// Of a packet that is encapsulated:
	Locator    mapcache.Locator // where to
	Local      mapcache.Local   // where from
	SourcePort uint16           // 0: not known
	MTU        int              // the largest inner packet that goes there unfragmented, in octets
	Hash       uint32           // of its flow
}

// Trace says what would become of an inner packet that the device of an instance
// handed over now. Nothing is sent, held, asked for or counted, but for what
// Config.Policy may count. The error says that there is no such instance.
func (f *Forwarder) Trace(instance uint32, packet []byte, mark Mark) (Trace, error) {
	o := f.overlay(instance)
	if o == nil {
		return Trace{}, fmt.Errorf("encap: there is no instance %d", instance)
	}
	e := newEgress(f)
	e.mark = mark
	e.begin()
	var p inner
	if why := e.admit(o, packet, &p); why != DropNone {
		return Trace{Drop: why}, nil
	}
	t := Trace{Hash: mapcache.FlowHash(f.cfg.FlowSeed, packet)}
	d := e.view.Forward(o.iid, p.dst, t.Hash)
	t.Verdict, t.Action = d.Verdict, d.Action
	switch d.Verdict {
	case mapcache.Encapsulate:
	case mapcache.Native:
		if f.cfg.Native == nil {
			t.Drop = DropNative
		}
		return t, nil
	case mapcache.NoLocator:
		t.Drop = DropNoLocator
		return t, nil
	case mapcache.SendRequest:
		t.Drop = DropRequest
		return t, nil
	case mapcache.Drop:
		t.Drop = DropAction
		return t, nil
	default:
		return t, nil
	}
	out, local, room, why := e.route(o, &p, t.Hash, &d)
	if why != DropNone {
		t.Drop = why
		return t, nil
	}
	t.Locator, t.Local, t.MTU = d.Locator, e.locals.locals[local], room
	if w, ok := e.locals.paths[local].(portsPath); ok && !out.NAT {
		if ports := w.SourcePorts(); len(ports) > 0 {
			t.SourcePort = ports[sourcePort(t.Hash, len(ports))]
		}
	}
	return t, nil
}
