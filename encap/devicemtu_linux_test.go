package encap

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestUplinkMTU: the MTU of the device follows that of an uplink at once, down and
// up again, and packets of that size get through.
func TestUplinkMTU(t *testing.T) {
	m := newMatrix(t, mapcache.FormatLISP, 1500)
	x := m.xtrs[0]
	for _, mtu := range []int{1400, 1500, 1300, 1480} {
		m.uplink[0].A.SetMTU(mtu)
		want := max(mtu-overhead6, minIPv6MTU)
		require.NoError(t, netlab.Eventually(t.Context(), fmt.Sprintf("the MTU %d", want), func() bool { return x.tun.MTU() == want }))
		require.Equal(t, mtu, x.locals.Load().mtus[0])
	}
	room := x.tun.MTU()
	m.hosts[0].MustRun("ping", "-c", "1", "-W", "60", "-M", "do", "-s", fmt.Sprint(room-28), "-I", "10.1.1.1", "10.2.1.1")
	require.Equal(t, [NumDropReasons]uint64{}, x.Stats().Drops)
}
