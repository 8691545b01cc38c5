package control_test

import (
	"context"
	"net"
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

var (
	allRLOC  = netip.MustParseAddr("203.0.113.9")
	allEID   = netip.MustParsePrefix("192.0.2.9/32")
	nodeEID  = netip.MustParsePrefix("192.0.2.33/32")
	natOut   = netip.MustParseAddr("198.51.100.7")
	nodeRLOC = netip.MustParseAddr("192.168.1.2")
)

// allInOne is a Map-Server, a Map-Resolver, an RTR and an xTR behind one port.
type allInOne struct {
	*node
	ms  *mapserver.Server
	rtr *natt.RTR
}

func (b *bubble) allInOne() *allInOne {
	b.t.Helper()
	key := lisp.Key{ID: 2, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("shared")}
	ms, err := mapserver.New(mapserver.Config{
		NAT:    mapserver.NAT{RTRs: []mapserver.RTR{{Addr: allRLOC, Key: key}}},
		Locals: []netip.Addr{allRLOC},
		Sites: []mapserver.Site{{Name: "lab", Keys: []lisp.Key{runKey}, Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), AcceptMoreSpecifics: true},
		}}},
	})
	require.NoError(b.t, err)
	rtr, err := natt.NewRTR(natt.RTRConfig{MapServers: []natt.RTRMapServer{{Addr: allRLOC, Key: key}}})
	require.NoError(b.t, err)
	self := netip.AddrPortFrom(allRLOC, 0)
	e, err := control.New(control.Config{
		Database:     []control.DatabaseMapping{{Key: mapcache.Key{Prefix: allEID}}},
		MapServers:   []control.MapServer{{Addr: self, Key: runKey}},
		MapResolvers: []netip.AddrPort{self},
	})
	require.NoError(b.t, err)
	n := &node{engine: e, plane: newPlane(e), events: &eventLog{}}
	n.Runner = b.run(control.RunnerConfig{
		Conn: b.conn("all", allRLOC), Engine: e, Dataplane: n.plane, OnEvent: n.events.add,
		Cores:     map[control.Role]control.Core{control.RoleMapServer: ms, control.RoleRTR: rtr},
		NewWorker: func() control.Worker { return ms.NewWorker() },
	})
	n.SetLocals(time.Now(), []mapcache.Local{{Addr: allRLOC, Priority: 1, Weight: 100, Up: true}})
	return &allInOne{n, ms, rtr}
}

// forward is what the data plane does with a packet to a.
func (n *node) forward(a netip.Addr) mapcache.Decision {
	return n.engine.Cache().View().Forward(0, a, 0)
}

// encapsulatedRegister is what a node behind a NAT sends to the RTR.
func encapsulatedRegister(t *testing.T, nonce lisp.Nonce, ttl uint32, rtr netip.Addr) []byte {
	t.Helper()
	m := lisp.MapRegister{
		ProxyReply: true, XTRIDPresent: true, WantMapNotify: true, Nonce: nonce, XTRID: lisp.XTRID{15: 1},
		Records: []lisp.EIDRecord{{TTL: ttl, MaskLen: 32, EID: lisp.AddressFrom(nodeEID.Addr()), Locators: []lisp.RLOCRecord{
			{Priority: 1, Weight: 100, MPriority: 255, Reachable: true, RLOC: lisp.AddressFrom(rtr)},
			{Priority: 1, Weight: 100, MPriority: 255, Local: true, RLOC: lisp.AddressFrom(nodeRLOC)},
		}}},
	}
	msg, err := m.AppendSigned(nil, runKey)
	require.NoError(t, err)
	packet, err := lisp.AppendInner(nil, lisp.Inner{
		Source: netip.AddrPortFrom(nodeRLOC, 4342), Destination: netip.AddrPortFrom(allRLOC, 4342), Payload: msg,
	})
	require.NoError(t, err)
	b, err := (&lisp.EncapsulatedControl{RTR: true, Packet: packet}).MarshalBinary()
	require.NoError(t, err)
	return b
}

// asker is an ITR with that Map-Resolver.
func (b *bubble) asker(resolver netip.Addr) *node {
	b.t.Helper()
	e, err := control.New(control.Config{MapResolvers: []netip.AddrPort{netip.AddrPortFrom(resolver, 0)}})
	require.NoError(b.t, err)
	n := &node{engine: e, plane: newPlane(e), events: &eventLog{}}
	n.Runner = b.run(control.RunnerConfig{Conn: b.conn("asker", rlocA), Engine: e, Dataplane: n.plane, OnEvent: n.events.add})
	n.SetLocals(time.Now(), []mapcache.Local{{Addr: rlocA, Priority: 1, Weight: 100, Up: true}})
	return n
}

// registerDirectly registers an EID-Prefix at rloc with the Map-Server of allInOne.
func (b *bubble) registerDirectly(rloc netip.Addr, eid netip.Prefix) {
	b.t.Helper()
	m := lisp.MapRegister{
		ProxyReply: true, XTRIDPresent: true, Nonce: 1, XTRID: lisp.XTRID{15: 2},
		Records: []lisp.EIDRecord{{TTL: 10, MaskLen: uint8(eid.Bits()), EID: lisp.AddressFrom(eid.Addr()), Locators: []lisp.RLOCRecord{
			{Priority: 1, Weight: 100, MPriority: 255, Reachable: true, Local: true, RLOC: lisp.AddressFrom(rloc)},
		}}},
	}
	msg, err := m.AppendSigned(nil, runKey)
	require.NoError(b.t, err)
	b.net.Do(func() { b.net.Inject(netip.AddrPortFrom(rloc, 4342), netip.AddrPortFrom(allRLOC, 4342), msg) })
}

// TestAllInOne: a Map-Server, an RTR and an xTR in one process. A node behind a
// symmetric NAT registers through it; what the mapping system says of the node,
// which is to ask this RTR, takes nothing away, and leads to no loop when the node
// has gone.
func TestAllInOne(t *testing.T) {
	inBubble(t, func(b *bubble) {
		all := b.allInOne()
		var nat *netsim.NAT
		var nd *netsim.Node
		b.net.Do(func() {
			nat = b.net.AddNAT("nat", b.net.Internet(), b.link, natOut, netsim.NATConfig{Kind: netsim.Symmetric})
			nd = b.net.AddNode("behind")
			nd.AddInterface(nat.Inside(), b.link, nodeRLOC)
		})
		pc, err := nd.ListenPacket(netip.AddrPortFrom(nodeRLOC, 4341))
		require.NoError(t, err)
		register := func(nonce lisp.Nonce, ttl uint32) netip.AddrPort {
			t.Helper()
			_, err := pc.WriteTo(encapsulatedRegister(t, nonce, ttl, allRLOC), net.UDPAddrFromAddrPort(netip.AddrPortFrom(allRLOC, 4342)))
			require.NoError(t, err)
			buf := make([]byte, 2000)
			require.NoError(t, pc.SetReadDeadline(time.Now().Add(time.Second)))
			n, from, err := pc.ReadFrom(buf)
			require.NoError(t, err, "%v", all.ms.History())
			h, err := lisp.ParseDataHeader(buf[:n])
			require.NoError(t, err)
			iid, _ := h.InstanceID()
			require.EqualValues(t, lisp.InstanceIDControl, iid)
			in, err := (&lisp.EncapsulatedControl{Packet: buf[lisp.DataHeaderLen:n]}).Inner()
			require.NoError(t, err)
			require.NoError(t, lisp.Verify(in.Payload, runKey))
			return from.(*net.UDPAddr).AddrPort()
		}
		time.Sleep(time.Second)
		assert.Contains(t, all.events.lines(), "registered 192.0.2.9/32", "its own EID, at itself")

		assert.Equal(t, netip.AddrPortFrom(allRLOC, 4342), register(1, 10))
		var rs []natt.Relay
		ctx := context.Background()
		require.NoError(t, all.Do(ctx, func(time.Time) { rs = all.rtr.Relays() }))
		require.Len(t, rs, 1)
		assert.Equal(t, natOut, rs[0].Global.Addr())
		assert.NotEqualValues(t, 4341, rs[0].Global.Port())
		want := mapcache.Locator{Addr: natOut, Port: rs[0].Global.Port(), NAT: true}
		d := all.forward(nodeEID.Addr())
		d.Locator.IfIndex = 0
		require.Equal(t, want, d.Locator)

		// Others are sent here.
		other := b.asker(allRLOC)
		other.plane.miss(nodeEID.Addr())
		require.NoError(t, all.Do(ctx, func(now time.Time) {
			all.engine.SetRelays(now, natt.RelayChange{Prefix: nodeEID, Relays: rs, Resolve: true})
		}))
		time.Sleep(5 * time.Second)
		d = all.forward(nodeEID.Addr())
		d.Locator.IfIndex = 0
		assert.Equal(t, want, d.Locator, "the mapping system has led back to us")

		// The binding is gone, and another one comes with the next registration.
		b.net.Do(nat.Flush)
		register(2, 10)
		time.Sleep(time.Second)
		d = all.forward(nodeEID.Addr())
		assert.NotEqual(t, want.Port, d.Locator.Port)
		assert.Equal(t, natOut, d.Locator.Addr)

		assert.Equal(t, allRLOC, other.forward(nodeEID.Addr()).Locator.Addr)

		// The node goes silent. While the registration of the Map-Server lives on for a
		// little, packets go nowhere, not in a circle.
		require.NoError(t, all.Do(ctx, func(now time.Time) {
			all.rtr.Moved(now, now, 0, nodeEID)
		}))
		assert.Equal(t, mapcache.Miss, all.forward(nodeEID.Addr()).Verdict)
		all.plane.miss(nodeEID.Addr())
		time.Sleep(2 * time.Second)
		assert.Equal(t, mapcache.Drop, all.forward(nodeEID.Addr()).Verdict)
		register(3, 10)
		time.Sleep(time.Second)
		assert.Equal(t, mapcache.Encapsulate, all.forward(nodeEID.Addr()).Verdict)

		// It turns up elsewhere: the Map-Server tells the RTR, which asks, and goes by
		// the answer.
		b.registerDirectly(rlocB, nodeEID)
		time.Sleep(2 * time.Second)
		assert.Equal(t, rlocB, all.forward(nodeEID.Addr()).Locator.Addr)
		assert.Contains(t, all.events.lines(), "192.0.2.33/32 is not behind this RTR any more")
		require.NoError(t, all.Do(ctx, func(time.Time) { rs = all.rtr.Relays() }))
		assert.Empty(t, rs)

		// And comes back, and leaves for good.
		register(4, 10)
		time.Sleep(time.Second)
		assert.Equal(t, natOut, all.forward(nodeEID.Addr()).Locator.Addr)
		register(5, 0)
		time.Sleep(time.Second)
		assert.Equal(t, mapcache.Miss, all.forward(nodeEID.Addr()).Verdict, "withdrawn")

		require.NoError(t, pc.Close())
		require.NoError(t, other.Close())
		require.NoError(t, all.Close())
	})
}
