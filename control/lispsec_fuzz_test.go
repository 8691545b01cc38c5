package control

import (
	"encoding/binary"
	"net/netip"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// fuzzProtected is the configuration of FuzzEngine with LISP-SEC and
// subscriptions.
func fuzzProtected(c *Config, mode LISPSECMode) {
	c.LISPSEC = LISPSEC{
		Mode: mode, Resolvers: []ResolverKey{{Key: itrKey}},
		HMACs: []lisp.HMACID{lisp.HMACSHA256, 0}, KDFs: []lisp.KDFID{lisp.KDFHKDFSHA256, lisp.KDFHKDFSHA1},
	}
	c.XTRID, c.Experimental.PubSub = lisp.XTRID{15: 1}, true
}

// seeECM checks the LISP-SEC data of a Map-Request that was sent, and keeps its
// key, or that it is one for a subscription.
func (f *fuzzer) seeECM(m *lisp.EncapsulatedControl, q *lisp.MapRequest) {
	if q.Reserved&lisp.RequestReservedXTRID != 0 {
		require.Len(f.t, q.Trailer, 24)
		require.EqualValues(f.t, 0x80, q.Records[0].Reserved)
		f.subscription, f.about = q.Nonce, q.Records[0]
	} else {
		f.request = q.Nonce
	}
	if f.e.cfg.LISPSEC.Mode == LISPSECRequired {
		require.NotEmpty(f.t, m.Security)
	}
	if len(m.Security) == 0 {
		return
	}
	var s lisp.ECMSecurity
	require.NoError(f.t, s.DecodeFromBytes(m.Security))
	otk, err := lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, q.Nonce, itrKey.Secret)
	require.NoError(f.t, err)
	if f.request == q.Nonce {
		f.otk = otk
	}
}

// content takes a length and that many octets off in.
func (f *fuzzer) content(in []byte) (b, rest []byte) {
	if len(in) < 2 {
		return nil, nil
	}
	n := min(int(binary.BigEndian.Uint16(in)), len(in)-2)
	return in[2 : 2+n], in[2+n:]
}

// deliverProtected protects a Map-Reply as the mapping system would, or nearly.
func (f *fuzzer) deliverProtected(in []byte) []byte {
	b, rest := f.content(in)
	var m lisp.MapReply
	if len(b) < 1 || m.DecodeFromBytes(b[1:]) != nil {
		return rest
	}
	m.Nonce, m.Trailer = f.request, nil
	otk := f.otk
	if b[0]&2 != 0 {
		otk[0] ^= 1
	}
	e := lisp.EIDAD{KDF: lisp.KDFID(1 + b[0]>>2&1), CantSign: b[0]&1 != 0, Records: []lisp.RequestRecord{
		{MaskLen: 16 + b[0]>>4&8, EID: lisp.AddressFrom(netip.MustParseAddr("198.51.0.0"))},
	}}
	require.NoError(f.t, e.Sign(otk, lisp.HMACID(1+b[0]>>3&1)))
	ad, err := e.AppendBinary(nil)
	require.NoError(f.t, err)
	ms, err := otk.Derive(e.KDF)
	require.NoError(f.t, err)
	out, err := m.AppendSecured(nil, ad, ms, lisp.HMACID(1+b[0]>>4&1))
	if err == nil {
		f.e.Handle(f.now, lisp.Datagram{Local: netip.AddrPortFrom(rloc4, 4342), Remote: fromETR, Bytes: out})
	}
	return rest
}

// publish sends a Map-Notify about the last subscription.
func (f *fuzzer) publish(in []byte) []byte {
	b, rest := f.content(in)
	var m lisp.MapReply
	if len(b) < 1 || m.DecodeFromBytes(b[1:]) != nil {
		return rest
	}
	n := lisp.MapNotify{Nonce: f.subscription + lisp.Nonce(b[0]&3), XTRIDPresent: b[0]&4 == 0, XTRID: lisp.XTRID{15: 1}, Records: m.Records}
	if len(n.Records) > 0 && b[0]&8 == 0 {
		n.Records[0].EID, n.Records[0].MaskLen = f.about.EID, f.about.MaskLen
	}
	if out, err := n.AppendSigned(nil, testKey); err == nil {
		f.e.Handle(f.now, lisp.Datagram{Local: netip.AddrPortFrom(rloc4, 4342), Remote: msAddr, Bytes: out})
	}
	return rest
}

// checkProtected: nothing gets into the map-cache but by LISP-SEC, if that is
// required, or by a Map-Server that we share a key with.
func (f *fuzzer) checkProtected(s Stats) {
	require.LessOrEqual(f.t, s.Subscriptions, s.CacheEntries)
	if f.e.cfg.LISPSEC.Mode == LISPSECRequired && s.SecuredReplies == 0 && s.Publications == 0 {
		require.Zero(f.t, s.CacheEntries)
	}
}
