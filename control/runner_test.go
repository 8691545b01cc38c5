package control_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

var (
	runKey  = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("run")}
	msRLOC  = netip.MustParseAddr("198.18.0.1")
	rlocA   = netip.MustParseAddr("203.0.113.1")
	rlocB   = netip.MustParseAddr("203.0.113.2")
	eidA    = netip.MustParsePrefix("192.0.2.1/32")
	eidB    = netip.MustParsePrefix("192.0.2.2/32")
	absent  = netip.MustParseAddr("192.0.2.200")
	outside = netip.MustParseAddr("8.8.8.8")
)

// bubble is a network in a synctest bubble with a Map-Server in it.
type bubble struct {
	t     *testing.T
	net   *netsim.Network
	nodes map[netip.Addr]*netsim.Node
	link  netsim.Link
	ms    *mapserver.Server
	msr   *control.Runner
	wg    sync.WaitGroup
}

func inBubble(t *testing.T, f func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, net: netsim.New(netsim.Config{Seed: 1}), nodes: map[netip.Addr]*netsim.Node{}, link: netsim.Link{Latency: 5 * time.Millisecond}}
		ctx, cancel := context.WithCancel(t.Context())
		var serve sync.WaitGroup
		serve.Go(func() { b.net.Serve(ctx) })
		b.startMapServer()
		f(b)
		require.NoError(t, b.msr.Close())
		b.wg.Wait()
		cancel()
		serve.Wait()
	})
}

// conn opens the control socket of the host with that address, and makes the
// host if there is none.
func (b *bubble) conn(name string, a netip.Addr) control.Conn {
	b.t.Helper()
	nd := b.nodes[a]
	if nd == nil {
		b.net.Do(func() {
			nd = b.net.AddNode(name)
			nd.AddInterface(b.net.Internet(), b.link, a)
		})
		b.nodes[a] = nd
	}
	pc, err := nd.ListenPacket(netip.AddrPortFrom(a, lisp.ControlPort))
	require.NoError(b.t, err)
	return control.NewConn(pc)
}

func (b *bubble) startMapServer() {
	b.t.Helper()
	ms, err := mapserver.New(mapserver.Config{
		Sites: []mapserver.Site{{Name: "lab", Keys: []lisp.Key{runKey}, Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), AcceptMoreSpecifics: true},
		}}},
	})
	require.NoError(b.t, err)
	b.ms = ms
	b.msr = b.run(control.RunnerConfig{
		Conn: b.conn("ms", msRLOC), Cores: map[control.Role]control.Core{control.RoleMapServer: ms},
	})
}

// run starts a Runner that must end without an error.
func (b *bubble) run(cfg control.RunnerConfig) *control.Runner {
	b.t.Helper()
	r, err := control.NewRunner(cfg)
	require.NoError(b.t, err)
	b.wg.Go(func() { assert.NoError(b.t, r.Run(context.Background())) })
	return r
}

// node is an xTR with a data plane of the test.
type node struct {
	*control.Runner
	engine *control.Engine
	plane  *plane
	events *eventLog
}

func (b *bubble) node(name string, rloc netip.Addr, eid netip.Prefix) *node {
	b.t.Helper()
	e, err := control.New(control.Config{
		Database:     []control.DatabaseMapping{{Key: mapcache.Key{Prefix: eid}}},
		MapServers:   []control.MapServer{{Addr: netip.AddrPortFrom(msRLOC, 0), Key: runKey}},
		MapResolvers: []netip.AddrPort{netip.AddrPortFrom(msRLOC, 0)},
	})
	require.NoError(b.t, err)
	n := &node{engine: e, plane: newPlane(e), events: &eventLog{}}
	n.Runner = b.run(control.RunnerConfig{Conn: b.conn(name, rloc), Engine: e, Dataplane: n.plane, OnEvent: n.events.add})
	n.SetLocals(time.Now(), []mapcache.Local{{Addr: rloc, Priority: 1, Weight: 100, Up: true}})
	return n
}

type eventLog struct {
	mu  sync.Mutex
	all []control.Event
}

func (l *eventLog) add(e control.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *eventLog) lines() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var s []string
	for _, e := range l.all {
		s = append(s, e.String())
	}
	return strings.Join(s, "\n")
}

// plane is a data plane that holds destinations until a change covers them.
type plane struct {
	engine *control.Engine

	mu      sync.Mutex
	pending []mapcache.Key
	got     []mapcache.Decision // of what was pending, once a change came
	seqs    []uint64
	locals  [][]mapcache.Local
	refuse  int // so many calls of SetLocals fail
	sent    []lisp.Datagram
	usage   []mapcache.Usage
	found   chan mapcache.Discovery
}

func newPlane(e *control.Engine) *plane {
	return &plane{engine: e, found: make(chan mapcache.Discovery, 8)}
}

func (p *plane) miss(a netip.Addr) {
	p.mu.Lock()
	p.pending = append(p.pending, mapcache.HostKey(0, a))
	p.mu.Unlock()
	p.found <- mapcache.Discovery{Kind: mapcache.DiscoveryMiss}
}

func (p *plane) Apply(cs []mapcache.Change) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	view := p.engine.Cache().View()
	for _, c := range cs {
		p.seqs = append(p.seqs, c.Seq)
		p.pending = slices.DeleteFunc(p.pending, func(k mapcache.Key) bool {
			if !c.Key.Prefix.IsValid() || !c.Key.Prefix.Contains(k.Prefix.Addr()) {
				return false
			}
			d := view.Forward(k.IID, k.Prefix.Addr(), 0) // published before Apply
			p.got = append(p.got, d)
			return d.Verdict != mapcache.Miss
		})
	}
	return nil
}

func (p *plane) SetLocals(ls []mapcache.Local) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse > 0 {
		p.refuse--
		return errors.New("address not usable yet")
	}
	p.locals = append(p.locals, ls)
	return nil
}

func (p *plane) Usage(f func(mapcache.Usage)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.usage {
		f(u)
	}
	p.usage = nil
}

func (p *plane) PendingMisses(dst []mapcache.Key) []mapcache.Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(dst, p.pending...)
}

func (p *plane) Discoveries() <-chan mapcache.Discovery { return p.found }

func (p *plane) Send(d lisp.Datagram) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, d)
	if !d.Remote.Addr().Is4() {
		return errors.New("no such socket")
	}
	return nil
}

func (p *plane) decisions() []mapcache.Decision {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// TestRunner: two nodes register with a Map-Server and find each other, by real
// Runners over a network in memory.
func TestRunner(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		a, c := b.node("a", rlocA, eidA), b.node("b", rlocB, eidB)
		time.Sleep(time.Second)
		assert.Contains(t, a.events.lines(), "registered 192.0.2.1/32 at 203.0.113.1 with Map-Server 198.18.0.1 in 20ms")
		assert.Contains(t, c.events.lines(), "registered 192.0.2.2/32 at 203.0.113.2")

		begin := time.Now()
		a.plane.miss(eidB.Addr())
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		got := a.plane.decisions()
		require.Len(t, got, 1) // RFC 9300-6-s2: held until there is an answer
		assert.Equal(t, mapcache.Encapsulate, got[0].Verdict)
		assert.Equal(t, rlocB, got[0].Locator.Addr)
		assert.Contains(t, a.events.lines(), "Map-Request for 192.0.2.2/32 to Map-Resolver 198.18.0.1")
		assert.Contains(t, a.events.lines(), "Map-Reply for 192.0.2.2/32: 203.0.113.2, ttl 24h0m, from 203.0.113.2 in 30ms")
		assert.Contains(t, c.events.lines(), "Map-Request for 192.0.2.2/32 from 203.0.113.1 answered")
		assert.Equal(t, 100*time.Millisecond, time.Since(begin), "virtual time")

		// Not registered, and not an EID at all.
		a.plane.miss(absent)
		a.plane.miss(outside)
		time.Sleep(100 * time.Millisecond)
		got = a.plane.decisions()
		require.Len(t, got, 3)
		assert.Equal(t, mapcache.Native, got[1].Verdict)
		assert.Equal(t, mapcache.Native, got[2].Verdict)

		time.Sleep(5 * time.Second)
		assert.Contains(t, a.events.lines(), "RLOC-probe: 203.0.113.2 is up from 203.0.113.1, rtt 20ms")
		assert.True(t, slices.IsSorted(a.plane.seqs))

		// On shutdown the EID is withdrawn.
		begin = time.Now()
		require.NoError(t, a.Close())
		assert.Less(t, time.Since(begin), 100*time.Millisecond)
		assert.Contains(t, a.events.lines(), "withdrew 192.0.2.1/32 from Map-Server 198.18.0.1")
		c.plane.miss(eidA.Addr())
		time.Sleep(time.Second)
		got = c.plane.decisions()
		require.Len(t, got, 1)
		assert.Equal(t, mapcache.Native, got[0].Verdict)
		require.NoError(t, c.Close())
		s := a.Stats()
		assert.NotZero(t, s.Sent)
		assert.NotZero(t, s.Received)
		assert.Zero(t, s.SendErrors)
	})
}

// TestRunnerMapServerOutage: a Map-Server that is gone and comes back is
// registered with again within a minute, and traffic goes on.
func TestRunnerMapServerOutage(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		a, c := b.node("a", rlocA, eidA), b.node("b", rlocB, eidB)
		time.Sleep(time.Second)
		a.plane.miss(eidB.Addr())
		time.Sleep(time.Second)
		require.Len(t, a.plane.decisions(), 1)
		require.NoError(t, b.msr.Close())
		time.Sleep(10 * time.Minute)
		assert.Contains(t, a.events.lines(), "no Map-Notify from Map-Server 198.18.0.1")
		assert.Equal(t, mapcache.Encapsulate, a.engine.Cache().View().Forward(0, eidB.Addr(), 0).Verdict)
		b.startMapServer() // an empty one at the old address
		time.Sleep(time.Minute)
		assert.Contains(t, a.events.lines(), "registered again 192.0.2.1/32")
		assert.Contains(t, c.events.lines(), "registered again 192.0.2.2/32")
		require.NoError(t, a.Close())
		require.NoError(t, c.Close())
	})
}

func TestRunnerShutdownWithoutMapServer(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		a := b.node("a", rlocA, eidA)
		time.Sleep(time.Second)
		require.NoError(t, b.msr.Close())
		begin := time.Now()
		require.NoError(t, a.Close())
		assert.Equal(t, 2*time.Second, time.Since(begin), "not longer than ShutdownTime")
		require.NoError(t, a.Close(), "again")
		require.ErrorIs(t, a.Do(t.Context(), func(time.Time) {}), net.ErrClosed)
		a.SetLocals(time.Now(), nil) // in vain, and harmless
		require.Error(t, a.Run(t.Context()), "only once")
	})
}

func TestRunnerDo(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		a := b.node("a", rlocA, eidA)
		time.Sleep(time.Second)
		var regs []control.Registration
		require.NoError(t, a.Do(t.Context(), func(now time.Time) {
			assert.Equal(t, time.Now(), now)
			regs = a.engine.Registrations()
		}))
		require.Len(t, regs, 1)
		assert.Equal(t, control.StateRegistered, regs[0].State)
		// What fn makes the engine do is carried out at once.
		require.NoError(t, a.Do(t.Context(), func(now time.Time) {
			a.engine.Resolve(now, []mapcache.Key{mapcache.HostKey(0, outside)})
		}))
		time.Sleep(50 * time.Millisecond)
		assert.Contains(t, a.events.lines(), "negative Map-Reply")
		require.NoError(t, a.Close())

		r, err := control.NewRunner(control.RunnerConfig{Conn: b.conn("x", netip.MustParseAddr("203.0.113.9")), Engine: a.engine})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.Do(ctx, func(time.Time) {}), context.DeadlineExceeded, "nobody runs it")
		require.NoError(t, r.Close())
		require.ErrorIs(t, r.Do(t.Context(), func(time.Time) {}), net.ErrClosed)
		require.NoError(t, r.Run(t.Context()), "ends at once")
	})
}

func TestRunnerSetLocals(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		e, err := control.New(control.Config{})
		require.NoError(t, err)
		p := newPlane(e)
		p.refuse = 2
		extra := &scripted{}
		r := b.run(control.RunnerConfig{
			Conn: b.conn("x", rlocA), Engine: e, Dataplane: p,
			Cores: map[control.Role]control.Core{control.RoleRTR: extra},
		})
		ls := []mapcache.Local{{Addr: rlocA, Up: true}}
		r.SetLocals(time.Now(), nil)
		r.SetLocals(time.Now(), ls)
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, r.Do(t.Context(), func(time.Time) {
			assert.Equal(t, ls, e.Locals())
			assert.Equal(t, ls, extra.locals)
			assert.Empty(t, p.locals, "refused")
		}))
		time.Sleep(2 * time.Second)
		require.NoError(t, r.Do(t.Context(), func(time.Time) {
			assert.Equal(t, [][]mapcache.Local{ls}, p.locals, "and tried again")
		}))
		ls = []mapcache.Local{{Addr: rlocB, Up: true}}
		r.SetLocals(time.Now(), ls)
		time.Sleep(time.Second)
		require.NoError(t, r.Do(t.Context(), func(time.Time) {
			assert.Equal(t, ls, p.locals[1])
			assert.Len(t, p.locals, 2)
		}))
		require.NoError(t, r.Close())
	})
}

// scripted is a core of the test.
type scripted struct {
	claims   func(d lisp.Datagram) bool
	handled  []lisp.Datagram
	out      []lisp.Datagram
	deadline time.Time
	advanced []time.Time
	locals   []mapcache.Local
}

func (s *scripted) Handle(_ time.Time, d lisp.Datagram) bool {
	if s.claims == nil || !s.claims(d) {
		return false
	}
	d.Bytes = slices.Clone(d.Bytes)
	s.handled = append(s.handled, d)
	return true
}

func (s *scripted) Advance(now time.Time) {
	s.advanced = append(s.advanced, now)
	s.deadline = time.Time{}
}
func (s *scripted) Deadline() time.Time { return s.deadline }
func (s *scripted) Next() (lisp.Datagram, bool) {
	if len(s.out) == 0 {
		return lisp.Datagram{}, false
	}
	d := s.out[0]
	s.out = s.out[1:]
	return d, true
}
func (s *scripted) SetLocals(_ time.Time, ls []mapcache.Local) { s.locals = ls }

// TestRunnerRoutes: a message goes to the cores of its type, in order, until one
// claims it; what leaves from the data port leaves by the data plane; one timer
// serves all.
func TestRunnerRoutes(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		e, err := control.New(control.Config{Database: []control.DatabaseMapping{{Key: mapcache.Key{Prefix: eidA}}}})
		require.NoError(t, err)
		e.SetLocals(time.Now(), []mapcache.Local{{Addr: rlocA, Up: true}})
		p := newPlane(e)
		all := func(lisp.Datagram) bool { return true }
		ms, rtr := &scripted{claims: all}, &scripted{}
		steps := 0
		r := b.run(control.RunnerConfig{
			Conn: b.conn("x", rlocA), Engine: e, Dataplane: p,
			Cores:     map[control.Role]control.Core{control.RoleMapServer: ms, control.RoleRTR: rtr},
			AfterStep: func(time.Time) { steps++ },
		})
		peer := b.conn("peer", rlocB)
		send := func(m lisp.Message) {
			t.Helper()
			bs, err := m.MarshalBinary()
			require.NoError(t, err)
			_, err = peer.WriteDatagrams([]lisp.Datagram{{Remote: netip.AddrPortFrom(rlocA, lisp.ControlPort), Bytes: bs}})
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		request := func(eid netip.Prefix) *lisp.MapRequest {
			return &lisp.MapRequest{
				ITRRLOCs: []lisp.Address{lisp.AddressFrom(rlocB)},
				Records:  []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(eid.Addr())}},
			}
		}
		types := func() (out []lisp.Type) {
			require.NoError(t, r.Do(t.Context(), func(time.Time) {
				for _, d := range ms.handled {
					out = append(out, lisp.TypeOf(d.Bytes))
				}
				ms.handled = nil
			}))
			return out
		}
		send(request(eidA))
		assert.Empty(t, types(), "the xTR is asked first")
		send(request(eidB))
		send(&lisp.MapRegister{})
		send(&lisp.MapNotifyAck{})
		assert.Equal(t, []lisp.Type{lisp.TypeMapRequest, lisp.TypeMapRegister, lisp.TypeMapNotifyAck}, types())
		assert.Zero(t, r.Stats().Unclaimed)
		send(&lisp.Raw{Data: []byte{0xd0, 1, 2, 3}})
		assert.Equal(t, uint64(1), r.Stats().Unclaimed)
		_, err = peer.WriteDatagrams([]lisp.Datagram{{Remote: netip.AddrPortFrom(rlocA, lisp.ControlPort), Bytes: make([]byte, 16<<10+1)}})
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond)
		assert.Equal(t, uint64(1), r.Stats().Oversize)

		before := r.Stats()
		at := time.Now().Add(time.Minute)
		require.NoError(t, r.Do(t.Context(), func(time.Time) {
			rtr.deadline = at
			ms.out = []lisp.Datagram{
				{Local: netip.AddrPortFrom(rlocA, lisp.DataPort), Remote: netip.AddrPortFrom(rlocB, 1), Bytes: []byte{1}},
				{Local: netip.AddrPortFrom(rlocA, lisp.DataPort), Remote: netip.MustParseAddrPort("[::1]:1"), Bytes: []byte{1}},
				{Local: netip.AddrPortFrom(rlocA, lisp.ControlPort), Remote: netip.AddrPortFrom(rlocB, lisp.ControlPort), Bytes: []byte{2}},
			}
		}))
		time.Sleep(2 * time.Minute)
		require.NoError(t, r.Do(t.Context(), func(time.Time) {
			assert.Equal(t, []time.Time{at}, rtr.advanced)
			assert.Len(t, p.sent, 2)
			assert.NotZero(t, steps)
		}))
		assert.Equal(t, before.Sent+2, r.Stats().Sent)
		assert.Equal(t, uint64(1), r.Stats().SendErrors)
		require.NoError(t, r.Close())
		require.NoError(t, peer.Close())
	})
}

// TestRunnerPlane: a miss that is not answered stays wanted; ACT 2 entries ask
// when the data plane says so; what the data plane used is used.
func TestRunnerPlane(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		a := b.node("a", rlocA, eidA)
		time.Sleep(time.Second)
		require.NoError(t, b.msr.Close())
		a.plane.miss(eidB.Addr())
		time.Sleep(10 * time.Second)
		assert.GreaterOrEqual(t, strings.Count(a.events.lines(), "Map-Request for 192.0.2.2/32"), 4)
		require.NoError(t, a.Do(t.Context(), func(now time.Time) {
			require.NoError(t, a.engine.Cache().Insert(now, mapcache.Mapping{
				Key: mapcache.Key{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, TTL: time.Hour, Action: lisp.ActionSendMapRequest,
			}))
			require.NoError(t, a.engine.Cache().Insert(now, mapcache.Mapping{
				Key: mapcache.Key{Prefix: eidB}, TTL: time.Hour, RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: rlocB}}},
			}))
		}))
		require.Len(t, a.plane.decisions(), 1, "any covering entry serves")
		a.plane.found <- mapcache.Discovery{Kind: mapcache.DiscoveryRequest, Key: mapcache.HostKey(0, netip.MustParseAddr("198.51.100.9"))}
		a.plane.mu.Lock()
		a.plane.usage = []mapcache.Usage{
			{Key: mapcache.Key{Prefix: eidB}, PacketsOut: 1, LastUsed: time.Now()},
			{Locator: mapcache.Locator{Addr: rlocB}, PacketsOut: 3, OctetsOut: 300, LastUsed: time.Now()},
		}
		a.plane.mu.Unlock()
		time.Sleep(10 * time.Second)
		assert.Contains(t, a.events.lines(), "Map-Request for 198.51.100.9/32")
		require.NoError(t, a.Do(t.Context(), func(time.Time) {
			ent, ok := a.engine.Cache().Get(mapcache.Key{Prefix: eidB})
			require.True(t, ok)
			assert.False(t, ent.LastUsed.IsZero())
			info, ok := a.engine.Cache().LocatorInfo(mapcache.Locator{Addr: rlocB})
			require.True(t, ok)
			assert.EqualValues(t, 3, info.PacketsOut)
			assert.EqualValues(t, 300, info.OctetsOut)
		}))
		require.NoError(t, a.Close())
	})
}

func TestNewRunnerErrors(t *testing.T) {
	e, err := control.New(control.Config{})
	require.NoError(t, err)
	conn := control.NewConn()
	for name, cfg := range map[string]control.RunnerConfig{
		"no conn":                {Engine: e},
		"no core":                {Conn: conn},
		"two xTRs":               {Conn: conn, Engine: e, Cores: map[control.Role]control.Core{control.RoleXTR: e}},
		"nil core":               {Conn: conn, Cores: map[control.Role]control.Core{control.RoleRTR: nil}},
		"no such role":           {Conn: conn, Cores: map[control.Role]control.Core{9: e}},
		"data plane without xTR": {Conn: conn, Cores: map[control.Role]control.Core{control.RoleRTR: e}, Dataplane: newPlane(e)},
	} {
		_, err := control.NewRunner(cfg)
		require.ErrorIs(t, err, control.ErrConfig, name)
	}
	assert.Equal(t, "xtr map-server rtr Role(7)", strings.Join([]string{
		control.RoleXTR.String(), control.RoleMapServer.String(), control.RoleRTR.String(), control.Role(7).String(),
	}, " "))
}

// failing is a Conn whose reads fail.
type failing struct {
	control.Conn
	err   error
	times int
}

func (f *failing) Readers() []control.Reader { return []control.Reader{f} }

func (f *failing) ReadDatagrams([]lisp.Datagram) (int, error) {
	f.times++
	return 0, f.err
}
func (f *failing) Close() error { return nil }

func TestRunnerReadError(t *testing.T) {
	e, err := control.New(control.Config{})
	require.NoError(t, err)
	f := &failing{err: errors.New("broken")}
	r, err := control.NewRunner(control.RunnerConfig{Conn: f, Engine: e})
	require.NoError(t, err)
	require.ErrorIs(t, r.Run(t.Context()), f.err)
	assert.Greater(t, f.times, 100, "single errors are survived")
	assert.Equal(t, uint64(f.times), r.Stats().ReadErrors)
}
