package natt

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/lisp"
)

// twice registers with a second Map-Server as well, which the RTR doesn't know.
type twice struct{ *worldRegistrar }

func (r twice) MapRegisters(now time.Time, rt Route) []Register {
	one := r.worldRegistrar.MapRegisters(now, rt)[0]
	two := r.worldRegistrar.MapRegisters(now, rt)[0]
	two.Server = netip.MustParseAddrPort("198.51.100.2:4342")
	return []Register{one, two}
}

// TestXTRDiagnoses: each thing that may stand in the way, and what is said about it.
func TestXTRDiagnoses(t *testing.T) {
	run := func(d time.Duration) func(*xtrWorld) { return func(w *xtrWorld) { w.net.Run(d) } }
	other := lisp.Key{ID: 1, Algorithm: lisp.AlgorithmHMACSHA256, Secret: []byte("another")}
	for _, tt := range []struct {
		name   string
		rtrs   int
		public bool
		do     func(w *xtrWorld)
		want   string
	}{
		{"nothing known", 1, false, run(0), `^detecting$`},
		{"public", 1, true, run(time.Second), `^public$`},
		{"all well", 1, false, run(13 * time.Second), `^behind NAT 203\.0\.113\.7:\d+, RTR 198\.51\.100\.11, last Data-Map-Notify 13s ago$`},
		{
			"Map-Server away, not capable or another key", 1, false,
			func(w *xtrWorld) { w.ms.silent = true; w.net.Run(15 * time.Second) },
			`^Info-Request unanswered: Map-Server unreachable or not NAT-capable, or it refuses our key or EID-Prefix \(check both, and its log\)$`,
		},
		{
			"another key than the Map-Server has", 1, false,
			func(w *xtrWorld) {
				w.reg.key = other
				w.net.Run(time.Second)
				w.xtr.Restart(w.node.Now())
				w.node.Step(w.xtr.Advance)
				w.net.Run(15 * time.Second)
			},
			`refuses our key or EID-Prefix \(check both`,
		},
		{
			"known to be no Map-Server for NATs", 1, true,
			func(w *xtrWorld) {
				w.ms.silent = true
				w.net.Run(15 * time.Second)
				w.node.Step(func(now time.Time) { w.xtr.Heard(now, worldMS) })
			},
			`^Info-Request unanswered: the Map-Server is not NAT-capable, but takes our Map-Registers, announced directly meanwhile$`,
		},
		{
			"its own answer can't be verified", 1, false,
			func(w *xtrWorld) { w.reg.key = other; w.net.Run(15 * time.Second) },
			`^Info-Reply authentication failed: key mismatch, check the key of this Map-Server$`,
		},
		{"nothing to register", 1, false, func(w *xtrWorld) {
			w.reg.none = true
			w.xtr.Restart(w.node.Now())
			w.node.Step(w.xtr.Advance)
			w.ms.silent = true
			w.net.Run(time.Second)
		}, `no EID-Prefix to ask for`},
		{"no RTR", 0, false, run(time.Second), `^behind NAT 203\.0\.113\.7:\d+, no RTR yet: the Map-Server names no RTR: one has to be configured there$`},
		{"RTR is down", 1, false, func(w *xtrWorld) {
			w.rtrAt[0].SetDown(true)
			w.net.Run(20 * time.Second)
		}, `no RTR yet: no Data-Map-Notify from RTR 198\.51\.100\.11: RTR or Map-Server unreachable, or the Map-Server refuses the registration \(check the logs of both\)$`},
		{"RTRs are down", 2, false, func(w *xtrWorld) {
			w.rtrAt[0].SetDown(true)
			w.rtrAt[1].SetDown(true)
			w.net.Run(20 * time.Second)
		}, `no RTR yet: no Data-Map-Notify from 2 RTRs: `},
		{"RTR goes down", 1, false, func(w *xtrWorld) {
			w.net.Run(time.Second)
			w.rtrAt[0].SetDown(true)
			w.net.Run(time.Minute)
		}, `RTR 198\.51\.100\.11, last Data-Map-Notify 1m1s ago: RTR 198\.51\.100\.11 is silent$`},
		{"RTR is offered no more", 2, false, func(w *xtrWorld) {
			w.net.Run(time.Second)
			w.rtrAt[0].SetDown(true)
			w.ms.info.cfg.RTRs = []netip.Addr{worldRTR(0)}
			w.net.Run(30 * time.Second)
		}, `RTR 198\.51\.100\.12 is no longer offered$`},
		{"Map-Notify of another key", 1, false, func(w *xtrWorld) {
			w.net.Run(21 * time.Millisecond) // the Map-Register is under way
			w.reg.key = other
			w.net.Run(time.Second)
		}, `no RTR yet: Map-Notify authentication failed: key mismatch, check the key of this Map-Server$`},
		{"one of two Map-Servers answers", 1, false, func(w *xtrWorld) {
			w.ms.anyOrder = true
			w.xtr.cfg.Registrar = twice{w.reg}
			w.net.Run(20 * time.Second)
		}, `ago: no Map-Notify from a Map-Server by RTR 198\.51\.100\.11$`},
		{"what was named is too old", 1, false, func(w *xtrWorld) {
			w.rtrAt[0].SetDown(true)
			w.net.Run(time.Second)
			w.ms.silent = true
			w.net.Run(2 * time.Hour)
		}, `no RTR yet: no RTR answers, and no Info-Reply has named one for too long: Map-Server unreachable$`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			connect := behind(fastLink, netsim.NATConfig{}, nil)
			if tt.public {
				connect = func(w *xtrWorld) *netsim.Interface {
					return w.node.AddInterface(w.net.Internet(), fastLink, netip.MustParseAddr("203.0.113.2"))
				}
			}
			w := newXTRWorld(t, 1, tt.rtrs, fastLink, XTRConfig{}, connect)
			tt.do(w)
			assert.Regexp(t, tt.want, w.text())
			if len(w.told) > 0 {
				assert.Equal(t, w.xtr.Binding().Reason, w.told[len(w.told)-1].New.Reason, "the last event has it")
			}
		})
	}
}

// TestXTRDiagnosesWithoutWorld: what takes another Map-Server or variant.
func TestXTRDiagnosesWithoutWorld(t *testing.T) {
	now := worldStart
	six := netip.MustParseAddrPort("[2001:db8::1]:4342")
	x, err := NewXTR(XTRConfig{Local: worldLocal, Servers: []netip.AddrPort{six}, Registrar: &worldRegistrar{key: worldKey}, XTRID: worldXTRID})
	require.NoError(t, err)
	x.Advance(now)
	b := x.Binding()
	assert.Equal(t, "no Map-Server of this address family", b.Text(now))
	assert.True(t, x.Deadline().IsZero())
	x.Heard(now, six) // is none of it
	assert.True(t, x.heard.IsZero())

	// RTRs of the other address family only.
	x, err = NewXTR(XTRConfig{Local: worldLocal, Servers: []netip.AddrPort{worldMS}, Registrar: &worldRegistrar{key: worldKey}, XTRID: worldXTRID})
	require.NoError(t, err)
	x.Advance(now)
	for n := range x.asked {
		msg := infoReplyTo(t, n, worldEID, netip.AddrPortFrom(worldNAT, 7), six.Addr(), worldKey)
		require.True(t, x.Handle(now, lisp.Datagram{Local: netip.AddrPortFrom(worldLocal, 4342), Remote: worldMS, Bytes: msg}))
	}
	b = x.Binding()
	assert.Equal(t, "behind NAT 203.0.113.7:7, no RTR yet: the Map-Server names no RTR of this address family: one has to be configured there", b.Text(now))

	// lispers.net: the Map-Server answers Info-Requests, and no Map-Register.
	x, err = NewXTR(XTRConfig{
		Variant: LispersNet, Local: worldLocal, Servers: []netip.AddrPort{worldMS}, Registrar: &worldRegistrar{key: worldKey}, XTRID: worldXTRID,
	})
	require.NoError(t, err)
	x.Advance(now)
	for n := range x.asked {
		msg := infoReplyTo(t, n, worldEID, netip.AddrPortFrom(worldNAT, 7), worldRTR(0), lisp.Key{})
		require.True(t, x.Handle(now, lisp.Datagram{Local: netip.AddrPortFrom(worldLocal, 4341), Remote: worldMS, Bytes: msg}))
	}
	for range 6 {
		now = x.registerAt
		x.Advance(now)
	}
	b = x.Binding()
	assert.Equal(t, "behind NAT 203.0.113.7:7, no RTR yet: "+reasonNoNotify, b.Text(now))
}

// TestXTRHeard: what is said about a Map-Server that takes Map-Registers holds for as
// long as a registration.
func TestXTRHeard(t *testing.T) {
	w := newXTRWorld(t, 1, 1, fastLink, XTRConfig{}, func(w *xtrWorld) *netsim.Interface {
		return w.node.AddInterface(w.net.Internet(), fastLink, netip.MustParseAddr("203.0.113.2"))
	})
	w.ms.silent = true
	w.node.Step(func(now time.Time) { w.xtr.Heard(now, worldMS) })
	w.net.Run(15 * time.Second)
	assert.Equal(t, reasonNotCapable, w.xtr.Binding().Reason, "before the answers are missed")
	w.net.Run(5 * time.Minute)
	assert.Equal(t, reasonUnanswered, w.xtr.Binding().Reason)
}
