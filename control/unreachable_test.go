package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// An ICMP error about packets to a locator is a reason to probe it now, and no
// more: anybody may have made it up.
func TestUnreachable(t *testing.T) {
	tc := up(t, prober)
	rec := record("198.51.100.0/24", 1440, peerRLOC)
	tc.learn(hostKey(peerEID), rec)
	tc.advance(2 * time.Second)
	p := tc.probes()
	require.NotEmpty(t, p)
	tc.answerProbe(p[len(p)-1], rec)
	tc.advance(4 * time.Second)
	tc.probes()
	said := mapcache.Discovery{Kind: mapcache.DiscoveryUnreachable, Locator: mapcache.Locator{Addr: peerRLOC, Port: 4341}}
	other := said
	other.Locator.Addr = netip.MustParseAddr("192.0.2.99")
	for range 5 {
		tc.discover(said)
		tc.discover(other)
	}
	assert.Equal(t, mapcache.Encapsulate, tc.forward(peerEID.Addr()).Verdict, "believed only when a probe says so")
	tc.advance(2 * time.Millisecond)
	p = tc.probes()
	require.Len(t, p, 1)
	assert.Equal(t, peerRLOC, p[0].Remote.Addr())
}

// A source without a mapping is asked for.
func TestUnknownSource(t *testing.T) {
	tc := up(t, prober)
	eid := netip.MustParseAddr("198.51.100.77")
	tc.sent = nil
	tc.discover(mapcache.Discovery{Kind: mapcache.DiscoverySource, Key: mapcache.HostKey(0, eid), Source: eid})
	require.Len(t, tc.sent, 1)
	m, ok := tc.sent[0].msg.(*lisp.MapRequest)
	require.True(t, ok)
	got, _ := m.Records[0].EID.IP()
	assert.Equal(t, eid, got)
}
