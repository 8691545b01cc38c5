package mapcache_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func TestMapVersions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b  uint16
		newer bool
	}{
		{1, 1, false},
		{2, 1, true},
		{1, 2, false},
		{1, 4095, true}, // around
		{4095, 1, false},
		{2049, 1, true}, // half of the space
		{1, 2049, false},
		{2050, 1, false}, // more than half: the other one is newer
		{1, 2050, true},
		{0, 5, false}, // Null
		{5, 0, false},
		{0, 0, false},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.newer, mapcache.NewerMapVersion(tt.a, tt.b), "%d over %d", tt.a, tt.b)
	}
	seen := uint16(1)
	for range 5000 {
		next := lisp.NextMapVersion(seen)
		assert.NotZero(t, next)
		if seen < 4095 {
			assert.Equal(t, seen+1, next) // RFC 9302-6-1
		} else {
			assert.Equal(t, uint16(1), next)
		}
		assert.True(t, mapcache.NewerMapVersion(next, seen))
		assert.False(t, mapcache.NewerMapVersion(seen, next))
		seen = next
	}
}
