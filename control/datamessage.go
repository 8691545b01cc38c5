package control

import (
	"bytes"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// dataMessages is how many messages from the data port wait for the loop.
const dataMessages = 128

// dataRoles are those offered what arrived on the data port and is no data.
var dataRoles = [...]Role{RoleXTR, RoleRTR}

// HandleData takes what arrived on the data port (4341) and is no data: messages of
// NAT traversal, with the data header of instance 0xFFFFFF in front. It is made for
// encap.Config.Control: it returns at once and doesn't keep d.Bytes. When too many
// wait the rest is dropped, and counted.
func (r *Runner) HandleData(d lisp.Datagram) {
	if len(d.Bytes) > maxDatagram {
		r.stats.oversize.Add(1)
		return
	}
	d.Bytes = bytes.Clone(d.Bytes)
	select {
	case r.dataIn <- d:
	default:
		r.stats.dataDropped.Add(1)
	}
}

// handleData offers one of those to the cores.
func (r *Runner) handleData(now time.Time, d lisp.Datagram) {
	r.stats.received.Add(1)
	for _, role := range dataRoles {
		if c := r.cores[role]; c != nil && c.Handle(now, d) {
			return
		}
	}
	r.stats.unclaimed.Add(1)
}
