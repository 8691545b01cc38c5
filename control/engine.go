package control

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Engine is the control plane of one xTR: it registers the EID-Prefixes of its
// database, resolves destinations into the map-cache, answers Map-Requests and
// probes locators. It does no I/O and knows no clock: see Core for how it is
// stepped, and Runner for what usually steps it.
//
// One goroutine at a time. The views of Cache and Database may be used by any.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	rand    io.Reader
	started bool
	now     time.Time     // the latest time seen; time never goes back in here
	skew    time.Duration // what has to be added to the clock for that

	timers timers
	out    queue[lisp.Datagram]
	arena  []byte // what the datagrams in out are made in
	events queue[Event]
	stats  Stats

	given  []mapcache.Local // as SetLocals had them
	locals []mapcache.Local // sorted by address, IPv4 first
	db     []localMapping   // sorted by instance, address and length
	dbPos  map[mapcache.Key]int

	database *mapcache.Cache // the prefixes of db, for longest-match lookups
	cache    *mapcache.Cache
	changes  []mapcache.Change // of cache, until Publish

	cacheTimer    timer // for refresh and expiry
	cacheAdvanced time.Time
	lastChange    uint64

	servers       []*mapServer
	registrations []*registration
	registerNonce lisp.Nonce
	firstNonce    lisp.Nonce
	reservedNonce lisp.Nonce
	quickUntil    time.Time
	announced     announcer
	withdrawing   bool

	smr       solicitor
	closed    *closedNet // nil on the public Internet
	nat       *natEngine // nil without NAT traversal
	resolvers []*mapResolver
	pending   map[mapcache.Key]*pending
	waiting   [numPendingKinds]int // of them, by kind
	misses    queue[*pending]      // those of misses, oldest first, and some that are gone
	requests  map[lisp.Nonce]request

	subscriptions map[mapcache.Key]*subscription

	targets map[mapcache.Locator]*probeTarget
	paths   map[pathKey]*path
	uplinks map[netip.Addr]*uplink // by own locator, of those with paths that are known
	unheard map[netip.Addr]bool    // own locators that a Map-Server does not answer, though it answers another
	pairs   pairBook

	silentTimer timer  // for relocate, when a locator has become silent, or is no more
	silentSeq   uint64 // counts these changes, for the Runner
	petrs       map[mapcache.Locator]bool

	rtr         bool // see SetRTR
	hosts       func(name string, global netip.Addr) (netip.AddrPort, bool)
	relays      map[mapcache.Key]bool // entries that an RTR has made, see relay.go
	relaysMoved []relayMoved          // for the RTR

	requestLimit *rate.Limiter
	replyLimit   *rate.Limiter // of anybody
	knownLimit   *rate.Limiter // and of those we know
	rlocLimits   limiterTable
	probeLimits  limiterTable  // of those we know that probe
	smrLimit     *rate.Limiter // SMRs followed
	smrSources   limiterTable
	dropLimit    *rate.Limiter

	// Decoded messages, reused.
	mapRequest lisp.MapRequest
	mapReply   lisp.MapReply
	mapNotify  lisp.MapNotify
	ecm        lisp.EncapsulatedControl
}

var _ Core = (*Engine)(nil)

// New makes an Engine. It does nothing until SetLocals names the locators.
func New(cfg Config) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg:      cfg,
		log:      cfg.Logger,
		database: mapcache.New(mapcache.Config{}),
		cache:    mapcache.New(cacheConfig(cfg.Cache)),
		pending:  make(map[mapcache.Key]*pending),
		requests: make(map[lisp.Nonce]request),

		subscriptions: make(map[mapcache.Key]*subscription),
		targets:       make(map[mapcache.Locator]*probeTarget),
		paths:         make(map[pathKey]*path),
		uplinks:       make(map[netip.Addr]*uplink),
		petrs:         make(map[mapcache.Locator]bool),
		unheard:       make(map[netip.Addr]bool),
		pairs:         pairBook{told: make(map[pathKey]uint8), dirty: make(map[pathKey]uint8)},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.log = e.log.With("component", "control")
	src := cfg.Rand
	if src == nil {
		src = rand.Reader
	}
	e.rand = bufio.NewReaderSize(src, 256)
	e.requestLimit = rate.NewLimiter(rate.Limit(cfg.MapRequestRate), cfg.MapRequestRate)
	share := max(1, cfg.MapReplyRate/4)
	e.replyLimit = rate.NewLimiter(rate.Limit(cfg.MapReplyRate-share), max(1, cfg.MapReplyRate-share))
	e.knownLimit = rate.NewLimiter(rate.Limit(share), share)
	e.rlocLimits = newLimiterTable(rate.Every(replyInterval), cfg.MapReplyBurst)
	e.probeLimits = newLimiterTable(rate.Every(probeReplyInterval), cfg.MapReplyBurst)
	e.smrLimit = rate.NewLimiter(rate.Limit(cfg.MapRequestRate)/4, max(1, cfg.MapRequestRate/4))
	e.smrSources = newLimiterTable(rate.Every(smrSourceInterval), smrSourceBurst)
	e.dropLimit = rate.NewLimiter(5, 10)
	e.cacheTimer.fire = e.advanceCache
	e.silentTimer.fire = e.relocate
	e.smr.fire, e.smr.peers = e.tellPeers, make(map[netip.Addr]*smrPeer)
	for _, r := range slices.Concat(cfg.ProxyETRs, cfg.ProxyETRs4, cfg.ProxyETRs6) {
		e.petrs[r.Locator] = true
	}
	for _, a := range cfg.MapResolvers {
		e.resolvers = append(e.resolvers, &mapResolver{addr: a})
	}
	for i := range cfg.MapServers {
		e.servers = append(e.servers, &mapServer{
			MapServer: &cfg.MapServers[i], knows: make(map[mapcache.Key]bool), others: make(map[mapcache.Key]otherXTRs),
		})
	}
	e.openClosed()
	e.openNAT()
	if err := e.loadDatabase(cfg.Database); err != nil {
		return nil, err
	}
	if err := e.storeDatabase(time.Time{}); err != nil {
		return nil, err
	}
	// The map-cache wants to know the time: tick inserts them. Here they are only
	// tried.
	if err := tryStatic(cfg.StaticMappings); err != nil {
		return nil, err
	}
	return e, nil
}

// cacheConfig keeps the list of changes, which an Engine cannot do without.
func cacheConfig(c mapcache.Config) mapcache.Config {
	c.MaxChanges = max(c.MaxChanges, 0)
	return c
}

// Cache is the map-cache. Between Engine calls the caller may add and remove
// static entries.
func (e *Engine) Cache() *mapcache.Cache { return e.cache }

// Database holds the EID-Prefixes of Config.Database with our own locators. It
// is for reading.
func (e *Engine) Database() *mapcache.Cache { return e.database }

// Handle takes one received control message. It claims what an xTR is the
// receiver of, and leaves Map-Requests for the EIDs of others, Map-Registers and
// the like to other cores.
func (e *Engine) Handle(now time.Time, d lisp.Datagram) bool {
	now = e.tick(now)
	defer e.collect(now)
	if d.Local.Port() == lisp.DataPort {
		return e.handleNAT(now, d)
	}
	switch lisp.TypeOf(d.Bytes) {
	case lisp.TypeMapReply:
		return e.handleMapReply(now, d)
	case lisp.TypeMapNotify:
		return e.handleMapNotify(now, d)
	case lisp.TypeMapRequest:
		return e.handleMapRequest(now, d, d.Bytes, d.Remote, false)
	case lisp.TypeEncapsulatedControl:
		return e.handleEncapsulated(now, d)
	case lisp.TypeInfo:
		return e.handleNAT(now, d)
	default:
		return false
	}
}

// Advance runs what is due.
func (e *Engine) Advance(now time.Time) {
	now = e.tick(now)
	e.timers.advance(now)
	e.collect(now)
}

// Deadline is when Advance has something to do, zero for never. It may lie in
// the past only until Advance is called.
func (e *Engine) Deadline() time.Time {
	at := e.timers.deadline()
	if at.IsZero() {
		return at
	}
	return at.Add(-e.skew)
}

// Next returns the next datagram to send. Its bytes are valid until the next
// call of any method.
func (e *Engine) Next() (lisp.Datagram, bool) { return e.out.pop() }

// Publish makes all changes of the map-cache visible to its readers and returns
// them, in order, for a Dataplane. The caller owns the slice.
func (e *Engine) Publish() []mapcache.Change {
	e.collect(e.now)
	e.cache.Publish()
	c := e.changes
	e.changes = nil
	return c
}

// clockStep is how far the time of a step may lie behind the one before without
// being taken for a clock that was set back.
const clockStep = 5 * time.Second

// tick returns the time of this step as the engine counts it, which never goes
// back. What happens a little out of order happens at the latest time seen. When
// the clock is set back time goes on from there, so that neither an interval of
// the protocol is shortened nor anything waits for the clock to catch up.
func (e *Engine) tick(now time.Time) time.Time {
	if !e.started {
		e.started, e.now = true, now
		for _, m := range e.cfg.StaticMappings {
			if err := e.cache.Insert(now, static(m)); err != nil {
				e.log.Error("static mapping not stored", "eid", m.Key, "err", err)
			}
			e.collect(now)
		}
	}
	now = now.Add(e.skew)
	if back := e.now.Sub(now); back > 0 {
		if back > clockStep {
			e.skew += back
			e.log.Warn("clock set back", "by", back)
		}
		return e.now
	}
	e.now = now
	return now
}

func static(m mapcache.Mapping) mapcache.Mapping {
	m.Origin, m.TTL = mapcache.OriginStatic, mapcache.TTLForever
	return m
}

// send queues one datagram that build appends to its argument. The local
// address is from, which must be one of ours.
func (e *Engine) send(from mapcache.Local, remote netip.AddrPort, build func([]byte) ([]byte, error)) bool {
	if e.out.len() == 0 {
		e.arena = e.arena[:0]
	}
	if e.out.len() >= maxQueue {
		e.stats.Dropped[DropQueueFull]++
		return false
	}
	start := len(e.arena)
	b, err := build(e.arena)
	if err != nil {
		// Everything encoded here is made here, so this is our own fault.
		e.log.Error("message not encoded", "peer", remote, "err", err)
		return false
	}
	e.arena = b
	if cap(e.arena) > 1<<20 {
		e.arena = nil // let a burst go
	}
	e.out.push(lisp.Datagram{
		Local:   netip.AddrPortFrom(from.Addr, e.cfg.Port),
		Remote:  remote,
		IfIndex: from.IfIndex,
		Bytes:   b[start:len(b):len(b)],
	}, maxQueue)
	return true
}

// drop counts a dropped message, and reports some of them.
func (e *Engine) drop(now time.Time, why DropReason, peer netip.AddrPort, detail func() string) {
	e.stats.Dropped[why]++
	if !e.dropLimit.AllowN(now, 1) {
		return
	}
	ev := Dropped{Stamp: Stamp{now}, Reason: why, Peer: peer}
	if detail != nil {
		ev.Detail = detail()
	}
	e.emit(ev)
}

// nonce draws a nonce for a Map-Request that no outstanding one has.
func (e *Engine) nonce() lisp.Nonce {
	for {
		if n := lisp.Nonce(e.random()); n != 0 {
			if _, used := e.requests[n]; !used {
				return n
			}
		}
	}
}

func (e *Engine) random() uint64 {
	var b [8]byte
	if _, err := io.ReadFull(e.rand, b[:]); err != nil {
		// An injected source that ran dry must not make nonces guessable.
		_, _ = rand.Read(b[:]) // never fails
	}
	return binary.BigEndian.Uint64(b[:])
}

// jitter draws from [0, d).
func (e *Engine) jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(e.random() % uint64(d))
}
