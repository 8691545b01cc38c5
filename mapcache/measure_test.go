package mapcache_test

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

func TestLocatorMeasurements(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", time.Hour), positive("10.2.0.0/16", "192.0.2.2", time.Hour))
	l := loc("192.0.2.1")
	bare := mapcache.Locator{Addr: addr("::ffff:192.0.2.1")} // as others may write it
	get := func(l mapcache.Locator) mapcache.LocatorInfo {
		info, ok := c.LocatorInfo(l)
		require.True(t, ok)
		return info
	}
	assert.Zero(t, get(l).RTT)
	assert.Equal(t, key("10.1.0.0/16"), get(l).Key)

	c.SetRTT(bare, 23*time.Millisecond)
	c.AddUsage(t0, mapcache.Usage{Locator: bare, PacketsOut: 3, OctetsOut: 300})
	c.AddUsage(t0, mapcache.Usage{Locator: l, PacketsOut: 1, OctetsOut: 50, PacketsIn: 7, OctetsIn: 700})
	c.SetDown(l, mapcache.CauseICMP, true)
	want := mapcache.LocatorInfo{
		ID: get(l).ID, Causes: []mapcache.Cause{mapcache.CauseICMP}, Key: key("10.1.0.0/16"),
		RTT: 23 * time.Millisecond, PacketsOut: 4, OctetsOut: 350, PacketsIn: 7, OctetsIn: 700,
	}
	assert.Equal(t, want, get(l))
	infos := maps.Collect(c.Locators())
	assert.Len(t, infos, 2)
	assert.Equal(t, want, infos[l])
	assert.Zero(t, infos[loc("192.0.2.2")].PacketsOut)

	c.SetRTT(l, -1)
	assert.Zero(t, get(l).RTT, "forgotten")

	// Unknown locators are ignored, and what was measured goes with the locator.
	c.SetRTT(loc("192.0.2.77"), time.Second)
	c.AddUsage(t0, mapcache.Usage{Locator: loc("192.0.2.77"), PacketsOut: 1})
	_, ok := c.LocatorInfo(loc("192.0.2.77"))
	assert.False(t, ok)
	require.True(t, c.Remove(t0, key("10.1.0.0/16")))
	_, ok = c.LocatorInfo(l)
	assert.False(t, ok)
	require.NoError(t, c.Insert(t0, positive("10.1.0.0/16", "192.0.2.1", time.Hour)))
	assert.Zero(t, get(l).PacketsOut)
	assert.True(t, get(l).Usable)
}

// A report that names an entry marks it used, if packets went out.
func TestAddUsageMarksEntry(t *testing.T) {
	t.Parallel()
	for out, want := range map[uint64][]string{0: nil, 5: {"10.1.0.0/16"}} {
		c := newCache(t, mapcache.Config{}, positive("10.1.0.0/16", "192.0.2.1", 10*time.Minute))
		advance(c, t0.Add(8*time.Minute))
		c.AddUsage(t0.Add(8*time.Minute+1), mapcache.Usage{
			Key: mapcache.HostKey(0, addr("10.1.2.3")), Locator: loc("192.0.2.1"), PacketsOut: out, PacketsIn: 1,
		})
		assert.Equal(t, want, advance(c, t0.Add(9*time.Minute)))
		info, _ := c.LocatorInfo(loc("192.0.2.1"))
		assert.Equal(t, out, info.PacketsOut)
		assert.Equal(t, uint64(1), info.PacketsIn)
	}
}
