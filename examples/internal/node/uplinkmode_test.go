package node

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/multihome"
)

// TestLegacyMode: packets leave by the best default route, whatever the
// priorities say, which are announced all the same.
func TestLegacyMode(t *testing.T) {
	t.Parallel()
	ifs := hostOf()
	ifs[0].Default4, ifs[0].Default6 = &multihome.Route{Metric: 200}, &multihome.Route{Metric: 5}
	ifs[1].Default4 = &multihome.Route{Metric: 100}
	const src = `database-mapping { eid-prefix = 198.51.100.1/32
		rloc-iface { interface = eth0 priority = 1 } rloc-iface { interface = eth0 ip_version = 6 }
		rloc-iface { interface = wlan0 priority = 2 weight = 7 } rloc-iface { interface = eth1 priority = 0 } }`
	sends := func(src string) (by []string) {
		cfg := parse(t, src)
		locals, _ := locatorsOf(cfg, ifs)
		ls := sendBy(cfg, locals, ifs)
		assert.Len(t, ls, 4)
		for _, remote := range []string{"203.0.113.99", "2001:db8::99"} {
			i, ok := mapcache.ChooseLocal(ls, addr(remote), 1)
			assert.True(t, ok)
			by = append(by, ls[i].Addr.String())
		}
		return by
	}
	assert.Equal(t, []string{"203.0.113.5", "2001:db8:ffff::5"}, sends(src))
	assert.Equal(t, []string{"192.0.2.9", "2001:db8:ffff::5"}, sends("uplink-mode = legacy\n"+src))
	ifs[0].Default4.Metric = 50
	assert.Equal(t, []string{"203.0.113.5", "2001:db8:ffff::5"}, sends("uplink-mode = legacy\n"+src), "it follows")
	ifs[0].Up = false
	cfg := parse(t, "uplink-mode = legacy\n"+src)
	locals, _ := locatorsOf(cfg, ifs)
	_, ok := mapcache.ChooseLocal(sendBy(cfg, locals, ifs), addr("2001:db8::99"), 1)
	assert.False(t, ok, "no interface for it")

	// Others are told what the file says.
	db := database(cfg, ifs, nil)
	assert.Len(t, db[0].RLOCs, 4)
	assert.EqualValues(t, 7, db[0].RLOCs[2].Weight)
	assert.EqualValues(t, 2, db[0].RLOCs[2].Priority)
	assert.Empty(t, database(parse(t, src), ifs, nil)[0].RLOCs, "without, what is sent from is announced")
}
