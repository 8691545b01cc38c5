package natt

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestPartialLocatorsForNode: who asks from a locator of the mapping that is no RTR is
// anybody.
func TestPartialLocatorsForNode(t *testing.T) {
	rt := Route{Name: "vm", Global: netip.AddrPortFrom(worldNAT, 7), RTRs: []netip.Addr{worldRTR(0)}}
	ls := rt.LispersNetRLOCs(1, 100)
	for asker, want := range map[netip.Addr]netip.Addr{worldNAT: worldRTR(0), worldMS.Addr(): worldRTR(0), worldRTR(0): worldNAT} {
		got := PartialLocators(ls, asker)
		require.Len(t, got, 1)
		a, _, ok := NamedLocator(got[0].RLOC)
		require.True(t, ok)
		assert.Equal(t, want, a, asker)
	}
}

// TestXTRLispersNetNotify: a Map-Notify that comes straight to us is one of the
// Map-Server that was asked, or none.
func TestXTRLispersNetNotify(t *testing.T) {
	for from, want := range map[netip.AddrPort]State{
		worldMS: Registered, netip.AddrPortFrom(worldMS.Addr(), 4343): Registering, netip.AddrPortFrom(worldRTR(0), 4342): Registering,
	} {
		x, err := NewXTR(XTRConfig{
			Variant: LispersNet, Local: worldLocal, Servers: []netip.AddrPort{worldMS}, Registrar: &worldRegistrar{key: worldKey}, XTRID: worldXTRID,
		})
		require.NoError(t, err)
		now := worldStart
		x.Advance(now)
		local := netip.AddrPortFrom(worldLocal, 4341)
		for n := range x.asked {
			msg := infoReplyTo(t, n, worldEID, netip.AddrPortFrom(worldNAT, 7), worldRTR(0), lisp.Key{})
			require.True(t, x.Handle(now, lisp.Datagram{Local: local, Remote: worldMS, Bytes: msg}))
		}
		require.Len(t, x.sent, 1)
		for n := range x.sent {
			b, err := (&lisp.MapNotify{Nonce: n, XTRIDPresent: true, XTRID: worldXTRID}).AppendSigned(nil, worldKey)
			require.NoError(t, err)
			x.Handle(now, lisp.Datagram{Local: local, Remote: from, Bytes: b})
		}
		assert.Equal(t, want, x.Binding().State, from)
	}
}
