package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// RunnerConfig makes a Runner. A Runner needs a Conn and a core; the zero value
// of any other field means none or its default.
type RunnerConfig struct {
	// Conn carries the control messages. The Runner closes it.
	Conn Conn
	// Engine is the core of RoleXTR.
	Engine *Engine
	// Cores are further cores.
	Cores map[Role]Core
	// NewWorker makes a Worker of the core of RoleMapServer for each Reader of
	// Conn, which then takes the messages that come to that core first, in
	// parallel. Nil: the loop hands all messages to the core itself.
	NewWorker func() Worker
	// Dataplane forwards packets by Engine's map-cache.
	Dataplane Dataplane

	// OnEvent gets the events of Engine, on the loop: it must not wait, nor call
	// Do or Close.
	OnEvent func(Event)
	// AfterStep is called on the loop after every step, for what other cores
	// have to tell. The same restrictions apply.
	AfterStep func(now time.Time)

	// UsageInterval is how often the Dataplane is asked what was used, default
	// 5 s.
	UsageInterval time.Duration
	// ShutdownTime is how long Run waits, once its context has ended, for
	// Map-Servers to acknowledge that our EIDs are withdrawn, default 2 s.
	// Negative: nothing is withdrawn.
	ShutdownTime time.Duration
	// Logger gets what goes wrong; nil is silent.
	Logger *slog.Logger
}

// Runner drives protocol cores: it owns the control sockets, one timer, and the
// loop that is the only one to call the cores and the Dataplane.
//
// Its methods are safe for concurrent use.
type Runner struct {
	cfg   RunnerConfig
	log   *slog.Logger
	cores [numRoles]Core
	stats runnerCounters

	batches chan *batch
	applies chan func(now time.Time) // what Workers leave to the loop
	writing sync.Mutex               // of a Conn whose Readers can't write
	calls   chan call
	dataIn  chan lisp.Datagram // from the data port
	wake    chan struct{}      // locals is set
	quit    chan struct{}      // Close was called
	done    chan struct{}      // Run has returned
	started atomic.Bool
	close   sync.Once

	mu        sync.Mutex
	locals    []mapcache.Local // the latest of SetLocals, until the loop takes it
	localsAt  time.Time
	localsNew bool

	// Of the loop.
	taken      []mapcache.Local // the latest of SetLocals that the cores have
	silentSeq  uint64           // of Engine, when the Dataplane got them
	applied    []mapcache.Local // what the Dataplane refused, to be tried again
	retryAt    time.Time
	refusals   uint64 // of locators by the Dataplane, in a row
	refusedWhy string // the last time
	usageAt    time.Time
	misses     []mapcache.Key
	out        []lisp.Datagram
	outBytes   []byte
	readErrors chan error
	warnings   *rate.Limiter // of the log, for what others can provoke
}

// RunnerStats is a snapshot of what a Runner has counted.
type RunnerStats struct {
	Received  uint64 // datagrams
	Unclaimed uint64 // of those, wanted by no core
	Oversize  uint64 // of those, longer than 16 KiB and dropped
	// DataDropped are messages of the data port that were too many.
	DataDropped uint64
	Sent        uint64
	SendErrors  uint64
	ReadErrors  uint64
}

type runnerCounters struct {
	received, unclaimed, oversize, dataDropped, sent, sendErrors, readErrors atomic.Uint64
}

type call struct {
	fn   func(now time.Time)
	done chan struct{}
}

// batch is datagrams on their way from a reader to the loop, and back empty.
type batch struct {
	ds   []lisp.Datagram
	bufs [][]byte
	n    int
	// declined marks those that a Worker has not taken.
	declined []bool
	free     chan<- *batch
}

const (
	batchSize   = 16
	workerBatch = 64       // with Workers
	maxDatagram = 16 << 10 // longer control messages are not taken
	localsRetry = time.Second

	// appliesWaiting lets Workers go on while the loop applies what they found.
	appliesWaiting = 16
)

// NewRunner makes a Runner. Nothing runs until Run.
func NewRunner(cfg RunnerConfig) (*Runner, error) {
	r := &Runner{
		cfg: cfg, log: cfg.Logger,
		batches: make(chan *batch),
		applies: make(chan func(now time.Time), appliesWaiting),
		calls:   make(chan call),
		dataIn:  make(chan lisp.Datagram, dataMessages),
		wake:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),

		warnings: rate.NewLimiter(1, 5),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.log = r.log.With("component", "runner")
	def(&r.cfg.UsageInterval, 5*time.Second)
	def(&r.cfg.ShutdownTime, 2*time.Second)
	if cfg.Conn == nil {
		return nil, fmt.Errorf("control: a Runner needs a Conn: %w", ErrConfig)
	}
	for role, c := range cfg.Cores {
		if role >= numRoles || c == nil {
			return nil, fmt.Errorf("control: core of %v: %w", role, ErrConfig)
		}
		r.cores[role] = c
	}
	if cfg.Engine != nil {
		if r.cores[RoleXTR] != nil {
			return nil, fmt.Errorf("control: two cores of %v: %w", RoleXTR, ErrConfig)
		}
		r.cores[RoleXTR] = cfg.Engine
	}
	if r.cores == [numRoles]Core{} {
		return nil, fmt.Errorf("control: a Runner needs a core: %w", ErrConfig)
	}
	if rtr, ok := r.cores[RoleRTR].(rtrCore); ok && cfg.Engine != nil {
		cfg.Engine.SetRTR(rtr.Host)
	}
	if cfg.NewWorker != nil && r.cores[RoleMapServer] == nil {
		return nil, fmt.Errorf("control: Workers without a core of %v: %w", RoleMapServer, ErrConfig)
	}
	if cfg.Dataplane != nil && cfg.Engine == nil {
		return nil, fmt.Errorf("control: a Dataplane needs an Engine: %w", ErrConfig)
	}
	if _, ok := cfg.Dataplane.(SignalPlane); cfg.Dataplane != nil && !ok && cfg.Engine.cfg.Closed.any() {
		return nil, fmt.Errorf("control: closed network: the Dataplane takes no signals: %w", ErrConfig)
	}
	if _, ok := cfg.Dataplane.(PairPlane); cfg.Dataplane != nil && !ok && cfg.Engine.cfg.Probe.PreferRTT {
		return nil, fmt.Errorf("control: round-trip times: the Dataplane does not choose by pairs: %w", ErrConfig)
	}
	return r, nil
}

// Stats returns a snapshot of the counters.
func (r *Runner) Stats() RunnerStats {
	c := &r.stats
	return RunnerStats{
		Received: c.received.Load(), Unclaimed: c.unclaimed.Load(), Oversize: c.oversize.Load(), DataDropped: c.dataDropped.Load(),
		Sent: c.sent.Load(), SendErrors: c.sendErrors.Load(), ReadErrors: c.readErrors.Load(),
	}
}

// Run drives the cores until ctx ends or Close is called, and then withdraws our
// EIDs from the Map-Servers and closes the Conn. It returns nil after that, and
// an error when the Conn fails. It can be called once.
func (r *Runner) Run(ctx context.Context) error {
	if r.started.Swap(true) {
		return errors.New("control: Runner runs only once")
	}
	defer close(r.done)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	readers := r.cfg.Conn.Readers()
	r.readErrors = make(chan error, len(readers))
	for _, rd := range readers {
		s := r.newReader(rd)
		wg.Go(func() { r.read(s, stop) })
	}
	err := r.loop(ctx)
	close(stop)
	if cerr := r.cfg.Conn.Close(); err == nil {
		err = cerr
	}
	wg.Wait()
	return err
}

// Close ends Run and waits for that.
func (r *Runner) Close() error {
	r.close.Do(func() { close(r.quit) })
	if r.started.Load() {
		<-r.done
		return nil
	}
	return r.cfg.Conn.Close()
}

// Do runs fn on the loop, where it may call Engine and the other cores, and
// returns when what it made them do is published, applied and sent. Before Run
// it waits for Run. The error is that of ctx, or net.ErrClosed once Run has
// ended.
func (r *Runner) Do(ctx context.Context, fn func(now time.Time)) error {
	c := call{fn, make(chan struct{})}
	select {
	case r.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.quit:
		return fmt.Errorf("control: Runner: %w", net.ErrClosed)
	case <-r.done:
		return fmt.Errorf("control: Runner: %w", net.ErrClosed)
	}
	<-c.done // the loop has it, so this does not take long
	return nil
}

// read takes datagrams from one Reader to the loop.
func (r *Runner) read(s *reader, stop <-chan struct{}) {
	const batches = 2 // one is read into while the other is handled
	free := make(chan *batch, batches)
	size := batchSize
	if s.worker != nil {
		size = workerBatch
	}
	for range batches {
		b := &batch{ds: make([]lisp.Datagram, size), bufs: make([][]byte, size), declined: make([]bool, size), free: free}
		for i := range b.bufs {
			b.bufs[i] = make([]byte, maxDatagram+1)
		}
		free <- b
	}
	failures := 0
	for {
		var b *batch
		select {
		case b = <-free:
		case <-stop:
			return
		}
		for i := range b.ds {
			b.ds[i] = lisp.Datagram{Bytes: b.bufs[i]}
		}
		n, err := s.rd.ReadDatagrams(b.ds)
		if err != nil {
			free <- b
			r.stats.readErrors.Add(1)
			// Some systems report the ICMP error of an earlier datagram here.
			if failures++; errors.Is(err, net.ErrClosed) || failures > 1000 {
				r.readErrors <- err
				return
			}
			continue
		}
		failures = 0
		b.n = n
		if s.worker != nil {
			if !r.work(s, b, stop) {
				return
			}
			if b.n == 0 {
				free <- b
				continue
			}
		}
		select {
		case r.batches <- b:
		case <-stop:
			return
		}
	}
}

// loop is where everything happens.
func (r *Runner) loop(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var discoveries <-chan mapcache.Discovery
	if r.cfg.Dataplane != nil {
		discoveries = r.cfg.Dataplane.Discoveries()
		r.usageAt = time.Now().Add(r.cfg.UsageInterval)
	}
	ended, quit := ctx.Done(), (<-chan struct{})(r.quit)
	var giveUp time.Time // when shutting down
	for {
		now := time.Now()
		r.advance(now)
		r.step(now)
		if !giveUp.IsZero() && (r.cfg.Engine == nil || r.cfg.Engine.WithdrawDone() || !now.Before(giveUp)) {
			return nil
		}
		timer.Reset(r.wait(now, giveUp))
		select {
		case b := <-r.batches:
			r.handle(time.Now(), b)
		case d := <-r.dataIn:
			r.handleData(time.Now(), d)
		case apply := <-r.applies:
			r.apply(time.Now(), apply)
		case <-timer.C:
		case c := <-r.calls:
			r.takeLocals() // of a SetLocals before this Do
			now := time.Now()
			c.fn(now)
			r.step(now)
			close(c.done)
		case <-r.wake:
			r.takeLocals()
		case d := <-discoveries:
			r.discovered(time.Now(), d, discoveries)
		case err := <-r.readErrors:
			return fmt.Errorf("control: receive: %w", err)
		case <-ended:
			ended, quit, giveUp = nil, nil, r.shutDown()
		case <-quit:
			ended, quit, giveUp = nil, nil, r.shutDown()
		}
	}
}

// shutDown begins the withdrawal and returns when to give it up.
func (r *Runner) shutDown() time.Time {
	now := time.Now()
	if r.cfg.Engine == nil || r.cfg.ShutdownTime < 0 {
		return now
	}
	r.cfg.Engine.Withdraw(now)
	return now.Add(r.cfg.ShutdownTime)
}

// wait is how long nothing is due.
func (r *Runner) wait(now, giveUp time.Time) time.Duration {
	next := now.Add(time.Hour)
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, c := range r.cores {
		if c != nil {
			earlier(c.Deadline())
		}
	}
	earlier(giveUp)
	earlier(r.usageAt)
	earlier(r.retryAt)
	return max(0, next.Sub(now))
}

// advance runs what is due.
func (r *Runner) advance(now time.Time) {
	for _, c := range r.cores {
		if c == nil {
			continue
		}
		if t := c.Deadline(); !t.IsZero() && !t.After(now) {
			c.Advance(now)
		}
	}
	if !r.usageAt.IsZero() && !r.usageAt.After(now) {
		r.takeUsage(now)
	}
	if !r.retryAt.IsZero() && !r.retryAt.After(now) {
		r.setDataplaneLocals(now, r.applied)
	}
}

// takeUsage asks the Dataplane what was used.
func (r *Runner) takeUsage(now time.Time) {
	r.usageAt = now.Add(r.cfg.UsageInterval)
	r.cfg.Dataplane.Usage(func(u mapcache.Usage) { r.cfg.Engine.AddUsage(now, u) })
}

// apply runs what Workers have left to the loop, and what more of it there is.
func (r *Runner) apply(now time.Time, f func(now time.Time)) {
	f(now)
	for range appliesWaiting {
		select {
		case f = <-r.applies:
			f(now)
		default:
			return
		}
	}
}

// handle offers each datagram of b to the cores that its type is for.
func (r *Runner) handle(now time.Time, b *batch) {
	for i, d := range b.ds[:b.n] {
		r.stats.received.Add(1)
		if len(d.Bytes) > maxDatagram {
			r.stats.oversize.Add(1)
			continue
		}
		claimed := false
		for _, role := range routes[lisp.TypeOf(d.Bytes)] {
			if role == RoleMapServer && b.declined[i] {
				continue // its Worker did not want it
			}
			if c := r.cores[role]; c != nil && c.Handle(now, d) {
				claimed = true
				break
			}
		}
		if !claimed {
			r.stats.unclaimed.Add(1)
		}
	}
	b.free <- b
}

// discovered takes d and what else has been discovered by now. Misses need
// nothing here: every step asks for them.
func (r *Runner) discovered(now time.Time, d mapcache.Discovery, more <-chan mapcache.Discovery) {
	for range 64 {
		if d.Kind == mapcache.DiscoveryRequest {
			r.misses = append(r.misses[:0], d.Key)
			r.cfg.Engine.Resolve(now, r.misses)
		} else {
			r.cfg.Engine.Discover(now, d)
		}
		select {
		case d = <-more:
		default:
			return
		}
	}
}

// step passes on what the cores have made of the last thing that happened.
func (r *Runner) step(now time.Time) {
	r.stepRelays(now)
	if e := r.cfg.Engine; e != nil {
		if r.cfg.Dataplane != nil {
			r.misses = r.cfg.Dataplane.PendingMisses(r.misses[:0])
			if len(r.misses) > 0 {
				e.Resolve(now, r.misses)
			}
			if e.silentSeq != r.silentSeq {
				r.setDataplaneLocals(now, r.taken)
			}
		}
		if sp, ok := r.cfg.Dataplane.(SignalPlane); ok {
			if s := e.Signals(); s.Locals != nil || s.Entries != nil || s.Locators != nil {
				sp.SetSignals(s)
			}
		}
		if pp, ok := r.cfg.Dataplane.(PairPlane); ok {
			if ps := e.PairChanges(); len(ps) > 0 {
				pp.SetPairs(ps)
			}
		}
		changes := e.Publish()
		if len(changes) > 0 && r.cfg.Dataplane != nil {
			if err := r.cfg.Dataplane.Apply(changes); err != nil {
				r.log.Error("data plane does not take changes", "changes", len(changes), "err", err)
			}
		}
	}
	for _, c := range r.cores {
		if c != nil {
			r.flush(c)
		}
	}
	if e := r.cfg.Engine; e != nil {
		for ev, ok := e.NextEvent(); ok; ev, ok = e.NextEvent() {
			if r.cfg.OnEvent != nil {
				r.cfg.OnEvent(ev)
			}
		}
	}
	if r.cfg.AfterStep != nil {
		r.cfg.AfterStep(now)
	}
}

// flush sends what c has to send.
func (r *Runner) flush(c Core) {
	for d, ok := c.Next(); ok; d, ok = c.Next() {
		if d.Local.Port() == lisp.DataPort {
			r.sendData(d)
			continue
		}
		// The octets are c's own until it is called again.
		start := len(r.outBytes)
		r.outBytes = append(r.outBytes, d.Bytes...)
		d.Bytes = r.outBytes[start:]
		r.out = append(r.out, d)
		if len(r.out) == batchSize {
			r.write()
		}
	}
	r.write()
}

func (r *Runner) sendData(d lisp.Datagram) {
	if r.cfg.Dataplane == nil {
		r.sendFailed(d.Remote, errors.ErrUnsupported)
		return
	}
	if err := r.cfg.Dataplane.Send(d); err != nil {
		r.sendFailed(d.Remote, err)
		return
	}
	r.stats.sent.Add(1)
}

func (r *Runner) write() {
	if len(r.out) == 0 {
		return
	}
	r.writing.Lock()
	n, err := r.cfg.Conn.WriteDatagrams(r.out)
	r.writing.Unlock()
	r.sent(r.out, n, err)
	r.out, r.outBytes = r.out[:0], r.outBytes[:0]
}

// sent counts that n of ds were sent, and err.
func (r *Runner) sent(ds []lisp.Datagram, n int, err error) {
	r.stats.sent.Add(uint64(n))
	if err != nil {
		r.stats.sendErrors.Add(uint64(len(ds) - n - 1)) // and one more below
		r.sendFailed(ds[0].Remote, err)
	}
}

func (r *Runner) sendFailed(remote netip.AddrPort, err error) {
	r.stats.sendErrors.Add(1)
	// Others choose where answers go, so they could fill the log with addresses
	// that nothing can be sent to.
	if r.warnings.Allow() {
		r.log.Warn("not sent", "peer", remote, "err", err, "send_errors", r.stats.sendErrors.Load())
	}
}
