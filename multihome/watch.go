package multihome

import (
	"context"
	"errors"
	"time"
)

// Source is where Snapshots come from. One goroutine at a time.
type Source interface {
	// Next waits until something may have changed since its last call, and
	// returns what there is; the first call does not wait. It returns the
	// context's error when that ends first.
	Next(context.Context) (Snapshot, error)
}

// Watch drives s by what src yields, and calls f for each change, the first of
// which is what there is at the start. It returns nil when the context ends, or
// what the Source or f return.
func Watch(ctx context.Context, src Source, s *State, f func(time.Time, Change) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	snaps := make(chan Snapshot)
	failed := make(chan error, 1)
	go func() {
		for {
			snap, err := src.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case snaps <- snap:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if d := s.Deadline(); !d.IsZero() {
			timer.Reset(time.Until(d))
		} else {
			timer.Stop()
		}
		select {
		case err := <-failed: // the last thing that the goroutine does
			return ended(err)
		case snap := <-snaps:
			s.Handle(time.Now(), snap)
		case <-timer.C:
			s.Advance(time.Now())
		}
		for c, ok := s.Next(); ok; c, ok = s.Next() {
			if err := f(time.Now(), c); err != nil {
				cancel()
				return errors.Join(err, ended(<-failed))
			}
		}
	}
}

// ended is the error of a Source, unless it is what the end of its context makes.
func ended(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
