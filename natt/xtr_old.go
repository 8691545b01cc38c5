package natt

import "github.com/xtrkit/xtrkit/lisp"

// old is what OOR and LISPmob speak. Their Info-Request and Encapsulated
// Map-Register are those of Draft19; what differs in the Map-Register the Registrar
// knows from Route.Variant. The inner port is fixed.
type old struct{ draft19 }

func (old) register(x *XTR, r Route, reg Register) error {
	return x.encapsulate(r, reg, lisp.ControlPort)
}
