package control

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func TestRegister(t *testing.T) {
	tc := up(t)
	s, m := one[*lisp.MapRegister](tc)
	assert.Equal(t, msAddr, s.Remote)
	require.NoError(t, lisp.Verify(s.Bytes, testKey))
	require.Len(t, m.Records, 2)
	tc.advance(50 * time.Millisecond)
	require.True(t, tc.notify(m, testKey))
	ev := eventsOf[Registered](tc)
	require.Len(t, ev, 1)
	assert.Equal(t, "registered 192.0.2.1/32 2001:db8:1::1/128 at 203.0.113.1 2001:db8:ffff::1 with Map-Server 198.18.0.1 in 50ms", ev[0].String())
	assert.Equal(t, StateRegistered, tc.e.Registrations()[0].State)
}
