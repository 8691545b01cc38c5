package control

import (
	"fmt"
	"iter"
	"time"

	"github.com/xtrkit/xtrkit/mapcache"
)

// Import puts entries into the map-cache that an earlier process knew, by
// [mapcache.Cache.Import]: before the first packet, so that it needs no Map-Request.
// What the map-cache has already stays. It returns how many it stored, and fails at
// the first one that can't be stored.
func (e *Engine) Import(now time.Time, saved iter.Seq[mapcache.Saved]) (n int, err error) {
	now = e.tick(now)
	defer e.collect(now)
	for s := range saved {
		stored, err := e.cache.Import(now, s)
		if err != nil {
			return n, fmt.Errorf("control: %w", err)
		}
		if stored {
			n++
		}
	}
	return n, nil
}
