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

var relayed = netip.MustParseAddrPort("198.51.100.77:20001")

func relayChange(global ...netip.AddrPort) natt.RelayChange {
	c := natt.RelayChange{Prefix: peerEID}
	for i, g := range global {
		c.Relays = append(c.Relays, natt.Relay{Prefix: peerEID, Global: g, IfIndex: 1, Priority: uint8(i + 1), Weight: 50})
	}
	return c
}

// TestRelays: what is registered with an RTR is reached by the translated
// address and port, probed by nothing.
func TestRelays(t *testing.T) {
	tc := up(t)
	second := netip.MustParseAddrPort("198.51.100.78:4341")
	tc.e.SetRelays(tc.now, relayChange(relayed, second))
	tc.drain()
	d := tc.forward(peerEID.Addr())
	assert.Equal(t, mapcache.Encapsulate, d.Verdict)
	want := mapcache.Locator{Addr: relayed.Addr(), Port: relayed.Port(), IfIndex: 1, NAT: true}
	assert.Equal(t, want, d.Locator) // RFC nat19-5.3.1-s1
	tc.advance(5 * time.Minute)
	for _, s := range take[*lisp.MapRequest](tc) {
		assert.NotEqual(t, relayed.Addr(), s.Remote.Addr(), "no probe can be answered through a NAT")
	}
	assert.Equal(t, want, tc.forward(peerEID.Addr()).Locator, "for as long as the RTR has it")

	tc.e.SetRelays(tc.now, relayChange(second))
	assert.Equal(t, second.Port(), tc.forward(peerEID.Addr()).Locator.Port)
	tc.e.SetRelays(tc.now, relayChange())
	assert.Equal(t, mapcache.Miss, tc.forward(peerEID.Addr()).Verdict)
	tc.e.SetRelays(tc.now, relayChange())
	tc.e.SetRelays(tc.now, natt.RelayChange{})
	assert.Empty(t, tc.e.relays)
}

// TestRelayStays: the mapping system says that the RTR has to be asked for its
// nodes; that is no news to it. What leads elsewhere is.
func TestRelayStays(t *testing.T) {
	smr := &lisp.MapRequest{
		SMR: true, DontMapReply: true, SourceEID: lisp.AddressFrom(peerEID.Addr()), ITRRLOCs: []lisp.Address{lisp.AddressFrom(relayed.Addr())},
		Records: []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(eid4.Addr())}},
	}
	for _, how := range []struct {
		name string
		ask  func(tc *tester)
	}{
		{"by SMR", func(tc *tester) {
			require.True(t, tc.handle(netip.MustParseAddrPort("198.51.100.99:4342"), encode(t, smr)))
		}}, // RFC nat19i-5.5-2
		{"by the RTR", func(tc *tester) {
			c := relayChange(relayed)
			c.Resolve = true
			tc.e.SetRelays(tc.now, c) // RFC nat19i-5.3-10
			tc.drain()
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			tc := up(t, quiet)
			tc.e.SetRelays(tc.now, relayChange(relayed))
			for _, elsewhere := range []bool{false, true} {
				tc.advance(time.Minute)
				take[*lisp.MapRequest](tc)
				how.ask(tc)
				_, m := one[*lisp.MapRequest](tc)
				assert.Equal(t, relayed.Port(), tc.forward(peerEID.Addr()).Locator.Port, "until the answer")
				if !elsewhere {
					require.True(t, tc.answer(m.Nonce, record(peerEID.String(), 60, rloc4)))
					assert.Equal(t, relayed.Port(), tc.forward(peerEID.Addr()).Locator.Port) // RFC nat19-5.5-s1
					assert.Empty(t, eventsOf[RelayMoved](tc))
					continue
				}
				require.True(t, tc.answer(m.Nonce, record(peerEID.String(), 60, peerRLOC)))
				d := tc.forward(peerEID.Addr())
				assert.Equal(t, mapcache.Locator{Addr: peerRLOC, Port: 4341}, d.Locator) // RFC nat19i-5.5-3, nat19i-5.5-6
				moved := eventsOf[RelayMoved](tc)
				require.Len(t, moved, 1)
				assert.Equal(t, hostKey(peerEID), moved[0].EID)
				tc.e.SetRelays(tc.now, relayChange()) // as the RTR does when it is told
				assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
			}
		})
	}
}

// TestRelayMovedAfterSMR: the rest after an SMR is for SMRs. What a Map-Server says is
// asked about after the second that is between any two Map-Requests for an EID-Prefix;
// if another SMR came meanwhile it waits for both.
func TestRelayMovedAfterSMR(t *testing.T) {
	smr := &lisp.MapRequest{
		SMR: true, DontMapReply: true, SourceEID: lisp.AddressFrom(peerEID.Addr()), ITRRLOCs: []lisp.Address{lisp.AddressFrom(relayed.Addr())},
		Records: []lisp.RequestRecord{{MaskLen: 32, EID: lisp.AddressFrom(eid4.Addr())}},
	}
	for _, again := range []bool{false, true} {
		tc := up(t, quiet)
		c := relayChange(relayed)
		tc.e.SetRelays(tc.now, c)
		tc.advance(time.Minute)
		take[*lisp.MapRequest](tc)
		solicited := func() { require.True(t, tc.handle(netip.MustParseAddrPort("198.51.100.99:4342"), encode(t, smr))) }
		solicited()
		_, m := one[*lisp.MapRequest](tc)
		require.True(t, tc.answer(m.Nonce, record(peerEID.String(), 60, rloc4)))
		tc.advance(200 * time.Millisecond)
		if again {
			solicited()
		}
		c.Resolve = true
		tc.e.SetRelays(tc.now, c)
		tc.advance(700 * time.Millisecond)
		assert.Empty(t, take[*lisp.MapRequest](tc), "a second is not over")
		tc.advance(200 * time.Millisecond)
		if again {
			assert.Empty(t, take[*lisp.MapRequest](tc))
			tc.advance(2 * time.Second)
		}
		_, m = one[*lisp.MapRequest](tc)
		require.True(t, tc.answer(m.Nonce, record(peerEID.String(), 60, peerRLOC)))
		assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
	}
}

// TestRelayStatic: a configured mapping wins.
func TestRelayStatic(t *testing.T) {
	tc := up(t, quiet, func(c *Config) {
		c.StaticMappings = []mapcache.Mapping{{Key: hostKey(peerEID), RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: peerRLOC}, Priority: 1}}}}
	})
	tc.e.SetRelays(tc.now, relayChange(relayed))
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
	tc.e.SetRelays(tc.now, relayChange())
	assert.Equal(t, peerRLOC, tc.forward(peerEID.Addr()).Locator.Addr)
}
