package control

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Event is something that happened in an Engine. The set of events is closed;
// switch on the type to look inside. String gives one readable line without the
// time.
type Event interface {
	fmt.Stringer
	When() time.Time
	event()
}

// Stamp is the time of an event.
type Stamp struct{ At time.Time }

// When returns the time of the event.
func (s Stamp) When() time.Time { return s.At }
func (s Stamp) event()          {}

// Registered says that a Map-Server acknowledged a Map-Register that it had not
// acknowledged before: the first one, the first after a failure, or one with
// changed content. The periodic repetitions in between are not reported.
type Registered struct {
	Stamp
	MapServer netip.AddrPort
	EIDs      []mapcache.Key
	RLOCs     []netip.Addr
	RTT       time.Duration // since the first transmission of the message
	Again     bool          // it was registered before
}

func (e Registered) String() string {
	verb := "registered"
	if e.Again {
		verb = "registered again"
	}
	return fmt.Sprintf("%s %s at %s with Map-Server %v in %v", verb, keyList(e.EIDs), addrList(e.RLOCs), e.MapServer.Addr(), roundRTT(e.RTT))
}

// RegisterUnanswered says that the wait for a Map-Notify ended without one.
type RegisterUnanswered struct {
	Stamp
	MapServer netip.AddrPort
	EIDs      []mapcache.Key
	Nonce     lisp.Nonce
	Tries     int           // transmissions since the last acknowledgement
	Next      time.Duration // until the next transmission is given up in turn
}

func (e RegisterUnanswered) String() string {
	s := fmt.Sprintf("no Map-Notify from Map-Server %v for %s after %s; sent again, next check in %v",
		e.MapServer.Addr(), keyList(e.EIDs), count(e.Tries, "Map-Register"), e.Next.Round(100*time.Millisecond))
	if e.Tries >= registerSends {
		s += unansweredHint
	}
	return s
}

// unansweredHint follows when loss alone no longer explains the silence.
const unansweredHint = " (the Map-Server is down or unreachable, or refuses us: it answers neither a wrong key nor an EID-Prefix that is not its site's)"

// RegisterFailed says that a Map-Server answered, but not as an accepting one
// does: the answer does not verify, or leaves EID-Prefixes out.
type RegisterFailed struct {
	Stamp
	MapServer netip.AddrPort
	EIDs      []mapcache.Key // the ones concerned
	Reason    string
}

func (e RegisterFailed) String() string {
	return fmt.Sprintf("registration of %s with Map-Server %v failed: %s", keyList(e.EIDs), e.MapServer.Addr(), e.Reason)
}

// Withdrawn says that a Map-Server acknowledged the withdrawal (TTL 0) of a
// registration.
type Withdrawn struct {
	Stamp
	MapServer netip.AddrPort
	EIDs      []mapcache.Key
}

func (e Withdrawn) String() string {
	return fmt.Sprintf("withdrew %s from Map-Server %v", keyList(e.EIDs), e.MapServer.Addr())
}

// UnsolicitedNotify says that a Map-Server sent a verified Map-Notify that
// answers none of our Map-Registers: the registration was changed elsewhere. It
// has been acknowledged.
type UnsolicitedNotify struct {
	Stamp
	MapServer netip.AddrPort
	EIDs      []mapcache.Key
}

func (e UnsolicitedNotify) String() string {
	return fmt.Sprintf("Map-Server %v notifies of a change of %s", e.MapServer.Addr(), keyList(e.EIDs))
}

// MapRequestSent says that a Map-Request for EID went to a Map-Resolver.
type MapRequestSent struct {
	Stamp
	EID         mapcache.Key
	MapResolver netip.AddrPort
	Nonce       lisp.Nonce
	Try         int  // 1 for the first
	Refresh     bool // of a cached mapping
	SMRInvoked  bool // asked for by an SMR
	Secured     bool // by LISP-SEC
}

func (e MapRequestSent) String() string {
	s := fmt.Sprintf("Map-Request for %v to Map-Resolver %v", e.EID, e.MapResolver.Addr())
	if e.Refresh {
		s += ", refresh"
	}
	if e.SMRInvoked {
		s += ", solicited"
	}
	if e.Try > 1 {
		s += fmt.Sprintf(", try %d", e.Try)
	}
	return s
}

// MapRequestReceived says that a Map-Request for an EID of ours was answered, or
// that an SMR for an entry of the map-cache came. Probes are not reported.
type MapRequestReceived struct {
	Stamp
	EID  mapcache.Key
	From netip.Addr // the ITR-RLOC that the answer went to; the sender of an SMR
	SMR  bool
}

func (e MapRequestReceived) String() string {
	if e.SMR {
		return fmt.Sprintf("SMR for %v from %v", e.EID, e.From)
	}
	return fmt.Sprintf("Map-Request for %v from %v answered", e.EID, e.From)
}

// SMRSent says that a peer was told that a mapping of ours changed.
type SMRSent struct {
	Stamp
	EID mapcache.Key // what changed
	To  netip.Addr
	Try int // 1 for the first
}

func (e SMRSent) String() string {
	s := fmt.Sprintf("SMR for %v to %v", e.EID, e.To)
	if e.Try > 1 {
		s += ", again"
	}
	return s
}

// MapReplyReceived says that a Map-Reply brought a mapping with locators.
type MapReplyReceived struct {
	Stamp
	EID   mapcache.Key
	RLOCs []mapcache.RLOC
	TTL   time.Duration // 0: the mapping is gone; mapcache.TTLForever: it is left to us
	From  netip.AddrPort
	RTT   time.Duration // since the Map-Request that it answers
}

func (e MapReplyReceived) String() string {
	return fmt.Sprintf("Map-Reply for %v: %s, ttl %s, from %v in %v", e.EID, rlocList(e.RLOCs), ttlString(e.TTL), e.From.Addr(), roundRTT(e.RTT))
}

// NegativeReply says that a Map-Reply brought a mapping without locators.
type NegativeReply struct {
	Stamp
	EID    mapcache.Key
	Action lisp.Action
	TTL    time.Duration
	From   netip.AddrPort
	RTT    time.Duration
	// ProxyETRs are where packets go instead, if that is configured and the
	// action allows it.
	ProxyETRs []mapcache.RLOC
}

func (e NegativeReply) String() string {
	s := fmt.Sprintf("negative Map-Reply for %v: %s, ttl %s, from %v in %v", e.EID, e.Action, ttlString(e.TTL), e.From.Addr(), roundRTT(e.RTT))
	if len(e.ProxyETRs) > 0 {
		s += ", by Proxy-ETR " + rlocList(e.ProxyETRs)
	}
	return s
}

// ResolutionFailed says that all retransmissions of a Map-Request for EID went
// unanswered. No more are sent for 30 s.
type ResolutionFailed struct {
	Stamp
	EID   mapcache.Key
	Tries int
}

func (e ResolutionFailed) String() string {
	return fmt.Sprintf("no Map-Reply for %v after %s", e.EID, count(e.Tries, "Map-Request"))
}

// CacheAdded says that the map-cache has a new entry.
type CacheAdded struct {
	Stamp
	Key     mapcache.Key
	Verdict mapcache.Verdict
	RLOCs   []mapcache.RLOC
}

func (e CacheAdded) String() string {
	return fmt.Sprintf("map-cache: added %v, %s", e.Key, forwardingString(e.Verdict, e.RLOCs))
}

// CacheRefreshed says that an entry of the map-cache got a new lifetime and
// nothing else.
type CacheRefreshed struct {
	Stamp
	Key mapcache.Key
	TTL time.Duration
}

func (e CacheRefreshed) String() string {
	return fmt.Sprintf("map-cache: refreshed %v, ttl %s", e.Key, ttlString(e.TTL))
}

// CacheRemoved says that an entry left the map-cache.
type CacheRemoved struct {
	Stamp
	Key    mapcache.Key
	Reason mapcache.Reason // removed, expired, evicted or replaced
}

func (e CacheRemoved) String() string { return fmt.Sprintf("map-cache: %v %v", e.Reason, e.Key) }

// LocatorsChanged says that an entry of the map-cache forwards otherwise than
// before.
type LocatorsChanged struct {
	Stamp
	Key        mapcache.Key
	OldVerdict mapcache.Verdict
	NewVerdict mapcache.Verdict
	Old, New   []mapcache.RLOC
}

func (e LocatorsChanged) String() string {
	return fmt.Sprintf("map-cache: changed %v from %s to %s", e.Key, forwardingString(e.OldVerdict, e.Old), forwardingString(e.NewVerdict, e.New))
}

// LocalsChanged says that our own locators changed.
type LocalsChanged struct {
	Stamp
	Locals []mapcache.Local
}

func (e LocalsChanged) String() string {
	if len(e.Locals) == 0 {
		return "own locators: none"
	}
	var b strings.Builder
	b.WriteString("own locators:")
	for _, l := range e.Locals {
		fmt.Fprintf(&b, " %v", l.Addr)
		if !l.Up {
			b.WriteString(" (down)")
		}
	}
	return b.String()
}

// ProbeUp says that a locator answered an RLOC-probe, for the first time or the
// first time after ProbeDown.
type ProbeUp struct {
	Stamp
	Local   netip.Addr
	Locator mapcache.Locator
	RTT     time.Duration
}

func (e ProbeUp) String() string {
	return fmt.Sprintf("RLOC-probe: %v is up from %v, rtt %v", e.Locator.Addr, e.Local, roundRTT(e.RTT))
}

// ProbeDown says that a locator answers no RLOC-probes.
type ProbeDown struct {
	Stamp
	Local   netip.Addr
	Locator mapcache.Locator
	Tries   int           // probes unanswered
	RTT     time.Duration // the last one known, 0 if there was none
}

func (e ProbeDown) String() string {
	return fmt.Sprintf("RLOC-probe: %v is down from %v, %s unanswered", e.Locator.Addr, e.Local, count(e.Tries, "probe"))
}

// Dropped says that a message was dropped. At most a few a second are reported;
// Stats counts all.
type Dropped struct {
	Stamp
	Reason DropReason
	Peer   netip.AddrPort // invalid if there is none
	Detail string
}

func (e Dropped) String() string {
	s := "dropped: " + e.Reason.String()
	if e.Detail != "" {
		s += ", " + e.Detail
	}
	if e.Peer.IsValid() {
		s += fmt.Sprintf(", peer %v", e.Peer)
	}
	return s
}

// NextEvent returns the oldest event not yet taken. When nobody takes them the
// oldest are overwritten and counted.
func (e *Engine) NextEvent() (Event, bool) { return e.events.pop() }

// emit queues ev, and logs it.
func (e *Engine) emit(ev Event) {
	if e.events.push(ev, maxEvents) {
		e.stats.EventsLost++
	}
	e.logEvent(ev)
}

// queue is a FIFO on a slice that gives its memory back when it runs empty.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }

func (q *queue[T]) pop() (T, bool) {
	var zero T
	if q.head == len(q.items) {
		return zero, false
	}
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 1024 {
			q.items = nil
		}
	}
	return v, true
}

// push appends v. When limit items are queued the oldest is lost, which is
// reported.
func (q *queue[T]) push(v T, limit int) (lost bool) {
	if q.len() >= limit {
		q.pop()
		lost = true
	}
	if q.head > limit {
		q.items = append(q.items[:0], q.items[q.head:]...)
		q.head = 0
	}
	q.items = append(q.items, v)
	return lost
}

func forwardingString(v mapcache.Verdict, rlocs []mapcache.RLOC) string {
	switch v {
	case mapcache.Encapsulate:
		return rlocList(rlocs)
	case mapcache.Native:
		return "forward natively"
	case mapcache.Drop:
		return "drop"
	case mapcache.NoLocator:
		return "no usable locator"
	case mapcache.SendRequest:
		return "ask again"
	default:
		return "nothing"
	}
}

func rlocList(rs []mapcache.RLOC) string {
	if len(rs) == 0 {
		return "no locators"
	}
	var b strings.Builder
	for i, r := range rs {
		if i == 4 {
			fmt.Fprintf(&b, " and %d more", len(rs)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(r.Addr.String())
		if r.Port != 0 && r.Port != lisp.DataPort {
			fmt.Fprintf(&b, ":%d", r.Port)
		}
		if r.Down {
			b.WriteString(" (down)")
		}
	}
	return b.String()
}

func keyList(ks []mapcache.Key) string {
	if len(ks) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for i, k := range ks {
		if i == 4 {
			fmt.Fprintf(&b, " and %d more", len(ks)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(k.String())
	}
	return b.String()
}

func addrList(as []netip.Addr) string {
	if len(as) == 0 {
		return "no locator"
	}
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = a.String()
	}
	return strings.Join(s, " ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ttlString prints whole minutes without the seconds.
func ttlString(d time.Duration) string {
	switch {
	case d == mapcache.TTLForever:
		return "unlimited"
	case d > 0 && d%time.Minute == 0:
		return strings.TrimSuffix(d.String(), "0s")
	default:
		return d.String()
	}
}

func roundRTT(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	default:
		return d.Round(time.Microsecond)
	}
}
