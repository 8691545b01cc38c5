package natt

import (
	"fmt"
	"net/netip"

	"github.com/xtrkit/xtrkit/lisp"
)

// Path is how a Map-Register came to a Map-Server by an RTR, which is how
// Map-Notifies go back. It is a comparable value; the zero Path is none.
type Path struct {
	Variant Variant    // Draft19: in an ECM with the N bit; Old: bare, with the R bit
	RTR     netip.Addr // who relayed it
	Local   netip.Addr // the node's own idea of its address; invalid with Old
}

// IsValid reports whether there is an RTR.
func (p Path) IsValid() bool { return p.RTR.IsValid() }

// Destination is where to send what Append makes.
func (p Path) Destination() netip.AddrPort { return netip.AddrPortFrom(p.RTR, lisp.ControlPort) }

// Append appends notify, an encoded and signed Map-Notify, in the form that the RTR
// takes (draft §4.4): in an ECM with the R bit, from server, and authenticated by
// the key shared with the RTR if it has a Secret. With Old it is bare, and must
// have the R bit (lisp.MapNotify.RTRAuth) just if there is a key. notify may not
// overlap b. After an error b is as it was.
func (p Path) Append(b []byte, server netip.Addr, notify []byte, key lisp.Key) ([]byte, error) {
	if p.Variant == Old {
		start := len(b)
		b = append(b, notify...)
		if len(key.Secret) == 0 {
			return b, nil
		}
		out, err := lisp.AppendRTRAuthentication(append([]byte(nil), notify...), key)
		if err != nil {
			return b[:start], fmt.Errorf("natt: authentication for RTR %v: %w", p.RTR, err)
		}
		return append(b[:start], out...), nil
	}
	m := lisp.EncapsulatedControl{RTR: true}
	var err error
	if len(key.Secret) > 0 {
		if m.Security, err = lisp.AppendRTRSecurity(nil, notify, key); err != nil {
			return b, fmt.Errorf("natt: authentication for RTR %v: %w", p.RTR, err)
		}
	}
	m.Packet, err = lisp.AppendInner(nil, lisp.Inner{
		Source:      netip.AddrPortFrom(sameFamily(server.Unmap(), p.Local), lisp.ControlPort),
		Destination: netip.AddrPortFrom(p.Local, lisp.ControlPort),
		Payload:     notify,
	})
	if err != nil {
		return b, fmt.Errorf("natt: Map-Notify by RTR %v: %w", p.RTR, err)
	}
	return m.AppendBinary(b)
}
