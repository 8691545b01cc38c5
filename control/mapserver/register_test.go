package mapserver

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func TestRegisterIsAcknowledged(t *testing.T) {
	random := netip.AddrPortFrom(etr1.Addr(), 51000)
	truncated, truncated2 := key1, key2
	truncated.Truncate, truncated2.Truncate = true, true
	for name, tc := range map[string]struct {
		key  lisp.Key
		eid  string
		from netip.AddrPort
		opts []registerOption
	}{
		"sha-256":         {key: key1, eid: "10.1.0.0/16", from: etr1},
		"hkdf":            {key: key1b, eid: "10.1.0.0/16", from: etr1}, // RFC 9301-9-2
		"sha-1":           {key: key2, eid: "10.128.0.0/16", from: etr1},
		"truncated":       {key: truncated, eid: "10.1.0.0/16", from: etr1},
		"truncated sha-1": {key: truncated2, eid: "10.128.0.0/16", from: etr1},
		"random port":     {key: key1, eid: "10.1.0.0/16", from: random},
		"xtr-id":          {key: key1, eid: "10.1.0.0/16", from: etr1, opts: []registerOption{withXTR(xtr1)}},
		"ipv6":            {key: key2, eid: "2001:db8:b:1::/64", from: netip.MustParseAddrPort("[2001:db8:2::2]:4342")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			msg := register(t, tc.key, record(tc.eid, 10, "192.0.2.11"), tc.opts...)
			reg := parse[*lisp.MapRegister](t, msg)
			out := b.put(tc.from, msg)
			require.Len(t, out, 1)
			assert.Equal(t, tc.from, out[0].Remote) // RFC 9301-8.2-s3, to 4342 when that is where it came from
			assert.EqualValues(t, lisp.ControlPort, out[0].Local.Port())
			assert.Equal(t, 3, out[0].IfIndex)
			// RFC 9301-5.7-s1: the fields of the Map-Register, a digest of its own.
			require.NoError(t, lisp.Verify(out[0].Bytes, tc.key))
			n := parse[*lisp.MapNotify](t, out[0].Bytes)
			assert.Equal(t, reg.Nonce, n.Nonce)
			assert.Equal(t, reg.Records, n.Records)
			assert.Len(t, n.Auth.Data, len(reg.Auth.Data))
			// RFC nat19-4.3-2, nat19i-4.3-2, nat19-4.4-1: xTR-ID and Site-ID come back.
			assert.Equal(t, reg.XTRIDPresent, n.XTRIDPresent)
			assert.Equal(t, reg.XTRID, n.XTRID)
			assert.Equal(t, reg.SiteID, n.SiteID)

			es := b.events()
			require.Len(t, es, 1)
			e, ok := es[0].(Registered)
			require.True(t, ok)
			assert.Equal(t, ChangeNew, e.Change)
			assert.Equal(t, 3*time.Minute, e.Lifetime)
			assert.Contains(t, e.String(), "registered "+tc.eid)
			regs := b.s.Registrations(b.now)
			require.Len(t, regs, 1)
			assert.Equal(t, tc.eid, regs[0].EID.String())
			assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(regs[0].RLOCs))
			assert.Equal(t, 1, b.s.Stats().Registrations)
		})
	}
}

// TestNotifyDigest computes the digest with nothing but the standard library.
func TestNotifyDigest(t *testing.T) {
	for _, k := range []lisp.Key{key1, key2} {
		b := newBench(t)
		eid, newHash := "10.1.0.0/16", sha256.New
		if k.Algorithm == lisp.AlgorithmHMACSHA1 {
			eid, newHash = "10.128.0.0/16", sha1.New
		}
		out := b.put(etr1, register(t, k, record(eid, 10, "192.0.2.11"), withXTR(xtr1)))
		require.Len(t, out, 1)
		msg := out[0].Bytes
		h := hmac.New(newHash, k.Secret)
		digest := append([]byte(nil), msg[16:16+h.Size()]...)
		clear(msg[16 : 16+h.Size()])
		h.Write(msg)
		assert.Equal(t, h.Sum(nil), digest)
	}
}

func TestNoNotifyUnlessWanted(t *testing.T) {
	b := newBench(t)
	assert.Empty(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withoutNotify)))
	assert.Len(t, b.s.Registrations(b.now), 1)
	assert.Empty(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withoutNotify)))
	b.advance(2 * time.Minute)
	assert.Empty(t, b.drain(), "a Map-Notify is never retransmitted") // RFC 9301-5.7-s1
}

// TestRefused: whatever is wrong with a Map-Register, there is no Map-Notify, no
// registration, and no state at all.
func TestRefused(t *testing.T) {
	rec := record("10.1.0.0/16", 10, "192.0.2.11")
	wrong := key1
	wrong.Secret = []byte("guess")
	unknown := key1
	unknown.ID = 9
	empty := key1
	empty.ID, empty.Secret = 9, nil
	sha1 := key1
	sha1.Algorithm = lisp.AlgorithmHMACSHA1
	none := func(t testing.TB) []byte {
		m := lisp.MapRegister{WantMapNotify: true, Nonce: 1, Records: []lisp.EIDRecord{rec}}
		m.Auth.KeyID = key1.ID
		b, err := m.AppendBinary(nil)
		require.NoError(t, err)
		return b
	}
	flip := func(t testing.TB, at int) []byte {
		b := register(t, key1, rec)
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return b
	}
	zeroDigest := func(t testing.TB) []byte {
		b := register(t, key1, rec)
		clear(b[16:48])
		return b
	}
	shortDigest := func(t testing.TB) []byte {
		m := lisp.MapRegister{WantMapNotify: true, Nonce: 1, Records: []lisp.EIDRecord{rec}}
		m.Auth = lisp.Authentication{KeyID: key1.ID, Algorithm: key1.Algorithm, Data: []byte{}}
		b, err := m.AppendBinary(nil)
		require.NoError(t, err)
		return b
	}
	for name, tc := range map[string]struct {
		msg    func(t testing.TB) []byte
		reason Reason
	}{
		"wrong key":                 {func(t testing.TB) []byte { return register(t, wrong, rec) }, ReasonAuth}, // RFC 9301-5.7-s4
		"changed record":            {func(t testing.TB) []byte { return flip(t, -1) }, ReasonAuth},
		"changed flag":              {func(t testing.TB) []byte { return flip(t, 2) }, ReasonAuth},
		"changed nonce":             {func(t testing.TB) []byte { return flip(t, 8) }, ReasonAuth},
		"zero digest":               {zeroDigest, ReasonAuth},
		"empty digest":              {shortDigest, ReasonAuth},
		"appended octet":            {func(t testing.TB) []byte { return append(register(t, key1, rec), 0) }, ReasonAuth},
		"unknown key id":            {func(t testing.TB) []byte { return register(t, unknown, rec) }, ReasonKey},
		"unknown key id, empty key": {func(t testing.TB) []byte { return register(t, empty, rec) }, ReasonKey},
		"algorithm none":            {none, ReasonAlgorithm},
		"other algorithm":           {func(t testing.TB) []byte { return register(t, sha1, rec) }, ReasonAlgorithm},
		"key of another site":       {func(t testing.TB) []byte { return register(t, key2, rec) }, ReasonAlgorithm},
		// RFC 9301-9-3, 9301-8.2-s2, 9301-8.2-2: only what is configured for the site.
		"not configured":         {func(t testing.TB) []byte { return register(t, key1, record("11.0.0.0/8", 10, "192.0.2.11")) }, ReasonNotConfigured},
		"less specific":          {func(t testing.TB) []byte { return register(t, key1, record("0.0.0.0/0", 10, "192.0.2.11")) }, ReasonNotConfigured},
		"more specific":          {func(t testing.TB) []byte { return register(t, key2, record("10.128.1.0/24", 10, "192.0.2.11")) }, ReasonNotConfigured},
		"prefix of another site": {func(t testing.TB) []byte { return register(t, key1, record("10.128.0.0/16", 10, "192.0.2.11")) }, ReasonAlgorithm},
		"other instance":         {func(t testing.TB) []byte { return register(t, key1, iidRecord(8, "10.1.0.0/16", 10, "192.0.2.11")) }, ReasonNotConfigured},
		"second record": {func(t testing.TB) []byte {
			return register(t, key1, rec, func(m *lisp.MapRegister) {
				m.Records = append(m.Records, record("10.128.0.0/16", 10, "192.0.2.11"))
			})
		}, ReasonAlgorithm},
		"no records": {func(t testing.TB) []byte {
			return register(t, key1, rec, func(m *lisp.MapRegister) { m.Records = nil })
		}, ReasonNoRecords},
		"no EID":      {func(t testing.TB) []byte { return register(t, key1, lisp.EIDRecord{TTL: 1}) }, ReasonEID},
		"truncated":   {func(t testing.TB) []byte { b := register(t, key1, rec); return b[:len(b)-3] }, ReasonMalformed},
		"four octets": {func(testing.TB) []byte { return []byte{0x30, 0, 1, 1} }, ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			assert.Empty(t, b.put(etr1, tc.msg(t)))
			assert.Equal(t, tc.reason, b.lastReason())
			assert.EqualValues(t, 1, b.s.Stats().Dropped[tc.reason])
			assert.Empty(t, b.s.Registrations(b.now))
			assert.Zero(t, b.s.xtrs.len(), "no state before authentication")
			assert.Zero(t, b.dead())
			assert.Zero(t, b.s.Deadline())
		})
	}
}

func TestKeysOfASiteRotate(t *testing.T) {
	b := newBench(t)
	for _, k := range []lisp.Key{key1, key1b, key1} {
		require.Len(t, b.put(etr1, register(t, k, record("10.1.0.0/16", 10, "192.0.2.11"))), 1, "%v", k)
	}
	assert.Len(t, b.s.Registrations(b.now), 1)
}

func TestMoreSpecificsAndHostBits(t *testing.T) {
	b := newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.2.3/24", 10, "192.0.2.11"))), 1)
	require.Len(t, b.put(etr1, register(t, key1, iidRecord(7, "172.16.0.0/16", 10, "192.0.2.11"))), 1)
	regs := b.s.Registrations(b.now)
	require.Len(t, regs, 2)
	assert.Equal(t, "10.1.2.0/24", regs[0].EID.String())
	assert.EqualValues(t, 7, regs[1].IID)
	sites := b.s.Sites(b.now)
	require.Len(t, sites, 3)
	assert.Equal(t, 1, sites[0].Registered)
	assert.Equal(t, 1, sites[2].Registered)
}

func TestExpiry(t *testing.T) {
	for name, tc := range map[string]struct {
		ttl      uint32
		opts     []registerOption
		lifetime time.Duration
	}{
		"default":     {ttl: 1440, lifetime: 3 * time.Minute},                                                        // RFC 9301-8.2-3
		"T bit":       {ttl: 7, opts: []registerOption{withTTL}, lifetime: 7 * time.Minute},                          // RFC 9301-5.6-s2
		"T unlimited": {ttl: lisp.TTLUnlimited, opts: []registerOption{withTTL}, lifetime: 24 * time.Hour},           // RFC 9301-5.4-s1
		"T enormous":  {ttl: lisp.TTLUnlimited - 1, opts: []registerOption{withTTL}, lifetime: 365 * 24 * time.Hour}, // bounded
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", tc.ttl, "192.0.2.11"), tc.opts...)), 1)
			b.events()
			b.advance(tc.lifetime - time.Nanosecond)
			assert.Len(t, b.s.Registrations(b.now), 1)
			// Workers see the end of it at once, the writer when it is called.
			b.now = b.now.Add(time.Nanosecond)
			assert.Empty(t, b.s.Registrations(b.now))
			assert.Equal(t, b.now, b.s.Deadline())
			b.advance(0)
			es := b.events()
			require.Len(t, es, 1)
			assert.Equal(t, "expired 10.1.0.0/16 of site a last registered by 192.0.2.11", es[0].String())
			b.advance(2 * tombstoneTime)
			assert.Empty(t, b.events())
			assert.Zero(t, b.s.Deadline(), "nothing is left")
			assert.Zero(t, b.s.claimCount)
			assert.Zero(t, b.dead())
			assert.Zero(t, b.s.xtrs.len())
			assert.Zero(t, b.s.Stats().Registrations)
		})
	}
}

func TestRefreshKeepsRegistration(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
		es := b.events()
		require.Len(t, es, 1)
		want := ChangeRefreshed
		if i == 0 {
			want = ChangeNew
		}
		assert.Equal(t, want, es[0].(Registered).Change)
		b.advance(time.Minute)
	}
	st := b.s.Stats()
	assert.EqualValues(t, 20, st.Accepted)
	assert.EqualValues(t, 19, st.Refreshes)
	assert.LessOrEqual(t, b.s.expiry.linked()+len(b.s.expiry.soon), 1)
}

func TestWithdraw(t *testing.T) {
	b := newBench(t)
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
	b.events()
	out := b.put(etr1, register(t, key1, record("10.1.0.0/16", 0, "192.0.2.11")))
	require.Len(t, out, 1, "a withdrawal is acknowledged")
	assert.Empty(t, b.s.Registrations(b.now))
	es := b.events()
	require.Len(t, es, 1)
	assert.Equal(t, "withdrawn 10.1.0.0/16 of site a by 192.0.2.11:4342", es[0].String())
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"))), 1)
	assert.Len(t, b.s.Registrations(b.now), 1)
}

func TestNewestRegistrationWins(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxNotifies = -1 })
	rlocs := func() []string {
		regs := b.s.Registrations(b.now)
		require.Len(t, regs, 1)
		return rlocsOf(regs[0].RLOCs)
	}
	put := func(from netip.AddrPort, x lisp.XTRID, ttl uint32) {
		require.Len(t, b.put(from, register(t, key1, record("10.1.0.1/32", ttl, from.Addr().String()), withXTR(x))), 1)
	}
	put(etr1, xtr1, 10)
	put(etr2, xtr2, 10) // the EID moved
	assert.Equal(t, []string{"192.0.2.12"}, rlocs())
	put(etr1, xtr1, 10) // and back: its content is not new, but it is the newest
	assert.Equal(t, []string{"192.0.2.11"}, rlocs())
	put(etr2, xtr2, 0) // a late withdrawal from where it was
	assert.Equal(t, []string{"192.0.2.11"}, rlocs())
	put(etr2, xtr1, 10) // the same xTR at a new address
	assert.Equal(t, []string{"192.0.2.12"}, rlocs())
	regs := b.s.Registrations(b.now)
	assert.Len(t, regs[0].XTRs, 1)
}

func TestMerge(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Sites[0].ProxyReply, c.MaxNotifies = true, -1 })
	two := record("10.1.0.0/16", 20, "192.0.2.12", "2001:db8::12")
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withMerge)), 1)
	require.Len(t, b.put(etr2, register(t, key1, two, withXTR(xtr2), withMerge)), 1)
	// RFC 9301-5.6-s3
	r := wantReply(t, b.put(itr, request(t, itr, "10.1.2.3")))
	assert.Equal(t, []string{"192.0.2.11", "192.0.2.12", "2001:db8::12"}, rlocsOf(r.Locators))
	assert.EqualValues(t, 10, r.TTL, "the least of all")
	two.TTL = 5
	require.Len(t, b.put(etr2, register(t, key1, two, withXTR(xtr2), withMerge)), 1)
	assert.EqualValues(t, 5, wantReply(t, b.put(itr, request(t, itr, "10.1.2.3"))).TTL, "wherever that is")
	// One withdraws, the other remains.
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 0, "192.0.2.11"), withXTR(xtr1), withMerge)), 1)
	r = wantReply(t, b.put(itr, request(t, itr, "10.1.2.3")))
	assert.Equal(t, []string{"192.0.2.12", "2001:db8::12"}, rlocsOf(r.Locators))
	// One that does not ask for merging takes it all.
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))), 1)
	r = wantReply(t, b.put(itr, request(t, itr, "10.1.2.3")))
	assert.Equal(t, []string{"192.0.2.11"}, rlocsOf(r.Locators))
}

func TestOldMapVersionIsDropped(t *testing.T) {
	b := newBench(t)
	version := func(v uint16) []lisp.Datagram {
		r := record("10.1.0.0/16", 10, "192.0.2.11")
		r.MapVersion = v
		return b.put(etr1, register(t, key1, r))
	}
	require.Len(t, version(5), 1)
	require.Len(t, version(6), 1)
	b.events()
	assert.Empty(t, version(5))
	assert.Equal(t, ReasonVersion, b.lastReason()) // RFC 9302-5-1
	require.Len(t, version(6+2048), 1)
	require.Len(t, version(1), 1, "the number wraps round")
	require.Len(t, version(0), 1, "the Null version compares with none")
}

func TestManySitesInOneMessage(t *testing.T) {
	shared := Config{}
	for i := range 6 {
		shared.Sites = append(shared.Sites, Site{
			Name: string(rune('a' + i)), Keys: []lisp.Key{key1},
			Prefixes: []SitePrefix{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16)}},
		})
	}
	b := newBench(t, func(c *Config) { c.Sites = shared.Sites })
	of := func(n int) []lisp.Datagram {
		return b.put(etr1, register(t, key1, record("10.0.0.0/16", 10, "192.0.2.11"), func(m *lisp.MapRegister) {
			for i := 1; i < n; i++ {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16)
				m.Records = append(m.Records, record(p.String(), 10, "192.0.2.11"))
			}
		}))
	}
	require.Len(t, of(4), 1)
	assert.Len(t, b.s.Registrations(b.now), 4)
	b.events()
	assert.Empty(t, of(5))
	assert.Equal(t, ReasonManySites, b.lastReason())
}

func TestLimitOfRegistrations(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxRegistrations = 3 })
	for i := range 3 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i)}), 24)
		require.Len(t, b.put(etr1, register(t, key1, record(p.String(), 10, "192.0.2.11"))), 1)
	}
	b.events()
	assert.Empty(t, b.put(etr1, register(t, key1, record("10.2.0.0/16", 10, "192.0.2.11"))))
	assert.Equal(t, ReasonLimit, b.lastReason())
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/24", 10, "192.0.2.12"))), 1, "known ones go on")
	b.advance(3*time.Minute + tombstoneTime)
	require.Len(t, b.put(etr1, register(t, key1, record("10.2.0.0/16", 10, "192.0.2.11"))), 1)
}

func TestXTRsOfOneEIDAreBounded(t *testing.T) {
	b := newBench(t)
	for i := range 3 * maxClaimsPerEID {
		x := lisp.XTRID{0: byte(i), 1: 1}
		require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(x), withMerge)), 1)
	}
	assert.Equal(t, maxClaimsPerEID, b.s.claimCount)
	assert.Equal(t, maxClaimsPerEID, b.s.xtrs.len())
}

func TestHeapIsSwept(t *testing.T) {
	b := newBench(t)
	for i := range 5000 {
		r := record("10.1.0.0/16", 1_000_000, "192.0.2.11")
		r.Locators[0].Weight = uint8(i)
		b.put(etr1, register(t, key1, r, withTTL, withoutNotify))
	}
	assert.Less(t, b.s.expiry.linked()+len(b.s.expiry.soon), 1100)
}

func TestConfig(t *testing.T) {
	p := func(s string) []SitePrefix { return []SitePrefix{{Prefix: netip.MustParsePrefix(s)}} }
	for name, cfg := range map[string]Config{
		"no name":          {Sites: []Site{{}}},
		"same name":        {Sites: []Site{{Name: "a"}, {Name: "a"}}},
		"algorithm none":   {Sites: []Site{{Name: "a", Keys: []lisp.Key{{ID: 1, Secret: []byte("x")}}}}},
		"empty secret":     {Sites: []Site{{Name: "a", Keys: []lisp.Key{{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256}}}}},
		"no prefix":        {Sites: []Site{{Name: "a", Prefixes: []SitePrefix{{}}}}},
		"mapped prefix":    {Sites: []Site{{Name: "a", Prefixes: p("::ffff:10.0.0.0/104")}}},
		"instance":         {Sites: []Site{{Name: "a", Prefixes: []SitePrefix{{IID: 1 << 24, Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}}},
		"same prefix":      {Sites: []Site{{Name: "a", Prefixes: p("10.0.0.0/8")}, {Name: "b", Prefixes: p("10.1.0.0/8")}}},
		"replay mode":      {Sites: []Site{{Name: "a", Replay: 9}}},
		"negative timeout": {RegisterTimeout: -1},
	} {
		_, err := New(cfg)
		assert.ErrorIs(t, err, ErrConfig, name)
	}
	_, err := New(Config{})
	assert.NoError(t, err)
}

// TestClockJumps: a jump forward ends registrations and nothing else; a jump back
// keeps them for longer and breaks nothing.
func TestClockJumps(t *testing.T) {
	b := newBench(t)
	put := func() int {
		return len(b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withProxy)))
	}
	require.Equal(t, 1, put())
	b.now = b.now.Add(-24 * time.Hour)
	require.Equal(t, 1, put())
	assert.Len(t, b.s.Registrations(b.now), 1)
	assert.Len(t, wantReplyOf(t, b, "10.1.2.3").Locators, 1)
	b.s.Advance(b.now)
	assert.False(t, b.s.Deadline().Before(b.now))
	b.advance(48 * time.Hour)
	assert.Empty(t, b.s.Registrations(b.now))
	require.Equal(t, 1, put())
	assert.Len(t, b.s.Registrations(b.now), 1)
}

// TestEachExpiryIsTold: of several xTRs whose registrations of one EID-Prefix end
// at once, each has its event.
func TestEachExpiryIsTold(t *testing.T) {
	b := newBench(t)
	b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withMerge))
	b.put(etr2, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2), withMerge))
	b.put(etr2, register(t, key1, record("10.1.0.0/16", 0, "192.0.2.13"), withXTR(lisp.XTRID{15: 3}), withMerge))
	b.events()
	b.advance(20 * time.Minute)
	expired := map[lisp.XTRID]int{}
	for _, e := range b.events() {
		if e, ok := e.(Expired); ok {
			expired[e.XTRID]++
		}
	}
	assert.Equal(t, map[lisp.XTRID]int{xtr1: 1, xtr2: 1}, expired)
}

// TestNoHistoryWithoutEvents, as Config.History has it.
func TestNoHistoryWithoutEvents(t *testing.T) {
	b := newBench(t, func(c *Config) { c.EventBuffer = -1 })
	b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1)))
	b.put(etr2, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2)))
	b.put(etr2, register(t, key2, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2)))
	b.advance(time.Hour)
	assert.Empty(t, b.s.History())
}
