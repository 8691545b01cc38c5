package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/vishvananda/netlink"
)

func TestTakesLANs(t *testing.T) {
	t.Parallel()
	for more, want := range map[string]bool{
		"":                     false, // a mobile node
		"operating-mode = xTR": true,
		"operating-mode = xTR\nlan-fast-path = off":                    false,
		"operating-mode = xTR\nfirewall-marks { unusable = fallback }": false,
	} {
		cfg := parse(t, "map-resolver = {203.0.113.1}\ndatabase-mapping { eid-prefix = 198.51.100.1/32 interface = eth0 }\n"+more)
		assert.Equal(t, want, takesLANs(cfg), "%q", more)
	}
}

// The LANs are looked at when routes have changed, once for many changes, and again in a
// while if they were refused.
func TestAwaitRoutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		updates := make(chan netlink.RouteUpdate, 2)
		updates <- netlink.RouteUpdate{}
		updates <- netlink.RouteUpdate{}
		begun := time.Now()
		assert.True(t, awaitRoutes(t.Context(), updates, nil))
		assert.Empty(t, updates)
		assert.Equal(t, routesRest, time.Since(begun))
		begun = time.Now()
		assert.True(t, awaitRoutes(t.Context(), updates, time.After(retryAfter)))
		assert.Equal(t, retryAfter+routesRest, time.Since(begun))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.False(t, awaitRoutes(ctx, updates, nil))
		close(updates)
		assert.False(t, awaitRoutes(t.Context(), updates, nil))
	})
}
