package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sort"
	"sync"
	"time"
)

// Flow is a steady stream of small datagrams, to see when and for how long a
// path was interrupted. Its methods are safe for concurrent use.
type Flow struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	sent     int
	arrivals []arrival     // in the order of arrival
	arrived  chan struct{} // closed and replaced with each arrival
}

type arrival struct {
	sent, at time.Time
}

// settled is how many datagrams, sent after a change, must have arrived until the
// interruption that the change made is over.
const settled = 100

// datagramLen is the time of sending, in nanoseconds.
const datagramLen = 8

// StartFlow sends a datagram from one socket to the address of the other each
// interval, until Stop. It owns the sockets.
func StartFlow(from, to net.PacketConn, dest net.Addr, interval time.Duration) *Flow {
	ctx, cancel := context.WithCancel(context.Background())
	f := &Flow{cancel: cancel, arrived: make(chan struct{})}
	f.done.Go(func() {
		defer func() { _ = from.Close() }()
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				f.mu.Lock()
				f.sent++
				f.mu.Unlock()
				// What cannot be sent is as lost as what does not arrive.
				_, _ = from.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())), dest)
			}
		}
	})
	f.done.Go(func() { f.receive(to) })
	context.AfterFunc(ctx, func() { _ = to.Close() })
	return f
}

func (f *Flow) receive(conn net.PacketConn) {
	buf := make([]byte, 64)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if n != datagramLen {
			continue
		}
		a := arrival{time.Unix(0, int64(binary.BigEndian.Uint64(buf))), time.Now()}
		f.mu.Lock()
		f.arrivals = append(f.arrivals, a)
		close(f.arrived)
		f.arrived = make(chan struct{})
		f.mu.Unlock()
	}
}

// Stop ends the stream and closes the sockets.
func (f *Flow) Stop() {
	f.cancel()
	f.done.Wait()
}

// Lost says how many datagrams have not arrived; some may be on their way.
func (f *Flow) Lost() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent - len(f.arrivals)
}

// Outage waits until datagrams that were sent after a time arrive again steadily,
// and returns the longest time from then on, or across it, in which none arrived.
func (f *Flow) Outage(ctx context.Context, since time.Time) (time.Duration, error) {
	for {
		f.mu.Lock()
		gap, after := f.longest(since)
		wake := f.arrived
		f.mu.Unlock()
		if after >= settled {
			return gap, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("of what was sent since then, %d datagrams arrived: %w", after, context.Cause(ctx))
		case <-wake:
		}
	}
}

// longest returns the longest gap between arrivals since a time, and how many
// datagrams arrived that were sent after it.
func (f *Flow) longest(since time.Time) (gap time.Duration, after int) {
	first := sort.Search(len(f.arrivals), func(i int) bool { return f.arrivals[i].at.After(since) })
	for i := first; i < len(f.arrivals); i++ {
		if i > 0 {
			gap = max(gap, f.arrivals[i].at.Sub(f.arrivals[i-1].at))
		}
		if f.arrivals[i].sent.After(since) {
			after++
		}
	}
	return gap, after
}
