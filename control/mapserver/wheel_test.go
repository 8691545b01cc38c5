package mapserver

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// linked counts the claims in slots and checks the links between them.
func (w *wheel) linked() int {
	n := 0
	count := func(c *claim) {
		for prev := (*claim)(nil); c != nil; prev, c = c, c.next {
			if c.prev != prev || c.slot == 0 {
				panic("links")
			}
			n++
		}
	}
	count(w.current)
	for i, c := range w.slots {
		if (c != nil) != (w.used[i/64]>>(i%64)&1 == 1) {
			panic("used")
		}
		count(c)
	}
	return n
}

// run steps w at now until nothing is left and returns what came up.
func (w *wheel) run(now int64) (due []*claim) {
	for {
		c, more := w.step(now)
		if !more {
			return due
		}
		if c != nil {
			due = append(due, c)
		}
	}
}

// TestWheel: whatever is added, removed and put off, each claim comes up,
// not before its time, and next never says later.
func TestWheel(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 5))
		var w wheel
		now := int64(0)
		claims := make([]*claim, 200)
		waiting := map[*claim]bool{}
		for i := range claims {
			claims[i] = &claim{}
		}
		for range 2000 {
			c := claims[r.IntN(len(claims))]
			switch r.IntN(4) {
			case 0:
				w.remove(c)
				if !c.inSoon {
					delete(waiting, c)
				}
			case 1, 2:
				at := now + r.Int64N([]int64{1, slotWidth, 4 * slotWidth, 3 * wheelSlots * slotWidth}[r.IntN(4)])
				if waiting[c] && c.inSoon {
					at = max(at, c.expires.Load()) // as a refresh does
				}
				c.expires.Store(at)
				w.add(c, at)
				waiting[c] = true
			default:
				if at, ok := w.next(); ok && r.IntN(2) == 0 {
					now = max(now, at)
				} else {
					now += r.Int64N(20 * slotWidth)
				}
				for _, c := range w.run(now) {
					if c.expires.Load() > now { // was put off in the heap
						w.add(c, c.expires.Load())
						continue
					}
					delete(waiting, c) // it may come up again, from the heap
				}
				w.run(now)
				for c := range waiting {
					require.Greater(t, c.expires.Load(), now, "did not come up")
				}
			}
			first, ok := w.next()
			require.Equal(t, len(waiting) > 0, ok)
			for c := range waiting {
				require.LessOrEqual(t, first, c.expires.Load())
			}
			require.GreaterOrEqual(t, w.linked()+len(w.soon), len(waiting))
			require.LessOrEqual(t, w.linked(), len(waiting))
			require.LessOrEqual(t, len(w.soon), len(claims), "once each")
		}
	}
}

// TestWheelStepIsSmall: a step touches one claim or one slot, with a hundred
// thousand of them in one slot too.
func TestWheelStepIsSmall(t *testing.T) {
	const n = 100_000
	var w wheel
	at := int64(time.Minute)
	for range n {
		c := &claim{}
		c.expires.Store(at)
		w.add(c, at)
	}
	steps := 0
	for {
		c, more := w.step(at)
		if !more {
			break
		}
		if c != nil {
			assert.Equal(t, at, c.expires.Load())
		}
		steps++
	}
	assert.Equal(t, n+1, steps) // each of them, and the slot
	assert.Empty(t, w.soon)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		c := w.run(at + int64(time.Hour))
		_ = c
	}))
}

// TestWheelForgetsWhatIsNoMore: with a clock that was ahead once, all is in the heap.
func TestWheelForgetsWhatIsNoMore(t *testing.T) {
	var w wheel
	w.run(int64(24 * time.Hour))
	for range 5000 {
		c := &claim{replaced: true}
		w.sweep(10)
		w.add(c, 1)
	}
	assert.LessOrEqual(t, len(w.soon), 2*10+1024+1)
}
