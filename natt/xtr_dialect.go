package natt

import (
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// dialect is what an XTR says and understands in one Variant.
type dialect interface {
	// handle finds out what a datagram is.
	handle(x *XTR, now time.Time, d lisp.Datagram) bool
	// infoPort is the own port that Info-Requests leave from.
	infoPort(x *XTR) uint16
	infoRequest(x *XTR, q question, n lisp.Nonce) ([]byte, error)
	// asked runs whenever Info-Requests have been sent.
	asked(x *XTR, now time.Time)
	// checkReply says whether an Info-Reply from the right address answers q.
	checkReply(x *XTR, q question, m *lisp.InfoReply, b []byte) (XTRDrop, error)
	register(x *XTR, r Route, reg Register) error
	// chooses reports whether one RTR is chosen, by who answers; else all are used.
	chooses() bool
	// period is the time between Map-Registers.
	period(x *XTR) time.Duration
}

var dialects = [numVariants]dialect{Draft19: draft19{}, Old: old{}, LispersNet: lispersNet{}}
