// Package load makes load for a Map-Server and Map-Resolver and measures how it
// is answered: Map-Registers of many xTRs, each with an EID-Prefix of its own,
// and encapsulated Map-Requests for them. Every answer is paired with its
// question by the nonce; of some the digest, or the mapping, is checked too.
package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// ErrConfig is wrapped by the errors about a Config.
var ErrConfig = errors.New("load: bad configuration")

// Config says what load. Run wants Server, Key and EIDs; other zero values are
// defaults.
type Config struct {
	Server netip.AddrPort // IPv4
	Key    lisp.Key       // of the site that has 10.0.0.0/8, more specifics accepted
	EIDs   int            // 10.0.0.0/32 and on, one xTR each; at most 1<<24
	// Requests is which part of the messages are Map-Requests, 0 to 1; the others
	// are Map-Registers.
	Requests float64
	// Count is how many messages are sent, default 2*EIDs. Map-Registers go
	// through the EIDs in turn, Map-Requests ask at random.
	Count int
	// Duration ends it sooner; 0 does not.
	Duration time.Duration
	// Window is how many messages may be unanswered at a time, default 256.
	Window int
	// Rate is how many messages are sent a second; 0: as many as are answered.
	Rate float64
	// Sockets is how many sockets, and goroutines, send, default 4. A server that
	// spreads its peers over several sockets needs some.
	Sockets int
	// Timeout is when an answer counts as lost, default 1 s.
	Timeout time.Duration
	// Check is of how many answers one is checked in full, default 64. 1: all.
	Check int
	// Nonce is where nonces start; each run with one server needs larger ones.
	Nonce lisp.Nonce
}

// Report says what came of it.
type Report struct {
	Sent, Answered, Lost uint64
	Wrong                uint64 // answers that answer nothing, or wrongly
	Checked              uint64 // of Answered, in full
	SendErrors           uint64
	Time                 time.Duration // from the first message to the last answer
	Latency              Histogram
	LastNonce            lisp.Nonce // where the next run may start
}

// Rate is the answers in a second.
func (r *Report) Rate() float64 {
	if r.Time <= 0 {
		return 0
	}
	return float64(r.Answered) / r.Time.Seconds()
}

func (c *Config) complete() error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Count, 2*c.EIDs)
	def(&c.Window, 256)
	def(&c.Sockets, 4)
	def(&c.Check, 64)
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	switch {
	case !c.Server.Addr().Is4():
		return fmt.Errorf("%w: server %v is not IPv4", ErrConfig, c.Server)
	case c.EIDs <= 0 || c.EIDs > 1<<24:
		return fmt.Errorf("%w: %d EIDs", ErrConfig, c.EIDs)
	case c.Requests < 0 || c.Requests > 1, c.Window < 0, c.Sockets < 0, c.Check < 0, c.Count < 0, c.Rate < 0:
		return fmt.Errorf("%w: out of range", ErrConfig)
	}
	c.Sockets = min(c.Sockets, c.EIDs)
	c.Window = max(c.Window, c.Sockets)
	return nil
}

// Run makes the load and waits for the last answers.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.complete(); err != nil {
		return Report{}, err
	}
	if cfg.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Duration)
		defer cancel()
	}
	senders := make([]*sender, cfg.Sockets)
	for i := range senders {
		pc, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(cfg.Server))
		if err != nil {
			return Report{}, fmt.Errorf("load: %w", err)
		}
		local := pc.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = pc.Close() // it told the address to send from
		if pc, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))); err != nil {
			return Report{}, fmt.Errorf("load: %w", err)
		}
		defer func() { _ = pc.Close() }()
		_ = pc.SetReadBuffer(4 << 20)
		senders[i] = newSender(&cfg, i, pc)
	}
	start := time.Now()
	var wg sync.WaitGroup
	for _, s := range senders {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
	total := Report{}
	last := start
	for _, s := range senders {
		r := &s.report
		total.Sent += r.Sent
		total.Answered += r.Answered
		total.Lost += r.Lost
		total.Wrong += r.Wrong
		total.Checked += r.Checked
		total.SendErrors += r.SendErrors
		total.Latency.add(&r.Latency)
		total.LastNonce = max(total.LastNonce, s.nonce)
		if s.last.After(last) {
			last = s.last
		}
	}
	total.Time = last.Sub(start)
	return total, nil
}
