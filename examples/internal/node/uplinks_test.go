package node

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestOnlyLoses: what is lost may be told before routes are changed, what is new or
// used otherwise may not.
func TestOnlyLoses(t *testing.T) {
	t.Parallel()
	local := func(i byte, up bool) mapcache.Local {
		return mapcache.Local{IfIndex: int(i), Addr: netip.AddrFrom4([4]byte{10, 0, 0, i}), Priority: 1, Up: up}
	}
	before := []mapcache.Local{local(1, true), local(2, true), local(3, false)}
	worse := local(2, true)
	worse.Priority = 2
	moved := local(2, true)
	moved.IfIndex = 9
	for _, tc := range []struct {
		what string
		now  []mapcache.Local
		want bool
	}{
		{"nothing", before, true},
		{"a link", []mapcache.Local{local(1, false), local(2, true), local(3, false)}, true},
		{"an address", []mapcache.Local{local(2, true)}, true},
		{"everything", nil, true},
		{"a link is back", []mapcache.Local{local(1, true), local(2, true), local(3, true)}, false},
		{"one for another", []mapcache.Local{local(1, false), local(2, true), local(4, true)}, false},
		{"another priority", []mapcache.Local{local(1, false), worse}, false},
		{"another interface", []mapcache.Local{local(1, false), moved}, false},
	} {
		assert.Equal(t, tc.want, onlyLoses(before, tc.now), tc.what)
	}
}
