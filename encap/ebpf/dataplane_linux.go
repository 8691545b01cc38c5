package ebpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Dataplane is the data plane in the kernel, with a Forwarder behind it. It
// satisfies control.Dataplane, control.SignalPlane and
// control.PairPlane.
type Dataplane struct {
	cfg    Config
	f      *encap.Forwarder
	objs   *bpfObjects
	tables *kernelTables

	meter *meter // with mu; nil: packets are not counted by entry

	mu      sync.Mutex // for all that follows
	closed  bool
	mirror  *mirror
	seq     uint64 // of the last change
	begun   bool   // seq says something
	resyncs uint64
	failed  bool // the kernel's copy is not good for anything
	signals bool // the control plane of a closed network wants to have a say
	// pairs has the locators that have a Rank with some of ours.
	pairs map[mapcache.Locator]map[netip.Addr]bool
	eids  map[uint32][]netip.Prefix // ours, by instance

	routes   routes
	ways     []encap.LocalPath // by SetLocals
	settings bpfSettings
	locals   localSet
	fixed    []*attachment       // at devices
	lans     map[int]*attachment // by ifindex
	heir     heir
	further  map[int]*attachment     // at devices that came later, by ifindex
	uplinks  map[place]*attachment   // at uplinks
	reported map[uint32]localTraffic // what the last Usage said, by locator number
	gone     []mapcache.Usage        // of locators that are not there any more
}

// localTraffic is what was counted for a locator, or an entry.
type localTraffic struct{ out, in encap.Counter }

func (t localTraffic) minus(was localTraffic) localTraffic {
	t.out.Packets -= was.out.Packets
	t.out.Octets -= was.out.Octets
	t.in.Packets -= was.in.Packets
	t.in.Octets -= was.in.Octets
	return t
}

func (t localTraffic) usage(now time.Time) mapcache.Usage {
	return mapcache.Usage{
		PacketsOut: t.out.Packets, OctetsOut: t.out.Octets, PacketsIn: t.in.Packets, OctetsIn: t.in.Octets, LastUsed: now,
	}
}

// maxGone bounds what waits for Usage of locators that are gone.
const maxGone = 4096

// New loads the programs and attaches those of the overlays' devices and the LANs;
// SetLocals attaches those of the uplinks. It fails with an error that wraps
// ErrUnsupported where Probe does. In a network namespace it must be called by a
// thread that is in it, and so must SetLocals. There can be one Dataplane in each: all
// programs that are found there are taken for those of an earlier process.
func New(cfg Config) (*Dataplane, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	devices := make(map[uint32]int)
	for _, o := range cfg.Encap.Overlays {
		if o.Device == nil { // of an RTR
			continue
		}
		ifi, err := net.InterfaceByName(o.Device.Name())
		if err != nil {
			return nil, fmt.Errorf("ebpf: device %s: %w", o.Device.Name(), err)
		}
		devices[o.InstanceID] = ifi.Index
	}
	objs, err := load(&cfg)
	if err != nil {
		return nil, fmt.Errorf("ebpf: %s: %w", whyNot(err, kernelVersion()), errors.Join(err, ErrUnsupported))
	}
	d := &Dataplane{
		cfg: cfg, f: cfg.Forwarder, objs: objs,
		further:  make(map[int]*attachment),
		lans:     make(map[int]*attachment),
		uplinks:  make(map[place]*attachment),
		reported: make(map[uint32]localTraffic),
		pairs:    make(map[mapcache.Locator]map[netip.Addr]bool),
		eids:     make(map[uint32][]netip.Prefix),
	}
	if d.routes, err = newRoutes(); err != nil {
		return nil, errors.Join(fmt.Errorf("ebpf: routes: %w", err), objs.Close())
	}
	if d.heir, err = d.inherit(); err != nil {
		d.routes.handle.Close()
		return nil, errors.Join(fmt.Errorf("ebpf: %w", err), objs.Close())
	}
	if d.tables, err = newKernelTables(&cfg, objs); err != nil {
		d.routes.handle.Close()
		return nil, errors.Join(fmt.Errorf("ebpf: %w", err), objs.Close())
	}
	d.mirror = newMirror(d.tables, int(room(cfg.MaxEntries)), int(room(cfg.MaxLocators)), int(room(cfg.MaxSets)))
	d.mirror.slow = d.isSlow
	d.mirror.unsourced = d.locals.unsourced
	d.mirror.released = d.locatorGone
	if cfg.Encap.Meter != nil {
		d.meter = newMeter(&cfg)
		d.mirror.begins = d.meter.begins
		if d.meter.mem, err = objs.EntryTraffic.Memory(); err != nil {
			d.routes.handle.Close()
			return nil, errors.Join(fmt.Errorf("ebpf: %w", err), objs.Close())
		}
	}
	if err := d.start(devices); err != nil {
		return nil, errors.Join(fmt.Errorf("ebpf: %w", err), d.Close())
	}
	d.f.SetOffload((*offload)(d))
	return d, nil
}

// start fills in the tables, and attaches what need not wait for uplinks.
func (d *Dataplane) start(devices map[uint32]int) error {
	if err := setOverlays(d.objs, &d.cfg, devices); err != nil {
		return err
	}
	for _, o := range d.cfg.Encap.Overlays {
		d.eids[o.InstanceID] = slices.Clone(o.EIDs)
	}
	if err := d.setInstances(); err != nil {
		return err
	}
	for _, i := range devices {
		d.heir.places = append(d.heir.places, placed{place{i, true}, d.objs.EncapDevice})
	}
	for _, l := range d.cfg.LANs {
		d.heir.places = append(d.heir.places, placed{place{ifindex: l.IfIndex}, d.objs.EncapLan})
	}
	if d.heir.found {
		return nil // what is there goes on until all is ready
	}
	return d.takeOver()
}

// setInstances writes where decapsulated packets go, and how large they may be.
func (d *Dataplane) setInstances() error {
	for i := range d.cfg.Encap.Overlays {
		o := &d.cfg.Encap.Overlays[i]
		in := bpfInstance{ProxyEtr: uint32(flag8(len(o.ProxyETR) > 0)), Relay: uint32(flag8(o.Relay)), Header: newDevice(o).Header}
		if o.Device != nil {
			ifi, err := net.InterfaceByName(o.Device.Name())
			if err != nil {
				return err
			}
			in.Ifindex, in.Mtu = uint32(ifi.Index), uint32(ifi.MTU)
		}
		if err := d.objs.Instances.Put(o.InstanceID, in); err != nil {
			return err
		}
	}
	return nil
}

// isSlow tells whether packets to a locator take the slow path: to one of ours, to
// one of which pairs are known to choose by, or that no route leads to, or in a format
// for which a UDP checksum has to be computed.
func (d *Dataplane) isSlow(l *mapcache.Locator) bool {
	if d.locals.owns(l.Addr) || len(d.pairs[*l]) > 0 || d.routes.none[l.Addr] {
		return true
	}
	if l.Format == mapcache.FormatLISP {
		return d.cfg.UDP.Checksum == encap.ChecksumComputed
	}
	return !slices.ContainsFunc(d.cfg.UDP.ZeroChecksum, func(p netip.Prefix) bool { return p.Contains(l.Addr) })
}

// Apply takes the changes over into the kernel. What is held for their
// destinations leaves first.
func (d *Dataplane) Apply(changes []mapcache.Change) error {
	err := d.f.Apply(changes)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.Join(err, net.ErrClosed)
	}
	return errors.Join(err, d.apply(time.Now(), changes))
}

func (d *Dataplane) apply(now time.Time, changes []mapcache.Change) error {
	for i := range changes {
		c := &changes[i]
		lost := c.Seq > d.seq+1 && (d.begun || d.cfg.Cache != nil)
		d.begun = true
		d.seq = max(d.seq, c.Seq)
		if lost || d.failed && d.cfg.Cache != nil {
			// The cache is already as it is after the last of the changes.
			d.seq = max(d.seq, changes[len(changes)-1].Seq)
			return d.resync(now)
		}
		if d.failed {
			return nil
		}
		if err := d.mirror.change(now, c); err != nil {
			return d.fail(err)
		}
	}
	return nil
}

// fail sends all packets the slow path, since the kernel's copy would mislead them.
// A later change tries to make it again.
func (d *Dataplane) fail(err error) error {
	d.cfg.Logger.Warn("the kernel's copy of the map-cache is out of order; all packets take the slow path", "err", err)
	d.failed = true
	return errors.Join(fmt.Errorf("ebpf: map-cache: %w", err), d.writeSettings())
}

// resync makes the kernel's copy again.
func (d *Dataplane) resync(now time.Time) error {
	if d.cfg.Cache == nil {
		return d.fail(errors.New("changes were lost"))
	}
	if d.cfg.Cache.Len() > d.cfg.MaxEntries {
		if d.failed {
			return nil
		}
		return d.fail(errFull)
	}
	d.resyncs++
	present := make(map[eidKey]bool)
	for e := range d.cfg.Cache.All() {
		present[makeKey(e.Key)] = true
	}
	// First what must not be matched any more: it may stand before what comes.
	for k := range d.mirror.entries {
		if !present[k] {
			if err := d.mirror.remove(now, k); err != nil {
				return d.fail(err)
			}
		}
	}
	for e := range d.cfg.Cache.All() {
		f := mapcache.Forwarding{Present: true, RLOCs: e.RLOCs, Verdict: mapcache.Encapsulate}
		if e.Negative() {
			f.Verdict = mapcache.Drop
		}
		if err := d.mirror.put(now, makeKey(e.Key), &f); err != nil {
			return d.fail(err)
		}
	}
	for id := range d.mirror.state {
		if s := &d.mirror.state[id]; s.refs > 0 {
			if err := d.mirror.setDown(s.locator, !d.cfg.Cache.Reachable(s.locator)); err != nil {
				return d.fail(err)
			}
		}
	}
	d.failed = false
	return d.writeSettings()
}

// writeSettings writes what holds for all packets.
func (d *Dataplane) writeSettings() error {
	d.settings.Slow = uint32(flag8(d.allSlow()))
	d.settings.Layout = tableLayout
	d.settings.Deadline = d.deadline()
	return d.objs.State.Put(uint32(0), d.settings)
}

func (d *Dataplane) allSlow() bool {
	policy := d.cfg.Encap.Policy != nil && !d.cfg.PolicyIsMarks
	return d.failed || d.signals || d.locals.slow || policy
}

// SetSignals takes what packets of a closed network are to say. The programs say
// nothing, so from the first signal on all packets that leave take the slow path;
// arriving ones do if they say something.
func (d *Dataplane) SetSignals(s mapcache.Signals) {
	d.mu.Lock()
	if d.cfg.Encap.Closed != (encap.Closed{}) && !d.signals && !d.closed {
		d.signals = true
		if err := d.writeSettings(); err != nil {
			d.cfg.Logger.Warn("settings of the kernel's data plane", "err", err)
		}
	}
	d.mu.Unlock()
	d.f.SetSignals(s)
}

// SetPairs takes what is known of pairs of locators. The programs don't choose by
// it: packets to a locator of which something is known take the slow path.
func (d *Dataplane) SetPairs(pairs []mapcache.Pair) {
	d.f.SetPairs(pairs)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range pairs {
		l, local := normal(p.Remote), p.Local.Unmap().WithZone("")
		was := d.pairs[l]
		switch {
		case p.Rank == 0 && len(was) == 1 && was[local]:
			delete(d.pairs, l)
		case p.Rank == 0:
			delete(was, local)
		case was != nil:
			was[local] = true
		case len(d.pairs) < d.cfg.MaxLocators:
			d.pairs[l] = map[netip.Addr]bool{local: true}
		}
		if id, ok := d.mirror.locators[l]; ok && !d.closed {
			if err := d.mirror.writeLocator(id); err != nil {
				d.cfg.Logger.Warn("pairs in the kernel", "locator", l, "err", err)
			}
		}
	}
}

// PendingMisses is that of the Forwarder.
func (d *Dataplane) PendingMisses(dst []mapcache.Key) []mapcache.Key { return d.f.PendingMisses(dst) }

// Discoveries is that of the Forwarder.
func (d *Dataplane) Discoveries() <-chan mapcache.Discovery { return d.f.Discoveries() }

// Send is that of the Forwarder.
func (d *Dataplane) Send(dg lisp.Datagram) error { return d.f.Send(dg) }

// Usage calls report for each locator that carried packets since the last call, on
// either path, and with no locator for each entry that packets met in the kernel: with
// their number if Config.Encap has a Meter, else with 1. Of locators that share an
// address, the one that came last into the map-cache has all that arrives from there,
// whatever its format.
func (d *Dataplane) Usage(report func(mapcache.Usage)) {
	d.f.Usage(report)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if err := d.renew(); err != nil {
		d.cfg.Logger.Warn("the time that the kernel's data plane lingers", "err", err)
	}
	now := time.Now()
	for _, u := range d.gone {
		report(u)
	}
	d.gone = d.gone[:0]
	err := d.eachTraffic(d.mirror.locatorIDs.next, func(id uint32, out, in encap.Counter) {
		var l mapcache.Locator
		if int(id) < len(d.mirror.state) {
			l = d.mirror.state[id].locator
		}
		if u, ok := d.since(now, id, l, localTraffic{out, in}); ok {
			report(u)
			if u.PacketsOut > 0 {
				d.routes.use(l.Addr)
			}
		}
	})
	if err != nil {
		d.cfg.Logger.Warn("counters of locators", "err", err)
	}
	d.checkRoutes()
	if d.meter != nil {
		d.meter.each(d.mirror.entryIDs.next, func(id uint32, t localTraffic) {
			if int(id) < len(d.mirror.keys) && d.mirror.keys[id].family != 0 {
				u := t.usage(now)
				u.Key = d.mirror.keys[id].key()
				report(u)
			}
		})
		return
	}
	eachUsed(d.tables.entries, d.mirror.entryIDs.next, func(id uint32) {
		if int(id) < len(d.mirror.keys) && d.mirror.keys[id].family != 0 {
			report(mapcache.Usage{Key: d.mirror.keys[id].key(), PacketsOut: 1, LastUsed: now})
		}
	})
}

// since returns what is new of a locator's counters.
func (d *Dataplane) since(now time.Time, id uint32, l mapcache.Locator, t localTraffic) (mapcache.Usage, bool) {
	was := d.reported[id]
	if t == was {
		return mapcache.Usage{}, false
	}
	d.reported[id] = t
	u := t.minus(was).usage(now)
	u.Locator = l
	return u, true
}

// locatorGone keeps what was counted for a locator whose number is given back.
// What a packet that is under way counts later goes to the next one with it.
func (d *Dataplane) locatorGone(id uint32, l mapcache.Locator) {
	out, in := d.readTraffic(id)
	if u, ok := d.since(time.Now(), id, l, localTraffic{out, in}); ok && len(d.gone) < maxGone {
		d.gone = append(d.gone, u)
	}
}

// Stats returns a snapshot of the counters of both paths.
func (d *Dataplane) Stats() Stats {
	s := Stats{Stats: d.f.Stats()}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Entries, s.Locators, s.Sets = d.mirror.entryIDs.used(), d.mirror.locatorIDs.used(), d.mirror.setIDs.used()
	s.Resyncs, s.AllSlow = d.resyncs, d.allSlow()
	if d.closed {
		return s
	}
	counters := d.readCounters()
	s.KernelEncapsulated, s.KernelDecapsulated = counters[countEncap], counters[countDecap]
	s.Encapsulated.Packets += s.KernelEncapsulated.Packets
	s.Encapsulated.Octets += s.KernelEncapsulated.Octets
	s.Decapsulated.Packets += s.KernelDecapsulated.Packets
	s.Decapsulated.Octets += s.KernelDecapsulated.Octets
	s.ECNOdd += counters[countECNOdd].Packets
	for i := range s.KernelDrops {
		s.KernelDrops[i] = counters[i].Packets
		s.Drops[i] += s.KernelDrops[i]
	}
	for i := range s.Slow {
		s.Slow[i] = counters[slowBase+i].Packets
	}
	return s
}

// Close detaches the programs, unless they are to persist: from then on the Forwarder
// does all. Before the first SetLocals nothing is to persist that an earlier process has
// not left. It is idempotent, and does not close the Forwarder.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.routes.handle.Close()
	var errs []error
	end := (*attachment).detach
	if d.cfg.Persist && (d.heir.found || d.locals.set) {
		errs = append(errs, d.writeSettings())
		end = (*attachment).leave
	}
	for _, a := range d.attachments() {
		errs = append(errs, end(a))
	}
	errs = append(errs, d.objs.Close())
	return errors.Join(errs...)
}
