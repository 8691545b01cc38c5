package mapcache

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Direction says which way packets go.
type Direction uint8

const (
	Outbound Direction = iota // to EIDs of an entry
	Inbound                   // from them
)

// Tally is packets of an entry, not counted yet.
type Tally struct {
	EntryID         uint32 // as in Decision.EntryID; 0 counts for nobody
	Packets, Octets uint64
}

// Meter counts packets by entry, for a data plane that forwards by a [View]. What
// it has counted is part of each [Entry] from then on, and ends with the entry: the next
// one with the number starts at 0. It is safe for concurrent use; a goroutine that
// forwards should have one of its own, so that it waits for nobody but those who read.
//
// It takes 16 octets for each entry that packets met, in steps of 256 entries with
// neighbouring numbers.
type Meter struct {
	direction Direction

	mu     sync.Mutex // held for one Add, or the look at one entry
	chunks []*meterChunk
}

type meterChunk [slabLen]struct{ packets, octets uint64 }

// Add counts a batch of packets. It allocates when it meets entries for the first time.
func (m *Meter) Add(batch []Tally) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range batch {
		t := &batch[i]
		if t.EntryID == 0 || t.EntryID >= slotIDs {
			continue
		}
		at := int(t.EntryID / slabLen)
		if at >= len(m.chunks) || m.chunks[at] == nil {
			m.grow(at)
		}
		c := &m.chunks[at][t.EntryID%slabLen]
		c.packets += t.Packets
		c.octets += t.Octets
	}
}

func (m *Meter) grow(at int) {
	if at >= len(m.chunks) {
		m.chunks = append(m.chunks, make([]*meterChunk, at+1-len(m.chunks))...)
	}
	m.chunks[at] = new(meterChunk)
}

// read returns what was counted for an entry, and forgets it if it should.
func (m *Meter) read(id uint32, forget bool) (packets, octets uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := int(id / slabLen)
	if at >= len(m.chunks) || m.chunks[at] == nil {
		return 0, 0
	}
	c := &m.chunks[at][id%slabLen]
	packets, octets = c.packets, c.octets
	if forget {
		c.packets, c.octets = 0, 0
	}
	return packets, octets
}

// meters are all Meters of a Cache.
type meters struct {
	mu   sync.Mutex // serialises changes of all
	all  atomic.Pointer[[]*Meter]
	used [2]*Meter // of AddUsage, by Direction
}

func (ms *meters) list() []*Meter {
	if all := ms.all.Load(); all != nil {
		return *all
	}
	return nil
}

// NewMeter returns a Meter for packets of one direction. It is safe for concurrent
// use. The cache keeps it for good: who stops forwarding should leave it to the next
// who starts.
func (c *Cache) NewMeter(d Direction) *Meter {
	ms, m := &c.meters, &Meter{direction: d}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	all := append(slices.Clip(ms.list()), m)
	ms.all.Store(&all)
	return m
}

// count adds to what was counted for an entry.
func (c *Cache) count(d Direction, id uint32, packets, octets uint64) {
	if packets == 0 {
		return
	}
	m := &c.meters.used[d]
	if *m == nil {
		*m = c.NewMeter(d)
	}
	(*m).Add([]Tally{{id, packets, octets}})
}

// forgetCounts has the entry with a number that is given out begin at 0.
func (c *Cache) forgetCounts(id uint32) {
	for _, m := range c.meters.list() {
		m.read(id, true)
	}
}

// counted adds up what was counted for an entry.
func (c *Cache) counted(id uint32, e *Entry) {
	for _, m := range c.meters.list() {
		packets, octets := m.read(id, false)
		if m.direction == Inbound {
			e.PacketsIn += packets
			e.OctetsIn += octets
		} else {
			e.PacketsOut += packets
			e.OctetsOut += octets
		}
	}
}
