package natt

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// RTRReason says why an RTR dropped a message, or gave a Map-Register up.
type RTRReason uint8

// Reasons of an RTR.
const (
	RTRMalformed        RTRReason = iota // it does not parse, or makes no sense
	RTRInner                             // an ECM for an RTR with another message inside
	RTRNoXTRID                           // a Map-Register without xTR-ID
	RTRMapServerUnknown                  // for or from a Map-Server that is not configured
	RTRReplay                            // a confirmed Map-Register again, from elsewhere
	RTRRate                              // a rate limit
	RTRPendingFull                       // a Map-Register forgotten, for too many wait for a Map-Notify
	RTRUnanswered                        // no Map-Notify has come for a Map-Register
	RTRAmbiguous                         // several sources have sent a Map-Register with one nonce
	RTRNotSecured                        // a Map-Notify without authentication data for the RTR
	RTRAuthentication                    // authentication data that doesn't verify
	RTRNonce                             // a Map-Notify that answers no Map-Register under way
	RTRNotServed                         // a Map-Notify for EID-Prefixes of no node here
	RTRElsewhere                         // a Map-Notify that says a node is elsewhere; the mapping system is asked
	RTRTableFull                         // MaxRelays reached
	RTRQueueFull                         // a datagram not sent, since Next is not called enough
	NumRTRReasons
)

var rtrReasonNames = [NumRTRReasons]string{
	RTRMalformed:        "malformed",
	RTRInner:            "unexpected message inside",
	RTRNoXTRID:          "no xTR-ID in the Map-Register",
	RTRMapServerUnknown: "Map-Server not configured",
	RTRReplay:           "replay from elsewhere",
	RTRRate:             "rate limit",
	RTRPendingFull:      "too many Map-Registers without Map-Notify",
	RTRUnanswered:       "no Map-Notify",
	RTRAmbiguous:        "several sources with one nonce",
	RTRNotSecured:       "no authentication data of the Map-Server",
	RTRAuthentication:   "authentication failed",
	RTRNonce:            "unknown nonce",
	RTRNotServed:        "EID-Prefix not served",
	RTRElsewhere:        "node is elsewhere",
	RTRTableFull:        "table full",
	RTRQueueFull:        "send queue full",
}

func (r RTRReason) String() string {
	if r < NumRTRReasons {
		return rtrReasonNames[r]
	}
	return fmt.Sprintf("RTRReason(%d)", uint8(r))
}

// RelayEnd says why a Relay is gone.
type RelayEnd uint8

// Ends of a Relay.
const (
	RelayExpired   RelayEnd = iota // the node was silent for too long
	RelayWithdrawn                 // the node has withdrawn its registration
	RelayReplaced                  // the node has that address no more
	RelayMoved                     // the mapping system has the EID-Prefix elsewhere
)

func (e RelayEnd) String() string {
	switch e {
	case RelayExpired:
		return "silent"
	case RelayWithdrawn:
		return "withdrawn"
	case RelayReplaced:
		return "replaced"
	case RelayMoved:
		return "moved"
	}
	return fmt.Sprintf("RelayEnd(%d)", uint8(e))
}

// RTREvent is something that happened in an RTR: RelayVerified, RelayGone or
// RegisterRefused. String is one readable line.
type RTREvent interface {
	fmt.Stringer
	rtrEvent()
}

// RelayVerified is a node that a Map-Server has confirmed at a new translated
// address or port. Refreshes are not told.
type RelayVerified struct {
	Time time.Time
	Relay
	Before netip.AddrPort // where it was; zero: it is new
}

// RelayGone is a node, or one of its addresses, that is served no more.
type RelayGone struct {
	Time time.Time
	Relay
	Why RelayEnd
}

// RegisterRefused is a message that was dropped, or a Map-Register that no
// Map-Notify came for.
type RegisterRefused struct {
	Time   time.Time
	Reason RTRReason
	From   netip.AddrPort
	XTRID  lisp.XTRID // zero if unknown
	Detail string
}

func (RelayVerified) rtrEvent()   {}
func (RelayGone) rtrEvent()       {}
func (RegisterRefused) rtrEvent() {}

func (e RelayVerified) String() string {
	s := fmt.Sprintf("%s is behind NAT %v, local %v, RTR %v, confirmed by Map-Server %v", e.eid(), e.Global, e.Local, e.RTR, e.MapServer)
	if e.Before.IsValid() {
		s += fmt.Sprintf(" (was %v)", e.Before)
	}
	return s
}

func (e RelayGone) String() string {
	return fmt.Sprintf("%s behind NAT %v, local %v, is gone: %v", e.eid(), e.Global, e.Local, e.Why)
}

func (r *Relay) eid() string {
	if r.IID == 0 {
		return r.Prefix.String()
	}
	return fmt.Sprintf("[%d]%v", r.IID, r.Prefix)
}

func (e RegisterRefused) String() string {
	s := fmt.Sprintf("from %v", e.From)
	if e.XTRID != (lisp.XTRID{}) {
		s += fmt.Sprintf(" xTR-ID %v", e.XTRID)
	}
	s += ": " + e.Reason.String()
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	if e.Reason == RTRUnanswered {
		s += ": the Map-Server is unreachable, doesn't know this RTR, or refuses the node by its key or EID-Prefix"
	}
	return s
}

// RTRStats is a snapshot of what an RTR has counted.
type RTRStats struct {
	Registers       uint64 // Map-Registers for us
	Relayed         uint64 // of those
	Unconfirmable   uint64 // of those, without the M bit: they make no relay
	Notifies        uint64 // that answered a Map-Register
	Unsolicited     uint64 // that were passed on to nodes
	DataMapNotifies uint64 // sent
	InfoRequests    uint64 // of lispers.net, accepted
	EventsLost      uint64
	Dropped         [NumRTRReasons]uint64

	// Gauges.
	Relays  int
	EIDs    int
	Pending int // Map-Registers that wait for their Map-Notify
	Names   int // hosts of lispers.net
}

// Stats returns a snapshot of the counters.
func (r *RTR) Stats() RTRStats {
	s := r.stats
	s.Relays, s.EIDs, s.Pending, s.Names = r.relays, len(r.eids), r.waiting, r.names.len()
	return s
}

// NextEvent returns the oldest event not yet returned. When too many wait, new
// ones are lost and counted.
func (r *RTR) NextEvent() (RTREvent, bool) {
	if len(r.events) == 0 {
		return nil, false
	}
	e := r.events[0]
	r.events[0] = nil
	r.events = r.events[1:]
	if len(r.events) == 0 {
		r.events = nil
	}
	return e, true
}

func (r *RTR) tell(e RTREvent) {
	if len(r.events) >= maxRTREvents {
		r.stats.EventsLost++
		return
	}
	r.events = append(r.events, e)
}

// drop counts and tells why something of a node, or for one, went no further.
func (r *RTR) drop(now time.Time, why RTRReason, from netip.AddrPort, xtr lisp.XTRID, detail string) {
	r.stats.Dropped[why]++
	r.tell(RegisterRefused{now, why, from, xtr, detail})
	r.log.Debug("not relayed", "peer", from, "reason", why.String(), "detail", detail)
}
