package control

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestNATSpared: the data plane has packets leave from a locator behind a NAT only
// if there is no other one of its family that is up.
func TestNATSpared(t *testing.T) {
	e, err := New(Config{XTRID: lisp.XTRID{1}, NAT: NATConfig{Enable: true}})
	require.NoError(t, err)
	inner := mapcache.Local{Addr: netip.MustParseAddr("10.0.0.2"), Up: true}
	public := mapcache.Local{Addr: netip.MustParseAddr("192.0.2.1"), Up: true}
	six := mapcache.Local{Addr: netip.MustParseAddr("2001:db8::1"), Up: true}
	e.nat.xtrs = []*natLocal{{Local: inner}, {Local: public}, {Local: six}}
	up := func(direct ...mapcache.Local) (out []bool) {
		e.locals = direct
		for _, l := range e.withoutSilent([]mapcache.Local{inner, public, six}) {
			out = append(out, l.Up)
		}
		return out
	}
	assert.Equal(t, []bool{false, true, true}, up(public, six)) // nat19-5.1.3-1
	assert.Equal(t, []bool{true, true, true}, up(six))
	assert.Equal(t, []bool{true, true, true}, up())
	down := public
	down.Up = false
	assert.Equal(t, []bool{true, true, true}, up(down, six))
}
