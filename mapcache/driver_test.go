package mapcache

import (
	"bytes"
	"cmp"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// source feeds a driver with decisions.
type source interface {
	intn(n int) int
	done() bool
}

type randSource struct {
	*rand.Rand
	steps int
}

func (s *randSource) intn(n int) int { return s.IntN(n) }
func (s *randSource) done() bool     { s.steps--; return s.steps < 0 }

type byteSource struct{ b []byte }

func (s *byteSource) intn(n int) int {
	v := 0
	for m := n - 1; m > 0; m >>= 8 {
		if len(s.b) == 0 {
			return 0
		}
		v = v<<8 | int(s.b[0])
		s.b = s.b[1:]
	}
	return v % n
}
func (s *byteSource) done() bool { return len(s.b) == 0 }

// driver applies the same operations to a cache and to the model.
type driver struct {
	t      testing.TB
	src    source
	now    time.Time
	cache  *Cache
	model  model
	seq    uint64
	mirror map[Key]Forwarding // built from the changes alone
	// reported are the keys reported for refresh and not stored since.
	reported map[Key]bool
	// solicited is when entries were marked by an SMR that are not stored since;
	// due are those of them that the next advance has to report.
	solicited map[Key]time.Time
	due       map[Key]bool
	counts    map[string]int
}

func newDriver(t testing.TB, src source, cfg Config) *driver {
	return &driver{
		t: t, src: src, now: time.Unix(1e9, 0), cache: New(cfg),
		model:  model{down: make(map[Locator]map[Cause]bool)},
		mirror: make(map[Key]Forwarding), reported: make(map[Key]bool),
		solicited: make(map[Key]time.Time), due: make(map[Key]bool),
		counts: make(map[string]int),
	}
}

func (d *driver) run() {
	for step := 0; !d.src.done() && !d.t.Failed(); step++ {
		d.step()
		d.follow()
		if step%250 == 0 {
			d.compareAll()
		}
	}
	d.compareAll()
}

// addr is one of few addresses, so that operations meet.
func (d *driver) addr() netip.Addr {
	b := d.src.intn(256)
	if d.src.intn(4) == 0 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(b)})
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(b >> 4 << 4), byte(b << 4)})
}

func (d *driver) mac() MAC { return MAC{2, 5: byte(1 + d.src.intn(6))} }

func (d *driver) key() Key {
	if d.src.intn(8) == 0 {
		return MACKey(uint32(max(0, d.src.intn(6)-3)), d.mac())
	}
	a := d.addr()
	from := 16
	if a.Is6() {
		from = 112
	}
	p := netip.PrefixFrom(a, from+d.src.intn(a.BitLen()-from+1))
	if d.src.intn(50) == 0 {
		p = netip.PrefixFrom(a, 0)
	}
	return MakeKey(uint32(max(0, d.src.intn(6)-3)), p)
}

// existing is the key of some entry, static ones first when there are many of
// them, or any key.
func (d *driver) existing() Key {
	n := len(d.model.entries)
	if n == 0 || d.src.intn(8) == 0 {
		return d.key()
	}
	var statics []Key
	for _, e := range d.model.entries {
		if !e.learned() {
			statics = append(statics, e.Key)
		}
	}
	if len(statics) > 8 {
		return statics[d.src.intn(len(statics))]
	}
	return d.model.entries[d.src.intn(n)].Key
}

func (d *driver) locator() Locator {
	n := d.src.intn(12)
	l := Locator{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), Port: lisp.DataPort}
	switch n {
	case 0, 1, 2:
		l.Addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, 15: byte(n)})
	case 3:
		l.Addr, l.Port = netip.AddrFrom4([4]byte{192, 0, 2, 4}), 5000
	case 5:
		l.Addr, l.Port, l.Format = netip.AddrFrom4([4]byte{192, 0, 2, 4}), 4790, FormatVXLANGPE
	case 11:
		l.Addr = netip.AddrFrom4([4]byte{224, 0, 0, 1})
	}
	return l
}

func (d *driver) mapping() Mapping {
	ttls := []time.Duration{0, TTLForever, time.Second, 5 * time.Second, time.Minute, 15 * time.Minute, 24 * time.Hour, 1000 * time.Hour}
	m := Mapping{
		Key: d.key(), TTL: ttls[d.src.intn(len(ttls))], Action: lisp.Action(d.src.intn(8)),
		MapVersion: uint16(d.src.intn(4)), Authoritative: d.src.intn(2) == 0,
	}
	switch d.src.intn(8) {
	case 0:
		m.Origin = OriginStatic
	case 1, 2:
		m.Origin = OriginNotify
	}
	if d.src.intn(3) == 0 {
		m.Asked = HostKey(0, d.addr()).Prefix
	}
	weights := []uint8{0, 1, 1, 2, 3, 25, 50, 100}
	for range d.src.intn(4) {
		r := RLOC{Locator: d.locator(), Priority: uint8(1 + d.src.intn(3)), Weight: weights[d.src.intn(len(weights))]}
		switch d.src.intn(12) {
		case 0:
			r.Priority = 255
		case 1:
			r.Down = true
		}
		m.RLOCs = append(m.RLOCs, r)
	}
	return m
}

func (d *driver) step() {
	switch op := d.src.intn(20); {
	case op < 7:
		d.insert(d.mapping())
	case op == 7:
		k := d.existing()
		assert.Equal(d.t, d.model.find(k) != nil, d.cache.Remove(d.now, k), "remove %v", k)
		d.model.remove(k)
	case op == 8:
		d.setDown()
	case op == 9:
		d.model.no4, d.model.no6 = d.src.intn(4) == 0, d.src.intn(4) == 0
		d.cache.SetSourceFamilies(!d.model.no4, !d.model.no6)
	case op == 10:
		waits := []time.Duration{0, time.Nanosecond, time.Second, 3 * time.Second, 10 * time.Second, time.Minute, time.Hour, 25 * time.Hour}
		d.advance(d.now.Add(waits[d.src.intn(len(waits))]))
	case op == 11 && d.src.intn(20) == 0:
		d.restart()
	case op == 11 && d.src.intn(3) == 0:
		d.setStatus()
	case op == 11:
		d.cache.Used(d.now, d.existing())
	case op == 12 && d.src.intn(2) == 0:
		d.solicit()
	case op <= 13: // to the next deadline, as a runner would
		if at := d.cache.Deadline(); at.After(d.now) {
			d.advance(at)
		}
	default:
		d.forward()
	}
}

func (d *driver) insert(m Mapping) {
	before := d.cache.Len()
	exists := d.model.find(m.Key) != nil
	err := d.cache.Insert(d.now, m)
	if errors.Is(err, ErrFull) {
		// Entries that the new one would have replaced are gone all the same.
		d.counts["full"]++
		assert.False(d.t, exists)
		assert.GreaterOrEqual(d.t, before, d.cache.cfg.MaxEntries)
		return
	}
	d.applyEvictions()
	want := d.model.insert(d.now, m, d.cache.cfg)
	require.ErrorIs(d.t, err, want, "%+v", m)
	assert.LessOrEqual(d.t, d.cache.Len(), d.cache.cfg.MaxEntries)
}

// setStatus changes R bits, as Locator-Status-Bits do.
func (d *driver) setStatus() {
	k, bits := d.existing(), d.src.intn(1<<12)
	down := func(l Locator) bool { return bits>>(l.salt()%12)&1 != 0 }
	changed := false
	if e := d.model.find(k); e != nil {
		e.RLOCs = slices.Clone(e.RLOCs)
		for i := range e.RLOCs {
			r := &e.RLOCs[i]
			changed = changed || r.Down != down(r.Locator)
			r.Down = down(r.Locator)
		}
	}
	assert.Equal(d.t, changed, d.cache.SetStatus(k, down), "%v", k)
	if changed {
		d.counts["status"]++
		reported, solicited, due := d.reported[k], d.solicited[k], d.due[k]
		d.follow()
		// That is no answer to a Map-Request.
		if reported {
			d.reported[k] = true
		}
		if due {
			d.due[k] = true
		}
		if !solicited.IsZero() {
			d.solicited[k] = solicited
		}
	}
}

// restart goes on with what a new cache imports of what the old one exports, and
// the static mappings, as from a configuration.
func (d *driver) restart() {
	d.counts["restart"]++
	old := d.cache
	d.cache, d.seq = New(old.cfg), 0
	clear(d.mirror)
	clear(d.reported)
	clear(d.solicited)
	clear(d.due)
	for s := range old.Export(d.now) {
		ok, err := d.cache.Import(d.now, s)
		require.NoError(d.t, err)
		require.Equal(d.t, s.Origin != OriginStatic, ok, "%v", s.Key)
		if !ok {
			require.NoError(d.t, d.cache.Insert(d.now, s.Mapping))
		}
	}
	ends := make([]time.Time, len(d.model.entries))
	for i, e := range d.model.entries {
		ends[i] = d.model.expires(e)
	}
	for i, e := range d.model.entries {
		e.updated, e.natural = d.now, ends[i]
	}
	clear(d.model.down)
	d.model.families = families{}
}

// applyEvictions removes from the model what the cache has evicted: which is the
// cache's free choice, but for some rules.
func (d *driver) applyEvictions() {
	gone := make(map[Key]bool)
	for _, ch := range d.cache.changes {
		if ch.Reason == ReasonEvicted {
			gone[ch.Key] = true
		}
	}
	for k := range gone {
		e := d.model.find(k)
		require.NotNil(d.t, e)
		assert.True(d.t, e.learned(), "static %v evicted", k)
		for _, p := range d.model.entries {
			if p.learned() && p.IID == k.IID && p.Prefix != k.Prefix && within(k.Prefix, p.Prefix) {
				assert.True(d.t, gone[p.Key], "%v evicted and the less-specific %v kept", k, p.Key)
			}
		}
	}
	for k := range gone {
		d.model.remove(k)
	}
}

func (d *driver) setDown() {
	l, cause, down := d.locator(), Cause(d.src.intn(int(CauseAdmin)+1)), d.src.intn(2) == 0
	listed := slices.ContainsFunc(d.model.entries, func(e *modelEntry) bool {
		return slices.ContainsFunc(e.RLOCs, func(r RLOC) bool { return r.Locator == l })
	})
	was := d.model.up(l)
	if listed {
		causes := d.model.down[l]
		switch {
		case down && causes == nil:
			d.model.down[l] = map[Cause]bool{cause: true}
		case down:
			causes[cause] = true
		default:
			delete(causes, cause)
		}
	}
	assert.Equal(d.t, listed && was != d.model.up(l), d.cache.SetDown(l, cause, down))
	if listed {
		assert.Equal(d.t, d.model.up(l), d.cache.Reachable(l))
	} else {
		assert.True(d.t, d.cache.Reachable(l))
	}
}

func (d *driver) advance(now time.Time) {
	d.now = now
	for {
		for _, k := range d.cache.Advance(now) {
			d.counts["refresh"]++
			assert.False(d.t, d.reported[k], "%v reported twice", k)
			e := d.model.find(k)
			require.NotNil(d.t, e, "%v reported", k)
			assert.True(d.t, e.learned())
			assert.True(d.t, d.model.expires(e).After(now), "%v reported too late", k)
			d.reported[k] = true
			delete(d.due, k)
		}
		d.follow()
		if at := d.cache.Deadline(); at.IsZero() || at.After(now) {
			break
		}
	}
	d.model.expire(now)
	assert.Empty(d.t, d.due, "marked by an SMR but not reported")
}

func (d *driver) solicit() {
	k := d.existing()
	var e *modelEntry
	for _, x := range d.model.entries {
		if (x.Key == k || x.IID == k.IID && within(k.Prefix, x.Prefix)) && (e == nil || x.Prefix.Bits() > e.Prefix.Bits()) {
			e = x
		}
	}
	want := e != nil && e.learned()
	if want {
		last, marked := d.solicited[e.Key]
		want = !marked || d.now.Sub(last) >= smrHold
	}
	assert.Equal(d.t, want, d.cache.MarkSMR(d.now, k), "SMR for %v", k)
	if want {
		d.counts["smr"]++
		d.solicited[e.Key], d.due[e.Key] = d.now, true
		delete(d.reported, e.Key)
	}
}

func (d *driver) forward() {
	if d.src.intn(8) != 0 {
		d.cache.Publish()
	}
	if d.cache.dirty {
		return // the model knows of no older Views
	}
	iid, hash := uint32(d.src.intn(3)), uint32(d.src.intn(1<<16)<<16|d.src.intn(1<<16))
	view := d.cache.View()
	if d.src.intn(6) == 0 {
		dst := d.mac()
		d.check(d.model.find(MACKey(iid, dst)), view.ForwardMAC(iid, dst, hash), hash, "mac")
		return
	}
	dst := d.addr()
	d.check(d.model.lookup(iid, dst), view.Forward(iid, dst, hash), hash, "hit")
}

// check compares a decision with what the entry e of the model, or nil, says.
func (d *driver) check(e *modelEntry, got Decision, hash uint32, count string) {
	if e == nil {
		require.Equal(d.t, Decision{}, got)
		return
	}
	d.counts[count]++
	entry, ok := d.cache.Get(e.Key)
	require.True(d.t, ok)
	assert.Equal(d.t, entry.ID, got.EntryID, "%v", e.Key)
	if len(e.RLOCs) == 0 {
		want := map[lisp.Action]Verdict{lisp.ActionNativelyForward: Native, lisp.ActionSendMapRequest: SendRequest}[e.Action]
		if want == Miss {
			want = Drop
		}
		assert.Equal(d.t, want, got.Verdict)
		assert.Equal(d.t, e.Action, got.Action)
		return
	}
	choices := d.model.choices(e.RLOCs, hash)
	if len(choices) == 0 {
		assert.Equal(d.t, NoLocator, got.Verdict, "%+v", e.RLOCs)
		return
	}
	require.Equal(d.t, Encapsulate, got.Verdict, "%+v", e.RLOCs)
	if len(choices) == 1 {
		assert.Equal(d.t, choices[0], got.Locator, "%+v hash %#x", e.RLOCs, hash)
	} else {
		d.counts["close"]++
		assert.Contains(d.t, choices, got.Locator)
	}
	assert.Equal(d.t, got.Locator, d.cache.View().Locator(got.LocatorID))
}

// follow drains the change list into the mirror.
func (d *driver) follow() {
	for _, ch := range d.cache.Changes() {
		d.seq++
		require.Equal(d.t, d.seq, ch.Seq)
		d.counts[ch.Reason.String()]++
		switch ch.Reason {
		case ReasonLocatorUp, ReasonLocatorDown:
			assert.Equal(d.t, ch.Reason == ReasonLocatorUp, d.cache.Reachable(ch.Locator))
			continue
		case ReasonAdded:
			assert.False(d.t, d.mirror[ch.Key].Present, "%v was there", ch.Key)
		case ReasonRefreshed:
			assert.Equal(d.t, ch.Old, ch.New)
		default:
			assert.NotEqual(d.t, ch.Old, ch.New)
		}
		assert.Equal(d.t, d.mirror[ch.Key], ch.Old, "%v %v", ch.Reason, ch.Key)
		delete(d.reported, ch.Key)
		delete(d.solicited, ch.Key)
		delete(d.due, ch.Key)
		if ch.New.Present {
			d.mirror[ch.Key] = ch.New
		} else {
			delete(d.mirror, ch.Key)
		}
	}
}

// compareAll compares every entry, and checks what must always hold.
func (d *driver) compareAll() {
	want := slices.Clone(d.model.entries)
	slices.SortFunc(want, func(a, b *modelEntry) int {
		return cmp.Or(cmp.Compare(packKey(a.Key).kind/eidMAC, packKey(b.Key).kind/eidMAC), cmp.Compare(a.IID, b.IID),
			a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), bytes.Compare(a.MAC[:], b.MAC[:]))
	})
	n := 0
	for e := range d.cache.All() {
		require.Less(d.t, n, len(want), "too many entries: %v", e.Key)
		w := want[n]
		n++
		assert.Equal(d.t, w.Mapping, e.Mapping)
		assert.Equal(d.t, w.updated, e.Updated, "%v", e.Key)
		assert.Equal(d.t, d.model.expires(w), e.Expires, "%v", e.Key)
		assert.Equal(d.t, d.reported[e.Key], e.Refreshing, "%v", e.Key)
		assert.Equal(d.t, !d.solicited[e.Key].IsZero(), e.Solicited, "%v", e.Key)
		assert.True(d.t, d.mirror[e.Key].Present, "%v", e.Key)
	}
	assert.Len(d.t, want, n)
	assert.Len(d.t, d.mirror, n)
	assert.Equal(d.t, n, d.cache.Len())
	checkInvariants(d.t, d.cache)
}

// checkInvariants checks the cache's inner books.
func checkInvariants(t testing.TB, c *Cache) {
	t.Helper()
	setRefs, queued := make(map[uint32]uint32), int32(0)
	rings := map[uint32]bool{}
	for _, r := range c.rings {
		last := uint32(0)
		for id := r.front; id != 0; id = c.entries.at(id).next {
			require.Equal(t, last, c.entries.at(id).prev)
			rings[id], last = true, id
		}
		require.Equal(t, last, r.back)
	}
	for id := uint32(1); id <= c.entryIDs.next; id++ {
		e := c.entries.at(id)
		if !e.alive() {
			continue
		}
		setRefs[e.set]++
		s, ok := c.find(e.eid.key())
		require.True(t, ok)
		require.Equal(t, makeSlot(id, e.set, c.sets.hot.at(e.set)), s)
		require.Equal(t, id, s.entry())
		require.Equal(t, e.set, s.set())
		require.Equal(t, e.learned(), rings[id])
		require.Equal(t, e.expires != never, e.pos >= 0)
		if e.pos >= 0 {
			queued++
			require.Equal(t, id, c.queue.get(e.pos).id)
			if up := (e.pos - 1) / 2; e.pos > 0 {
				require.LessOrEqual(t, c.queue.get(up).at, c.queue.get(e.pos).at)
			}
		}
	}
	require.Equal(t, c.queue.n, queued)
	locRefs := make(map[uint32]uint32)
	sets := 0
	for id := uint32(1); id <= c.sets.ids.next; id++ {
		require.Equal(t, setRefs[id], *c.sets.refs.at(id))
		if setRefs[id] == 0 {
			continue
		}
		sets++
		h := c.sets.hot.at(id)
		require.Equal(t, id, c.sets.find(c.sets.index.links.at(id).hash, h.verdict, h.action, h.choice.members), "two sets are equal")
		for _, m := range h.choice.members {
			locRefs[m.locator]++
		}
	}
	require.Equal(t, sets, int(c.sets.index.n))
	locs := 0
	for id := uint32(1); id <= c.locators.ids.next; id++ {
		require.Equal(t, locRefs[id], c.locators.cold.at(id).refs)
		if locRefs[id] > 0 {
			locs++
			require.Equal(t, c.locators.cold.at(id).causes != 0, c.locators.down.test(id))
			require.Equal(t, id, c.locators.find(c.locators.locator(id)), "two locators are equal")
		}
	}
	require.Equal(t, locs, int(c.locators.index.n))
	require.True(t, c.locators.down.test(noLocator))
	for iid, tr := range c.tries {
		require.Positive(t, tr.table.Size(), "instance %d", iid)
	}
}
