package control_test

import (
	"fmt"
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
)

// simulation is some xTRs and a Map-Server on a network in virtual time, cores
// stepped directly.
type simulation struct {
	t     *testing.T
	net   *netsim.Network
	nodes []*netsim.Node
	xtrs  []*control.Engine
	// interfaces are those of the nodes.
	interfaces []*netsim.Interface
	// requests is when each node sent Map-Requests for an EID last.
	requests map[string]time.Time
	sent     map[lisp.Type]int
}

func simEID(i int) netip.Addr  { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}) }
func simRLOC(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}) }

func simulate(t *testing.T, xtrs int, seed uint64, link netsim.Link) *simulation {
	t.Helper()
	s := &simulation{t: t, requests: map[string]time.Time{}, sent: map[lisp.Type]int{}}
	s.net = netsim.New(netsim.Config{Seed: seed, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Trace: s.trace})
	ms, err := mapserver.New(mapserver.Config{
		Rand: rand.NewChaCha8([32]byte{byte(seed)}),
		Sites: []mapserver.Site{{Name: "lab", Keys: []lisp.Key{runKey}, Prefixes: []mapserver.SitePrefix{
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), AcceptMoreSpecifics: true},
		}}},
	})
	require.NoError(t, err)
	nd := s.net.AddNode("ms")
	nd.AddInterface(s.net.Internet(), link, msRLOC)
	nd.Attach(ms)
	for i := range xtrs {
		e, err := control.New(control.Config{
			Database:     []control.DatabaseMapping{{Key: mapcache.HostKey(0, simEID(i)), TTL: 10 * time.Minute}},
			MapServers:   []control.MapServer{{Addr: netip.AddrPortFrom(msRLOC, 0), Key: runKey}},
			MapResolvers: []netip.AddrPort{netip.AddrPortFrom(msRLOC, 0)},
			Rand:         rand.NewChaCha8([32]byte{byte(seed), byte(i), 1}),
		})
		require.NoError(t, err)
		nd := s.net.AddNode(fmt.Sprintf("xtr%d", i))
		s.interfaces = append(s.interfaces, nd.AddInterface(s.net.Internet(), link, simRLOC(i)))
		nd.Attach(e)
		nd.Step(func(now time.Time) {
			e.SetLocals(now, []mapcache.Local{{Addr: simRLOC(i), Priority: 1, Weight: 100, Up: true}})
		})
		s.nodes, s.xtrs = append(s.nodes, nd), append(s.xtrs, e)
	}
	return s
}

// trace checks the rates of what is sent.
func (s *simulation) trace(r netsim.Record) {
	if r.Kind != netsim.Sent {
		return
	}
	b := r.Bytes
	s.sent[lisp.TypeOf(b)]++
	var ecm lisp.EncapsulatedControl
	if r.Where == "ms" || lisp.TypeOf(b) != lisp.TypeEncapsulatedControl || ecm.DecodeFromBytes(b) != nil {
		return
	}
	in, err := ecm.Inner()
	require.NoError(s.t, err)
	var m lisp.MapRequest
	require.NoError(s.t, m.DecodeFromBytes(in.Payload))
	k := r.Where + " " + m.Records[0].String()
	if last, ok := s.requests[k]; ok {
		assert.GreaterOrEqual(s.t, r.At.Sub(last), time.Second, k) // RFC 9301-5.3-5
	}
	s.requests[k] = r.At
}

// want lets every node have a packet for every other now and then.
func (s *simulation) want(d, every time.Duration) {
	for end := s.net.Now().Add(d); s.net.Now().Before(end); {
		for i, nd := range s.nodes {
			e := s.xtrs[i]
			nd.Step(func(now time.Time) {
				e.Publish()
				for j := range s.xtrs {
					if i != j && e.Cache().View().Forward(0, simEID(j), 0).Verdict == mapcache.Miss {
						e.Resolve(now, []mapcache.Key{mapcache.HostKey(0, simEID(j))})
					}
				}
			})
		}
		s.net.Run(every)
	}
}

func (s *simulation) known() (n int) {
	for i, e := range s.xtrs {
		for j := range s.xtrs {
			if d := e.Cache().View().Forward(0, simEID(j), 0); i != j && d.Verdict == mapcache.Encapsulate && d.Locator.Addr == simRLOC(j) {
				n++
			}
		}
	}
	return n
}

// TestBadNetwork: 30 % loss, duplicates, reordering and seconds of delay at
// once: every node registers, every pair resolves, and the rates hold.
func TestBadNetwork(t *testing.T) {
	const xtrs = 8
	link := netsim.Link{Latency: 900 * time.Millisecond, Jitter: 200 * time.Millisecond, Loss: 0.16, Duplicate: 0.1, Reorder: 0.2}
	for seed := range uint64(4) {
		s := simulate(t, xtrs, seed, link)
		s.want(15*time.Minute, 500*time.Millisecond)
		for i, e := range s.xtrs {
			assert.Less(t, s.net.Now().Sub(e.Registrations()[0].LastAck), 3*time.Minute, i)
		}
		// At any moment some locators may be taken to be down.
		assert.GreaterOrEqual(t, s.known(), xtrs*(xtrs-1)/2, seed)
		registers := s.sent[lisp.TypeMapRegister]
		assert.Less(t, registers, xtrs*100, "no storm")
	}
}

// TestRepeatable: the same seed gives the same messages.
func TestRepeatable(t *testing.T) {
	run := func(seed uint64) uint64 {
		s := simulate(t, 5, seed, netsim.Link{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.1})
		s.want(20*time.Minute, time.Second)
		return s.net.TraceHash()
	}
	assert.Equal(t, run(1), run(1))
	assert.NotEqual(t, run(1), run(2))
}

// TestGoodNetwork: nothing is sent beyond what the periods ask for.
func TestGoodNetwork(t *testing.T) {
	const xtrs = 4
	s := simulate(t, xtrs, 1, netsim.Link{Latency: 10 * time.Millisecond})
	s.want(time.Hour, time.Second)
	assert.Equal(t, xtrs*(xtrs-1), s.known())
	// 15 in the first five minutes, then 55 to 62.
	assert.InDelta(t, xtrs*74, s.sent[lisp.TypeMapRegister], xtrs*6)
	assert.Equal(t, s.sent[lisp.TypeMapRegister], s.sent[lisp.TypeMapNotify])
	// Probes and their answers: two a minute for each pair, in each direction.
	assert.InDelta(t, xtrs*(xtrs-1)*120, s.sent[lisp.TypeMapRequest], xtrs*(xtrs-1)*20)
	for _, e := range s.xtrs {
		st := e.Stats()
		for r, n := range st.Dropped {
			assert.Zero(t, n, control.DropReason(r).String())
		}
		assert.Zero(t, st.ResolutionsFailed)
	}
}
