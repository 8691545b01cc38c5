package encap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// holdModel is a hold table and what it gave up.
type holdModel struct {
	*holdTable
	lost []string
}

func newHoldModel(cfg Config) *holdModel {
	m := &holdModel{holdTable: newHoldTable(cfg)}
	m.dropped = func(_ *overlay, p []byte, why DropReason) { m.lost = append(m.lost, fmt.Sprintf("%s: %v", p, why)) }
	return m
}

func (m *holdModel) taken(key holdKey) []string {
	var got []string
	m.take(key, func(buf []byte, _ Mark) { got = append(got, string(buf[Headroom:])) }, func() {})
	return got
}

// check verifies the bounds, the counts and that both lists agree.
func (m *holdModel) check(t testing.TB) {
	t.Helper()
	require.LessOrEqual(t, m.packets, max(0, m.maxTotal))
	require.LessOrEqual(t, m.octets, m.maxOctet)
	require.EqualValues(t, len(m.queues), m.busy.Load())
	n, octets := 0, 0
	var last *heldPacket
	for p := m.oldest; p != nil; p = p.newer {
		require.Same(t, last, p.older)
		require.Same(t, m.queues[p.queue.key], p.queue)
		if last != nil {
			require.False(t, p.deadline.Before(last.deadline))
		}
		n++
		octets += len(p.buf) - Headroom
		last = p
	}
	require.Same(t, last, m.newest)
	require.Equal(t, n, m.packets)
	require.Equal(t, octets, m.octets)
	total := 0
	for k, q := range m.queues {
		require.Equal(t, k, q.key)
		require.LessOrEqual(t, q.n, m.maxPerEID)
		count := 0
		for p := q.head; p != nil; p = p.next {
			count++
			if p.next == nil {
				require.Same(t, q.tail, p)
			}
		}
		require.Equal(t, q.n, count)
		require.Positive(t, count)
		total += count
	}
	require.Equal(t, n, total)
}

func key(i byte) holdKey { return holdKey{dst: netip.AddrFrom4([4]byte{10, 0, 0, i})} }

func TestHoldTable(t *testing.T) {
	at := time.Now()
	m := newHoldModel(Config{HoldTime: 4 * time.Second, HoldPerEID: 2, HoldTotal: 3, HoldOctets: 100})

	assert.True(t, m.add(at, key(1), Mark{}, []byte("a1")))
	assert.False(t, m.add(at, key(1), Mark{}, []byte("a2")))
	assert.Empty(t, m.lost)
	assert.False(t, m.add(at, key(1), Mark{}, []byte("a3")), "two to one EID: the oldest goes")
	assert.Equal(t, []string{"a1: hold full"}, m.lost)
	m.check(t)

	assert.True(t, m.add(at.Add(time.Second), key(2), Mark{}, []byte("b1")))
	assert.True(t, m.add(at.Add(time.Second), key(3), Mark{}, []byte("c1")), "three in all: the oldest goes")
	assert.Equal(t, []string{"a1: hold full", "a2: hold full"}, m.lost)
	m.check(t)

	assert.Equal(t, []string{"b1"}, m.taken(key(2)))
	assert.Empty(t, m.taken(key(2)))
	m.check(t)

	assert.Equal(t, at.Add(4*time.Second), m.deadline())
	m.expire(at.Add(4*time.Second - 1))
	assert.Len(t, m.lost, 2)
	m.expire(at.Add(4 * time.Second))
	assert.Equal(t, "a3: hold expired", m.lost[2])
	m.check(t)
	assert.Equal(t, []string{"c1"}, m.taken(key(3)))
	assert.Zero(t, m.deadline())

	// By octets.
	big := make([]byte, 60)
	m.lost = nil
	m.add(at, key(4), Mark{}, big)
	m.add(at, key(5), Mark{}, big)
	assert.Len(t, m.lost, 1)
	m.add(at, key(6), Mark{}, make([]byte, 101))
	assert.Len(t, m.lost, 2, "one that never fits pushes nobody out")
	assert.Equal(t, 60, m.octets)
	m.check(t)

	// In order, and the oldest of the table is in the middle of a queue's life.
	m = newHoldModel(Config{HoldTime: time.Second, HoldPerEID: 10, HoldTotal: 10, HoldOctets: 1000})
	for i := range byte(9) {
		m.add(at, key(i%3), Mark{}, []byte{'0' + i})
	}
	assert.Equal(t, []string{"1", "4", "7"}, m.taken(key(1)))
	m.check(t)
	m.add(at, key(1), Mark{}, []byte("x"))
	assert.Equal(t, []string{"0", "3", "6"}, m.taken(key(0)))
	assert.Equal(t, []string{"2", "5", "8"}, m.taken(key(2)))
	assert.Equal(t, []string{"x"}, m.taken(key(1)))
	m.check(t)

	none := newHoldModel(Config{HoldTime: time.Second, HoldPerEID: -1, HoldTotal: 10, HoldOctets: 1000})
	assert.False(t, none.add(at, key(1), Mark{}, []byte("a")))
	assert.Equal(t, []string{"a: hold full"}, none.lost)
	none.check(t)
}

func TestHoldTableAllocations(t *testing.T) {
	at := time.Now()
	m := newHoldTable(Config{HoldTime: time.Second, HoldPerEID: 8, HoldTotal: 64, HoldOctets: 1 << 20})
	m.dropped = func(*overlay, []byte, DropReason) {}
	packet := make([]byte, 1400)
	i := byte(0)
	f, done := func([]byte, Mark) {}, func() {}
	step := func() {
		for range 20 {
			m.add(at, key(i), Mark{}, packet)
			i++
		}
		m.take(key(i-1), f, done)
		at = at.Add(10 * time.Millisecond)
	}
	for range 100 {
		step()
	}
	assert.Zero(t, testing.AllocsPerRun(200, step))
}

// FuzzHoldTable runs random operations against a slice.
func FuzzHoldTable(f *testing.F) {
	f.Add([]byte{0, 1, 10, 0, 1, 10, 1, 1, 0, 2, 9, 0})
	f.Add([]byte{0, 1, 200, 0, 2, 200, 0, 3, 200, 0, 1, 1, 2, 255, 0, 1, 2, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const perEID, total, octets = 3, 6, 400
		m := newHoldModel(Config{HoldTime: time.Second, HoldPerEID: perEID, HoldTotal: total, HoldOctets: octets})
		type packet struct {
			key  holdKey
			data string
			dead time.Time
		}
		var model []packet
		count := func(match func(packet) bool) (n int) {
			for _, p := range model {
				if match(p) {
					n++
				}
			}
			return n
		}
		remove := func(match func(packet) bool) {
			i := slices.IndexFunc(model, match)
			model = slices.Delete(model, i, i+1)
		}
		any := func(packet) bool { return true }
		now := time.Unix(0, 0)
		for n := 0; len(ops) >= 3; n++ {
			op, k, arg := ops[0]%3, key(ops[1]%4), int(ops[2])
			ops = ops[3:]
			switch op {
			case 0:
				data := binary.BigEndian.AppendUint32(nil, uint32(n))
				data = append(data, make([]byte, 2*arg)...)
				model = slices.DeleteFunc(model, func(p packet) bool { return !p.dead.After(now) })
				if len(data) <= octets {
					same := func(p packet) bool { return p.key == k }
					if count(same) == perEID {
						remove(same)
					}
					size := func() (s int) {
						for _, p := range model {
							s += len(p.data)
						}
						return s
					}
					for len(model) == total || size()+len(data) > octets {
						remove(any)
					}
					model = append(model, packet{k, string(data), now.Add(time.Second)})
				}
				m.add(now, k, Mark{}, data)
			case 1:
				var want []string
				for _, p := range model {
					if p.key == k {
						want = append(want, p.data)
					}
				}
				model = slices.DeleteFunc(model, func(p packet) bool { return p.key == k })
				require.Equal(t, want, m.taken(k))
			case 2:
				now = now.Add(time.Duration(arg) * 10 * time.Millisecond)
				model = slices.DeleteFunc(model, func(p packet) bool { return !p.dead.After(now) })
				m.expire(now)
			}
			m.check(t)
			require.Equal(t, len(model), m.packets)
		}
	})
}
