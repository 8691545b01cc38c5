package control

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

func TestResolve(t *testing.T) {
	tc := up(t, quiet)
	tc.resolve(hostKey(peerEID))
	s, m := one[*lisp.MapRequest](tc)
	assert.Equal(t, mr1, s.Remote)
	require.True(t, tc.answer(m.Nonce, record("198.51.100.0/24", 1440, peerRLOC)))
	ent, ok := tc.e.Cache().LookupEntry(0, peerEID.Addr())
	require.True(t, ok)
	assert.Equal(t, key("198.51.100.0/24"), ent.Key)
	assert.Len(t, eventsOf[CacheAdded](tc), 1)
	tc.e.Publish()
	d := tc.e.Cache().View().Forward(0, peerEID.Addr(), 0)
	assert.Equal(t, mapcache.Encapsulate, d.Verdict)
}
