package mapcache_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// t0 is where the clock of tests starts.
var t0 = time.Date(2012, 10, 1, 12, 0, 0, 0, time.UTC)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func key(s string) mapcache.Key { return mapcache.MakeKey(0, prefix(s)) }

func loc(s string) mapcache.Locator {
	return mapcache.Locator{Addr: addr(s), Port: lisp.DataPort}
}

func rloc(s string, priority, weight uint8) mapcache.RLOC {
	return mapcache.RLOC{Locator: loc(s), Priority: priority, Weight: weight}
}

// positive is a learned mapping to one locator.
func positive(eid, rlocAddr string, ttl time.Duration) mapcache.Mapping {
	return mapcache.Mapping{Key: key(eid), RLOCs: []mapcache.RLOC{rloc(rlocAddr, 1, 100)}, TTL: ttl}
}

func negative(eid string, act lisp.Action, ttl time.Duration) mapcache.Mapping {
	return mapcache.Mapping{Key: key(eid), Action: act, TTL: ttl}
}

func static(eid, rlocAddr string) mapcache.Mapping {
	m := positive(eid, rlocAddr, mapcache.TTLForever)
	m.Origin = mapcache.OriginStatic
	return m
}

// newCache returns a published cache of mappings stored at t0.
func newCache(t testing.TB, cfg mapcache.Config, ms ...mapcache.Mapping) *mapcache.Cache {
	t.Helper()
	c := mapcache.New(cfg)
	for _, m := range ms {
		require.NoError(t, c.Insert(t0, m))
	}
	c.Publish()
	return c
}

// forward publishes and forwards one packet.
func forward(c *mapcache.Cache, dst string) mapcache.Decision {
	c.Publish()
	return c.View().Forward(0, addr(dst), 0)
}

// via is the locator that a packet to dst leaves by, or the verdict.
func via(c *mapcache.Cache, dst string) string {
	d := forward(c, dst)
	if d.Verdict != mapcache.Encapsulate {
		return d.Verdict.String()
	}
	return d.Locator.String()
}

func keys(c *mapcache.Cache) []string {
	var list []string
	for e := range c.All() {
		list = append(list, e.String())
	}
	return list
}

// advance runs Advance at each deadline up to now, as a runner does.
func advance(c *mapcache.Cache, now time.Time) (refresh []string) {
	for d := c.Deadline(); !d.IsZero() && !d.After(now); d = c.Deadline() {
		for _, k := range c.Advance(d) {
			refresh = append(refresh, k.String())
		}
	}
	for _, k := range c.Advance(now) {
		refresh = append(refresh, k.String())
	}
	return refresh
}

func TestLongestMatch(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{},
		positive("10.0.0.0/8", "192.0.2.1", time.Hour),
		positive("10.1.0.0/16", "192.0.2.2", time.Hour),
		positive("10.1.1.1/32", "2001:db8::3", time.Hour),
		negative("10.2.0.0/16", lisp.ActionNativelyForward, time.Hour),
		positive("2001:db8::/32", "192.0.2.4", time.Hour),
		positive("2001:db8:0:1::/64", "192.0.2.5", time.Hour),
	)
	tests := []struct{ dst, want string }{
		{"10.9.9.9", "192.0.2.1"}, // RFC 9300-6-s1
		{"10.1.9.9", "192.0.2.2"},
		{"10.1.1.1", "2001:db8::3"},
		{"10.2.0.1", "native"}, // a negative entry is more specific than a positive one
		{"11.0.0.1", "miss"},
		{"2001:db8::1", "192.0.2.4"},
		{"2001:db8:0:1::1", "192.0.2.5"},
		{"2001:db9::1", "miss"},
		{"::ffff:10.1.1.1", "2001:db8::3"},
	}
	for _, tt := range tests {
		t.Run(tt.dst, func(t *testing.T) {
			assert.Equal(t, tt.want, via(c, tt.dst))
			e, ok := c.LookupEntry(0, addr(tt.dst))
			assert.Equal(t, tt.want != "miss", ok)
			if ok && len(e.RLOCs) > 0 {
				assert.Equal(t, tt.want, e.RLOCs[0].Addr.String())
			}
		})
	}
	assert.Equal(t, mapcache.Decision{}, c.View().Forward(0, netip.Addr{}, 0))
}

// A Map-Reply may have another granularity than its request: the key is the
// record's, whatever was asked for.
func TestMappingIsNormalised(t *testing.T) {
	t.Parallel()
	m := mapcache.Mapping{
		Key:   mapcache.Key{Prefix: netip.PrefixFrom(addr("::ffff:10.1.2.3"), 112)},
		Asked: netip.PrefixFrom(addr("10.1.2.3"), 32),
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr("::ffff:192.0.2.1")}}},
		TTL:   time.Hour,
	}
	c := newCache(t, mapcache.Config{}, m)
	e, ok := c.Get(key("10.1.0.0/16")) // RFC 9301-5.5-1
	require.True(t, ok)
	assert.Equal(t, []mapcache.RLOC{rloc("192.0.2.1", 0, 0)}, e.RLOCs)
	assert.Equal(t, "192.0.2.1", via(c, "10.1.0.0"))
	_, ok = c.Get(mapcache.Key{Prefix: netip.PrefixFrom(addr("10.1.9.9"), 16)})
	assert.True(t, ok, "Get masks as well")
}

func TestInstancesAreApart(t *testing.T) {
	t.Parallel()
	c := mapcache.New(mapcache.Config{})
	iids := []uint32{0, 1, 7, 256, 65536, 1<<24 - 1}
	for i, iid := range iids {
		m := positive("10.0.0.0/8", "192.0.2.1", time.Hour)
		m.IID, m.RLOCs[0].Port = iid, uint16(5000+i)
		require.NoError(t, c.Insert(t0, m))
	}
	assert.Equal(t, mapcache.Miss, c.View().Forward(7, addr("10.0.0.1"), 0).Verdict, "not published")
	c.Publish()
	old := c.View()
	for i, iid := range iids {
		d := c.View().Forward(iid, addr("10.0.0.1"), 0)
		assert.Equal(t, uint16(5000+i), d.Locator.Port)
	}
	assert.Equal(t, mapcache.Miss, c.View().Forward(2, addr("10.0.0.1"), 0).Verdict)
	assert.Equal(t, mapcache.Miss, c.View().Forward(1<<24|7, addr("10.0.0.1"), 0).Verdict)

	require.True(t, c.Remove(t0, mapcache.MakeKey(7, prefix("10.0.0.0/8"))))
	c.Publish()
	assert.Equal(t, mapcache.Miss, c.View().Forward(7, addr("10.0.0.1"), 0).Verdict)
	assert.Equal(t, mapcache.Encapsulate, old.Forward(7, addr("10.0.0.1"), 0).Verdict)
	assert.Equal(t, []string{
		"10.0.0.0/8", "[1]10.0.0.0/8", "[256]10.0.0.0/8", "[65536]10.0.0.0/8", "[16777215]10.0.0.0/8",
	}, keys(c))
}

func TestInsertRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*mapcache.Mapping)
		want error
		text string
	}{
		{"no prefix", func(m *mapcache.Mapping) { m.Prefix = netip.Prefix{} }, mapcache.ErrInvalid, "no EID-Prefix"},
		{"instance", func(m *mapcache.Mapping) { m.IID = 1 << 24 }, mapcache.ErrInvalid, "instance ID 16777216"},
		{"ttl", func(m *mapcache.Mapping) { m.TTL = -time.Second }, mapcache.ErrInvalid, "TTL -1s"},
		{"no locator address", func(m *mapcache.Mapping) {
			m.RLOCs = append(m.RLOCs, mapcache.RLOC{})
		}, mapcache.ErrInvalid, "locator 1 has no address"},
		{"too many locators", func(m *mapcache.Mapping) {
			m.RLOCs = slices.Repeat(m.RLOCs, 256)
		}, mapcache.ErrInvalid, "256 locators"},
		{"origin", func(m *mapcache.Mapping) { m.Origin = 200 }, mapcache.ErrInvalid, "origin(200)"},
		{"static", func(m *mapcache.Mapping) { m.Prefix = prefix("10.9.0.0/16") }, mapcache.ErrStatic, "10.9.0.0/16"},
		{"static, TTL 0", func(m *mapcache.Mapping) {
			m.Prefix, m.TTL = prefix("10.9.0.0/16"), 0
		}, mapcache.ErrStatic, "10.9.0.0/16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCache(t, mapcache.Config{}, static("10.9.0.0/16", "192.0.2.9"))
			m := positive("10.0.0.0/8", "192.0.2.1", time.Hour)
			tt.edit(&m)
			err := c.Insert(t0, m)
			require.ErrorIs(t, err, tt.want)
			assert.ErrorContains(t, err, tt.text)
			assert.Equal(t, []string{"10.9.0.0/16"}, keys(c))
		})
	}
}

// addr4 is the i-th address of 10/8.
func addr4(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestGetAndLookupWithoutEntry(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{}, positive("10.0.0.0/8", "192.0.2.1", time.Hour))
	_, ok := c.Get(key("10.1.0.0/16"))
	assert.False(t, ok, "exact")
	_, ok = c.Get(mapcache.MakeKey(7, prefix("10.0.0.0/8")))
	assert.False(t, ok)
	_, ok = c.LookupEntry(7, addr("10.0.0.1"))
	assert.False(t, ok)
	m := positive("10.0.0.0/8", "192.0.2.1", time.Hour)
	m.RLOCs[0].IfIndex = -1
	require.ErrorIs(t, c.Insert(t0, m), mapcache.ErrInvalid)
}

// A locator names an EID-Prefix to probe with, also after the mapping that was
// stored last has gone.
func TestLocatorsNameAPrefix(t *testing.T) {
	t.Parallel()
	c := newCache(t, mapcache.Config{},
		positive("10.1.0.0/16", "192.0.2.1", time.Hour),
		positive("10.2.0.0/16", "192.0.2.1", time.Hour),
		positive("10.3.0.0/16", "192.0.2.2", time.Hour),
	)
	c.Remove(t0, key("10.2.0.0/16"))
	require.NoError(t, c.Insert(t0, positive("10.3.0.0/16", "192.0.2.3", time.Hour)))
	got := make(map[string]string)
	for l, info := range c.Locators() {
		assert.NotZero(t, info.ID)
		assert.True(t, info.Usable)
		got[l.String()] = info.Key.String()
	}
	assert.Equal(t, map[string]string{"192.0.2.1": "10.1.0.0/16", "192.0.2.3": "10.3.0.0/16"}, got)
}
