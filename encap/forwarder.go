package encap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/xtrkit/xtrkit/mapcache"
)

// errClosed is what using a closed Forwarder returns.
var errClosed = net.ErrClosed

// Forwarder is the user-space data plane: it encapsulates what its devices hand
// over, by the map-cache, and decapsulates what the underlay receives. Package
// control steers it as its Dataplane. All methods are safe for concurrent use.
type Forwarder struct {
	cfg      Config
	overlays []*overlay
	byIID    map[uint32]*overlay // nil with a single overlay

	localsMu sync.Mutex // serialises SetLocals
	locals   atomic.Pointer[localTable]
	paths    pathMTUs
	offload  Offload // or nil

	hold *holdTable
	// released sends what was held; it belongs to hold.mu.
	released    *egress
	housekeep   chan struct{} // a deadline may have come nearer
	discoveries chan mapcache.Discovery

	icmpLimit   *rate.Limiter // nil: no ICMP errors
	outerLimit  *rate.Limiter // ICMP errors about outer packets
	sourceLimit *rate.Limiter // discoveries of unknown sources
	closedNet   *closedNet    // nil on the public Internet
	frames      frames
	c           counters
	remotes     *locatorCounters
	meters      meters
	usageMu     sync.Mutex

	closed  atomic.Bool
	closeMu sync.Mutex // serialises Close
	started atomic.Bool
	stop    func()        // closes quit, once
	quit    chan struct{} // closed to end Run
	done    chan struct{} // closed when Run returned
}

// NewForwarder returns a Forwarder that Run makes work. It takes over the
// devices, the Underlay, the NativeSender and the ICMP receivers, and Close closes them; with an
// error they stay the caller's.
func NewForwarder(cfg Config) (*Forwarder, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("encap: %w", err)
	}
	f := &Forwarder{
		cfg:         cfg,
		hold:        newHoldTable(cfg),
		housekeep:   make(chan struct{}, 1),
		discoveries: make(chan mapcache.Discovery, 64),
		remotes:     newLocatorCounters(),
		meters:      meters{make: cfg.Meter},
		outerLimit:  rate.NewLimiter(outerErrorRate, outerErrorRate),
		sourceLimit: rate.NewLimiter(unknownSourceRate, unknownSourceRate),
		quit:        make(chan struct{}),
		done:        make(chan struct{}),
	}
	f.stop = sync.OnceFunc(func() { close(f.quit) })
	f.locals.Store(new(localTable))
	f.closedNet = newClosedNet(cfg.Closed, f.discover)
	f.remotes.closed = f.closedNet != nil
	if cfg.ICMPRate > 0 {
		f.icmpLimit = rate.NewLimiter(rate.Limit(cfg.ICMPRate), max(1, cfg.ICMPRate/2))
	}
	for i, o := range cfg.Overlays {
		v, err := newOverlay(o)
		if err != nil {
			return nil, fmt.Errorf("encap: overlay %d: %w", i, err)
		}
		if f.overlay(o.InstanceID) != nil {
			return nil, fmt.Errorf("encap: overlay %d: instance %d appears twice", i, o.InstanceID)
		}
		f.overlays = append(f.overlays, v)
		if len(cfg.Overlays) > 1 {
			if f.byIID == nil {
				f.byIID = make(map[uint32]*overlay)
			}
			f.byIID[v.iid] = v
		}
	}
	f.released = newEgress(f)
	f.released.meter = f.meters.take(mapcache.Outbound)
	f.hold.dropped = f.heldDropped
	return f, nil
}

// overlay returns the overlay of an instance, or nil.
func (f *Forwarder) overlay(iid uint32) *overlay {
	if f.byIID != nil {
		return f.byIID[iid]
	}
	if len(f.overlays) > 0 && f.overlays[0].iid == iid {
		return f.overlays[0]
	}
	return nil
}

// Run forwards packets until ctx is done or Close is called, and then returns
// nil if all closed well; or until a device or a receiver fails. It returns with everything closed.
// Run may be called once.
func (f *Forwarder) Run(ctx context.Context) error {
	if f.started.Swap(true) {
		return errors.New("encap: Run called twice, or after Close")
	}
	defer close(f.done)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var wg sync.WaitGroup
	work := func(what string, run func() error) {
		wg.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil && !f.closed.Load() {
				cancel(fmt.Errorf("encap: %s: %w", what, err))
			}
		})
	}
	for _, o := range f.overlays {
		for _, q := range o.queues {
			work("device "+q.Name(), func() error { return f.readDevice(o, q, Mark{}) })
		}
	}
	for i, r := range f.cfg.Underlay.Receivers() {
		g := newIngress(f, r)
		g.index = i
		work(fmt.Sprintf("receiver %d", i), g.run)
	}
	for i, r := range f.cfg.ICMP {
		work(fmt.Sprintf("ICMP receiver %d", i), func() error { return f.receiveICMP(r) })
	}
	if u, ok := f.cfg.Underlay.(linkWatcher); ok {
		work("interfaces", func() error { return u.watchLinks(f.refreshMTUs) })
	}
	wg.Go(func() { f.keepHouse(ctx) })

	select {
	case <-ctx.Done():
	case <-f.quit:
	}
	cause := context.Cause(ctx)
	parent := errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded)
	cancel(nil)
	err := f.shut()
	wg.Wait()
	if cause == nil || parent {
		return err
	}
	return cause
}

// Close ends Run, waits for it, and closes devices, sockets and native
// forwarding. It is idempotent.
func (f *Forwarder) Close() error {
	f.stop()
	if f.started.Swap(true) {
		<-f.done
	} else {
		close(f.done) // Run never ran and can't any more
	}
	return f.shut()
}

func (f *Forwarder) shut() error {
	f.closeMu.Lock()
	defer f.closeMu.Unlock()
	if f.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, o := range f.overlays {
		for _, q := range o.queues {
			errs = append(errs, q.Close())
		}
	}
	errs = append(errs, f.cfg.Underlay.Close())
	for _, r := range f.cfg.ICMP {
		errs = append(errs, r.Close())
	}
	f.localsMu.Lock() // a SetLocals under way sees closed or is waited for
	for _, p := range f.locals.Load().paths {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	f.localsMu.Unlock()
	if f.cfg.Native != nil {
		errs = append(errs, f.cfg.Native.Close())
	}
	return errors.Join(errs...)
}

// ended reports whether err is how a closed device or socket ends a read.
func ended(err error) bool {
	return errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF)
}

// readDevice encapsulates what a queue of the device of an overlay hands over.
func (f *Forwarder) readDevice(o *overlay, d Device, mark Mark) error {
	n := max(1, d.BatchSize())
	slots, sizes := newSlots(n), make([]int, n)
	e := newEgress(f)
	e.mark = mark
	e.destinations = new(mapcache.DestinationCache)
	e.meter = f.meters.take(mapcache.Outbound)
	defer f.meters.give(mapcache.Outbound, e.meter)
	read, forward := d.Read, e.packet
	if v := virtioOf(d); v != nil {
		read, forward = v.ReadVirtio, e.virtioPacket
	}
	for {
		n, err := read(slots, sizes, Headroom)
		e.begin()
		for i := range n {
			forward(o, slots[i], sizes[i])
		}
		e.flush()
		if err != nil && n == 0 {
			if ended(err) {
				err = fmt.Errorf("closed by someone else: %w", err)
			}
			return err
		}
	}
}

// keepHouse drops held packets when their time is over, and forgets old path
// MTUs.
func (f *Forwarder) keepHouse(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		f.hold.mu.Lock()
		f.hold.expire(now)
		next := f.hold.deadline()
		f.hold.mu.Unlock()
		if at := f.paths.expire(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(next.Sub(now))
		}
		select {
		case <-ctx.Done():
			return
		case <-f.housekeep:
		case <-timer.C:
		}
	}
}

// wakeHouse makes keepHouse look at the deadlines again.
func (f *Forwarder) wakeHouse() {
	select {
	case f.housekeep <- struct{}{}:
	default:
	}
}

// drop counts a packet that is not forwarded.
func (f *Forwarder) drop(why DropReason) { f.c.drops[why].Add(1) }

// heldDropped is told of each packet that the hold table gives up. hold.mu is
// held.
func (f *Forwarder) heldDropped(o *overlay, packet []byte, why DropReason) {
	f.drop(why)
	var p inner
	if why == DropHoldExpired && parseInner(packet, &p) == DropNone {
		f.released.answer(o, packet, &p, icmpUnreachable, 0)
	}
}

// deviceWriter serialises writes to a device, which the receivers and the ICMP
// errors of several goroutines make.
type deviceWriter struct {
	mu     sync.Mutex
	device Device
	virtio VirtioDevice // device, or nil
}

func (w *deviceWriter) write(bufs [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.device.Write(bufs, Headroom)
	return err
}

// writeVirtio delivers one packet to a VirtioDevice.
func (w *deviceWriter) writeVirtio(parts [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.virtio.WriteVirtio(parts)
}
