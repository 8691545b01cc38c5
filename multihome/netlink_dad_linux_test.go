package multihome_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xtrkit/xtrkit/multihome"
)

// flagsOf returns what the kernel says of an IPv6 address of the first uplink.
func (h *host) flagsOf(a netip.Addr) int {
	h.t.Helper()
	addrs, err := h.Netlink().AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: h.links[0].A.Index}}, netlink.FAMILY_V6)
	require.NoError(h.t, err)
	for _, x := range addrs {
		if ip, _ := netip.AddrFromSlice(x.IP); ip == a {
			return x.Flags
		}
	}
	require.Fail(h.t, "no such address", "%v", a)
	return 0
}

// TestNetlinkAddressStates: an IPv6 address is no locator while duplicate detection
// goes on, nor if it finds one; a deprecated one is after the others.
func TestNetlinkAddressStates(t *testing.T) {
	h := newHost(t)
	h.usable("v4,v6 -")
	first, second, taken := netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("2001:db8:1::77"), netip.MustParseAddr("2001:db8:1::1")
	h.Sysctl("net/ipv6/conf/"+h.name(0)+"/accept_dad", "1")
	name := h.name(0)
	h.MustRun("ip", "addr", "add", taken.String()+"/64", "dev", name) // the router has it
	h.MustRun("ip", "addr", "add", second.String()+"/64", "dev", name)
	h.until("the second address", func(c multihome.Change) bool {
		assert.NotContains(t, c.Interfaces[0].IPv6, taken)
		return len(c.Interfaces[0].IPv6) == 2
	})
	assert.ElementsMatch(t, []netip.Addr{first, second}, h.last.Interfaces[0].IPv6)
	assert.Zero(t, h.flagsOf(second)&unix.IFA_F_TENTATIVE, "not told before the detection has ended")
	require.NoError(t, h.Await(t.Context(), "the duplicate to be found", func(*netlink.Handle) (bool, error) {
		return h.flagsOf(taken)&unix.IFA_F_DADFAILED != 0, nil
	}))

	best, other := h.last.Interfaces[0].IPv6[0], h.last.Interfaces[0].IPv6[1]
	h.MustRun("ip", "addr", "change", best.String()+"/64", "dev", name, "valid_lft", "forever", "preferred_lft", "0")
	h.until("the best address to be the worse one", func(c multihome.Change) bool {
		return assert.NotContains(t, c.Interfaces[0].IPv6, taken) && c.Interfaces[0].IPv6[0] == other
	})
	assert.Equal(t, []netip.Addr{other, best}, h.last.Interfaces[0].IPv6)
	h.MustRun("ip", "addr", "del", other.String()+"/64", "dev", name)
	h.until("the deprecated one alone", func(c multihome.Change) bool { return len(c.Interfaces[0].IPv6) == 1 })
	assert.Equal(t, []netip.Addr{best}, h.last.Interfaces[0].IPv6, "better than none")
	assert.Equal(t, multihome.Usable, h.last.Interfaces[0].Usable(true))
}

// TestNetlinkOverrun: the kernel had more to tell than there was room for. The next
// Snapshot is what there is then, and ours may be lost.
func TestNetlinkOverrun(t *testing.T) {
	h := newHost(t)
	h.usable("v4,v6 -")
	var source *multihome.Netlink
	require.NoError(t, h.Do(func() (err error) {
		source, err = multihome.NewNetlink(multihome.NetlinkConfig{Protocol: ours})
		return err
	}))
	defer source.Close()
	snap, err := source.Next(t.Context())
	require.NoError(t, err)
	require.False(t, snap.Lost)
	for i := 0; source.Overruns() == 0; i++ {
		require.Less(t, i, 100, "nothing was lost")
		for range 100 { // while nobody listens
			h.links[1].A.AddAddr("10.0.7.7/24")
			h.links[1].A.DelAddr("10.0.7.7/24")
		}
		h.links[1].A.AddAddr("10.0.8.8/24")
		snap, err = source.Next(t.Context())
		require.NoError(t, err)
		has := func(a string) bool {
			for _, x := range snap.Addrs {
				if x.Addr == netip.MustParseAddr(a) {
					return true
				}
			}
			return false
		}
		assert.True(t, has("10.0.8.8"))
		assert.False(t, has("10.0.7.7"))
		h.links[1].A.DelAddr("10.0.8.8/24")
	}
	assert.True(t, snap.Lost)
}
