package ebpf

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// A new EID is the kernel's business at once, and so is one that is gone: what arrives
// for it is dropped there.
func TestSetEIDs(t *testing.T) {
	const iid = 7
	p := newPair(t, netlab.LinkConfig{}, [2]backend{inKernel, inKernel}, iid, mapcache.FormatLISP, nil)
	a, b := p.nodes[0], p.nodes[1]
	var eids []netip.Prefix
	for _, f := range families {
		eids = append(eids, prefix(host(f.a)))
	}
	const added4, added6 = "10.1.0.99", "fd00:1::99"
	for _, e := range []string{added4, added6} {
		b.insert(t, mapTo(iid, host(e), "198.51.100.1", mapcache.FormatLISP))
	}
	more := append(slices.Clip(eids), prefix(host(added4)), prefix(host(added6)))
	inKernelOnly := func(f func()) {
		t.Helper()
		before := a.stats()
		f()
		after := a.stats()
		assert.Equal(t, after.Encapsulated.Packets-before.Encapsulated.Packets, after.KernelEncapsulated.Packets-before.KernelEncapsulated.Packets)
		assert.Equal(t, after.Decapsulated.Packets-before.Decapsulated.Packets, after.KernelDecapsulated.Packets-before.KernelDecapsulated.Packets)
		assert.NotEqual(t, before.KernelDecapsulated, after.KernelDecapsulated)
	}
	refused := func(to string) {
		t.Helper()
		before := a.stats().KernelDrops[encap.DropNotOurEID]
		c, err := b.host.ListenPacket("udp", ":0")
		require.NoError(t, err)
		defer c.Close()
		_, err = c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(to), Port: 9})
		require.NoError(t, err)
		require.NoError(t, netlab.Eventually(t.Context(), "the kernel to drop it", func() bool {
			return a.stats().KernelDrops[encap.DropNotOurEID] == before+1
		}))
	}
	exchange(t, a.host, b.host, families[0].a, families[0].b, 100)
	refused(added4)
	refused(added6)
	require.NoError(t, a.tun.SetEIDs(more))
	require.NoError(t, a.host.Do(func() error { return a.kernel.SetEIDs(iid, more) }))
	for _, f := range []flow{{"", added4, families[0].b, "", ""}, {"", added6, families[1].b, "", ""}, families[0], families[1]} {
		inKernelOnly(func() {
			exchange(t, a.host, b.host, f.a, f.b, 100)
			exchange(t, b.host, a.host, f.b, f.a, 100)
		})
	}
	// One that cannot be changes nothing.
	require.ErrorContains(t, a.kernel.SetEIDs(iid, append(eids, netip.Prefix{})), "is not a plain prefix")
	require.ErrorContains(t, a.kernel.SetEIDs(8, nil), "there is no instance 8")
	exchange(t, b.host, a.host, families[0].b, added4, 100)

	require.NoError(t, a.tun.SetEIDs(eids))
	require.NoError(t, a.host.Do(func() error { return a.kernel.SetEIDs(iid, eids) }))
	refused(added4)
	refused(added6)
	inKernelOnly(func() { exchange(t, b.host, a.host, families[0].b, families[0].a, 100) })
	require.NoError(t, a.host.Do(a.kernel.Close))
	assert.ErrorIs(t, a.kernel.SetEIDs(iid, eids), net.ErrClosed)
}
