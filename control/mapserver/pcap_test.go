package mapserver

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/pcaptest"
	"github.com/xtrkit/xtrkit/lisp"
)

// oorServer is configured like the Map-Server in the captures, but for
// accept-more-specifics on its first prefix in one of them.
func oorServer(t testing.TB, more bool) *bench {
	t.Helper()
	key := lisp.Key{ID: 0, Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("secret")}
	p := netip.MustParsePrefix
	return newBench(t, func(c *Config) {
		c.Sites = []Site{
			{Name: "one", Keys: []lisp.Key{key}, Prefixes: []SitePrefix{
				{Prefix: p("172.16.1.0/24")},
				{Prefix: p("fd00:e1d:1::/64")},
				{IID: 100, Prefix: p("172.16.1.0/24")},
				{IID: 100, Prefix: p("fd00:e1d:1::/64")},
			}},
			{Name: "two", Keys: []lisp.Key{key}, Prefixes: []SitePrefix{
				{Prefix: p("172.16.2.0/24")},
				{Prefix: p("fd00:e1d:2::/64")},
				{IID: 100, Prefix: p("172.16.2.0/24")},
				{IID: 100, Prefix: p("fd00:e1d:2::/64")},
			}},
			{Name: "nine", Keys: []lisp.Key{key}, Prefixes: []SitePrefix{{Prefix: p("172.16.9.0/24")}}},
			{Name: "four", Keys: []lisp.Key{key}, Prefixes: []SitePrefix{{Prefix: p("172.16.4.0/24"), AcceptMoreSpecifics: more}}},
		}
	})
}

// TestOORCaptures feeds what OpenOverlayRouter 1.3.0 sent to its Map-Server into
// ours, and compares the answers: ours differ only where that is intended.
func TestOORCaptures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.pcap")
	require.NoError(t, err)
	require.Len(t, files, 16)
	total := Stats{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".pcap"), func(t *testing.T) {
			all := pcaptest.Datagrams(t, file)
			b := oorServer(t, false)
			// The other site has to be registered for what is forwarded to it.
			oorSite(t, b, all)
			before := b.s.Stats()
			b.events()
			theirs := make(map[uint64][]byte)
			for _, d := range all {
				if isServer(d.Remote) {
					theirs[answerKey(t, d.Bytes)] = d.Bytes
				}
			}
			for _, d := range all {
				typ := lisp.TypeOf(d.Bytes)
				if !isServer(d.Local) || typ != lisp.TypeMapRegister && typ != lisp.TypeEncapsulatedControl {
					continue
				}
				require.True(t, b.s.Handle(b.now, d))
				out := b.drain()
				require.Len(t, out, 1, "%v", b.events())
				if want := theirs[answerKey(t, out[0].Bytes)]; want != nil {
					compareAnswers(t, want, out[0].Bytes)
				}
			}
			st := b.s.Stats()
			total.Accepted += st.Accepted - before.Accepted
			total.Requests += st.Requests - before.Requests
			total.Forwards += st.Forwards
			total.Replies += st.Replies
			total.Negatives += st.Negatives
			assert.Zero(t, st.Dropped)
		})
	}
	assert.EqualValues(t, 9, total.Accepted)
	assert.EqualValues(t, 15, total.Requests)
	assert.EqualValues(t, 4, total.Negatives)
	assert.EqualValues(t, 2, total.Replies)
	assert.EqualValues(t, 9, total.Forwards)
}

func isServer(a netip.AddrPort) bool {
	return a.Addr() == netip.MustParseAddr("10.0.1.2") || a.Addr() == netip.MustParseAddr("2001:db8:1::2")
}

// oorSite registers at 10.0.2.2 and 10.0.3.2 (or their IPv6 siblings) whatever
// the capture asks for, except where it shows that nobody had.
func oorSite(t testing.TB, b *bench, all []lisp.Datagram) {
	t.Helper()
	key := lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("secret")}
	for _, d := range all {
		if lisp.TypeOf(d.Bytes) != lisp.TypeEncapsulatedControl || !isServer(d.Local) {
			continue
		}
		in, err := parse[*lisp.EncapsulatedControl](t, d.Bytes).Inner()
		require.NoError(t, err)
		m := parse[*lisp.MapRequest](t, in.Payload)
		iid, p, _ := m.Records[0].Prefix()
		inst := b.s.set().instances[iid]
		lpm, sp, ok := inst.table().LookupPrefixLPM(p)
		if !ok || sp.site.name == "nine" || sp.site.name == "four" {
			continue
		}
		rloc := "10.0.3.2"
		if sp.site.name == "one" {
			rloc = "10.0.2.22"
		}
		if m.ITRRLOCs[0].AFI() == lisp.AFIIPv6 {
			rloc = "2001:db8:3::2"
		}
		proxy := func(r *lisp.MapRegister) { r.ProxyReply = strings.Contains(t.(*testing.T).Name(), "proxy") }
		b.put(netip.AddrPortFrom(netip.MustParseAddr(rloc), 4342),
			register(t, key, iidRecord(iid, lpm.String(), 10, rloc), proxy))
	}
}

// answerKey pairs our answers with theirs: type and nonce.
func answerKey(t testing.TB, b []byte) uint64 {
	t.Helper()
	if lisp.TypeOf(b) == lisp.TypeEncapsulatedControl {
		in, err := parse[*lisp.EncapsulatedControl](t, b).Inner()
		require.NoError(t, err)
		return binary.BigEndian.Uint64(in.Payload[4:]) ^ 1<<63
	}
	return binary.BigEndian.Uint64(b[4:])
}

func compareAnswers(t testing.TB, theirs, ours []byte) {
	t.Helper()
	require.Equal(t, lisp.TypeOf(theirs), lisp.TypeOf(ours))
	switch lisp.TypeOf(ours) {
	case lisp.TypeEncapsulatedControl:
		assert.Equal(t, theirs, ours, "forwarded unaltered")
	case lisp.TypeMapNotify:
		key := lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("secret")}
		require.NoError(t, lisp.Verify(theirs, key))
		require.NoError(t, lisp.Verify(ours, key))
		want, got := parse[*lisp.MapNotify](t, theirs), parse[*lisp.MapNotify](t, ours)
		want.Records[0].Locators[0].Local = true // they clear L, we copy the record
		want.Auth.Data = got.Auth.Data
		assert.Equal(t, want, got)
	case lisp.TypeMapReply:
		want, got := parse[*lisp.MapReply](t, theirs), parse[*lisp.MapReply](t, ours)
		if want.Records[0].TTL == ttlUnregistered && want.Records[0].MaskLen == 32 {
			want.Records[0].MaskLen, want.Records[0].EID = got.Records[0].MaskLen, got.Records[0].EID // we say the whole hole
		}
		want.Records[0].Authoritative = false // they set A in negative replies; we are no ETR
		if len(want.Records[0].Locators) > 0 {
			want.Records[0].Action = lisp.ActionNoAction // means nothing with locators
		} else {
			want.Records[0].Locators = got.Records[0].Locators
			assert.Empty(t, got.Records[0].Locators)
		}
		assert.Equal(t, want, got)
	default:
		require.FailNow(t, "unexpected message", "%x", ours)
	}
}

// natRegisters are the different Map-Registers of a capture, also those inside
// an ECM to or from an RTR.
func natRegisters(t testing.TB, file string) []lisp.Datagram {
	t.Helper()
	var all []lisp.Datagram
	seen := map[string]bool{}
	for _, d := range pcaptest.Datagrams(t, file) {
		if len(d.Bytes) > 0 && lisp.TypeOf(d.Bytes) == lisp.TypeEncapsulatedControl {
			in, err := parse[*lisp.EncapsulatedControl](t, d.Bytes).Inner()
			require.NoError(t, err)
			d.Bytes = in.Payload
		}
		if len(d.Bytes) == 0 || lisp.TypeOf(d.Bytes) != lisp.TypeMapRegister || seen[string(d.Bytes)] {
			continue
		}
		seen[string(d.Bytes)] = true
		all = append(all, d)
	}
	return all
}

// TestNATCaptures: xTRs behind a NAT set the I bit and count in no order. By
// default all their registrations are accepted, each capture alone and one
// behind the other.
func TestNATCaptures(t *testing.T) {
	files, err := filepath.Glob("testdata/nat/*.pcap")
	require.NoError(t, err)
	require.Len(t, files, 8)
	sites := func(c *Config) {
		key := lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("secret")}
		c.Sites = []Site{{Name: "all", Keys: []lisp.Key{key}, Prefixes: []SitePrefix{
			{Prefix: netip.MustParsePrefix("172.16.0.0/16"), AcceptMoreSpecifics: true},
			{Prefix: netip.MustParsePrefix("fd00:e1d::/32"), AcceptMoreSpecifics: true},
		}}}
	}
	one := newBench(t, sites)
	registers, known, ids := 0, map[string]bool{}, 0
	for _, file := range files {
		alone := newBench(t, sites)
		for _, d := range natRegisters(t, file) {
			d.Local = netip.AddrPortFrom(d.Local.Addr(), lisp.ControlPort)
			require.True(t, alone.s.Handle(alone.now, d))
			assert.NotEmpty(t, alone.drain(), file)
			assert.Zero(t, alone.s.Stats().Dropped, file)
			require.True(t, one.s.Handle(one.now, d))
			if m := parse[*lisp.MapRegister](t, d.Bytes); m.XTRIDPresent {
				ids++
			}
			registers++
			known[string(d.Bytes)] = true
		}
	}
	assert.Greater(t, registers, 8)
	assert.Greater(t, ids, 4)
	st := one.s.Stats()
	assert.Zero(t, st.Dropped)
	assert.EqualValues(t, len(known), st.Accepted)
	assert.EqualValues(t, registers, st.Accepted+st.Duplicates)
}
