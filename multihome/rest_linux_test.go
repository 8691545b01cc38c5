package multihome

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
)

// What changes while it is listed is listed again; what does so again and again is
// better than nothing, and no reason to end.
func TestAtRest(t *testing.T) {
	failure := errors.New("no memory")
	for _, tt := range []struct {
		name        string
		interrupted int
		then        error
		calls       int
		whole       bool
	}{
		{"at once", 0, nil, 1, true},
		{"interrupted", 3, nil, 4, true},
		{"always", listTries + 1, nil, listTries, false},
		{"fails", 2, failure, 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			snap, whole, err := atRest(func() (Snapshot, error) {
				if calls++; calls <= tt.interrupted {
					return Snapshot{Lost: true}, fmt.Errorf("links: %w", netlink.ErrDumpInterrupted)
				}
				return Snapshot{Lost: true}, tt.then
			})
			assert.Equal(t, tt.calls, calls)
			assert.Equal(t, tt.whole, whole)
			require.ErrorIs(t, err, tt.then)
			assert.True(t, snap.Lost, "what was listed last")
		})
	}
}
