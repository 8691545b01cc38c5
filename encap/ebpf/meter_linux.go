package ebpf

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
)

const (
	// meterMemory bounds the counters of map-cache entries, in octets. Where those for
	// all CPUs don't fit, several CPUs share some, by atomic operations.
	meterMemory = 64 << 20
	// meterSize is the size of struct locator_count.
	meterSize = 32
	// meterChunk is how many entries are read at a time.
	meterChunk = 512
)

// meterCPUs returns for how many CPUs there are counters of that many entries.
func meterCPUs(entries uint32, cpus int) int {
	return min(cpus, max(1, meterMemory/meterSize/int(entries)))
}

// meter reads what the programs count by map-cache entry.
type meter struct {
	mem      *ebpf.Memory
	cpus     int
	entries  uint32         // counters for a CPU
	reported []localTraffic // by entry id
	chunk    [meterChunk * meterSize]byte
	sums     [meterChunk]localTraffic
}

func newMeter(cfg *Config) *meter {
	entries := room(cfg.MaxEntries)
	cpus, _ := ebpf.PossibleCPU() // load has asked before
	return &meter{cpus: meterCPUs(entries, cpus), entries: entries}
}

// each calls f with what is new of the counters of entries with a number below n.
func (m *meter) each(n uint32, f func(id uint32, t localTraffic)) {
	for int(n) > len(m.reported) {
		m.reported = append(m.reported, localTraffic{})
	}
	for from := uint32(0); from < n; from += meterChunk {
		to := min(from+meterChunk, n)
		if !m.read(from, to) {
			continue
		}
		for id := from; id < to; id++ {
			t, was := m.sums[id-from], m.reported[id]
			if t == was {
				continue
			}
			m.reported[id] = t
			f(id, t.minus(was))
		}
	}
}

// begins is told of a number that is given to an entry: what was counted by it so far
// is none of its.
func (m *meter) begins(id uint32) {
	for int(id) >= len(m.reported) {
		m.reported = append(m.reported, localTraffic{})
	}
	m.read(id, id+1)
	m.reported[id] = m.sums[0]
}

// read adds up the counters of entries from one number to below another, at most
// meterChunk, in sums. It reports whether there is anything.
func (m *meter) read(from, to uint32) bool {
	n := int(to - from)
	clear(m.sums[:n])
	any := false
	for cpu := range m.cpus {
		b := m.chunk[:n*meterSize]
		if _, err := m.mem.ReadAt(b, (int64(cpu)*int64(m.entries)+int64(from))*meterSize); err != nil || allZero(b) {
			continue
		}
		any = true
		for i := range n {
			s, c := &m.sums[i], b[i*meterSize:]
			s.out.Packets += binary.NativeEndian.Uint64(c)
			s.out.Octets += binary.NativeEndian.Uint64(c[8:])
			s.in.Packets += binary.NativeEndian.Uint64(c[16:])
			s.in.Octets += binary.NativeEndian.Uint64(c[24:])
		}
	}
	return any
}

func allZero(b []byte) bool {
	var none [meterChunk * meterSize]byte
	return string(b) == string(none[:len(b)])
}
