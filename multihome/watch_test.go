package multihome_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/multihome"
)

func uplink(running bool) multihome.Snapshot {
	return multihome.Snapshot{
		Links:  []multihome.Link{{Index: 2, Name: "eth0", Up: true, Running: running}},
		Addrs:  []multihome.Addr{{IfIndex: 2, Addr: netip.MustParseAddr("198.51.100.1"), Prefix: 24}},
		Routes: []multihome.Route{{IfIndex: 2}},
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var src multihome.Memory
		s, err := multihome.New(multihome.Config{})
		require.NoError(t, err)
		src.Set(uplink(true))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		got := make(chan multihome.Change, 10)
		done := make(chan error, 1)
		go func() {
			done <- multihome.Watch(ctx, &src, s, func(_ time.Time, c multihome.Change) error {
				got <- c
				return nil
			})
		}()
		first := <-got
		assert.Equal(t, multihome.Usable, first.Interfaces[0].Usable(false))

		start := time.Now()
		src.Set(uplink(false))
		down := <-got
		assert.Equal(t, multihome.LinkDown, down.Interfaces[0].Usable(false))
		assert.Zero(t, time.Since(start))
		src.Set(uplink(true))
		up := <-got
		assert.Equal(t, multihome.Usable, up.Interfaces[0].Usable(false))
		assert.Equal(t, multihome.DefaultSettle, time.Since(start))
		src.Set(uplink(false))
		<-got

		// A flap shorter than the settling time is not seen.
		src.Set(uplink(true))
		synctest.Wait()
		src.Set(uplink(false))
		time.Sleep(time.Minute)
		assert.Empty(t, got)

		cancel()
		require.NoError(t, <-done)
	})
}

func TestWatchFails(t *testing.T) {
	stop := errors.New("stop")
	var src multihome.Memory
	s, err := multihome.New(multihome.Config{})
	require.NoError(t, err)
	err = multihome.Watch(t.Context(), &src, s, func(time.Time, multihome.Change) error { return stop })
	require.ErrorIs(t, err, stop)

	s, err = multihome.New(multihome.Config{})
	require.NoError(t, err)
	err = multihome.Watch(t.Context(), broken{stop}, s, func(time.Time, multihome.Change) error { return nil })
	require.ErrorIs(t, err, stop)
}

type broken struct{ err error }

func (b broken) Next(context.Context) (multihome.Snapshot, error) { return multihome.Snapshot{}, b.err }

// What a State was asked to tell again before Watch began is told in time.
func TestWatchAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := multihome.New(multihome.Config{})
		require.NoError(t, err)
		start := time.Now()
		s.Handle(start, uplink(true))
		_, ok := s.Next()
		require.True(t, ok)
		s.Again(start.Add(time.Second))
		stop := errors.New("stop")
		require.ErrorIs(t, multihome.Watch(t.Context(), silent{}, s, func(now time.Time, c multihome.Change) error {
			assert.Equal(t, time.Second, now.Sub(start))
			assert.True(t, c.Lost)
			return stop
		}), stop)
	})
}

// silent is a Source that has nothing more to tell.
type silent struct{}

func (silent) Next(ctx context.Context) (multihome.Snapshot, error) {
	<-ctx.Done()
	return multihome.Snapshot{}, ctx.Err()
}
