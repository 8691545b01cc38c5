package encap

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestTrace: what Trace says of packets is what becomes of them, and nothing is
// sent or counted for it.
func TestTrace(t *testing.T) {
	t.Parallel()
	x := newA(t, &memNet{}, rlocB4)
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.3.0.0/16")}, TTL: time.Hour, Action: lisp.ActionNativelyForward})
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.4.0.0/16")}, TTL: time.Hour, Action: lisp.ActionDropPolicyDenied})
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.5.0.0/16")}, TTL: time.Hour, RLOCs: []mapcache.RLOC{{Locator: mapcache.Locator{Addr: addr(rlocB4)}, Priority: 255}}})
	x.insert(t, mapcache.Mapping{Key: mapcache.Key{Prefix: prefix("10.6.0.0/16")}, TTL: time.Hour, Action: lisp.ActionSendMapRequest})
	for _, tc := range []struct {
		name, src, dst string
		drop           DropReason
		verdict        mapcache.Verdict
	}{
		{"encapsulated", eidA4, eidB4, DropNone, mapcache.Encapsulate},
		{"native", eidA4, "10.3.0.1", DropNone, mapcache.Native},
		{"denied", eidA4, "10.4.0.1", DropAction, mapcache.Drop},
		{"no locator", eidA4, "10.5.0.1", DropNoLocator, mapcache.NoLocator},
		{"ask", eidA4, "10.6.0.1", DropRequest, mapcache.SendRequest},
		{"miss", eidA4, "10.9.0.1", DropNone, mapcache.Miss},
		{"not our source", "10.9.9.9", eidB4, DropSource, mapcache.Miss},
		{"multicast", eidA4, "224.0.0.9", DropScope, mapcache.Miss},
		{"to a locator of ours", eidA4, rlocA4, DropLoop, mapcache.Miss},
	} {
		got, err := x.Trace(0, packetSpec{src: tc.src, dst: tc.dst, ttl: 9, sport: 1, dport: 2}.build(), Mark{})
		require.NoError(t, err)
		assert.Equal(t, tc.drop, got.Drop, tc.name)
		assert.Equal(t, tc.verdict, got.Verdict, tc.name)
	}
	assert.Empty(t, x.drops())
	assert.Empty(t, x.underlay.take())
	assert.Zero(t, x.Stats().HeldNow)
	_, err := x.Trace(9, nil, Mark{})
	require.ErrorContains(t, err, "no instance 9")
	got, err := x.Trace(0, packetSpec{src: eidA4, dst: eidB4, ttl: 9, sport: 1, dport: 2}.build(), Mark{})
	require.NoError(t, err)
	assert.Equal(t, addr(rlocB4), got.Locator.Addr)
	assert.Equal(t, addr(rlocA4), got.Local.Addr)
	assert.Equal(t, 1500-Overhead(addr(rlocB4)), got.MTU)
}
