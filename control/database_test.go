package control

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// registers says what Map-Registers were sent: EID-Prefix and TTL.
func (tc *tester) registers() (out []string) {
	for _, s := range take[*lisp.MapRegister](tc) {
		m := s.msg.(*lisp.MapRegister)
		line := ""
		for i := range m.Records {
			line += fmt.Sprintf("%v ttl %d, ", m.Records[i].EID, m.Records[i].TTL)
		}
		out = append(out, line)
		tc.notify(m, testKey)
	}
	return out
}

func (tc *tester) setDatabase(db ...DatabaseMapping) {
	tc.t.Helper()
	require.NoError(tc.t, tc.e.SetDatabase(tc.now, db))
	tc.drain()
}

// TestSetDatabase: what is added is registered, what is removed is withdrawn with
// TTL 0, and what stays the same is left alone.
func TestSetDatabase(t *testing.T) {
	tc := up(t, noProbe)
	a, b, c := DatabaseMapping{Key: hostKey(eid4)}, DatabaseMapping{Key: hostKey(eid6)}, DatabaseMapping{Key: key("192.0.2.64/26"), TTL: time.Hour}
	assert.Equal(t, []string{"192.0.2.1 ttl 1440, 2001:db8:1::1 ttl 1440, "}, tc.registers())
	tc.advance(5 * time.Second)

	tc.setDatabase(a, b, c)
	tc.advance(time.Second)
	assert.Equal(t, []string{"192.0.2.1 ttl 1440, 2001:db8:1::1 ttl 1440, 192.0.2.64 ttl 60, "}, tc.registers())
	from, _, ok := tc.e.lookupLocal(0, netip.MustParsePrefix("192.0.2.65/32"))
	require.True(t, ok)
	assert.Equal(t, c.Key, tc.e.db[from].Key)

	tc.setDatabase(c, a)
	tc.advance(15 * time.Millisecond) // one of two at once, the other after a moment
	assert.Equal(t, []string{"192.0.2.1 ttl 1440, 192.0.2.64 ttl 60, ", "2001:db8:1::1 ttl 0, "}, tc.registers())
	assert.Len(t, eventsOf[Withdrawn](tc), 1)
	require.Len(t, tc.e.Registrations(), 1, "the withdrawal is done")
	_, _, ok = tc.e.lookupLocal(0, eid6)
	assert.False(t, ok)
	require.False(t, tc.handle(netip.AddrPortFrom(peerRLOC, 4342), encode(t, mapRequest("2001:db8:1::1/128"))))
	tc.advance(10 * time.Minute)
	for _, line := range tc.registers() {
		assert.NotContains(t, line, "ttl 0")
	}

	// The same again is no change, in whatever order.
	tc.advance(time.Minute)
	tc.registers()
	tc.setDatabase(a, c)
	assert.Empty(t, tc.registers())

	// All of it.
	tc.setDatabase()
	assert.Equal(t, []string{"192.0.2.1 ttl 0, 192.0.2.64 ttl 0, "}, tc.registers())
	tc.advance(time.Hour)
	assert.Empty(t, tc.registers())
	assert.Zero(t, tc.e.Database().Len())
	assert.Empty(t, tc.e.servers[0].knows)
}

// TestSetDatabaseAgain: what comes back while it is being withdrawn is not
// withdrawn by a retransmission.
func TestSetDatabaseAgain(t *testing.T) {
	tc := up(t, noProbe)
	a, b := DatabaseMapping{Key: hostKey(eid4)}, DatabaseMapping{Key: hostKey(eid6)}
	tc.registers()
	tc.setDatabase()
	one[*lisp.MapRegister](tc) // lost
	tc.setDatabase(a)
	tc.advance(2500 * time.Millisecond)
	for _, line := range tc.registers() {
		if line != "192.0.2.1 ttl 1440, " {
			assert.Equal(t, "2001:db8:1::1 ttl 0, ", line)
		}
	}
	tc.setDatabase(a, b)
	tc.advance(time.Hour)
	for _, line := range tc.registers() {
		assert.NotContains(t, line, "ttl 0")
	}
}

// TestSetDatabaseUnanswered: a withdrawal that nobody acknowledges is given up
// when the registration has ended by itself.
func TestSetDatabaseUnanswered(t *testing.T) {
	tc := up(t, noProbe)
	tc.registers()
	tc.setDatabase(DatabaseMapping{Key: hostKey(eid4)})
	tc.advance(10 * time.Minute)
	var last time.Time
	for _, s := range take[*lisp.MapRegister](tc) {
		if m := s.msg.(*lisp.MapRegister); m.Records[0].TTL == 0 {
			last = s.at
		}
	}
	assert.LessOrEqual(t, last.Sub(start), 3*time.Minute)
	assert.Greater(t, last.Sub(start), time.Minute)
	assert.Len(t, tc.e.Registrations(), 1)
}

// TestSetDatabaseSplit: one change among thousands of EID-Prefixes does not
// register the others again.
func TestSetDatabaseSplit(t *testing.T) {
	tc := up(t, noProbe, func(c *Config) { c.Database = manyPrefixes(5000) })
	for tc.e.Stats().Registered < tc.e.Stats().Registrations || tc.e.Stats().Registered == 0 {
		tc.advance(10 * time.Millisecond)
		tc.registers()
	}
	n := tc.e.Stats().Registrations
	db := manyPrefixes(5000)
	victim := slices.IndexFunc(db, func(m DatabaseMapping) bool { return m.Key == key("10.7.7.0/24") })
	db[victim] = DatabaseMapping{Key: key("10.7.7.128/25")}
	tc.setDatabase(db...)
	tc.advance(100 * time.Millisecond)
	lines := tc.registers()
	require.LessOrEqual(t, len(lines), 3)
	all := fmt.Sprint(lines)
	assert.Contains(t, all, "10.7.7.0 ttl 0")
	assert.Contains(t, all, "10.7.7.128 ttl 1440")
	assert.Equal(t, n, tc.e.Stats().Registrations)

	// Whatever changes, each EID-Prefix is in exactly one Map-Register, which fits.
	db = append(db[:1000], DatabaseMapping{Key: hostKey(eid6)})
	tc.setDatabase(db...)
	tc.setLocals(append(locals(), mapcache.Local{Addr: netip.MustParseAddr("203.0.113.9"), Up: true})...)
	count := make(map[mapcache.Key]int)
	for _, r := range tc.e.registrations {
		if r.gone == nil {
			size := 0
			for _, k := range r.keys {
				count[k]++
				size += recordLen(&tc.e.db[tc.e.dbPos[k]].record)
			}
			assert.Equal(t, size, r.size)
			assert.LessOrEqual(t, size+tc.e.registerOverhead(r.server.MapServer), 576-28)
		}
	}
	require.Len(t, count, 1001)
	for k, n := range count {
		assert.Equal(t, 1, n, k)
	}
	tc.advance(5 * time.Second)
	take[*lisp.MapRegister](tc)
}

func TestSetDatabaseErrors(t *testing.T) {
	tc := up(t)
	for name, db := range map[string][]DatabaseMapping{
		"twice":            {{Key: hostKey(eid4)}, {Key: hostKey(eid4)}},
		"no prefix":        {{}},
		"the Map-Server":   {{Key: key("198.18.0.0/15")}},
		"TTL":              {{Key: hostKey(eid4), TTL: time.Second}},
		"no such family":   {{Key: hostKey(eid4), RLOCs: []DatabaseRLOC{{IfIndex: 1, Family: 5}}}},
		"nowhere":          {{Key: hostKey(eid4), RLOCs: []DatabaseRLOC{{}}}},
		"instance too big": {{Key: mapcache.Key{IID: 1 << 24, Prefix: eid4}}},
	} {
		require.ErrorIs(t, tc.e.SetDatabase(tc.now, db), ErrConfig, name)
		assert.Len(t, tc.e.db, 2, "nothing has changed")
	}
}

// TestSetDatabaseLocals: a locator that becomes an EID is none any more (RFC
// 9300-4-3), and is one again when the EID goes.
func TestSetDatabaseLocals(t *testing.T) {
	tc := up(t, noProbe)
	tc.setDatabase(DatabaseMapping{Key: hostKey(eid6)}, DatabaseMapping{Key: key("203.0.113.0/24")})
	require.Len(t, tc.e.Locals(), 1)
	assert.Equal(t, rloc6, tc.e.Locals()[0].Addr)
	for i := range tc.e.db {
		assert.Len(t, tc.e.db[i].record.Locators, 1)
	}
	tc.setDatabase(DatabaseMapping{Key: hostKey(eid6)})
	assert.Len(t, tc.e.Locals(), 2)
}

// TestSetDatabaseSMR: peers in conversation are told of what came and went, and
// of nothing else.
func TestSetDatabaseSMR(t *testing.T) {
	tc := talking(t)
	at := tc.now
	tc.setDatabase(DatabaseMapping{Key: hostKey(eid4)}, DatabaseMapping{Key: key("192.0.2.128/25")})
	tc.ackAll()
	tc.advance(4 * time.Second)
	require.Len(t, tc.e.smr.peers, 1)
	lines := tc.smrLines(at)
	require.Len(t, lines, 2)
	assert.Equal(t, "0.0s 192.0.2.128 to 203.0.113.101:4342 for 198.51.1.0/24", lines[0])
	tc.advance(20 * time.Second)

	// Another TTL moves nothing.
	tc.setDatabase(DatabaseMapping{Key: hostKey(eid4), TTL: time.Hour}, DatabaseMapping{Key: key("192.0.2.128/25")})
	assert.NotEmpty(t, take[*lisp.MapRegister](tc))
	tc.advance(time.Second)
	assert.Empty(t, tc.smrs())

	at = tc.now
	tc.setDatabase(DatabaseMapping{Key: hostKey(eid4), TTL: time.Hour})
	tc.advance(time.Second)
	assert.Equal(t, []string{"0.3s 192.0.2.128 to 203.0.113.101:4342 for 198.51.1.0/24"}, tc.smrLines(at))
}

// TestRLOCFamily: an interface has a priority for each address family.
func TestRLOCFamily(t *testing.T) {
	tc := up(t, noProbe, func(c *Config) {
		c.Database = c.Database[:1]
		c.Database[0].RLOCs = []DatabaseRLOC{
			{IfIndex: 2, Family: 4, Priority: 3, Weight: 30}, {IfIndex: 2, Family: 6, Priority: 6, Weight: 60},
		}
	})
	_, m := one[*lisp.MapRegister](tc)
	assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.1(3/30 LR) 2001:db8:ffff::1(6/60 LR)", fmt.Sprint(&m.Records[0]))
}

// TestRegisterBits: the T and a bits are those of the Map-Server.
func TestRegisterBits(t *testing.T) {
	tc := up(t, noProbe, func(c *Config) { c.MapServers[0].UseTTL, c.MapServers[0].Merge = true, true })
	_, m := one[*lisp.MapRegister](tc)
	assert.True(t, m.UseTTL)
	assert.True(t, m.Merge)
}

// TestAnycastRLOC: two xTRs with one anycast locator register from their own
// addresses, as different xTRs; what they announce is the anycast locator.
func TestAnycastRLOC(t *testing.T) {
	anycast := netip.MustParseAddr("203.0.113.254")
	seen := make(map[lisp.XTRID]netip.Addr)
	for i := range 2 {
		own := netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + i)})
		tc := newTester(t, noProbe, func(c *Config) {
			c.XTRID, c.SiteID = lisp.XTRID{15: byte(i + 1)}, 7
			c.Database = []DatabaseMapping{{Key: hostKey(eid4), RLOCs: []DatabaseRLOC{{Addr: anycast, Priority: 1, Weight: 100}}}}
		})
		tc.setLocals(mapcache.Local{Addr: own, Priority: 1, Up: true}, mapcache.Local{Addr: anycast, Priority: 2, Up: true})
		s, m := one[*lisp.MapRegister](tc)
		assert.Equal(t, own, s.Local.Addr()) // RFC 9301-8.4.1-2
		assert.True(t, m.XTRIDPresent)       // RFC 9301-8.4.1-2
		seen[m.XTRID] = s.Local.Addr()
		assert.Equal(t, "192.0.2.1/32 ttl 1440 authoritative 203.0.113.254(1/100 LR)", fmt.Sprint(&m.Records[0]))
	}
	assert.Len(t, seen, 2) // RFC 9301-8.4.1-2
}
