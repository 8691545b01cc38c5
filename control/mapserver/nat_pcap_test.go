package mapserver

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/pcaptest"
	"github.com/xtrkit/xtrkit/lisp"
)

// TestNATCaptureAnswers feeds what nodes behind a NAT and their RTR, all of
// OpenOverlayRouter, sent to a Map-Server into ours, and compares the answers: in
// the form of early drafts (30 to 32) and of the later ones (34 to 36), as seen
// outside the NAT, at the RTR and at the Map-Server.
func TestNATCaptureAnswers(t *testing.T) {
	site := lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("secret")}
	shared := lisp.Key{Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("rtrkey")}
	for file, answers := range map[string]int{
		"30-nat-OLD-public-side-of-NAT": 1, "31-nat-OLD-at-RTR": 1, "32-nat-OLD-at-MS": 2,
		"34-nat-NEW-public-side-of-NAT": 1, "35-nat-NEW-at-RTR": 2, "36-nat-NEW-at-MS": 3,
	} {
		t.Run(file, func(t *testing.T) {
			b := newBench(t, func(c *Config) {
				c.Sites = []Site{{Name: "all", Keys: []lisp.Key{site}, Prefixes: []SitePrefix{
					{Prefix: netip.MustParsePrefix("172.16.0.0/16"), AcceptMoreSpecifics: true},
				}}}
				c.NAT.RTRs = []RTR{{Addr: netip.MustParseAddr("10.0.4.2"), Key: shared}}
			})
			all := pcaptest.Datagrams(t, "testdata/nat/"+file+".pcap")
			seen := 0
			for _, d := range all {
				if !isServer(d.Local) || !natMessage(t, d.Bytes) {
					continue
				}
				require.True(t, b.s.Handle(b.now, d))
				out := b.drain()
				require.Len(t, out, 1, "%v", b.events())
				for _, theirs := range all {
					if isServer(theirs.Remote) && theirs.Local == d.Remote && natKeyOf(t, theirs.Bytes) == natKeyOf(t, d.Bytes) {
						seen++
						assert.Equal(t, theirs.Local, out[0].Remote)
						compareNAT(t, theirs.Bytes, out[0].Bytes, site, shared)
					}
				}
			}
			assert.Equal(t, answers, seen)
			assert.Zero(t, b.s.Stats().Dropped)
		})
	}
}

// natMessage tells Info-Requests, and Map-Registers by an RTR.
func natMessage(t testing.TB, b []byte) bool {
	switch lisp.TypeOf(b) {
	case lisp.TypeInfo:
		return true
	case lisp.TypeMapRegister:
		return parse[*lisp.MapRegister](t, b).RTR
	case lisp.TypeEncapsulatedControl:
		return parse[*lisp.EncapsulatedControl](t, b).Relayed
	default:
		return false
	}
}

// natKeyOf is the nonce of a message, or of the one in an ECM.
func natKeyOf(t testing.TB, b []byte) string {
	if lisp.TypeOf(b) == lisp.TypeEncapsulatedControl {
		in, err := parse[*lisp.EncapsulatedControl](t, b).Inner()
		require.NoError(t, err)
		b = in.Payload
	}
	return string(b[4:12])
}

// compareNAT: ours differ from theirs in the TTL of the RTR list, in the L bits,
// which they clear, and hence in the digests; and in an ECM in the inner IP header.
func compareNAT(t testing.TB, theirs, ours []byte, site, shared lisp.Key) {
	t.Helper()
	require.Equal(t, lisp.TypeOf(theirs), lisp.TypeOf(ours))
	var want, got *lisp.MapNotify
	switch lisp.TypeOf(ours) {
	case lisp.TypeInfo:
		require.NoError(t, lisp.Verify(theirs, site))
		require.NoError(t, lisp.Verify(ours, site))
		want, got := parse[*lisp.InfoReply](t, theirs), parse[*lisp.InfoReply](t, ours)
		want.TTL, want.Auth.Data = got.TTL, got.Auth.Data
		assert.Equal(t, want, got)
		return
	case lisp.TypeEncapsulatedControl:
		e, o := parse[*lisp.EncapsulatedControl](t, theirs), parse[*lisp.EncapsulatedControl](t, ours)
		require.NoError(t, e.VerifyRTR(shared))
		require.NoError(t, o.VerifyRTR(shared))
		assert.Equal(t, theirs[:12], ours[:12], "flags, AD type, key")
		in, err := e.Inner()
		require.NoError(t, err)
		on, err := o.Inner()
		require.NoError(t, err)
		assert.Equal(t, in.Source, on.Source)
		assert.Equal(t, in.Destination, on.Destination)
		want, got = parse[*lisp.MapNotify](t, in.Payload), parse[*lisp.MapNotify](t, on.Payload)
		theirs, ours = in.Payload, on.Payload
	default:
		require.NoError(t, lisp.VerifyRTRAuthentication(theirs, shared))
		require.NoError(t, lisp.VerifyRTRAuthentication(ours, shared))
		want, got = parse[*lisp.MapNotify](t, theirs), parse[*lisp.MapNotify](t, ours)
		want.Trailer = got.Trailer
	}
	require.NoError(t, lisp.Verify(theirs, site))
	require.NoError(t, lisp.Verify(ours, site))
	for i := range want.Records[0].Locators {
		assert.Equal(t, want.Records[0].Locators[i].Reachable, !got.Records[0].Locators[i].Local, "as the node registered it")
		got.Records[0].Locators[i].Local = false
	}
	want.Auth.Data = got.Auth.Data
	assert.Equal(t, want, got)
}
