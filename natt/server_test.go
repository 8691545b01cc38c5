package natt

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

func newTestServer(t testing.TB, change ...func(*ServerConfig)) *Server {
	t.Helper()
	cfg := ServerConfig{
		RTRs: []netip.Addr{rtrIP, netip.MustParseAddr("2001:db8::9"), rtrIP2},
		Site: func(iid uint32, eid netip.Prefix) (SiteInfo, bool) {
			return SiteInfo{Name: "a", Keys: []lisp.Key{siteKey}}, iid == 0 && netip.MustParsePrefix("172.16.0.0/16").Overlaps(eid)
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := NewServer(cfg)
	require.NoError(t, err)
	return s
}

func infoRequestFor(t testing.TB, key lisp.Key, eid string) []byte {
	t.Helper()
	p := netip.MustParsePrefix(eid)
	m := lisp.InfoRequest{Nonce: 7, MaskLen: uint8(p.Bits()), EID: lisp.AddressFrom(p.Addr())}
	b, err := m.AppendSigned(nil, key)
	require.NoError(t, err)
	return b
}

// TestServerKeys: whatever algorithm a site has, the answer is signed as the
// question was, also by its length.
func TestServerKeys(t *testing.T) {
	for _, a := range []lisp.Algorithm{lisp.AlgorithmHMACSHA1, lisp.AlgorithmHMACSHA256, lisp.AlgorithmHMACSHA256HKDF} { // nat19-4.4-2
		for _, truncate := range []bool{false, true} {
			key := lisp.Key{ID: 3, Algorithm: a, Secret: []byte("x"), Truncate: truncate}
			s := newTestServer(t, func(c *ServerConfig) {
				c.Site = func(uint32, netip.Prefix) (SiteInfo, bool) {
					k := key
					k.Truncate = false
					return SiteInfo{Keys: []lisp.Key{siteKey, k}}, true
				}
			})
			request := infoRequestFor(t, key, "172.16.3.3/32")
			b, answer := s.Answer(nil, lisp.Datagram{Local: msPort, Remote: natPort, Bytes: request})
			require.Equal(t, ServerAnswered, answer.Reason)
			require.NoError(t, lisp.Verify(b, key))
			assert.Equal(t, binary.BigEndian.Uint16(request[14:]), binary.BigEndian.Uint16(b[14:]))
		}
	}
}

func TestServerAnswer(t *testing.T) {
	s := newTestServer(t)
	prefix := []byte("before")
	b, a := s.Answer(prefix, lisp.Datagram{Local: msPort, Remote: natPort, Bytes: infoRequestFor(t, siteKey, "172.16.3.3/32")})
	require.Equal(t, InfoAnswer{Site: "a", EID: netip.MustParsePrefix("172.16.3.3/32"), RTRs: 2}, a)
	require.Equal(t, "before", string(b[:6]))
	require.NoError(t, lisp.Verify(b[6:], siteKey))
	for _, c := range []struct {
		name   string
		d      lisp.Datagram
		reason ServerReason
	}{
		{"empty", lisp.Datagram{Remote: natPort}, ServerReply},
		{"reply", lisp.Datagram{Remote: natPort, Bytes: b[6:]}, ServerReply},
		{"cut", lisp.Datagram{Remote: natPort, Bytes: []byte{0x70}}, ServerMalformed},
		{"no port", lisp.Datagram{Remote: netip.AddrPortFrom(natPort.Addr(), 0), Bytes: infoRequestFor(t, siteKey, "172.16.3.3/32")}, ServerMalformed},
		{"name", lisp.Datagram{Remote: natPort, Bytes: namePacket(t, "vm")[8:]}, ServerVariant},
		{"EID", lisp.Datagram{Remote: natPort, Bytes: infoRequestFor(t, siteKey, "10.0.0.0/8")}, ServerEID},
		{"key", lisp.Datagram{Remote: natPort, Bytes: infoRequestFor(t, rtrKey, "172.16.3.3/32")}, ServerKey},
	} {
		out, got := s.Answer(prefix, c.d)
		assert.Equal(t, prefix, out, c.name)
		assert.Equal(t, c.reason, got.Reason, c.name)
		assert.NotEmpty(t, got.Reason.String())
	}
	// Without sites only hosts of lispers.net can be answered.
	s = newTestServer(t, func(c *ServerConfig) { c.Site, c.LispersNet = nil, true })
	_, a = s.Answer(nil, lisp.Datagram{Remote: natPort, Bytes: infoRequestFor(t, siteKey, "172.16.3.3/32")})
	assert.Equal(t, ServerEID, a.Reason)
	b, a = s.Answer(nil, lisp.Datagram{Remote: natPort, Bytes: namePacket(t, "vm")[8:]})
	assert.Equal(t, InfoAnswer{Host: "vm", RTRs: 2}, a)
	assert.EqualValues(t, 16, binary.BigEndian.Uint16(b[30:]))
	n := traversalOf(t, b)
	assert.Equal(t, hostAddress("vm"), n.PrivateETR)
	assert.Zero(t, n.MSPort)
	// No key is none, whoever has configured it; and no address of ours none.
	none := lisp.Key{}
	s = newTestServer(t, func(c *ServerConfig) {
		c.Site = func(uint32, netip.Prefix) (SiteInfo, bool) { return SiteInfo{Keys: []lisp.Key{none, siteKey}}, true }
	})
	_, a = s.Answer(nil, lisp.Datagram{Remote: natPort, Bytes: infoRequestFor(t, none, "172.16.3.3/32")})
	assert.Equal(t, ServerKey, a.Reason)
	b, a = s.Answer(nil, lisp.Datagram{
		Local: netip.MustParseAddrPort("0.0.0.0:4342"), Remote: natPort, Bytes: infoRequestFor(t, siteKey, "172.16.3.3/32"),
	})
	require.Equal(t, ServerAnswered, a.Reason)
	n = traversalOf(t, b)
	assert.True(t, n.MS.IsZero())
	assert.EqualValues(t, 4342, n.MSPort)
	assert.Equal(t, []lisp.Address{lisp.AddressFrom(rtrIP), lisp.AddressFrom(rtrIP2)}, n.RTRs, "of the family of the question")
}

func traversalOf(t testing.TB, b []byte) *lisp.NATTraversal {
	t.Helper()
	var m lisp.InfoReply
	require.NoError(t, m.DecodeFromBytes(b))
	n, err := m.Traversal()
	require.NoError(t, err)
	return n
}

// TestServerRate: one source gets its share, all together the whole; a long list
// of RTRs is cut.
func TestServerRate(t *testing.T) {
	s := newTestServer(t, func(c *ServerConfig) {
		c.Rate, c.RTRs = 100, nil
		for i := range 2 * maxOffered {
			c.RTRs = append(c.RTRs, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}))
		}
	})
	request := infoRequestFor(t, siteKey, "172.16.3.3/32")
	flood := func(from func(i int) netip.Addr) (n int) {
		for i := range 500 {
			require.True(t, s.Handle(rtrStart, lisp.Datagram{Local: msPort, Remote: netip.AddrPortFrom(from(i), 4342), Bytes: request}))
			for d, ok := s.Next(); ok; d, ok = s.Next() {
				assert.LessOrEqual(t, len(d.Bytes), 3*len(request))
				assert.Len(t, traversalOf(t, d.Bytes).RTRs, maxOffered)
				n++
			}
		}
		return n
	}
	assert.Equal(t, 5, flood(func(int) netip.Addr { return attacker.Addr() }))
	assert.Equal(t, 95, flood(func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }))
	st := s.Stats()
	assert.EqualValues(t, 1000, st.InfoRequests)
	assert.EqualValues(t, 100, st.InfoReplies)
	assert.EqualValues(t, 900, st.Dropped[ServerRate])
	n := 0
	for _, ok := s.NextAnswer(); ok; _, ok = s.NextAnswer() {
		n++
	}
	assert.Equal(t, 1000, n)
	assert.False(t, s.Handle(rtrStart, lisp.Datagram{Local: netip.AddrPortFrom(msIP, 4341), Remote: natPort, Bytes: request}), "for an RTR")
	s.Advance(rtrStart.Add(time.Hour))
	assert.True(t, s.Deadline().IsZero())
}

func TestNewServer(t *testing.T) {
	for _, c := range []ServerConfig{{TTL: time.Second}, {TTL: -time.Minute}, {Rate: -1}, {RTRs: []netip.Addr{{}}}} {
		_, err := NewServer(c)
		require.ErrorIs(t, err, ErrConfig)
	}
}

// TestPath: inner packets have one family, whatever the Map-Server has.
func TestPath(t *testing.T) {
	msg := []byte{0x40, 0, 0, 0}
	for _, c := range []struct{ local, server, want string }{
		{"10.0.0.2", "192.0.2.1", "192.0.2.1"},
		{"10.0.0.2", "2001:db8::1", "0.0.0.0"},
		{"fd00::2", "192.0.2.1", "::"},
		{"fd00::2", "", "::"},
		{"10.0.0.2", "", "0.0.0.0"},
	} {
		p := Path{RTR: rtrIP, Local: netip.MustParseAddr(c.local)}
		server, _ := netip.ParseAddr(c.server) // none: unknown
		b, err := p.Append(nil, server, msg, rtrKey)
		require.NoError(t, err)
		var e lisp.EncapsulatedControl
		require.NoError(t, e.DecodeFromBytes(b))
		require.NoError(t, e.VerifyRTR(rtrKey))
		in, err := e.Inner()
		require.NoError(t, err)
		assert.Equal(t, netip.AddrPortFrom(netip.MustParseAddr(c.want), 4342), in.Source)
		assert.Equal(t, msg, in.Payload)
	}
	assert.Equal(t, netip.AddrPortFrom(rtrIP, 4342), Path{RTR: rtrIP}.Destination())
	hkdf := lisp.Key{Algorithm: lisp.AlgorithmHMACSHA256HKDF, Secret: []byte("x")}
	for _, v := range []Variant{Draft19, Old} {
		b, err := Path{Variant: v, RTR: rtrIP, Local: insideIP}.Append([]byte("x"), msIP, msg, hkdf)
		require.ErrorIs(t, err, lisp.ErrUnsupported)
		assert.Equal(t, "x", string(b))
	}
}
