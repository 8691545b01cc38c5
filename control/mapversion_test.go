package control

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// inClosed configures a closed network, without registration and probing.
func inClosed(cl Closed) func(*Config) {
	return func(c *Config) {
		quiet(c)
		c.Closed = cl
		if cl.MapVersions {
			for i := range c.Database {
				c.Database[i].MapVersion = 100
			}
		}
	}
}

// local returns what the data plane is told last of an EID-Prefix of ours.
func (tc *tester) local(p netip.Prefix) mapcache.LocalSignal {
	tc.t.Helper()
	tc.signals()
	sig, ok := tc.told.locals[p]
	require.True(tc.t, ok)
	return sig
}

// told is what a data plane has been told.
type told struct {
	locals   map[netip.Prefix]mapcache.LocalSignal
	entries  map[uint32]mapcache.EntrySignal
	locators map[netip.Addr]mapcache.LocatorSignal
}

func (tc *tester) signals() {
	s := tc.e.Signals()
	if tc.told.entries == nil {
		tc.told = told{nil, map[uint32]mapcache.EntrySignal{}, map[netip.Addr]mapcache.LocatorSignal{}}
	}
	if s.Locals != nil {
		tc.told.locals = map[netip.Prefix]mapcache.LocalSignal{}
		for _, l := range s.Locals {
			tc.told.locals[l.Prefix] = l
		}
	}
	for _, e := range s.Entries {
		tc.told.entries[e.EntryID] = e
	}
	for _, l := range s.Locators {
		tc.told.locators[l.Addr] = l
	}
}

// entryOf returns what the data plane is told last of a map-cache entry.
func (tc *tester) entryOf(k mapcache.Key) mapcache.EntrySignal {
	tc.t.Helper()
	tc.signals()
	ent, ok := tc.e.Cache().Get(k)
	require.True(tc.t, ok)
	return tc.told.entries[ent.ID]
}

func (tc *tester) discover(d mapcache.Discovery) {
	tc.t.Helper()
	if !d.Locator.Addr.IsValid() {
		d.Locator.Addr = peerRLOC
	}
	tc.e.Discover(tc.now, d)
	tc.drain()
}

// versioned is a record with a Map-Version Number.
func versioned(r lisp.EIDRecord, v uint16) lisp.EIDRecord {
	r.MapVersion = v
	return r
}

func TestFirstMapVersion(t *testing.T) {
	version := func(cl Closed, v uint16, r io.Reader) uint16 {
		tc := newTester(t, quiet, func(c *Config) {
			c.Closed, c.Database[0].MapVersion, c.Rand = cl, v, r
		})
		tc.setLocals(locals()...)
		return tc.e.db[0].record.MapVersion
	}
	on := Closed{MapVersions: true}
	seed := func(i byte) io.Reader { return rand.NewChaCha8([32]byte{i}) }
	assert.EqualValues(t, 7, version(on, 7, seed(1)))
	assert.Zero(t, version(on, 0, seed(1))) // RFC 9302-6-4: none is made up
	seen := map[uint16]bool{}
	for i := range byte(64) {
		v := version(on, RandomMapVersion, seed(i))
		assert.NotZero(t, v) // RFC 9302-6-3
		assert.LessOrEqual(t, v, uint16(0xfff))
		seen[v] = true
	}
	assert.Greater(t, len(seen), 50, "they are random") // RFC 9302-6-3
	for _, b := range []byte{0, 0xff} {
		v := version(on, RandomMapVersion, bytes.NewReader(bytes.Repeat([]byte{b}, 4096)))
		assert.True(t, v > 0 && v < 4096, v) // RFC 9302-6-3
	}
	for _, c := range []struct {
		cl Closed
		v  uint16
	}{{on, 0x1000}, {Closed{}, 1}, {Closed{LocatorStatusBits: true}, RandomMapVersion}} {
		cfg := testConfig()
		cfg.Closed, cfg.Database[0].MapVersion = c.cl, c.v
		_, err := New(cfg)
		assert.ErrorIs(t, err, ErrConfig)
	}
}

// RFC 9302-6-1: with each change one more, past 0.
func TestMapVersionGrows(t *testing.T) {
	tc := newTester(t, inClosed(Closed{MapVersions: true}), func(c *Config) {
		c.MapServers = testConfig().MapServers
		c.Database[0].MapVersion = 4094
		c.Database[1].MapVersion = 0
	})
	ls := locals()
	tc.setLocals(ls...)
	// What is registered, answered and sent says the same.
	check := func(v uint16) {
		t.Helper()
		ms := take[*lisp.MapRegister](tc)
		require.NotEmpty(t, ms)
		assert.Equal(t, v, ms[len(ms)-1].msg.(*lisp.MapRegister).Records[0].MapVersion)
		assert.Zero(t, ms[len(ms)-1].msg.(*lisp.MapRegister).Records[1].MapVersion) // RFC 9302-6-4
		tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("192.0.2.1/32")))
		_, r := one[*lisp.MapReply](tc)
		assert.Equal(t, v, r.Records[0].MapVersion)
		assert.Equal(t, v, tc.local(eid4).MapVersion)
		assert.Zero(t, tc.local(eid6).MapVersion)
		assert.Equal(t, map[mapcache.Key]uint16{hostKey(eid4): v}, tc.e.MapVersions())
	}
	check(4094)
	ls[0].Weight = 7
	tc.advance(time.Second)
	tc.setLocals(ls...)
	check(4095) // RFC 9302-6-1
	ls[1].Up = false
	tc.advance(time.Second)
	tc.setLocals(ls...)
	check(1) // RFC 9302-6-1: past the Null Map-Version
	tc.setLocals(ls...)
	tc.advance(time.Hour)
	check(1)
	tc.setLocals(append(ls, mapcache.Local{IfIndex: 3, Addr: netip.MustParseAddr("203.0.113.9"), Priority: 1, Weight: 1, Up: true})...)
	check(2)

	// A mapping that is new begins at its own number, and one that stays goes on.
	require.NoError(t, tc.e.SetDatabase(tc.now, []DatabaseMapping{
		{Key: hostKey(eid4), MapVersion: 4094}, {Key: key("192.0.2.9/32"), MapVersion: 55},
	}))
	tc.drain()
	assert.Equal(t, map[mapcache.Key]uint16{hostKey(eid4): 2, key("192.0.2.9/32"): 55}, tc.e.MapVersions())
	err := tc.e.SetDatabase(tc.now, []DatabaseMapping{{Key: hostKey(eid4), MapVersion: 0x1000}})
	assert.ErrorIs(t, err, ErrConfig)
}

// Beside Locator-Status-Bits, a locator that goes down is no new version.
func TestMapVersionWithStatusBits(t *testing.T) {
	tc := newTester(t, inClosed(Closed{MapVersions: true, LocatorStatusBits: true}))
	ls := locals()
	tc.setLocals(ls...)
	ls[0].Up = false
	tc.setLocals(ls...)
	assert.EqualValues(t, 100, tc.local(eid4).MapVersion)
	assert.EqualValues(t, 2, tc.local(eid4).LSBs)
	ls[0].Priority = 9
	tc.setLocals(ls...)
	assert.EqualValues(t, 101, tc.local(eid4).MapVersion)
}

// RFC 9302-7.1-6: a version is accepted until nobody can have it any more.
func TestOldestMapVersion(t *testing.T) {
	tc := newTester(t, inClosed(Closed{MapVersions: true}), func(c *Config) {
		for i := range c.Database {
			c.Database[i].TTL = 10 * time.Minute
		}
	})
	ls := locals()
	assert.Zero(t, tc.local(eid4).Oldest)
	tc.setLocals(ls...)
	oldest := func(after time.Duration, want uint16) {
		t.Helper()
		tc.advance(after)
		assert.Equal(t, want, tc.local(eid4).Oldest, tc.now.Sub(start)) // RFC 9302-7.1-6
	}
	change := func() {
		ls[0].Weight++
		tc.setLocals(ls...)
	}
	oldest(10*time.Minute-1, 0) // of an earlier run there may be any
	oldest(time.Minute, 100)
	change()
	oldest(0, 100)
	oldest(5*time.Minute, 100)
	change()
	oldest(5*time.Minute, 101)
	oldest(5*time.Minute, 102)
	for range 3 * maxRetired {
		change()
	}
	oldest(time.Minute, 102)
	assert.LessOrEqual(t, len(tc.e.closed.own[hostKey(eid4)].retired), maxRetired)
	oldest(10*time.Minute, 102+3*maxRetired)
}

// RFC 9302-7.1-3, 9302-7.1-4: an ITR that uses an old version is told, ten times
// more if need be, then refused and told every 30 s.
func TestStaleMapVersion(t *testing.T) {
	tc := up(t, inClosed(Closed{MapVersions: true}))
	stale := mapcache.Discovery{Kind: mapcache.DiscoveryStaleVersion, Key: hostKey(eid4), Source: peerEID.Addr(), MapVersion: 99}
	tc.discover(stale)
	s, m := one[*lisp.MapRequest](tc)
	assert.Equal(t, netip.AddrPortFrom(peerRLOC, 4342), s.Remote) // RFC 9302-7.1-3
	assert.True(t, m.SMR)
	assert.Equal(t, lisp.EIDAddress(0, eid4.Addr()), m.SourceEID)
	require.Len(t, m.Records, 1)
	assert.Equal(t, peerEID.Addr().String(), m.Records[0].EID.String())

	var at []time.Time
	refusedAt := -1
	for i := range 200 {
		tc.advance(time.Second)
		tc.discover(stale)
		for range take[*lisp.MapRequest](tc) {
			at = append(at, tc.now)
		}
		tc.signals()
		if refusedAt < 0 && tc.told.locators[peerRLOC].RefuseStale {
			refusedAt = i
			assert.Len(t, at, 10) // RFC 9302-7.1-4: the first and ten retries
		}
	}
	require.Greater(t, len(at), 12)
	for i := 1; i < len(at); i++ {
		least := smrInterval
		if i >= 10 {
			least = requestSilence
		}
		assert.Equal(t, least, at[i].Sub(at[i-1]), i) // RFC 9302-7.1-3, 9302-7.1-4
	}
	require.GreaterOrEqual(t, refusedAt, 0)

	// When no more come the ITR is forgotten, and accepted.
	tc.advance(staleForget - time.Second)
	tc.signals()
	assert.True(t, tc.told.locators[peerRLOC].RefuseStale)
	tc.advance(staleForget)
	tc.signals()
	assert.False(t, tc.told.locators[peerRLOC].RefuseStale)
	assert.Empty(t, tc.e.closed.stale)
	assert.Empty(t, tc.e.closed.refused)

	// What is not so any more, and floods.
	for _, d := range []mapcache.Discovery{
		{Kind: mapcache.DiscoveryStaleVersion, Key: hostKey(eid4), MapVersion: 100},
		{Kind: mapcache.DiscoveryStaleVersion, Key: hostKey(peerEID), MapVersion: 99},
	} {
		tc.discover(d)
	}
	assert.Empty(t, take[*lisp.MapRequest](tc))
	for i := range 2 * maxStale {
		stale.Locator.Addr = netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)})
		tc.discover(stale)
	}
	assert.Len(t, take[*lisp.MapRequest](tc), maxStale)
	assert.Len(t, tc.e.closed.stale, maxStale)
}

// RFC 9302-7.1-3: one ITR is not told more often for using old versions of two
// mappings.
func TestStaleMapVersionPace(t *testing.T) {
	other := key("192.0.2.9/32")
	tc := up(t, inClosed(Closed{MapVersions: true}), func(c *Config) {
		c.Database = append(c.Database, DatabaseMapping{Key: other, MapVersion: 100})
	})
	told := map[string]int{}
	var last time.Time
	for range 30 {
		for _, k := range []mapcache.Key{hostKey(eid4), other} {
			tc.discover(mapcache.Discovery{Kind: mapcache.DiscoveryStaleVersion, Key: k, Source: peerEID.Addr(), MapVersion: 99})
		}
		for _, s := range take[*lisp.MapRequest](tc) {
			if !last.IsZero() {
				assert.GreaterOrEqual(t, s.at.Sub(last), smrInterval) // RFC 9302-7.1-3
			}
			last = s.at
			told[s.msg.(*lisp.MapRequest).SourceEID.String()]++
		}
		tc.advance(time.Second)
	}
	assert.Len(t, told, 2)
}

// RFC 9302-7.2-2: a newer version of a site is asked for.
func TestNewerSourceVersion(t *testing.T) {
	for _, cl := range []Closed{{MapVersions: true}, {LocatorStatusBits: true}, {}} {
		tc := up(t, inClosed(cl), func(c *Config) {
			c.StaticMappings = []mapcache.Mapping{{Key: key("198.51.101.0/24"), RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: peerRLOC}}}}}
		})
		tc.learn(hostKey(peerEID), versioned(record("198.51.100.0/24", 10, peerRLOC), 4095))
		tc.advance(time.Minute)
		newer := mapcache.Discovery{Kind: mapcache.DiscoveryNewerSource, Key: hostKey(peerEID), MapVersion: 1}
		if !cl.MapVersions {
			tc.discover(newer)
			assert.Empty(t, take[*lisp.MapRequest](tc)) // RFC 9300-4.1-5
			continue
		}
		assert.EqualValues(t, 4095, tc.entryOf(key("198.51.100.0/24")).MapVersion)
		for range 3 {
			tc.discover(newer)
		}
		s, m := one[*lisp.MapRequest](tc) // RFC 9302-7.2-2: within the rates
		assert.NotNil(t, s.inner, "by the Map-Resolver")
		assert.Equal(t, "198.51.100.0", m.Records[0].EID.String())
		require.True(t, tc.answer(m.Nonce, versioned(record("198.51.100.0/24", 10, peerRLOC), 1)))
		tc.advance(time.Minute)
		assert.EqualValues(t, 1, tc.entryOf(key("198.51.100.0/24")).MapVersion)
		for _, d := range []mapcache.Discovery{
			newer,
			{Kind: mapcache.DiscoveryNewerSource, Key: key("203.0.113.77/32"), MapVersion: 9},
			{Kind: mapcache.DiscoveryNewerSource, Key: key("198.51.101.1/32"), MapVersion: 9},
		} {
			tc.discover(d)
		}
		assert.Empty(t, take[*lisp.MapRequest](tc))

		// An entry that is gone leaves nothing behind for its number.
		ent, _ := tc.e.Cache().Get(key("198.51.100.0/24"))
		tc.e.Cache().Remove(tc.now, ent.Key)
		tc.advance(time.Second)
		tc.e.Publish()
		tc.signals()
		assert.Equal(t, mapcache.EntrySignal{EntryID: ent.ID}, tc.told.entries[ent.ID])
		assert.Empty(t, tc.e.closed.sites)
	}
}

// RFC 9302 §7.1: a version of ours that does not exist is logged, and that is all.
func TestInvalidMapVersion(t *testing.T) {
	tc := up(t, inClosed(Closed{MapVersions: true}))
	tc.sent = nil
	tc.discover(mapcache.Discovery{Kind: mapcache.DiscoveryInvalidVersion, Key: hostKey(eid4), MapVersion: 101})
	assert.Empty(t, tc.sent)
	ds := eventsOf[Dropped](tc)
	require.Len(t, ds, 1)
	assert.Equal(t, DropMapVersion, ds[0].Reason)
	assert.Equal(t, "101 for 192.0.2.1/32", ds[0].Detail)
}

// An answer of somebody who only passes mappings on does not bring an old one back.
func TestOlderRecord(t *testing.T) {
	k, other := key("198.51.100.0/24"), netip.MustParseAddr("203.0.113.3")
	for _, tt := range []struct {
		closed        Closed
		version       uint16
		authoritative bool
		want          netip.Addr
	}{
		{Closed{MapVersions: true}, 4, false, peerRLOC},
		{Closed{MapVersions: true}, 4, true, other}, // the ETR knows best
		{Closed{MapVersions: true}, 5, false, other},
		{Closed{MapVersions: true}, 6, false, other},
		{Closed{MapVersions: true}, 0, false, other},
		{Closed{LocatorStatusBits: true}, 4, false, other},
		{Closed{}, 4, false, other}, // RFC 9300-4.1-5
	} {
		tc := up(t, inClosed(tt.closed))
		tc.learn(hostKey(peerEID), versioned(record("198.51.100.0/24", 10, peerRLOC), 5))
		tc.advance(time.Minute)
		tc.e.refresh(tc.now, k, reasons{})
		tc.drain()
		_, m := one[*lisp.MapRequest](tc)
		r := versioned(record("198.51.100.0/24", 10, other), tt.version)
		r.Authoritative = tt.authoritative
		tc.answer(m.Nonce, r)
		ent, ok := tc.e.Cache().Get(k)
		require.True(t, ok)
		assert.Equal(t, tt.want, ent.RLOCs[0].Addr, "%+v", tt) // RFC 9300-4.1-5
		assert.Equal(t, tt.want == peerRLOC, tc.e.Stats().Dropped[DropOldVersion] == 1)
	}
}
