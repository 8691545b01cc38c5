package mapcache

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Who has an old View may hear of a locator by its number from who has a new one.
func TestLocatorOfLaterView(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	insert := func(n uint32) (id uint32) {
		a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		l := Locator{Addr: netip.AddrFrom4([4]byte{192, byte(n >> 16), byte(n >> 8), byte(n)})}
		require.NoError(t, c.Insert(time.Unix(0, 0), Mapping{Key: HostKey(0, a), RLOCs: []RLOC{{Locator: l, Priority: 1}}, TTL: time.Hour}))
		c.Publish()
		d := c.View().Forward(0, a, 0)
		require.Equal(t, d.Locator, c.View().Locator(d.LocatorID))
		return d.LocatorID
	}
	first := c.View()
	assert.Zero(t, first.Locator(1), "nothing was published yet")
	insert(1)
	old := c.View()
	for n := uint32(2); n < 2*vecFan*vecFan; n++ {
		if id := insert(n); old.Locator(id) != (Locator{}) {
			require.Less(t, id, uint32(vecFan), "a leaf that the old View has")
		}
	}
	assert.Zero(t, old.Locator(math.MaxUint32))
}
