package control

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Closed turns on, each by itself, what only the xTRs of a trusted and closed
// network may use (RFC 9300 §4.1, §16). It needs a Dataplane that is a SignalPlane
// and is configured alike. As by default, on the public Internet, nothing of it is
// sent, and what is received of it is ignored.
type Closed struct {
	// MapVersions gives database mappings a Map-Version Number, see
	// DatabaseMapping, tells ITRs that use an old one, and asks for mappings of
	// which a newer one is in use (RFC 9302).
	MapVersions bool
	// LocatorStatusBits sends the status of our locators with data packets, and
	// obeys those of others (RFC 9300 §10). With it, a locator that goes down or
	// comes up does not make a new version of the mapping.
	LocatorStatusBits bool
	// EchoNonce tests locators that traffic goes to and comes from by nonces to
	// be echoed (RFC 9300 §10.1), and tells others that we echo theirs. Only
	// locators whose site said so in a Map-Reply are tested.
	EchoNonce bool

	// UseLSBTime is how long no LSBs are sent after a locator was added to a
	// mapping or removed, default 5 minutes (RFC 9300 §13.1).
	UseLSBTime time.Duration
	// EchoInterval is the time from one test of a locator to the next, jittered by
	// a tenth, default 30 s; EchoTimeout is how long an echo is asked for, default
	// 15 s, at least three times RunnerConfig.UsageInterval; EchoPause is how long
	// we do not ask after the other side did (the Echo-Nonce-request-state timer),
	// default 2 s.
	EchoInterval, EchoTimeout, EchoPause time.Duration
}

// SignalPlane is what a Dataplane has to be besides in a closed network.
type SignalPlane interface {
	Dataplane
	// SetSignals takes what data packets are to say and what is expected of them.
	// It is called before the map-cache that it is about is published. What
	// packets say otherwise is reported as a Discovery.
	SetSignals(mapcache.Signals)
}

// RandomMapVersion as DatabaseMapping.MapVersion draws the first Map-Version
// Number at random.
const RandomMapVersion = 0xffff

func (c *Closed) any() bool { return c.MapVersions || c.LocatorStatusBits || c.EchoNonce }

func (c *Closed) withDefaults() error {
	def(&c.UseLSBTime, 5*time.Minute)
	def(&c.EchoInterval, 30*time.Second)
	def(&c.EchoTimeout, 15*time.Second)
	def(&c.EchoPause, 2*time.Second)
	if c.UseLSBTime < 0 || c.EchoInterval < time.Second || c.EchoTimeout < 3*time.Millisecond || c.EchoPause < time.Millisecond {
		return fmt.Errorf("control: closed network: times %v, %v, %v, %v: %w",
			c.UseLSBTime, c.EchoInterval, c.EchoTimeout, c.EchoPause, ErrConfig)
	}
	return nil
}

// check reports whether a Map-Version Number can be configured.
func (c *Closed) check(m *DatabaseMapping) error {
	switch v := m.MapVersion; {
	case v != 0 && !c.MapVersions:
		return fmt.Errorf("control: database mapping %v: a Map-Version Number is for closed networks: %w", m.Key, ErrConfig)
	case v > 0xfff && v != RandomMapVersion:
		return fmt.Errorf("control: database mapping %v: Map-Version Number %d exceeds 12 bits: %w", m.Key, v, ErrConfig)
	}
	return nil
}

// closedNet is what an Engine keeps for a closed network.
type closedNet struct {
	ownTimer timer                        // when an own mapping has something to change
	own      map[mapcache.Key]*ownMapping // of the database
	sites    map[mapcache.Key]*remoteSite // of the map-cache: learned positive entries
	stale    map[staleKey]*stalePeer      // who uses an old version of our mappings
	refused  map[netip.Addr]int           // locators whose stale packets are dropped, by how many stalePeers
	echoes   map[netip.Addr]*echoPeer     // locators to be tested
	nonces   map[uint32]bool              // theirs, so that no two have the same
	signals  mapcache.Signals             // not yet taken
}

func (e *Engine) openClosed() {
	if !e.cfg.Closed.any() {
		return
	}
	e.closed = &closedNet{
		own:     make(map[mapcache.Key]*ownMapping),
		sites:   make(map[mapcache.Key]*remoteSite),
		stale:   make(map[staleKey]*stalePeer),
		refused: make(map[netip.Addr]int),
		echoes:  make(map[netip.Addr]*echoPeer),
		nonces:  make(map[uint32]bool),
	}
	e.closed.ownTimer.fire = e.signalOwn
}

// Signals returns what has changed since the last call of what a SignalPlane has
// to know. It must be handed on before Publish.
func (e *Engine) Signals() mapcache.Signals {
	if e.closed == nil {
		return mapcache.Signals{}
	}
	e.collect(e.now)
	s := e.closed.signals
	e.closed.signals = mapcache.Signals{}
	return s
}

// Discover takes what a data plane noticed: that a locator is said to be
// unreachable, which is then probed, a source without a mapping, which is asked
// for, and what packets of a closed network say. Other discoveries, and those of
// mechanisms that are off, are ignored.
func (e *Engine) Discover(now time.Time, d mapcache.Discovery) {
	switch d.Kind {
	case mapcache.DiscoverySource:
		e.Resolve(now, []mapcache.Key{d.Key})
		return
	case mapcache.DiscoveryUnreachable:
		now = e.tick(now)
		defer e.collect(now)
		e.unreachable(now, d.Locator)
		return
	default:
	}
	if e.closed == nil {
		return
	}
	now = e.tick(now)
	defer e.collect(now)
	d.Locator = cleanLocator(d.Locator)
	c := &e.cfg.Closed
	switch d.Kind {
	case mapcache.DiscoveryLSBs:
		if c.LocatorStatusBits {
			e.statusBits(now, d)
		}
	case mapcache.DiscoveryNewerSource:
		if c.MapVersions {
			e.newerSource(now, d)
		}
	case mapcache.DiscoveryStaleVersion:
		if c.MapVersions {
			e.staleVersion(now, d)
		}
	case mapcache.DiscoveryInvalidVersion:
		// RFC 9302 §7.1: logged, which is all.
		e.drop(now, DropMapVersion, netip.AddrPortFrom(d.Locator.Addr, d.Locator.Port), func() string {
			return fmt.Sprintf("%d for %v", d.MapVersion, d.Key)
		})
	case mapcache.DiscoveryEchoed:
		e.echoed(now, d.Locator.Addr)
	case mapcache.DiscoveryEchoAsked:
		e.echoAsked(now, d.Locator.Addr)
	default:
	}
}

// remoteSite is the mapping of another site, as its Locator-Status-Bits are about it.
type remoteSite struct {
	locators []mapcache.Locator // by ordinal; those that we can't use are zero
	lsbs     uint32             // of the first 32; obeyed
	changed  time.Time          // when lsbs last changed
	entry    uint32             // 0: not in the map-cache yet
}

// learnSite is told of a record before m, made of it, goes to the map-cache. The
// R bits of m become what the LSBs of the site have said before: a locator that
// they took down is used again when they bring it back, and not before (RFC 9300
// §10). R=0 takes it down as well.
func (e *Engine) learnSite(k mapcache.Key, rec *lisp.EIDRecord, m *mapcache.Mapping) {
	if e.closed == nil {
		return
	}
	old := e.closed.sites[k]
	if rec.Negative() {
		e.forgetSite(k) // the locators, if any, are Proxy-ETRs
		return
	}
	s := &remoteSite{}
	for i := range rec.Locators[:min(len(rec.Locators), 32)] {
		r := &rec.Locators[i]
		var l mapcache.Locator
		if ip, ok := r.RLOC.IP(); ok {
			l = e.learned(ip)
		}
		s.locators = append(s.locators, l)
		if r.Reachable {
			s.lsbs |= 1 << i
		}
	}
	if old != nil && slices.Equal(old.locators, s.locators) {
		s.lsbs &= old.lsbs
		s.changed, s.entry = old.changed, old.entry
	}
	e.closed.sites[k] = s
	if e.cfg.Closed.LocatorStatusBits {
		s.apply(m.RLOCs)
	}
}

// down reports whether the status bit of l is 0.
func (s *remoteSite) down(l mapcache.Locator) (down, known bool) {
	i := slices.Index(s.locators, l)
	return i >= 0 && s.lsbs>>i&1 == 0, i >= 0
}

// apply sets the R bits of rlocs to what s says.
func (s *remoteSite) apply(rlocs []mapcache.RLOC) {
	for i := range rlocs {
		if down, known := s.down(rlocs[i].Locator); known {
			rlocs[i].Down = down
		}
	}
}

// insert puts a mapping made of a record into the map-cache.
func (e *Engine) insert(now time.Time, rec *lisp.EIDRecord, m *mapcache.Mapping) error {
	e.learnSite(m.Key, rec, m)
	err := e.cache.Insert(now, *m)
	if err != nil {
		e.forgetSite(m.Key)
	}
	return err
}

// sameMapping reports whether a record that is not stored says what the entry in
// the map-cache does.
func (e *Engine) sameMapping(ent *mapcache.Entry, rec *lisp.EIDRecord) bool {
	rlocs := e.usableRLOCs(rec)
	if e.closed == nil {
		return sameRLOCs(ent.RLOCs, rlocs)
	}
	if s := e.closed.sites[ent.Key]; s != nil && e.cfg.Closed.LocatorStatusBits {
		for i := range rlocs {
			down, known := s.down(rlocs[i].Locator)
			rlocs[i].Down = rlocs[i].Down || known && down
		}
	}
	newer := e.cfg.Closed.MapVersions && mapcache.NewerMapVersion(rec.MapVersion, ent.MapVersion)
	return !newer && sameRLOCs(ent.RLOCs, rlocs)
}

// signalChange follows the map-cache.
func (e *Engine) signalChange(c mapcache.Change) {
	if e.closed == nil || !c.Key.Prefix.IsValid() {
		return
	}
	s := e.closed.sites[c.Key]
	ent, ok := e.cache.Get(c.Key)
	switch {
	case s == nil:
		return
	case ok && ent.Origin == mapcache.OriginMapReply && !ent.Negative():
		s.entry = ent.ID
		e.signalEntry(s, ent.MapVersion)
	default:
		e.forgetSite(c.Key)
	}
}

// forgetSite forgets what is known of k, which did not get to the map-cache or has
// left it. Its number there may be another entry's some day.
func (e *Engine) forgetSite(k mapcache.Key) {
	if e.closed == nil {
		return
	}
	if s := e.closed.sites[k]; s != nil {
		delete(e.closed.sites, k)
		if s.entry != 0 {
			e.closed.signals.Entries = append(e.closed.signals.Entries, mapcache.EntrySignal{EntryID: s.entry})
		}
	}
}

func (e *Engine) signalEntry(s *remoteSite, version uint16) {
	sig := mapcache.EntrySignal{EntryID: s.entry}
	if e.cfg.Closed.MapVersions {
		sig.MapVersion = version
	}
	if e.cfg.Closed.LocatorStatusBits {
		sig.LSBs, sig.Locators = s.lsbs, uint8(len(s.locators))
	}
	e.closed.signals.Entries = append(e.closed.signals.Entries, sig)
}

// signalLocator tells the data plane all about a locator.
func (e *Engine) signalLocator(a netip.Addr) {
	sig := mapcache.LocatorSignal{Addr: a, RefuseStale: e.closed.refused[a] > 0}
	if p := e.closed.echoes[a]; p != nil && (p.phase == echoAsking || p.phase == echoPaused) {
		sig.Nonce, sig.Ask = p.nonce, p.phase == echoAsking
	}
	e.closed.signals.Locators = append(e.closed.signals.Locators, sig)
}
