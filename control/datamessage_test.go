package control_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
)

// TestRunnerHandleData: what came to the data port goes to the xTR and the RTR,
// never to a Map-Server; the octets are copied, and what is too much is dropped
// and counted.
func TestRunnerHandleData(t *testing.T) {
	inBubble(t, func(b *bubble) {
		t := b.t
		all := func(lisp.Datagram) bool { return true }
		xtr, rtr, ms := &scripted{}, &scripted{claims: all}, &scripted{claims: all}
		r := b.run(control.RunnerConfig{
			Conn:  b.conn("x", rlocA),
			Cores: map[control.Role]control.Core{control.RoleXTR: xtr, control.RoleRTR: rtr, control.RoleMapServer: ms},
		})
		bytes := []byte{8, 0, 0, 0, 0xff, 0xff, 0xff, 0, 1}
		d := lisp.Datagram{Local: netip.AddrPortFrom(rlocA, lisp.DataPort), Remote: netip.AddrPortFrom(rlocB, lisp.ControlPort), Bytes: bytes}
		r.HandleData(d)
		bytes[8] = 2
		synctest.Wait()
		require.NoError(t, r.Do(t.Context(), func(time.Time) {
			require.Len(t, rtr.handled, 1)
			assert.Equal(t, uint8(1), rtr.handled[0].Bytes[8])
			assert.Equal(t, d.Remote, rtr.handled[0].Remote)
			rtr.claims = nil
		}))
		r.HandleData(d)
		synctest.Wait()
		assert.Equal(t, uint64(2), r.Stats().Received)
		assert.Equal(t, uint64(1), r.Stats().Unclaimed)

		d.Bytes = make([]byte, 17<<10)
		r.HandleData(d)
		assert.Equal(t, uint64(1), r.Stats().Oversize)

		d.Bytes = bytes
		require.NoError(t, r.Do(t.Context(), func(time.Time) {
			for range 1000 { // while the loop is busy
				r.HandleData(d)
			}
		}))
		synctest.Wait()
		st := r.Stats()
		assert.Equal(t, uint64(1002), st.Received+st.DataDropped)
		assert.Equal(t, uint64(872), st.DataDropped)
		require.NoError(t, r.Do(t.Context(), func(time.Time) { assert.Empty(t, ms.handled) }))
		require.NoError(t, r.Close())
	})
}
