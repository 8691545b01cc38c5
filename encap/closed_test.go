package encap

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

var allClosed = Closed{MapVersions: true, LocatorStatusBits: true, EchoNonce: true}

// newClosedNode returns node A of a closed network, which knows B's EIDs behind
// both locators of B.
func newClosedNode(t testing.TB, c Closed, change ...func(*nodeConfig)) *node {
	t.Helper()
	x := newA(t, &memNet{}, "", append(change, func(cfg *nodeConfig) {
		before := cfg.change
		cfg.change = func(cfg *Config) {
			cfg.Closed = c
			if before != nil {
				before(cfg)
			}
		}
	})...)
	x.learn(t, x.overlays[0].iid, "10.2.0.0/16", rlocB4)
	x.learn(t, x.overlays[0].iid, "10.3.0.0/16", rlocB6)
	return x
}

// entry is the number of the map-cache entry for an EID.
func (x *node) entry(t testing.TB, eid string) uint32 {
	t.Helper()
	ent, ok := x.cache.LookupEntry(x.overlays[0].iid, addr(eid))
	require.True(t, ok)
	return ent.ID
}

// headerTo returns the data header of a packet.
func (x *node) headerTo(t testing.TB, src, dst string) string {
	t.Helper()
	x.push(packetSpec{src: src, dst: dst, payloadLen: 10}.build())
	out := x.underlay.take()
	require.Len(t, out, 1, "%v", x.drops())
	return hex.EncodeToString(out[0].Bytes[:8])
}

func TestClosedHeader(t *testing.T) {
	nonce := mapcache.LocatorSignal{Addr: addr(rlocB4), Nonce: 0x123456, Ask: true}
	for _, tt := range []struct {
		name    string
		closed  Closed
		own     mapcache.LocalSignal
		entry   mapcache.EntrySignal
		locator mapcache.LocatorSignal
		want    string
	}{
		{name: "nothing to say", closed: allClosed, want: "0000000000000000"},
		{
			name: "off", own: mapcache.LocalSignal{MapVersion: 1, LSBs: 1, UseLSBs: true},
			entry: mapcache.EntrySignal{MapVersion: 2}, locator: nonce, want: "0000000000000000", // RFC 9300-4.1-1
		},
		{
			name: "Map-Versions", closed: Closed{MapVersions: true}, own: mapcache.LocalSignal{MapVersion: 0xabc},
			entry: mapcache.EntrySignal{MapVersion: 0xdef}, want: "10abcdef00000000",
		},
		{name: "no version of our own", closed: allClosed, entry: mapcache.EntrySignal{MapVersion: 7}, want: "1000000700000000"},
		{ // RFC 9302-6.1-1: never a Dest Map-Version of 0
			name: "the other site has no version", closed: allClosed, own: mapcache.LocalSignal{MapVersion: 7}, want: "0000000000000000",
		},
		{
			name: "LSBs", closed: Closed{LocatorStatusBits: true}, own: mapcache.LocalSignal{LSBs: 0x80000005, UseLSBs: true},
			want: "4000000080000005",
		},
		{name: "LSBs that are all 0", closed: Closed{LocatorStatusBits: true}, own: mapcache.LocalSignal{UseLSBs: true}, want: "4000000000000000"},
		{ // RFC 9300-13.1-2: L=0 while the use-LSB timer runs
			name: "not now", closed: Closed{LocatorStatusBits: true}, own: mapcache.LocalSignal{LSBs: 5}, want: "0000000000000000",
		},
		{
			name: "LSBs with Map-Versions", closed: allClosed, own: mapcache.LocalSignal{LSBs: 5, UseLSBs: true, MapVersion: 1},
			entry: mapcache.EntrySignal{MapVersion: 2}, want: "5000100200000005",
		},
		{ // RFC 9300-10-3, 9300-16-2: coupled, they go together
			name: "LSBs without Map-Versions", closed: allClosed, own: mapcache.LocalSignal{LSBs: 5, UseLSBs: true, MapVersion: 1},
			want: "0000000000000000",
		},
		{ // RFC 9300-10.1-s1
			name: "echo-nonce request", closed: Closed{EchoNonce: true}, locator: nonce, want: "a012345600000000",
		},
		{
			name: "echo-nonce request with LSBs", closed: Closed{EchoNonce: true, LocatorStatusBits: true}, locator: nonce,
			own: mapcache.LocalSignal{LSBs: 3, UseLSBs: true}, want: "e012345600000003",
		},
		{ // never both N and V
			name: "a nonce goes before Map-Versions", closed: allClosed, own: mapcache.LocalSignal{MapVersion: 1},
			entry: mapcache.EntrySignal{MapVersion: 2}, locator: nonce, want: "a012345600000000",
		},
		{
			name: "an echo is awaited, not asked for", closed: allClosed,
			locator: mapcache.LocatorSignal{Addr: addr(rlocB4), Nonce: 0x123456}, want: "0000000000000000",
		},
		{
			name: "another locator is asked", closed: allClosed,
			locator: mapcache.LocatorSignal{Addr: addr(rlocB6), Nonce: 0x123456, Ask: true}, want: "0000000000000000",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newClosedNode(t, tt.closed)
			tt.own.Key = mapcache.Key{Prefix: prefix(eidA4 + "/32")}
			tt.entry.EntryID = x.entry(t, eidB4)
			x.SetSignals(mapcache.Signals{
				Locals: []mapcache.LocalSignal{tt.own}, Entries: []mapcache.EntrySignal{tt.entry}, Locators: []mapcache.LocatorSignal{tt.locator},
			})
			for range 3 { // RFC 9300-10.1-s1: every packet
				assert.Equal(t, tt.want, x.headerTo(t, eidA4, eidB4))
			}
		})
	}
}

// RFC 9300-5.3-13: the LSBs are those of the mapping that the inner source matches
// longest.
func TestClosedLSBsBySource(t *testing.T) {
	for _, iid := range []uint32{0, 7} {
		x := newClosedNode(t, Closed{LocatorStatusBits: true}, func(c *nodeConfig) {
			c.eids = []string{"10.1.0.0/16", "10.9.0.0/16"}
			c.change = func(c *Config) { c.Overlays[0].InstanceID = iid }
		})
		sig := func(p string, lsbs uint32) mapcache.LocalSignal {
			return mapcache.LocalSignal{Key: mapcache.Key{IID: iid, Prefix: prefix(p)}, LSBs: lsbs, UseLSBs: true}
		}
		few := []mapcache.LocalSignal{sig("10.1.0.0/16", 0x101), sig("10.1.0.0/24", 0x102), {Key: mapcache.Key{IID: 9, Prefix: prefix("10.1.0.0/32")}}}
		many := few
		for _, p := range []string{"10.1.4.0/24", "10.1.5.0/24", "10.1.6.0/24"} {
			many = append(many, sig(p, 0x104))
		}
		for _, list := range [][]mapcache.LocalSignal{few, many} {
			x.SetSignals(mapcache.Signals{Locals: list})
			first, second, none := "4000000000000101", "4000000000000102", "0000000000000000"
			if iid != 0 {
				// Beside an Instance ID there are 8 of them.
				first, second, none = "4800000000000701", "4800000000000702", "0800000000000700"
			}
			assert.Equal(t, first, x.headerTo(t, "10.1.1.1", eidB4))   // RFC 9300-5.3-13
			assert.Equal(t, second, x.headerTo(t, "10.1.0.77", eidB4)) // RFC 9300-5.3-13
			assert.Equal(t, none, x.headerTo(t, "10.9.0.1", eidB4))
		}
		x.SetSignals(mapcache.Signals{}) // nothing new
		assert.NotEqual(t, "0000000000000000", x.headerTo(t, "10.1.0.77", eidB4))
	}
}

// Of the formats only LISP has these bits.
func TestClosedFormats(t *testing.T) {
	x := newClosedNode(t, allClosed)
	x.insert(t, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix("10.4.0.0/16")}, TTL: time.Hour,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rlocB4), Format: mapcache.FormatGPE}, Priority: 1, Weight: 1}},
	})
	before := x.headerTo(t, eidA4, "10.4.0.1")
	x.SetSignals(mapcache.Signals{
		Locals:   []mapcache.LocalSignal{{Key: mapcache.Key{Prefix: prefix(eidA4 + "/32")}, MapVersion: 1, LSBs: 1, UseLSBs: true}},
		Entries:  []mapcache.EntrySignal{{EntryID: x.entry(t, "10.4.0.1"), MapVersion: 2}},
		Locators: []mapcache.LocatorSignal{{Addr: addr(rlocB4), Nonce: 1, Ask: true}},
	})
	assert.Equal(t, before, x.headerTo(t, eidA4, "10.4.0.1"))
	// Nor do they mean anything on arrival.
	got := x.pull(from(rlocB4, rlocA4, encapsulated(0xb4, 1, 0, packetSpec{src: eidB4, dst: eidA4}.build())))
	assert.Len(t, got, 1)
	assert.Equal(t, before, x.headerTo(t, eidA4, "10.4.0.1"))
}

// version returns a packet from B's EID to A's with Map-Versions.
func version(source, dest uint16) Incoming {
	h := lisp.DataHeader{}.WithMapVersions(source, dest)
	b := make([]byte, dataHeaderLen)
	lisp.PutDataHeader(b, h)
	return from(rlocB4, rlocA4, append(b, packetSpec{src: eidB4, dst: eidA4, payloadLen: 20}.build()...))
}

// discovered returns the next discovery, if there is one.
func (x *node) discovered() (d mapcache.Discovery) {
	select {
	case d = <-x.Discoveries():
	default:
	}
	return d
}

func TestClosedMapVersions(t *testing.T) {
	const ours, theirs = 100, 200
	found := func(kind mapcache.DiscoveryKind, key string, version uint16) mapcache.Discovery {
		return mapcache.Discovery{
			Kind: kind, Key: hostKey(key), MapVersion: version, Source: addr(eidB4),
			Locator: mapcache.Locator{Addr: addr(rlocB4), Port: 4341},
		}
	}
	for _, tt := range []struct {
		name         string
		own          mapcache.LocalSignal
		theirs       uint16
		refuse       bool
		source, dest uint16
		dropped      bool
		want         mapcache.Discovery
	}{
		{name: "both as known", theirs: theirs, source: theirs, dest: ours}, // RFC 9302-7.1-1
		{ // RFC 9302-7.1-2, 9302-7.1-1
			name: "dest newer", theirs: theirs, source: theirs, dest: ours + 1, dropped: true,
			want: found(mapcache.DiscoveryInvalidVersion, eidA4, ours+1),
		},
		{ // RFC 9302-7.1-3, 9302-7.1-5
			name: "dest older", theirs: theirs, source: theirs, dest: ours - 1,
			want: found(mapcache.DiscoveryStaleVersion, eidA4, ours-1),
		},
		{ // the number space is a circle
			name: "dest older by half", theirs: theirs, source: theirs, dest: 4095,
			want: found(mapcache.DiscoveryStaleVersion, eidA4, 4095),
		},
		{ // RFC 9302-7.1-4: told in vain, and still reported, so that it is told again
			name: "dest older, refused", theirs: theirs, refuse: true, source: theirs, dest: ours - 1, dropped: true,
			want: found(mapcache.DiscoveryStaleVersion, eidA4, ours-1),
		},
		{name: "refused only if stale", theirs: theirs, refuse: true, source: theirs, dest: ours},
		{ // RFC 9302-7.1-6: without a Map-Request
			name: "dest older than any that can be cached", own: mapcache.LocalSignal{Oldest: ours - 2}, theirs: theirs,
			source: theirs, dest: ours - 3, dropped: true,
		},
		{
			name: "dest the oldest", own: mapcache.LocalSignal{Oldest: ours - 2}, theirs: theirs, source: theirs, dest: ours - 2,
			want: found(mapcache.DiscoveryStaleVersion, eidA4, ours-2),
		},
		{name: "dest null", theirs: theirs, source: theirs, dest: 0, dropped: true},
		{ // RFC 9302-6.1-2
			name: "our mapping has none", own: mapcache.LocalSignal{MapVersion: 1 << 15}, theirs: theirs, source: theirs, dest: ours, dropped: true,
		},
		{ // RFC 9302-7.2-1, 9302-7.2-2
			name: "source newer", theirs: theirs, source: theirs + 1, dest: ours,
			want: found(mapcache.DiscoveryNewerSource, eidB4, theirs+1),
		},
		{name: "source older", theirs: theirs, source: theirs - 1, dest: ours, dropped: true}, // RFC 9302-7.2-3, 9302-7.2-1
		{name: "source null", theirs: theirs, source: 0, dest: ours},                          // RFC 9302-6.1-3
		{name: "their mapping has none", theirs: 0, source: 5, dest: ours},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newClosedNode(t, Closed{MapVersions: true})
			tt.own.Key = mapcache.Key{Prefix: prefix(eidA4 + "/32")}
			switch tt.own.MapVersion {
			case 0:
				tt.own.MapVersion = ours
			case 1 << 15:
				tt.own.MapVersion = 0
			}
			x.SetSignals(mapcache.Signals{
				Locals:   []mapcache.LocalSignal{tt.own},
				Entries:  []mapcache.EntrySignal{{EntryID: x.entry(t, eidB4), MapVersion: tt.theirs}},
				Locators: []mapcache.LocatorSignal{{Addr: addr(rlocB4), RefuseStale: tt.refuse}},
			})
			got := x.pull(version(tt.source, tt.dest))
			if tt.dropped {
				assert.Empty(t, got)
				assert.Equal(t, map[DropReason]uint64{DropMapVersion: 1}, x.drops())
			} else {
				assert.Len(t, got, 1)
				assert.Empty(t, x.drops())
			}
			assert.Equal(t, tt.want, x.discovered())
			assert.Zero(t, x.discovered())
		})
	}

	t.Run("nothing is known of the source", func(t *testing.T) {
		x := newClosedNode(t, Closed{MapVersions: true})
		x.SetSignals(mapcache.Signals{Locals: []mapcache.LocalSignal{{Key: hostKey(eidA4), MapVersion: ours}}})
		x.cache.Remove(x.now, mapcache.Key{Prefix: prefix("10.2.0.0/16")})
		x.cache.Publish()
		assert.Len(t, x.pull(version(1, ours)), 1) // RFC 9302-7.2-4
		assert.Zero(t, x.discovered())
	})
	t.Run("other mechanisms are on", func(t *testing.T) {
		x := newClosedNode(t, Closed{LocatorStatusBits: true})
		assert.Empty(t, x.pull(version(1, ours)))
		assert.Equal(t, map[DropReason]uint64{DropMapVersion: 1}, x.drops())
	})
	t.Run("an entry that is gone says nothing to its successor", func(t *testing.T) {
		x := newClosedNode(t, Closed{MapVersions: true})
		id := x.entry(t, eidB4)
		x.SetSignals(mapcache.Signals{Entries: []mapcache.EntrySignal{{EntryID: id, MapVersion: 9}, {EntryID: 1 << 30, MapVersion: 9}}})
		assert.Equal(t, "1000000900000000", x.headerTo(t, eidA4, eidB4))
		x.SetSignals(mapcache.Signals{Entries: []mapcache.EntrySignal{{EntryID: id}, {EntryID: 1 << 20}}})
		assert.Equal(t, "0000000000000000", x.headerTo(t, eidA4, eidB4))
	})
}

// lsbs returns a packet from B's EID to A's with LSBs.
func lsbs(bits uint32, flags byte, low24 uint32) Incoming {
	return from(rlocB4, rlocA4, encapsulated(flags|0x40, low24, bits, packetSpec{src: eidB4, dst: eidA4, payloadLen: 20}.build()))
}

func TestClosedLSBs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		closed Closed
		entry  mapcache.EntrySignal
		in     Incoming
		want   uint32 // reported; all ones: nothing is
	}{
		{"as known", Closed{LocatorStatusBits: true}, mapcache.EntrySignal{LSBs: 3, Locators: 2}, lsbs(3, 0, 0), ^uint32(0)},
		{"down", Closed{LocatorStatusBits: true}, mapcache.EntrySignal{LSBs: 3, Locators: 2}, lsbs(2, 0, 0), 2}, // RFC 9300-10-s1, 9300-10-1
		{"up", Closed{LocatorStatusBits: true}, mapcache.EntrySignal{LSBs: 2, Locators: 2}, lsbs(3, 0, 0), 3},
		{"beyond the set", Closed{LocatorStatusBits: true}, mapcache.EntrySignal{LSBs: 3, Locators: 2}, lsbs(0xfffffff3, 0, 0), ^uint32(0)},
		{"32 of them", Closed{LocatorStatusBits: true}, mapcache.EntrySignal{LSBs: 0, Locators: 32}, lsbs(0x80000000, 0, 0), 0x80000000},
		{"nothing known", Closed{LocatorStatusBits: true}, mapcache.EntrySignal{}, lsbs(1, 0, 0), ^uint32(0)},
		{"L=0", Closed{LocatorStatusBits: true}, mapcache.EntrySignal{LSBs: 3, Locators: 2}, from(rlocB4, rlocA4, encapsulated(0, 0, 2, packetSpec{src: eidB4, dst: eidA4}.build())), ^uint32(0)},
		{"off", Closed{EchoNonce: true}, mapcache.EntrySignal{LSBs: 3, Locators: 2}, lsbs(2, 0, 0), ^uint32(0)}, // RFC 9300-10-2
		// RFC 9300-10-3, 9300-16-2: with Map-Versions they count for one version only.
		{"known version", allClosed, mapcache.EntrySignal{MapVersion: 5, LSBs: 3, Locators: 2}, lsbs(2, 0x10, 0x005001), 2},
		{"other version", allClosed, mapcache.EntrySignal{MapVersion: 5, LSBs: 3, Locators: 2}, lsbs(2, 0x10, 0x000001), ^uint32(0)},
		{"no version", allClosed, mapcache.EntrySignal{MapVersion: 5, LSBs: 3, Locators: 2}, lsbs(2, 0, 0), ^uint32(0)},
		{"beside a nonce", allClosed, mapcache.EntrySignal{MapVersion: 5, LSBs: 3, Locators: 2}, lsbs(2, 0x80, 0x005001), ^uint32(0)},
		{"a site without versions", allClosed, mapcache.EntrySignal{LSBs: 3, Locators: 2}, lsbs(2, 0, 0), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newClosedNode(t, tt.closed)
			tt.entry.EntryID = x.entry(t, eidB4)
			x.SetSignals(mapcache.Signals{
				Locals:  []mapcache.LocalSignal{{Key: hostKey(eidA4), MapVersion: 1}},
				Entries: []mapcache.EntrySignal{tt.entry},
			})
			assert.Len(t, x.pull(tt.in), 1)
			d := x.discovered()
			if tt.want == ^uint32(0) {
				assert.Zero(t, d)
				return
			}
			assert.Equal(t, mapcache.DiscoveryLSBs, d.Kind)
			assert.Equal(t, hostKey(eidB4), d.Key)
			assert.Equal(t, addr(rlocB4), d.Locator.Addr)
			assert.Equal(t, tt.want, d.LSBs)
		})
	}

	t.Run("8 of them in an instance", func(t *testing.T) {
		x := newClosedNode(t, Closed{LocatorStatusBits: true}, func(c *nodeConfig) {
			c.change = func(c *Config) { c.Overlays[0].InstanceID = 7 }
		})
		x.SetSignals(mapcache.Signals{Entries: []mapcache.EntrySignal{{EntryID: x.entry(t, eidB4), LSBs: 0x3ff, Locators: 10}}})
		assert.Len(t, x.pull(lsbs(0x7ff, 0x08, 0)), 1)
		assert.Zero(t, x.discovered(), "the ninth and tenth are not there")
		assert.Len(t, x.pull(lsbs(0x7fe, 0x08, 0)), 1)
		assert.EqualValues(t, 0x3fe, x.discovered().LSBs)
	})
}

// RFC 9300-3-5: what a packet says is reported when it changes, and then seldom.
func TestClosedReportsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newClosedNode(t, Closed{LocatorStatusBits: true})
		x.SetSignals(mapcache.Signals{Entries: []mapcache.EntrySignal{{EntryID: x.entry(t, eidB4), LSBs: 3, Locators: 2}}})
		count := func() (n int) {
			for x.discovered() != (mapcache.Discovery{}) {
				n++
			}
			return n
		}
		g := newIngress(x.Forwarder, x.underlay)
		for i := range 1000 {
			g.receive([]Incoming{lsbs(uint32(i%3), 0, 0)})
		}
		assert.Equal(t, 1, count()) // RFC 9300-3-5
		time.Sleep(reportInterval)
		x.pull(lsbs(3, 0, 0))
		assert.Zero(t, count(), "no change")
		x.pull(lsbs(2, 0, 0))
		assert.Equal(t, 1, count(), "it is still so")

		// Any number of sources together make no flood.
		time.Sleep(time.Hour)
		var all int
		for i := range 5000 {
			src := netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}).String()
			g.receive([]Incoming{from(rlocB4, rlocA4, encapsulated(0x40, 0, 2, packetSpec{src: src, dst: eidA4}.build()))})
			all += count()
		}
		assert.LessOrEqual(t, all, reportRate) // RFC 9300-3-5
		assert.Greater(t, all, 10)
	})
}

func TestClosedEchoNonce(t *testing.T) {
	in := func(flags byte, nonce uint32, remote string) Incoming {
		return from(remote, rlocA4, encapsulated(flags, nonce, 0, packetSpec{src: eidB4, dst: eidA4}.build()))
	}
	t.Run("echo", func(t *testing.T) {
		x := newClosedNode(t, Closed{EchoNonce: true})
		assert.Len(t, x.pull(in(0xa0, 0x123456, rlocB4)), 1)
		assert.Equal(t, "0000000000000000", x.headerTo(t, eidA4, "10.3.0.1"), "not to another locator")
		assert.Equal(t, "8012345600000000", x.headerTo(t, eidA4, eidB4)) // RFC 9300-10.1-s1, 9300-10.1-2
		assert.Equal(t, "0000000000000000", x.headerTo(t, eidA4, eidB4), "once")
		x.pull(in(0xa0, 1, rlocB4), in(0xa0, 0, rlocB4))
		assert.Equal(t, "8000000000000000", x.headerTo(t, eidA4, eidB4), "the latest; 0 is a nonce too")
		for _, flags := range []byte{0x80, 0x20} { // a random nonce; E without N
			x.pull(in(flags, 0x123456, rlocB4))
			assert.Equal(t, "0000000000000000", x.headerTo(t, eidA4, eidB4))
		}
		assert.Zero(t, x.discovered())
	})
	t.Run("off", func(t *testing.T) {
		x := newClosedNode(t, Closed{LocatorStatusBits: true})
		x.pull(in(0xa0, 0x123456, rlocB4))
		assert.Equal(t, "0000000000000000", x.headerTo(t, eidA4, eidB4)) // RFC 9300-10.1-6
	})
	t.Run("echoed", func(t *testing.T) {
		x := newClosedNode(t, Closed{EchoNonce: true})
		x.SetSignals(mapcache.Signals{Locators: []mapcache.LocatorSignal{{Addr: addr(rlocB4), Nonce: 0x123456, Ask: true}}})
		x.pull(in(0x80, 0x123457, rlocB4), in(0, 0x123456, rlocB4), in(0x80, 0x123456, "192.0.2.3"))
		assert.Zero(t, x.discovered(), "another nonce, none, from elsewhere")
		for range 10 {
			x.pull(in(0x80, 0x123456, rlocB4))
		}
		assert.Equal(t, mapcache.Discovery{Kind: mapcache.DiscoveryEchoed, Locator: mapcache.Locator{Addr: addr(rlocB4), Port: 4341}}, x.discovered())
		assert.Zero(t, x.discovered())
		x.SetSignals(mapcache.Signals{Locators: []mapcache.LocatorSignal{{Addr: addr(rlocB4)}}})
		assert.Equal(t, "0000000000000000", x.headerTo(t, eidA4, eidB4))
	})
	t.Run("both ask", func(t *testing.T) {
		x := newClosedNode(t, Closed{EchoNonce: true})
		x.SetSignals(mapcache.Signals{Locators: []mapcache.LocatorSignal{{Addr: addr(rlocB4), Nonce: 0x111111, Ask: true}}})
		x.pull(in(0xa0, 0x222222, rlocB4))
		assert.Equal(t, mapcache.DiscoveryEchoAsked, x.discovered().Kind) // RFC 9300-10.1-3
		assert.Equal(t, "8022222200000000", x.headerTo(t, eidA4, eidB4), "the echo goes first")
		assert.Equal(t, "a011111100000000", x.headerTo(t, eidA4, eidB4))
		// While we do not ask, an echo is good all the same.
		x.SetSignals(mapcache.Signals{Locators: []mapcache.LocatorSignal{{Addr: addr(rlocB4), Nonce: 0x111111}}})
		x.pull(in(0xa0, 0x222222, rlocB4), in(0x80, 0x111111, rlocB4))
		assert.Equal(t, mapcache.DiscoveryEchoed, x.discovered().Kind)
	})
	t.Run("too many sources", func(t *testing.T) {
		x := newClosedNode(t, Closed{EchoNonce: true})
		for i := range maxSources + 10 {
			x.remotes.forSource(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}))
		}
		assert.Len(t, x.pull(in(0xa0, 1, "172.30.0.1")), 1)
		assert.Zero(t, x.discovered())
	})
}

// In steady state nothing is allocated, with all of it on.
func TestClosedAllocations(t *testing.T) {
	x, out, in := closedTraffic(t, allClosed, 1)
	for range 10 {
		out()
		in()
	}
	assert.Zero(t, testing.AllocsPerRun(100, out))
	assert.Zero(t, testing.AllocsPerRun(100, in))
	assert.Empty(t, x.drops())
	assert.Zero(t, x.discovered())
}

// closedTraffic returns a node without I/O, and a batch of 64 packets of flows
// flows out of it and one into it.
func closedTraffic(t testing.TB, c Closed, flows int) (x *node, out, in func()) {
	x = newClosedNode(t, c, func(cfg *nodeConfig) {
		cfg.change = func(c *Config) {
			c.Underlay = sink{c.Underlay.(*memUnderlay)}
			c.Overlays[0].Device = sinkDevice{c.Overlays[0].Device}
		}
	})
	x.SetSignals(mapcache.Signals{
		Locals:  []mapcache.LocalSignal{{Key: hostKey(eidA4), MapVersion: 1, LSBs: 3, UseLSBs: true}},
		Entries: []mapcache.EntrySignal{{EntryID: x.entry(t, eidB4), MapVersion: 2, LSBs: 3, Locators: 2}},
	})
	var bufs [][]byte
	batch := make([]Incoming, 64)
	for i := range batch {
		spec := packetSpec{src: eidA4, dst: eidB4, sport: uint16(i % flows), dport: 2, payloadLen: 36}
		bufs = append(bufs, append(make([]byte, Headroom), spec.build()...))
		spec.src, spec.dst = eidB4, eidA4
		h := []byte{0, 0, 0, 0, 0, 0, 0, 0}
		if c != (Closed{}) {
			h = []byte{0x50, 0, 0x20, 1, 0, 0, 0, 3}
		}
		batch[i] = from(rlocB4, rlocA4, append(h, spec.build()...))
		batch[i].TTL = 60
	}
	e, g := newEgress(x.Forwarder), newIngress(x.Forwarder, x.underlay)
	out = func() {
		e.begin()
		for _, b := range bufs {
			e.packet(x.overlays[0], b, len(b)-Headroom)
		}
		e.flush()
	}
	return x, out, func() { g.receive(batch) }
}

// What a closed network costs, per packet of 64 octets; every packet is of
// another flow than the one before.
func BenchmarkClosed(b *testing.B) {
	for _, bb := range []struct {
		name string
		c    Closed
	}{{"off", Closed{}}, {"on", allClosed}} {
		_, out, in := closedTraffic(b, bb.c, 64)
		for _, way := range []struct {
			name string
			run  func()
		}{{"encapsulate", out}, {"decapsulate", in}} {
			b.Run(way.name+"/closed="+bb.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					way.run()
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/64, "ns/packet")
			})
		}
	}
}
