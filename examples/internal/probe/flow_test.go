package probe

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wire is a one-way network between two sockets, in memory.
type wire struct {
	net.PacketConn
	packets chan []byte
	cut     atomic.Bool
	closed  chan struct{}
}

func newWire() *wire { return &wire{packets: make(chan []byte, 1000), closed: make(chan struct{})} }

func (w *wire) WriteTo(b []byte, _ net.Addr) (int, error) {
	if !w.cut.Load() {
		w.packets <- b
	}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-w.packets:
		return copy(b, p), nil, nil
	case <-w.closed:
		return 0, nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	select {
	case <-w.closed:
	default:
		close(w.closed)
	}
	return nil
}

func TestFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, out := newWire(), newWire()
		out.packets = w.packets
		f := StartFlow(out, w, nil, time.Millisecond)
		defer f.Stop()
		time.Sleep(time.Second)

		since := time.Now()
		out.cut.Store(true)
		time.Sleep(250 * time.Millisecond)
		out.cut.Store(false)
		gap, err := f.Outage(t.Context(), since)
		require.NoError(t, err)
		assert.InDelta(t, float64(250*time.Millisecond), float64(gap), float64(2*time.Millisecond))
		assert.InDelta(t, 250, f.Lost(), 2)

		// A change that interrupts nothing.
		since = time.Now()
		gap, err = f.Outage(t.Context(), since)
		require.NoError(t, err)
		assert.LessOrEqual(t, gap, 2*time.Millisecond)

		out.cut.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = f.Outage(ctx, time.Now())
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
