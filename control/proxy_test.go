package control

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

// TestProxyITR: it asks with the p bit for EIDs in its aggregates, registers
// nothing and needs no EID of its own.
func TestProxyITR(t *testing.T) {
	tc := up(t, func(c *Config) {
		c.Database = nil
		c.ProxyITR = []mapcache.Key{key("198.51.100.0/22"), key("2001:db8:2::/48")}
		c.Probe.Interval = -1
	})
	assert.Empty(t, take[*lisp.MapRegister](tc))
	for _, k := range []mapcache.Key{hostKey(peerEID), hostKey(peerEID6)} {
		tc.resolve(k)
		s, m := one[*lisp.MapRequest](tc)
		assert.True(t, m.PITR)
		assert.Equal(t, mr1, s.Remote)
		assert.True(t, m.SourceEID.IsZero())
	}
	tc.resolve(key("100.64.0.1/32"), mapcache.HostKey(7, peerEID.Addr()))
	assert.Empty(t, take[*lisp.MapRequest](tc))
	assert.Equal(t, uint64(2), tc.e.Stats().Dropped[DropNotServed])

	// An SMR from a site whose packets it takes.
	tc.learn(key("198.51.101.1/32"), record("198.51.101.0/24", 1440, peerRLOC))
	tc.advance(5 * time.Second)
	take[*lisp.MapRequest](tc)
	smr := mapRequest("198.51.101.0/24")
	smr.SMR, smr.SourceEID = true, lisp.AddressFrom(netip.MustParseAddr("198.51.101.0"))
	require.True(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, smr)))
	_, m := one[*lisp.MapRequest](tc)
	assert.True(t, m.PITR && m.SMRInvoked)

	// One that is an xTR too asks for others as that.
	tc = up(t, quiet, func(c *Config) { c.ProxyITR = []mapcache.Key{key("198.51.100.0/22")} })
	tc.resolve(hostKey(peerEID))
	_, m = one[*lisp.MapRequest](tc)
	assert.True(t, m.PITR)
	tc.resolve(key("100.64.0.1/32"))
	_, m = one[*lisp.MapRequest](tc)
	assert.False(t, m.PITR)
	assert.Equal(t, lisp.AddressFrom(eid4.Addr()), m.SourceEID)

	_, err := New(Config{ProxyITR: []mapcache.Key{{}}})
	require.ErrorIs(t, err, ErrConfig)
}

// TestProxyETRFamily: the Proxy-ETRs for IPv4 and for IPv6 destinations.
func TestProxyETRFamily(t *testing.T) {
	petr := func(n byte) []mapcache.RLOC {
		return []mapcache.RLOC{{Locator: mapcache.Locator{Addr: netip.AddrFrom4([4]byte{203, 0, 113, n})}, Weight: 100}}
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   [2]string
	}{
		{"one for both", func(c *Config) { c.ProxyETRs = petr(70) }, [2]string{"203.0.113.70", "203.0.113.70"}},
		{"one each", func(c *Config) { c.ProxyETRs4, c.ProxyETRs6 = petr(74), petr(76) }, [2]string{"203.0.113.74", "203.0.113.76"}},
		{"another for IPv6", func(c *Config) { c.ProxyETRs, c.ProxyETRs6 = petr(70), petr(76) }, [2]string{"203.0.113.70", "203.0.113.76"}},
		{"IPv6 only", func(c *Config) { c.ProxyETRs6 = petr(76) }, [2]string{"", "203.0.113.76"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tc := up(t, prober, c.change)
			tc.learn(key("100.64.0.1/32"), negative("100.64.0.0/10", 15, lisp.ActionNativelyForward))
			tc.learn(key("2001:db8:9::1/128"), negative("2001:db8:9::/48", 15, lisp.ActionNativelyForward))
			for i, dst := range []string{"100.64.0.1", "2001:db8:9::1"} {
				d := tc.forward(netip.MustParseAddr(dst))
				if c.want[i] == "" {
					assert.Equal(t, mapcache.Native, d.Verdict)
					continue
				}
				require.Equal(t, mapcache.Encapsulate, d.Verdict)
				assert.Equal(t, c.want[i], d.Locator.Addr.String())
			}
			assert.Empty(t, tc.e.Paths(), "Proxy-ETRs are not probed")
		})
	}
	_, err := New(Config{ProxyETRs6: petr(0), ProxyETRs4: []mapcache.RLOC{{}}})
	require.ErrorIs(t, err, ErrConfig)
}

// TestGlean: not without being told to; then for three seconds, and verified.
func TestGlean(t *testing.T) {
	l := mapcache.Locator{Addr: peerRLOC}
	tc := up(t, quiet)
	tc.e.Glean(tc.now, 0, peerEID.Addr(), l)
	tc.drain()
	assert.Zero(t, tc.e.Cache().Len())          // RFC 9300-4.1-5
	assert.Empty(t, take[*lisp.MapRequest](tc)) // RFC 9300-4.1-5

	tc = up(t, quiet, func(c *Config) { c.Cache.Gleaning = true })
	for range 3 {
		tc.e.Glean(tc.now, 0, peerEID.Addr(), l)
		tc.drain()
	}
	s, m := one[*lisp.MapRequest](tc) // RFC 9300-9-4, 9300-4.2-3
	assert.Equal(t, mr1, s.Remote)
	assert.Equal(t, "198.51.100.7/32", m.Records[0].String()) // RFC 9300-9-4: for the source EID
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
	better := netip.MustParseAddr("203.0.113.44")
	tc.advance(20 * time.Millisecond)
	require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 1440, better)))
	assert.Equal(t, better, tc.forward(peerEID.Addr()).Locator.Addr)
	tc.advance(4 * time.Second)
	assert.Equal(t, better, tc.forward(peerEID.Addr()).Locator.Addr)

	// What cannot be verified is over after three seconds.
	tc.e.Glean(tc.now, 0, netip.MustParseAddr("100.64.0.1"), l)
	tc.advance(3100 * time.Millisecond)
	assert.Equal(t, mapcache.Miss, tc.forward(netip.MustParseAddr("100.64.0.1")).Verdict)
}

// TestRefreshSpread: mappings learned together are not asked for again together,
// but all of them before they expire.
func TestRefreshSpread(t *testing.T) {
	const n = 500
	tc := up(t, quiet)
	for i := range n {
		k := mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		require.NoError(t, tc.e.Cache().Insert(tc.now, mapcache.Mapping{
			Key: k, TTL: 5 * time.Minute, Origin: mapcache.OriginMapReply,
			RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: peerRLOC}}},
		}))
	}
	tc.e.collect(tc.now)
	tc.e.Publish()
	asked := make(map[string]time.Duration)
	for range 290 {
		for i := range n {
			tc.forward(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		}
		tc.advance(time.Second)
		for _, s := range take[*lisp.MapRequest](tc) {
			if k := s.msg.(*lisp.MapRequest).Records[0].String(); asked[k] == 0 {
				asked[k] = s.at.Sub(start)
			}
		}
	}
	require.Len(t, asked, n)
	at := make([]time.Duration, 0, n)
	for _, d := range asked {
		at = append(at, d)
	}
	slices.Sort(at)
	assert.GreaterOrEqual(t, at[0], 4*time.Minute)               // 80 %
	assert.LessOrEqual(t, at[n-1], 4*time.Minute+31*time.Second) // 90 %
	assert.Greater(t, at[3*n/4]-at[n/4], 10*time.Second)
}
