package mapserver

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Reason says why something was refused or dropped. Stats counts each.
type Reason uint8

// Reasons.
const (
	ReasonMalformed       Reason = iota // doesn't decode
	ReasonNoRecords                     // a message without records
	ReasonEID                           // an EID that is no IPv4 or IPv6 prefix
	ReasonNotConfigured                 // EID-Prefix not configured for any site
	ReasonManySites                     // records of too many sites in one message
	ReasonKey                           // the site has no such Key ID
	ReasonAlgorithm                     // Key ID known, but not with this algorithm
	ReasonAuth                          // wrong Authentication Data
	ReasonReplay                        // nonce not greater than the last
	ReasonVersion                       // Map-Version older than the registered one
	ReasonLimit                         // MaxRegistrations reached
	ReasonNotEncapsulated               // a Map-Request outside of an ECM
	ReasonInner                         // an ECM whose inner packet is bad or holds something else
	ReasonProbe                         // an RLOC-probe
	ReasonNoITRRLOC                     // no ITR-RLOC that can be answered
	ReasonNoReply                       // nothing to forward to, and the request forbids a Map-Reply
	ReasonNoRLOC                        // registered, but with no locator that can be forwarded to
	ReasonSecurity                      // LISP-SEC data without a usable One-Time Key
	ReasonUnprotectedPath               // a One-Time Key unencrypted, or to be sent so, on a path that is not protected
	ReasonSubscriptions                 // MaxSubscriptions, or the part of one xTR, reached
	ReasonRate                          // a token bucket was empty
	ReasonUnexpected                    // a message that no Map-Server expects
	ReasonQueue                         // the queue of datagrams to send was full
	ReasonSize                          // the answer would be too long for the request
	ReasonMixed                         // a Map-Request for EIDs of several Map-Servers
	ReasonNotifies                      // MaxNotifies reached: an xTR is not told that a mapping moved
	ReasonRTR                           // a Map-Register that an RTR relays which is not configured
	ReasonNoXTRID                       // a relayed Map-Register without xTR-ID
	ReasonVariant                       // an Info-Request of lispers.net, with NAT.LispersNet off
	NumReasons
)

var reasonNames = [NumReasons]string{
	"malformed", "no records", "unsupported EID", "EID-Prefix not configured", "too many sites", "unknown Key ID",
	"algorithm not allowed", "authentication failed", "replay", "old Map-Version", "registration limit",
	"not encapsulated", "bad inner packet", "RLOC-probe", "no usable ITR-RLOC", "no reply wanted",
	"no usable RLOC", "no usable One-Time Key", "One-Time Key not encrypted", "subscription limit", "rate limit", "unexpected message", "send queue full",
	"answer too long", "several Map-Servers", "unacknowledged map-notify limit", "RTR not configured",
	"no xTR-ID by an RTR", "lispers.net not enabled",
}

func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Event is something that happened: Registered, Refused, InfoAnswered, Withdrawn, Expired,
// Moved, NotifyAcked, NotifyUnanswered, MapServerHealth, Resolved, Negative,
// Forwarded or Dropped. String is one readable line.
type Event interface {
	fmt.Stringer
	event()
}

// Change says what a registration did to the mapping.
type Change uint8

// Changes.
const (
	ChangeNew       Change = iota // the EID-Prefix was not registered
	ChangeMapping                 // its locators changed
	ChangeRefreshed               // nothing new
	ChangeDuplicate               // a repeated Map-Register; not even its lifetime changed
)

func (c Change) String() string {
	switch c {
	case ChangeNew:
		return "registered"
	case ChangeMapping:
		return "changed"
	case ChangeRefreshed:
		return "refreshed"
	case ChangeDuplicate:
		return "repeated"
	}
	return fmt.Sprintf("change %d", uint8(c))
}

// Registered is an accepted Map-Register, once for each record.
type Registered struct {
	Time     time.Time
	Change   Change
	Site     string
	IID      uint32
	EID      netip.Prefix
	From     netip.AddrPort
	XTRID    lisp.XTRID
	RLOCs    []lisp.RLOCRecord // as registered; nil for a refresh; do not modify
	Lifetime time.Duration     // until it expires
}

// Refused is a Map-Register that changed nothing, or an Info-Request; it is not
// answered.
type Refused struct {
	Time   time.Time
	Info   bool // it is an Info-Request
	Reason Reason
	Site   string // empty when no site could be told
	IID    uint32
	EID    netip.Prefix // zero when not known
	From   netip.AddrPort
	KeyID  uint8
	Err    error // may be nil
}

// InfoAnswered is an answered Info-Request: a node asks where it comes from.
type InfoAnswered struct {
	Time   time.Time
	Site   string
	IID    uint32
	EID    netip.Prefix
	Host   string         // of lispers.net, instead of the EID-Prefix
	Global netip.AddrPort // what it was told
	RTRs   int            // how many it was told
}

// Withdrawn is a registration ended by its xTR (Record TTL 0).
type Withdrawn struct {
	Time  time.Time
	Site  string
	IID   uint32
	EID   netip.Prefix
	From  netip.AddrPort
	XTRID lisp.XTRID
}

// Removed is a registration that ends because its EID-Prefix is not configured any
// more, or is another site's: see Server.Reconfigure.
type Removed struct {
	Time  time.Time
	Site  string
	IID   uint32
	EID   netip.Prefix
	From  netip.Addr // the last source
	XTRID lisp.XTRID
}

// Expired is a registration that was not refreshed in time.
type Expired struct {
	Time  time.Time
	Site  string
	IID   uint32
	EID   netip.Prefix
	From  netip.Addr // the last source
	XTRID lisp.XTRID
}

// Moved is a mapping that has lost locators: a Map-Register put others in their
// place. A Map-Notify goes to them.
type Moved struct {
	Time      time.Time
	Site      string
	IID       uint32
	EID       netip.Prefix
	From      netip.AddrPort // of the Map-Register
	XTRID     lisp.XTRID
	Displaced []netip.Addr
	RLOCs     []lisp.RLOCRecord // the mapping now; do not modify
}

// NotifyAcked is a Map-Notify-Ack for an unsolicited Map-Notify.
type NotifyAcked struct {
	Time  time.Time
	Site  string
	From  netip.AddrPort
	XTRID lisp.XTRID // of the xTR that was notified
	EIDs  int        // how many mappings the Map-Notify was about
}

// NotifyUnanswered is a receiver of unsolicited Map-Notifies that acknowledged
// none of seven transmissions.
type NotifyUnanswered struct {
	Time  time.Time
	Site  string
	To    netip.AddrPort
	XTRID lisp.XTRID
	EIDs  int // how many mappings it has not heard of
}

// MapServerHealth is a Map-Server of the resolver's table that stopped answering
// or answers again.
type MapServerHealth struct {
	Time   time.Time
	Addr   netip.AddrPort
	Health Health // HealthUp or HealthDown
}

// Resolved is a Map-Request answered on behalf of an ETR.
type Resolved struct {
	Time   time.Time
	Site   string
	IID    uint32
	Asked  netip.Prefix
	EID    netip.Prefix // the EID-Prefix answered
	To     netip.AddrPort
	RLOCs  int
	Action lisp.Action // with no RLOCs
}

// Negative is a Map-Request answered with a Negative Map-Reply.
type Negative struct {
	Time   time.Time
	Site   string // empty: the EID belongs to none
	IID    uint32
	Asked  netip.Prefix
	EID    netip.Prefix // the prefix answered
	Action lisp.Action
	TTL    time.Duration
	To     netip.AddrPort
}

// Forwarded is a Map-Request passed on to an ETR, or by a Map-Resolver to a
// Map-Server.
type Forwarded struct {
	Time  time.Time
	Site  string // empty: to a Map-Server
	IID   uint32
	Asked netip.Prefix
	From  netip.AddrPort
	To    netip.AddrPort
}

// Dropped is a message other than a Map-Register that was not answered.
type Dropped struct {
	Time   time.Time
	Reason Reason
	Type   lisp.Type
	From   netip.AddrPort
}

func (Registered) event()       {}
func (Refused) event()          {}
func (InfoAnswered) event()     {}
func (Withdrawn) event()        {}
func (Removed) event()          {}
func (Expired) event()          {}
func (Moved) event()            {}
func (NotifyAcked) event()      {}
func (NotifyUnanswered) event() {}
func (MapServerHealth) event()  {}
func (Resolved) event()         {}
func (Negative) event()         {}
func (Forwarded) event()        {}
func (Dropped) event()          {}

func eidString(iid uint32, p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return "?"
	case iid == 0:
		return p.String()
	}
	return fmt.Sprintf("[%d]%s", iid, p)
}

func xtrString(x lisp.XTRID) string {
	if x == (lisp.XTRID{}) {
		return ""
	}
	return fmt.Sprintf(" xTR-ID %s", x)
}

func (e Registered) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s of site %s by %s%s", e.Change, eidString(e.IID, e.EID), e.Site, e.From, xtrString(e.XTRID))
	if e.Change == ChangeNew || e.Change == ChangeMapping {
		b.WriteString(" at")
		for _, r := range e.RLOCs {
			fmt.Fprintf(&b, " %s", r.RLOC)
		}
		if len(e.RLOCs) == 0 {
			b.WriteString(" no locator")
		}
	}
	return b.String()
}

func (e Refused) String() string {
	if e.Info {
		s := fmt.Sprintf("refused info-request for %s from %s: %s", eidString(e.IID, e.EID), e.From, e.Reason)
		if e.Site != "" {
			s += " (site " + e.Site + ")"
		}
		return s
	}
	s := fmt.Sprintf("refused map-register for %s from %s key %d: %s", eidString(e.IID, e.EID), e.From, e.KeyID, e.Reason)
	if e.Site != "" {
		s += " (site " + e.Site + ")"
	}
	return s
}

func (e InfoAnswered) String() string {
	who := eidString(e.IID, e.EID) + " of site " + e.Site
	if e.Host != "" {
		who = "host " + e.Host
	}
	return fmt.Sprintf("told %s that it comes from %s, and of %d RTRs", who, e.Global, e.RTRs)
}

func (e Withdrawn) String() string {
	return fmt.Sprintf("withdrawn %s of site %s by %s%s", eidString(e.IID, e.EID), e.Site, e.From, xtrString(e.XTRID))
}

func (e Expired) String() string {
	return fmt.Sprintf("expired %s of site %s last registered by %s%s", eidString(e.IID, e.EID), e.Site, e.From, xtrString(e.XTRID))
}

func (e Removed) String() string {
	return fmt.Sprintf("removed %s of site %s last registered by %s%s", eidString(e.IID, e.EID), e.Site, e.From, xtrString(e.XTRID))
}

func (e Moved) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "moved %s of site %s by %s%s from", eidString(e.IID, e.EID), e.Site, e.From, xtrString(e.XTRID))
	for _, a := range e.Displaced {
		fmt.Fprintf(&b, " %s", a)
	}
	b.WriteString(" to")
	for _, r := range e.RLOCs {
		fmt.Fprintf(&b, " %s", r.RLOC)
	}
	if len(e.RLOCs) == 0 {
		b.WriteString(" no locator")
	}
	return b.String()
}

func (e NotifyAcked) String() string {
	return fmt.Sprintf("map-notify-ack from %s%s for %d mappings of site %s", e.From, xtrString(e.XTRID), e.EIDs, e.Site)
}

func (e NotifyUnanswered) String() string {
	return fmt.Sprintf("no map-notify-ack from %s%s for %d mappings of site %s", e.To, xtrString(e.XTRID), e.EIDs, e.Site)
}

func (e MapServerHealth) String() string {
	return fmt.Sprintf("Map-Server %s is %s", e.Addr, e.Health)
}

func (e Resolved) String() string {
	return fmt.Sprintf("map-reply for %s to %s: %s with %d locators (site %s)",
		eidString(e.IID, e.Asked), e.To, eidString(e.IID, e.EID), e.RLOCs, e.Site)
}

func (e Negative) String() string {
	s := fmt.Sprintf("negative map-reply for %s to %s: %s %s for %s",
		eidString(e.IID, e.Asked), e.To, eidString(e.IID, e.EID), e.Action, e.TTL)
	if e.Site != "" {
		s += " (site " + e.Site + ")"
	}
	return s
}

func (e Forwarded) String() string {
	s := fmt.Sprintf("map-request for %s from %s forwarded to %s", eidString(e.IID, e.Asked), e.From, e.To)
	if e.Site != "" {
		return s + " (site " + e.Site + ")"
	}
	return s + " (Map-Server)"
}

func (e Dropped) String() string {
	return fmt.Sprintf("dropped %s from %s: %s", e.Type, e.From, e.Reason)
}
