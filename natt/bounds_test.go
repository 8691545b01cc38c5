package natt

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestServerQueue: answers that nobody takes are only so many.
func TestServerQueue(t *testing.T) {
	s, err := NewServer(ServerConfig{Rate: 1e9, Site: func(uint32, netip.Prefix) (SiteInfo, bool) {
		return SiteInfo{Keys: []lisp.Key{worldKey}}, true
	}})
	require.NoError(t, err)
	m := lisp.InfoRequest{Nonce: 1, MaskLen: 32, EID: lisp.EIDAddress(0, worldEID.Addr())}
	b, err := m.AppendSigned(nil, worldKey)
	require.NoError(t, err)
	d := lisp.Datagram{Local: worldMS, Remote: netip.AddrPortFrom(worldNAT, 5000), Bytes: b}
	for range maxRTRQueue + 10 {
		assert.True(t, s.Handle(worldStart, d))
	}
	assert.Equal(t, uint64(10), s.Stats().Dropped[ServerQueueFull])
	assert.Equal(t, uint64(maxRTRQueue), s.Stats().InfoReplies)
	for range maxRTRQueue {
		_, ok := s.Next()
		require.True(t, ok)
	}
	_, ok := s.Next()
	assert.False(t, ok)
	s.Handle(worldStart, d)
	_, ok = s.Next()
	assert.True(t, ok)
}

// TestNameLog: what nobody has authenticated doesn't fill the log.
func TestNameLog(t *testing.T) {
	var log bytes.Buffer
	r, err := NewRTR(RTRConfig{LispersNet: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	m := lisp.InfoRequest{Nonce: 1, Host: hostAddress("somebody")}
	b, err := m.AppendBinary(nil)
	require.NoError(t, err)
	for i := range uint16(20) {
		r.Handle(worldStart.Add(time.Duration(i)*time.Second), lisp.Datagram{
			Local: netip.AddrPortFrom(worldRTR(0), lisp.DataPort), Remote: netip.AddrPortFrom(worldNAT, 5000+i), Bytes: b,
		})
	}
	assert.Equal(t, uint64(20), r.Stats().InfoRequests)
	assert.Empty(t, log.String())
}

// TestServerSeed: nobody can know which sources share an allowance.
func TestServerSeed(t *testing.T) {
	one, err := NewServer(ServerConfig{})
	require.NoError(t, err)
	other, err := NewServer(ServerConfig{})
	require.NoError(t, err)
	assert.NotEqual(t, one.sources.seed, other.sources.seed)
}
