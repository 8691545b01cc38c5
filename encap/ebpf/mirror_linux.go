package ebpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// errFull says that a table in the kernel has no room.
var errFull = errors.New("table full")

const (
	direct     = 0x80000000 // DIRECT of tables.h
	maxMembers = 8          // MAX_MEMBERS
)

// tables is where a mirror writes to: the maps in the kernel, or a model of them.
type tables interface {
	putEntry(k eidKey, id, set uint32) error
	changeEntry(id, set uint32) error
	deleteEntry(k eidKey, id uint32) error
	putSet(id uint32, s *bpfSet) error
	putLocator(id uint32, l *bpfLocator) error
	putSource(a netip.Addr, id uint32) error
	deleteSource(a netip.Addr) error
}

// eidKey is a mapcache.Key in short. A MAC, which is no affair of the kernel's
// but keeps locators alive, has family 0.
type eidKey struct {
	iid          uint32
	family, bits uint8
	addr         [16]byte
}

func makeKey(k mapcache.Key) eidKey {
	e := eidKey{iid: k.IID}
	if !k.Prefix.IsValid() {
		copy(e.addr[:], k.MAC[:])
		return e
	}
	e.family, e.bits = 6, uint8(k.Prefix.Bits())
	if k.Prefix.Addr().Is4() {
		e.family = 4
		a := k.Prefix.Addr().As4()
		copy(e.addr[:], a[:])
		return e
	}
	e.addr = k.Prefix.Addr().As16()
	return e
}

func (e eidKey) ip() netip.Addr {
	if e.family == 4 {
		return netip.AddrFrom4([4]byte(e.addr[:4]))
	}
	return netip.AddrFrom16(e.addr)
}

func (e eidKey) key() mapcache.Key {
	return mapcache.Key{IID: e.iid, Prefix: netip.PrefixFrom(e.ip(), int(e.bits))}
}

// host tells whether the key is a single EID, which is looked up first.
func (e eidKey) host() bool { return int(e.bits) == e.ip().BitLen() }

// mirror keeps the kernel's copy of the map-cache. It holds what it has written, so
// that locators and sets are written once and their numbers given back.
type mirror struct {
	t tables

	entries  map[eidKey]mirrored
	keys     []eidKey // by entry id
	entryIDs ids

	sets   map[string]*set
	setIDs ids

	locators   map[mapcache.Locator]uint32
	state      []locatorState // by locator id
	locatorIDs ids
	sources    map[netip.Addr]uint32 // the locator that arrivals are counted for; by its next, others with the address
	mtus       map[netip.Addr]uint32 // path MTUs that are known

	// unsourced tells whether we have no locator of a family to send from; such
	// locators start as down, as in the map-cache. slow tells whether packets to
	// a locator take the slow path.
	unsourced func(netip.Addr) bool
	slow      func(*mapcache.Locator) bool
	// released is told of a locator number that is given back.
	released func(id uint32, l mapcache.Locator)
	// begins is told of an entry number that is given out.
	begins func(id uint32)
}

type mirrored struct {
	id  uint32 // 0: not in the kernel
	set *set
}

// set is what entries share that have equal locators. The set of those that have
// none is in no table.
type set struct {
	refs     int
	key      string
	locators []uint32
	id       uint32 // in the table of sets; 0: not there
	value    uint32 // of entries that have it
}

type locatorState struct {
	locator    mapcache.Locator
	refs       int
	prev, next uint32 // others with the address; 0: there is none
	down       bool
	written    bpfLocator
}

func newMirror(t tables, entries, locators, sets int) *mirror {
	m := &mirror{
		t:         t,
		mtus:      make(map[netip.Addr]uint32),
		unsourced: func(netip.Addr) bool { return false },
		slow:      func(*mapcache.Locator) bool { return false },
		released:  func(uint32, mapcache.Locator) {},
		begins:    func(uint32) {},
		entryIDs:  newIDs(entries), locatorIDs: newIDs(locators), setIDs: newIDs(sets),
	}
	m.forget()
	return m
}

// forget empties the mirror, not the tables.
func (m *mirror) forget() {
	m.entries = make(map[eidKey]mirrored)
	m.sets = make(map[string]*set)
	m.locators = make(map[mapcache.Locator]uint32)
	m.sources = make(map[netip.Addr]uint32)
}

// change applies one change.
func (m *mirror) change(now time.Time, c *mapcache.Change) error {
	switch {
	case c.Reason == mapcache.ReasonLocatorUp, c.Reason == mapcache.ReasonLocatorDown:
		return m.setDown(c.Locator, c.Reason == mapcache.ReasonLocatorDown)
	case c.New.Present:
		return m.put(now, makeKey(c.Key), &c.New)
	}
	return m.remove(now, makeKey(c.Key))
}

// setDown notes whether a locator is usable: one write.
func (m *mirror) setDown(l mapcache.Locator, down bool) error {
	id, ok := m.locators[normal(l)]
	if !ok {
		return nil
	}
	m.state[id].down = down
	return m.writeLocator(id)
}

func normal(l mapcache.Locator) mapcache.Locator {
	l.Addr = l.Addr.Unmap().WithZone("")
	if l.Port == 0 {
		l.Port = l.Format.Port()
	}
	return l
}

// put stores an entry. What is new comes first, so that a packet finds either the
// old state or the new one.
func (m *mirror) put(now time.Time, k eidKey, f *mapcache.Forwarding) error {
	s, err := m.take(now, f)
	if err != nil {
		return err
	}
	old, known := m.entries[k]
	e := mirrored{id: old.id, set: s}
	if k.family != 0 && e.id == 0 {
		id, ok := m.entryIDs.take(now)
		if !ok {
			return errors.Join(errFull, m.release(now, s))
		}
		e.id = id
		for int(id) >= len(m.keys) {
			m.keys = append(m.keys, eidKey{})
		}
		m.keys[id] = k
		m.begins(id)
	}
	switch {
	case k.family == 0:
	case !known:
		if err = m.t.putEntry(k, e.id, s.value); err != nil {
			m.entryIDs.put(now, e.id)
		}
	case old.set.value != s.value:
		err = m.t.changeEntry(e.id, s.value)
	}
	if err != nil {
		return errors.Join(err, m.release(now, s))
	}
	m.entries[k] = e
	if known {
		return m.release(now, old.set)
	}
	return nil
}

func (m *mirror) remove(now time.Time, k eidKey) error {
	old, known := m.entries[k]
	if !known {
		return nil
	}
	delete(m.entries, k)
	var err error
	if old.id != 0 {
		err = m.t.deleteEntry(k, old.id)
		m.keys[old.id] = eidKey{}
		m.entryIDs.put(now, old.id)
	}
	return errors.Join(err, m.release(now, old.set))
}

// take returns the set of a mapping and counts a reference to it.
func (m *mirror) take(now time.Time, f *mapcache.Forwarding) (*set, error) {
	shares := mapcache.Shares(f.RLOCs)
	locators := make([]uint32, 0, len(f.RLOCs))
	giveBack := func() {
		for _, id := range locators {
			_ = m.releaseLocator(now, id) // another error is under way, or it has other users
		}
	}
	key := make([]byte, 0, 8*len(f.RLOCs))
	for i := range f.RLOCs {
		r := &f.RLOCs[i]
		id, err := m.locator(now, r.Locator)
		if err != nil {
			giveBack()
			return nil, err
		}
		locators = append(locators, id)
		key = binary.NativeEndian.AppendUint32(key, id)
		usable := byte(0)
		if shares[i].Usable {
			usable = 1
		}
		key = append(key, r.Priority, r.Weight, usable)
	}
	if s := m.sets[string(key)]; s != nil {
		giveBack()
		s.refs++
		return s, nil
	}
	s := &set{refs: 1, key: string(key), locators: locators}
	switch {
	case len(shares) == 0 || f.Verdict != mapcache.Encapsulate:
	case len(shares) == 1 && shares[0].Usable:
		s.value = direct | locators[0]
	case len(shares) <= maxMembers:
		id, ok := m.setIDs.take(now)
		if !ok {
			break // the slow path
		}
		if err := m.t.putSet(id, m.table(f.RLOCs, shares, locators)); err != nil {
			m.setIDs.put(now, id)
			giveBack()
			return nil, err
		}
		s.id, s.value = id, id
	}
	m.sets[s.key] = s
	return s, nil
}

// table is a set as the programs read it.
func (m *mirror) table(rlocs []mapcache.RLOC, shares []mapcache.Share, locators []uint32) *bpfSet {
	t := &bpfSet{Count: uint32(len(rlocs)), Best: 255}
	for i := range rlocs {
		r := &rlocs[i]
		t.Member[i] = bpfMember{
			Locator: locators[i], Salt: r.Salt(), End: shares[i].End, Of: shares[i].Of,
			Priority: r.Priority, Weight: r.Weight,
		}
		if shares[i].Usable {
			t.Member[i].Usable = 1
			t.Best = min(t.Best, uint32(r.Priority))
		}
	}
	return t
}

func (m *mirror) release(now time.Time, s *set) error {
	if s.refs--; s.refs > 0 {
		return nil
	}
	delete(m.sets, s.key)
	if s.id != 0 {
		m.setIDs.put(now, s.id)
	}
	var errs []error
	for _, id := range s.locators {
		errs = append(errs, m.releaseLocator(now, id))
	}
	return errors.Join(errs...)
}

// locator returns the number of a locator and counts a reference to it.
func (m *mirror) locator(now time.Time, l mapcache.Locator) (uint32, error) {
	l = normal(l)
	if id, ok := m.locators[l]; ok {
		m.state[id].refs++
		return id, nil
	}
	id, ok := m.locatorIDs.take(now)
	if !ok {
		return 0, errFull
	}
	for int(id) >= len(m.state) {
		m.state = append(m.state, locatorState{})
	}
	m.state[id] = locatorState{locator: l, refs: 1, down: m.unsourced(l.Addr)}
	err := m.writeLocator(id)
	if err == nil {
		err = m.t.putSource(l.Addr, id)
	}
	if err != nil {
		m.state[id] = locatorState{}
		m.locatorIDs.put(now, id)
		return 0, err
	}
	first := m.sources[l.Addr]
	m.state[id].next = first
	if first != 0 {
		m.state[first].prev = id
	}
	m.sources[l.Addr] = id
	m.locators[l] = id
	return id, nil
}

func (m *mirror) releaseLocator(now time.Time, id uint32) error {
	s := &m.state[id]
	if s.refs--; s.refs > 0 {
		return nil
	}
	l := s.locator
	var err error
	switch {
	case s.prev != 0:
		m.state[s.prev].next = s.next
	case s.next != 0:
		m.sources[l.Addr] = s.next
		err = m.t.putSource(l.Addr, s.next)
	default:
		delete(m.sources, l.Addr)
		err = m.t.deleteSource(l.Addr)
	}
	if s.next != 0 {
		m.state[s.next].prev = s.prev
	}
	m.released(id, l)
	delete(m.locators, l)
	m.state[id] = locatorState{}
	m.locatorIDs.put(now, id)
	return err
}

// writeLocator writes a locator if it is not as it was written last.
func (m *mirror) writeLocator(id uint32) error {
	s := &m.state[id]
	l := bpfLocator{
		Addr: words(s.locator.Addr), Ifindex: uint32(s.locator.IfIndex), Port: networkOrder(s.locator.Port),
		V6: flag8(s.locator.Addr.Is6()), Format: uint8(s.locator.Format),
		Down: flag8(s.down), Slow: flag8(m.slow(&s.locator)), Nat: flag8(s.locator.NAT), Mtu: m.mtus[s.locator.Addr],
	}
	if l == s.written {
		return nil
	}
	if err := m.t.putLocator(id, &l); err != nil {
		return err
	}
	s.written = l
	return nil
}

// rewriteLocators looks again at which locators are slow.
func (m *mirror) rewriteLocators() error {
	var errs []error
	for id := range m.state {
		if m.state[id].refs > 0 {
			errs = append(errs, m.writeLocator(uint32(id)))
		}
	}
	return errors.Join(errs...)
}

// setPathMTU notes the path MTU of the locators with an address; 0: none is known.
func (m *mirror) setPathMTU(a netip.Addr, mtu int) error {
	if mtu == 0 {
		delete(m.mtus, a)
	} else {
		m.mtus[a] = uint32(mtu)
	}
	var errs []error
	for id := range m.state {
		if s := &m.state[id]; s.refs > 0 && s.locator.Addr == a {
			errs = append(errs, m.writeLocator(uint32(id)))
		}
	}
	return errors.Join(errs...)
}

// words is an address as the programs compare it: in network order, IPv4 in the
// first word.
func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	if a.Is4() {
		b4 := a.As4()
		b = [16]byte{}
		copy(b[:], b4[:])
	}
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

func flag8(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}
