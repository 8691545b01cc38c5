package mapserver

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/pcaptest"
	"github.com/xtrkit/xtrkit/lisp"
)

// Operations of FuzzMapServer: an octet, two octets of length or time, content.
const (
	opAdvance   = iota // time in 100 ms
	opRaw              // a datagram
	opSigned           // a Map-Register to sign with the right key
	opInner            // a control message to encapsulate with right checksums
	opMerge            // a Delta
	opFrom             // who sends from now on
	opAck              // a Map-Notify-Ack for one of those awaited
	opHealth           // the answer to one of the health checks under way
	opProtected        // a Map-Request to protect by LISP-SEC, see protectedOp
	numOps
)

func fuzzOp(op byte, content []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{op}, uint16(len(content)))
	return append(b, content...)
}

// FuzzMapServer lets the input drive a whole server. Whatever comes, state is
// bounded, deadlines are not in the past, what is sent parses and verifies, and
// no datagram makes more than one, except a request for many EIDs and a
// Map-Register that moves EIDs.
func FuzzMapServer(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pcap")
	require.NoError(f, err)
	for _, file := range files {
		var seed []byte
		for _, d := range pcaptest.Datagrams(f, file) {
			seed = append(seed, fuzzOp(opRaw, d.Bytes)...)
		}
		f.Add(seed)
	}
	session := fuzzOp(opSigned, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1)))
	session = append(session, fuzzOp(opSigned, register(f, key1, record("10.1.0.0/16", 1, "192.0.2.12"), withMerge, withProxy, withTTL))...)
	for _, eid := range []string{"10.1.2.3", "10.2.0.0", "8.8.8.8"} {
		session = append(session, fuzzOp(opRaw, request(f, itr, eid))...)
	}
	session = append(session, opAdvance, 0xff, 0xff)
	in, err := parse[*lisp.EncapsulatedControl](f, request(f, itr, "10.1.2.3")).Inner()
	require.NoError(f, err)
	session = append(session, fuzzOp(opInner, in.Payload)...)
	f.Add(session)
	a := newBench(f)
	a.put(etr1, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.11")))
	for d := range a.s.Snapshot() {
		b, err := d.MarshalBinary()
		require.NoError(f, err)
		f.Add(append(fuzzOp(opMerge, b), session...))
	}

	// A mapping moves to and fro, merges, and is acknowledged; Map-Servers answer.
	moves := slices.Concat(
		fuzzOp(opSigned, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1))), fuzzOp(opFrom, []byte{1}),
		fuzzOp(opSigned, register(f, key1b, record("10.1.0.0/16", 10, "192.0.2.12"), withXTR(xtr2), func(m *lisp.MapRegister) { m.Auth.KeyID = 2 })),
		[]byte{opAdvance, 0, 40}, fuzzOp(opAck, []byte{0}),
		fuzzOp(opSigned, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.13", "2001:db8::13"), withXTR(xtr2), withMerge)),
		fuzzOp(opFrom, []byte{0}), fuzzOp(opSigned, register(f, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withXTR(xtr1), withMerge)),
		fuzzOp(opHealth, []byte{0}), fuzzOp(opRaw, request(f, itr, "20.1.2.3")), []byte{opAdvance, 1, 40}, fuzzOp(opRaw, request(f, itr, "20.1.2.3")),
		fuzzOp(opHealth, []byte{1}), []byte{opAdvance, 2, 40}, fuzzOp(opAck, []byte{1}),
	)
	f.Add(moves)
	f.Add(append(moves, session...))
	for _, seed := range natSeeds(f) {
		f.Add(seed)
	}
	for _, seed := range securedSeeds(f) {
		f.Add(seed)
	}

	const limit = 16
	sources := []netip.AddrPort{etr1, etr2, itr, upA, msAddr6, rtr1, rtr2}
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newBench(t, resolver, withRTRs, fuzzSecured(limit), func(c *Config) {
			c.MaxRegistrations, c.Journal, c.EventBuffer, c.MaxNotifies, c.History = limit, 8, 8, limit, 4
		})
		source := etr1
		for len(in) >= 3 {
			op, n := in[0]%numOps, int(binary.BigEndian.Uint16(in[1:]))
			in = in[3:]
			if op == opAdvance {
				b.now = b.now.Add(time.Duration(n) * 100 * time.Millisecond)
				b.s.Advance(b.now)
				if next := b.s.Deadline(); !next.IsZero() {
					require.False(t, next.Before(b.now), "deadline in the past")
				}
				for _, d := range b.drain() {
					checkSent(t, d)
				}
				checkNotifies(t, b, limit)
				continue
			}
			content := append([]byte(nil), in[:min(n, len(in))]...)
			in = in[len(content):]
			from := source
			most := 1
			switch op {
			case opFrom:
				if len(content) > 0 {
					source = sources[int(content[0])%len(sources)]
				}
				continue
			case opAck:
				if content = awaitedAck(t, b, content); content == nil {
					continue
				}
				most = limit
			case opHealth:
				if content = healthAnswer(t, b, content); content == nil {
					continue
				}
			case opSigned:
				var m lisp.MapRegister
				if m.DecodeFromBytes(content) != nil {
					continue
				}
				var err error
				key := key1
				if m.Auth.KeyID == key1b.ID {
					key = key1b
				}
				if content, err = m.AppendSigned(nil, key); err != nil {
					continue
				}
				if source == rtr1 || source == rtr2 && !m.RTR {
					content = relayed(t, inside, content)
				}
			case opInner:
				packet, err := lisp.AppendInner(nil, lisp.Inner{
					Source: itr, Destination: netip.MustParseAddrPort("10.1.2.3:4342"), Payload: content,
				})
				if err != nil {
					continue
				}
				ecm := lisp.EncapsulatedControl{Packet: packet}
				if content, err = ecm.MarshalBinary(); err != nil {
					continue
				}
				from = itr
			case opProtected:
				if content = fuzzProtect(t, content); content == nil {
					continue
				}
			case opMerge:
				var d Delta
				if d.UnmarshalBinary(content) == nil {
					_, _ = b.s.Merge(b.now, d)
				}
				continue
			}
			if len(content) > 0 {
				switch lisp.TypeOf(content) {
				case lisp.TypeEncapsulatedControl:
					most = 256
				case lisp.TypeMapRegister: // others are told of one that is signed, also if it was before it was fuzzed
					if lisp.Verify(content, key1) == nil || lisp.Verify(content, key1b) == nil {
						most = 1 + 2*limit
					}
				default:
				}
			}
			out := b.put(from, content)
			require.LessOrEqual(t, len(out), most)
			for _, d := range out {
				checkSent(t, d)
			}
			checkNotifies(t, b, limit)
			require.LessOrEqual(t, len(b.s.History()), 8)
			require.LessOrEqual(t, b.s.claimCount, limit)
			require.LessOrEqual(t, b.s.xtrs.len(), limit)
			require.LessOrEqual(t, len(b.s.expiry.soon), 4*limit+1024+1)
			require.LessOrEqual(t, b.s.expiry.linked(), b.s.claimCount)
			require.LessOrEqual(t, len(b.s.journal), 8)
			require.LessOrEqual(t, len(b.s.events)-b.s.eventNext, 8)
			require.Equal(t, len(b.s.Registrations(b.now)) > 0, liveClaims(b) > 0)
		}
		// In the end everything goes, and nobody waits for a Map-Notify-Ack.
		for range 4 * limit {
			next := b.s.Deadline()
			if next.IsZero() {
				break
			}
			b.now = b.now.Add(20 * time.Second)
			if next.After(b.now) {
				b.now = next
			}
			b.s.Advance(b.now)
			for _, d := range b.drain() {
				checkSent(t, d)
			}
		}
		b.notNotifying()
	})
}

// checkNotifies checks that what is kept for unsolicited Map-Notifies is bounded
// and hangs together.
func checkNotifies(t testing.TB, b *bench, limit int) {
	t.Helper()
	n := &b.s.notifies
	require.LessOrEqual(t, n.count, limit)
	require.Len(t, n.due, len(n.peers))
	pairs, awaited := 0, subscriptionsUnderWay(t, b, limit)
	for k, p := range n.peers {
		require.Equal(t, k, p.key)
		require.Same(t, p, n.due[p.index])
		require.NotEmpty(t, p.eids)
		require.LessOrEqual(t, len(p.waiting), 2*limit+20)
		pairs += len(p.eids)
		if p.awaited != nil {
			awaited++
			require.LessOrEqual(t, p.sent, notifyMost)
		}
	}
	require.Equal(t, n.count, pairs)
	b.s.awaited.Range(func(_, _ any) bool { awaited--; return true })
	require.Zero(t, awaited)
}

// awaitedAck is a right Map-Notify-Ack for one of the Map-Notifies under way.
func awaitedAck(t testing.TB, b *bench, which []byte) []byte {
	var under []*notifyPeer
	for _, p := range b.s.notifies.due {
		if p.awaited != nil {
			under = append(under, p)
		}
	}
	if len(under) == 0 || len(which) == 0 {
		return nil
	}
	p := under[int(which[0])%len(under)]
	msg := p.message
	if lisp.TypeOf(msg) == lisp.TypeEncapsulatedControl {
		in, err := parse[*lisp.EncapsulatedControl](t, msg).Inner()
		require.NoError(t, err)
		msg = in.Payload
	}
	return ackOf(t, parse[*lisp.MapNotify](t, msg), p.awaited.key)
}

// healthAnswer is a Map-Reply to one of the health checks under way.
func healthAnswer(t testing.TB, b *bench, which []byte) []byte {
	if len(which) == 0 {
		return nil
	}
	u := b.s.set().upstreams[int(which[0])%len(b.s.set().upstreams)]
	m, err := (&lisp.MapReply{Nonce: lisp.Nonce(u.nonce), Records: []lisp.EIDRecord{record("0.0.0.0/1", 15)}}).MarshalBinary()
	require.NoError(t, err)
	return m
}

func liveClaims(b *bench) int {
	n := 0
	ticks := b.s.toTicks(b.now)
	for _, inst := range b.s.set().instances {
		for _, r := range inst.regs.All() {
			n += len(r.current(ticks, nil))
		}
	}
	return n
}

func checkSent(t testing.TB, d lisp.Datagram) {
	t.Helper()
	require.True(t, d.Remote.Addr().IsValid())
	require.NotZero(t, d.Remote.Port())
	require.EqualValues(t, lisp.ControlPort, d.Local.Port())
	if e := new(lisp.EncapsulatedControl); e.DecodeFromBytes(d.Bytes) != nil || !e.RTR {
		checkSecured(t, d.Bytes)
	}
	switch lisp.TypeOf(d.Bytes) {
	case lisp.TypeMapNotify:
		if lisp.Verify(d.Bytes, key1) != nil {
			require.NoError(t, lisp.Verify(d.Bytes, key1b))
		}
	case lisp.TypeMapReply:
		for _, r := range parse[*lisp.MapReply](t, d.Bytes).Records {
			require.False(t, r.Authoritative)
			for _, l := range r.Locators {
				require.False(t, l.Local || l.Probed)
			}
		}
	case lisp.TypeEncapsulatedControl:
		in, err := parse[*lisp.EncapsulatedControl](t, d.Bytes).Inner()
		require.NoError(t, err)
		if lisp.TypeOf(in.Payload) == lisp.TypeMapNotify { // to an RTR
			checkRelayed(t, d)
			return
		}
		require.Equal(t, lisp.TypeMapRequest, lisp.TypeOf(in.Payload))
	case lisp.TypeInfo:
		require.NotZero(t, d.Bytes[0]&0x08, "an Info-Reply")
	default:
		require.FailNow(t, "unexpected message", "%x", d.Bytes)
	}
}
