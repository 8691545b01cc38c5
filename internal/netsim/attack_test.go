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
	"github.com/xtrkit/xtrkit/mapcache"
)

// attacker is somebody who can send with any source, sees some of what others
// send, and counts what he makes them send.
type attacker struct {
	w      *world
	over   bool
	octets uint64 // injected
	count  uint64
	seen   [][]byte // datagrams kept by look
	froms  []netip.AddrPort
	look   func(netsim.Record) bool
}

func newAttacker(w *world) *attacker {
	a := &attacker{w: w}
	w.watch = func(r netsim.Record) {
		if a.look != nil && a.look(r) {
			a.seen = append(a.seen, append([]byte(nil), r.Bytes...))
			a.froms = append(a.froms, r.From)
		}
	}
	return a
}

func (a *attacker) inject(from, to netip.AddrPort, b []byte) {
	a.octets += uint64(len(b))
	a.count++
	a.w.net.Inject(from, to, b)
}

// every calls f each d until the attack is over.
func (a *attacker) every(d time.Duration, f func()) {
	if a.over {
		return
	}
	f()
	a.w.net.After(d, func() { a.every(d, f) })
}

func (a *attacker) intn(n int) int { return a.w.net.Rand().IntN(n) }

// target is an xTR that has an address.
func (a *attacker) target() *xtr {
	for {
		if x := a.w.xtrs[a.intn(len(a.w.xtrs))]; x.rloc.IsValid() {
			return x
		}
	}
}

// source is an address of whoever.
func (a *attacker) source() netip.AddrPort {
	switch a.intn(3) {
	case 0:
		return netip.AddrPortFrom(mapSv, lisp.ControlPort)
	case 1:
		return netip.AddrPortFrom(a.target().rloc, lisp.ControlPort)
	default:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + a.intn(250))}), uint16(1024+a.intn(60000)))
	}
}

func control4342(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, lisp.ControlPort) }

func encoded(t testing.TB, m interface{ MarshalBinary() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.MarshalBinary()
	require.NoError(t, err)
	return b
}

// underAttack is a world that moves and has traffic, whose pairs must find each
// other all the time.
func underAttack(t *testing.T, change ...func(*scenario)) (*world, *attacker) {
	sc := scenario{
		seed: 3, xtrs: 40, peers: 4, link: ordinary, ttl: 10 * time.Minute, roam: 10 * time.Minute, addresses: 80, shift: 7 * time.Minute,
		engine: func(_ int, c *control.Config) { c.MaxPending, c.Cache.MaxEntries = 200, 200 },
	}
	for _, f := range change {
		f(&sc)
	}
	w := newWorld(t, sc)
	w.bound = longestOutage
	return w, newAttacker(w)
}

// finish ends the attack and looks at what it has done.
func (w *world) finish(a *attacker) {
	w.checkContents()
	a.over = true
	w.freeze()
	w.net.Run(2 * time.Minute)
	w.checkContents()
	assert.True(w.t, w.allRegistered())
	assert.Equal(w.t, 2*len(w.xtrs), w.registered())
	w.link = good
	w.relink()
	w.net.Run(time.Minute)
	assert.Zero(w.t, w.wrong())
	assert.NotZero(w.t, a.count)
	for _, x := range w.xtrs {
		st := x.engine.Stats()
		assert.LessOrEqual(w.t, st.Pending, 2*200)
		assert.LessOrEqual(w.t, st.CacheEntries, 200)
		assert.LessOrEqual(w.t, st.Paths, 200)
	}
	w.t.Logf("attack: %d datagrams, %d octets; %s; %d moves, 99 %% of outages at most %v",
		a.count, a.octets, w.judge.summary(), w.moves, percentile(w.outages, 0.99))
}

// TestForgedMapReplies: Map-Replies from everywhere, with wrong nonces, and with
// the right ones, seen on the way, but for what was not asked.
func TestForgedMapReplies(t *testing.T) {
	w, a := underAttack(t)
	g := &garbler{t: t, rng: w.net.Rand()}
	var asked []*lisp.MapRequest
	var by []netip.Addr
	a.look = func(r netsim.Record) bool {
		if r.Kind != netsim.Sent || r.Node == w.msNd || lisp.TypeOf(r.Bytes) != lisp.TypeEncapsulatedControl {
			return false
		}
		var ecm lisp.EncapsulatedControl
		require.NoError(t, ecm.DecodeFromBytes(r.Bytes))
		in, err := ecm.Inner()
		require.NoError(t, err)
		q := new(lisp.MapRequest)
		require.NoError(t, q.UnmarshalBinary(in.Payload))
		asked, by = append(asked, q), append(by, r.From.Addr())
		return false
	}
	a.every(10*time.Millisecond, func() {
		// The nonces of now.
		for i, q := range asked {
			for range 4 {
				a.inject(a.source(), control4342(by[i]), g.garbage(q))
			}
		}
		asked, by = asked[:0], by[:0]
		// A guess.
		x := a.target()
		p := x.peers[a.intn(len(x.peers))]
		probe := a.intn(2) == 0
		a.inject(a.source(), control4342(x.rloc), encoded(t, &lisp.MapReply{
			Probe: probe, Nonce: lisp.Nonce(a.w.net.Rand().Uint64()),
			Records: []lisp.EIDRecord{{
				TTL: 1440, MaskLen: uint8(p.eid.BitLen()), Authoritative: true, EID: lisp.AddressFrom(p.eid),
				Locators: []lisp.RLOCRecord{{Priority: 1, Weight: 100, Reachable: true, Probed: probe, RLOC: lisp.AddressFrom(evil)}},
			}},
		}))
	})
	w.net.Run(24 * time.Minute / slow)
	w.finish(a)
	var drops [control.NumDropReasons]uint64
	for _, x := range w.xtrs {
		for r, n := range x.engine.Stats().Dropped {
			drops[r] += n
		}
	}
	for _, r := range []control.DropReason{control.DropUnknownNonce, control.DropNotAsked, control.DropTooBroad, control.DropMalformed} {
		assert.NotZero(t, drops[r], r)
	}
}

// TestForgedMapNotifies: a Map-Notify with the right nonce from the Map-Server's
// address, but not signed by it, acknowledges nothing and changes nothing.
func TestForgedMapNotifies(t *testing.T) {
	w, a := underAttack(t)
	forge := func(r lisp.MapRegister, how int) []byte {
		m := lisp.MapNotify{Nonce: r.Nonce, Records: r.Records, XTRIDPresent: r.XTRIDPresent, XTRID: r.XTRID, SiteID: r.SiteID}
		k := key2
		switch how {
		case 0:
			k.ID = 7
		case 1:
			k.Algorithm = lisp.AlgorithmHMACSHA1
		case 2: // none
			m.Auth = lisp.Authentication{}
			return encoded(t, &m)
		}
		b, err := m.AppendSigned(nil, k)
		require.NoError(t, err)
		if how == 3 { // no digest
			clear(b[16:48])
		}
		return b
	}
	a.look = func(r netsim.Record) bool {
		return r.Kind == netsim.Sent && lisp.TypeOf(r.Bytes) == lisp.TypeMapRegister
	}
	a.every(10*time.Millisecond, func() {
		for i, b := range a.seen {
			var r lisp.MapRegister
			require.NoError(t, r.DecodeFromBytes(b))
			for how := range 5 {
				a.inject(control4342(mapSv), control4342(a.froms[i].Addr()), forge(r, how))
			}
			a.inject(a.source(), control4342(a.froms[i].Addr()), forge(r, 4))
		}
		a.seen, a.froms = a.seen[:0], a.froms[:0]
	})
	w.net.Run(20 * time.Minute / slow)
	// Nor when the true ones don't come.
	w.msIf.SetDown(true)
	w.bound = 0
	w.net.Run(5 * time.Minute)
	for _, x := range w.xtrs {
		for _, r := range x.engine.Registrations() {
			assert.NotEqual(t, control.StateRegistered, r.State, x.node.Name())
		}
		assert.NotZero(t, x.engine.Stats().Dropped[control.DropAuthentication], x.node.Name())
	}
	w.msIf.SetDown(false)
	w.finish(a)
}

// TestReplayedMapRegisters: Map-Registers seen on the way are sent again, from
// where they came and from elsewhere: the mappings stay those of now, and nobody
// gets more than was sent in his name.
func TestReplayedMapRegisters(t *testing.T) {
	w, a := underAttack(t)
	victim := w.net.AddNode("victim")
	w.judge.node(victim).free = true
	there := netip.MustParseAddr("192.0.2.200")
	victim.AddInterface(w.net.Internet(), netsim.Link{}, there)
	a.look = func(r netsim.Record) bool {
		// The true ones only.
		return r.Kind == netsim.Delivered && r.Node == w.msNd && w.pool[r.From.Addr()] && lisp.TypeOf(r.Bytes) == lisp.TypeMapRegister && len(a.seen) < 10_000
	}
	w.net.Run(15 * time.Minute)
	var inName uint64
	a.every(20*time.Millisecond, func() {
		for range 2 {
			i := a.intn(len(a.seen))
			a.inject(a.froms[i], control4342(mapSv), a.seen[i])
			inName += uint64(len(a.seen[i]))
			a.inject(netip.AddrPortFrom(there, uint16(4000+a.intn(1000))), control4342(mapSv), a.seen[i])
		}
		// What came just now is the likeliest to be taken.
		i := len(a.seen) - 1 - a.intn(3)
		a.inject(control4342(there), control4342(mapSv), a.seen[i])
		inName += uint64(len(a.seen[i]))
	})
	for range 12 / slow {
		w.net.Run(time.Minute)
		for _, r := range w.ms.Registrations(w.net.Now()) {
			for _, l := range r.RLOCs {
				ip, _ := l.RLOC.IP()
				require.True(t, w.pool[ip])
			}
			for _, x := range r.XTRs {
				require.NotEqual(t, there, x.From)
			}
		}
	}
	st := w.ms.Stats()
	assert.NotZero(t, st.Dropped[mapserver.ReasonReplay])
	assert.NotZero(t, st.Duplicates)
	assert.LessOrEqual(t, w.judge.node(victim).octetsIn, inName, "nothing is amplified")
	w.finish(a)
}

// TestSMRFlood: SMRs for everything from everywhere make no more Map-Requests
// than one in three seconds for an EID-Prefix, as the judge sees to, and nothing
// else; the SMRs of those that move are still heard.
func TestSMRFlood(t *testing.T) {
	w, a := underAttack(t)
	a.every(5*time.Millisecond, func() {
		x := a.target()
		eid := x.peers[a.intn(len(x.peers))].eid
		if a.intn(4) == 0 {
			eid = a.target().eids[a.intn(2)]
		}
		a.inject(a.source(), control4342(x.rloc), encoded(t, &lisp.MapRequest{
			SMR: true, DontMapReply: a.intn(2) == 0, Nonce: lisp.Nonce(w.net.Rand().Uint64()), SourceEID: lisp.AddressFrom(eid),
			ITRRLOCs: []lisp.Address{lisp.AddressFrom(a.source().Addr())},
			Records:  []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(x.eids[0])}},
		}))
	})
	const duration = 8 * time.Minute / slow
	w.net.Run(duration)
	asked := w.judge.sent[anSMRInvoked]
	assert.NotZero(t, asked)
	assert.Less(t, asked, a.count)
	// At most one in three seconds for each mapping in use.
	assert.LessOrEqual(t, asked, uint64(w.peersOfAll())*2*uint64(duration/(3*time.Second)))
	w.finish(a)
}

// TestRequestFlood: Map-Requests in the name of a victim, straight to the xTRs, by
// the Map-Server, and for all kinds of EIDs: what the victim gets is less than was
// sent, and no more than the rates for one receiver.
func TestRequestFlood(t *testing.T) {
	const perSource = 20
	w, a := underAttack(t, func(sc *scenario) {
		sc.server = func(c *mapserver.Config) { c.RatePerSource = perSource }
	})
	victim := w.net.AddNode("victim")
	w.judge.node(victim).free = true
	there := netip.MustParseAddr("192.0.2.200")
	victim.AddInterface(w.net.Internet(), netsim.Link{}, there)
	request := func(eid netip.Addr, probe bool) []byte {
		return encoded(t, &lisp.MapRequest{
			Probe: probe, Nonce: lisp.Nonce(w.net.Rand().Uint64()), SourceEID: lisp.AddressFrom(eid),
			ITRRLOCs: []lisp.Address{lisp.AddressFrom(there)},
			Records:  []lisp.RequestRecord{{MaskLen: uint8(eid.BitLen()), EID: lisp.AddressFrom(eid)}},
		})
	}
	wrapped := func(eid netip.Addr) []byte {
		source := netip.AddrPortFrom(there, lisp.ControlPort)
		if eid.Is6() {
			source = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::200"), lisp.ControlPort)
		}
		packet, err := lisp.AppendInner(nil, lisp.Inner{
			Source: source, Destination: netip.AddrPortFrom(eid, lisp.ControlPort), Payload: request(eid, false),
		})
		require.NoError(t, err)
		return encoded(t, &lisp.EncapsulatedControl{Packet: packet})
	}
	from := func() netip.AddrPort {
		if a.intn(2) == 0 {
			return control4342(there)
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + a.intn(100))}), lisp.ControlPort)
	}
	a.every(5*time.Millisecond, func() {
		x := a.target()
		eid := x.eids[a.intn(2)]
		a.inject(from(), control4342(x.rloc), request(eid, a.intn(2) == 0))
		a.inject(from(), control4342(x.rloc), wrapped(eid))
		a.inject(from(), control4342(mapSv), wrapped(eid))
		nobody := netip.AddrFrom4([4]byte{10, byte(1 + a.intn(255)), byte(a.intn(256)), 1})
		a.inject(from(), control4342(mapSv), wrapped(nobody))
	})
	const duration = 8 * time.Minute / slow
	w.net.Run(duration)
	v := w.judge.node(victim)
	assert.NotZero(t, v.octetsIn)
	assert.Less(t, v.octetsIn, a.octets/4, "nothing is amplified")
	// 64 at once and one in three seconds from each xTR (RFC 9301 §5.4), and what
	// the Map-Server allows an address.
	most := uint64(len(w.xtrs))*(64+uint64(duration/(3*time.Second))) + perSource*uint64(duration/time.Second+1)
	assert.LessOrEqual(t, v.got[aReply]+v.got[aRequest], most)
	assert.NotZero(t, w.ms.Stats().Dropped[mapserver.ReasonRate])
	w.finish(a)
}

// TestMissFlood: one xTR's hosts look for EIDs by the thousand, where there are
// none, with the Map-Server there and without. Memory is bounded, and peers are
// found at the same time.
func TestMissFlood(t *testing.T) {
	w, a := underAttack(t, func(sc *scenario) { sc.roam = 30 * time.Minute })
	x := w.xtrs[0]
	var keys []mapcache.Key
	highest := 0
	a.every(100*time.Millisecond, func() {
		keys = keys[:0]
		for range 100 {
			k := mapcache.HostKey(0, netip.AddrFrom4([4]byte{10, byte(a.intn(256)), byte(a.intn(256)), byte(a.intn(256))}))
			if a.intn(2) == 0 {
				b := netip.MustParseAddr("2001:db8:e::").As16()
				for i := 6; i < 16; i++ {
					b[i] = byte(a.intn(256))
				}
				k = mapcache.HostKey(0, netip.AddrFrom16(b))
			}
			if v := x.engine.Cache().View().Forward(0, k.Prefix.Addr(), 0); v.Verdict == mapcache.Miss {
				keys = append(keys, k)
			}
		}
		a.count += uint64(len(keys))
		x.node.Step(func(now time.Time) { x.engine.Resolve(now, keys) })
		st := x.engine.Stats()
		highest = max(highest, st.Pending)
		require.LessOrEqual(t, st.Pending, 2*200)
		require.LessOrEqual(t, st.CacheEntries, 200)
	})
	w.net.Run(10 * time.Minute)
	w.msIf.SetDown(true)
	w.bound = 0
	w.net.Run(5 * time.Minute)
	w.msIf.SetDown(false)
	w.net.Run(2 * time.Minute)
	for _, x := range w.xtrs {
		for _, p := range x.peers {
			if p.wrong {
				p.since = w.net.Now()
			}
		}
	}
	w.bound = longestOutage
	w.net.Run(5 * time.Minute)
	assert.GreaterOrEqual(t, highest, 200, "it was full")
	assert.NotZero(t, x.engine.Stats().Dropped[control.DropPendingFull])
	w.finish(a)
}
