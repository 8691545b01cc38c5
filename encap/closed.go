package encap

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/time/rate"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Closed says what is used that only a trusted and closed network may use. On the
// public Internet all of it is off, as by default: anyone could forge it (RFC 9300
// §4.1, §16). The control plane says by SetSignals what is sent and expected; both
// have to be configured alike. It applies to [mapcache.FormatLISP] only.
type Closed struct {
	// MapVersions sends the Map-Versions of both mappings, and drops packets with
	// ones that do not fit (RFC 9302 §7). They stand where a nonce stands: a packet
	// with a nonce has none.
	MapVersions bool
	// LocatorStatusBits sends and reports LSBs (RFC 9300 §10). With MapVersions
	// too, as the RFC recommends, they go and count only beside a Source
	// Map-Version that both ends know, so that each bit means the same locator.
	LocatorStatusBits bool
	// EchoNonce echoes nonces, and asks for echoes (RFC 9300 §10.1).
	EchoNonce bool
}

// closedNet is the state of a Forwarder of a closed network.
type closedNet struct {
	cfg      Closed
	discover func(mapcache.Discovery)

	mu      sync.Mutex // serialises SetSignals
	own     atomic.Pointer[ownSignals]
	entries entrySignals
	reports reportLimiter
}

func newClosedNet(cfg Closed, discover func(mapcache.Discovery)) *closedNet {
	if cfg == (Closed{}) {
		return nil
	}
	c := &closedNet{cfg: cfg, discover: discover}
	c.own.Store(new(ownSignals))
	c.entries.chunks.Store(new([]*entryChunk))
	c.reports.init()
	return c
}

// SetSignals takes what packets are to say and what is expected of them. Without
// Config.Closed it does nothing.
func (f *Forwarder) SetSignals(s mapcache.Signals) {
	c := f.closedNet
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Locals != nil {
		c.own.Store(newOwnSignals(s.Locals))
	}
	for _, e := range s.Entries {
		c.entries.set(e)
	}
	for _, l := range s.Locators {
		if cell := f.remotes.closedLocator(l.Addr.Unmap()); cell != nil {
			cell.set(l)
		}
	}
}

// mark puts into the header of out, a packet to an EID of a map-cache entry, what
// a closed network says there.
func (c *closedNet) mark(out *Outgoing, p *inner, entry uint32) {
	if out.Format != mapcache.FormatLISP {
		return
	}
	h := out.header
	nonce := uint32(0)
	if c.cfg.EchoNonce && out.counter.closed != nil {
		nonce = out.counter.closed.next()
	}
	own := c.own.Load().find(out.overlay.iid, p.src)
	versions := false
	if nonce != 0 {
		h = h.WithNonce(nonce, nonce&nonceAsk != 0)
	} else if c.cfg.MapVersions {
		if to := unpackEntry(c.entries.load(entry)).MapVersion; to != 0 {
			h, versions = h.WithMapVersions(own.MapVersion, to), true
		}
	}
	if c.cfg.LocatorStatusBits && own.UseLSBs && (versions || !c.cfg.MapVersions) {
		h = h.WithLSBs(own.LSBs)
	}
	out.header = h
}

// check looks at what the header of a packet from a closed network says. The
// packet is a good one for an EID of ours. The result is DropNone, or why it is
// dropped all the same.
func (c *closedNet) check(g *ingress, h lisp.DataHeader, o *overlay, p *inner) DropReason {
	cell := g.counter.closed
	if nonce, ok := h.Nonce(); ok && c.cfg.EchoNonce && cell != nil {
		c.nonce(cell, g.source, nonce, h.EchoRequest())
	}
	from, to, versions := h.MapVersions()
	if versions {
		own := c.own.Load().find(o.iid, p.dst)
		switch {
		case !c.cfg.MapVersions, own.MapVersion == 0, to == 0:
			return DropMapVersion
		case to == own.MapVersion:
		case mapcache.NewerMapVersion(to, own.MapVersion):
			c.report(g, mapcache.DiscoveryInvalidVersion, hostKeyOf(o, p.dst), p.src, 0, to)
			return DropMapVersion
		case mapcache.NewerMapVersion(own.Oldest, to):
			return DropMapVersion
		default:
			c.report(g, mapcache.DiscoveryStaleVersion, hostKeyOf(o, p.dst), p.src, 0, to)
			if cell != nil && cell.refuse.Load() {
				return DropMapVersion
			}
		}
	}
	lsbs, have := h.LSBs()
	have = have && c.cfg.LocatorStatusBits
	if !versions && !have {
		return DropNone
	}
	id, ok := g.view.LookupID(o.iid, p.src)
	if !ok {
		return DropNone
	}
	e := unpackEntry(c.entries.load(id))
	if versions && from != 0 && e.MapVersion != 0 && from != e.MapVersion {
		if !mapcache.NewerMapVersion(from, e.MapVersion) {
			return DropMapVersion
		}
		c.report(g, mapcache.DiscoveryNewerSource, hostKeyOf(o, p.src), p.src, 0, from)
	}
	if have && (!c.cfg.MapVersions || e.MapVersion == 0 || versions && from == e.MapVersion) {
		n := e.Locators
		if _, tagged := h.InstanceID(); tagged {
			n = min(n, 8)
		}
		// Bits beyond the locators of the mapping mean nothing.
		mask := uint32(1)<<n - 1
		if (lsbs^e.LSBs)&mask != 0 {
			c.report(g, mapcache.DiscoveryLSBs, hostKeyOf(o, p.src), p.src, e.LSBs&^mask|lsbs&mask, from)
		}
	}
	return DropNone
}

func hostKeyOf(o *overlay, a netip.Addr) mapcache.Key { return holdKey{o, a}.mapKey() }

// nonce takes a nonce from a locator: one that is to be echoed, or an echo.
func (c *closedNet) nonce(cell *closedLocator, source netip.Addr, nonce uint32, ask bool) {
	kind := mapcache.DiscoveryEchoed
	switch want := cell.want.Load(); {
	case ask:
		cell.echo.Store(nonce | noncePresent)
		if want&nonceAsk == 0 {
			return
		}
		kind = mapcache.DiscoveryEchoAsked
	case want&noncePresent == 0 || want&nonceMask != nonce:
		return // a random one, or a late echo
	}
	d := mapcache.Discovery{Kind: kind, Locator: mapcache.Locator{Addr: source, Port: dataPort}}
	if c.reports.allow(d) {
		c.discover(d)
	}
}

// report tells the control plane what a packet says, unless it has just been told.
func (c *closedNet) report(g *ingress, kind mapcache.DiscoveryKind, key mapcache.Key, source netip.Addr, lsbs uint32, version uint16) {
	d := mapcache.Discovery{
		Kind: kind, Key: key, Locator: mapcache.Locator{Addr: g.source, Port: dataPort},
		Source: source, LSBs: lsbs, MapVersion: version,
	}
	if c.reports.allow(d) {
		c.discover(d)
	}
}

// closedLocator is what a closed network knows of an outer address. Both
// directions read it and seldom write it.
type closedLocator struct {
	want   atomic.Uint32 // the nonce whose echo is awaited
	echo   atomic.Uint32 // the nonce that the next packet there echoes
	refuse atomic.Bool   // its packets with a stale Map-Version
}

const (
	nonceMask    = 1<<24 - 1
	noncePresent = 1 << 24
	nonceAsk     = 1 << 25
)

func (l *closedLocator) set(s mapcache.LocatorSignal) {
	want := uint32(0)
	if s.Nonce != 0 {
		want = s.Nonce&nonceMask | noncePresent
		if s.Ask {
			want |= nonceAsk
		}
	}
	l.want.Store(want)
	l.refuse.Store(s.RefuseStale)
}

// next returns the nonce of the next packet, with nonceAsk if it asks for an
// echo; 0 for none.
func (l *closedLocator) next() uint32 {
	if n := l.echo.Load(); n != 0 && l.echo.CompareAndSwap(n, 0) {
		return n
	}
	if n := l.want.Load(); n&nonceAsk != 0 {
		return n
	}
	return 0
}

// ownSignals is the LocalSignals by instance. It is never changed.
type ownSignals struct {
	iids []uint32
	sets []ownSet
}

// ownSet finds the longest of the EID-Prefixes of an instance that matches.
type ownSet struct {
	few  []mapcache.LocalSignal // the longest first
	many *bart.Table[uint32]    // index of few
}

func newOwnSignals(list []mapcache.LocalSignal) *ownSignals {
	s := new(ownSignals)
	for _, l := range list {
		i := slices.Index(s.iids, l.IID)
		if i < 0 {
			i = len(s.iids)
			s.iids, s.sets = append(s.iids, l.IID), append(s.sets, ownSet{})
		}
		s.sets[i].few = append(s.sets[i].few, l)
	}
	for i := range s.sets {
		set := &s.sets[i]
		slices.SortStableFunc(set.few, func(a, b mapcache.LocalSignal) int { return b.Prefix.Bits() - a.Prefix.Bits() })
		if len(set.few) > fewEIDs {
			set.many = new(bart.Table[uint32])
			for j := range set.few {
				set.many.Insert(set.few[j].Prefix, uint32(j))
			}
		}
	}
	return s
}

var noSignal mapcache.LocalSignal

// find returns what is said of an EID of ours, which is nothing if it is unknown.
func (s *ownSignals) find(iid uint32, a netip.Addr) *mapcache.LocalSignal {
	for i := range s.iids {
		if s.iids[i] != iid {
			continue
		}
		set := &s.sets[i]
		if set.many != nil {
			if j, ok := set.many.Lookup(a); ok {
				return &set.few[j]
			}
			break
		}
		for j := range set.few {
			if set.few[j].Prefix.Contains(a) {
				return &set.few[j]
			}
		}
		break
	}
	return &noSignal
}

// entrySignals is the EntrySignals by the number of the entry. A reader sees each
// as a whole: it is one word.
type entrySignals struct {
	chunks atomic.Pointer[[]*entryChunk] // longer and longer; each is shared by all versions
}

type entryChunk [1 << entryChunkBits]atomic.Uint64

const (
	entryChunkBits = 10
	maxEntryID     = 1 << 27
)

func (t *entrySignals) load(id uint32) uint64 {
	chunks := *t.chunks.Load()
	if i := int(id >> entryChunkBits); i < len(chunks) {
		return chunks[i][id%(1<<entryChunkBits)].Load()
	}
	return 0
}

func (t *entrySignals) set(e mapcache.EntrySignal) {
	word := packEntry(e)
	chunks := *t.chunks.Load()
	i := int(e.EntryID >> entryChunkBits)
	if i >= len(chunks) {
		if word == 0 || e.EntryID >= maxEntryID {
			return
		}
		chunks = slices.Clone(chunks)
		for i >= len(chunks) {
			chunks = append(chunks, new(entryChunk))
		}
		t.chunks.Store(&chunks)
	}
	chunks[i][e.EntryID%(1<<entryChunkBits)].Store(word)
}

func packEntry(e mapcache.EntrySignal) uint64 {
	return uint64(e.MapVersion&0xfff)<<40 | uint64(min(e.Locators, 32))<<32 | uint64(e.LSBs)
}

func unpackEntry(w uint64) mapcache.EntrySignal {
	return mapcache.EntrySignal{MapVersion: uint16(w >> 40), Locators: uint8(w >> 32), LSBs: uint32(w)}
}

// reportLimiter lets a packet make a report only once in a while: one of its kind
// about the same key and locator in reportInterval, and reportRate a second in all.
// What it suppresses is reported later if it is still so.
type reportLimiter struct {
	start time.Time
	slots [512]atomic.Uint64 // which report, and when: 32 bits each, direct-mapped
	rate  *rate.Limiter
}

const (
	reportInterval = time.Second
	reportRate     = 100
)

func (l *reportLimiter) init() {
	l.start = time.Now()
	l.rate = rate.NewLimiter(reportRate, reportRate)
}

func (l *reportLimiter) allow(d mapcache.Discovery) bool {
	hash := reportHash(d)
	// In milliseconds; it may wrap around. 0 is the empty slot.
	now := uint32(time.Since(l.start).Milliseconds()) + uint32(reportInterval.Milliseconds())
	slot := &l.slots[hash%uint32(len(l.slots))]
	was := slot.Load()
	if uint32(was>>32) == hash && now-uint32(was) < uint32(reportInterval.Milliseconds()) {
		return false
	}
	return slot.CompareAndSwap(was, uint64(hash)<<32|uint64(now)) && l.rate.Allow()
}

// reportHash is FNV-1a over what two reports are told apart by. It need not
// withstand attacks: there is the rate for all.
func reportHash(d mapcache.Discovery) uint32 {
	h := uint32(2166136261)
	mix := func(b byte) { h = (h ^ uint32(b)) * 16777619 }
	mix(byte(d.Kind))
	if d.Kind != mapcache.DiscoveryEchoed && d.Kind != mapcache.DiscoveryEchoAsked {
		for i := range 3 {
			mix(byte(d.Key.IID >> (8 * i)))
		}
		for _, b := range d.Key.Prefix.Addr().As16() {
			mix(b)
		}
	}
	for _, b := range d.Locator.Addr.As16() {
		mix(b)
	}
	return h
}
