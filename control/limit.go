package control

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// limiterTable keeps a token bucket per address in bounded memory: two
// generations of which the older is forgotten when the newer is full. A bucket
// that is still in use moves to the newer one with the tokens it has.
type limiterTable struct {
	limit    rate.Limit
	burst    int
	cur, old map[netip.Addr]*rate.Limiter
}

// maxLimiters is the size of one generation. With less than that many addresses
// in use none is forgotten.
const maxLimiters = 4096

func newLimiterTable(limit rate.Limit, burst int) limiterTable {
	return limiterTable{limit: limit, burst: burst, cur: make(map[netip.Addr]*rate.Limiter)}
}

// allow takes a token of a's bucket.
func (t *limiterTable) allow(now time.Time, a netip.Addr) bool {
	l := t.cur[a]
	if l == nil {
		if l = t.old[a]; l == nil {
			l = rate.NewLimiter(t.limit, t.burst)
		}
		if len(t.cur) >= maxLimiters {
			t.old, t.cur = t.cur, make(map[netip.Addr]*rate.Limiter)
		}
		t.cur[a] = l
	}
	return l.AllowN(now, 1)
}
