package encap

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// steered is a Forwarder with the control plane that steers it, stepped by hand.
type steered struct {
	*node
	t      *testing.T
	engine *control.Engine
	eid    string
	peer   *steered
	usage  time.Time
	sent   map[lisp.Type]int
	smrs   int
}

// mapResolver is where the network hands Map-Requests over to the other xTR.
var mapResolver = netip.MustParseAddrPort("198.18.0.1:4342")

func newSteered(t *testing.T, n *memNet, eid string, cl Closed, change func(*control.Config), rlocs ...string) *steered {
	t.Helper()
	cfg := control.Config{
		Database:     []control.DatabaseMapping{{Key: hostKey(eid), TTL: 24 * time.Hour}},
		MapResolvers: []netip.AddrPort{mapResolver},
		Closed:       control.Closed{MapVersions: cl.MapVersions, LocatorStatusBits: cl.LocatorStatusBits, EchoNonce: cl.EchoNonce},
		Rand:         rand.NewChaCha8([32]byte{eid[3]}),
	}
	if cl.MapVersions {
		cfg.Database[0].MapVersion = control.RandomMapVersion
	}
	if change != nil {
		change(&cfg)
	}
	e, err := control.New(cfg)
	require.NoError(t, err)
	x := &steered{t: t, engine: e, eid: eid, sent: map[lisp.Type]int{}, usage: time.Now()}
	x.node = newNode(t, n, nodeConfig{eids: []string{eid + "/32"}, rlocs: rlocs, change: func(c *Config) {
		c.View, c.Closed = e.Cache().View, cl
	}})
	x.run(t)
	return x
}

// setLocals says which locators there are, the first being the best.
func (x *steered) setLocals(ls ...mapcache.Local) {
	for i := range ls {
		ls[i].Priority = uint8(i + 1)
	}
	require.NoError(x.t, x.SetLocals(ls))
	x.engine.SetLocals(time.Now(), ls)
	x.step()
}

// step does what a control.Runner does.
func (x *steered) step() {
	synctest.Wait()
	now := time.Now()
	if at := x.engine.Deadline(); !at.IsZero() && !at.After(now) {
		x.engine.Advance(now)
	}
	if now.Sub(x.usage) >= 5*time.Second {
		x.usage = now
		x.Usage(func(u mapcache.Usage) { x.engine.AddUsage(now, u) })
	}
	for more := true; more; {
		select {
		case d := <-x.Discoveries():
			x.engine.Discover(now, d)
		default:
			more = false
		}
	}
	x.engine.Resolve(now, x.PendingMisses(nil))
	x.SetSignals(x.engine.Signals())
	require.NoError(x.t, x.Apply(x.engine.Publish()))
	for d, ok := x.engine.Next(); ok; d, ok = x.engine.Next() {
		x.sent[lisp.TypeOf(d.Bytes)]++
		var m lisp.MapRequest
		if m.DecodeFromBytes(d.Bytes) == nil && m.SMR {
			x.smrs++
		}
		b := clone(d.Bytes)
		d = lisp.Datagram{Local: d.Remote, Remote: d.Local, Bytes: b}
		if d.Local == mapResolver {
			d.Local = netip.AddrPortFrom(x.peer.underlay.addr(), 4342)
		}
		x.peer.engine.Handle(now, d)
	}
	synctest.Wait()
}

// addr is one of the addresses of an underlay.
func (u *memUnderlay) addr() netip.Addr {
	u.net.mu.Lock()
	defer u.net.mu.Unlock()
	for a, o := range u.net.nodes {
		if o == u && a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// settle steps both until nothing more comes of it.
func settle(a, b *steered) {
	for range 6 {
		a.step()
		b.step()
	}
}

// send sends one packet to the peer, and returns the data header and the locator
// that it went with.
func (x *steered) send() (lisp.DataHeader, netip.Addr) {
	x.t.Helper()
	x.underlay.take()
	x.device.send(packetSpec{src: x.eid, dst: x.peer.eid, sport: 1, dport: 2, payloadLen: 10}.build())
	settle(x, x.peer)
	out := x.underlay.take()
	require.Len(x.t, out, 1)
	h, err := lisp.ParseDataHeader(out[0].Bytes)
	require.NoError(x.t, err)
	x.peer.device.next(x.t)
	return h, out[0].Remote.Addr()
}

// talk sends packets both ways, every second.
func talk(a, b *steered, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		a.send()
		b.send()
		time.Sleep(time.Second)
		settle(a, b)
	}
}

func closedPair(t *testing.T, cl Closed, change func(*control.Config)) (a, b *steered, lsA, lsB []mapcache.Local) {
	var n memNet
	a = newSteered(t, &n, eidA4, cl, change, rlocA4)
	b = newSteered(t, &n, eidB4, cl, change, rlocB4, "192.0.2.3")
	a.peer, b.peer = b, a
	lsA, lsB = locals(rlocA4), locals(rlocB4, "192.0.2.3")
	a.setLocals(lsA...)
	b.setLocals(lsB...)
	return a, b, lsA, lsB
}

func noProbes(c *control.Config) { c.Probe.Interval = -1 }

// A locator goes down, and comes back: the first data packet that says so moves
// the other side's traffic, before any probe. Two engines, two forwarders.
func TestClosedLSBsMoveTraffic(t *testing.T) {
	for _, cl := range []Closed{{LocatorStatusBits: true}, allClosed} {
		synctest.Test(t, func(t *testing.T) {
			a, b, _, ls := closedPair(t, cl, noProbes)
			h, to := a.send()
			assert.Equal(t, addr(rlocB4), to)
			_, ok := h.LSBs()
			assert.False(t, ok) // RFC 9300-13.1-2
			b.send()
			time.Sleep(5 * time.Minute)
			settle(a, b)
			h, _ = b.send()
			bits, ok := h.LSBs()
			assert.True(t, ok) // RFC 9300-13.1-1: the xTR that receives also sends
			assert.EqualValues(t, 3, bits)
			assert.Equal(t, cl.MapVersions, h.Flags()&0x10 != 0)

			ls[0].Up = false
			b.setLocals(ls...)
			_, to = a.send()
			assert.Equal(t, addr(rlocB4), to, "nobody knows yet")
			asked := a.sent[lisp.TypeEncapsulatedControl]
			h, _ = b.send()
			bits, _ = h.LSBs()
			assert.EqualValues(t, 2, bits)
			_, to = a.send()
			assert.Equal(t, addr("192.0.2.3"), to) // RFC 9300-10-s1, 9300-13.1-1
			assert.Equal(t, asked, a.sent[lisp.TypeEncapsulatedControl], "and nobody was asked")

			time.Sleep(2 * time.Second)
			ls[0].Up = true
			b.setLocals(ls...)
			b.send()
			_, to = a.send()
			assert.Equal(t, addr(rlocB4), to) // RFC 9300-10-s1
			assert.Zero(t, a.engine.Stats().ProbesSent)
			assert.Empty(t, a.drops())
			assert.Empty(t, b.drops())
		})
	}
}

// A site whose mapping changes tells by its Map-Version: those who send it data,
// by an SMR as an answer to the old one, and those who get data from it.
func TestClosedMapVersionsUpdateCaches(t *testing.T) {
	for _, way := range []string{"dest", "source"} {
		synctest.Test(t, func(t *testing.T) {
			// No other SMR than the one of RFC 9302.
			a, b, _, ls := closedPair(t, Closed{MapVersions: true}, func(c *control.Config) { c.Probe.Interval, c.SMR.Window = -1, -1 })
			a.send()
			b.send()
			h, _ := a.send()
			va, vb, ok := h.MapVersions()
			require.True(t, ok)
			assert.Equal(t, a.engine.MapVersions()[hostKey(eidA4)], va)
			assert.Equal(t, b.engine.MapVersions()[hostKey(eidB4)], vb)
			time.Sleep(time.Minute)
			settle(a, b)

			ls[0], ls[1] = ls[1], ls[0] // the other locator is the better one now
			b.setLocals(ls...)
			next := lisp.NextMapVersion(vb)
			if way == "dest" {
				var to netip.Addr
				h, to = a.send()
				_, v, _ := h.MapVersions()
				assert.Equal(t, vb, v)
				assert.Equal(t, addr(rlocB4), to)
				assert.Equal(t, 1, b.smrs)
			} else {
				h, _ = b.send()
				v, _, _ := h.MapVersions()
				assert.Equal(t, next, v)
				assert.Zero(t, b.smrs)
			}
			settle(a, b)
			h, to := a.send()
			_, v, _ := h.MapVersions()
			assert.Equal(t, next, v)
			assert.Equal(t, addr("192.0.2.3"), to)
			assert.Empty(t, a.drops())
			assert.Empty(t, b.drops())
		})
	}
}

// Both sides test each other by nonces, at the same time now and then, for an
// hour, and each echo comes.
func TestClosedEchoNonceBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := closedPair(t, Closed{EchoNonce: true, MapVersions: true}, noProbes)
		talk(a, b, time.Hour)
		for _, x := range []*steered{a, b} {
			s := x.engine.Stats()
			assert.Greater(t, s.NoncesEchoed, uint64(60)) // RFC 9300-10.1-2, 9300-10.1-3
			assert.Zero(t, s.NoncesUnechoed)
			assert.Empty(t, x.drops())
		}
	})
}

// Where echoes do not come back although packets do, the other locator is taken.
func TestClosedEchoNonceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := closedPair(t, Closed{EchoNonce: true}, func(c *control.Config) {
			noProbes(c)
			if c.Database[0].Key == hostKey(eidB4) {
				c.Closed.EchoInterval = 24 * time.Hour // it does not test itself
			}
		})
		talk(a, b, 10*time.Second)
		b.closedNet.cfg.EchoNonce = false // though it promised to
		moved := false
		for range 120 {
			_, to := a.send()
			b.send()
			moved = moved || to == addr("192.0.2.3")
			time.Sleep(time.Second)
			settle(a, b)
		}
		assert.True(t, moved)
		assert.NotZero(t, a.engine.Stats().NoncesUnechoed)
	})
}
