package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// answer is what a Map-Resolver had to say about an EID.
type answer struct {
	EID      netip.Addr    `json:"eid"`
	Resolver netip.Addr    `json:"resolver"`
	Error    string        `json:"error,omitempty"` // instead of the rest
	Prefix   netip.Prefix  `json:"prefix,omitzero"`
	From     netip.Addr    `json:"from,omitzero"` // who sent the Map-Reply
	RTT      time.Duration `json:"rttNanoseconds,omitempty"`
	Sent     int           `json:"sent"`                     // Map-Requests
	TTL      time.Duration `json:"ttlNanoseconds,omitempty"` // -1: left to the receiver
	Locators []locator     `json:"locators,omitempty"`
	Action   string        `json:"action,omitempty"` // of a negative Map-Reply
	Meaning  string        `json:"meaning,omitempty"`
	// Authoritative: the site itself answered, not the mapping system for it.
	Authoritative bool `json:"authoritative,omitempty"`
}

// locator is one of a mapping.
type locator struct {
	Addr     netip.Addr `json:"addr"`
	State    string     `json:"state"` // up or down, as the site says
	Priority uint8      `json:"priority"`
	Weight   uint8      `json:"weight"`
}

// question is what is asked.
type question struct {
	eid      netip.Addr
	iid      uint32
	resolver netip.AddrPort
	sources  []netip.Addr // our RLOCs: where the answer comes to
	retries  int
}

var errUnanswered = errors.New("no Map-Reply")

// ask asks a Map-Resolver. It is an ITR, and nothing else: an Engine with one
// destination to resolve. The conn's port is where the answer comes to.
func ask(ctx context.Context, q question, conn net.PacketConn) answer {
	a := answer{EID: q.eid, Resolver: q.resolver.Addr()}
	if err := a.ask(ctx, q, conn); err != nil {
		a.Error = err.Error()
	}
	return a
}

func (a *answer) ask(ctx context.Context, q question, conn net.PacketConn) error {
	retries := q.retries
	if retries == 0 {
		retries = -1
	}
	engine, err := control.New(control.Config{
		Port:              netip.MustParseAddrPort(conn.LocalAddr().String()).Port(),
		MapResolvers:      []netip.AddrPort{q.resolver},
		MapRequestRetries: retries,
		Probe:             control.ProbeConfig{Interval: -1},
	})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := errors.New("answered")
	runner, err := control.NewRunner(control.RunnerConfig{
		Conn: control.NewConn(conn), Engine: engine, ShutdownTime: -1,
		OnEvent: func(e control.Event) {
			switch e := e.(type) {
			case control.MapRequestSent:
				a.Sent++
			case control.MapReplyReceived:
				a.From, a.RTT, a.TTL = e.From.Addr(), e.RTT, e.TTL
				if e.TTL == 0 {
					cancel(errors.New("the mapping is gone: TTL 0"))
				}
			case control.NegativeReply:
				a.From, a.RTT, a.TTL = e.From.Addr(), e.RTT, e.TTL
			case control.ResolutionFailed:
				cancel(errUnanswered)
			case control.CacheAdded:
				if ent, ok := engine.Cache().LookupEntry(q.iid, q.eid); ok {
					a.entry(ent)
					cancel(done)
				}
			}
		},
	})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	var locals []mapcache.Local
	for _, s := range q.sources { // the interface is the one of the host's route
		locals = append(locals, mapcache.Local{Addr: s, Priority: 1, Weight: 1, Up: true})
	}
	runner.SetLocals(time.Now(), locals)
	go func() {
		// The error says that the Runner has ended, which tells itself why.
		_ = runner.Do(ctx, func(now time.Time) { engine.Resolve(now, []mapcache.Key{mapcache.HostKey(q.iid, q.eid)}) })
	}()
	if err := runner.Run(ctx); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, done) {
		return err
	}
	return nil
}

// meanings say what a negative Map-Reply is for (RFC 9301 §5.4).
var meanings = map[lisp.Action]string{
	lisp.ActionNoAction:         "there is no mapping",
	lisp.ActionNativelyForward:  "it is no EID, packets go there without LISP",
	lisp.ActionSendMapRequest:   "it is an EID that is not registered now, ask again",
	lisp.ActionDropNoReason:     "packets to it are dropped, nobody says why",
	lisp.ActionDropPolicyDenied: "policy forbids packets to it",
	lisp.ActionDropAuthFailure:  "who asked is not allowed to know",
}

// entry takes over what the mapping is.
func (a *answer) entry(e mapcache.Entry) {
	a.Prefix, a.Authoritative = e.Prefix, e.Authoritative
	if e.Negative() {
		a.Action, a.Meaning = e.Action.String(), meanings[e.Action]
		return
	}
	for _, r := range e.RLOCs {
		l := locator{r.Addr, "up", r.Priority, r.Weight}
		if r.Down {
			l.State = "down"
		}
		a.Locators = append(a.Locators, l)
	}
}

// rlocTo is the address of this host that a resolver is reached from.
func rlocTo(resolver netip.Addr) (netip.Addr, error) {
	// Nothing is sent: the kernel only looks the route up.
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(resolver, lisp.ControlPort)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no way to %v: %w", resolver, err)
	}
	defer func() { _ = c.Close() }()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
