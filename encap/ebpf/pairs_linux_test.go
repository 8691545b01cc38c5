package ebpf

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// Every pair of eBPF and user space carries TCP and UDP in both directions, in all
// combinations of families, in the formats and with and without an Instance ID;
// and what the kernel can do the kernel does.
func TestPairs(t *testing.T) {
	for _, c := range []struct {
		iid    uint32
		format mapcache.Format
	}{{0, mapcache.FormatLISP}, {0xabcdef, mapcache.FormatLISP}, {7, mapcache.FormatGPE}, {7, mapcache.FormatVXLANGPE}} {
		for _, kinds := range [][2]backend{{inKernel, inKernel}, {inKernel, inUser}, {inUser, inKernel}} {
			t.Run(fmt.Sprintf("%v %d %v to %v", c.format, c.iid, kinds[0], kinds[1]), func(t *testing.T) {
				p := newPair(t, netlab.LinkConfig{}, kinds, c.iid, c.format, nil)
				for _, f := range families {
					for _, n := range []int{0, 1, 100, 1372} {
						exchange(t, p.link.A.Host, p.link.B.Host, f.a, f.b, n)
						exchange(t, p.link.B.Host, p.link.A.Host, f.b, f.a, n)
					}
					transfer(t, p.link.A.Host, p.link.B.Host, f.a, f.b, 4<<20)
				}
				for i, n := range p.nodes {
					s := n.stats()
					t.Logf("%d: encap %v of %v, decap %v of %v, slow %v", i, s.KernelEncapsulated, s.Encapsulated, s.KernelDecapsulated, s.Decapsulated, s.Slow)
					assert.Equal(t, [encap.NumDropReasons]uint64{}, s.Drops)
					if n.kernel == nil {
						continue
					}
					assert.Equal(t, s.Encapsulated, s.KernelEncapsulated)
					if kinds[1-i] == inKernel {
						assert.Equal(t, s.Decapsulated, s.KernelDecapsulated)
						assert.Equal(t, [NumSlowReasons]uint64{}, s.Slow)
					}
				}
			})
		}
	}
}
