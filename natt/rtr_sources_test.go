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

// TestRTROldFromDraft19: a bare Map-Notify is no answer of a Map-Server that relays in
// ECMs. It may be for an xTR in the same process.
func TestRTROldFromDraft19(t *testing.T) {
	b := newRTRBench(t)
	n := nodeA()
	require.Len(t, b.send(n.from, n.registerPacket(t, 1)), 1)
	bare := newRTRBench(t, oldVariant).oldNotify(n, 1)
	assert.False(t, b.r.Handle(b.now, lisp.Datagram{Local: netip.AddrPortFrom(rtrIP, 4342), Remote: msPort, Bytes: bare}))
	assert.Empty(t, b.r.Relays())
	assert.Equal(t, 1, b.r.Stats().Pending)
}

// TestRTRSources: what claims to come from where nobody can be is not relayed.
func TestRTRSources(t *testing.T) {
	n := nodeA()
	for _, from := range []string{"224.0.0.1:4341", "0.0.0.0:4341", "255.255.255.255:4341", "203.0.113.5:0", "[ff02::1]:4341"} {
		b := newRTRBench(t)
		assert.Empty(t, b.send(netip.MustParseAddrPort(from), n.registerPacket(t, 1)), from)
		assert.Equal(t, RTRMalformed, b.lastReason())
		assert.Zero(t, b.r.Stats().Pending)
	}
}

// TestRTRNameOrder: a host that is heard of often doesn't pile up behind one that is
// heard of once.
func TestRTRNameOrder(t *testing.T) {
	b := newRTRBench(t, func(c *RTRConfig) { c.LispersNet, c.SourceRate = true, 1e6 })
	data := netip.AddrPortFrom(rtrIP, 4341)
	b.r.Handle(b.now, lisp.Datagram{Local: data, Remote: natPort, Bytes: namePacket(t, "once")})
	for range 2 * nameTimeout / (10 * time.Millisecond) / 3 {
		b.now = b.now.Add(10 * time.Millisecond)
		b.r.Handle(b.now, lisp.Datagram{Local: data, Remote: natPort2, Bytes: namePacket(t, "often")})
	}
	assert.Equal(t, 2, b.r.Stats().Names)
	assert.LessOrEqual(t, len(b.r.names.order), 2*2+sourceSlots+1)
	assert.EqualValues(t, 2001, b.r.Stats().InfoRequests)
}

// TestRTRWithoutKeyWarns: an RTR that believes a Map-Server by its address alone says
// so, once for each.
func TestRTRWithoutKeyWarns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*RTRConfig)
		want   int
	}{
		{"with a key", func(*RTRConfig) {}, 0},
		{"without", withoutKey, 1},
		{"refused", func(c *RTRConfig) { withoutKey(c); keyRequired(c) }, 0},
	} {
		var log bytes.Buffer
		newRTRBench(t, tt.change, func(c *RTRConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		assert.Equal(t, tt.want, bytes.Count(log.Bytes(), []byte("level=WARN")), "%s: %s", tt.name, &log)
	}
}
