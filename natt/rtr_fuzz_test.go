package natt

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// Operations of FuzzRTR: an octet, two octets of length or time, content.
const (
	rtrAdvance  = iota // time in 100 ms
	rtrRaw             // a datagram to the control port
	rtrData            // a datagram to the data port
	rtrRegister        // a Map-Register to sign and encapsulate
	rtrNotify          // the Map-Notify to the attempt of that number
	rtrUnasked         // a Map-Notify to sign and authenticate
	rtrFrom            // who sends from now on
	rtrMoved           // an EID-Prefix is elsewhere
	numRTRFuzzOps
)

func rtrOp(op byte, content []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{op}, uint16(len(content))), content...)
}

// FuzzRTR lets the input drive an RTR. Whatever comes, its tables are bounded,
// nothing becomes a relay that the Map-Server has not confirmed, what is sent
// parses, goes to a Map-Server or a node, and is no more than one datagram each.
func FuzzRTR(f *testing.F) {
	for _, file := range []string{"31-nat-OLD-at-RTR.pcap", "35-nat-NEW-at-RTR.pcap"} {
		var seed []byte
		for _, d := range captured(f, file) {
			seed = append(seed, rtrOp(rtrRaw, d.Bytes)...)
		}
		f.Add(seed)
	}
	n := nodeA()
	n.locals = map[string][2]uint8{"10.0.0.2": {1, 50}}
	msg, err := n.message(1).AppendSigned(nil, siteKey)
	require.NoError(f, err)
	again, err := n.message(2).AppendSigned(nil, siteKey)
	require.NoError(f, err)
	session := slices.Concat(
		rtrOp(rtrRegister, msg), rtrOp(rtrNotify, []byte{0}), rtrOp(rtrFrom, []byte{1}), rtrOp(rtrRegister, msg),
		rtrOp(rtrRegister, again), rtrOp(rtrNotify, []byte{0}), rtrOp(rtrUnasked, msg), []byte{rtrAdvance, 0, 200},
		rtrOp(rtrData, namePacket(f, "vm")), rtrOp(rtrMoved, nil), []byte{rtrAdvance, 0x10, 0},
	)
	f.Add(session)
	f.Add(append(session, session...))

	const limit = 8
	sources := []netip.AddrPort{natPort, natPort2, attacker, msPort}
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newRTRBench(t, func(c *RTRConfig) {
			c.MapServers = append(c.MapServers, RTRMapServer{Addr: netip.MustParseAddr("192.0.2.2"), Variant: Old})
			c.MaxRelays, c.MaxPending, c.LispersNet = limit, limit, true
		})
		source := sources[0]
		confirmed := make(map[netip.AddrPort]bool)
		for len(in) >= 3 {
			op, l := in[0]%numRTRFuzzOps, int(binary.BigEndian.Uint16(in[1:]))
			in = in[3:]
			if op == rtrAdvance {
				b.now = b.now.Add(time.Duration(l) * 100 * time.Millisecond)
				b.r.Advance(b.now)
				if next := b.r.Deadline(); !next.IsZero() {
					require.True(t, next.After(b.now), "still due")
				}
				continue
			}
			content := append([]byte(nil), in[:min(l, len(in))]...)
			in = in[len(content):]
			var out []lisp.Datagram
			switch op {
			case rtrRaw:
				out = b.send(source, content)
			case rtrData:
				out = b.sendTo(netip.AddrPortFrom(rtrIP, 4341), source, content)
			case rtrRegister:
				_ = lisp.Sign(content, siteKey) // it may be no message at all
				if packet, err := lisp.AppendInner(nil, lisp.Inner{Source: netip.AddrPortFrom(insideIP, 4342), Destination: msPort, Payload: content}); err == nil {
					m, err := (&lisp.EncapsulatedControl{RTR: true, Packet: packet}).MarshalBinary()
					require.NoError(t, err)
					out = b.send(source, m)
				}
			case rtrNotify:
				a, notify := b.confirmation(content)
				if a == nil {
					continue
				}
				confirmed[a.from] = true
				out = b.send(msPort, notify)
			case rtrUnasked:
				if len(content) > 0 {
					content[0] = 0x48 // a Map-Notify with an xTR-ID
				}
				if m, err := (Path{RTR: rtrIP, Local: insideIP}).Append(nil, msIP, content, rtrKey); err == nil {
					// It has the Map-Server's key, so with the nonce of an attempt it confirms that.
					b.vouch(content, confirmed)
					out = b.send(msPort, m)
				}
			case rtrFrom:
				if len(content) > 0 {
					source = sources[int(content[0])%len(sources)]
				}
			case rtrMoved:
				b.r.Moved(b.now, b.now, 0, netip.MustParsePrefix("172.16.3.3/32"))
			}
			require.LessOrEqual(t, len(out), 1)
			for _, d := range out {
				checkRTRSent(t, b, d)
			}
			require.LessOrEqual(t, b.r.waiting, limit)
			require.LessOrEqual(t, b.r.relays, limit)
			require.LessOrEqual(t, b.r.names.len(), limit)
			rs := b.r.Relays()
			require.Len(t, rs, b.r.relays)
			for _, r := range rs {
				require.True(t, confirmed[r.Global], "%v was never confirmed", r)
			}
			for range b.changes() {
			}
			require.LessOrEqual(t, len(b.r.eids), limit)
			b.events()
		}
	})
}

// confirmation is the Map-Notify to one of the attempts under way, which the
// Map-Server that they are for sends with the key.
func (b *rtrBench) confirmation(which []byte) (*attempt, []byte) {
	var waiting []*attempt
	for _, a := range b.r.attempts {
		if !a.settled && a.key.server == msIP {
			waiting = append(waiting, a)
		}
	}
	if len(waiting) == 0 || len(which) == 0 {
		return nil, nil
	}
	a := waiting[int(which[0])%len(waiting)]
	m := lisp.MapNotify{XTRIDPresent: true, Nonce: a.key.nonce, XTRID: a.key.xtr}
	for _, k := range a.eids {
		m.Records = append(m.Records, lisp.EIDRecord{TTL: 10, MaskLen: uint8(k.prefix.Bits()), EID: lisp.EIDAddress(k.iid, k.prefix.Addr())})
	}
	msg, err := m.AppendSigned(nil, siteKey)
	require.NoError(b.t, err)
	out, err := Path{RTR: rtrIP, Local: a.local}.Append(nil, msIP, msg, rtrKey)
	require.NoError(b.t, err)
	return a, out
}

// vouch notes who is confirmed by a Map-Notify of the Map-Server. When several have
// sent its nonce it is nobody new, as which of them is forged can't be told.
func (b *rtrBench) vouch(notify []byte, confirmed map[netip.AddrPort]bool) {
	var m lisp.MapNotify
	if m.DecodeFromBytes(notify) != nil {
		return
	}
	var one []netip.AddrPort
	for _, a := range b.r.attempts {
		if !a.settled && a.key.server == msIP && a.key.nonce == m.Nonce && a.key.xtr == m.XTRID {
			one = append(one, a.from)
		}
	}
	if len(one) == 1 {
		confirmed[one[0]] = true
	}
}

// checkRTRSent: a relayed Map-Register to a Map-Server, or a Data-Map-Notify.
func checkRTRSent(t *testing.T, b *rtrBench, d lisp.Datagram) {
	t.Helper()
	require.EqualValues(t, 4342, d.Local.Port())
	require.True(t, d.Remote.IsValid())
	if d.Bytes[0] == 0x08 {
		dataNotify(t, d.Bytes)
		return
	}
	_, ok := b.r.mapServer(d.Remote.Addr())
	require.True(t, ok, "to %v", d.Remote)
	m, err := lisp.Parse(d.Bytes)
	require.NoError(t, err)
	if e, ok := m.(*lisp.EncapsulatedControl); ok {
		require.True(t, e.Relayed)
		require.False(t, e.RTR)
		inner, err := e.Inner()
		require.NoError(t, err)
		require.Equal(t, lisp.TypeMapRegister, lisp.TypeOf(inner.Payload))
	}
}

// FuzzServer has a Server answer any datagram, as it is and when it is signed.
// Nothing unauthenticated is answered, no answer is much longer than its question,
// and each parses.
func FuzzServer(f *testing.F) {
	f.Add(captured(f, "38-nat-info-request-reply.pcap")[0].Bytes, true)
	f.Add(infoRequestFor(f, siteKey, "172.16.3.3/32"), false)
	f.Add(namePacket(f, "vm")[8:], false)
	var seed [32]byte
	rng := rand.New(rand.NewChaCha8(seed))
	f.Add(binary.BigEndian.AppendUint64([]byte{0x70, 0, 0, 0}, rng.Uint64()), true)
	f.Fuzz(func(t *testing.T, msg []byte, sign bool) {
		s := newTestServer(t, func(c *ServerConfig) { c.LispersNet = true })
		if sign {
			_ = lisp.Sign(msg, siteKey) // it may be no message at all
		}
		before := slices.Clone(msg)
		claimed := s.Handle(rtrStart, lisp.Datagram{Local: msPort, Remote: natPort, Bytes: msg})
		require.Equal(t, before, msg)
		out, ok := s.Next()
		if !ok {
			return
		}
		require.True(t, claimed)
		require.Equal(t, natPort, out.Remote)
		require.LessOrEqual(t, len(out.Bytes), 3*len(msg)+32)
		var m lisp.InfoReply
		require.NoError(t, m.DecodeFromBytes(out.Bytes))
		n, err := m.Traversal()
		require.NoError(t, err)
		require.Equal(t, natPort.Port(), n.ETRPort)
		a, ok := s.NextAnswer()
		require.True(t, ok)
		if a.Host == "" {
			require.NoError(t, lisp.Verify(msg, siteKey))
			require.NoError(t, lisp.Verify(out.Bytes, siteKey))
		}
		_, more := s.Next()
		require.False(t, more)
	})
}
