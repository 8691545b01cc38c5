package natt

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
)

// dataMapNotify is a Data-Map-Notify as an RTR sends it.
func dataMapNotify(t testing.TB, m *lisp.MapNotify, key lisp.Key) []byte {
	t.Helper()
	n, err := m.AppendSigned(nil, key)
	require.NoError(t, err)
	b := binary.BigEndian.AppendUint64(nil, 0x08000000<<32|lisp.InstanceIDControl<<8)
	b, err = lisp.AppendInner(b, lisp.Inner{Source: worldMS, Destination: netip.AddrPortFrom(worldLocal, 4342), Payload: n})
	require.NoError(t, err)
	return b
}

func infoReplyTo(t testing.TB, n lisp.Nonce, eid netip.Prefix, global netip.AddrPort, rtr netip.Addr, key lisp.Key) []byte {
	t.Helper()
	nat, err := lisp.LCAFAddress(&lisp.NATTraversal{
		MSPort: 4342, ETRPort: global.Port(), GlobalETR: lisp.AddressFrom(global.Addr()), MS: lisp.AddressFrom(worldMS.Addr()),
		RTRs: []lisp.Address{lisp.AddressFrom(rtr)},
	})
	require.NoError(t, err)
	m := lisp.InfoReply{Nonce: n, TTL: 60, MaskLen: uint8(eid.Bits()), EID: lisp.AddressFrom(eid.Addr()), NAT: nat}
	b, err := m.AppendSigned(nil, key)
	require.NoError(t, err)
	return b
}

// TestXTRForged: what an attacker sends that sees nothing of the traffic, or
// doesn't have the key, changes nothing, at no stage. Even when he guesses right.
func TestXTRForged(t *testing.T) {
	evil := netip.MustParseAddr("198.51.100.66")
	wrong := lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("guessed")}
	for name, stage := range map[string]time.Duration{"detecting": 0, "registering": 21 * time.Millisecond, "registered": time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
			if stage > 0 {
				w.net.Run(stage)
			}
			before := w.xtr.Binding()
			var nonces []lisp.Nonce
			for n := range w.xtr.asked {
				nonces = append(nonces, n)
			}
			for n := range w.xtr.sent {
				nonces = append(nonces, n)
			}
			nonces = append(nonces, 0, 1, 1<<63)
			local4342, local4341 := netip.AddrPortFrom(worldLocal, 4342), netip.AddrPortFrom(worldLocal, 4341)
			now := w.node.Now()
			for _, n := range nonces {
				known := n > 1 && n != 1<<63
				for _, from := range []netip.AddrPort{worldMS, netip.AddrPortFrom(evil, 4342)} {
					for _, key := range []lisp.Key{wrong, worldKey} {
						if known && from == worldMS && string(key.Secret) == "site" {
							continue // that would be no forgery
						}
						b := infoReplyTo(t, n, worldEID, netip.AddrPortFrom(worldLocal, 4342), evil, key)
						w.xtr.Handle(now, lisp.Datagram{Local: local4342, Remote: from, Bytes: b})
					}
				}
				for _, from := range []netip.Addr{worldRTR(0), evil} {
					m := lisp.MapNotify{Nonce: n, XTRIDPresent: true, XTRID: worldXTRID}
					w.xtr.Handle(now, lisp.Datagram{Local: local4341, Remote: netip.AddrPortFrom(from, 4342), Bytes: dataMapNotify(t, &m, wrong)})
				}
				// From elsewhere a right one isn't taken either.
				m := lisp.MapNotify{Nonce: n}
				w.xtr.Handle(now, lisp.Datagram{Local: local4341, Remote: netip.AddrPortFrom(evil, 4342), Bytes: dataMapNotify(t, &m, worldKey)})
			}
			after := w.xtr.Binding()
			after.Reason, before.Reason = "", ""
			assert.Equal(t, before, after)
			_, more := w.xtr.Next()
			assert.False(t, more, "nothing is sent")
			w.net.Run(5 * time.Minute)
			assert.Equal(t, Registered, w.xtr.Binding().State)
			assert.Empty(t, w.xtr.Binding().Reason)
			assert.True(t, w.reachable(0))
		})
	}
}

// TestXTRForeign: a Data-Map-Notify for another xTR is refused, though it verifies.
func TestXTRForeign(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(21 * time.Millisecond)
	require.NotEmpty(t, w.xtr.sent)
	before := w.xtr.Binding()
	for n := range w.xtr.sent {
		m := lisp.MapNotify{Nonce: n, XTRIDPresent: true, XTRID: lisp.XTRID{1}}
		w.xtr.Handle(w.node.Now(), lisp.Datagram{
			Local: netip.AddrPortFrom(worldLocal, 4341), Remote: netip.AddrPortFrom(worldRTR(0), 4342), Bytes: dataMapNotify(t, &m, worldKey),
		})
	}
	assert.Equal(t, before, w.xtr.Binding())                     // nat19i-5.1.1-5
	assert.Equal(t, uint64(1), w.xtr.Stats().Dropped[DropXTRID]) // nat19i-5.1.1-4
}

// TestXTRInfoReplyForAnotherPrefix is refused.
func TestXTRInfoReplyForAnotherPrefix(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	require.Len(t, w.xtr.asked, 1)
	for n := range w.xtr.asked {
		b := infoReplyTo(t, n, netip.MustParsePrefix("192.0.2.0/24"), worldMS, worldRTR(0), worldKey)
		assert.True(t, w.xtr.Handle(w.node.Now(), lisp.Datagram{Local: netip.AddrPortFrom(worldLocal, 4342), Remote: worldMS, Bytes: b}))
	}
	assert.Equal(t, uint64(1), w.xtr.Stats().Dropped[DropEID])
	assert.Equal(t, Detecting, w.xtr.Binding().State)
}

// TestXTRWithdraw: by the RTR, and what ends when it is over.
func TestXTRWithdraw(t *testing.T) {
	w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	w.node.Step(w.xtr.Withdraw)
	assert.False(t, w.xtr.WithdrawDone())
	w.net.Run(time.Second)
	assert.True(t, w.xtr.WithdrawDone())
	assert.Zero(t, w.ms.last.Records[0].TTL)
	assert.True(t, w.xtr.Deadline().IsZero())
	before := len(w.sent)
	w.net.Run(time.Hour)
	assert.Len(t, w.sent, before)

	// With nobody there it is given up.
	w = newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	w.rtrAt[0].SetDown(true)
	w.node.Step(w.xtr.Withdraw)
	w.net.Run(time.Minute)
	assert.True(t, w.xtr.WithdrawDone())
	assert.True(t, w.xtr.Deadline().IsZero())
}

// TestXTRNews: an unsolicited Map-Notify by the RTR in use is handed on, if it
// verifies, and by others not.
func TestXTRNews(t *testing.T) {
	w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	w.ms.notify(12345)
	w.net.Run(time.Minute)
	assert.Equal(t, 1, w.reg.news)
	m := lisp.MapNotify{Nonce: 7}
	d := lisp.Datagram{Local: netip.AddrPortFrom(worldLocal, 4341), Remote: netip.AddrPortFrom(worldRTR(0), 4342), Bytes: dataMapNotify(t, &m, worldKey)}
	w.xtr.Handle(w.node.Now(), d)
	assert.Equal(t, 1, w.reg.news, "that is not the RTR in use")
}

// TestXTRClock: a clock that is set back or forward by a day changes nothing.
func TestXTRClock(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{Timeout: 30 * time.Second}, nil))
	for _, jump := range []time.Duration{-24 * time.Hour, 24 * time.Hour, 0} {
		w.net.Run(10 * time.Minute)
		w.node.SetClock(jump)
		w.node.Step(w.xtr.Advance)
		w.net.Run(10 * time.Minute)
		assert.Equal(t, Registered, w.xtr.Binding().State)
		assert.True(t, w.reachable(0))
	}
}

// TestXTRListChanges: the RTR in use is no longer among those that the Map-Server
// names, and another one is taken.
func TestXTRListChanges(t *testing.T) {
	w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	require.Equal(t, worldRTR(1), w.xtr.Binding().RTR)
	w.ms.info.cfg.RTRs = []netip.Addr{worldRTR(0)}
	w.net.Run(30 * time.Second)
	assert.Equal(t, worldRTR(0), w.xtr.Binding().RTR)
	assert.Equal(t, Registered, w.xtr.Binding().State)
	w.ms.info.cfg.RTRs = nil
	w.net.Run(30 * time.Second)
	assert.Equal(t, NoRTR, w.xtr.Binding().State)
	assert.True(t, w.xtr.Binding().Deadline.After(w.node.Now()))
	w.ms.info.cfg.RTRs = []netip.Addr{worldRTR(1)}
	w.net.Run(30 * time.Second)
	assert.Equal(t, worldRTR(1), w.xtr.Binding().RTR)
}

// TestXTRListExpires: an RTR is not tried that the Map-Server named longer ago than
// its word holds.
func TestXTRListExpires(t *testing.T) {
	w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	w.ms.info.cfg.Site = nil // no Info-Replies from now on
	w.net.Run(2 * time.Hour) // the TTL is one hour
	assert.Equal(t, Registered, w.xtr.Binding().State, "the RTR answers, so it is used")
	before := w.rtrs[0].Stats()
	w.rtrAt[1].SetDown(true)
	w.net.Run(10 * time.Minute)
	assert.Equal(t, Silent, w.xtr.Binding().State)
	assert.Equal(t, before, w.rtrs[0].Stats())
}

// TestXTRManyRTRs: eight are named, all but the last are down, and only so many
// are tried at a time.
func TestXTRManyRTRs(t *testing.T) {
	w := newXTRWorld(t, 1, 8, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	for _, i := range w.rtrAt[:7] {
		i.SetDown(true)
	}
	w.net.Run(10 * time.Second)
	assert.Len(t, w.xtr.racing, maxRace)
	assert.Equal(t, Registering, w.xtr.Binding().State)
	w.net.Run(15 * time.Second)
	assert.Equal(t, worldRTR(7), w.xtr.Binding().RTR)
	w.net.Run(time.Second)
	assert.True(t, w.reachable(7))

	// With none it goes on, slower and slower, and says so.
	w = newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.rtrAt[0].SetDown(true)
	w.net.Run(time.Hour)
	assert.Contains(t, w.text(), "no Data-Map-Notify from RTR 198.51.100.11")
	n := w.xtr.Stats().MapRegistersSent
	assert.Less(t, n, uint64(170))
	w.rtrAt[0].SetDown(false)
	w.net.Run(26 * time.Second)
	assert.Equal(t, Registered, w.xtr.Binding().State)
}

// TestXTRMoved: as soon as an Info-Reply shows that the NAT has another port for us
// the RTR is told.
func TestXTRMoved(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Second)
	for _, c := range []struct {
		global netip.AddrPort
		sent   bool
	}{{w.xtr.Binding().Global, false}, {netip.AddrPortFrom(worldNAT, 7), true}, {netip.AddrPortFrom(worldMS.Addr(), 7), true}} {
		w.xtr.asked[99] = question{server: worldMS, eid: worldEID, at: w.node.Now()}
		b := infoReplyTo(t, 99, worldEID, c.global, worldRTR(0), worldKey)
		before := w.xtr.Stats().MapRegistersSent
		w.node.Step(func(now time.Time) {
			require.True(t, w.xtr.Handle(now, lisp.Datagram{Local: netip.AddrPortFrom(worldLocal, 4342), Remote: worldMS, Bytes: b}))
		})
		assert.Equal(t, c.sent, w.xtr.Stats().MapRegistersSent > before)
		assert.Equal(t, c.global, w.xtr.Binding().Global)
		w.net.Run(time.Second)
	}
}

// TestXTRRest: an RTR that was silent lately is not tried while there is another.
func TestXTRRest(t *testing.T) {
	w := newXTRWorld(t, 1, 3, fastLink, XTRConfig{}, behind(fastLink, netsim.NATConfig{}, nil))
	w.net.Run(time.Minute)
	w.rtrAt[2].SetDown(true)
	w.net.Run(50 * time.Second)
	require.Equal(t, worldRTR(1), w.xtr.Binding().RTR)
	w.rtrAt[1].SetDown(true)
	require.True(t, w.net.RunUntil(time.Minute, func() bool { return w.xtr.Binding().State == Silent }))
	require.Len(t, w.xtr.racing, 1)
	assert.Equal(t, worldRTR(0), w.xtr.racing[0].addr)
}

// TestXTRTwoServers: RTRs that one Map-Server named hold as long as it said, whatever
// another one says.
func TestXTRTwoServers(t *testing.T) {
	other := netip.MustParseAddrPort("198.51.100.2:4342")
	x, err := NewXTR(XTRConfig{Local: worldLocal, Servers: []netip.AddrPort{worldMS, other}, Registrar: &worldRegistrar{key: worldKey}, XTRID: worldXTRID})
	require.NoError(t, err)
	now := worldStart
	x.Advance(now)
	global := netip.AddrPortFrom(worldNAT, 7)
	x.saw(now, worldMS, sighting{global: global, rtrs: []netip.Addr{worldRTR(0)}, until: now.Add(time.Minute)}, 1, time.Minute)
	x.saw(now, other, sighting{global: global, rtrs: []netip.Addr{worldRTR(1)}, until: now.Add(time.Hour)}, 1, time.Hour)
	assert.Equal(t, []netip.Addr{worldRTR(0), worldRTR(1)}, x.Binding().RTRs)
	now = now.Add(2 * time.Minute)
	x.saw(now, other, sighting{global: global, rtrs: []netip.Addr{worldRTR(1)}, until: now.Add(time.Hour)}, 1, time.Hour)
	assert.Equal(t, []netip.Addr{worldRTR(1)}, x.Binding().RTRs)
}
