package natt

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/pcaptest"
	"github.com/xtrkit/xtrkit/lisp"
)

var (
	oorSite = lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("secret")}
	oorRTR  = lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("rtrkey")}
	oorMS   = netip.MustParseAddr("10.0.1.2")
	oorOwn  = netip.MustParseAddr("10.0.4.2")
)

// captured are the UDP datagrams of a capture, as their receiver gets them.
func captured(t testing.TB, file string) []lisp.Datagram {
	t.Helper()
	return pcaptest.Datagrams(t, "testdata/oor/"+file)
}

// TestRTROORCaptures feeds an RTR what nodes and the Map-Server, all of
// OpenOverlayRouter, sent to theirs, and compares what comes out. The later drafts
// octet for octet; in the early ones the inner IP header of the Data-Map-Notify is
// our own, for no packet came.
func TestRTROORCaptures(t *testing.T) {
	for _, c := range []struct {
		file    string
		variant Variant
		want    int
	}{
		{"31-nat-OLD-at-RTR.pcap", Old, 2},
		{"35-nat-NEW-at-RTR.pcap", Draft19, 4},
	} {
		t.Run(c.file, func(t *testing.T) {
			b := newRTRBench(t, func(cfg *RTRConfig) {
				cfg.MapServers = []RTRMapServer{{Addr: oorMS, Key: oorRTR, Variant: c.variant}}
				cfg.RLOCs = []netip.Addr{oorOwn}
			})
			all := captured(t, c.file)
			handled, others := 0, 0
			for _, d := range all {
				if d.Local != netip.AddrPortFrom(oorOwn, 4342) {
					continue
				}
				if !b.r.Handle(b.now, d) {
					others++ // Map-Requests, Map-Replies: for the ITR in the RTR
					continue
				}
				out := b.drain()
				require.Len(t, out, 1, "%v", b.events())
				i := slices.IndexFunc(all, func(o lisp.Datagram) bool {
					return o.Remote == out[0].Local && o.Local == out[0].Remote && sameNonce(t, o.Bytes, out[0].Bytes)
				})
				require.GreaterOrEqual(t, i, 0, "theirs")
				handled++
				theirs := all[i].Bytes
				if c.variant == Old && theirs[0] == 0x08 {
					in, _ := dataNotify(t, out[0].Bytes)
					e := lisp.EncapsulatedControl{Packet: theirs[lisp.DataHeaderLen:]}
					want, err := e.Inner()
					require.NoError(t, err)
					assert.Equal(t, want.Source, in.Source)
					assert.Equal(t, want.Destination, in.Destination)
					assert.Equal(t, want.Payload, in.Payload)
					require.NoError(t, lisp.Verify(in.Payload, oorSite))
					continue
				}
				assert.Equal(t, theirs, out[0].Bytes)
			}
			assert.Equal(t, c.want, handled)
			assert.Positive(t, others)
			rs := b.r.Relays()
			require.Len(t, rs, 1)
			assert.Equal(t, netip.MustParseAddrPort("10.0.5.2:2759"), rs[0].Global)
			assert.Equal(t, netip.MustParseAddr("10.99.0.2"), rs[0].Local)
			assert.Equal(t, netip.MustParsePrefix("172.16.3.3/32"), rs[0].Prefix)
			assert.Zero(t, b.r.Stats().Dropped)
		})
	}
}

// sameNonce pairs an answer with theirs, by the nonce of the message inside.
func sameNonce(t testing.TB, a, b []byte) bool { return innerNonce(t, a) == innerNonce(t, b) }

func innerNonce(t testing.TB, b []byte) uint64 {
	t.Helper()
	e := lisp.EncapsulatedControl{}
	switch {
	case len(b) > lisp.DataHeaderLen && b[0] == 0x08:
		e.Packet = b[lisp.DataHeaderLen:]
	case lisp.TypeOf(b) == lisp.TypeEncapsulatedControl:
		require.NoError(t, e.DecodeFromBytes(b))
	default:
		return binary.BigEndian.Uint64(b[4:])
	}
	in, err := e.Inner()
	if err != nil || len(in.Payload) < 12 {
		return 0
	}
	return binary.BigEndian.Uint64(in.Payload[4:])
}

// TestServerOORCapture: their Info-Reply and ours differ in the TTL, which they cut
// to eight bits, and in the digest of it.
func TestServerOORCapture(t *testing.T) {
	s, err := NewServer(ServerConfig{
		RTRs: []netip.Addr{oorOwn},
		Site: func(uint32, netip.Prefix) (SiteInfo, bool) {
			return SiteInfo{Name: "one", Keys: []lisp.Key{oorSite}}, true
		},
	})
	require.NoError(t, err)
	all := captured(t, "38-nat-info-request-reply.pcap")
	require.Len(t, all, 2)
	require.True(t, s.Handle(rtrStart, all[0]))
	out, ok := s.Next()
	require.True(t, ok)
	assert.Equal(t, all[1].Remote, out.Local)
	assert.Equal(t, all[1].Local, out.Remote)
	require.NoError(t, lisp.Verify(out.Bytes, oorSite))
	var want, got lisp.InfoReply
	require.NoError(t, want.DecodeFromBytes(all[1].Bytes))
	require.NoError(t, got.DecodeFromBytes(out.Bytes))
	assert.EqualValues(t, 60, got.TTL)
	want.TTL, want.Auth.Data = got.TTL, got.Auth.Data
	assert.Equal(t, want, got)
	_, ok = s.Next()
	assert.False(t, ok)
	assert.True(t, s.Deadline().IsZero())
	a, ok := s.NextAnswer()
	require.True(t, ok)
	assert.Equal(t, InfoAnswer{Site: "one", EID: netip.MustParsePrefix("172.16.3.3/32"), RTRs: 1}, a)
}
