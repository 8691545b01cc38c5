package natt

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/xtrkit/xtrkit/lisp"
)

// XTR is the NAT traversal of one of our own locators.
//
//	                     Info-Reply: our own address and port
//	Detecting ─────────────────────────────────────────────────────> Public
//	  │   │ six Info-Requests unanswered                               │ TTL over, Restart
//	  │   └────────────────> Unanswered ── 60 s, again                 └──> asked again
//	  │ Info-Reply: another address or port
//	  v
//	Registering ── Data-Map-Notify ──> Registered <──────────┐
//	  (NoRTR: none in the list)          │ keep-alive        │ Data-Map-Notify
//	                                     │ unanswered, 4 x   │
//	                                     └──> Silent ────────┘
//
// While nothing is known, in Detecting and Unanswered, a locator that is likely public
// is announced as it is (Binding.Direct): a Map-Server without NAT traversal costs
// nothing then, and what an RTR registers afterwards replaces it, by the xTR-ID.
//
// Info-Requests go on at the pace of the keep-alives: their answers show a
// binding of the same kind that has been idle for as long, and whether it is still
// the same. When it is not, or an RTR becomes silent, everything is looked at
// anew. Several RTRs are tried at the same time, and the first that answers with
// all there is between (RTR, Map-Server) is taken.
//
// One goroutine at a time.
type XTR struct {
	cfg      XTRConfig
	speak    dialect
	likely   bool // that our locator is public
	started  bool
	now      time.Time     // the latest time seen
	skew     time.Duration // what has to be added to the clock so that it never goes back
	out      []lisp.Datagram
	events   []BindingChanged
	stats    XTRStats
	warnings *rate.Limiter // of the log, for what others can provoke
	shown    Binding       // as the last event had it

	state  State
	reason string

	asked     map[lisp.Nonce]question
	infoAt    time.Time // when the next Info-Request is due
	infoSends int       // Info-Requests since the last Info-Reply
	seen      map[netip.AddrPort]sighting
	heard     time.Time // when a Map-Server took a Map-Register of ours directly

	rtrs       []*relay
	current    *relay
	racing     []*relay // those tried at the same time
	sent       map[lisp.Nonce]registered
	slots      []bool    // of the round: which Map-Registers are answered
	registerAt time.Time // when the next Map-Register is due
	tries      int       // Map-Registers since the round began
	stale      bool      // what is tried doesn't say the latest
	innerPort  uint16
	lastNotify time.Time
	keepAlive  time.Duration
	moves      int // Info-Replies in a row with another port than the one before

	withdrawing, withdrawn bool
	leaving                []*leaving // of the withdrawal, those not done
}

// question is an Info-Request under way.
type question struct {
	server netip.AddrPort
	iid    uint32
	eid    netip.Prefix
	at     time.Time
}

// sighting is what a Map-Server said last.
type sighting struct {
	global netip.AddrPort
	rtrs   []netip.Addr
	until  time.Time // how long that holds, by the TTL
}

// relay is an RTR.
type relay struct {
	addr   netip.Addr
	rtt    time.Duration
	silent time.Time // until when it is not preferred
	until  time.Time // until when a Map-Server's word for it holds
}

// registered is a Map-Register under way.
type registered struct {
	route  Route
	server netip.AddrPort
	slot   int
	at     time.Time
}

// BindingChanged says that a Binding is another now in what matters: its State, RTR,
// Global address or Reason.
type BindingChanged struct {
	At       time.Time
	Old, New Binding
}

func (e BindingChanged) String() string {
	return fmt.Sprintf("locator %v: %s", e.New.Local, e.New.Text(e.At))
}

// XTRStats is a snapshot of what an XTR has counted.
type XTRStats struct {
	InfoRequestsSent, InfoRepliesReceived uint64
	MapRegistersSent, NotifiesReceived    uint64
	Failovers                             uint64 // to another RTR
	Dropped                               [NumXTRDrops]uint64
}

// XTRDrop is why an XTR dropped a message, or could not send one.
type XTRDrop uint8

// Reasons for drops.
const (
	DropMalformed      XTRDrop = iota
	DropNonce                  // no such nonce is outstanding
	DropSender                 // not from whom it was asked for
	DropAuthentication         // it does not verify
	DropXTRID                  // for another xTR
	DropEID                    // about another EID-Prefix than asked for
	DropQueueFull              // Next or NextEvent is not called
	DropEncode                 // our own message could not be made
	NumXTRDrops
)

var xtrDropNames = [NumXTRDrops]string{
	"malformed", "nonce", "sender", "authentication", "xtr-id", "eid", "queue full", "not encoded",
}

func (d XTRDrop) String() string {
	if d < NumXTRDrops {
		return xtrDropNames[d]
	}
	return fmt.Sprintf("XTRDrop(%d)", uint8(d))
}

// NewXTR makes an XTR. It begins with its first Advance.
func NewXTR(cfg XTRConfig) (*XTR, error) {
	likely := LikelyPublic(cfg.Local, cfg.Servers)
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	x := &XTR{
		cfg: cfg, likely: likely, keepAlive: cfg.KeepAlive, speak: dialects[cfg.Variant],
		asked: make(map[lisp.Nonce]question), seen: make(map[netip.AddrPort]sighting), sent: make(map[lisp.Nonce]registered),
		warnings: rate.NewLimiter(1, 5),
	}
	x.cfg.Logger = cfg.Logger.With("component", "natt", "rloc", cfg.Local)
	x.innerPort = 49152 + uint16(x.random()%16384)
	x.shown = x.Binding()
	return x, nil
}

// Binding is how things stand.
func (x *XTR) Binding() Binding {
	b := Binding{
		Local: x.cfg.Local, IfIndex: x.cfg.IfIndex, State: x.state, LastNotify: x.lastNotify,
		KeepAlive: x.keepAlive, Deadline: x.Deadline(), Reason: x.reason, Direct: x.direct(),
	}
	for _, s := range x.cfg.Servers {
		if g := x.seen[s].global; g.IsValid() && (!b.Global.IsValid() || x.translated(g)) {
			b.Global = g
		}
	}
	for _, r := range x.rtrs {
		b.RTRs = append(b.RTRs, r.addr)
	}
	if x.current != nil {
		b.RTR, b.RTT = x.current.addr, x.current.rtt
	}
	return b
}

// Stats returns a snapshot of the counters.
func (x *XTR) Stats() XTRStats { return x.stats }

// Advance runs what is due; the first one begins.
func (x *XTR) Advance(now time.Time) {
	now = x.tick(now)
	if !x.infoAt.IsZero() && !x.infoAt.After(now) {
		x.askAgain(now)
	}
	if !x.registerAt.IsZero() && !x.registerAt.After(now) {
		x.registerAgain(now)
	}
	x.tell(now)
}

// Deadline is when Advance has something to do, zero for never.
func (x *XTR) Deadline() time.Time {
	at := x.infoAt
	if !x.registerAt.IsZero() && (at.IsZero() || x.registerAt.Before(at)) {
		at = x.registerAt
	}
	if at.IsZero() {
		return at
	}
	return at.Add(-x.skew)
}

// Next returns the next datagram to send. Its Local port says from where: 4342, or
// 4341 for what has to leave by the data plane. Its Bytes are valid until the next
// call of any method.
func (x *XTR) Next() (lisp.Datagram, bool) {
	if len(x.out) == 0 {
		return lisp.Datagram{}, false
	}
	d := x.out[0]
	x.out = x.out[1:]
	return d, true
}

// NextEvent returns the next change of the Binding.
func (x *XTR) NextEvent() (BindingChanged, bool) {
	if len(x.events) == 0 {
		return BindingChanged{}, false
	}
	e := x.events[0]
	x.events = x.events[1:]
	return e, true
}

// Handle takes one received datagram: an Info-Reply, or what arrived on the data
// port for instance 0xFFFFFF, data header included. It claims what answers to it.
func (x *XTR) Handle(now time.Time, d lisp.Datagram) bool {
	now = x.tick(now)
	if a := d.Local.Addr(); a.IsValid() && !a.IsUnspecified() && a.Unmap() != x.cfg.Local {
		return false // for another locator of ours
	}
	claimed := x.speak.handle(x, now, d)
	x.tell(now)
	return claimed
}

// Restart looks at everything anew, since the network may be another one. After
// Withdraw it does nothing.
func (x *XTR) Restart(now time.Time) {
	now = x.tick(now)
	if x.withdrawing {
		return
	}
	clear(x.asked)
	clear(x.seen)
	x.state, x.reason = Detecting, ""
	x.dropRTRs()
	x.keepAlive, x.infoSends, x.infoAt = x.cfg.KeepAlive, 0, now
	x.tell(now)
}

// Renew registers at once, since what the Registrar has to register is new.
func (x *XTR) Renew(now time.Time) {
	now = x.tick(now)
	switch {
	case x.withdrawing:
	case x.current != nil:
		x.beginRound(now)
	default:
		x.stale = true // once an RTR is chosen
	}
	x.tell(now)
}

// clockStep is how far the time of a step may lie behind the one before without
// being taken for a clock that was set back.
const clockStep = 5 * time.Second

// tick returns the time of this step as the machine counts it, which never goes back.
func (x *XTR) tick(now time.Time) time.Time {
	x.out, x.events = compact(x.out), compact(x.events)
	if !x.started {
		x.started, x.now, x.infoAt = true, now, now
	}
	now = now.Add(x.skew)
	if back := x.now.Sub(now); back > 0 {
		if back > clockStep {
			x.skew += back
		}
		return x.now
	}
	x.now = now
	return now
}

// compact keeps a queue that is read from its front from creeping through memory.
func compact[T any](q []T) []T {
	if len(q) == 0 {
		return q[:0:0]
	}
	return q
}

// tell emits an event if the Binding has changed in what matters.
func (x *XTR) tell(now time.Time) {
	b := x.Binding()
	if b.State == x.shown.State && b.Reason == x.shown.Reason && b.RTR == x.shown.RTR && b.Global == x.shown.Global &&
		slices.Equal(b.RTRs, x.shown.RTRs) {
		return
	}
	x.cfg.Logger.Debug("nat binding", "state", b.State, "global", b.Global, "rtr", b.RTR, "rtt", b.RTT, "reason", b.Reason)
	if len(x.events) >= maxEvents {
		x.stats.Dropped[DropQueueFull]++
		x.events = x.events[1:]
	}
	x.events = append(x.events, BindingChanged{At: now, Old: x.shown, New: b})
	x.shown = b
}

func (x *XTR) send(port uint16, remote netip.AddrPort, b []byte) {
	if len(x.out) >= maxQueue {
		x.stats.Dropped[DropQueueFull]++
		return
	}
	x.out = append(x.out, lisp.Datagram{
		Local: netip.AddrPortFrom(x.cfg.Local, port), Remote: remote, IfIndex: x.cfg.IfIndex, Bytes: b,
	})
}

// drop counts a message that is not believed.
func (x *XTR) drop(why XTRDrop, from netip.AddrPort, detail string) {
	x.stats.Dropped[why]++
	if x.warnings.AllowN(x.now, 1) {
		x.cfg.Logger.Debug("dropped", "reason", why.String(), "peer", from, "err", detail)
	}
}

func (x *XTR) random() uint64 {
	var b [8]byte
	if _, err := io.ReadFull(x.cfg.Rand, b[:]); err != nil {
		// An injected source that ran dry must not make nonces guessable.
		_, _ = rand.Read(b[:]) // never fails
	}
	return binary.BigEndian.Uint64(b[:])
}
