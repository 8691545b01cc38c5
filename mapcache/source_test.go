package mapcache

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func TestMatchSource(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := New(Config{})
	at := netip.MustParseAddr
	put := func(iid uint32, eid string, rlocs ...RLOC) {
		t.Helper()
		require.NoError(t, c.Insert(now, Mapping{Key: Key{IID: iid, Prefix: netip.MustParsePrefix(eid)}, RLOCs: rlocs, Action: lisp.ActionNativelyForward, TTL: time.Hour}))
	}
	var many []RLOC
	for i := range 20 {
		many = append(many, RLOC{Locator: Locator{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})}, Priority: 1, Weight: uint8(i)})
	}
	put(0, "192.0.2.0/24", RLOC{Locator: Locator{Addr: at("198.51.100.1")}, Priority: 1}, RLOC{Locator: Locator{Addr: at("2001:db8::1"), Port: 9}, Priority: 255, Down: true})
	put(0, "192.0.2.7/32")
	put(7, "192.0.2.0/24", many...)
	c.Publish()
	v := c.View()
	for _, tt := range []struct {
		iid       uint32
		eid, rloc string
		want      SourceMatch
	}{
		{0, "192.0.2.1", "198.51.100.1", SourceMatches},
		{0, "::ffff:192.0.2.1", "::ffff:198.51.100.1", SourceMatches},
		{0, "192.0.2.1", "2001:db8::1", SourceMatches}, // not to be sent to, but it may send
		{0, "192.0.2.1", "198.51.100.2", SourceMismatch},
		{0, "192.0.2.7", "198.51.100.1", SourceMismatch}, // the longest match is negative
		{0, "192.0.3.1", "198.51.100.1", SourceUnknown},
		{0, "2001:db8:1::1", "198.51.100.1", SourceUnknown},
		{7, "192.0.2.1", "203.0.113.19", SourceMatches},
		{7, "192.0.2.1", "198.51.100.1", SourceMismatch},
		{8, "192.0.2.1", "198.51.100.1", SourceUnknown},
	} {
		assert.Equal(t, tt.want, v.MatchSource(tt.iid, at(tt.eid), at(tt.rloc)), "%v", tt)
	}
	e, ok := c.LookupEntry(0, at("192.0.2.1"))
	require.True(t, ok)
	before := e.LastUsed
	c.Advance(now.Add(time.Minute))
	e, _ = c.LookupEntry(0, at("192.0.2.1"))
	assert.Equal(t, before, e.LastUsed, "not used by that")
	assert.Zero(t, testing.AllocsPerRun(10, func() { v.MatchSource(7, at("192.0.2.1"), many[3].Addr) }))
}

// A number that no mapping uses any more says so.
func TestLocatorOfNoMapping(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := New(Config{})
	l := Locator{Addr: netip.MustParseAddr("198.51.100.1")}
	k := Key{Prefix: netip.MustParsePrefix("192.0.2.0/24")}
	require.NoError(t, c.Insert(now, Mapping{Key: k, RLOCs: []RLOC{{Locator: l, Priority: 1}}, TTL: time.Hour}))
	c.Publish()
	id := c.View().Forward(0, netip.MustParseAddr("192.0.2.1"), 0).LocatorID
	old := c.View()
	assert.Equal(t, l.normal(), old.Locator(id))
	c.Remove(now, k)
	c.Publish()
	assert.Equal(t, Locator{}, c.View().Locator(id))
	assert.Equal(t, l.normal(), old.Locator(id), "as of that Publish")
}
