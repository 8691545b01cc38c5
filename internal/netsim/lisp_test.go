package netsim_test

import (
	"encoding/binary"
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

var (
	begin = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	mapSv = netip.MustParseAddr("198.51.100.1")
	key   = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("netsim")}
)

// lispNet is a Map-Server and some xTRs on one network.
type lispNet struct {
	t       testing.TB
	net     *netsim.Network
	ms      *mapserver.Server
	msIface *netsim.Interface
	xtrs    []*xtr
	byIP    map[netip.Addr]*xtr
	sent    map[string]int // messages by what they are
	rate    *rates
}

type xtr struct {
	node     *netsim.Node
	iface    *netsim.Interface
	engine   *control.Engine
	eid4     netip.Addr
	eid6     netip.Addr
	rloc     netip.Addr
	wanted   map[mapcache.Key]bool // destinations that packets wait for
	resolved int
}

func chacha(seed, i uint64) *rand.ChaCha8 {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	binary.LittleEndian.PutUint64(b[8:], i)
	return rand.NewChaCha8(b)
}

// scenario is how large and how bad a lispNet is.
type scenario struct {
	n     int
	link  netsim.Link
	proxy bool // the Map-Server answers itself
	probe bool // RLOC-probing
}

func newLISPNet(t testing.TB, seed uint64, sc scenario) *lispNet {
	t.Helper()
	l := &lispNet{t: t, byIP: make(map[netip.Addr]*xtr), sent: make(map[string]int), rate: newRates(t)}
	l.net = netsim.New(netsim.Config{Seed: seed, Start: begin, Trace: l.trace})
	var err error
	l.ms, err = mapserver.New(mapserver.Config{
		Sites: []mapserver.Site{{
			Name: "all", Keys: []lisp.Key{key}, ProxyReply: sc.proxy,
			Prefixes: []mapserver.SitePrefix{
				{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true},
				{Prefix: netip.MustParsePrefix("2001:db8:e::/48"), AcceptMoreSpecifics: true},
			},
		}},
		Rand: chacha(seed, 0), EventBuffer: -1,
	})
	require.NoError(t, err)
	server := l.net.AddNode("ms")
	l.msIface = server.AddInterface(l.net.Internet(), sc.link, mapSv)
	server.Attach(l.ms)
	for i := range sc.n {
		l.addXTR(seed, i, sc)
	}
	return l
}

func (l *lispNet) addXTR(seed uint64, i int, sc scenario) {
	eid6 := netip.MustParseAddr("2001:db8:e::").As16()
	binary.BigEndian.PutUint16(eid6[14:], uint16(i+1))
	x := &xtr{
		eid4: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), eid6: netip.AddrFrom16(eid6),
		rloc: netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(i)}), wanted: make(map[mapcache.Key]bool),
	}
	var err error
	probe := control.ProbeConfig{Interval: -1}
	if sc.probe {
		probe = control.ProbeConfig{}
	}
	x.engine, err = control.New(control.Config{
		Probe: probe,
		Database: []control.DatabaseMapping{
			{Key: mapcache.Key{Prefix: netip.PrefixFrom(x.eid4, 32)}, TTL: time.Hour},
			{Key: mapcache.Key{Prefix: netip.PrefixFrom(x.eid6, 128)}, TTL: time.Hour},
		},
		MapServers:   []control.MapServer{{Addr: netip.AddrPortFrom(mapSv, 4342), Key: key}},
		MapResolvers: []netip.AddrPort{netip.AddrPortFrom(mapSv, 4342)},
		XTRID:        lisp.XTRID{14: byte(i >> 8), 15: byte(i + 1)},
		Rand:         chacha(seed, uint64(i+1)),
	})
	require.NoError(l.t, err)
	x.node = l.net.AddNode(fmt.Sprintf("xtr%d", i))
	x.iface = x.node.AddInterface(l.net.Internet(), sc.link, x.rloc)
	x.node.AfterStep(func(time.Time) {
		x.engine.Publish()
		for _, ok := x.engine.NextEvent(); ok; _, ok = x.engine.NextEvent() {
		}
	})
	x.node.Attach(x.engine)
	x.node.Step(func(now time.Time) {
		x.engine.SetLocals(now, []mapcache.Local{{IfIndex: x.iface.Index(), Addr: x.rloc, Priority: 1, Weight: 100, Up: true}})
	})
	l.xtrs = append(l.xtrs, x)
	l.byIP[x.rloc] = x
}

// trace counts and checks what is sent.
func (l *lispNet) trace(r netsim.Record) {
	if r.Kind == netsim.Delivered {
		l.rate.delivered(r)
	}
	if r.Kind != netsim.Sent {
		return
	}
	m, err := lisp.Parse(r.Bytes)
	if err != nil {
		require.NoError(l.t, err, "%v", r)
	}
	what := m.Type().String()
	if q, ok := m.(*lisp.MapRequest); ok && q.Probe {
		what = "RLOC-probe"
	}
	if q, ok := m.(*lisp.MapReply); ok && q.Probe {
		what = "RLOC-probe reply"
	}
	l.sent[what]++
	l.rate.sent(r, m)
}

func (l *lispNet) total() int {
	n := 0
	for _, c := range l.sent {
		n += c
	}
	return n
}

// allRegistered reports whether the Map-Server knows both EIDs of every xTR.
func (l *lispNet) allRegistered() bool { return l.ms.Stats().Registrations == 2*len(l.xtrs) }

// startTraffic has every xTR want every other's EIDs. Like a data plane, it asks
// for what it misses as long as it misses it.
func (l *lispNet) startTraffic() {
	for _, x := range l.xtrs {
		for _, y := range l.xtrs {
			if x != y {
				x.wanted[mapcache.Key{Prefix: netip.PrefixFrom(y.eid4, 32)}] = true
				x.wanted[mapcache.Key{Prefix: netip.PrefixFrom(y.eid6, 128)}] = true
			}
		}
		l.ask(x)
	}
}

func (l *lispNet) ask(x *xtr) {
	var missing []mapcache.Key
	for _, y := range l.xtrs { // in a fixed order
		for _, k := range [...]mapcache.Key{{Prefix: netip.PrefixFrom(y.eid4, 32)}, {Prefix: netip.PrefixFrom(y.eid6, 128)}} {
			if !x.wanted[k] {
				continue
			}
			if e, ok := x.engine.Cache().LookupEntry(0, k.Prefix.Addr()); ok && len(e.RLOCs) > 0 {
				if y.rloc != e.RLOCs[0].Addr {
					assert.Equal(l.t, y.rloc, e.RLOCs[0].Addr)
				}
				delete(x.wanted, k)
				x.resolved++
				continue
			}
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return
	}
	x.node.Step(func(now time.Time) { x.engine.Resolve(now, missing) })
	l.net.After(time.Second, func() { l.ask(x) })
}

func (l *lispNet) allResolved() bool {
	for _, x := range l.xtrs {
		if x.resolved < 2*(len(l.xtrs)-1) {
			return false
		}
	}
	return true
}

// rates checks every node's messages against the RFC's limits.
type rates struct {
	t        testing.TB
	requests map[string]*history // of a node for an EID
	register map[string]*history // of a node
	nonces   map[string]*history // of a node for a nonce
	asked    map[lisp.Nonce]bool // by a Map-Register
	news     map[lisp.Nonce]*history
	notifies int
	wanted   int // Map-Registers that reached the Map-Server
}

type history struct {
	last time.Time
	n    int // without an answer or a pause of 30 s
}

func newRates(t testing.TB) *rates {
	return &rates{
		t: t, requests: make(map[string]*history), register: make(map[string]*history), nonces: make(map[string]*history),
		asked: make(map[lisp.Nonce]bool), news: make(map[lisp.Nonce]*history),
	}
}

func (r *rates) delivered(rec netsim.Record) {
	switch lisp.TypeOf(rec.Bytes) {
	case lisp.TypeMapRegister:
		r.wanted++
	case lisp.TypeMapReply:
		// What is answered may be asked for again: its locators may go down.
		if h := r.nonces[rec.Where+string(rec.Bytes[4:12])]; h != nil {
			h.n = 0
		}
	default:
	}
}

// unsolicited checks a Map-Notify that tells that a mapping moved.
func (r *rates) unsolicited(rec netsim.Record, nonce lisp.Nonce) {
	h := r.news[nonce]
	if h == nil {
		h = new(history)
		r.news[nonce] = h
	} else {
		assert.GreaterOrEqual(r.t, rec.At.Sub(h.last), 3*time.Second) // RFC 9301-5.7-2
	}
	h.last = rec.At
	h.n++
	assert.LessOrEqual(r.t, h.n, 7, "sent again six times at most")
}

func (r *rates) sent(rec netsim.Record, m lisp.Message) {
	switch m := m.(type) {
	case *lisp.EncapsulatedControl:
		if rec.From.Addr() == mapSv {
			return // forwarded
		}
		in, err := m.Inner()
		require.NoError(r.t, err)
		q := new(lisp.MapRequest)
		require.NoError(r.t, q.DecodeFromBytes(in.Payload))
		if len(q.Records) != 1 { // RFC 9301-5.2-8
			require.Fail(r.t, "not one record", "%v", rec)
		}
		h := r.requests[rec.Where+q.Records[0].String()]
		if h == nil {
			h = new(history)
			r.requests[rec.Where+q.Records[0].String()] = h
		} else {
			gap := rec.At.Sub(h.last)
			if gap < time.Second { // RFC 9301-5.3-5
				assert.Fail(r.t, "Map-Requests too fast", "%v after %v", rec, gap)
			}
			if gap >= 30*time.Second {
				h.n = 0
			}
		}
		h.last = rec.At
		h.n++
		r.nonces[rec.Where+string(in.Payload[4:12])] = h
		if h.n > 11 { // RFC 9301-5.3-6
			assert.Fail(r.t, "no silence after ten retransmissions", "%v", rec)
		}
	case *lisp.MapRegister:
		r.asked[m.Nonce] = true
		h := r.register[rec.Where]
		if h == nil {
			h = new(history)
			r.register[rec.Where] = h
		} else {
			assert.GreaterOrEqual(r.t, rec.At.Sub(h.last), time.Second) // RFC 9301-5.7-1
		}
		h.last = rec.At
		h.n++
	case *lisp.MapNotify:
		if !r.asked[m.Nonce] {
			r.unsolicited(rec, m.Nonce)
			return
		}
		r.notifies++
		assert.LessOrEqual(r.t, r.notifies, r.wanted, "a Map-Notify is never retransmitted") // RFC 9301-5.7-s1
	}
}

var good = netsim.Link{Latency: 20 * time.Millisecond}

var harsh = netsim.Link{
	// Every path has two links: 30 % loss, up to 2 s delay and more when reordered.
	Latency: 100 * time.Millisecond, Jitter: 900 * time.Millisecond, Loss: 0.163, Duplicate: 0.05, Reorder: 0.05,
}

// TestEveryPairResolves runs xTRs and a Map-Server until each has found each,
// while rates watches what they send.
func TestEveryPairResolves(t *testing.T) {
	for _, tc := range []struct {
		name string
		scenario
		limit time.Duration // until everything is known
		twice bool          // and the trace compared
	}{
		{"two, good network", scenario{n: 2, link: good, probe: true}, 2 * time.Second, true},
		{"two, harsh network", scenario{n: 2, link: harsh, probe: true}, 10 * time.Minute, true},
		{"many, good network", scenario{n: many, link: good, probe: true}, 5 * time.Second, true},
		{"thirty, harsh network, proxy, probing", scenario{n: 30, link: harsh, probe: true, proxy: true}, 10 * time.Minute, true},
		{"many, harsh network", scenario{n: many, link: harsh}, 10 * time.Minute, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := func() (uint64, *lispNet) {
				l := newLISPNet(t, 7, tc.scenario)
				require.True(t, l.net.RunUntil(tc.limit, l.allRegistered), "not all registered: %d of %d; %v",
					l.ms.Stats().Registrations, 2*tc.n, l.sent)
				registered := l.net.Now().Sub(begin)
				l.startTraffic()
				require.True(t, l.net.RunUntil(tc.limit, l.allResolved), "%v", l.sent)
				t.Logf("registered after %v, resolved after %v, %d messages: %v",
					registered, l.net.Now().Sub(begin)-registered, l.total(), l.sent)
				return l.net.TraceHash(), l
			}
			hash, l := run()
			st := l.ms.Stats()
			if tc.link.Loss == 0 {
				assert.EqualValues(t, 2*tc.n*(tc.n-1), st.Requests, "one Map-Request each")
			}
			assert.LessOrEqual(t, st.Replies+st.Negatives+st.Forwards, st.Requests, "nothing is amplified")
			if tc.twice {
				again, _ := run()
				assert.Equal(t, hash, again, "the same seed gives the same trace")
			}
		})
	}
}

// TestRoaming moves an xTR to another address: the Map-Server knows within the
// time of a Map-Register, and resolves to the new one.
func TestRoaming(t *testing.T) {
	l := newLISPNet(t, 1, scenario{n: 3, link: good, probe: true})
	require.True(t, l.net.RunUntil(time.Second, l.allRegistered))
	l.net.Run(time.Minute)
	x := l.xtrs[0]
	next := netip.MustParseAddr("192.0.2.200")
	x.iface.SetAddrs(next)
	x.node.Step(func(now time.Time) {
		x.engine.SetLocals(now, []mapcache.Local{{IfIndex: 1, Addr: next, Priority: 1, Weight: 100, Up: true}})
	})
	x.rloc = next
	l.net.Run(100 * time.Millisecond)
	for _, r := range l.ms.Registrations(l.net.Now()) {
		if r.EID.Addr() == x.eid4 || r.EID.Addr() == x.eid6 {
			require.Len(t, r.XTRs, 1)
			assert.Equal(t, next, r.XTRs[0].From)
		}
	}
	l.startTraffic()
	require.True(t, l.net.RunUntil(5*time.Second, l.allResolved))
}

// TestDeadMapServer: it is away for ten minutes, comes back empty, and everybody
// registers again within a minute and a bit, at the RFC's rates all the time.
func TestDeadMapServer(t *testing.T) {
	l := newLISPNet(t, 1, scenario{n: 10, link: good})
	require.True(t, l.net.RunUntil(time.Second, l.allRegistered))
	l.msIface.SetDown(true)
	before := l.sent["Map-Register"]
	l.net.Run(10 * time.Minute)
	assert.Zero(t, l.ms.Stats().Registrations, "expired") // RFC 9301-8.2-3
	// Back-off to at most one a minute, each message sent at most three times.
	assert.Less(t, l.sent["Map-Register"]-before, 10*10*7)
	l.msIface.SetDown(false)
	assert.True(t, l.net.RunUntil(70*time.Second, l.allRegistered))
}
