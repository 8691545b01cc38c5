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
		for _, kinds := range [][2]backend{{inKernel, inKernel}, {inKernel, inUser}, {inUser, inKernel}, {inUser, inUser}} {
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

// The kernel's own VXLAN-GPE device is a peer of both, in both directions and on either
// port; what it leaves to a network card does no harm. With TestPairs these are all
// pairs of the three.
func TestKernelGPEDevice(t *testing.T) {
	for _, format := range []mapcache.Format{mapcache.FormatGPE, mapcache.FormatVXLANGPE} {
		for _, kind := range backends {
			testKernelGPEDevice(t, kind, format)
		}
	}
}

func testKernelGPEDevice(t *testing.T, kind backend, format mapcache.Format) {
	t.Run(fmt.Sprintf("%v with %v", format, kind), func(t *testing.T) {
		p := newPair(t, netlab.LinkConfig{}, [2]backend{kind, ""}, 9, format, nil)
		h := p.link.B.Host
		h.MustRun("ip", "link", "add", "vx", "type", "vxlan", "external", "gpe", "dstport", fmt.Sprint(format.Port()), "udp6zerocsumrx", "udp6zerocsumtx")
		h.MustRun("ip", "link", "set", "vx", "mtu", "1400", "up")
		for _, f := range families {
			h.MustRun("ip", "addr", "add", host(f.b), "dev", "lo", "nodad")
			kind := "ip"
			if addr(f.rlocA).Is6() {
				kind = "ip6"
			}
			h.MustRun("ip", "route", "add", host(f.a), "encap", kind, "id", "9", "dst", f.rlocA, "hoplimit", "64", "dev", "vx", "src", f.b)
		}
		a := p.link.A.Host
		for _, f := range families {
			for _, octets := range []int{1, 1300} {
				exchange(t, a, h, f.a, f.b, octets)
				exchange(t, h, a, f.b, f.a, octets)
			}
			transfer(t, a, h, f.a, f.b, 4<<20)
			transfer(t, h, a, f.b, f.a, 4<<20)
		}
		s := p.nodes[0].stats()
		if kind == inKernel {
			assert.Equal(t, s.Encapsulated, s.KernelEncapsulated)
			assert.Equal(t, s.Decapsulated, s.KernelDecapsulated)
		}
		assert.NotZero(t, s.Encapsulated.Packets)
		assert.NotZero(t, s.Decapsulated.Packets)
		assert.Equal(t, [encap.NumDropReasons]uint64{}, s.Drops)
	})
}
