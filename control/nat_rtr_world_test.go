package control_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control/mapserver"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// outage sends something to the node by the first RTR every second, has f happen
// after ten, and returns for how long nothing arrived.
func (w *natWorld) outage(f func()) time.Duration {
	w.t.Helper()
	lost := time.Duration(0)
	for second := range 120 {
		if second == 10 {
			f()
		}
		if !w.reachable(0) { // takes a second
			lost += time.Second
		}
	}
	require.True(w.t, w.reachable(0), "in the end")
	return lost
}

// symmetricWorld is a registered node behind a symmetric NAT.
func symmetricWorld(t *testing.T) (*natWorld, *netsim.NAT) {
	t.Helper()
	w := newNATWorld(t, nil)
	nat, in := w.behind("nat", netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("10.0.0.2"), netsim.NATConfig{Kind: netsim.Symmetric, Timeout: 30 * time.Second})
	w.locals(in)
	w.net.Run(time.Second)
	require.True(t, w.reachable(0))
	return w, nat
}

// TestRTRRebinding: the NAT forgets its bindings in the middle of traffic. The next
// keep-alive brings the new port.
func TestRTRRebinding(t *testing.T) {
	w, nat := symmetricWorld(t)
	before := w.rtrs[0].Relays()[0].Global
	lost := w.outage(nat.Flush)
	t.Logf("no traffic for %v", lost)
	assert.LessOrEqual(t, lost, 26*time.Second, "a keep-alive")
	assert.NotEqual(t, before, w.rtrs[0].Relays()[0].Global)
}

// TestRTRRestart: an RTR that has forgotten everything has it again by the next
// keep-alive. Somebody who kept what was sent before gains nothing by the moment.
func TestRTRRestart(t *testing.T) {
	w, _ := symmetricWorld(t)
	attacker := netip.MustParseAddrPort("198.51.100.250:4341")
	var kept [][]byte
	for _, r := range w.sent {
		var ecm lisp.EncapsulatedControl
		if ecm.DecodeFromBytes(r.Bytes) == nil && ecm.RTR {
			kept = append(kept, append([]byte(nil), r.Bytes...))
		}
	}
	require.NotEmpty(t, kept)
	w.net.Run(30 * time.Second)
	lost := w.outage(func() {
		fresh := w.newRTR(0)
		w.rtrOn[0].Replace(w.rtrs[0], fresh)
		w.rtrs[0] = fresh
		for _, b := range kept {
			w.net.Inject(attacker, netip.AddrPortFrom(natRTRs[0], 4342), b)
		}
		w.net.Run(100 * time.Millisecond)
		assert.Empty(t, fresh.Relays(), "the Map-Server confirms no old Map-Register to anybody")
	})
	t.Logf("no traffic for %v", lost)
	assert.LessOrEqual(t, lost, 27*time.Second, "a keep-alive")
	for _, r := range w.rtrs[0].Relays() {
		assert.NotEqual(t, attacker, r.Global)
	}
}

// TestRTRHearsOfMove: the node moves out of its NAT. The RTR is told by the
// Map-Server, and asks, without waiting for an SMR.
func TestRTRHearsOfMove(t *testing.T) {
	w, _ := symmetricWorld(t)
	asks := func() (asks bool) {
		for c, ok := w.rtrs[0].NextChange(); ok; c, ok = w.rtrs[0].NextChange() {
			asks = asks || c.Resolve
		}
		return asks
	}
	w.net.Run(time.Minute)
	asks() // while both RTRs were tried
	w.locals(w.node.AddInterface(w.net.Internet(), natLink, netip.MustParseAddr("198.51.100.40")))
	w.net.Run(200 * time.Millisecond)
	assert.True(t, asks())
	assert.Contains(t, w.registered(natEID), "198.51.100.40")
}

// newRTR is RTR i as at the beginning.
func (w *natWorld) newRTR(i int) *natt.RTR {
	w.t.Helper()
	r, err := natt.NewRTR(natt.RTRConfig{
		MapServers: []natt.RTRMapServer{{Addr: natMS, Key: natKey}}, RLOCs: []netip.Addr{natRTRs[i]}, Rand: rand.NewChaCha8([32]byte{9}),
	})
	require.NoError(w.t, err)
	return r
}

// TestMapServerRestart: a Map-Server that has forgotten everything costs no packet,
// and knows the node again by the next keep-alive.
func TestMapServerRestart(t *testing.T) {
	w, _ := symmetricWorld(t)
	lost := w.outage(func() {
		fresh, err := mapserver.New(mapserver.Config{
			Rand: rand.NewChaCha8([32]byte{7}), NAT: mapserver.NAT{RTRs: []mapserver.RTR{{Addr: natRTRs[0], Key: natKey}}},
			Sites: []mapserver.Site{{Name: "lab", Keys: []lisp.Key{runKey}, Prefixes: []mapserver.SitePrefix{
				{Prefix: netip.MustParsePrefix("192.0.2.0/24"), AcceptMoreSpecifics: true},
			}}},
		})
		require.NoError(t, err)
		w.msOn.Replace(natServer{w.ms, w}, natServer{fresh, w})
		w.ms = fresh
	})
	assert.Zero(t, lost)
	assert.Len(t, w.registered(natEID), 1)
}

// TestRTRReplays: somebody records all that the node sends, and sends it again a minute later from elsewhere, for an hour. The node stays
// reachable, where it is.
func TestRTRReplays(t *testing.T) {
	w, _ := symmetricWorld(t)
	attacker := netip.MustParseAddrPort("198.51.100.250:4341")
	seen := 0
	for range 60 {
		w.net.Run(time.Minute)
		for ; seen < len(w.sent); seen++ {
			b := append([]byte(nil), w.sent[seen].Bytes...)
			for _, rtr := range natRTRs {
				w.net.Inject(attacker, netip.AddrPortFrom(rtr, 4342), b)
			}
			w.net.Inject(attacker, netip.AddrPortFrom(natMS, 4342), b)
		}
		require.True(t, w.reachable(0))
		require.Len(t, w.rtrs[0].Relays(), 1)
		for _, rtr := range w.rtrs {
			for _, r := range rtr.Relays() {
				require.NotEqual(t, attacker, r.Global)
			}
		}
	}
	assert.Positive(t, w.rtrs[0].Stats().Dropped[natt.RTRReplay])
	assert.Len(t, w.registered(natEID), 1)
}
