package natt

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// differing names the fields of two messages of one type that are not equal.
func differing[T any](t testing.TB, theirs, ours T) (names []string) {
	t.Helper()
	a, b := reflect.ValueOf(theirs), reflect.ValueOf(ours)
	for i := range a.NumField() {
		if !assert.ObjectsAreEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			names = append(names, a.Type().Field(i).Name)
		}
	}
	return names
}

// TestOutsideOORCaptures feeds the datagrams of OpenOverlayRouter as they are outside
// of the NAT to those they are for: a Map-Server and an RTR. Theirs are accepted, and
// ours differ from theirs in what is listed.
func TestOutsideOORCaptures(t *testing.T) {
	outside := netip.MustParseAddr("10.0.5.2")
	for _, c := range []struct {
		file, inside string
		variant      Variant
		registers    int
	}{
		{"30-nat-OLD-public-side-of-NAT.pcap", "33-nat-OLD-inside.pcap", Old, 1},
		{"34-nat-NEW-public-side-of-NAT.pcap", "37-nat-NEW-inside.pcap", Draft19, 2},
	} {
		t.Run(c.file, func(t *testing.T) {
			all := captured(t, c.file)
			ms, err := NewServer(ServerConfig{RTRs: []netip.Addr{oorOwn}, Site: func(_ uint32, p netip.Prefix) (SiteInfo, bool) {
				return SiteInfo{Name: "one", Keys: []lisp.Key{oorSite}}, p == netip.MustParsePrefix("172.16.3.3/32")
			}})
			require.NoError(t, err)
			b := newRTRBench(t, func(cfg *RTRConfig) {
				cfg.MapServers = []RTRMapServer{{Addr: oorMS, Key: oorRTR, Variant: c.variant}}
				cfg.RLOCs = []netip.Addr{oorOwn}
			})
			infos, registers, others := 0, 0, 0
			for _, d := range all {
				switch {
				case d.Local.Addr() == outside:
					requireInside(t, c.inside, d.Bytes) // the machine of the xTR is fed with that
				case d.Local == netip.AddrPortFrom(oorMS, lisp.ControlPort):
					infos++
					require.True(t, ms.Handle(rtrStart, d))
					out, ok := ms.Next()
					require.True(t, ok)
					compareInfoReplies(t, answerTo(t, all, d), out)
				case lisp.TypeOf(d.Bytes) == lisp.TypeEncapsulatedControl:
					registers++
					require.True(t, b.r.Handle(b.now, d))
					out := b.drain()
					require.Len(t, out, 1, "%v", b.events())
					require.True(t, b.r.Handle(b.now, oorConfirms(t, c.variant, out[0])))
					out = b.drain()
					require.Len(t, out, 1, "%v", b.events())
					compareDataMapNotifies(t, answerTo(t, all, d), out[0])
				default:
					others++ // data, and what the ITR in the RTR is asked
					assert.False(t, b.r.Handle(b.now, d))
					assert.False(t, ms.Handle(rtrStart, d))
				}
			}
			assert.Equal(t, 1, infos)
			assert.Equal(t, c.registers, registers)
			assert.Positive(t, others)
			assert.Zero(t, ms.Stats().Dropped)
			assert.Zero(t, b.r.Stats().Dropped)
			rs := b.r.Relays()
			require.Len(t, rs, 1)
			assert.Equal(t, netip.AddrPortFrom(outside, 2759), rs[0].Global)
			assert.Equal(t, netip.MustParseAddr("10.99.0.2"), rs[0].Local)
		})
	}
}

// requireInside requires that a datagram was seen inside the NAT, too, by the same
// octets.
func requireInside(t *testing.T, file string, b []byte) {
	t.Helper()
	require.True(t, slices.ContainsFunc(captured(t, file), func(d lisp.Datagram) bool {
		return slices.Equal(d.Bytes, b)
	}), "%x", b)
}

// answerTo is theirs.
func answerTo(t *testing.T, all []lisp.Datagram, d lisp.Datagram) lisp.Datagram {
	t.Helper()
	i := slices.IndexFunc(all, func(o lisp.Datagram) bool {
		return o.Remote == d.Local && o.Local == d.Remote && innerNonce(t, o.Bytes) == innerNonce(t, d.Bytes)
	})
	require.GreaterOrEqual(t, i, 0)
	return all[i]
}

// compareInfoReplies: ours has the TTL of the list of RTRs, which they cut to eight
// bits, and hence another digest.
func compareInfoReplies(t *testing.T, theirs, ours lisp.Datagram) {
	t.Helper()
	assert.Equal(t, theirs.Remote, ours.Local)
	assert.Equal(t, theirs.Local, ours.Remote)
	var want, got lisp.InfoReply
	require.NoError(t, want.DecodeFromBytes(theirs.Bytes))
	require.NoError(t, got.DecodeFromBytes(ours.Bytes))
	assert.Equal(t, []string{"Auth", "TTL"}, differing(t, want, got))
	assert.Len(t, ours.Bytes, len(theirs.Bytes))
	require.NoError(t, lisp.Verify(theirs.Bytes, oorSite))
	require.NoError(t, lisp.Verify(ours.Bytes, oorSite))
}

// oorConfirms is the Map-Notify of their Map-Server for what our RTR has relayed:
// their Map-Notifies have no L bits.
func oorConfirms(t *testing.T, v Variant, relayed lisp.Datagram) lisp.Datagram {
	t.Helper()
	path, msg := Path{Variant: v, RTR: relayed.Local.Addr()}, relayed.Bytes
	if v != Old {
		in, _ := innerRegister(t, relayed.Bytes)
		path.Local, msg = in.Source.Addr(), in.Payload
	}
	require.NoError(t, lisp.Verify(msg, oorSite))
	var m lisp.MapRegister
	require.NoError(t, m.UnmarshalBinary(msg))
	for i := range m.Records[0].Locators {
		m.Records[0].Locators[i].Local = false
	}
	n := lisp.MapNotify{
		Nonce: m.Nonce, XTRIDPresent: true, XTRID: m.XTRID, SiteID: m.SiteID, RTRAuth: v == Old, Records: m.Records,
	}
	b, err := n.AppendSigned(nil, oorSite)
	require.NoError(t, err)
	b, err = path.Append(nil, oorMS, b, oorRTR)
	require.NoError(t, err)
	return lisp.Datagram{Local: path.Destination(), Remote: relayed.Remote, Bytes: b}
}

// compareDataMapNotifies: ours has the same data header, addresses and Map-Notify;
// of the IP packet between them the identification, TTL, flags and checksum are our
// own, for they come from the Map-Server, which isn't theirs here.
func compareDataMapNotifies(t *testing.T, theirs, ours lisp.Datagram) {
	t.Helper()
	assert.Equal(t, theirs.Remote, ours.Local)
	assert.Equal(t, theirs.Local, ours.Remote)
	require.Len(t, ours.Bytes, len(theirs.Bytes))
	want, _ := dataNotify(t, theirs.Bytes)
	got, _ := dataNotify(t, ours.Bytes)
	assert.Equal(t, []string{"TTL"}, differing(t, want, got))
	const udp = lisp.DataHeaderLen + 20
	assert.Equal(t, theirs.Bytes[udp:], ours.Bytes[udp:])
	require.NoError(t, lisp.Verify(got.Payload, oorSite))
}
