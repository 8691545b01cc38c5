package control

import (
	"fmt"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// nonceStep is how many Map-Register nonces are reserved at a time.
const nonceStep = 1024

// NonceReserved says that no Map-Register of this run carries a nonce beyond Nonce
// before the next such event, which comes long before they are used up. Whoever
// keeps the latest one in a file, for Config.RegisterNonce of the next run, writes
// once for hundreds of messages and yet never repeats a nonce (RFC 9301 §5.6).
type NonceReserved struct {
	Stamp
	Nonce lisp.Nonce
}

func (e NonceReserved) String() string {
	return fmt.Sprintf("Map-Register nonces up to %v are reserved", e.Nonce)
}

// RegisterNonce is the nonce of the last Map-Register, for
// Config.RegisterNonce of the next run. Without the chance to ask for it at the
// end, NonceReserved is the way.
func (e *Engine) RegisterNonce() lisp.Nonce {
	return max(e.registerNonce, e.cfg.RegisterNonce)
}

// earlierRuns is how far back the nonces of Map-Registers of earlier runs are
// known, about a year of the clock: their Map-Notifies, replayed, would be taken
// for news. A Map-Notify that is news has a random nonce, of which one in half a
// million is among them, or a small number.
const earlierRuns = 1 << 45

// ownNonce reports whether n is that of a Map-Register of ours, of this run or an
// earlier one.
func (e *Engine) ownNonce(n lisp.Nonce) bool {
	return e.firstNonce != 0 && n <= e.registerNonce && n >= e.firstNonce-min(e.firstNonce-1, earlierRuns)
}

// nextRegisterNonce grows with every Map-Register, also across restarts as long
// as the clock does or the last one was kept (RFC 9301 §5.6).
func (e *Engine) nextRegisterNonce(now time.Time) lisp.Nonce {
	if e.registerNonce == 0 {
		e.registerNonce = e.cfg.RegisterNonce
		if s := now.Unix(); s > 0 {
			// A million nonces a second are more than can be used up.
			e.registerNonce = max(e.registerNonce, lisp.Nonce(s)<<20)
		}
		e.firstNonce = e.registerNonce + 1
	}
	e.registerNonce++
	if e.registerNonce+nonceStep/2 > e.reservedNonce {
		e.reservedNonce = e.registerNonce + nonceStep
		e.emit(NonceReserved{Stamp{now}, e.reservedNonce})
	}
	return e.registerNonce
}
