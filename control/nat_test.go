package control_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

var (
	nat1, nat2     = netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.8")
	inner1, inner2 = netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("192.168.1.2")
	public1        = netip.MustParseAddr("203.0.113.99")
	symmetric      = netsim.NATConfig{Kind: netsim.Symmetric, Timeout: 30 * time.Second}
)

// TestNATPublic: without a NAT it is all as ever.
func TestNATPublic(t *testing.T) {
	w := newNATWorld(t, nil)
	w.locals(w.node.AddInterface(w.net.Internet(), natLink, public1))
	w.net.Run(5 * time.Minute)
	assert.Equal(t, []string{"public"}, w.texts())
	got := w.registered(natEID)
	require.Len(t, got, 1)
	assert.Contains(t, got, public1.String())
	assert.Equal(t, 1, w.sentTypes()[lisp.TypeInfo])
	types := []lisp.Type{lisp.TypeOf(w.sent[0].Bytes), lisp.TypeOf(w.sent[1].Bytes)}
	assert.ElementsMatch(t, []lisp.Type{lisp.TypeInfo, lisp.TypeMapRegister}, types, "asked, and not waited for")
	assert.LessOrEqual(t, w.sent[1].At.Sub(w.sent[0].At), time.Millisecond)
	assert.Equal(t, mapcache.Miss, w.forward("192.0.2.9").Verdict)
	assert.False(t, w.xtr.Registrations()[0].RTR.IsValid())
}

// TestNATMixed: one interface is public, one behind a NAT. Both are announced, what
// is asked for names the public one only, and there is no default to the RTR.
func TestNATMixed(t *testing.T) {
	w := newNATWorld(t, nil)
	_, in := w.behind("nat", nat1, inner1, symmetric)
	out := w.node.AddInterface(w.net.Internet(), natLink, public1)
	w.locals(in, out)
	w.net.Run(10 * time.Second)
	got := w.registered(natEID)
	require.Len(t, got, 2, "%v", w.texts()) // nat19-5.4-1 nat19i-5.4-4
	assert.True(t, got[natRTRs[0].String()].Reachable)
	assert.True(t, got[public1.String()].Reachable)
	assert.NotEqual(t, natRTRs[0], w.forward("192.0.2.9").Locator.Addr)

	before := len(w.sent)
	w.node.Step(func(now time.Time) {
		w.xtr.Resolve(now, []mapcache.Key{mapcache.HostKey(0, netip.MustParseAddr("192.0.2.9"))})
	})
	w.net.Run(time.Second)
	asked := 0
	for _, r := range w.sent[before:] {
		var ecm lisp.EncapsulatedControl
		var m lisp.MapRequest
		if ecm.DecodeFromBytes(r.Bytes) != nil {
			continue
		}
		in, err := ecm.Inner()
		require.NoError(t, err)
		if m.DecodeFromBytes(in.Payload) == nil {
			asked++
			assert.Equal(t, public1, r.From.Addr())
			assert.Equal(t, []lisp.Address{lisp.AddressFrom(public1)}, m.ITRRLOCs) // nat19-5.1.2-s1
		}
	}
	assert.Equal(t, 1, asked)
	direct := w.sentTypes()[lisp.TypeMapRegister]
	w.net.Run(time.Hour)
	assert.InDelta(t, direct+65, w.sentTypes()[lisp.TypeMapRegister], 15, "every minute")
	assert.True(t, w.reachable(0))
	require.Len(t, w.registered(natEID), 2)
	registers := w.xtr.Stats().MapRegistersSent
	w.locals(in, out)
	assert.Equal(t, registers, w.xtr.Stats().MapRegistersSent, "that is no news")

	// The public one goes: everything by the RTR, without the mappings that can't
	// be asked for any more.
	w.locals(in)
	w.net.Run(time.Second)
	assert.Equal(t, natRTRs[0], w.forward("192.0.2.9").Locator.Addr)
	got = w.registered(natEID)
	require.Len(t, got, 1)
	assert.Contains(t, got, natRTRs[0].String())

	// And it comes back.
	w.locals(in, out)
	w.net.Run(time.Second)
	assert.NotEqual(t, natRTRs[0], w.forward("192.0.2.9").Locator.Addr)
	assert.Len(t, w.registered(natEID), 2)
}

// TestNATTwice: two interfaces behind NATs of their own, by the same RTR, which is
// told of both to divide traffic among them.
func TestNATTwice(t *testing.T) {
	w := newNATWorld(t, nil)
	_, in1 := w.behind("nat1", nat1, inner1, symmetric)
	_, in2 := w.behind("nat2", nat2, inner2, netsim.NATConfig{Kind: netsim.PortRestricted, Timeout: 30 * time.Second})
	w.locals(in1, in2)
	w.net.Run(time.Minute)
	bs := w.xtr.Bindings()
	require.Len(t, bs, 2)
	for _, b := range bs {
		assert.Equal(t, natt.Registered, b.State) // nat19-5.4-s1 nat19i-5.4-1
		assert.Equal(t, natRTRs[0], b.RTR)
	}
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	said := w.lastRegister().Records[0].Locators
	require.Len(t, said, 3)
	for _, l := range said {
		ip, _ := l.RLOC.IP()
		assert.Equal(t, ip == natRTRs[0], l.Reachable)                   // nat19i-5.3-1
		assert.Contains(t, []netip.Addr{natRTRs[0], inner1, inner2}, ip) // nat19i-5.3-1
	}
	require.Len(t, w.rtrs[0].Relays(), 2)
	assert.True(t, w.reachable(0))
	d := w.forward("8.8.8.8")
	assert.Equal(t, natRTRs[0], d.Locator.Addr)
	assert.NotZero(t, d.Locator.IfIndex)

	// One goes: the RTR forgets it at once.
	w.locals(in2)
	w.net.Run(time.Second)
	require.Len(t, w.rtrs[0].Relays(), 1)
	assert.Equal(t, inner2, w.rtrs[0].Relays()[0].Local)
	assert.Len(t, w.registered(natEID), 1)
	assert.True(t, w.reachable(0))
}

// TestNATFailover: the RTR dies. Within two keep-alives another is registered, all
// goes there, and who talked with us is told.
func TestNATFailover(t *testing.T) {
	w := newNATWorld(t, nil)
	_, in := w.behind("nat", nat1, inner1, symmetric)
	w.locals(in)
	w.net.Run(time.Minute)
	w.rtrAt[0].SetDown(true)
	w.node.Step(func(now time.Time) {
		w.xtr.AddUsage(now, mapcache.Usage{Locator: mapcache.Locator{Addr: natRTRs[0]}, PacketsOut: 1})
	})
	before := len(w.sent)
	w.net.Run(50 * time.Second)
	require.Equal(t, natRTRs[1], w.xtr.Bindings()[0].RTR, w.texts())
	assert.Contains(t, w.registered(natEID), natRTRs[1].String())
	assert.Len(t, w.registered(natEID), 1)
	assert.Equal(t, natRTRs[1], w.forward("8.8.8.8").Locator.Addr)
	assert.True(t, w.reachable(1))
	smrs := 0
	for _, r := range w.sent[before:] {
		var m lisp.MapRequest
		if m.DecodeFromBytes(r.Bytes) == nil && m.SMR {
			smrs++
			assert.Equal(t, []lisp.Address{lisp.AddressFrom(natRTRs[1])}, m.ITRRLOCs)
			assert.Equal(t, inner1, r.From.Addr())
		}
	}
	assert.NotZero(t, smrs)
	assert.Equal(t, natRTRs[1], w.xtr.Registrations()[0].RTR)

	// The Map-Server takes the RTRs' word for it, but not anybody's: no RTR is left.
	w.rtrAt[1].SetDown(true)
	w.net.Run(2 * time.Minute)
	assert.Equal(t, control.StateUnanswered, w.xtr.Registrations()[0].State)
	assert.Contains(t, w.xtr.Registrations()[0].LastError, "RTR 198.51.100.12 is silent")
	w.rtrAt[0].SetDown(false)
	w.net.Run(time.Minute)
	assert.Equal(t, control.StateRegistered, w.xtr.Registrations()[0].State)
	assert.Contains(t, w.registered(natEID), natRTRs[0].String())
}

// TestNATMoves: from the public Internet behind a NAT, to another one with the
// same inside address, and back.
func TestNATMoves(t *testing.T) {
	w := newNATWorld(t, nil)
	i := w.node.AddInterface(w.net.Internet(), natLink, public1)
	w.locals(i)
	w.net.Run(time.Minute)
	require.Contains(t, w.registered(natEID), public1.String())

	n1 := w.net.AddNAT("nat1", w.net.Internet(), natLink, nat1, symmetric)
	i.Move(n1.Inside(), inner1)
	w.locals(i)
	w.net.Run(time.Second)
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	assert.True(t, w.reachable(0))

	// Nothing tells the node of this one but the mapping.
	n2 := w.net.AddNAT("nat2", w.net.Internet(), natLink, nat2, netsim.NATConfig{})
	i.Move(n2.Inside(), inner1)
	w.net.Run(25*time.Second + 500*time.Millisecond)
	assert.True(t, w.reachable(0))
	assert.Equal(t, nat2, w.xtr.Bindings()[0].Global.Addr())

	i.Move(w.net.Internet(), public1)
	w.locals(i)
	w.net.Run(time.Second)
	assert.Equal(t, []string{public1.String()}, keysOf(w.registered(natEID)))
	assert.Equal(t, []string{"public"}, w.texts())
	assert.Equal(t, mapcache.Miss, w.forward("192.0.2.9").Verdict)
}

func keysOf(m map[string]lisp.RLOCRecord) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// TestNATNotCapable: a Map-Server that answers no Info-Request is registered with
// all the same by a public address, and by a private one it is said why not.
func TestNATNotCapable(t *testing.T) {
	for _, local := range []netip.Addr{public1, inner1} {
		w := newNATWorld(t, nil)
		w.deaf = true
		w.locals(w.node.AddInterface(w.net.Internet(), natLink, local))
		w.net.Run(15 * time.Second)
		r := w.xtr.Registrations()[0]
		if local == public1 {
			assert.Equal(t, []string{"Info-Request unanswered: the Map-Server is not NAT-capable, but takes our Map-Registers, announced directly meanwhile"}, w.texts())
			assert.Equal(t, control.StateRegistered, r.State)
			continue
		}
		const why = "Info-Request unanswered: Map-Server unreachable or not NAT-capable, or it refuses our key or EID-Prefix (check both, and its log)"
		assert.Equal(t, []string{why}, w.texts())
		assert.Equal(t, control.StateIdle, r.State)
		assert.Equal(t, why, r.LastError)
	}
}

// TestNATConfig: without an xTR-ID nothing can be told apart.
func TestNATConfig(t *testing.T) {
	_, err := control.New(control.Config{NAT: control.NATConfig{Enable: true}})
	assert.ErrorIs(t, err, control.ErrConfig)
	_, err = control.New(control.Config{XTRID: natXTRID, NAT: control.NATConfig{Enable: true, KeepAlive: time.Millisecond}})
	assert.ErrorIs(t, err, control.ErrConfig)
}

// TestNATDatabase: what is added is registered by the RTR, what is removed is
// withdrawn by it.
func TestNATDatabase(t *testing.T) {
	w := newNATWorld(t, nil)
	_, in := w.behind("nat", nat1, inner1, symmetric)
	w.locals(in)
	w.net.Run(time.Minute)
	second := mapcache.HostKey(0, netip.MustParseAddr("192.0.2.2"))
	w.node.Step(func(now time.Time) {
		require.NoError(t, w.xtr.SetDatabase(now, []control.DatabaseMapping{{Key: natEID}, {Key: second}}))
	})
	w.net.Run(time.Second)
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(second)))
	w.node.Step(func(now time.Time) {
		require.NoError(t, w.xtr.SetDatabase(now, []control.DatabaseMapping{{Key: second}}))
	})
	w.net.Run(time.Second)
	assert.Empty(t, w.registered(natEID))
	assert.Len(t, w.registered(second), 1)
	assert.Len(t, w.xtr.Registrations(), 1)
}

// TestNATDualStack: IPv6 is public, but the Map-Server and the Map-Resolver have
// IPv4 only, and that is behind a NAT. Both are announced, and since nothing can be
// asked for it all goes to the RTR.
func TestNATDualStack(t *testing.T) {
	six := netip.MustParseAddr("2001:db8:6::1")
	w := newNATWorld(t, nil)
	_, in := w.behind("nat", nat1, inner1, symmetric)
	w.locals(in, w.node.AddInterface(w.net.Internet(), natLink, six))
	w.net.Run(10 * time.Second)
	assert.ElementsMatch(t, []string{six.String(), natRTRs[0].String()}, keysOf(w.registered(natEID)), w.texts())
	assert.Equal(t, natRTRs[0], w.forward("192.0.2.9").Locator.Addr)
	assert.Equal(t, "no Map-Server of this address family, announced directly meanwhile", w.texts()[1])
	r := w.xtr.Registrations()[0]
	assert.Equal(t, control.StateRegistered, r.State)
	assert.Empty(t, r.LastError)
	w.net.Run(10 * time.Minute)
	assert.True(t, w.reachable(0))
	assert.Equal(t, control.StateRegistered, w.xtr.Registrations()[0].State)

	// A Map-Resolver of IPv6 can be asked.
	w = newNATWorld(t, func(c *control.Config) {
		c.MapResolvers = append(c.MapResolvers, netip.MustParseAddrPort("[2001:db8:6::53]:4342"))
	})
	_, in = w.behind("nat", nat1, inner1, symmetric)
	w.locals(in, w.node.AddInterface(w.net.Internet(), natLink, six))
	w.net.Run(10 * time.Second)
	assert.Equal(t, mapcache.Miss, w.forward("192.0.2.9").Verdict)
	assert.Len(t, w.registered(natEID), 2)
}

// TestNATLoss: a fifth of everything is lost. The node is reached nearly always,
// and registered all the time.
func TestNATLoss(t *testing.T) {
	w := newNATWorld(t, nil)
	lossy := natLink
	lossy.Loss = 0.1 // and as much again on the next link
	nat := w.net.AddNAT("nat", w.net.Internet(), lossy, nat1, netsim.NATConfig{Kind: netsim.PortRestricted, Timeout: 30 * time.Second})
	in := w.node.AddInterface(nat.Inside(), lossy, inner1)
	w.locals(in)
	w.net.Run(time.Minute)
	without := 0
	for range 120 {
		w.net.Run(30 * time.Second)
		if len(w.registered(natEID)) != 1 {
			without++
		}
	}
	assert.Zero(t, without)
	assert.Less(t, len(eventsOf[control.NATChanged](w)), 60)
}

// TestNATMute: a Map-Server that answers no Info-Request is not waited for by a
// public address, nor by the next one.
func TestNATMute(t *testing.T) {
	w := newNATWorld(t, nil)
	w.deaf = true
	i := w.node.AddInterface(w.net.Internet(), natLink, public1)
	w.locals(i)
	w.net.Run(50 * time.Millisecond)
	assert.Equal(t, []string{"detecting, announced directly meanwhile"}, w.texts())
	assert.Equal(t, control.StateRegistered, w.xtr.Registrations()[0].State)
	w.net.Run(13 * time.Second)
	assert.Equal(t, natt.Unanswered, w.xtr.Bindings()[0].State)
	assert.Len(t, eventsOf[control.Registered](w), 1, "that is no news")

	next := netip.MustParseAddr("203.0.113.98")
	i.SetAddrs(next)
	w.locals(i)
	w.net.Run(50 * time.Millisecond)
	assert.Equal(t, []string{next.String()}, keysOf(w.registered(natEID)))
}

// TestNATMuteAlways: who is to be seen by an RTR only is not announced otherwise, but
// with a Map-Server that is known to answer no Info-Request there is nothing to wait for.
func TestNATMuteAlways(t *testing.T) {
	w := newNATWorld(t, func(c *control.Config) { c.NAT.Always = true })
	w.deaf = true
	i := w.node.AddInterface(w.net.Internet(), natLink, public1)
	w.locals(i)
	w.net.Run(11 * time.Second)
	assert.Zero(t, w.sentTypes()[lisp.TypeMapRegister])
	w.net.Run(2 * time.Second)
	assert.Equal(t, 1, w.sentTypes()[lisp.TypeMapRegister])
	i.SetAddrs(netip.MustParseAddr("203.0.113.98"))
	w.locals(i)
	w.net.Run(time.Millisecond)
	assert.Equal(t, 2, w.sentTypes()[lisp.TypeMapRegister])
}

// TestNATLikelyPublic: an address that looks public is behind a NAT all the same. It
// is registered until the Map-Server says so; then it goes by the RTR, and nothing of
// the address stays.
func TestNATLikelyPublic(t *testing.T) {
	all := natRTRs
	defer func() { natRTRs = all }()
	for _, natRTRs = range [][]netip.Addr{all, all[:1]} {
		checkLikelyPublic(t)
	}
}

func checkLikelyPublic(t *testing.T) {
	t.Helper()
	w := newNATWorld(t, nil)
	_, in := w.behind("nat", nat1, public1, symmetric)
	w.locals(in)
	assert.Equal(t, mapcache.Miss, w.forward("192.0.2.9").Verdict)
	w.net.Run(25 * time.Millisecond) // at the Map-Server, the Info-Reply is on its way
	assert.Equal(t, []string{public1.String()}, keysOf(w.registered(natEID)))
	w.net.Run(200 * time.Millisecond)
	require.Equal(t, natt.Registered, w.xtr.Bindings()[0].State, w.texts())
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	assert.Equal(t, natRTRs[0], w.forward("192.0.2.9").Locator.Addr)
	r := w.xtr.Registrations()[0]
	assert.Equal(t, control.StateRegistered, r.State)
	assert.Equal(t, natRTRs[0], r.RTR)
	assert.Equal(t, w.xtr.Bindings()[0].RTT, r.RTT)
	assert.Equal(t, 1, w.sentTypes()[lisp.TypeMapRegister])
	for _, m := range w.registersByRTR() {
		for _, l := range m.Records[0].Locators {
			assert.NotEqual(t, public1.String(), l.RLOC.String())
		}
	}
	w.net.Run(10 * time.Minute)
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	assert.Equal(t, 1, w.sentTypes()[lisp.TypeMapRegister])
	assert.True(t, w.reachable(0))
}

// TestNATWrongKey: a Map-Server that doesn't know our key says so by refusing the
// Map-Register, too.
func TestNATWrongKey(t *testing.T) {
	w := newNATWorld(t, func(c *control.Config) { c.MapServers[0].Key.Secret = []byte("a guess") })
	w.locals(w.node.AddInterface(w.net.Internet(), natLink, public1))
	w.net.Run(5 * time.Second)
	assert.NotZero(t, w.sentTypes()[lisp.TypeMapRegister])
	assert.Equal(t, "no Map-Notify", w.xtr.Registrations()[0].LastError)
	w.net.Run(10 * time.Second)
	assert.Contains(t, w.texts()[0], "or it refuses our key or EID-Prefix")
}

// TestNATReconfigure: the Map-Servers become others at run time. The new ones are asked
// whether there is a NAT, and the old ones no more.
func TestNATReconfigure(t *testing.T) {
	var cfg control.Config
	nobody := netip.MustParseAddrPort("198.51.100.77:4342")
	w := newNATWorld(t, func(c *control.Config) {
		cfg = *c
		c.MapServers = []control.MapServer{{Addr: nobody, Key: runKey}}
	})
	_, in := w.behind("nat", nat1, inner1, symmetric)
	w.locals(in)
	w.net.Run(20 * time.Second)
	require.Equal(t, natt.Unanswered, w.xtr.Bindings()[0].State)
	w.node.Step(func(now time.Time) { require.NoError(t, w.xtr.Reconfigure(now, cfg)) })
	before := len(w.sent)
	w.net.Run(2 * time.Minute)
	assert.Equal(t, natt.Registered, w.xtr.Bindings()[0].State, w.texts())
	assert.Equal(t, []string{natRTRs[0].String()}, keysOf(w.registered(natEID)))
	assert.True(t, w.reachable(0))
	for _, r := range w.sent[before:] {
		assert.NotEqual(t, nobody, r.To)
	}
}
