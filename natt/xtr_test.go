package natt

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
)

var fastLink = netsim.Link{Latency: 5 * time.Millisecond}

// natKinds are all kinds of NAT, with bindings of 30 s.
var natKinds = []netsim.NATConfig{
	{Kind: netsim.FullCone, Timeout: 30 * time.Second},
	{Kind: netsim.FullCone, Timeout: 30 * time.Second, Hairpin: true, KeepPort: true},
	{Kind: netsim.Restricted, Timeout: 30 * time.Second},
	{Kind: netsim.PortRestricted, Timeout: 30 * time.Second},
	{Kind: netsim.PortRestricted, Timeout: 30 * time.Second, InboundRefresh: true, KeepPort: true},
	{Kind: netsim.Symmetric, Timeout: 30 * time.Second},
	{Kind: netsim.Symmetric, Timeout: 30 * time.Second, KeepPort: true},
}

func forNATs(t *testing.T, f func(t *testing.T, cfg netsim.NATConfig)) {
	for _, cfg := range natKinds {
		t.Run(fmt.Sprintf("%v keep-port %v", cfg.Kind, cfg.KeepPort), func(t *testing.T) { f(t, cfg) })
	}
}

// TestXTRBehindNAT: detected, registered by the nearest of three RTRs, and
// reachable for an hour by a NAT that forgets after 30 s.
func TestXTRBehindNAT(t *testing.T) {
	forNATs(t, func(t *testing.T, cfg netsim.NATConfig) {
		w := newXTRWorld(t, 1, 3, fastLink, XTRConfig{}, behind(fastLink, cfg, nil))
		w.net.Run(time.Second)
		b := w.xtr.Binding()
		require.Equal(t, Registered, b.State, b.Text(w.node.Now()))
		assert.Equal(t, worldNAT, b.Global.Addr())                     // nat19i-5-1
		assert.Equal(t, worldRTR(2), b.RTR)                            // nat19i-5.1-1: one of the list; the nearest
		assert.Len(t, b.RTRs, 3)                                       // nat19i-5.1-1
		assert.Equal(t, worldNAT, w.rtrs[2].Relays()[0].Global.Addr()) // nat19i-5-3
		assert.InDelta(t, 70*time.Millisecond, b.RTT, float64(30*time.Millisecond))
		for range 60 {
			w.net.Run(time.Minute - time.Second)
			require.True(t, w.reachable(2), w.text()) // nat19i-5-2 nat19i-5.1.1-6
			require.Equal(t, Registered, w.xtr.Binding().State)
		}
		assert.Zero(t, w.xtr.Stats().Failovers)
		assert.Len(t, w.told, 2, "%v", w.told)
		assert.Regexp(t, `^behind NAT 203\.0\.113\.7:\d+, RTR 198\.51\.100\.13, last Data-Map-Notify \d+s ago$`, w.text())
		assert.Equal(t, worldRTR(2).String(), firstLocator(w.ms.last.Records[0]))
	})
}

func firstLocator(r lisp.EIDRecord) string { return r.Locators[0].RLOC.String() }

// TestXTRDoubleNAT: behind two NATs, with an Internet between them.
func TestXTRDoubleNAT(t *testing.T) {
	forNATs(t, func(t *testing.T, cfg netsim.NATConfig) {
		w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, func(w *xtrWorld) *netsim.Interface {
			outer := w.net.AddNAT("outer", w.net.Internet(), fastLink, worldNAT, cfg)
			inner := w.net.AddNAT("inner", outer.Inside(), fastLink, netip.MustParseAddr("100.64.0.9"), netsim.NATConfig{Kind: netsim.Symmetric})
			return w.node.AddInterface(inner.Inside(), netsim.Link{}, worldLocal)
		})
		w.net.Run(10 * time.Minute)
		assert.Equal(t, worldNAT, w.xtr.Binding().Global.Addr())
		assert.True(t, w.reachable(0), w.text())
	})
}

// TestXTRPublic: nothing between, so nothing is registered by an RTR, and it is
// looked at again when the TTL is over.
func TestXTRPublic(t *testing.T) {
	local := netip.MustParseAddr("203.0.113.2")
	connect := func(w *xtrWorld) *netsim.Interface { return w.node.AddInterface(w.net.Internet(), fastLink, local) }
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, connect)
	assert.Equal(t, "detecting, announced directly meanwhile", w.text())
	w.net.Run(59 * time.Minute)
	assert.Equal(t, "public", w.text()) // nat19-5.1-s1
	assert.Zero(t, w.xtr.Stats().MapRegistersSent)
	assert.LessOrEqual(t, w.xtr.Stats().InfoRequestsSent, uint64(2))
	w.net.Run(time.Hour)
	assert.LessOrEqual(t, w.xtr.Stats().InfoRequestsSent, uint64(3))
	assert.GreaterOrEqual(t, w.xtr.Stats().InfoRequestsSent, uint64(2))

	// It may go by an RTR all the same. nat19i-5.1-2
	w = newXTRWorld(t, 1, 1, fastLink, XTRConfig{Always: true}, connect)
	w.net.Run(time.Minute)
	assert.Regexp(t, `^RTR 198\.51\.100\.11, last`, w.text())
	assert.True(t, w.reachable(0))
}

// TestXTRMappedPort: a NAT that leaves the address alone is one, too.
func TestXTRMappedPort(t *testing.T) {
	w := newXTRWorld(t, 1, 0, fastLink, XTRConfig{}, func(w *xtrWorld) *netsim.Interface {
		nat := w.net.AddNAT("nat", w.net.Internet(), fastLink, worldNAT, netsim.NATConfig{})
		return w.node.AddInterface(nat.Inside(), netsim.Link{}, worldNAT)
	})
	w.net.Run(time.Second)
	assert.Equal(t, NoRTR, w.xtr.Binding().State) // nat19-5.1-s1: the port alone differs
	assert.Equal(t, "behind NAT 203.0.113.7:20000, no RTR yet: the Map-Server names no RTR: one has to be configured there", w.text())
}

// TestXTRSends: the messages and their addresses.
func TestXTRSends(t *testing.T) {
	for _, v := range []Variant{Draft19, Old} {
		w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{Variant: v}, behind(fastLink, netsim.NATConfig{}, nil))
		w.net.Run(time.Second)
		require.Len(t, w.sent, 2)
		var info lisp.InfoRequest
		require.NoError(t, info.DecodeFromBytes(w.sent[0].Bytes))
		assert.NoError(t, lisp.Verify(w.sent[0].Bytes, worldKey))
		assert.NotZero(t, info.Nonce)
		assert.Equal(t, netip.AddrPortFrom(worldLocal, lisp.ControlPort), w.sent[0].From) // nat19-5.1-s1: from the new RLOC
		assert.Equal(t, worldMS, w.sent[0].To)

		reg := w.sent[1]
		assert.Equal(t, netip.AddrPortFrom(worldLocal, lisp.DataPort), reg.From) // nat19-4.3-s1
		assert.Equal(t, netip.AddrPortFrom(worldRTR(0), lisp.ControlPort), reg.To)
		var ecm lisp.EncapsulatedControl // nat19i-4.3-4
		require.NoError(t, ecm.DecodeFromBytes(reg.Bytes))
		assert.True(t, ecm.RTR) // nat19-5.1.1-s1
		in, err := ecm.Inner()
		require.NoError(t, err)
		assert.Equal(t, worldLocal, in.Source.Addr())
		assert.Equal(t, worldMS, in.Destination)
		var m lisp.MapRegister
		require.NoError(t, m.DecodeFromBytes(in.Payload))
		assert.Equal(t, v == Old, m.RTR)
		assert.Equal(t, v == Old, in.Source.Port() == lisp.ControlPort)
	}
}

// TestXTRNonces: they come from the source that is configured, each once.
func TestXTRNonces(t *testing.T) {
	seen := map[lisp.Nonce]bool{}
	for seed := range uint64(20) {
		w := newXTRWorld(t, seed, 0, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
		w.net.Run(5 * time.Minute)
		for _, r := range w.sent {
			var m lisp.InfoRequest
			require.NoError(t, m.DecodeFromBytes(r.Bytes))
			assert.False(t, seen[m.Nonce]) // nat19-4.1-1
			assert.Greater(t, uint64(m.Nonce), uint64(1)<<40)
			seen[m.Nonce] = true
		}
	}
	assert.Greater(t, len(seen), 100)
}

// TestXTRUnanswered: what it says while nobody answers, and at which pace it asks.
func TestXTRUnanswered(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.xtr.Restart(w.node.Now())
	w.ms.silent = true
	w.node.Step(w.xtr.Advance)
	w.net.Run(12 * time.Second)
	assert.Equal(t, "detecting", w.text())
	w.net.Run(time.Second)
	assert.Equal(t, Unanswered, w.xtr.Binding().State)
	assert.Equal(t, reasonUnanswered, w.text())
	before := len(w.sent)
	w.net.Run(59 * time.Second)
	assert.Len(t, w.sent, before)
	w.net.Run(10*time.Minute + 4*time.Second)
	// Rounds of six Info-Requests, the first ones in a hurry, then a minute of silence.
	assert.InDelta(t, before+8*6+6, len(w.sent), 6)
	w.ms.silent = false
	w.net.Run(72 * time.Second)
	assert.Equal(t, Registered, w.xtr.Binding().State)
	assert.Empty(t, w.xtr.Binding().Reason)
}

// TestXTRInfoRequestLost: the first Info-Request of a new locator often finds a link
// that is not ready. It is soon sent again, and then less often.
func TestXTRInfoRequestLost(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	var at []time.Duration
	began := w.node.Now()
	w.ms.silent = true
	w.xtr.Restart(began)
	w.node.Step(w.xtr.Advance)
	for n, step := w.xtr.Stats().InfoRequestsSent, 0; step < 130; step++ {
		w.net.Run(100 * time.Millisecond)
		if m := w.xtr.Stats().InfoRequestsSent; m != n {
			n, at = m, append(at, w.node.Now().Sub(began).Truncate(100*time.Millisecond))
		}
	}
	assert.Equal(t, []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond, 3500 * time.Millisecond, 6500 * time.Millisecond, 9500 * time.Millisecond}, at)

	w.xtr.Restart(w.node.Now())
	w.node.Step(w.xtr.Advance)
	w.net.Run(400 * time.Millisecond)
	assert.Equal(t, Detecting, w.xtr.Binding().State)
	w.ms.silent = false
	w.net.Run(500 * time.Millisecond)
	assert.Equal(t, Registered, w.xtr.Binding().State)
}

// TestXTRWrongKey: the Map-Server does not know our key, and does not answer. When
// only Map-Notify or Info-Reply are signed by another, that is said.
func TestXTRWrongKey(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	require.Equal(t, Registered, w.xtr.Binding().State)
	w.reg.key = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("another")}
	last := w.xtr.Binding().LastNotify
	for range 200 {
		w.net.Run(100 * time.Millisecond)
		if len(w.xtr.sent) > 0 { // an answer that verifies by no key of ours
			break
		}
	}
	w.ms.last.Nonce = w.reg.nonce
	w.ms.notify(w.reg.nonce)
	w.net.Run(5 * time.Minute)
	assert.Equal(t, last, w.xtr.Binding().LastNotify)
	assert.Equal(t, Silent, w.xtr.Binding().State)
	assert.Contains(t, w.text(), "RTR 198.51.100.11 is silent")

	w = newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.reg.key = lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("another")}
	w.net.Run(15 * time.Second) // the first Info-Request was signed with the right key
	assert.Equal(t, reasonInfoKey, w.text())
	assert.Equal(t, uint64(1), w.xtr.Stats().Dropped[DropAuthentication])
}

// TestXTRShortBinding: a keep-alive interval that is too long for the NAT gets
// shorter by itself, until the binding holds.
func TestXTRShortBinding(t *testing.T) {
	for _, kind := range []netsim.NATKind{netsim.FullCone, netsim.Symmetric} {
		w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{KeepAlive: 2 * time.Minute}, behind(fastLink, netsim.NATConfig{Kind: kind, Timeout: 30 * time.Second}, nil)) // nat19i-5.1.1-7
		assert.Equal(t, 2*time.Minute, w.xtr.Binding().KeepAlive)
		w.net.Run(15 * time.Minute)
		assert.Equal(t, 30*time.Second, w.xtr.Binding().KeepAlive)
		for range 50 {
			w.net.Run(30 * time.Second)
			assert.True(t, w.reachable(0))
		}
	}
}

// TestXTRNATReboot: the NAT forgets everything, or gets another address. It works
// again after one keep-alive at most, and for a NAT that is restarted once the
// interval stays.
func TestXTRNATReboot(t *testing.T) {
	forNATs(t, func(t *testing.T, cfg netsim.NATConfig) {
		var nat *netsim.NAT
		w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, cfg, &nat))
		w.net.Run(time.Minute)
		require.True(t, w.reachable(0))
		nat.Flush()
		w.net.Run(25*time.Second + 100*time.Millisecond)
		assert.True(t, w.reachable(0), w.text())
		w.net.Run(time.Minute)

		other := netip.MustParseAddr("203.0.113.99")
		nat.Renumber(other)
		w.net.Run(25*time.Second + 100*time.Millisecond)
		assert.True(t, w.reachable(0), w.text())
		assert.Equal(t, other, w.rtrs[0].Relays()[0].Global.Addr())
		assert.Equal(t, other, w.xtr.Binding().Global.Addr())
		assert.Equal(t, 25*time.Second, w.xtr.Binding().KeepAlive)
	})
}

// TestXTRRTRCrash: another RTR within less than two keep-alive periods, whenever
// in the period it happens.
func TestXTRRTRCrash(t *testing.T) {
	for _, keepAlive := range []time.Duration{5 * time.Second, 25 * time.Second, time.Minute} {
		for seed := range uint64(4) {
			w := newXTRWorld(t, seed, 3, fastLink, XTRConfig{KeepAlive: keepAlive}, behind(fastLink, netsim.NATConfig{Kind: netsim.Symmetric}, nil))
			w.net.Run(time.Minute + time.Duration(seed)*keepAlive/4)
			require.Equal(t, worldRTR(2), w.xtr.Binding().RTR)
			w.rtrAt[2].SetDown(true)
			crash := w.net.Now()
			require.True(t, w.net.RunUntil(time.Hour, func() bool { return w.xtr.Binding().RTR != worldRTR(2) }))
			assert.Less(t, w.net.Now().Sub(crash), 2*keepAlive)
			assert.Equal(t, worldRTR(1), w.xtr.Binding().RTR)
			w.net.Run(time.Second)
			assert.True(t, w.reachable(1))
			assert.Equal(t, worldRTR(1).String(), firstLocator(w.ms.last.Records[0]))
			assert.Equal(t, uint64(1), w.xtr.Stats().Failovers)

			// All are down, and one comes back.
			w.rtrAt[1].SetDown(true)
			w.rtrAt[0].SetDown(true)
			w.net.Run(5 * time.Minute)
			assert.Equal(t, Silent, w.xtr.Binding().State)
			assert.Equal(t, worldRTR(1), w.xtr.Binding().RTR, "announced until there is another")
			w.rtrAt[0].SetDown(false)
			w.net.Run(keepAlive + time.Second)
			assert.Equal(t, worldRTR(0), w.xtr.Binding().RTR)
			assert.Equal(t, Registered, w.xtr.Binding().State)
		}
	}
}

// TestXTRLoss: with a fifth of everything lost the RTR stays the same as a rule,
// and the node is registered nearly all the time.
func TestXTRLoss(t *testing.T) {
	forNATs(t, func(t *testing.T, cfg netsim.NATConfig) {
		for seed := range uint64(3) {
			lossy := netsim.Link{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.1} // two links a way
			w := newXTRWorld(t, seed, 2, lossy, XTRConfig{}, behind(lossy, cfg, nil))
			held := 0
			for range 240 {
				w.net.Run(15 * time.Second)
				if len(w.ms.last.Records) > 0 && w.node.Now().Sub(w.xtr.Binding().LastNotify) < 50*time.Second {
					held++
				}
			}
			assert.Greater(t, held, 228, w.text())
			// Four Map-Registers in a row get through one time in eight when each of
			// them crosses eight links.
			assert.Less(t, w.xtr.Stats().Failovers, uint64(30))
		}
	})
}

// TestXTRNeighbours: two behind the same NAT, which lets packets turn round or not,
// and keeps their port if it can: the RTR reaches each by a port of its own.
func TestXTRNeighbours(t *testing.T) {
	forNATs(t, func(t *testing.T, cfg netsim.NATConfig) {
		var nat *netsim.NAT
		w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, cfg, &nat))
		other := &worldRegistrar{key: worldKey, eid: netip.MustParsePrefix("192.0.2.2/32"), xtrID: lisp.XTRID{15: 8}, nonce: 1 << 20}
		local := netip.MustParseAddr("10.0.0.3")
		x, err := NewXTR(XTRConfig{Local: local, Servers: []netip.AddrPort{worldMS}, Registrar: other, XTRID: other.xtrID})
		require.NoError(t, err)
		nd := w.net.AddNode("neighbour")
		nd.AddInterface(nat.Inside(), netsim.Link{}, local)
		nd.Attach(x)
		nd.Attach(pingCounter{other})
		nd.Step(x.Advance)
		w.ms.anyOrder = true
		w.net.Run(5 * time.Minute)

		relays := w.rtrs[0].Relays()
		require.Len(t, relays, 2, "%s, %v", w.text(), w.xtr.Stats())
		assert.NotEqual(t, relays[0].Global, relays[1].Global)
		for _, r := range relays {
			w.nodes[0].Send(lisp.Datagram{Local: netip.AddrPortFrom(worldRTR(0), lisp.ControlPort), Remote: r.Global, Bytes: worldPing})
		}
		w.net.Run(time.Second)
		assert.Equal(t, 1, w.reg.pings)
		assert.Equal(t, 1, other.pings)
	})
}
