package ebpf

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/cilium/ebpf"
)

// maxChain is MAX_CHAIN of tables.h: a single EID beyond it is among the prefixes.
const maxChain = 8

// entrySize is the size of an entry, at its offsets of which the fields are that are
// written one by one.
const (
	entrySize = int64(unsafe.Sizeof(bpfEntry{}))
	setAt     = int64(unsafe.Offsetof(bpfEntry{}.Set))
	nextAt    = int64(unsafe.Offsetof(bpfEntry{}.Next))
	usedAt    = int64(unsafe.Offsetof(bpfEntry{}.Used))
)

// chains is how many chains there are for a number of entries: twice as many or more.
func chains(entries int) uint32 { return 1 << bits.Len32(2*uint32(entries)-1) }

// hostIndex is the chains of single EIDs, as they are in the kernel.
type hostIndex struct {
	seed  uint32
	first []uint32 // by hash; 0: the chain is empty
	next  []uint32 // by entry id
}

// hashEID is eid_hash of mapcache.h.
func hashEID(e *bpfEid, seed uint32) uint32 {
	last, w := 0, e.Addr
	if familyOf(*e) == 6 {
		last = 3
	}
	low := networkOrder32(w[last]) & 0xfff
	w[last] &^= networkOrder32(0xfff)
	a, b, c := e.Scope+seed, w[0], w[1]
	for _, r := range [2][3]int{{4, 6, 8}, {16, 19, 4}} {
		a = (a - c) ^ bits.RotateLeft32(c, r[0])
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, r[1])
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, r[2])
		b += a
	}
	a, b = a+w[2], b+w[3]
	for _, r := range [2][3]int{{14, 11, 25}, {16, 4, 14}} {
		c = (c ^ b) - bits.RotateLeft32(b, r[0])
		a = (a ^ c) - bits.RotateLeft32(c, r[1])
		b = (b ^ a) - bits.RotateLeft32(a, r[2])
	}
	return (c ^ b) - bits.RotateLeft32(b, 24) + low
}

// networkOrder32 turns a word to network order, or back.
func networkOrder32(w uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, w))
}

func (h *hostIndex) chain(e *bpfEid) uint32 {
	return hashEID(e, h.seed) & uint32(len(h.first)-1)
}

// before looks for an entry in a chain: found tells whether it is there, and prev is
// the one in front of it, 0 if it is the first. length counts what was looked at.
func (h *hostIndex) before(chain, id uint32) (prev uint32, found bool, length int) {
	for at := h.first[chain]; at != 0; at = h.next[at] {
		if at == id {
			return prev, true, length
		}
		prev = at
		length++
	}
	return 0, false, length
}

// putEntry stores a new entry. Nobody sees it before the table that leads to it is
// written: its number has rested.
func (t *kernelTables) putEntry(k eidKey, id, set uint32) error {
	e, eid := bpfEntry{Set: set}, k.eid()
	chain, full := t.hosts.chain(&eid), true
	if k.host() {
		_, _, n := t.hosts.before(chain, 0)
		full = n >= maxChain
	}
	if !full {
		e.Eid, e.Next = eid, t.hosts.first[chain]
	}
	if err := t.writeEntry(id, &e); err != nil {
		return err
	}
	t.writes.Add(1)
	if full {
		return t.o.Prefixes.Put(k.prefix(), id)
	}
	if err := t.o.Hosts.Put(chain, id); err != nil {
		return err
	}
	for int(id) >= len(t.hosts.next) {
		t.hosts.next = append(t.hosts.next, 0)
	}
	t.hosts.first[chain], t.hosts.next[id] = id, e.Next
	return nil
}

func (t *kernelTables) writeEntry(id uint32, e *bpfEntry) error {
	var b [entrySize]byte
	n, err := binary.Encode(b[:], binary.NativeEndian, *e)
	if err == nil {
		_, err = t.entries.WriteAt(b[:n], int64(id)*entrySize)
	}
	if err != nil {
		return fmt.Errorf("entry %d: %w", id, err)
	}
	return nil
}

// writeWord writes a field of an entry, which packets see as it was or as it is.
func (t *kernelTables) writeWord(id uint32, field int64, v uint32) error {
	t.writes.Add(1)
	_, err := t.entries.WriteAt(binary.NativeEndian.AppendUint32(nil, v), int64(id)*entrySize+field)
	return err
}

// changeEntry has an entry lead elsewhere.
func (t *kernelTables) changeEntry(id, set uint32) error { return t.writeWord(id, setAt, set) }

// deleteEntry removes an entry. A packet that is at it still finds the rest of its chain.
func (t *kernelTables) deleteEntry(k eidKey, id uint32) error {
	eid := k.eid()
	chain := t.hosts.chain(&eid)
	prev, found, _ := t.hosts.before(chain, id)
	var err error
	switch {
	case !k.host() || !found:
		t.writes.Add(1)
		err = t.o.Prefixes.Delete(k.prefix())
	case prev == 0:
		t.hosts.first[chain] = t.hosts.next[id]
		t.writes.Add(1)
		err = t.o.Hosts.Put(chain, t.hosts.next[id])
	default:
		t.hosts.next[prev] = t.hosts.next[id]
		err = t.writeWord(prev, nextAt, t.hosts.next[id])
	}
	if err != nil {
		return err
	}
	return t.changeEntry(id, 0)
}

// eachUsed calls f for the entries that packets met, and forgets that they did.
func eachUsed(entries *ebpf.Memory, ids uint32, f func(id uint32)) {
	const chunk = 1 << 9 // entries
	var b [chunk * entrySize]byte
	for first := uint32(0); first < ids; first += chunk {
		n, _ := entries.ReadAt(b[:], int64(first)*entrySize) // short at the end
		for i := int64(0); i+entrySize <= int64(n); i += entrySize {
			if binary.NativeEndian.Uint32(b[i+usedAt:]) == 0 {
				continue
			}
			id := first + uint32(i/entrySize)
			_, _ = entries.WriteAt(make([]byte, 4), int64(id)*entrySize+usedAt)
			f(id)
		}
	}
}
