package mapserver

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

// TestSizeOfARegistration: what is kept for one EID-Prefix of an xTR of its own
// stays within the allocator's class of 208 octets twice; a word more costs 16.
func TestSizeOfARegistration(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return
	}
	assert.LessOrEqual(t, unsafe.Sizeof(claim{}), uintptr(208))
	assert.LessOrEqual(t, unsafe.Sizeof(xtrState{}), uintptr(208))
}

// TestMemoryPerEID: 500 octets all in all, with as many Map-Registers remembered
// for replays as there may be, however many there are.
func TestMemoryPerEID(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory")
	}
	per := func(n int) float64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		l := newLoaded(t, n, key1)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(l)
		return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	}
	const fixed = 400_000 // rate limiters, the wheel, a Worker
	for _, n := range []int{20_000, 100_000} {
		got := per(n)
		t.Logf("%.0f octets", got)
		assert.Less(t, got, 500+fixed/float64(n))
	}
}

// dead counts the registrations kept without a live claim.
func (b *bench) dead() (n int) {
	for _, inst := range b.s.set().instances {
		for range inst.dead.All() {
			n++
		}
	}
	return n
}
