package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations in classes that are a sixteenth of their size wide.
type Histogram struct {
	n       uint64
	classes [64 * 16]uint64
}

func class(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 16 {
		return int(v)
	}
	e := bits.Len64(v) - 5
	return (e+1)*16 + int(v>>e)&15
}

// bound is the least duration of a class.
func bound(c int) time.Duration {
	if c < 32 {
		return time.Duration(c)
	}
	return time.Duration(16+c%16) << (c/16 - 1)
}

// Observe counts d.
func (h *Histogram) Observe(d time.Duration) {
	h.n++
	h.classes[class(d)]++
}

func (h *Histogram) add(o *Histogram) {
	h.n += o.n
	for i := range h.classes {
		h.classes[i] += o.classes[i]
	}
}

// Quantile is the duration that the part q (0 to 1) of all is below, up to the
// width of a class.
func (h *Histogram) Quantile(q float64) time.Duration {
	want := uint64(q * float64(h.n))
	for c, n := range h.classes {
		if n > want {
			return bound(c + 1)
		}
		want -= n
	}
	return 0
}
