package control_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/internal/netsim"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// TestNATMessageSize: a Map-Register by an RTR is no larger than any message of ours,
// whatever other locators its records have.
func TestNATMessageSize(t *testing.T) {
	for _, variant := range []natt.Variant{natt.Draft19, natt.Old, natt.LispersNet} {
		for locals := 1; locals <= 3; locals++ {
			w := newNATWorld(t, func(c *control.Config) {
				c.NAT.Variant = variant
				for i := range 100 { // more locators than one message has room for
					c.Database[0].RLOCs = append(c.Database[0].RLOCs, control.DatabaseRLOC{Addr: netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}), Remote: true})
				}
				for i := range 60 {
					p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), 32)
					c.Database = append(c.Database, control.DatabaseMapping{Key: mapcache.Key{Prefix: p}, TTL: 10 * time.Minute})
				}
			})
			var in []*netsim.Interface
			for i := range locals {
				_, at := w.behind("nat", netip.AddrFrom4([4]byte{203, 0, 113, byte(7 + i)}), netip.AddrFrom4([4]byte{10, byte(i), 0, 2}), netsim.NATConfig{Kind: netsim.Symmetric, Timeout: 30 * time.Second})
				in = append(in, at)
			}
			w.locals(in...)
			w.net.Run(3 * time.Minute)
			most := 0
			for _, r := range w.sent {
				most = max(most, len(r.Bytes))
			}
			assert.LessOrEqual(t, most, 576-28, "%v with %d locators", variant, locals)
			assert.Greater(t, most, 300, "%v with %d locators: and not one by one", variant, locals)
			assert.Len(t, w.ms.Registrations(w.net.Now()), 61, "%v with %d locators", variant, locals)
		}
	}
}
