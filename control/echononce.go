package control

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// echoPhase is where the test of a locator by Echo-Nonce stands (RFC 9300 §10.1).
type echoPhase uint8

const (
	echoIdle   echoPhase = iota // until the next test, if there is traffic
	echoAsking                  // the Echo-Nonce-request state: packets ask
	echoPaused                  // the other side asks too: it goes first
	echoDown                    // no echo; not used until something else finds it reachable
)

// maxEchoes bounds the locators that are tested.
const maxEchoes = 1 << 16

// echoPeer is a locator whose site echoes nonces.
type echoPeer struct {
	timer
	rloc  netip.Addr
	phase echoPhase
	nonce uint32
	begun time.Time
	late  bool   // the last third of the test
	in    uint64 // packets when the phase, or the last third, began
	out   uint64
	sent  bool // packets went there in the first two thirds
	wrong uint // how often in a row RLOC-probing found otherwise
}

// noteEchoNonce takes from a Map-Reply whether the locators of its records echo
// nonces (E bit).
func (e *Engine) noteEchoNonce(now time.Time, m *lisp.MapReply) {
	if e.closed == nil || !e.cfg.Closed.EchoNonce {
		return
	}
	for i := range m.Records {
		for _, r := range e.usableRLOCs(&m.Records[i]) {
			p := e.closed.echoes[r.Addr]
			switch {
			case !m.EchoNonce && p != nil:
				e.forgetEcho(now, p)
			case m.EchoNonce && p == nil && e.listed(r.Addr) && len(e.closed.echoes) < maxEchoes:
				p = &echoPeer{rloc: r.Addr}
				p.fire = func(now time.Time) { e.echoTimer(now, p) }
				e.closed.echoes[r.Addr] = p
				e.rest(now, p)
			}
		}
	}
}

// listed reports whether a mapping in the map-cache has the locator.
func (e *Engine) listed(a netip.Addr) bool {
	_, ok := e.cache.LocatorInfo(e.learned(a))
	return ok
}

func (e *Engine) forgetEcho(now time.Time, p *echoPeer) {
	e.withdrawEcho(now, p)
	e.timers.stop(&p.timer)
	delete(e.closed.nonces, p.nonce)
	delete(e.closed.echoes, p.rloc)
	e.signalLocator(p.rloc)
}

// withdrawEcho takes back what was said against the locator.
func (e *Engine) withdrawEcho(now time.Time, p *echoPeer) {
	if p.phase == echoDown {
		e.cache.SetDown(e.learned(p.rloc), mapcache.CauseEchoNonce, false)
		e.emit(EchoNonce{Stamp{now}, p.rloc, true})
	}
}

// rest waits for the next test.
func (e *Engine) rest(now time.Time, p *echoPeer) {
	i := e.cfg.Closed.EchoInterval << min(p.wrong, 5)
	p.phase = echoIdle
	p.in, p.out, _ = e.traffic(p)
	e.timers.set(&p.timer, now.Add(i-i/10+e.jitter(i/5)))
}

// traffic returns the packets counted from and to the locator, as of the last
// report of the data plane.
func (e *Engine) traffic(p *echoPeer) (in, out uint64, ok bool) {
	info, ok := e.cache.LocatorInfo(e.learned(p.rloc))
	return info.PacketsIn, info.PacketsOut, ok
}

func (e *Engine) echoTimer(now time.Time, p *echoPeer) {
	in, out, ok := e.traffic(p)
	if !ok {
		e.forgetEcho(now, p)
		return
	}
	switch p.phase {
	case echoIdle:
		// Only where data flows both ways there is something to echo.
		if in == p.in || out == p.out {
			e.rest(now, p)
			return
		}
		delete(e.closed.nonces, p.nonce)
		p.nonce = e.echoNonce()
		e.closed.nonces[p.nonce] = true
		e.askEcho(now, p)
	case echoPaused:
		e.askEcho(now, p)
	case echoAsking:
		if !p.late {
			p.late, p.in, p.sent = true, in, out > p.out
			e.timers.set(&p.timer, p.begun.Add(e.cfg.Closed.EchoTimeout))
			return
		}
		if in == p.in || !p.sent {
			// Nothing came that could have been the echo: no conclusion.
			e.rest(now, p)
			e.signalLocator(p.rloc)
			return
		}
		e.unechoed(now, p)
	case echoDown:
		// Nobody probes it, so it gets another chance.
		e.withdrawEcho(now, p)
		e.rest(now, p)
	}
}

// echoNonce draws a nonce that no other locator is sent.
func (e *Engine) echoNonce() uint32 {
	for {
		if n := uint32(e.random() & 0xffffff); n != 0 && !e.closed.nonces[n] {
			return n
		}
	}
}

// askEcho begins the Echo-Nonce-request state. Whether packets come is looked at in
// its last third only: what the data plane counted until then may have been
// under way before the first request was there.
func (e *Engine) askEcho(now time.Time, p *echoPeer) {
	p.phase, p.begun, p.late = echoAsking, now, false
	p.in, p.out, _ = e.traffic(p)
	e.timers.set(&p.timer, now.Add(e.cfg.Closed.EchoTimeout/3*2))
	e.signalLocator(p.rloc)
}

// echoed: the locator has echoed our nonce, so the path there and back is up.
func (e *Engine) echoed(now time.Time, a netip.Addr) {
	p := e.closed.echoes[a]
	if p == nil || p.phase != echoAsking && p.phase != echoPaused {
		return
	}
	e.stats.NoncesEchoed++
	p.wrong = 0
	e.rest(now, p)
	e.signalLocator(a)
}

// echoAsked: both sides ask at the same time. We stop for a while, since the other
// side's nonces are echoed where ours would be.
func (e *Engine) echoAsked(now time.Time, a netip.Addr) {
	p := e.closed.echoes[a]
	if p == nil || p.phase != echoAsking {
		return
	}
	p.phase = echoPaused
	pause := e.cfg.Closed.EchoPause
	e.timers.set(&p.timer, now.Add(pause+e.jitter(pause/2)))
	e.signalLocator(a)
}

// unechoed: packets come from the locator, though none has echoed our nonce. It is
// unreachable, unless RLOC-probing, which is asked now, finds otherwise.
func (e *Engine) unechoed(now time.Time, p *echoPeer) {
	l := e.learned(p.rloc)
	p.phase = echoDown
	e.stats.NoncesUnechoed++
	e.cache.SetDown(l, mapcache.CauseEchoNonce, true)
	e.emit(EchoNonce{Stamp{now}, p.rloc, false})
	e.signalLocator(p.rloc)
	if t := e.targets[l]; t != nil && len(t.paths) > 0 {
		e.timers.stop(&p.timer)
		for _, path := range t.paths {
			if !path.waiting {
				e.timers.set(&path.timer, now.Add(time.Millisecond))
			}
		}
		return
	}
	e.timers.set(&p.timer, now.Add(e.cfg.Closed.EchoInterval))
}

// echoOverruled: an RLOC-probe was answered (RFC 9300 §10.1 allows it to decide).
// A site that never echoes is tested less and less.
func (e *Engine) echoOverruled(now time.Time, l mapcache.Locator) {
	if e.closed == nil {
		return
	}
	if p := e.closed.echoes[l.Addr]; p != nil && p.phase == echoDown {
		p.wrong++
		e.withdrawEcho(now, p)
		e.rest(now, p)
	}
}

// EchoNonce says that a locator did not echo a nonce in time, though packets came
// from it, and is held for unreachable (RFC 9300 §10.1); or that it no longer is.
type EchoNonce struct {
	Stamp
	Locator netip.Addr
	Up      bool
}

func (e EchoNonce) String() string {
	if e.Up {
		return fmt.Sprintf("echo-nonce: %v is used again", e.Locator)
	}
	return fmt.Sprintf("echo-nonce: %v does not echo, held for unreachable", e.Locator)
}
