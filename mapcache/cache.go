package mapcache

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"github.com/xtrkit/xtrkit/lisp"
)

// Errors of Insert, wrapped with what is wrong.
var (
	ErrInvalid = errors.New("invalid mapping")
	ErrStatic  = errors.New("a static mapping is not replaced by a learned one")
	ErrFull    = errors.New("map-cache full of entries in use")
)

// maxIID is the largest Instance ID: 24 bits (RFC 9300 §5.3).
const maxIID = 1<<24 - 1

// Config configures a Cache. The zero value is good for an ordinary xTR.
type Config struct {
	// MaxEntries bounds the number of entries, static ones included. Zero is
	// DefaultMaxEntries; it is at most 1<<26 - 1024, some 67 million.
	MaxEntries int
	// MinTTL and MaxTTL clamp the TTL of learned mappings other than 0. Zero is
	// no minimum, and 7 days. MaxTTL is at most a year.
	MinTTL, MaxTTL time.Duration
	// UnlimitedTTL is the lifetime of learned mappings that leave it to the
	// receiver (TTLForever). Zero is 24 hours.
	UnlimitedTTL time.Duration
	// RefreshFraction is the part of its life after which an entry in use is
	// reported for refresh, in (0,1), but never more than a minute before the
	// end. Zero is 0.8.
	RefreshFraction float64
	// IdleTime is how long an entry is spared from eviction after its last use.
	// Zero is one minute.
	IdleTime time.Duration
	// Gleaning allows Glean. It must stay off on the public Internet (RFC 9300
	// §4.1, §9), where anybody can send a packet with a false source.
	Gleaning bool
	// MaxChanges bounds the list of changes that nobody has drained: beyond it
	// the oldest are dropped, which shows as a gap in Change.Seq. Zero is 16384;
	// negative records none.
	MaxChanges int
}

// DefaultMaxEntries is the default of Config.MaxEntries.
const DefaultMaxEntries = 1 << 17

func (cfg *Config) setDefaults() {
	def(&cfg.MaxEntries, DefaultMaxEntries)
	cfg.MaxEntries = min(cfg.MaxEntries, slotIDs-1024) // some more ids rest
	def(&cfg.MaxTTL, 7*24*time.Hour)
	def(&cfg.UnlimitedTTL, 24*time.Hour)
	def(&cfg.IdleTime, time.Minute)
	def(&cfg.MaxChanges, 1<<14)
	if cfg.RefreshFraction <= 0 || cfg.RefreshFraction >= 1 {
		cfg.RefreshFraction = 0.8
	}
	cfg.MaxTTL = min(max(cfg.MaxTTL, cfg.MinTTL), maxTTLMinutes*time.Minute)
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Cache is a Map-Cache, or the local database of an ETR. One goroutine at a time
// uses it, save for View, which is safe for concurrent use.
type Cache struct {
	_    [0]sync.Mutex // not to be copied
	view atomic.Pointer[View]

	cfg       Config
	start     time.Time // what the times of entries count from
	started   bool
	epoch     uint64 // of vec: number of the View under construction
	dirty     bool   // something to publish
	main      trie
	tries     map[uint32]*trie      // other instances, none empty
	macs      trie                  // all instances, see macAddr
	published *bart.Table[instance] // what Views see of tries
	stale     map[uint32]struct{}   // instances that changed since Publish
	sets      sets
	locators  locators
	entries   slab[entry]
	entryIDs  ids
	size      int
	used      bitmap
	queue     queue
	solicited map[uint32]*solicited // by entry id
	meters    meters
	rings     [2]ring // of learned entries: negative, positive
	changes   []Change
	seq       uint64
	counts    [numReasons]uint64
	full      uint64
	scratch   []member
	above     []uint32 // scratch: entries on the way up
}

// trie is the prefixes of one instance.
type trie struct {
	table *bart.Table[slot]
	// shared is set once a View can reach the table: from then on updates copy.
	// Before that they are made in place, which makes a bulk load 20 times faster.
	shared bool
}

func (t *trie) insert(p netip.Prefix, s slot) {
	if t.shared {
		t.table = t.table.InsertPersist(p, s)
	} else {
		t.table.Insert(p, s)
	}
}

func (t *trie) delete(p netip.Prefix) {
	if t.shared {
		t.table = t.table.DeletePersist(p)
	} else {
		t.table.Delete(p)
	}
}

// New returns an empty cache.
func New(cfg Config) *Cache {
	cfg.setDefaults()
	c := &Cache{
		cfg:       cfg,
		epoch:     1,
		main:      trie{table: new(bart.Table[slot])},
		macs:      trie{table: new(bart.Table[slot])},
		tries:     make(map[uint32]*trie),
		published: new(bart.Table[instance]),
		stale:     make(map[uint32]struct{}),
		solicited: make(map[uint32]*solicited),
	}
	c.sets.init()
	c.locators.init()
	c.used.grow(0)
	// Number 0 of vec is reserved; give it a place so that Views can index it.
	c.locators.hot.slot(0, c.epoch)
	c.sets.hot.slot(0, c.epoch)
	// The first View has tries of its own, so that the cache's are still unshared.
	c.view.Store(&View{main: new(bart.Table[slot]), macs: new(bart.Table[slot]), instances: c.published, stamp: new(byte)})
	return c
}

// View returns the mappings as last published. It never returns nil.
func (c *Cache) View() *View { return c.view.Load() }

// Publish makes the mappings visible to Views taken from now on. It costs
// nothing if nothing has changed.
func (c *Cache) Publish() {
	if !c.dirty {
		return
	}
	for iid := range c.stale {
		t := c.tries[iid]
		if t == nil {
			c.published = c.published.DeletePersist(instancePrefix(iid))
			continue
		}
		t.shared = true
		c.published = c.published.InsertPersist(instancePrefix(iid), instance{t.table})
	}
	clear(c.stale)
	c.main.shared, c.macs.shared = true, true
	c.view.Store(&View{
		main:      c.main.table,
		macs:      c.macs.table,
		instances: c.published,
		sets:      c.sets.hot.vec,
		locators:  c.locators.hot.vec,
		down:      c.locators.down,
		used:      c.used,
		stamp:     new(byte),
	})
	c.epoch++
	c.dirty = false
}

// Len returns the number of entries.
func (c *Cache) Len() int { return c.size }

// since returns now as the cache's own time.
func (c *Cache) since(now time.Time) int64 {
	if !c.started {
		c.start, c.started = now, true
	}
	return int64(now.Sub(c.start))
}

// time is the reverse of since; never gives the zero Time.
func (c *Cache) time(at int64) time.Time {
	if at == never {
		return time.Time{}
	}
	return c.start.Add(time.Duration(at))
}

// Insert stores a mapping, as a Map-Reply or a configuration gives it. The Key is
// unmapped and masked, locators are unmapped and get their default port.
//
// A TTL of 0 removes the entry of that Key at once (RFC 9301 §5.4). A mapping for
// an existing Key replaces it. More-specific mappings are added beside a
// less-specific one. A less-specific one replaces the more-specific entries that
// cover m.Asked, except those stored at the same now, which came with the same
// message; it lives no longer than the more-specific ones that stay (§5.5), and
// learned less-specific ones live no longer than it does.
//
// It fails with ErrInvalid, with ErrStatic if m is learned and the Key has a
// static mapping, and with ErrFull if there is no room and nothing to evict.
func (c *Cache) Insert(now time.Time, m Mapping) error {
	m.Key = m.normal()
	if err := m.check(); err != nil {
		return fmt.Errorf("mapcache: insert %v: %w", m.Key, err)
	}
	t := c.since(now)
	s, exists := c.find(m.Key)
	if exists && m.Origin != OriginStatic && c.entries.at(s.entry()).origin == OriginStatic {
		return fmt.Errorf("mapcache: insert %v: %w", m.Key, ErrStatic)
	}
	if m.TTL == 0 {
		if exists {
			c.remove(s.entry(), ReasonRemoved)
		}
		return nil
	}
	if m.Origin != OriginStatic {
		c.replaceCovered(m.Key, m.Asked, t)
	}
	if !exists && c.size >= c.cfg.MaxEntries && !c.evict(t) {
		c.full++
		return fmt.Errorf("mapcache: insert %v: %w", m.Key, ErrFull)
	}
	c.store(t, &m, s)
	return nil
}

// check reports what is wrong with a mapping whose Key is normal.
func (m *Mapping) check() error {
	switch {
	case !m.Prefix.IsValid() && m.MAC == MAC{}:
		return fmt.Errorf("%w: no EID-Prefix and no MAC", ErrInvalid)
	case m.Prefix.IsValid() && m.MAC != MAC{}:
		return fmt.Errorf("%w: both EID-Prefix and MAC", ErrInvalid)
	case m.IID > maxIID:
		return fmt.Errorf("%w: instance ID %d has more than 24 bits", ErrInvalid, m.IID)
	case m.TTL < 0 && m.TTL != TTLForever:
		return fmt.Errorf("%w: TTL %v", ErrInvalid, m.TTL)
	case len(m.RLOCs) > 255:
		return fmt.Errorf("%w: %d locators, more than 255", ErrInvalid, len(m.RLOCs))
	case m.Origin != OriginStatic && !m.Origin.verified():
		return fmt.Errorf("%w: origin %v", ErrInvalid, m.Origin)
	}
	for i, r := range m.RLOCs {
		if !r.Addr.IsValid() {
			return fmt.Errorf("%w: locator %d has no address", ErrInvalid, i)
		}
		if r.Format >= numFormats {
			return fmt.Errorf("%w: locator %d has %v", ErrInvalid, i, r.Format)
		}
		if r.IfIndex < 0 || r.IfIndex > math.MaxInt32 {
			return fmt.Errorf("%w: locator %d has interface index %d", ErrInvalid, i, r.IfIndex)
		}
	}
	return nil
}

// verdict is what a mapping does with packets, reachability aside.
func (m *Mapping) verdict() (Verdict, lisp.Action) {
	if len(m.RLOCs) > 0 {
		return Encapsulate, 0
	}
	switch m.Action {
	case lisp.ActionNativelyForward:
		return Native, m.Action
	case lisp.ActionSendMapRequest:
		return SendRequest, m.Action
	default:
		// No-Action forbids to encapsulate and names no other way (RFC 9301 §5.4).
		return Drop, m.Action
	}
}

// members acquires the locators of a mapping. The result is valid until the next call.
func (c *Cache) members(rlocs []RLOC) []member {
	c.scratch = c.scratch[:0]
	for _, r := range rlocs {
		l := r.normal()
		c.scratch = append(c.scratch, member{
			locator:  c.locators.id(l, c.epoch),
			priority: r.Priority, weight: r.Weight,
			mpriority: r.MPriority, mweight: r.MWeight,
			down: r.Down, never: !l.encapsulable(),
		})
	}
	return c.scratch
}

// Remove removes the entry of exactly k, a static one too, and reports whether
// there was one.
func (c *Cache) Remove(now time.Time, k Key) bool {
	c.since(now)
	s, ok := c.find(k.normal())
	if ok {
		c.remove(s.entry(), ReasonRemoved)
	}
	return ok
}

// Get returns the entry of exactly k.
func (c *Cache) Get(k Key) (Entry, bool) {
	s, ok := c.find(k.normal())
	if !ok {
		return Entry{}, false
	}
	return c.entry(s.entry()), true
}

// LookupEntry returns the entry that packets to a match, without marking it used.
// Unlike a View it sees what is not published yet. The entry that frames to a MAC
// match is that of Get.
func (c *Cache) LookupEntry(iid uint32, a netip.Addr) (Entry, bool) {
	s, ok := c.match(HostKey(iid, a))
	if !ok {
		return Entry{}, false
	}
	return c.entry(s.entry()), true
}

// All iterates over the entries of EID-Prefixes in the order of instance, IPv4
// before IPv6, and prefix; then over those of MACs in the order of instance and
// MAC. The cache must not be modified meanwhile.
func (c *Cache) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		if !c.yield(c.main.table.AllSorted(), yield) {
			return
		}
		for _, iid := range slices.Sorted(maps.Keys(c.tries)) {
			if !c.yield(c.tries[iid].table.AllSorted(), yield) {
				return
			}
		}
		c.yield(c.macs.table.AllSorted(), yield)
	}
}

// yield passes entries on and reports whether more are wanted.
func (c *Cache) yield(slots iter.Seq2[netip.Prefix, slot], yield func(Entry) bool) bool {
	for _, s := range slots {
		if !yield(c.entry(s.entry())) {
			return false
		}
	}
	return true
}

// Changes returns the changes since the last call, oldest first. The caller owns
// the slice.
func (c *Cache) Changes() []Change {
	list := c.changes
	c.changes = nil
	return list
}

func (c *Cache) record(ch Change) {
	c.seq++
	ch.Seq = c.seq
	c.counts[ch.Reason]++
	if c.cfg.MaxChanges < 0 {
		return
	}
	if len(c.changes) >= c.cfg.MaxChanges { // drop the older half
		c.changes = slices.Delete(c.changes, 0, (len(c.changes)+1)/2)
	}
	c.changes = append(c.changes, ch)
}

func (c *Cache) recordLocator(id uint32, down bool) {
	reason := ReasonLocatorUp
	if down {
		reason = ReasonLocatorDown
	}
	c.record(Change{Reason: reason, Locator: c.locators.locator(id)})
}
