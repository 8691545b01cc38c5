package encap

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pathMTUTime is how long a path MTU that was learned is believed before
	// larger packets are tried again (RFC 8201 §4 suggests ten minutes).
	pathMTUTime = 10 * time.Minute
	// maxPathMTUs bounds the paths remembered.
	maxPathMTUs = 1024
)

// pathMTUs remembers the locators whose path carries less than the first link.
// Packets read it without a lock; it is empty most of the time.
type pathMTUs struct {
	table atomic.Pointer[map[netip.Addr]pathMTU] // replaced, never changed
	mu    sync.Mutex

	offload Offload // or nil
}

type pathMTU struct {
	mtu   int
	until time.Time
}

// limit returns mtu, or the path MTU of a locator if that is smaller.
func (t *pathMTUs) limit(remote netip.Addr, mtu int) int {
	if m := t.table.Load(); m != nil {
		if e, ok := (*m)[remote]; ok {
			return min(mtu, e.mtu)
		}
	}
	return mtu
}

func (t *pathMTUs) learn(now time.Time, remote netip.Addr, mtu int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[netip.Addr]pathMTU)
	if m := t.table.Load(); m != nil {
		maps.Copy(next, *m)
	}
	if _, known := next[remote]; !known && len(next) >= maxPathMTUs {
		return
	}
	next[remote] = pathMTU{mtu, now.Add(pathMTUTime)}
	t.table.Store(&next)
	if t.offload != nil {
		t.offload.SetPathMTU(remote, mtu)
	}
}

// expire forgets what is too old and returns when to be called again; zero when
// nothing is left.
func (t *pathMTUs) expire(now time.Time) (next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.table.Load()
	if m == nil {
		return time.Time{}
	}
	left := maps.Clone(*m)
	maps.DeleteFunc(left, func(remote netip.Addr, e pathMTU) bool {
		over := !e.until.After(now)
		if over && t.offload != nil {
			t.offload.SetPathMTU(remote, 0)
		}
		return over
	})
	if len(left) == 0 {
		t.table.Store(nil)
		return time.Time{}
	}
	t.table.Store(&left)
	for _, e := range left {
		if next.IsZero() || e.until.Before(next) {
			next = e.until
		}
	}
	return next
}
