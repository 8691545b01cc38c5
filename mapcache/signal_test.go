package mapcache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

func TestSetStatus(t *testing.T) {
	c := mapcache.New(mapcache.Config{})
	a, b := loc("192.0.2.1"), loc("192.0.2.2")
	rlocs := []mapcache.RLOC{{Locator: a, Priority: 1, Weight: 1}, {Locator: b, Priority: 2, Weight: 1}}
	one, other := key("10.1.0.0/16"), key("10.2.0.0/16")
	require.NoError(t, c.Insert(t0, mapcache.Mapping{Key: one, RLOCs: rlocs, TTL: time.Hour, MapVersion: 7}))
	require.NoError(t, c.Insert(t0, mapcache.Mapping{Key: other, RLOCs: rlocs, TTL: time.Hour}))
	c.Publish()
	c.Changes()
	before, _ := c.Get(one)
	a, b = before.RLOCs[0].Locator, before.RLOCs[1].Locator
	old := c.View()
	toward := func(v *mapcache.View, eid string) mapcache.Decision { return v.Forward(0, addr(eid), 0) }

	assert.True(t, c.SetStatus(one, func(l mapcache.Locator) bool { return l == a }))
	assert.False(t, c.SetStatus(one, func(l mapcache.Locator) bool { return l == a }), "once")
	c.Publish()
	v := c.View()
	assert.Equal(t, b, toward(v, "10.1.0.1").Locator)
	assert.Equal(t, a, toward(v, "10.2.0.1").Locator, "the status is of one EID-Prefix")
	assert.Equal(t, a, toward(old, "10.1.0.1").Locator)
	cs := c.Changes()
	require.Len(t, cs, 1)
	assert.Equal(t, mapcache.ReasonUpdated, cs[0].Reason)
	assert.Equal(t, one, cs[0].Key)
	assert.False(t, cs[0].Old.RLOCs[0].Down)
	assert.True(t, cs[0].New.RLOCs[0].Down)
	after, _ := c.Get(one)
	assert.True(t, after.RLOCs[0].Down)
	after.RLOCs[0].Down = false
	after.LastUsed, before.LastUsed = time.Time{}, time.Time{}
	assert.Equal(t, before, after, "all else stays")

	assert.True(t, c.SetStatus(one, func(mapcache.Locator) bool { return true }))
	c.Publish()
	assert.Equal(t, mapcache.NoLocator, toward(c.View(), "10.1.0.1").Verdict)
	assert.True(t, c.SetStatus(one, func(mapcache.Locator) bool { return false }))
	c.Publish()
	assert.Equal(t, a, toward(c.View(), "10.1.0.1").Locator)
	assert.False(t, c.SetStatus(key("10.3.0.0/16"), func(mapcache.Locator) bool { return true }))

	// The references add up: with the entries go sets and locators.
	c.Remove(t0, one)
	c.Remove(t0, other)
	for l := range c.Locators() {
		assert.Fail(t, "still there", "%v", l)
	}
}

func TestLookupID(t *testing.T) {
	c := mapcache.New(mapcache.Config{})
	for _, k := range []mapcache.Key{key("10.1.0.0/16"), {IID: 7, Prefix: prefix("10.1.0.0/16")}} {
		require.NoError(t, c.Insert(t0, mapcache.Mapping{Key: k, RLOCs: []mapcache.RLOC{{Locator: loc("192.0.2.1")}}, TTL: time.Hour}))
		c.Publish()
		id, ok := c.View().LookupID(k.IID, addr("10.1.2.3"))
		assert.True(t, ok)
		ent, _ := c.Get(k)
		assert.Equal(t, ent.ID, id)
		mapped, _ := c.View().LookupID(k.IID, addr("::ffff:10.1.2.3"))
		assert.Equal(t, id, mapped)
		c.Advance(t0.Add(time.Second))
		ent, _ = c.Get(k)
		assert.Zero(t, ent.LastUsed, "it is no use")
		assert.Equal(t, id, c.View().Forward(k.IID, addr("10.1.2.3"), 0).EntryID)
	}
	for _, iid := range []uint32{0, 7, 9, 1 << 24} {
		_, ok := c.View().LookupID(iid, addr("10.9.0.1"))
		assert.False(t, ok)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.View().LookupID(7, addr("10.1.2.3")) }))
}
