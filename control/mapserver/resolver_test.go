package mapserver

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

var (
	upA = netip.MustParseAddrPort("198.51.100.1:4342")
	upB = netip.MustParseAddrPort("198.51.100.2:4342")
	upC = netip.MustParseAddrPort("[2001:db8:5::3]:4342")
)

func resolver(c *Config) {
	p := netip.MustParsePrefix
	c.Locals = []netip.Addr{msAddr.Addr(), msAddr6.Addr()}
	c.Resolver = []ResolverEntry{
		{Prefix: p("20.0.0.0/8"), MapServers: []netip.AddrPort{upA, upB}},
		{Prefix: p("20.7.0.0/16"), MapServers: []netip.AddrPort{upC}},
		{Prefix: p("10.200.0.0/16"), MapServers: []netip.AddrPort{upB}},
		{IID: 9, Prefix: p("0.0.0.0/0"), MapServers: []netip.AddrPort{upB}},
		{Prefix: p("2001:db8:7::/48"), MapServers: []netip.AddrPort{upC, upA}},
	}
}

func standAlone(c *Config) {
	resolver(c)
	c.Sites = nil
}

// TestResolverTable: RFC 9301-8.4-s1. What belongs to a Map-Server is forwarded to it,
// octet for octet, the rest is answered: by the sites, or negatively.
func TestResolverTable(t *testing.T) {
	for _, tc := range []struct {
		iid   uint32
		asked string
		to    netip.AddrPort // forwarded
		hole  string         // negative, stand-alone
		both  string         // negative, with the sites
		ttl   uint32         // with the sites
	}{
		{asked: "20.1.2.3", to: upA},
		{asked: "20.7.2.3", to: upC},
		{asked: "10.200.1.1", to: upB},
		{iid: 9, asked: "8.8.8.8", to: upB},
		{asked: "2001:db8:7:1::1", to: upC},
		{asked: "198.51.100.1", hole: "128.0.0.0/1", both: "128.0.0.0/1", ttl: 15},
		{asked: "21.0.0.1", hole: "21.0.0.0/8", both: "21.0.0.0/8", ttl: 15},
		{asked: "10.3.0.1", hole: "10.0.0.0/9", both: "10.0.0.0/9", ttl: 1},
		{asked: "10.201.0.1", hole: "10.201.0.0/16", both: "10.201.0.0/16", ttl: 1},
		{asked: "11.0.0.1", hole: "11.0.0.0/8", both: "11.0.0.0/8", ttl: 15}, // RFC 9301-8.4-1
		{iid: 3, asked: "10.3.0.1", hole: "0.0.0.0/0", both: "0.0.0.0/0", ttl: 15},
	} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprintf("[%d]%s %v", tc.iid, tc.asked, alone), func(t *testing.T) {
				change, want, ttl := resolver, tc.both, tc.ttl
				if alone {
					change, want, ttl = standAlone, tc.hole, 15
				}
				b := newBench(t, change)
				msg := iidRequest(t, itr, tc.iid, tc.asked)
				out := b.put(itr, msg)
				if !tc.to.IsValid() {
					r := wantReply(t, out)
					assert.Equal(t, want, prefixOf(t, r))
					assert.Equal(t, ttl, r.TTL)
					assert.Equal(t, lisp.ActionNativelyForward, r.Action)
					return
				}
				require.Len(t, out, 1)
				assert.Equal(t, tc.to, out[0].Remote)
				assert.Equal(t, tc.to.Addr().Is4(), out[0].Local.Addr().Is4())
				assert.Equal(t, msg, out[0].Bytes, "unaltered, the ITR-RLOC and the source with it")
				es := b.events()
				require.Len(t, es, 1)
				assert.Contains(t, es[0].String(), "forwarded to "+tc.to.String()+" (Map-Server)")
			})
		}
	}
}

func TestResolverDropsProbes(t *testing.T) {
	b := newBench(t, standAlone)
	assert.Empty(t, b.put(itr, request(t, itr, "20.1.2.3", func(m *lisp.MapRequest) { m.Probe = true }))) // RFC 9301-5.2-4
	assert.Equal(t, ReasonProbe, b.lastReason())
}

// TestProxyReplyLeavesOutTheResolversPrefixes: what is registered for the
// aggregate says nothing about what another Map-Server has within it.
func TestProxyReplyLeavesOutTheResolversPrefixes(t *testing.T) {
	b := newBench(t, resolver, func(c *Config) { c.Sites[0].ProxyReply = true })
	b.registers(etr1, record("10.0.0.0/8", 10, "192.0.2.11"))
	assert.Equal(t, "10.0.0.0/9", prefixOf(t, wantReplyOf(t, b, "10.1.2.3")))
	assert.Equal(t, "10.201.0.0/16", prefixOf(t, wantReplyOf(t, b, "10.201.2.3")))
	assert.Empty(t, b.put(etr1, register(t, key1, record("10.200.0.0/16", 10, "192.0.2.11"))), "not of the site")
	b.events()
	assert.Empty(t, b.put(etr1, register(t, key1, record("20.0.0.0/8", 10, "192.0.2.11"))))
	assert.Equal(t, ReasonNotConfigured, b.lastReason())
	assert.Len(t, b.s.Sites(b.now)[0].Prefixes, 1)
}

// TestRequestForSeveralMapServers is not forwarded to one that would deny the
// others' EIDs; what is known here is answered.
func TestRequestForSeveralMapServers(t *testing.T) {
	ask := func(eids ...string) requestOption {
		return func(m *lisp.MapRequest) {
			for _, e := range eids {
				m.Records = append(m.Records, lisp.RequestRecord{MaskLen: 32, EID: lisp.AddressFrom(netip.MustParseAddr(e))})
			}
		}
	}
	b := newBench(t, resolver)
	out := b.put(itr, request(t, itr, "20.1.0.1", ask("20.2.0.1")))
	require.Len(t, out, 1)
	assert.Equal(t, upA, out[0].Remote)
	assert.Empty(t, b.put(itr, request(t, itr, "20.1.0.1", ask("20.7.0.1"))))
	assert.Equal(t, ReasonMixed, b.lastReason())
	r := wantReply(t, b.put(itr, request(t, itr, "20.1.0.1", ask("11.0.0.1"))))
	assert.Equal(t, "11.0.0.0/8", prefixOf(t, r))
}

// healthOf simulates Map-Servers that answer health checks if they are alive,
// for some time, and returns how many were asked.
func (b *bench) healthOf(d time.Duration, alive map[netip.AddrPort]bool) map[netip.AddrPort]int {
	b.t.Helper()
	asked := map[netip.AddrPort]int{}
	end := b.now.Add(d)
	for {
		b.s.Advance(b.now)
		for _, d := range b.drain() {
			asked[d.Remote]++
			if !alive[d.Remote] {
				continue
			}
			in, err := parse[*lisp.EncapsulatedControl](b.t, d.Bytes).Inner()
			require.NoError(b.t, err)
			m := parse[*lisp.MapRequest](b.t, in.Payload)
			// It takes one of our own Map-Servers to say what it answers.
			peer := newBench(b.t)
			answer := peer.put(d.Local, d.Bytes)
			require.Len(b.t, answer, 1)
			assert.Equal(b.t, d.Local, answer[0].Remote)
			assert.Equal(b.t, m.Nonce, parse[*lisp.MapReply](b.t, answer[0].Bytes).Nonce)
			assert.Empty(b.t, b.put(d.Remote, answer[0].Bytes))
		}
		next := b.s.Deadline()
		if next.IsZero() || next.After(end) {
			b.now = end
			return asked
		}
		if next.After(b.now) {
			b.now = next
		}
	}
}

// asks sends requests as ITRs do, each with a nonce of its own, and counts where
// they are forwarded to.
func (b *bench) asks(n int, eid string) map[netip.AddrPort]int {
	to := map[netip.AddrPort]int{}
	for range n {
		for _, d := range b.put(itr, request(b.t, itr, eid)) {
			to[d.Remote]++
		}
	}
	return to
}

func TestResolverFailsOver(t *testing.T) {
	b := newBench(t, standAlone)
	assert.False(t, b.s.Deadline().IsZero(), "the checks begin by themselves")
	assert.False(t, b.s.Deadline().After(b.now))
	all := map[netip.AddrPort]bool{upA: true, upB: true, upC: true}
	asked := b.healthOf(time.Minute, all)
	for a := range all {
		assert.LessOrEqual(t, asked[a], 7, "%v is asked every ten seconds", a)
		assert.GreaterOrEqual(t, asked[a], 6)
	}
	assert.Equal(t, map[netip.AddrPort]int{upA: 20}, b.asks(20, "20.1.2.3"))
	b.events()

	// One check unanswered: repeated requests find both ways.
	delete(all, upA)
	b.healthOf(14*time.Second, all)
	assert.Equal(t, HealthDoubtful, b.s.MapServers()[0].Health)
	to := b.asks(40, "20.1.2.3")
	assert.Greater(t, to[upA], 5)
	assert.Greater(t, to[upB], 5)
	assert.Empty(t, b.healthEvents())

	b.healthOf(9*time.Second, all)
	assert.Equal(t, []string{"Map-Server 198.51.100.1:4342 is down"}, b.healthEvents())
	assert.Equal(t, map[netip.AddrPort]int{upB: 20}, b.asks(20, "20.1.2.3"))
	assert.Equal(t, map[netip.AddrPort]int{upC: 20}, b.asks(20, "2001:db8:7::1"))
	asked = b.healthOf(time.Hour, all)
	assert.Less(t, asked[upA], 600, "asked no more often than before")
	assert.Greater(t, asked[upA], 200)

	// All down: each gets its share, in case the checks err.
	delete(all, upB)
	b.healthOf(time.Minute, all)
	to = b.asks(40, "20.1.2.3")
	assert.Greater(t, to[upA], 5)
	assert.Greater(t, to[upB], 5)

	all[upA] = true
	b.events()
	b.healthOf(15*time.Second, all)
	assert.Equal(t, []string{"Map-Server 198.51.100.1:4342 is up"}, b.healthEvents())
	assert.Equal(t, map[netip.AddrPort]int{upA: 20}, b.asks(20, "20.1.2.3"))
}

func (b *bench) healthEvents() []string {
	var s []string
	for _, e := range b.events() {
		if h, ok := e.(MapServerHealth); ok {
			s = append(s, h.String())
		}
	}
	return s
}

// TestHealthChecksInDetail: asked again after three seconds, down after three
// times; an answer counts once, and only while it is waited for.
func TestHealthChecksInDetail(t *testing.T) {
	b := newBench(t, standAlone)
	health := func() Health { return b.s.MapServers()[0].Health }
	var nonces []lisp.Nonce
	var at []time.Duration
	begin := b.now
	step := func() {
		b.s.Advance(b.now)
		for _, d := range b.drain() {
			if d.Remote != upA {
				continue
			}
			in, err := parse[*lisp.EncapsulatedControl](t, d.Bytes).Inner()
			require.NoError(t, err)
			nonces = append(nonces, parse[*lisp.MapRequest](t, in.Payload).Nonce)
			at = append(at, b.now.Sub(begin))
		}
	}
	answer := func(n lisp.Nonce) *Update {
		m, err := (&lisp.MapReply{Nonce: n, Records: []lisp.EIDRecord{record("0.0.0.0/1", 15)}}).MarshalBinary()
		require.NoError(t, err)
		return b.s.worker.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: upA, Bytes: m}).Update
	}
	step()
	late := answer(nonces[0])
	require.NotNil(t, late, "verified in time, but applied too late")
	for _, want := range []Health{HealthUp, HealthDoubtful, HealthDoubtful, HealthDown} {
		assert.Equal(t, want, health())
		b.now = b.now.Add(3 * time.Second)
		step()
	}
	assert.Equal(t, []time.Duration{0, 3 * time.Second, 6 * time.Second, 9 * time.Second}, at)
	b.s.Apply(b.now, late)
	assert.Equal(t, HealthDown, health())
	assert.Nil(t, answer(nonces[1]))
	for len(nonces) < 5 {
		b.now = b.now.Add(time.Second)
		step()
	}
	b.s.Apply(b.now, answer(nonces[4]))
	assert.Equal(t, HealthUp, health())
	assert.Nil(t, answer(nonces[4]), "once")
}

// TestForgedHealth: without the nonce nobody brings a Map-Server up, and what
// comes from one doesn't go back to it.
func TestForgedHealth(t *testing.T) {
	b := newBench(t, standAlone)
	b.healthOf(time.Minute, nil)
	b.events()
	assert.Empty(t, b.put(upA, func() []byte {
		m, err := (&lisp.MapReply{Nonce: 7, Records: []lisp.EIDRecord{record("0.0.0.0/0", 15)}}).MarshalBinary()
		require.NoError(t, err)
		return m
	}()))
	assert.Equal(t, ReasonUnexpected, b.lastReason())
	assert.Equal(t, HealthDown, b.s.MapServers()[0].Health)

	b = newBench(t, standAlone)
	out := b.put(upA, request(t, itr, "20.1.2.3"))
	require.Len(t, out, 1)
	assert.Equal(t, upB, out[0].Remote)
	assert.Empty(t, b.put(upB, request(t, itr, "10.200.0.1")), "no loop")
	assert.Equal(t, ReasonNoRLOC, b.lastReason())
}

func TestHealthWithoutChecks(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"off":        func(c *Config) { c.HealthInterval = -1 },
		"no address": func(c *Config) { c.Locals = nil },
		"no choice":  func(c *Config) { c.Resolver = c.Resolver[1:2] },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, standAlone, change)
			assert.Empty(t, b.healthOf(time.Hour, nil))
			if name != "no choice" {
				assert.Equal(t, map[netip.AddrPort]int{upA: 20}, b.asks(20, "20.1.2.3"))
			}
		})
	}
}

func TestResolverConfig(t *testing.T) {
	p := netip.MustParsePrefix("20.0.0.0/8")
	for name, e := range map[string]ResolverEntry{
		"no prefix":     {MapServers: []netip.AddrPort{upA}},
		"no server":     {Prefix: p},
		"no address":    {Prefix: p, MapServers: []netip.AddrPort{{}}},
		"no port":       {Prefix: p, MapServers: []netip.AddrPort{netip.AddrPortFrom(upA.Addr(), 0)}},
		"itself":        {Prefix: p, MapServers: []netip.AddrPort{msAddr}},
		"instance":      {Prefix: p, IID: 1 << 24, MapServers: []netip.AddrPort{upA}},
		"also a site's": {Prefix: netip.MustParsePrefix("10.0.0.0/8"), MapServers: []netip.AddrPort{upA}},
	} {
		_, err := New(Config{Sites: testSites(), Locals: []netip.Addr{msAddr.Addr()}, Resolver: []ResolverEntry{e}})
		assert.ErrorIs(t, err, ErrConfig, name)
	}
}

// TestForwardByWeight: of the best priority, in proportion to the weights; a
// locator of weight 0 among others gets nothing.
func TestForwardByWeight(t *testing.T) {
	r := record("10.1.0.0/16", 10, "192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14")
	r.Locators[0].Weight, r.Locators[1].Weight, r.Locators[2].Weight = 75, 25, 0
	r.Locators[3].Priority = 2
	b := newBench(t)
	b.registers(etr1, r)
	to := b.asks(400, "10.1.2.3")
	assert.InDelta(t, 300, to[etr1], 40)
	assert.InDelta(t, 100, to[etr2], 40)
	assert.Len(t, to, 2)
	for i := range r.Locators {
		r.Locators[i].Weight = 0
	}
	b.registers(etr1, r)
	assert.Len(t, b.asks(100, "10.1.2.3"), 3, "no weights: all alike")
}
