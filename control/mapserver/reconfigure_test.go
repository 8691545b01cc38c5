package mapserver

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// registered are the EID-Prefixes that are registered, with their instances.
func (b *bench) registered() []string {
	var eids []string
	for _, r := range b.s.Registrations(b.now) {
		eids = append(eids, eidString(r.IID, r.EID)+" "+r.Site)
	}
	return eids
}

// reconfigure changes the sites of the tests.
func (b *bench) reconfigure(change func(*Config)) {
	b.t.Helper()
	cfg := Config{Sites: testSites()}
	change(&cfg)
	require.NoError(b.t, b.s.Reconfigure(b.now, cfg))
}

func removals(es []Event) (gone []string) {
	for _, e := range es {
		if r, ok := e.(Removed); ok {
			gone = append(gone, eidString(r.IID, r.EID)+" "+r.Site)
		}
	}
	slices.Sort(gone)
	return gone
}

// registerAll registers something with every site.
func (b *bench) registerAll() {
	b.t.Helper()
	for i, m := range [][]byte{
		register(b.t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withNonce(100)),
		register(b.t, key1, record("10.2.0.0/16", 10, "192.0.2.11"), withNonce(101)),
		register(b.t, key2, record("10.128.0.0/16", 10, "192.0.2.12"), withNonce(100)),
		register(b.t, key2, record("2001:db8:b:1::/64", 10, "192.0.2.12"), withNonce(101)),
		register(b.t, key1, iidRecord(7, "172.16.0.0/16", 10, "192.0.2.11"), withNonce(100)),
	} {
		require.Len(b.t, b.put(etr1, m), 1, "%d", i)
	}
	require.Len(b.t, b.registered(), 5)
	b.events()
}

// TestReconfigure: what is registered stays as long as its EID-Prefix is that of its
// site; what is not ends at once, with an event.
func TestReconfigure(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		gone   []string
	}{
		{"nothing", func(*Config) {}, nil},
		{"keys and flags", func(c *Config) { c.Sites[0].Keys, c.Sites[1].ProxyReply = []lisp.Key{key2}, true }, nil},
		{"order", func(c *Config) { slices.Reverse(c.Sites) }, nil},
		{"a site goes", func(c *Config) { c.Sites = c.Sites[:2] }, []string{"[7]172.16.0.0/16 c"}},
		{"all sites go", func(c *Config) { c.Sites = nil }, []string{
			"10.1.0.0/16 a", "10.128.0.0/16 b", "10.2.0.0/16 a", "2001:db8:b:1::/64 b", "[7]172.16.0.0/16 c",
		}},
		{"a site has another name", func(c *Config) { c.Sites[2].Name = "d" }, []string{"[7]172.16.0.0/16 c"}},
		{"a prefix goes, and is part of another", func(c *Config) { c.Sites[1].Prefixes = c.Sites[1].Prefixes[1:] }, []string{"10.128.0.0/16 b"}},
		{"a prefix is smaller", func(c *Config) { c.Sites[0].Prefixes[0].Prefix = netip.MustParsePrefix("10.1.0.0/16") }, []string{"10.2.0.0/16 a"}},
		{"a prefix is larger", func(c *Config) { c.Sites[0].Prefixes[0].Prefix = netip.MustParsePrefix("8.0.0.0/5") }, nil},
		{"only the whole prefix", func(c *Config) { c.Sites[0].Prefixes[0].AcceptMoreSpecifics = false }, []string{"10.1.0.0/16 a", "10.2.0.0/16 a"}},
		{"a new site inside", func(c *Config) {
			c.Sites = append(c.Sites, Site{Name: "new", Keys: []lisp.Key{key2}, Prefixes: []SitePrefix{{Prefix: netip.MustParsePrefix("10.2.0.0/15"), AcceptMoreSpecifics: true}}})
		}, []string{"10.2.0.0/16 a"}},
		{"a resolver's inside", func(c *Config) {
			c.Resolver = []ResolverEntry{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), MapServers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.200:4342")}}}
		}, []string{"10.1.0.0/16 a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.registerAll()
			before := b.registered()
			b.reconfigure(tt.change)
			assert.Equal(t, tt.gone, removals(b.events()))
			want := slices.DeleteFunc(before, func(s string) bool { return slices.Contains(tt.gone, s) })
			assert.ElementsMatch(t, want, b.registered())
			assert.Equal(t, len(want), b.s.Stats().Registrations)
			assert.Equal(t, len(want), b.s.claimCount)

			// And back: what has gone comes with the next Map-Register, what has not is
			// refreshed by it, and expires without.
			b.reconfigure(func(*Config) {})
			assert.Empty(t, removals(b.events()))
			require.Len(t, b.put(etr1, register(t, key1, iidRecord(7, "172.16.0.0/16", 10, "192.0.2.11"), withNonce(200))), 1)
			b.advance(DefaultRegisterTimeout + time.Minute)
			assert.Empty(t, b.registered())
			b.advance(tombstoneTime)
			assert.Zero(t, b.s.claimCount)
		})
	}
}

// TestReconfigureKeys: a site's new key counts at once, for refreshes as well, and its
// old one no more; nonces that were used are still refused.
func TestReconfigureKeys(t *testing.T) {
	b := newBench(t)
	next := lisp.Key{ID: 9, Algorithm: lisp.AlgorithmHMACSHA256HKDF, Secret: []byte("the next")}
	again := func(k lisp.Key, nonce lisp.Nonce) []byte {
		return register(t, k, record("10.1.0.0/16", 10, "192.0.2.11"), withNonce(nonce), withXTR(xtr1))
	}
	require.Len(t, b.put(etr1, again(key1, 10)), 1)
	require.Len(t, b.put(etr1, again(key1, 11)), 1, "a refresh")
	b.reconfigure(func(c *Config) { c.Sites[0].Keys = []lisp.Key{next} })
	b.events()
	assert.Empty(t, b.put(etr1, again(key1, 12)))
	assert.Equal(t, ReasonKey, b.lastReason())
	assert.Len(t, b.registered(), 1, "until it expires")
	require.Len(t, b.put(etr1, again(next, 13)), 1)
	require.Len(t, b.put(etr1, again(next, 14)), 1)
	b.reconfigure(func(c *Config) { c.Sites[0].Keys = []lisp.Key{next, key1} })
	b.events()
	assert.Empty(t, b.put(etr1, again(next, 12)))
	assert.Equal(t, ReasonReplay, b.lastReason())
	require.Len(t, b.put(etr1, again(key1, 15)), 1)
	b.reconfigure(func(c *Config) { c.Sites[0].Keys[0].Secret = []byte("same ID, other secret") })
	b.events()
	assert.Empty(t, b.put(etr1, again(key1, 16)))
	assert.Equal(t, ReasonAuth, b.lastReason())
}

// TestReconfigureUnderWay: what a Worker has verified by the settings of before is not
// applied if it is against those in force.
func TestReconfigureUnderWay(t *testing.T) {
	for _, refresh := range []bool{false, true} {
		b := newBench(t)
		b.registerAll()
		w := b.s.NewWorker()
		eid := "10.3.0.0/16"
		if refresh {
			eid = "10.2.0.0/16"
		}
		r := w.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: register(t, key1, record(eid, 10, "192.0.2.11"), withNonce(300))})
		require.NotNil(t, r.Update)
		b.reconfigure(func(c *Config) { c.Sites = c.Sites[1:] })
		b.s.Apply(b.now, r.Update)
		for _, have := range b.registered() {
			assert.NotContains(t, have, " a")
		}
		assert.Positive(t, b.s.Stats().Dropped[ReasonNotConfigured])
	}
}

// TestReconfigureRefused: a bad configuration changes nothing.
func TestReconfigureRefused(t *testing.T) {
	b := newBench(t)
	b.registerAll()
	sites := b.s.Sites(b.now)
	for _, change := range []func(*Config){
		func(c *Config) { c.Sites[1].Name = "b" },
		func(c *Config) { c.Sites[0].Keys[0].Secret = nil },
		func(c *Config) { c.Resolver = []ResolverEntry{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}} },
		func(c *Config) { c.NAT.RTRs = []RTR{{}} },
		func(c *Config) { c.LISPSEC.ITRKeys = []lisp.Key{{}} },
		func(c *Config) { c.Sites[0].RTRs = []netip.Addr{netip.MustParseAddr("192.0.2.9")} },
	} {
		cfg := Config{Sites: testSites()}
		cfg.Sites = cfg.Sites[1:]
		change(&cfg)
		require.ErrorIs(t, b.s.Reconfigure(b.now, cfg), ErrConfig)
		assert.Equal(t, sites, b.s.Sites(b.now))
		assert.Len(t, b.registered(), 5)
	}
}

// TestReconfigureHealth: what is known of a Map-Server that stays is not forgotten.
func TestReconfigureHealth(t *testing.T) {
	entry := func(servers ...string) []ResolverEntry {
		e := ResolverEntry{Prefix: netip.MustParsePrefix("192.0.2.0/24")}
		for _, a := range servers {
			e.MapServers = append(e.MapServers, netip.MustParseAddrPort(a))
		}
		return []ResolverEntry{e}
	}
	b := newBench(t, func(c *Config) {
		c.Locals = []netip.Addr{msAddr.Addr()}
		c.Resolver = entry("192.0.2.200:4342", "192.0.2.201:4342")
	})
	b.advance(time.Minute)
	for _, u := range b.s.MapServers() {
		assert.Equal(t, HealthDown, u.Health)
	}
	b.reconfigure(func(c *Config) { c.Resolver = entry("192.0.2.201:4342", "192.0.2.202:4342") })
	got := b.s.MapServers()
	assert.Equal(t, HealthDown, got[0].Health)
	assert.Equal(t, HealthUp, got[1].Health, "nothing is known yet")
	b.advance(time.Minute)
	for _, u := range b.s.MapServers() {
		assert.Equal(t, HealthDown, u.Health, "checks go on")
	}
}

// TestReconfigureBesideWorkers: Workers go on meanwhile, and what stays registered at the
// end is what is configured.
func TestReconfigureBesideWorkers(t *testing.T) {
	b := newBench(t)
	updates := make(chan *Update)
	const workers, messages = 3, 200
	done := make(chan struct{})
	for i := range workers {
		w := b.s.NewWorker()
		var ms [][]byte
		for n := range messages {
			nonce, xtr := withNonce(lisp.Nonce(1+n)), withXTR(lisp.XTRID{0: byte(i), 15: 1})
			ms = append(ms, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), nonce, xtr),
				register(t, key1, iidRecord(7, "172.16.0.0/16", 10, "192.0.2.11"), nonce, xtr))
		}
		go func() {
			defer func() { done <- struct{}{} }()
			for _, m := range ms {
				if r := w.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: m}); r.Update != nil {
					updates <- r.Update
				}
			}
		}()
	}
	applied := 0
	for running := workers; running > 0; {
		select {
		case u := <-updates:
			b.s.Apply(b.now, u)
			if applied++; applied%7 == 0 {
				b.reconfigure(func(c *Config) {
					if applied%2 == 0 {
						c.Sites = c.Sites[:2]
					}
				})
			}
		case <-done:
			running--
		}
	}
	b.reconfigure(func(c *Config) { c.Sites = c.Sites[:2] })
	assert.Equal(t, []string{"10.1.0.0/16 a"}, b.registered())
	assert.Positive(t, applied)
}
