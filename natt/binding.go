package natt

import (
	"fmt"
	"net/netip"
	"time"
)

// State is where an XTR stands.
type State uint8

// States of an XTR.
const (
	Detecting   State = iota // Info-Requests are under way, none is answered yet
	Unanswered               // several went unanswered; it goes on
	Public                   // the Map-Server sees our own address and port: no NAT
	NoRTR                    // behind a NAT, and no RTR to be had
	Registering              // behind a NAT, no RTR has answered yet
	Registered               // behind a NAT, an RTR has; what it said last still holds
	Silent                   // the same, but the RTR answers no more and there is no other
	numStates
)

var stateNames = [numStates]string{"detecting", "unanswered", "public", "no RTR", "registering", "registered", "silent"}

func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText returns the name of the state.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// NATed reports whether the state is one of a locator that is known to be behind a
// NAT, or that goes by an RTR for another reason (XTRConfig.Always).
func (s State) NATed() bool { return s >= NoRTR }

// Binding is what an XTR knows about the way in and out of one of our own locators.
type Binding struct {
	Local   netip.Addr // our own locator
	IfIndex int
	State   State
	// Global is the address and port that the Map-Server saw, zero if unknown. The
	// port is that of the Info-Request: an RTR sees another one.
	Global netip.AddrPort
	// RTR is the one that traffic goes by, invalid without. With Registered and
	// Silent it is announced in place of Local.
	RTR  netip.Addr
	RTRs []netip.Addr // all of our address family that the Map-Server named
	// Direct says that Local itself is to be announced: it is public, or is likely to
	// be (LikelyPublic) and nothing else is known.
	Direct bool
	// RTT is from the Encapsulated Map-Register to the Data-Map-Notify, the latest.
	RTT        time.Duration
	LastNotify time.Time     // when the last Data-Map-Notify came that verified; zero: never
	KeepAlive  time.Duration // how often the binding is kept open
	Deadline   time.Time     // when something happens next
	// Reason says why things are not as they should be; empty: they are.
	Reason string
}

// Text says in one line how the binding stands at now, for a status display.
func (b *Binding) Text(now time.Time) string {
	var s string
	switch b.State {
	case Public:
		s = "public"
	case NoRTR, Registering:
		s = fmt.Sprintf("behind NAT %v, no RTR yet", b.Global)
	case Registered, Silent:
		s = fmt.Sprintf("RTR %v, last Data-Map-Notify %v ago", b.RTR, now.Sub(b.LastNotify).Round(time.Second))
		if b.Global != (netip.AddrPort{}) && b.Global.Addr() != b.Local {
			s = fmt.Sprintf("behind NAT %v, %s", b.Global, s)
		}
	case Unanswered:
		if s = b.Reason; s == "" {
			s = b.State.String()
		}
		return s + b.meanwhile()
	default:
		s = b.State.String() + b.meanwhile()
	}
	if b.Reason != "" {
		s += ": " + b.Reason
	}
	return s
}

// meanwhile is what is done while nothing is known.
func (b *Binding) meanwhile() string {
	if !b.Direct {
		return ""
	}
	return ", announced directly meanwhile"
}
