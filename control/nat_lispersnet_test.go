package control_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/control"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
	"github.com/xtrkit/xtrkit/natt"
)

// TestNATLispersNet: as lispers.net does it: Info-Requests with a host name to the
// Map-Server, and to the RTRs as data; the Map-Register straight to the Map-Server,
// with the translated address and the RTRs.
func TestNATLispersNet(t *testing.T) {
	w := newNATWorld(t, func(c *control.Config) { c.NAT.Variant, c.NAT.HostName = natt.LispersNet, "vm" })
	_, in := w.behind("nat", nat1, inner1, symmetric)
	w.locals(in)
	w.net.Run(10 * time.Minute)
	require.Equal(t, natt.Registered, w.xtr.Bindings()[0].State, w.texts())

	punches, infos, registers := 0, 0, 0
	var m lisp.MapRegister
	for _, r := range w.sent {
		assert.Equal(t, uint16(lisp.DataPort), r.From.Port(), "all from one port")
		switch {
		case r.To.Port() == lisp.DataPort:
			punches++
			assert.Equal(t, []byte{8, 0, 0, 0, 0xff, 0xff, 0xff, 0}, r.Bytes[:8])
			var info lisp.InfoRequest
			require.NoError(t, info.DecodeFromBytes(r.Bytes[8:]))
			assert.Len(t, r.Bytes, 8+29)
		case lisp.TypeOf(r.Bytes) == lisp.TypeInfo:
			infos++
			assert.Len(t, r.Bytes, 29)
			assert.Equal(t, []byte{0, 17, 'v', 'm', 0}, r.Bytes[24:])
			assert.Equal(t, make([]byte, 12), r.Bytes[12:24], "neither key nor EID-Prefix")
		default:
			registers++
			require.NoError(t, m.UnmarshalBinary(r.Bytes))
		}
	}
	assert.InDelta(t, 42, infos, 5)
	assert.InDelta(t, 2*infos, punches, 4)
	assert.InDelta(t, 11, registers, 3)

	require.Len(t, m.Records[0].Locators, 3)
	own := m.Records[0].Locators[0]
	assert.Equal(t, uint8(1), own.Priority)
	assert.Contains(t, own.RLOC.String(), "203.0.113.7")
	assert.Contains(t, own.RLOC.String(), "vm@tp-")
	for i, l := range m.Records[0].Locators[1:] {
		assert.Equal(t, uint8(254), l.Priority)
		assert.Contains(t, l.RLOC.String(), natRTRs[i].String())
	}

	// The RTRs know where we are, and all we send goes to them.
	for _, r := range w.rtrs {
		at, ok := r.Host("vm", nat1)
		require.True(t, ok)
		assert.Equal(t, nat1, at.Addr())
	}
	d := w.forward("8.8.8.8")
	assert.Equal(t, mapcache.Encapsulate, d.Verdict)
	assert.Contains(t, natRTRs, d.Locator.Addr)
}
