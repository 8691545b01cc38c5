package multihome_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/multihome"
)

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// uplinks are eth0 (2) with IPv4, wwan0 (3) and wwan1 (4) with IPv6, and eth1 (5)
// without default route.
func uplinks() []multihome.Interface {
	def := &multihome.Route{}
	v4, v6 := []netip.Addr{netip.MustParseAddr("203.0.113.5")}, []netip.Addr{netip.MustParseAddr("2001:db8::5")}
	return []multihome.Interface{
		{Index: 2, Name: "eth0", Up: true, IPv4: v4, Default4: def},
		{Index: 3, Name: "wwan0", Up: true, IPv6: v6, Default6: def},
		{Index: 4, Name: "wwan1", Up: true, IPv6: v6, Default6: def},
		{Index: 5, Name: "eth1", Up: true, IPv4: v4},
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	packet := multihome.Packet{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.7"), Protocol: 6, DSCP: 46}
	marked := func(m uint32) multihome.Packet {
		p := packet
		p.Mark = m
		return p
	}
	unknown := packet
	unknown.MarkUnknown, unknown.Mark = true, 4
	mapped := packet
	mapped.Dst = netip.MustParseAddr("::ffff:198.51.100.7")
	ssh := func(p multihome.Packet) int {
		if p.Protocol == 6 {
			return 3
		}
		return 0
	}
	many := prefixes("10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "198.51.100.0/24")
	type (
		rule = multihome.Rule
		rs   = []multihome.Rule
		want = multihome.Decision
	)
	eth0, eth1 := []string{"eth0"}, []string{"eth1"}
	for _, tc := range []struct {
		name   string
		rules  rs
		packet multihome.Packet
		want   want
	}{
		{"no rules", nil, packet, want{}},
		{"every packet", rs{{Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"or none", rs{{Interfaces: eth0, Otherwise: multihome.DropPacket}}, packet, want{IfIndex: 2, Only: true}},
		{"not usable: as without", rs{{Interfaces: eth1}, {Interfaces: eth0}}, packet, want{Fallback: true}},
		{"not usable: dropped", rs{{Interfaces: eth1, Otherwise: multihome.DropPacket}}, packet, want{Drop: true}},
		{"not usable: the next rule", rs{{Interfaces: eth1, Otherwise: multihome.NextRule}, {Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"not there", rs{{Interfaces: []string{"ppp0"}}}, packet, want{Fallback: true}},
		{"in order of preference", rs{{Interfaces: []string{"eth1", "wwan1", "eth0"}}}, packet, want{IfIndex: 4}},
		{"a pattern", rs{{Interfaces: []string{"wwan*"}}}, packet, want{IfIndex: 3}},
		{"the first that matches", rs{{Interfaces: eth0}, {Interfaces: []string{"wwan0"}}}, packet, want{IfIndex: 2}},
		{"exempted", rs{{DSCPs: []uint8{46}}, {Interfaces: eth0}}, packet, want{}},
		{"forbidden", rs{{DSCPs: []uint8{46}, Otherwise: multihome.DropPacket}}, packet, want{Drop: true}},
		{"destination", rs{{Destinations: prefixes("198.51.100.0/24", "10.0.0.0/8"), Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"destination, mapped", rs{{Destinations: prefixes("198.51.100.0/24"), Interfaces: eth0}}, mapped, want{IfIndex: 2}},
		{"destination, of a mapped prefix", rs{{Destinations: prefixes("::ffff:198.51.100.0/120"), Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"another destination", rs{{Destinations: prefixes("198.51.101.0/24"), Interfaces: eth0}}, packet, want{}},
		{"many destinations", rs{{Destinations: many, Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"none of many destinations", rs{{Sources: many, Interfaces: eth0}}, packet, want{}},
		{"source", rs{{Sources: prefixes("192.0.2.0/28"), Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"both", rs{{Sources: prefixes("192.0.2.0/28"), Destinations: prefixes("10.0.0.0/8"), Interfaces: eth0}}, packet, want{}},
		{"DSCP", rs{{DSCPs: []uint8{0, 63, 46}, Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"another DSCP", rs{{DSCPs: []uint8{0, 63, 45}, Interfaces: eth0}}, packet, want{}},
		{"a mark", rs{{Mark: 0x70, Interfaces: eth0}}, marked(0x70), want{IfIndex: 2}},
		{"a mark, with bits of others", rs{{Mark: 0x70, Interfaces: eth0}}, marked(0xa070), want{IfIndex: 2}},
		{"another mark", rs{{Mark: 0x70, Interfaces: eth0}}, marked(0x71), want{}},
		{"no mark", rs{{Mark: 0x70, Interfaces: eth0}}, packet, want{}},
		{"a mark that is not known", rs{{Mark: 4, Interfaces: eth0}}, unknown, want{}},
		{"by mark", rs{{ByMark: true}}, marked(4), want{IfIndex: 4}},
		{"by mark, with bits of others", rs{{ByMark: true}}, marked(0xff04), want{IfIndex: 4}},
		{"by mark, without", rs{{ByMark: true, Otherwise: multihome.DropPacket}}, packet, want{}},
		{"by mark, with bits of others only", rs{{ByMark: true, Otherwise: multihome.DropPacket}}, marked(0xff00), want{}},
		{"by mark, not usable", rs{{ByMark: true}}, marked(5), want{Fallback: true}},
		{"by mark, not usable: dropped", rs{{ByMark: true, Otherwise: multihome.DropPacket}}, marked(5), want{Drop: true}},
		{"by mark, no interface", rs{{ByMark: true}}, marked(77), want{Fallback: true}},
		{"by mark that is not known", rs{{ByMark: true, Otherwise: multihome.DropPacket}}, unknown, want{Drop: true}},
		{"by mark, of some packets", rs{{ByMark: true, DSCPs: []uint8{1}}}, marked(4), want{}},
		{"a function", rs{{Choose: ssh}}, packet, want{IfIndex: 3}},
		{"a function that does not care", rs{{Choose: func(multihome.Packet) int { return 0 }}, {Interfaces: eth0}}, packet, want{IfIndex: 2}},
		{"a function whose choice is not usable", rs{{Choose: func(multihome.Packet) int { return 5 }, Otherwise: multihome.DropPacket}}, packet, want{Drop: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, err := multihome.NewPolicy(multihome.PolicyConfig{Rules: tc.rules, MarkMask: 0xff})
			require.NoError(t, err)
			p.Update(uplinks())
			assert.Equal(t, tc.want, p.Decide(&tc.packet))
			p.Update(nil)
			assert.Zero(t, p.Decide(&tc.packet).IfIndex, "nothing is usable")
		})
	}

	for _, tc := range []struct {
		rule rule
		want string
	}{
		{rule{Interfaces: eth0, ByMark: true}, "more than one"},
		{rule{Otherwise: multihome.NextRule}, "does nothing"},
		{rule{Otherwise: 9, Interfaces: eth0}, "does nothing"},
		{rule{Interfaces: []string{"["}}, `"["`},
		{rule{Interfaces: []string{""}}, `""`},
		{rule{DSCPs: []uint8{64}}, "DSCP 64"},
		{rule{Mark: 0x100}, "0x100"},
		{rule{Sources: []netip.Prefix{{}}}, "prefix"},
		{rule{Destinations: prefixes("::ffff:0:0/90")}, "prefix"},
	} {
		_, err := multihome.NewPolicy(multihome.PolicyConfig{Rules: rs{{Interfaces: eth0}, tc.rule}, MarkMask: 0xff})
		require.ErrorIs(t, err, multihome.ErrConfig)
		assert.ErrorContains(t, err, "rule 2: ")
		assert.ErrorContains(t, err, tc.want)
	}
	p, err := multihome.NewPolicy(multihome.PolicyConfig{Rules: rs{{Mark: 7}, {Mark: 9}, {Mark: 7}, {ByMark: true}}})
	require.NoError(t, err)
	assert.ElementsMatch(t, []uint32{7, 9}, p.Marks())
}

// TestPolicyModel compares a Policy with the plainest reading of its rules.
func TestPolicyModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	prefix := func() netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(3)), 0})
		return netip.PrefixFrom(a, 8+r.IntN(17)).Masked()
	}
	addr := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(4)), byte(r.IntN(2))})
	}
	names := []string{"eth0", "eth1", "wwan0", "wwan*", "ppp0"}
	some := func(n int, f func()) {
		for range r.IntN(n) {
			f()
		}
	}
	hits := 0
	for range 300 {
		var cfg multihome.PolicyConfig
		for range 1 + r.IntN(6) {
			rule := multihome.Rule{Otherwise: multihome.Otherwise(r.IntN(2)), Mark: uint32(max(0, r.IntN(8)-4))}
			some(7, func() { rule.Sources = append(rule.Sources, prefix()) })
			some(7, func() { rule.Destinations = append(rule.Destinations, prefix()) })
			some(3, func() { rule.DSCPs = append(rule.DSCPs, uint8(r.IntN(3))) })
			switch r.IntN(3) {
			case 0:
				rule.ByMark = true
			case 1:
				some(3, func() { rule.Interfaces = append(rule.Interfaces, names[r.IntN(len(names))]) })
			case 2:
				rule.Choose = func(p multihome.Packet) int { return int(p.DSCP) * 2 }
			}
			cfg.Rules = append(cfg.Rules, rule)
		}
		p, err := multihome.NewPolicy(cfg)
		require.NoError(t, err)
		p.Update(uplinks())
		for range 100 {
			pkt := multihome.Packet{Src: addr(), Dst: addr(), DSCP: uint8(r.IntN(4)), Mark: uint32(r.IntN(6))}
			want := modelDecide(cfg.Rules, &pkt)
			require.Equal(t, want, p.Decide(&pkt), "%+v %+v", cfg.Rules, pkt)
			if want.IfIndex != 0 {
				hits++
			}
		}
	}
	assert.Greater(t, hits, 1000)
}

// modelDecide reads rules one by one; of uplinks 2, 3 and 4 are usable.
func modelDecide(rules []multihome.Rule, p *multihome.Packet) multihome.Decision {
	in := func(ps []netip.Prefix, a netip.Addr) bool {
		for _, x := range ps {
			if x.Contains(a) {
				return true
			}
		}
		return len(ps) == 0
	}
	byName := map[string]int{"eth0": 2, "wwan0": 3, "wwan*": 3}
	for _, r := range rules {
		dscp := len(r.DSCPs) == 0
		for _, d := range r.DSCPs {
			dscp = dscp || d == p.DSCP
		}
		if !in(r.Sources, p.Src) || !in(r.Destinations, p.Dst) || !dscp || r.Mark != 0 && r.Mark != p.Mark {
			continue
		}
		index, asked := 0, true
		switch {
		case r.ByMark:
			if p.Mark == 0 {
				continue
			}
			index = int(p.Mark)
		case r.Choose != nil:
			if index = r.Choose(*p); index == 0 {
				continue
			}
		case len(r.Interfaces) > 0:
			for _, n := range r.Interfaces {
				if index == 0 {
					index = byName[n]
				}
			}
		default:
			asked = false
		}
		drop := r.Otherwise == multihome.DropPacket
		if index >= 2 && index <= 4 {
			return multihome.Decision{IfIndex: index, Only: drop}
		}
		return multihome.Decision{Drop: drop, Fallback: asked && !drop}
	}
	return multihome.Decision{}
}

// TestPolicyFollows drives a Policy by a State and a Source in memory alone.
func TestPolicyFollows(t *testing.T) {
	t.Parallel()
	var source multihome.Memory
	state, err := multihome.New(multihome.Config{Settle: -1})
	require.NoError(t, err)
	policy, err := multihome.NewPolicy(multihome.PolicyConfig{Rules: []multihome.Rule{{Interfaces: []string{"usb*", "eth0"}}}})
	require.NoError(t, err)
	snap := multihome.Snapshot{
		Links:  []multihome.Link{{Index: 2, Name: "eth0", Up: true, Running: true}},
		Addrs:  []multihome.Addr{{IfIndex: 2, Addr: netip.MustParseAddr("203.0.113.5"), Prefix: 24}},
		Routes: []multihome.Route{{IfIndex: 2}},
	}
	source.Set(snap)
	changes := make(chan multihome.Change)
	done := make(chan error, 1)
	go func() {
		done <- multihome.Watch(t.Context(), &source, state, policyFollower(policy, changes))
	}()
	pkt := multihome.Packet{Dst: netip.MustParseAddr("198.51.100.7")}
	<-changes
	assert.Equal(t, multihome.Decision{IfIndex: 2}, policy.Decide(&pkt))
	snap.Links = append(snap.Links, multihome.Link{Index: 9, Name: "usb0", Up: true, Running: true})
	snap.Addrs = append(snap.Addrs, multihome.Addr{IfIndex: 9, Addr: netip.MustParseAddr("2001:db8::9"), Prefix: 64})
	snap.Routes = append(snap.Routes, multihome.Route{IfIndex: 9, IPv6: true})
	source.Set(snap)
	<-changes
	assert.Equal(t, multihome.Decision{IfIndex: 9}, policy.Decide(&pkt))
}

// TestPolicyDoesNotAllocate: whichever rule decides.
func TestPolicyDoesNotAllocate(t *testing.T) {
	policy := benchPolicy(t)
	for _, pkt := range benchPackets() {
		assert.Zero(t, testing.AllocsPerRun(100, func() { policy.Decide(&pkt) }))
	}
}

func benchPackets() []multihome.Packet {
	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7")
	return []multihome.Packet{
		{Src: src, Dst: dst, Mark: 4}, {Src: src, Dst: dst, DSCP: 46}, {Src: src, Dst: netip.MustParseAddr("10.9.1.1")}, {Src: src, Dst: dst},
	}
}

func benchPolicy(t testing.TB) *multihome.Policy {
	var many []netip.Prefix
	for i := range 100 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16))
	}
	policy, err := multihome.NewPolicy(multihome.PolicyConfig{Rules: []multihome.Rule{
		{ByMark: true},
		{DSCPs: []uint8{46}, Interfaces: []string{"eth0"}},
		{Destinations: many, Interfaces: []string{"wwan0"}},
		{Sources: prefixes("192.0.3.0/24"), Interfaces: []string{"eth0"}},
		{Choose: func(p multihome.Packet) int { return 0 }},
	}})
	require.NoError(t, err)
	policy.Update(uplinks())
	return policy
}

// BenchmarkPolicy decides by the first, second and third of five rules, and by none.
func BenchmarkPolicy(b *testing.B) {
	policy := benchPolicy(b)
	for i, name := range []string{"mark", "dscp", "prefix of 100", "none"} {
		pkt := benchPackets()[i]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				policy.Decide(&pkt)
			}
		})
	}
}

// policyFollower tells a Policy of each change, and then the test.
func policyFollower(p *multihome.Policy, told chan<- multihome.Change) func(time.Time, multihome.Change) error {
	return func(_ time.Time, c multihome.Change) error {
		p.Update(c.Interfaces)
		told <- c
		return nil
	}
}
