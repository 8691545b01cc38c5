package multihome

import (
	"context"
	"sync"
)

// Memory is a Source that yields what it is given. The zero value is ready for
// use. Set may be called by any goroutine.
type Memory struct {
	mu      sync.Mutex
	snap    Snapshot
	changed chan struct{} // holds one when snap is new
}

func (m *Memory) wake() chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{}, 1)
		m.changed <- struct{}{} // the first Next does not wait
	}
	return m.changed
}

// Set replaces what there is. A Snapshot that was not asked for in time is
// passed over, but for its Lost.
func (m *Memory) Set(s Snapshot) {
	c := m.wake()
	m.mu.Lock()
	s.Lost = s.Lost || m.snap.Lost
	m.snap = s
	m.mu.Unlock()
	select {
	case c <- struct{}{}:
	default:
	}
}

// Next implements Source.
func (m *Memory) Next(ctx context.Context) (Snapshot, error) {
	select {
	case <-ctx.Done():
		return Snapshot{}, ctx.Err()
	case <-m.wake():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.snap
	m.snap.Lost = false
	return s, nil
}
