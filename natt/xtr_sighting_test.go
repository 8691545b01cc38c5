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

// TestXTRSightingAges: that a Map-Server saw us behind a NAT holds for the TTL that it
// gave. When it has been silent for longer the others decide.
func TestXTRSightingAges(t *testing.T) {
	other := netip.MustParseAddrPort("198.51.100.2:4342")
	local := netip.MustParseAddr("203.0.113.2")
	x, err := NewXTR(XTRConfig{Local: local, Servers: []netip.AddrPort{worldMS, other}, Registrar: &worldRegistrar{key: worldKey}, XTRID: worldXTRID})
	require.NoError(t, err)
	now := worldStart
	x.Advance(now)
	behind, own := netip.AddrPortFrom(worldNAT, 7), netip.AddrPortFrom(local, lisp.ControlPort)
	rtrs := []netip.Addr{worldRTR(0)}
	x.saw(now, worldMS, sighting{global: behind, rtrs: rtrs, until: now.Add(10 * time.Minute)}, 1, 10*time.Minute)
	require.Equal(t, Registering, x.Binding().State)
	says := func(after time.Duration) State {
		now = worldStart.Add(after)
		x.saw(now, other, sighting{global: own, until: now.Add(10 * time.Minute)}, 0, 10*time.Minute)
		return x.Binding().State
	}
	assert.Equal(t, Registering, says(time.Second))
	assert.Equal(t, behind, x.Binding().Global)
	assert.Equal(t, Registering, says(10*time.Minute))
	assert.Equal(t, Public, says(10*time.Minute+time.Second))
	assert.Equal(t, own, x.Binding().Global)
	assert.Empty(t, x.Binding().RTRs)
}

// TestXTRList: RTRs that are none, and times that are too long, do no harm.
func TestXTRList(t *testing.T) {
	for _, minutes := range []uint32{0, 1, 0xffffffff} {
		x, err := NewXTR(XTRConfig{Local: worldLocal, Servers: []netip.AddrPort{worldMS}, Registrar: &worldRegistrar{key: worldKey}, XTRID: worldXTRID})
		require.NoError(t, err)
		now := worldStart
		x.Advance(now)
		var list []lisp.Address
		for _, a := range []string{"0.0.0.0", "224.0.0.1", "255.255.255.255", worldLocal.String(), "198.51.100.11", "198.51.100.11", "2001:db8::1"} {
			list = append(list, lisp.AddressFrom(netip.MustParseAddr(a)))
		}
		nat, err := lisp.LCAFAddress(&lisp.NATTraversal{MSPort: 4342, ETRPort: 7, GlobalETR: lisp.AddressFrom(worldNAT), RTRs: list})
		require.NoError(t, err)
		for n := range x.asked {
			m := lisp.InfoReply{Nonce: n, TTL: minutes, MaskLen: 32, EID: lisp.AddressFrom(worldEID.Addr()), NAT: nat}
			b, err := m.AppendSigned(nil, worldKey)
			require.NoError(t, err)
			require.True(t, x.Handle(now, lisp.Datagram{Local: netip.AddrPortFrom(worldLocal, 4342), Remote: worldMS, Bytes: b}))
		}
		assert.Equal(t, []netip.Addr{worldRTR(0)}, x.Binding().RTRs)
		until := x.seen[worldMS].until.Sub(now)
		assert.GreaterOrEqual(t, until, time.Minute)
		assert.LessOrEqual(t, until, 24*time.Hour)
		if minutes > 1 {
			assert.Equal(t, 24*time.Hour, until)
		}
	}
}

// TestXTRMovingAndSilent: a NAT that has another port for us with each Info-Request
// doesn't keep a silent RTR in use.
func TestXTRMovingAndSilent(t *testing.T) {
	w := newXTRWorld(t, 1, 2, fastLink, XTRConfig{MinKeepAlive: 25 * time.Second},
		behind(fastLink, netsim.NATConfig{Kind: netsim.Symmetric, Timeout: time.Second}, nil))
	w.net.Run(time.Minute)
	require.Equal(t, worldRTR(1), w.xtr.Binding().RTR)
	require.Positive(t, w.xtr.moves)
	w.rtrAt[1].SetDown(true)
	begin := w.net.Now()
	require.True(t, w.net.RunUntil(10*time.Minute, func() bool { return w.xtr.Binding().RTR == worldRTR(0) }))
	assert.Less(t, w.net.Now().Sub(begin), 2*25*time.Second)
}
