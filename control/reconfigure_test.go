package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func (tc *tester) reconfigure(change func(*Config)) {
	tc.t.Helper()
	cfg := testConfig()
	change(&cfg)
	require.NoError(tc.t, tc.e.Reconfigure(tc.now, cfg))
	tc.drain()
}

// destinations are where the messages of one kind went.
func destinations[M lisp.Message](tc *tester) (out []netip.Addr) {
	for _, s := range take[M](tc) {
		out = append(out, s.Remote.Addr())
	}
	return out
}

// TestReconfigureMapServers: a new Map-Server is registered with, one that stays
// hears nothing, one with another key hears of us by that, one that is gone
// hears nothing more.
func TestReconfigureMapServers(t *testing.T) {
	tc := up(t, noProbe)
	tc.registers()
	tc.advance(time.Second)
	stays := testConfig().MapServers[0]
	other := netip.MustParseAddr("198.51.100.77")
	tc.reconfigure(func(c *Config) {
		noProbe(c)
		c.MapServers = append(c.MapServers, MapServer{Addr: netip.AddrPortFrom(other, 4342), Key: testKey})
	})
	assert.Equal(t, []netip.Addr{other}, destinations[*lisp.MapRegister](tc))
	require.Len(t, tc.e.Registrations(), 2)
	assert.Equal(t, StateRegistered, tc.e.Registrations()[0].State)

	key := testKey
	key.Secret = []byte("another secret")
	tc.reconfigure(func(c *Config) { noProbe(c); c.MapServers[0].Key = key })
	s, _ := one[*lisp.MapRegister](tc)
	assert.Equal(t, stays.Addr.Addr(), s.Remote.Addr())
	require.NoError(t, lisp.Verify(s.Bytes, key))
	require.Len(t, tc.e.Registrations(), 1)
	tc.advance(10 * time.Minute)
	assert.NotContains(t, destinations[*lisp.MapRegister](tc), other)

	// The same again is no change.
	tc.reconfigure(func(c *Config) { noProbe(c); c.MapServers[0].Key = key })
	assert.Empty(t, destinations[*lisp.MapRegister](tc))
}

// TestReconfigureMapResolvers: a request under way goes on to the Map-Resolvers
// that there are now.
func TestReconfigureMapResolvers(t *testing.T) {
	tc := up(t, quiet)
	tc.resolve(hostKey(netip.MustParsePrefix("203.0.113.9/32")))
	assert.Len(t, take[*lisp.MapRequest](tc), 1)
	other := netip.MustParseAddr("198.51.100.78")
	tc.reconfigure(func(c *Config) {
		quiet(c)
		c.MapResolvers = []netip.AddrPort{netip.AddrPortFrom(other, 4342)}
	})
	tc.advance(1500 * time.Millisecond)
	assert.Equal(t, []netip.Addr{other}, destinations[*lisp.MapRequest](tc))
	tc.reconfigure(func(c *Config) { quiet(c); c.MapResolvers = nil })
	tc.advance(time.Minute)
	assert.Empty(t, destinations[*lisp.MapRequest](tc))
}

// TestReconfigureForwarding: static mappings come and go, learned ones stay, and
// what went to a Proxy-ETR is asked for again.
func TestReconfigureForwarding(t *testing.T) {
	petr := []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.MustParseAddr("198.51.100.99")}, Priority: 1}}
	mapping := func(prefix string, rlocs []mapcache.RLOC) mapcache.Mapping {
		return mapcache.Mapping{Key: key(prefix), RLOCs: rlocs}
	}
	peer := []mapcache.RLOC{{Locator: mapcache.Locator{Addr: peerRLOC}, Priority: 1}}
	tc := up(t, quiet, func(c *Config) {
		c.ProxyETRs = petr
		c.StaticMappings = []mapcache.Mapping{mapping("203.0.113.0/26", peer), mapping("203.0.113.64/26", peer)}
	})
	learned, native := mapping("203.0.113.128/26", peer), mapping("203.0.113.192/26", petr)
	learned.TTL, native.TTL = time.Hour, time.Hour
	require.NoError(t, tc.e.cache.Insert(tc.now, learned))
	require.NoError(t, tc.e.cache.Insert(tc.now, native))

	keys := func() (out []string) {
		for ent := range tc.e.Cache().All() {
			out = append(out, ent.String())
		}
		return out
	}
	cfg := testConfig()
	quiet(&cfg)
	cfg.StaticMappings = make([]mapcache.Mapping, 1)
	require.Error(t, tc.e.Reconfigure(tc.now, cfg), "an invalid prefix")
	assert.Len(t, keys(), 4, "nothing has changed")

	tc.reconfigure(func(c *Config) {
		quiet(c)
		c.StaticMappings = []mapcache.Mapping{mapping("203.0.113.64/26", peer), mapping("198.18.0.0/15", peer)}
	})
	assert.ElementsMatch(t, []string{"203.0.113.64/26", "203.0.113.128/26", "198.18.0.0/15"}, keys())
}

// TestReconfigureProbing: probing can be switched on and off.
func TestReconfigureProbing(t *testing.T) {
	tc := up(t, quiet)
	require.NoError(t, tc.e.cache.Insert(tc.now, mapcache.Mapping{
		Key: key("203.0.113.0/26"), TTL: 24 * time.Hour, RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: peerRLOC}, Priority: 1}},
	}))
	tc.advance(time.Minute)
	assert.Empty(t, tc.e.Paths())
	tc.reconfigure(func(c *Config) { c.MapServers = nil })
	tc.advance(time.Minute)
	require.NotEmpty(t, tc.e.Paths())
	assert.True(t, tc.e.Paths()[0].Down, "nobody answers")
	tc.reconfigure(quiet)
	assert.Empty(t, tc.e.Paths())
	assert.True(t, tc.e.Cache().Reachable(tc.e.learned(peerRLOC)))
}

// TestMapRequestRetries: so often and no more.
func TestMapRequestRetries(t *testing.T) {
	for retries, want := range map[int]int{0: 11, -1: 1, 2: 3, 99: 11} {
		tc := up(t, quiet, func(c *Config) { c.MapRequestRetries = retries })
		tc.resolve(hostKey(netip.MustParsePrefix("203.0.113.9/32")))
		tc.advance(2 * time.Minute)
		assert.Len(t, take[*lisp.MapRequest](tc), want, "%d", retries)
	}
}

// TestFormat: learned locators get the configured format and its port.
func TestFormat(t *testing.T) {
	tc := up(t, quiet, func(c *Config) { c.Format = mapcache.FormatVXLANGPE })
	assert.Equal(t, mapcache.Locator{Addr: peerRLOC, Port: 4790, Format: mapcache.FormatVXLANGPE}, tc.e.learned(peerRLOC))
	tc.resolve(hostKey(netip.MustParsePrefix("203.0.113.9/32")))
	_, m := one[*lisp.MapRequest](tc)
	require.True(t, tc.answer(m.Nonce, record("203.0.113.0/24", 60, peerRLOC)))
	ent, ok := tc.e.Cache().Get(key("203.0.113.0/24"))
	require.True(t, ok)
	assert.Equal(t, tc.e.learned(peerRLOC), ent.RLOCs[0].Locator)
}
