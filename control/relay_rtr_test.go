package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// asked resolves peerEID and returns the nonce of the Map-Request.
func (tc *tester) asked() lisp.Nonce {
	tc.t.Helper()
	take[*lisp.MapRequest](tc)
	tc.e.Resolve(tc.now, []mapcache.Key{mapcache.HostKey(0, peerEID.Addr())})
	tc.drain()
	_, m := one[*lisp.MapRequest](tc)
	return m.Nonce
}

// TestRelayNegative: a Map-Server that has just started says that nobody is there.
// The node, which is heard of, knows better.
func TestRelayNegative(t *testing.T) {
	tc := up(t, quiet)
	c := relayChange(relayed)
	tc.e.SetRelays(tc.now, c)
	c.Resolve = true
	tc.e.SetRelays(tc.now, c)
	tc.drain()
	_, m := one[*lisp.MapRequest](tc)
	require.True(t, tc.answer(m.Nonce, record(peerEID.String(), 1)))
	assert.Equal(t, relayed.Port(), tc.forward(peerEID.Addr()).Locator.Port)
	assert.Empty(t, tc.e.takeMoved())
}

// TestRTRLoop: a mapping that leads to the RTR itself, which has no such node, has
// packets dropped for a while; another locator of it is used.
func TestRTRLoop(t *testing.T) {
	tc := up(t, quiet)
	tc.e.SetRTR(nil)
	require.True(t, tc.answer(tc.asked(), record(peerEID.String(), 60, rloc4)))
	assert.Equal(t, mapcache.Drop, tc.forward(peerEID.Addr()).Verdict)
	tc.advance(loopTTL + time.Second)
	assert.Equal(t, mapcache.Miss, tc.forward(peerEID.Addr()).Verdict, "asked again by the next packet")
	require.True(t, tc.answer(tc.asked(), record(peerEID.String(), 60, rloc4, peerRLOC)))
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
}

// TestHosts: an RTR reaches hosts of lispers.net by the port that their
// Info-Requests come from, not by that of the mapping.
func TestHosts(t *testing.T) {
	at := relayed
	tc := up(t, quiet)
	tc.e.SetRTR(func(name string, global netip.Addr) (netip.AddrPort, bool) {
		return at, name == "vm" && global == relayed.Addr()
	})
	var name lisp.Address
	require.NoError(t, name.UnmarshalBinary(append([]byte{0, 17}, "vm@tp-25400\x00"...)))
	both, err := lisp.LCAFAddress(&lisp.AFIList{Addresses: []lisp.Address{lisp.AddressFrom(relayed.Addr()), name}})
	require.NoError(t, err)
	rec := record(peerEID.String(), 60, peerRLOC)
	rec.Locators[0].RLOC = both
	require.True(t, tc.answer(tc.asked(), rec))
	d := tc.forward(peerEID.Addr())
	assert.Equal(t, mapcache.Locator{Addr: relayed.Addr(), Port: relayed.Port(), NAT: true}, d.Locator)

	// It sends from another port.
	at = netip.AddrPortFrom(relayed.Addr(), 30000)
	tc.e.SetHost(tc.now, natt.NameChange{Name: "vm", Before: relayed, Since: at})
	tc.drain()
	d = tc.forward(peerEID.Addr())
	assert.Equal(t, mapcache.Locator{Addr: relayed.Addr(), Port: 30000, NAT: true}, d.Locator)
	ent, ok := tc.e.Cache().Get(hostKey(peerEID))
	require.True(t, ok)
	assert.Equal(t, tc.now.Add(time.Hour), ent.Expires)
	tc.e.SetHost(tc.now, natt.NameChange{Name: "vm", Before: at})
	assert.Equal(t, mapcache.Encapsulate, tc.forward(peerEID.Addr()).Verdict)

	// One that is not known here is reached by nobody else's port either.
	rec.Locators[0].RLOC, err = lisp.LCAFAddress(&lisp.AFIList{Addresses: []lisp.Address{lisp.AddressFrom(peerRLOC), name}})
	require.NoError(t, err)
	tc.advance(2 * time.Hour)
	require.True(t, tc.answer(tc.asked(), rec))
	assert.Equal(t, mapcache.Drop, tc.forward(peerEID.Addr()).Verdict)
}
