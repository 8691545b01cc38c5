package netsim_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

var (
	begin = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	mapSv = netip.MustParseAddr("203.0.113.1")
	key   = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("netsim")}
	key2  = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("another")}
)

// scenario is how large, how busy and how bad a world is.
type scenario struct {
	seed  uint64
	xtrs  int
	peers int // active ones of each xTR, even; 0: every other one
	link  netsim.Link
	proxy bool // the Map-Server answers itself

	// packets is how often a packet goes to each active peer, default 10 s.
	packets time.Duration
	// ttl is that of the mappings, default 20 min.
	ttl time.Duration
	// shift is how often a quarter of the xTRs' peers is replaced, 0: never.
	shift time.Duration
	// roam is the mean time between two moves of one xTR, 0: none. Every fourth
	// move has a gap of some seconds without any address. addresses is how many
	// there are to move to: few are reused soon, by another xTR.
	roam      time.Duration
	addresses int

	engine func(i int, c *control.Config)
	server func(c *mapserver.Config)
}

// world is a Map-Server, which is the Map-Resolver as well, and xTRs with
// traffic, on one network. What is sent is judged all the time.
type world struct {
	scenario
	t     testing.TB
	net   *netsim.Network
	ms    *mapserver.Server
	msNd  *netsim.Node
	msIf  *netsim.Interface
	xtrs  []*xtr
	owner map[netip.Addr]*xtr // of addresses in use
	free  []netip.Addr
	pool  map[netip.Addr]bool // addresses that there are
	judge *judge
	watch func(netsim.Record)

	frozen                                   bool
	moves, shifted, packetsSent, packetsLost int
	outages                                  []time.Duration // from a move until the new locator is used
	bound                                    time.Duration   // of an outage; 0: not asserted
}

type xtr struct {
	w      *world
	index  int
	node   *netsim.Node
	iface  *netsim.Interface
	engine *control.Engine
	eids   [2]netip.Addr
	rloc   netip.Addr // invalid while there is none
	moved  time.Time
	moves  int
	peers  []*peer
	back   []*peer // of other xTRs that have this one as theirs
	asking []mapcache.Key
	rates  *rates
}

// peer is an xTR that another one sends packets to.
type peer struct {
	from, to *xtr
	eid      netip.Addr
	key      mapcache.Key
	met      bool      // they have got there once
	wrong    bool      // packets don't get there
	since    time.Time // both were where they are now, and the traffic had begun
}

func chacha(seed, i uint64) *rand.ChaCha8 {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], seed)
	binary.LittleEndian.PutUint64(b[8:], i)
	return rand.NewChaCha8(b)
}

func newWorld(t testing.TB, sc scenario) *world {
	t.Helper()
	w := &world{scenario: sc, t: t, owner: make(map[netip.Addr]*xtr), pool: make(map[netip.Addr]bool), judge: newJudge(t)}
	if w.packets == 0 {
		w.packets = 10 * time.Second
	}
	if w.ttl == 0 {
		w.ttl = 20 * time.Minute
	}
	w.net = netsim.New(netsim.Config{Seed: sc.seed, Start: begin, Trace: w.trace})
	cfg := mapserver.Config{
		Sites: []mapserver.Site{{
			Name: "all", Keys: []lisp.Key{key}, ProxyReply: sc.proxy,
			Prefixes: []mapserver.SitePrefix{
				{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true},
				{Prefix: netip.MustParsePrefix("2001:db8:e::/48"), AcceptMoreSpecifics: true},
			},
		}},
		Rand: chacha(sc.seed, 0), EventBuffer: -1,
	}
	if sc.server != nil {
		sc.server(&cfg)
	}
	var err error
	w.ms, err = mapserver.New(cfg)
	require.NoError(t, err)
	w.msNd = w.net.AddNode("ms")
	w.msIf = w.msNd.AddInterface(w.net.Internet(), sc.link, mapSv)
	w.msNd.Attach(w.ms)
	for i := range max(sc.addresses, sc.xtrs) {
		a := netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)})
		w.free = append(w.free, a)
		w.pool[a] = true
	}
	for i := range sc.xtrs {
		w.addXTR(i)
	}
	w.arrange()
	return w
}

func (w *world) trace(r netsim.Record) {
	w.judge.trace(r)
	if w.watch != nil {
		w.watch(r)
	}
}

// eids are the IPv4 and the IPv6 EID of an xTR.
func eids(i int) [2]netip.Addr {
	b := netip.MustParseAddr("2001:db8:e::").As16()
	binary.BigEndian.PutUint32(b[12:], uint32(i))
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), netip.AddrFrom16(b)}
}

func (w *world) engineConfig(i int) control.Config {
	c := control.Config{
		MapServers:   []control.MapServer{{Addr: netip.AddrPortFrom(mapSv, 0), Key: key}},
		MapResolvers: []netip.AddrPort{netip.AddrPortFrom(mapSv, 0)},
		XTRID:        lisp.XTRID{12: byte(i >> 24), 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i + 1)},
		Rand:         chacha(w.seed, uint64(i+1)),
	}
	for _, a := range eids(i) {
		c.Database = append(c.Database, control.DatabaseMapping{Key: mapcache.HostKey(0, a), TTL: w.ttl})
	}
	if w.engine != nil {
		w.engine(i, &c)
	}
	return c
}

func (w *world) addXTR(i int) {
	x := &xtr{w: w, index: i, eids: eids(i)}
	var err error
	x.engine, err = control.New(w.engineConfig(i))
	require.NoError(w.t, err)
	x.node = w.net.AddNode(fmt.Sprintf("xtr%d", i))
	x.iface = x.node.AddInterface(w.net.Internet(), w.link)
	x.rates = w.judge.node(x.node)
	x.node.AfterStep(x.afterStep)
	x.node.Attach(x.engine)
	w.xtrs = append(w.xtrs, x)
	x.settle(w.takeAddress())
	if w.roam > 0 {
		w.net.After(w.nextMove(), x.move)
	}
	// Not all at the same time.
	w.net.After(time.Duration(w.net.Rand().Int64N(int64(w.packets))), x.traffic)
}

// arrange chooses the peers: a ring of xTRs in which each talks to those at
// some distances before and behind it.
func (w *world) arrange() {
	n := len(w.xtrs)
	if w.peers == 0 {
		for _, x := range w.xtrs {
			for _, y := range w.xtrs {
				if x != y {
					x.addPeer(y)
				}
			}
		}
		return
	}
	for k := range w.peers / 2 {
		d := (k*k*7 + 1) % n
		for i, x := range w.xtrs {
			x.addPeer(w.xtrs[(i+d)%n])
			x.addPeer(w.xtrs[(i+n-d)%n])
		}
	}
	if w.shift > 0 {
		w.net.After(w.shift, w.shiftPeers)
	}
}

// shiftPeers has every second xTR exchange its last two peers for others.
func (w *world) shiftPeers() {
	if w.frozen {
		return
	}
	w.shifted++
	n := len(w.xtrs)
	d := (w.shifted*97 + 11) % n
	for i := w.shifted % 2; i < n; i += 2 {
		x := w.xtrs[i]
		for range 2 {
			x.dropPeer(x.peers[len(x.peers)-1])
		}
		x.addPeer(w.xtrs[(i+d)%n])
		x.addPeer(w.xtrs[(i+n-d)%n])
	}
	w.net.After(w.shift, w.shiftPeers)
}

func (x *xtr) addPeer(y *xtr) {
	eid := y.eids[(x.index+y.index)%2] // they talk by one family
	p := &peer{from: x, to: y, eid: eid, key: mapcache.HostKey(0, eid), wrong: true, since: x.w.net.Now()}
	x.peers = append(x.peers, p)
	y.back = append(y.back, p)
	x.review() // it may be known from before
}

func (x *xtr) dropPeer(p *peer) {
	x.peers = remove(x.peers, p)
	p.to.back = remove(p.to.back, p)
}

func remove(ps []*peer, p *peer) []*peer {
	for i := range ps {
		if ps[i] == p {
			return append(ps[:i], ps[i+1:]...)
		}
	}
	return ps
}

func (w *world) takeAddress() netip.Addr {
	i := w.net.Rand().IntN(len(w.free))
	a := w.free[i]
	w.free[i] = w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	return a
}

func (w *world) nextMove() time.Duration {
	return 5*time.Second + time.Duration(w.net.Rand().ExpFloat64()*float64(w.roam))
}

// move gives the xTR another address, or first none for a while.
func (x *xtr) move() {
	w := x.w
	if w.frozen {
		return
	}
	w.moves++
	x.moves++
	x.leave()
	if w.net.Rand().IntN(4) > 0 {
		x.settle(w.takeAddress())
	} else {
		x.node.Step(func(now time.Time) { x.engine.SetLocals(now, nil) })
		w.net.After(time.Duration(w.net.Rand().Int64N(int64(5*time.Second))), func() { x.settle(w.takeAddress()) })
	}
	w.net.After(w.nextMove(), x.move)
}

func (x *xtr) leave() {
	if x.rloc.IsValid() {
		delete(x.w.owner, x.rloc)
		x.w.free = append(x.w.free, x.rloc)
	}
	x.rloc = netip.Addr{}
	x.iface.SetAddrs()
}

func (x *xtr) settle(a netip.Addr) {
	x.rloc, x.moved, x.rates.changed = a, x.w.net.Now(), true
	x.w.owner[a] = x
	x.iface.SetAddrs(a)
	for _, ps := range [][]*peer{x.peers, x.back} {
		for _, p := range ps {
			p.wrong, p.since = true, x.moved
		}
	}
	x.node.Step(func(now time.Time) {
		x.engine.SetLocals(now, []mapcache.Local{{IfIndex: x.iface.Index(), Addr: a, Priority: 1, Weight: 100, Up: true}})
	})
	x.review()
	for _, p := range x.back {
		p.from.review() // it may be an address that this xTR had before
	}
}

// afterStep publishes, as a Runner does.
func (x *xtr) afterStep(time.Time) {
	changes := x.engine.Publish()
	for _, ok := x.engine.NextEvent(); ok; _, ok = x.engine.NextEvent() {
	}
	if len(changes) > 0 {
		x.review()
	}
}

// review looks where packets would go now.
func (x *xtr) review() {
	v := x.engine.Cache().View()
	for _, p := range x.peers {
		d := v.Forward(0, p.eid, 0)
		right := d.Verdict == mapcache.Encapsulate && d.Locator.Addr == p.to.rloc
		if right && p.wrong && p.met {
			x.w.outages = append(x.w.outages, x.w.net.Now().Sub(p.since))
		}
		p.met = p.met || right
		if !right && !p.wrong {
			p.since = x.w.net.Now()
		}
		p.wrong = !right
	}
}

// traffic sends a packet to each peer, asks for what is missing and reports what
// was used, and checks that no outage lasts too long.
func (x *xtr) traffic() {
	w := x.w
	now := w.net.Now()
	v := x.engine.Cache().View()
	x.asking = x.asking[:0]
	for _, p := range x.peers {
		d := v.Forward(0, p.eid, 0)
		switch d.Verdict {
		case mapcache.Miss, mapcache.SendRequest:
			x.asking = append(x.asking, p.key)
		case mapcache.Encapsulate:
			x.engine.AddUsage(x.node.Now(), mapcache.Usage{Key: p.key, Locator: d.Locator, PacketsOut: 1, OctetsOut: 1000, LastUsed: x.node.Now()})
			w.packetsSent++
			if !x.rloc.IsValid() || w.owner[d.Locator.Addr] != p.to {
				w.packetsLost++
				break
			}
			p.to.engine.AddUsage(p.to.node.Now(), mapcache.Usage{Locator: mapcache.Locator{Addr: x.rloc}, PacketsIn: 1, OctetsIn: 1000})
		case mapcache.NoLocator, mapcache.Native, mapcache.Drop:
		}
		if w.bound > 0 && p.wrong && x.rloc.IsValid() && p.to.rloc.IsValid() && now.Sub(p.since) > w.bound {
			w.t.Errorf("%v: %s does not reach %s (%v since %v): %v %v", now, x.node.Name(), p.to.node.Name(), p.to.rloc, p.since, d.Verdict, d.Locator.Addr)
		}
	}
	if len(x.asking) > 0 && x.rloc.IsValid() {
		x.node.Step(func(now time.Time) { x.engine.Resolve(now, x.asking) })
	}
	w.net.After(w.packets, x.traffic)
}

// registered is how many EIDs the Map-Server knows with the present locator.
func (w *world) registered() (n int) {
	for _, r := range w.ms.Registrations(w.net.Now()) {
		for _, l := range r.RLOCs {
			ip, _ := l.RLOC.IP()
			if o := w.owner[ip]; o != nil && (o.eids[0] == r.EID.Addr() || o.eids[1] == r.EID.Addr()) {
				n++
			}
		}
	}
	return n
}

func (w *world) allRegistered() bool { return w.ms.Stats().Registrations == 2*len(w.xtrs) }

// wrong is how many pairs do not reach each other.
func (w *world) wrong() (n int) {
	for _, x := range w.xtrs {
		for _, p := range x.peers {
			if p.wrong {
				n++
			}
		}
	}
	return n
}

func (w *world) allResolved() bool { return w.wrong() == 0 }
