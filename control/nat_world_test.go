package control_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// natWorld is an xTR with any number of interfaces, a Map-Server and RTRs, in
// virtual time: Engine, mapserver.Server and natt.RTR step by step.
type natWorld struct {
	t      *testing.T
	net    *netsim.Network
	ms     *mapserver.Server
	rtrs   []*natt.RTR
	rtrAt  []*netsim.Interface
	rtrOn  []*netsim.Node
	msOn   *netsim.Node
	xtr    *control.Engine
	node   *netsim.Node
	events []control.Event
	sent   []netsim.Record // by the xTR
	pings  int
	deaf   bool // the Map-Server ignores Info-Requests
	none   bool // it names no RTR
	busy   bool // it ignores Map-Registers that come directly
}

var (
	natStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	natMS    = netip.MustParseAddr("198.51.100.1")
	natRTRs  = []netip.Addr{netip.MustParseAddr("198.51.100.11"), netip.MustParseAddr("198.51.100.12")}
	natKey   = lisp.Key{ID: 2, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("rtr")}
	natEID   = mapcache.HostKey(0, netip.MustParseAddr("192.0.2.1"))
	natXTRID = lisp.XTRID{15: 9}
	natLink  = netsim.Link{Latency: 5 * time.Millisecond}
	natSlow  = netsim.Link{Latency: 300 * time.Millisecond}
)

func newNATWorld(t *testing.T, change func(*control.Config)) *natWorld {
	t.Helper()
	w := &natWorld{t: t}
	w.net = netsim.New(netsim.Config{Seed: 1, Start: natStart, Trace: func(r netsim.Record) {
		if r.Kind == netsim.Sent && r.Where == "xtr" {
			r.Bytes = append([]byte(nil), r.Bytes...)
			w.sent = append(w.sent, r)
		}
	}})
	cfg := control.Config{
		Database:     []control.DatabaseMapping{{Key: natEID, TTL: 10 * time.Minute}},
		MapServers:   []control.MapServer{{Addr: netip.AddrPortFrom(natMS, 0), Key: runKey}},
		MapResolvers: []netip.AddrPort{netip.AddrPortFrom(natMS, 0)},
		XTRID:        natXTRID, SiteID: 5,
		NAT:  control.NATConfig{Enable: true},
		Rand: rand.NewChaCha8([32]byte{3}),
	}
	if change != nil {
		change(&cfg)
	}
	nat := mapserver.NAT{LispersNet: cfg.NAT.Variant == natt.LispersNet}
	for i, a := range natRTRs {
		nat.RTRs = append(nat.RTRs, mapserver.RTR{Addr: a, Key: natKey})
		variant := cfg.NAT.Variant
		if variant == natt.LispersNet {
			variant = natt.Draft19
		}
		r, err := natt.NewRTR(natt.RTRConfig{
			MapServers: []natt.RTRMapServer{{Addr: natMS, Key: natKey, Variant: variant}}, RLOCs: []netip.Addr{a},
			Rand: rand.NewChaCha8([32]byte{4, byte(i)}), LispersNet: cfg.NAT.Variant == natt.LispersNet,
		})
		require.NoError(t, err)
		nd := w.net.AddNode("rtr")
		l := natLink
		l.Latency += time.Duration(i) * 5 * time.Millisecond // the first is the nearest
		w.rtrAt = append(w.rtrAt, nd.AddInterface(w.net.Internet(), l, a))
		nd.Attach(r)
		w.rtrs, w.rtrOn = append(w.rtrs, r), append(w.rtrOn, nd)
	}
	var err error
	w.ms, err = mapserver.New(mapserver.Config{
		Rand: rand.NewChaCha8([32]byte{2}), NAT: nat,
		Sites: []mapserver.Site{{Name: "lab", Keys: []lisp.Key{runKey}, Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), AcceptMoreSpecifics: true},
			{Prefix: netip.MustParsePrefix("2001:db8::/32"), AcceptMoreSpecifics: true},
		}}},
	})
	require.NoError(t, err)
	ms := w.net.AddNode("ms")
	ms.AddInterface(w.net.Internet(), natLink, natMS)
	ms.Attach(natServer{w.ms, w})
	w.msOn = ms

	w.xtr, err = control.New(cfg)
	require.NoError(t, err)
	w.node = w.net.AddNode("xtr")
	w.node.AfterStep(func(time.Time) {
		w.xtr.Publish()
		for ev, ok := w.xtr.NextEvent(); ok; ev, ok = w.xtr.NextEvent() {
			w.events = append(w.events, ev)
		}
	})
	w.node.Attach(w.xtr)
	w.node.Attach(pingCore{w})
	return w
}

// natServer is a Map-Server, with NAT traversal or without.
type natServer struct {
	*mapserver.Server
	w *natWorld
}

func (s natServer) Handle(now time.Time, d lisp.Datagram) bool {
	switch t := lisp.TypeOf(d.Bytes); {
	case s.w.deaf && t == lisp.TypeInfo, s.w.busy && t == lisp.TypeMapRegister:
		return true
	}
	return s.Server.Handle(now, d)
}

func (s natServer) Next() (lisp.Datagram, bool) {
	d, ok := s.Server.Next()
	var m lisp.InfoReply
	if !ok || !s.w.none || m.DecodeFromBytes(d.Bytes) != nil {
		return d, ok
	}
	n, err := m.Traversal()
	require.NoError(s.w.t, err)
	n.RTRs = nil
	m.NAT, err = lisp.LCAFAddress(n)
	require.NoError(s.w.t, err)
	d.Bytes, err = m.AppendSigned(nil, runKey)
	require.NoError(s.w.t, err)
	return d, true
}

// pingCore counts what stands for data that has arrived.
type pingCore struct{ w *natWorld }

func (p pingCore) Handle(_ time.Time, d lisp.Datagram) bool {
	if d.Local.Port() == lisp.DataPort {
		p.w.pings++
	}
	return true
}
func (pingCore) Advance(time.Time)           {}
func (pingCore) Deadline() time.Time         { return time.Time{} }
func (pingCore) Next() (lisp.Datagram, bool) { return lisp.Datagram{}, false }

// behind adds an interface behind a NAT of its own.
func (w *natWorld) behind(name string, public, local netip.Addr, cfg netsim.NATConfig) (*netsim.NAT, *netsim.Interface) {
	nat := w.net.AddNAT(name, w.net.Internet(), natLink, public, cfg)
	return nat, w.node.AddInterface(nat.Inside(), netsim.Link{}, local)
}

// locals tells the xTR of its interfaces, all of them with priority 1.
func (w *natWorld) locals(up ...*netsim.Interface) {
	var ls []mapcache.Local
	for _, i := range up {
		for _, a := range i.Addrs() {
			ls = append(ls, mapcache.Local{IfIndex: i.Index(), Addr: a, Priority: 1, Weight: 100, Up: true})
		}
	}
	w.node.Step(func(now time.Time) { w.xtr.SetLocals(now, ls) })
}

// registered is what the Map-Server has for k, locators only.
func (w *natWorld) registered(k mapcache.Key) map[string]lisp.RLOCRecord {
	out := map[string]lisp.RLOCRecord{}
	for _, r := range w.ms.Registrations(w.net.Now()) {
		if r.IID != k.IID || r.EID != k.Prefix {
			continue
		}
		for _, l := range r.RLOCs {
			out[l.RLOC.String()] = l
		}
	}
	return out
}

func (w *natWorld) texts() (out []string) {
	bs := w.xtr.Bindings()
	for i := range bs {
		out = append(out, bs[i].Text(w.node.Now()))
	}
	return out
}

// reachable reports whether RTR i gets something to our EID through the NATs, by
// each of its relays.
func (w *natWorld) reachable(i int) bool {
	relays := w.rtrs[i].Relays()
	before := w.pings
	for _, r := range relays {
		w.rtrOn[i].Send(lisp.Datagram{
			Local: netip.AddrPortFrom(natRTRs[i], lisp.ControlPort), Remote: r.Global, Bytes: []byte{8, 0, 0, 0, 0, 0, 1, 0},
		})
	}
	w.net.Run(time.Second)
	return len(relays) > 0 && w.pings == before+len(relays)
}

// forward is what becomes of a packet to a.
func (w *natWorld) forward(a string) mapcache.Decision {
	return w.xtr.Cache().View().Forward(0, netip.MustParseAddr(a), 1)
}

func (w *natWorld) sentTypes() map[lisp.Type]int {
	out := map[lisp.Type]int{}
	for _, r := range w.sent {
		out[lisp.TypeOf(r.Bytes)]++
	}
	return out
}

// eventsOf are the texts of what has been told of type E.
func eventsOf[E control.Event](w *natWorld) (out []string) {
	for _, ev := range w.events {
		if e, ok := ev.(E); ok {
			out = append(out, e.String())
		}
	}
	return out
}

// TestNATBehind: the node registers by the RTR, all it sends goes there, and it is
// reached.
func TestNATBehind(t *testing.T) {
	for _, v := range []natt.Variant{natt.Draft19, natt.Old} {
		w := newNATWorld(t, func(c *control.Config) { c.NAT.Variant = v })
		_, in := w.behind("nat", netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("10.0.0.2"), netsim.NATConfig{Kind: netsim.Symmetric})
		w.locals(in)
		assert.Equal(t, []string{"detecting"}, w.texts())
		assert.Equal(t, mapcache.Miss, w.forward("192.0.2.9").Verdict)
		w.net.Run(time.Second)

		require.Equal(t, natt.Registered, w.xtr.Bindings()[0].State, w.texts())
		r := w.xtr.Registrations()[0]
		assert.Equal(t, control.StateRegistered, r.State)
		assert.Equal(t, natRTRs[0], r.RTR)
		got := w.registered(natEID)
		require.Len(t, got, 1)
		l := got[natRTRs[0].String()]
		assert.True(t, l.Reachable) // nat19-5.1.1-s1
		assert.False(t, l.Local)
		assert.True(t, w.reachable(0))

		// nat19-5.1.1-s3 nat19i-5.1.1-3 nat19-5.1.3-1 nat19i-3.1-1: everything to the RTR, from one port.
		for _, a := range []string{"192.0.2.9", "8.8.8.8", "2001:db8::1"} {
			d := w.forward(a)
			assert.Equal(t, mapcache.Encapsulate, d.Verdict, a)
			assert.Equal(t, natRTRs[0], d.Locator.Addr)
			assert.True(t, d.Locator.NAT) // nat19-5.1.3-2 nat19i-5.6-1
		}
		w.node.Step(func(now time.Time) {
			w.xtr.Resolve(now, []mapcache.Key{mapcache.HostKey(0, netip.MustParseAddr("192.0.2.9"))})
		})
		w.net.Run(10 * time.Minute)
		assert.True(t, w.reachable(0))
		assert.Zero(t, w.sentTypes()[lisp.TypeMapRequest]) // neither asked for nor probed: nat19i-5.1.2-3
		assert.Zero(t, w.sentTypes()[lisp.TypeMapRegister])
		assert.Equal(t, []string{"registered 192.0.2.1/32 at 198.51.100.11 with Map-Server 198.51.100.1 in " + r.RTT.Round(time.Millisecond).String()},
			eventsOf[control.Registered](w))
		assert.Len(t, eventsOf[control.NATChanged](w), 2)

		w.checkRegisters(v)
		w.node.Step(w.xtr.Withdraw)
		w.net.Run(time.Second)
		assert.True(t, w.xtr.WithdrawDone())
		assert.Empty(t, w.registered(natEID))
	}
}

// lastRegister is the last Map-Register sent by an RTR.
func (w *natWorld) lastRegister() lisp.MapRegister {
	all := w.registersByRTR()
	return all[len(all)-1]
}

// registersByRTR are the Map-Registers sent by RTRs.
func (w *natWorld) registersByRTR() (out []lisp.MapRegister) {
	for _, r := range w.sent {
		var ecm lisp.EncapsulatedControl
		var m lisp.MapRegister
		if ecm.DecodeFromBytes(r.Bytes) != nil {
			continue
		}
		if in, err := ecm.Inner(); err == nil && m.UnmarshalBinary(in.Payload) == nil {
			out = append(out, m)
		}
	}
	return out
}

// checkRegisters looks at all Encapsulated Map-Registers.
func (w *natWorld) checkRegisters(v natt.Variant) {
	n := 0
	for _, r := range w.sent {
		var ecm lisp.EncapsulatedControl
		if ecm.DecodeFromBytes(r.Bytes) != nil {
			continue
		}
		in, err := ecm.Inner()
		require.NoError(w.t, err)
		var m lisp.MapRegister
		if m.DecodeFromBytes(in.Payload) != nil {
			continue
		}
		n++
		assert.Equal(w.t, uint16(lisp.DataPort), r.From.Port()) // nat19-4.3-s1
		assert.True(w.t, ecm.RTR)                               // nat19-5.1.1-s1
		assert.True(w.t, m.ProxyReply)                          // nat19-5.1.1-s1
		assert.True(w.t, m.WantMapNotify)                       // nat19-5.1.1-s1 nat19i-5.4-3
		assert.True(w.t, m.XTRIDPresent)                        // nat19i-5.1.1-1 nat19-4.3-1
		assert.Equal(w.t, natXTRID, m.XTRID)
		assert.Equal(w.t, lisp.SiteID(5), m.SiteID)
		assert.Equal(w.t, v == natt.Old, m.RTR)
	}
	assert.InDelta(w.t, 28, n, 4) // every 25 s or a little less, and two at the start
}
