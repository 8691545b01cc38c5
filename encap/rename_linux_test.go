package encap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// TestRenamedUplink: the MTU of an uplink is known after it got another name.
func TestRenamedUplink(t *testing.T) {
	lab := netlab.Test(t)
	a := lab.Host("a")
	link := lab.Link(a, lab.Host("b"), netlab.LinkConfig{A: netlab.At("10.0.0.1/24"), B: netlab.At("10.0.0.2/24")})
	link.A.SetMTU(1400)
	l := mapcache.Local{Addr: addr("10.0.0.1"), IfIndex: link.A.Index, Up: true}
	var p Path
	var raw *rawSocket
	require.NoError(t, a.Do(func() (err error) {
		if p, err = (&udpUnderlay{cfg: UDPConfig{SourcePorts: 1}}).Open(l); err == nil {
			raw, err = newRawSocket(l, false)
		}
		return err
	}))
	defer p.Close()
	defer raw.close()
	require.Equal(t, 1400, p.MTU())
	require.Equal(t, 1400, raw.linkMTU())
	a.MustRun("ip", "link", "set", link.A.Name, "down")
	a.MustRun("ip", "link", "set", link.A.Name, "name", "wan0")
	assert.Equal(t, 1400, p.MTU())
	assert.Equal(t, 1400, raw.linkMTU())
}
