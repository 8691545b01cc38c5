package netsim_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
)

// awful is all at once: of the datagrams that cross two links 30 % are lost, each
// takes two seconds, some come twice and some are overtaken.
var awful = netsim.Link{
	Latency: time.Second, Jitter: 200 * time.Millisecond, Loss: 0.1633, Duplicate: 0.1, Reorder: 0.1, ReorderBy: time.Second,
}

// noProbes is for scenarios in which probes would only be noise.
func noProbes(_ int, c *control.Config) { c.Probe.Interval = -1 }

// everMet is whether each pair has found each other at some time.
func (w *world) everMet() bool {
	for _, x := range w.xtrs {
		for _, p := range x.peers {
			if !p.met {
				return false
			}
		}
	}
	return true
}

// TestEveryPairResolves: on whatever network, every xTR registers and finds every
// other, and nobody sends more than the RFC allows.
func TestEveryPairResolves(t *testing.T) {
	for _, tc := range []struct {
		name  string
		xtrs  int
		link  netsim.Link
		proxy bool
		probe bool
		limit time.Duration // until everything is known
	}{
		{"two, good network", 2, good, false, true, 15 * time.Second},
		{"two, awful network", 2, awful, false, true, 10 * time.Minute},
		{"crowd, good network", crowd, good, false, true, 15 * time.Second},
		{"crowd, awful network", crowd, awful, false, false, 10 * time.Minute},
		{"crowd, awful network, probing", crowd, awful, false, true, 10 * time.Minute},
		{"crowd, awful network, probing, proxy", crowd, awful, true, true, 10 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := func() (uint64, *world) {
				sc := scenario{seed: 7, xtrs: tc.xtrs, link: tc.link, proxy: tc.proxy}
				if !tc.probe {
					sc.engine = noProbes
				}
				w := newWorld(t, sc)
				require.True(t, w.net.RunUntil(tc.limit, w.allRegistered), "%d; %s", w.ms.Stats().Registrations, w.judge.summary())
				registered := w.net.Now().Sub(begin)
				require.True(t, w.net.RunUntil(tc.limit, w.everMet), "%d wrong; %s", w.wrong(), w.judge.summary())
				t.Logf("registered after %v, resolved after %v: %s", registered, w.net.Now().Sub(begin), w.judge.summary())
				w.net.Run(20*time.Minute - w.net.Now().Sub(begin))
				return w.net.TraceHash(), w
			}
			hash, w := run()
			// No storm: what the judge has not objected to, counted.
			pairs, n := uint64(tc.xtrs*(tc.xtrs-1)), uint64(tc.xtrs)
			sent, ms := w.judge.sent, w.ms.Stats()
			if tc.link.Loss == 0 {
				assert.Equal(t, pairs, sent[aRequest]+sent[anSMRInvoked]-w.refreshes(), "one Map-Request each")
				assert.LessOrEqual(t, sent[aRegister], n*(15+17))
				assert.Equal(t, sent[aRegister], sent[aNotify])
			}
			// Twenty minutes. Eleven Map-Requests in 90 s are the most for one
			// EID-Prefix; with probes getting lost as well it is asked for again
			// and again, but nearly always answered soon.
			assert.LessOrEqual(t, sent[aRequest], pairs*20*5)
			// Fifteen rounds in the first five minutes and fifteen afterwards, in
			// which the answer takes four seconds and one in two gets lost.
			assert.LessOrEqual(t, sent[aRegister], n*30*5)
			assert.LessOrEqual(t, ms.Replies+ms.Negatives+ms.Forwards, ms.Requests, "nothing is amplified")
			if tc.probe {
				// Two in a cycle, and one when the peer shows itself.
				assert.LessOrEqual(t, sent[aProbe], pairs*3*uint64(20*60/27))
			} else {
				assert.Zero(t, sent[aProbe])
			}
			again, _ := run()
			assert.Equal(t, hash, again, "the same seed gives the same trace")
		})
	}
}

// refreshes is how many Map-Requests were for what was cached.
func (w *world) refreshes() (n uint64) {
	for _, x := range w.xtrs {
		for _, h := range x.rates.requests {
			n += h.total - 1
		}
	}
	return n
}

// TestDeadMapServer: it is away for ten minutes, comes back with nothing, and
// everybody registers again within a minute and a bit. What was known is used all
// the time.
func TestDeadMapServer(t *testing.T) {
	w := newWorld(t, scenario{seed: 1, xtrs: 20, peers: 4, link: good, ttl: time.Hour})
	require.True(t, w.net.RunUntil(time.Second, w.allRegistered))
	require.True(t, w.net.RunUntil(time.Minute, w.allResolved))
	w.net.Run(time.Minute)
	w.msIf.SetDown(true)
	before := w.judge.sent
	w.bound = time.Second // of outages
	w.net.Run(10 * time.Minute)
	assert.Zero(t, w.ms.Stats().Registrations, "expired") // RFC 9301-8.2-3
	assert.Zero(t, w.wrong())
	// Back-off to at most one a minute, each message sent at most three times.
	assert.LessOrEqual(t, w.judge.sent[aRegister]-before[aRegister], uint64(20*(7+10)))
	assert.Equal(t, before[aRequest], w.judge.sent[aRequest], "nothing is asked while it is known")
	w.msIf.SetDown(false)
	assert.True(t, w.net.RunUntil(70*time.Second, w.allRegistered))
	assert.Zero(t, w.wrong())
}

// TestMoveWhileMapServerIsDead: whom an xTR with a new address cannot be asked
// for finds it when the Map-Server is back.
func TestMoveWhileMapServerIsDead(t *testing.T) {
	w := newWorld(t, scenario{seed: 1, xtrs: 20, peers: 4, link: good, ttl: time.Hour, addresses: 40})
	require.True(t, w.net.RunUntil(time.Minute, w.allResolved))
	w.net.Run(2 * time.Minute)
	w.msIf.SetDown(true)
	for _, x := range w.xtrs[:5] {
		x.leave()
		x.settle(w.takeAddress())
	}
	w.net.Run(10 * time.Minute)
	assert.NotZero(t, w.wrong())
	w.msIf.SetDown(false)
	assert.True(t, w.net.RunUntil(2*time.Minute, w.allResolved), w.wrong())
	assert.Equal(t, 40, w.registered())
}

// garbler is a Map-Resolver that answers every Map-Request with something else.
type garbler struct {
	t     *testing.T
	rng   interface{ IntN(int) int }
	out   []lisp.Datagram
	asked int
}

func (g *garbler) Advance(time.Time)   {}
func (g *garbler) Deadline() time.Time { return time.Time{} }

func (g *garbler) Next() (lisp.Datagram, bool) {
	if len(g.out) == 0 {
		return lisp.Datagram{}, false
	}
	d := g.out[0]
	g.out = g.out[1:]
	return d, true
}

var evil = netip.MustParseAddr("192.0.2.66")

func (g *garbler) Handle(_ time.Time, d lisp.Datagram) bool {
	var ecm lisp.EncapsulatedControl
	var q lisp.MapRequest
	if ecm.DecodeFromBytes(d.Bytes) != nil {
		return true
	}
	in, err := ecm.Inner()
	if err != nil || q.DecodeFromBytes(in.Payload) != nil {
		return true
	}
	g.asked++
	for range 3 {
		g.out = append(g.out, lisp.Datagram{Local: d.Local, Remote: d.Remote, Bytes: g.garbage(&q)})
	}
	return true
}

// garbage is a Map-Reply that must not be believed, though its nonce is right.
func (g *garbler) garbage(q *lisp.MapRequest) []byte {
	iid, asked, _ := q.Records[0].Prefix()
	bits := asked.Addr().BitLen()
	other := asked.Addr().AsSlice()
	other[1] ^= byte(1 + g.rng.IntN(255))
	ip, _ := netip.AddrFromSlice(other)
	rec := func(a netip.Addr, bits int) lisp.EIDRecord {
		return lisp.EIDRecord{
			TTL: 1440, MaskLen: uint8(bits), Authoritative: true, EID: lisp.EIDAddress(iid, a),
			Locators: []lisp.RLOCRecord{{Priority: 1, Weight: 100, Reachable: true, RLOC: lisp.AddressFrom(evil)}},
		}
	}
	m := lisp.MapReply{Nonce: q.Nonce}
	switch g.rng.IntN(8) {
	case 0: // an EID not asked for
		m.Records = []lisp.EIDRecord{rec(ip, bits)}
	case 1: // everything
		m.Records = []lisp.EIDRecord{rec(asked.Addr(), 0)}
	case 2: // too much, and half of everything
		m.Records = []lisp.EIDRecord{rec(asked.Addr(), 7), rec(asked.Addr(), 1), rec(ip, bits)}
	case 3: // another instance
		m.Records = []lisp.EIDRecord{rec(asked.Addr(), bits)}
		m.Records[0].EID = lisp.EIDAddress(iid+1, asked.Addr())
	case 4: // the answer to a probe
		m.Probe = true
		m.Records = []lisp.EIDRecord{rec(asked.Addr(), bits)}
	case 5: // nothing
	case 6: // the wrong nonce
		m.Nonce++
		m.Records = []lisp.EIDRecord{rec(asked.Addr(), bits)}
	case 7: // cut
		m.Records = []lisp.EIDRecord{rec(asked.Addr(), bits)}
		b, err := m.MarshalBinary()
		require.NoError(g.t, err)
		return b[:12+g.rng.IntN(len(b)-13)]
	}
	b, err := m.MarshalBinary()
	require.NoError(g.t, err)
	if len(b) > 12 && g.rng.IntN(4) == 0 { // noise
		for range 8 {
			b[12+g.rng.IntN(len(b)-12)] ^= byte(g.rng.IntN(256))
		}
		b[4]++ // and not the answer
	}
	return b
}

// TestGarbage: a Map-Resolver that answers with garbage makes nobody believe it;
// the other one is asked.
func TestGarbage(t *testing.T) {
	bad := netip.MustParseAddr("203.0.113.66")
	w := newWorld(t, scenario{seed: 1, xtrs: 20, link: good, roam: 10 * time.Minute, engine: func(_ int, c *control.Config) {
		c.MapResolvers = append([]netip.AddrPort{netip.AddrPortFrom(bad, 0)}, c.MapResolvers...)
	}})
	nd := w.net.AddNode("garbler")
	w.judge.node(nd).free = true
	nd.AddInterface(w.net.Internet(), good, bad)
	g := &garbler{t: t, rng: w.net.Rand()}
	nd.Attach(g)
	w.net.Run(30 * time.Minute)
	assert.True(t, w.allRegistered())
	assert.NotZero(t, g.asked)
	w.freeze()
	w.net.Run(2 * time.Minute)
	assert.Zero(t, w.wrong())
	w.checkContents()
	for _, x := range w.xtrs {
		st := x.engine.Stats()
		assert.NotZero(t, st.Dropped[control.DropNotAsked]+st.Dropped[control.DropTooBroad]+st.Dropped[control.DropUnknownNonce])
	}
}

// checkContents asserts that no map-cache has anything that is not, or was not,
// true: EIDs of this world at addresses of this world.
func (w *world) checkContents() {
	for _, x := range w.xtrs {
		for e := range x.engine.Cache().All() {
			if len(e.RLOCs) == 0 {
				continue
			}
			assert.True(w.t, e.Prefix.IsSingleIP(), "%s: %v", x.node.Name(), e.Key)
			for _, r := range e.RLOCs {
				assert.True(w.t, w.pool[r.Addr], "%s: %v at %v", x.node.Name(), e.Key, r.Addr)
			}
		}
		assert.LessOrEqual(w.t, x.engine.Stats().Pending, 2*4096)
	}
}

// TestClockJumps: the clock of one xTR, or of the Map-Server, jumps forwards and
// backwards, and back again. Forwards it ends what it ends, and that is made anew;
// backwards it changes nothing.
func TestClockJumps(t *testing.T) {
	for _, tc := range []struct {
		name   string
		jump   time.Duration
		server bool
		within time.Duration // until everything is as before
	}{
		{"xTR, forwards by an hour", time.Hour, false, time.Minute},
		{"xTR, forwards by a month", 30 * 24 * time.Hour, false, time.Minute},
		{"xTR, backwards by half a second", -500 * time.Millisecond, false, time.Minute},
		{"xTR, backwards by 30 s", -30 * time.Second, false, time.Minute},
		{"xTR, backwards by an hour", -time.Hour, false, time.Minute},
		{"Map-Server, forwards by an hour", time.Hour, true, 90 * time.Second},
		{"Map-Server, backwards by an hour", -time.Hour, true, 90 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, scenario{seed: 1, xtrs: 12, peers: 4, link: good, ttl: 30 * time.Minute})
			require.True(t, w.net.RunUntil(time.Minute, w.allResolved))
			w.net.Run(20 * time.Minute)
			nd, x := w.msNd, w.xtrs[3]
			if !tc.server {
				nd = x.node
			}
			before := w.judge.total
			w.net.Run(10 * time.Minute)
			usual := w.judge.total - before
			jump := func(to time.Duration) {
				nd.SetClock(to)
				x.rates.changed = !tc.server
				clear(x.rates.probes)
			}
			jump(tc.jump)
			before = w.judge.total
			w.net.Run(tc.within)
			assert.Zero(t, w.wrong())
			assert.True(t, w.allRegistered(), "%v", w.ms.Stats().Registrations)
			w.net.Run(10*time.Minute - tc.within)
			assert.LessOrEqual(t, w.judge.total-before, usual*3/2, "no storm")
			assert.GreaterOrEqual(t, w.judge.total-before, usual*3/4, "no silence")
			assert.True(t, w.allRegistered(), "%v", w.ms.Stats().Registrations)
			// And back again.
			jump(0)
			w.net.Run(tc.within)
			assert.Zero(t, w.wrong())
			assert.True(t, w.allRegistered())
		})
	}
}

// TestLostNonce: an xTR that starts again without its nonce, by a clock that is
// right or an hour late, is registered again; by the second one as soon as the
// Map-Server has forgotten that it counts.
func TestLostNonce(t *testing.T) {
	for _, tc := range []struct {
		name   string
		clock  time.Duration
		within time.Duration
	}{
		{"clock right", 0, 5 * time.Second},
		{"clock an hour late", -time.Hour, mapserver.DefaultRegisterTimeout + time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, scenario{seed: 1, xtrs: 10, peers: 4, link: good, addresses: 20})
			require.True(t, w.net.RunUntil(time.Minute, w.allResolved))
			w.net.Run(15 * time.Minute) // more than ten Map-Registers: it counts
			x := w.xtrs[0]
			last := x.engine.RegisterNonce()
			old := x.engine
			x.leave()
			w.net.Run(10 * time.Second)
			e, err := control.New(w.engineConfig(0))
			require.NoError(t, err)
			x.engine = e
			x.node.SetClock(tc.clock)
			x.node.Replace(old, e)
			sent := x.rates.sent
			x.settle(w.takeAddress())
			assert.Equal(t, tc.clock < 0, e.RegisterNonce() < last)
			w.net.Run(tc.within)
			assert.Equal(t, 20, w.registered())
			require.Len(t, e.Registrations(), 1)
			assert.Equal(t, control.StateRegistered, e.Registrations()[0].State)
			assert.LessOrEqual(t, x.rates.sent[aRegister]-sent[aRegister], uint64(20), "no storm")
			w.net.Run(2 * time.Minute)
			assert.Zero(t, w.wrong())
		})
	}
}
