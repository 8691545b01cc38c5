package ebpf

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// A tunnel of the host's own over the overlay works: the kernel puts no third header
// around large segments that are in two already, and nothing is lost by that.
func TestTunnelInTunnel(t *testing.T) {
	p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, 0, mapcache.FormatLISP, nil)
	f := families[0]
	for i, n := range p.nodes {
		own, other := f.a, f.b
		if i == 1 {
			own, other = other, own
		}
		n.host.MustRun("ip", "link", "add", "vx0", "mtu", "1350", "up", "type", "vxlan", "id", "5", "dstport", "4789", "local", own, "remote", other)
		n.host.MustRun("ip", "addr", "add", []string{"192.0.2.1/24", "192.0.2.2/24"}[i], "dev", "vx0")
	}
	transfer(t, p.nodes[0].host, p.nodes[1].host, "192.0.2.1", "192.0.2.2", 4<<20)
	for _, n := range p.nodes {
		s := n.stats()
		assert.NotZero(t, s.KernelEncapsulated.Packets)
		assert.NotZero(t, s.Slow[SlowHeader])
		assert.Equal(t, [encap.NumDropReasons]uint64{}, s.Drops)
	}
}
