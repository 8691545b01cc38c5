package encap

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/mapcache"
)

// TestFramesOnTheWire: Ethernet frames in both formats, over both families, in both
// directions and up to the largest, beside IP packets.
func TestFramesOnTheWire(t *testing.T) {
	for _, format := range []mapcache.Format{mapcache.FormatGPE, mapcache.FormatVXLANGPE} {
		t.Run(fmt.Sprint(format), func(t *testing.T) {
			arrived := [2]chan []byte{make(chan []byte, 1), make(chan []byte, 1)}
			m := newMatrix(t, format, 1500, func(host int, c *Config) {
				c.Overlays[0].Ethernet = func(_ netip.AddrPort, b []byte) { arrived[host] <- clone(b) }
			})
			for from := range 2 {
				to := 1 - from
				for i, rloc := range []string{fmt.Sprintf("198.51.%d.2", to+1), fmt.Sprintf("2001:db8:%d::2", to+1)} {
					dst := mapcache.MAC{2, 5: byte(to<<1 | i)}
					x := m.xtrs[from]
					require.NoError(t, x.cache.Insert(time.Now(), macTo(0, dst, rloc, format)))
					x.cache.Publish()
					for _, n := range []int{2, 46, 600, 1500 - Overhead(addr(rloc)) - 12} {
						frame := frameTo(dst, make([]byte, n)...)
						frame[len(frame)-1] = byte(n)
						require.NoError(t, x.SendFrame(0, frame))
						select {
						case got := <-arrived[to]:
							require.Equal(t, frame, got)
						case <-time.After(waitTime):
							require.FailNow(t, "no frame", "%d octets to %s", n, rloc)
						}
					}
					require.ErrorIs(t, x.SendFrame(0, frameTo(dst, make([]byte, 1500-Overhead(addr(rloc))-11)...)), ErrTooBig)
				}
			}
			m.hosts[0].MustRun("ping", "-c", "1", "-W", "60", "-I", "10.1.0.1", "10.2.0.1")
			for _, x := range m.xtrs {
				s := x.Stats()
				assert.EqualValues(t, 2, s.Drops[DropTooBig])
				s.Drops[DropTooBig] = 0
				assert.Equal(t, [NumDropReasons]uint64{}, s.Drops)
			}
		})
	}
}
