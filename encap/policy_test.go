package encap

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// policyNode is a node whose uplinks are 3 with both families, 4 with IPv4 only,
// and 5 which is down; and a peer with locators of both families.
func policyNode(t testing.TB, policy func(*PolicyPacket) Uplink) (x *node, flows func(b ...[]byte) []string) {
	t.Helper()
	n := &memNet{}
	x = newA(t, n, "", func(c *nodeConfig) { c.change = func(c *Config) { c.Policy = policy } })
	peer := n.node(addr(theirs1), addr(theirs2), addr("2001:db8:f::2"))
	up := mapcache.Local{Priority: 1, Weight: 1, Up: true}
	var ls []mapcache.Local
	for _, l := range []struct {
		index int
		addr  string
	}{{3, ours1}, {3, "2001:db8:f::1"}, {4, ours2}, {5, ours3}} {
		up.IfIndex, up.Addr, up.Up = l.index, addr(l.addr), l.index != 5
		ls = append(ls, up)
	}
	ls[0].Priority = 0 // what leaves without policy
	require.NoError(t, x.SetLocals(ls))
	for _, eid := range []string{eidB4 + "/32", eidB6 + "/128"} {
		m := mapcache.Mapping{Key: mapcache.Key{Prefix: prefix(eid)}, TTL: mapcache.TTLForever}
		for i, a := range []string{theirs1, "2001:db8:f::2"} {
			m.RLOCs = append(m.RLOCs, mapcache.RLOC{Locator: mapcache.Locator{Addr: addr(a)}, Priority: uint8(1 + i), Weight: 1})
		}
		x.insert(t, m)
	}
	return x, func(packets ...[]byte) (used []string) {
		x.push(packets...)
		for {
			select {
			case in := <-peer.in:
				used = append(used, in.Remote.Addr().String()+">"+in.Local.String())
			default:
				return used
			}
		}
	}
}

func TestPolicy(t *testing.T) {
	var answer Uplink
	var asked []PolicyPacket
	x, flows := policyNode(t, func(p *PolicyPacket) Uplink {
		asked = append(asked, *p)
		return answer
	})
	const by3, by4 = ours1 + ">" + theirs1, ours2 + ">" + theirs1
	one := packetSpec{src: eidA4, dst: eidB4, tos: 46<<2 | 1, sport: 1, dport: 7}.build()
	for _, tc := range []struct {
		name      string
		answer    Uplink
		want      string
		fallbacks uint64
	}{
		{"no opinion", Uplink{}, by3, 0},
		{"another uplink", Uplink{IfIndex: 4}, by4, 0},
		{"the same uplink", Uplink{IfIndex: 3, Only: true}, by3, 0},
		{"one that is down", Uplink{IfIndex: 5}, by3, 1},
		{"one that is not there", Uplink{IfIndex: 77}, by3, 1},
		{"only one that is down", Uplink{IfIndex: 5, Only: true}, "", 0},
		{"dropped", Uplink{IfIndex: 4, Drop: true}, "", 0},
		{"the policy knows that it cannot have what it wishes", Uplink{Fallback: true}, by3, 1},
	} {
		answer = tc.answer
		before := x.Stats()
		// Three packets of a flow in a batch: none of them passes the policy by.
		got := flows(one, one, one)
		after := x.Stats()
		if tc.want == "" {
			assert.Empty(t, got, tc.name)
			assert.EqualValues(t, 3, after.Drop(DropPolicy)-before.Drop(DropPolicy), tc.name)
			for range 3 { // its source is told
				x.device.next(t)
			}
		} else {
			assert.Equal(t, []string{tc.want, tc.want, tc.want}, got, tc.name)
		}
		assert.Equal(t, 3*tc.fallbacks, after.PolicyFallbacks-before.PolicyFallbacks, tc.name)
	}
	assert.Equal(t, PolicyPacket{Src: addr(eidA4), Dst: addr(eidB4), Protocol: protoUDP, DSCP: 46}, asked[0])

	// A flow that changes its DSCP is asked for again.
	answer, asked = Uplink{IfIndex: 4}, nil
	other := packetSpec{src: eidA4, dst: eidB4, tos: 0, sport: 1, dport: 7}.build()
	flows(one, one, other, other)
	require.Len(t, asked, 2)
	assert.EqualValues(t, 0, asked[1].DSCP)
}

// TestPolicyOtherFamily: an uplink that the best locator of a mapping cannot be
// reached by leads to another one.
func TestPolicyOtherFamily(t *testing.T) {
	answer := Uplink{IfIndex: 3, Only: true}
	x, flows := policyNode(t, func(*PolicyPacket) Uplink { return answer })
	ls := x.locals.Load().locals
	ls[0].Up, ls[2].Priority = false, 9
	require.NoError(t, x.SetLocals(ls))
	b := packetSpec{src: eidA6, dst: eidB6, sport: 1, dport: 7}.build()
	assert.Equal(t, []string{"2001:db8:f::1>2001:db8:f::2"}, flows(b), "interface 3 has IPv6 only now")
	answer.IfIndex = 4
	assert.Equal(t, []string{ours2 + ">" + theirs1}, flows(b))

	// A locator that is bound to another interface is not for this one.
	x.insert(t, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix(eidB6 + "/128")}, TTL: mapcache.TTLForever,
		RLOCs: []mapcache.RLOC{
			{Locator: mapcache.Locator{Addr: addr(theirs2), IfIndex: 3}, Priority: 1, Weight: 1},
			{Locator: mapcache.Locator{Addr: addr(theirs1)}, Priority: 2, Weight: 1},
		},
	})
	assert.Equal(t, []string{ours2 + ">" + theirs1}, flows(b))
	x.insert(t, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix(eidB6 + "/128")}, TTL: mapcache.TTLForever,
		RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr("2001:db8:f::2")}, Priority: 1, Weight: 1}},
	})
	assert.Empty(t, flows(b), "nothing that IPv4 reaches")
	answer.Only = false
	assert.Equal(t, []string{"2001:db8:f::1>2001:db8:f::2"}, flows(b))
	assert.EqualValues(t, 1, x.Stats().PolicyFallbacks)
	assert.EqualValues(t, 1, x.Stats().Drops[DropPolicy])
}

// TestPolicyPairs: of an uplink that does not reach one locator of a mapping
// another one is used, and none of that uplink's if it reaches none.
func TestPolicyPairs(t *testing.T) {
	answer := Uplink{IfIndex: 4}
	x, flows := policyNode(t, func(*PolicyPacket) Uplink { return answer })
	m := mapcache.Mapping{Key: mapcache.Key{Prefix: prefix(eidB4 + "/32")}, TTL: mapcache.TTLForever}
	for _, a := range []string{theirs1, theirs2} {
		m.RLOCs = append(m.RLOCs, mapcache.RLOC{Locator: mapcache.Locator{Addr: addr(a)}, Priority: 1, Weight: 1})
	}
	x.insert(t, m)
	send := func() map[string]bool {
		used := map[string]bool{}
		for i := range 64 {
			for _, way := range flows(packetSpec{src: eidA4, dst: eidB4, sport: uint16(i + 1), dport: 7}.build()) {
				used[way] = true
			}
		}
		return used
	}
	const to1, to2 = ours2 + ">" + theirs1, ours2 + ">" + theirs2
	assert.Equal(t, map[string]bool{to1: true, to2: true}, send())
	x.SetPairs([]mapcache.Pair{pairOf(ours2, theirs1, mapcache.PairDown)})
	assert.Equal(t, map[string]bool{to2: true}, send())
	x.SetPairs([]mapcache.Pair{pairOf(ours2, theirs2, mapcache.PairDown)})
	assert.Equal(t, map[string]bool{ours1 + ">" + theirs1: true, ours1 + ">" + theirs2: true}, send())
	assert.EqualValues(t, 64, x.Stats().PolicyFallbacks)
	answer.Only = true
	assert.Empty(t, send())
	x.SetPairs([]mapcache.Pair{pairOf(ours2, theirs2, 0)})
	assert.Equal(t, map[string]bool{to2: true}, send())
	ls := x.locals.Load().locals
	ls[2].Priority = 255
	require.NoError(t, x.SetLocals(ls))
	assert.Empty(t, send(), "a locator that nothing is to be sent from")
}

// TestPolicyPairsOfWorsePriority: what an uplink does not reach leaves by it to the
// best locator that it does, also where the mapping's best ones are of a family
// that it has not.
func TestPolicyPairsOfWorsePriority(t *testing.T) {
	const theirs6, other6, ours6 = "2001:db8:f::2", "2001:db8:f::3", "2001:db8:f::1"
	answer := Uplink{IfIndex: 3, Only: true}
	x, flows := policyNode(t, func(*PolicyPacket) Uplink { return answer })
	x.underlay.net.node(addr(other6))
	ls := x.locals.Load().locals
	ls[0].Up = false // interface 3 has IPv6 only
	require.NoError(t, x.SetLocals(ls))
	m := mapcache.Mapping{Key: mapcache.Key{Prefix: prefix(eidB4 + "/32")}, TTL: mapcache.TTLForever}
	for i, a := range []string{theirs1, other6, theirs6, theirs2} {
		m.RLOCs = append(m.RLOCs, mapcache.RLOC{Locator: mapcache.Locator{Addr: addr(a)}, Priority: uint8(1 + i), Weight: 1})
	}
	x.insert(t, m)
	b := packetSpec{src: eidA4, dst: eidB4, sport: 1, dport: 7}.build()
	x.SetPairs([]mapcache.Pair{pairOf(ours6, other6, mapcache.PairDown)})
	assert.Equal(t, []string{ours6 + ">" + theirs6}, flows(b))
	e := newEgress(x.Forwarder)
	e.begin()
	var p inner
	require.Equal(t, DropNone, parseInner(b, &p))
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		d := e.view.Forward(0, p.dst, 5)
		_, _, _, _ = e.route(x.overlays[0], &p, 5, &d)
	}))
	x.SetPairs([]mapcache.Pair{pairOf(ours6, theirs6, mapcache.PairDown)})
	assert.Empty(t, flows(b), "none is left")
	assert.EqualValues(t, 1, x.Stats().Drops[DropPolicy])

	answer.IfIndex = 4 // which has IPv4 only: the best of all does not answer it, the last does
	x.SetPairs([]mapcache.Pair{pairOf(ours2, theirs1, mapcache.PairDown)})
	assert.Equal(t, []string{ours2 + ">" + theirs2}, flows(b))
	answer.Only = false
	x.SetPairs([]mapcache.Pair{pairOf(ours2, theirs2, mapcache.PairDown)})
	assert.Len(t, flows(b), 1, "by another uplink, or by this one as a last resort")
	assert.EqualValues(t, 1, x.Stats().PolicyFallbacks)
}

// TestReadMarked: packets of a further device have its mark, also those that
// waited for a mapping.
func TestReadMarked(t *testing.T) {
	marks := make(chan Mark, 8)
	n := &memNet{}
	x := newA(t, n, "", func(c *nodeConfig) {
		c.change = func(c *Config) {
			c.Policy = func(p *PolicyPacket) Uplink {
				marks <- p.Mark
				return Uplink{}
			}
		}
	})
	x.run(t)
	b := packetSpec{src: eidA4, dst: eidB4, sport: 1, dport: 7}.build()
	marked := newMemDevice("lmn0-1")
	ended := make(chan error, 1)
	go func() { ended <- x.ReadMarked(0, marked, Mark{Value: 7}) }()
	marked.send(b)
	require.Eventually(t, func() bool { return x.Stats().HeldNow == 1 }, waitTime, time.Millisecond)
	x.device.send(b)
	require.Eventually(t, func() bool { return x.Stats().HeldNow == 2 }, waitTime, time.Millisecond)
	x.learn(t, 0, eidB4+"/32", theirs1)
	assert.Equal(t, Mark{Value: 7}, <-marks, "it was held")
	assert.Equal(t, Mark{}, <-marks)
	marked.send(b)
	assert.Equal(t, Mark{Value: 7}, <-marks)
	require.NoError(t, marked.Close())
	require.NoError(t, <-ended)
	assert.ErrorContains(t, x.ReadMarked(9, marked, Mark{}), "instance 9")
	bad := &failingDevice{Device: newMemDevice("bad"), err: os.ErrInvalid}
	assert.ErrorIs(t, x.ReadMarked(0, bad, Mark{}), os.ErrInvalid)
}

// failingDevice is a Device that cannot be read.
type failingDevice struct {
	Device
	err error
}

func (d *failingDevice) Read([][]byte, []int, int) (int, error) { return 0, d.err }

// TestPolicyDoesNotAllocate: whatever it answers.
func TestPolicyDoesNotAllocate(t *testing.T) {
	var answer Uplink
	x, _ := policyNode(t, func(*PolicyPacket) Uplink { return answer })
	x.underlay.net.nodes = nil
	e := newEgress(x.Forwarder)
	var p inner
	b := packetSpec{src: eidA4, dst: eidB4, sport: 1, dport: 7}.build()
	require.Equal(t, DropNone, parseInner(b, &p))
	e.begin()
	for _, answer = range []Uplink{{}, {IfIndex: 3}, {IfIndex: 4}, {IfIndex: 5}, {IfIndex: 5, Only: true}} {
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			d := e.view.Forward(0, p.dst, 5)
			_, _, _, _ = e.route(x.overlays[0], &p, 5, &d)
		}), "%+v", answer)
	}
	d := mapcache.Decision{Verdict: mapcache.Drop, Action: lisp.ActionDropPolicyDenied}
	e.decided(x.overlays[0], append(make([]byte, Headroom), b...), &p, 5, &d)
	assert.Zero(t, x.Stats().Drops[DropPolicy], "what the mapping drops the policy is not asked about")
}

// TestPolicyNative: what is not for an EID leaves by the uplink that the policy
// says too, if the NativeSender can be told.
func TestPolicyNative(t *testing.T) {
	var answer Uplink
	native := &uplinkNative{memNative: memNative{mtu: 1500}}
	x := newA(t, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(c *Config) {
			c.Policy = func(*PolicyPacket) Uplink { return answer }
			c.Native = native
		}
	})
	x.insert(t, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix("198.51.100.0/24")}, Action: lisp.ActionNativelyForward, TTL: mapcache.TTLForever,
	})
	b := packetSpec{src: eidA4, dst: "198.51.100.1", payloadLen: 2000}.build() // which is cut
	for _, tc := range []struct {
		name             string
		answer           Uplink
		by, sent         int
		drops, fallbacks uint64
	}{
		{name: "no opinion", sent: 2},
		{name: "an uplink", answer: Uplink{IfIndex: 4, Only: true}, by: 2},
		{name: "not usable", answer: Uplink{IfIndex: 5}, sent: 2, fallbacks: 3},
		{name: "not usable, dropped", answer: Uplink{IfIndex: 5, Only: true}, drops: 1},
		{name: "dropped", answer: Uplink{Drop: true}, drops: 1},
	} {
		answer, native.by, native.sent = tc.answer, nil, nil
		before := x.Stats()
		x.push(b)
		after := x.Stats()
		assert.Len(t, native.by, tc.by, tc.name)
		assert.Len(t, native.sent, tc.sent, tc.name)
		assert.Equal(t, tc.drops, after.Drops[DropPolicy]-before.Drops[DropPolicy], tc.name)
		assert.Equal(t, tc.fallbacks, after.PolicyFallbacks-before.PolicyFallbacks, "%s: the whole and its parts", tc.name)
	}

	plain := newA(t, &memNet{}, "", func(c *nodeConfig) {
		c.change = func(c *Config) { c.Policy = func(*PolicyPacket) Uplink { return Uplink{IfIndex: 4} } }
	})
	plain.insert(t, mapcache.Mapping{
		Key: mapcache.Key{Prefix: prefix("198.51.100.0/24")}, Action: lisp.ActionNativelyForward, TTL: mapcache.TTLForever,
	})
	plain.push(packetSpec{src: eidA4, dst: "198.51.100.1"}.build())
	assert.Len(t, plain.native.sent, 1)
	assert.EqualValues(t, 1, plain.Stats().PolicyFallbacks, "this one has no uplinks to choose from")
}

// uplinkNative is an UplinkSender with the interface 4.
type uplinkNative struct {
	memNative
	by [][]byte
}

func (n *uplinkNative) ForwardBy(ifIndex int, packet []byte) (int, error) {
	if ifIndex != 4 {
		return 0, ErrNoUplink
	}
	if len(packet) > n.mtu {
		return n.mtu, ErrTooBig
	}
	n.by = append(n.by, clone(packet))
	return 0, nil
}
