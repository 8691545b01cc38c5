package node

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// TestSameAddressTwice: two modems of one kind may give their hosts the same address.
// It is one locator, by the interface that can be used.
func TestSameAddressTwice(t *testing.T) {
	t.Parallel()
	cfg := parse(t, "database-mapping { eid-prefix = 198.51.100.1/32 rloc-iface { interface = 'wwan*' priority = 3 weight = 4 } }")
	a := addr("192.168.8.100")
	for _, tc := range []struct {
		name   string
		up     [2]bool
		index  int
		usable bool
	}{
		{"both", [2]bool{true, true}, 2, true},
		{"the first", [2]bool{true, false}, 2, true},
		{"the second", [2]bool{false, true}, 3, true},
		{"none", [2]bool{}, 2, false},
	} {
		var ifs []multihome.Interface
		for i, name := range []string{"wwan0", "wwan1"} {
			gw := &multihome.Route{IfIndex: 2 + i, Gateway: addr("192.168.8.1")}
			ifs = append(ifs, multihome.Interface{Index: 2 + i, Name: name, Up: tc.up[i], IPv4: []netip.Addr{a}, Default4: gw})
		}
		locals, _ := locatorsOf(cfg, ifs)
		assert.Equal(t, []mapcache.Local{{IfIndex: tc.index, Addr: a, Priority: 3, Weight: 4, Up: tc.usable}}, locals, tc.name)
	}
}

// TestOtherInterfacesCostNothing: a handover does not wait until the system was asked
// for each interface of a host with many containers.
func TestOtherInterfacesCostNothing(t *testing.T) {
	cfg := parse(t, "database-mapping { eid-prefix = 198.51.100.1/32 interface = eth0 }")
	cost := func(others int) float64 {
		ifs := hostOf()
		for i := range others {
			ifs = append(ifs, multihome.Interface{Index: 100 + i, Name: fmt.Sprint("veth", i)})
		}
		return testing.AllocsPerRun(1, func() { eidsOfUplinks(cfg, ifs) })
	}
	assert.Less(t, cost(1000)-cost(0), 5*1000.)
}
