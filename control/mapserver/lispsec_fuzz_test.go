package mapserver

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// fuzzSecured switches on what FuzzMapServer tries besides.
func fuzzSecured(limit int) func(*Config) {
	return func(c *Config) {
		withLISPSEC(c)
		withPubSub(c)
		c.Experimental.MaxSubscriptions = limit
		c.LISPSEC.ProtectedPaths = []netip.Prefix{netip.PrefixFrom(etr2.Addr(), 32)}
	}
}

// protectedOp makes a protected Map-Request of its flags and the octets of a
// Map-Request: how the One-Time Key is wrapped, and what is asked for.
func protectedOp(flags byte, m []byte) []byte {
	return fuzzOp(opProtected, append([]byte{flags}, m...))
}

func fuzzProtect(t testing.TB, content []byte) []byte {
	if len(content) == 0 {
		return nil
	}
	flags := content[0]
	var m lisp.MapRequest
	packet, err := lisp.AppendInner(nil, lisp.Inner{Source: itr, Destination: netip.MustParseAddrPort("10.1.2.3:4342"), Payload: content[1:]})
	if err != nil || m.DecodeFromBytes(content[1:]) != nil {
		return nil
	}
	r := newSecureRequest()
	s := lisp.ECMSecurity{RequestedHMAC: lisp.HMACID(flags & 3), KeyID: r.key.ID, Wrap: lisp.WrapID(flags >> 2 & 3), EIDAD: lisp.EIDAD{KDF: lisp.KDFID(flags >> 4 & 3)}}
	wrap := min(max(s.Wrap, lisp.WrapNull), lisp.WrapAES)
	s.WrappedOTK, err = lisp.WrapOTK(wrap, r.otk, m.Nonce, r.key.Secret)
	require.NoError(t, err)
	ad, err := s.AppendBinary(nil)
	require.NoError(t, err)
	b, err := (&lisp.EncapsulatedControl{Security: ad, Packet: packet}).MarshalBinary()
	require.NoError(t, err)
	return b
}

// checkSecured verifies what is sent protected.
func checkSecured(t testing.TB, b []byte) {
	t.Helper()
	itrOTK := newSecureRequest().otk
	switch m := parse[lisp.Message](t, b).(type) {
	case *lisp.MapReply:
		if !m.Security {
			return
		}
		s, err := lisp.VerifySecured(b, itrOTK)
		require.NoError(t, err)
		_, vouched, ok := s.EIDAD.Records[0].Prefix()
		require.True(t, ok)
		for _, r := range m.Records {
			_, p, _ := r.Prefix()
			require.True(t, vouched.Bits() <= p.Bits() && vouched.Contains(p.Addr()))
		}
	case *lisp.EncapsulatedControl:
		if len(m.Security) == 0 {
			return
		}
		in, err := m.Inner()
		require.NoError(t, err)
		var s lisp.ECMSecurity
		require.NoError(t, s.DecodeFromBytes(m.Security))
		require.True(t, s.EIDAD.Signed)
		key := key1
		if s.KeyID == key1b.ID {
			key = key1b
		}
		otk, err := lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, parse[*lisp.MapRequest](t, in.Payload).Nonce, key.Secret)
		if s.KeyID == key2.ID && err != nil { // site b's
			otk, err = lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, parse[*lisp.MapRequest](t, in.Payload).Nonce, key2.Secret)
		}
		require.NoError(t, err)
		ms, err := itrOTK.Derive(s.EIDAD.KDF)
		require.NoError(t, err)
		require.True(t, otk == ms)
	}
}

// subscriptionsUnderWay checks what is kept for subscriptions, and returns how
// many wait for a Map-Notify-Ack.
func subscriptionsUnderWay(t testing.TB, b *bench, limit int) (awaited int) {
	t.Helper()
	subs := &b.s.subscriptions
	require.LessOrEqual(t, len(subs.all), limit)
	require.Len(t, subs.due, len(subs.all))
	indexed := 0
	for _, table := range subs.by {
		for _, same := range table.All() {
			indexed += len(same)
		}
	}
	require.Equal(t, len(subs.all), indexed)
	for id, p := range subs.all {
		require.Equal(t, id, p.id)
		require.Same(t, p, subs.due[p.index])
		require.LessOrEqual(t, p.at, p.expires)
		if p.awaited != nil {
			awaited++
			require.LessOrEqual(t, p.sent, notifyMost)
		}
	}
	return awaited
}

// securedSeeds: protected requests for everything, and a subscription.
func securedSeeds(f *testing.F) [][]byte {
	f.Helper()
	ask := func(eid string, opts ...requestOption) []byte {
		in, err := parse[*lisp.EncapsulatedControl](f, request(f, itr, eid, opts...)).Inner()
		require.NoError(f, err)
		return in.Payload
	}
	const aes, plain = 2<<2 | 2 | 2<<4, 1<<2 | 2 | 2<<4
	reg := slices.Concat(
		fuzzOp(opSigned, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr2), withSecurity)),
		fuzzOp(opSigned, register(f, key1, record("10.9.0.0/16", 10, "192.0.2.99"), withXTR(xtr1), withProxy)),
	)
	return [][]byte{
		slices.Concat(reg, protectedOp(aes, ask("10.1.2.3")), protectedOp(aes, ask("10.9.2.3")), protectedOp(aes, ask("8.8.8.8")), protectedOp(plain, ask("8.8.8.8"))),
		slices.Concat(
			reg, protectedOp(aes, ask("10.1.0.0/16", subscribing)), fuzzOp(opInner, ask("10.1.5.0/24", subscribing)), []byte{opAdvance, 0, 40},
			fuzzOp(opSigned, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.77"), withXTR(xtr2))), []byte{opAdvance, 0, 90}, []byte{opAdvance, 255, 90},
		),
	}
}
