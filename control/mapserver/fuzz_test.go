package mapserver

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// Operations of FuzzMapServer: an octet, two octets of length or time, content.
const (
	opAdvance = iota // time in 100 ms
	opRaw            // a datagram
	opSigned         // a Map-Register to sign with the right key
	opInner          // a control message to encapsulate with right checksums
	opMerge          // a Delta
	numOps
)

func fuzzOp(op byte, content []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{op}, uint16(len(content)))
	return append(b, content...)
}

// FuzzMapServer lets the input drive a whole server. Whatever comes, state is
// bounded, deadlines are not in the past, what is sent parses and verifies, and
// no datagram makes more than one, except a request for many EIDs.
func FuzzMapServer(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pcap")
	require.NoError(f, err)
	for _, file := range files {
		var seed []byte
		for _, d := range datagrams(f, file) {
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

	const limit = 16
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newBench(t, func(c *Config) { c.MaxRegistrations, c.Journal, c.EventBuffer = limit, 8, 8 })
		for len(in) >= 3 {
			op, n := in[0]%numOps, int(binary.BigEndian.Uint16(in[1:]))
			in = in[3:]
			if op == opAdvance {
				b.now = b.now.Add(time.Duration(n) * 100 * time.Millisecond)
				b.s.Advance(b.now)
				if next := b.s.Deadline(); !next.IsZero() {
					require.False(t, next.Before(b.now), "deadline in the past")
				}
				require.Empty(t, b.drain())
				continue
			}
			content := append([]byte(nil), in[:min(n, len(in))]...)
			in = in[len(content):]
			from := etr1
			most := 1
			switch op {
			case opSigned:
				var m lisp.MapRegister
				if m.DecodeFromBytes(content) != nil {
					continue
				}
				var err error
				if content, err = m.AppendSigned(nil, key1); err != nil {
					continue
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
			case opMerge:
				var d Delta
				if d.UnmarshalBinary(content) == nil {
					_, _ = b.s.Merge(b.now, d)
				}
				continue
			}
			if len(content) > 0 && lisp.TypeOf(content) == lisp.TypeEncapsulatedControl {
				most = 256
			}
			out := b.put(from, content)
			require.LessOrEqual(t, len(out), most)
			for _, d := range out {
				checkSent(t, d)
			}
			require.LessOrEqual(t, b.s.claimCount, limit)
			require.LessOrEqual(t, len(b.s.xtrs), limit)
			require.LessOrEqual(t, len(b.s.expiry.soon), 4*limit+1024+1)
			require.LessOrEqual(t, b.s.expiry.linked(), b.s.claimCount)
			require.LessOrEqual(t, len(b.s.journal), 8)
			require.LessOrEqual(t, len(b.s.events)-b.s.eventNext, 8)
			require.Equal(t, len(b.s.Registrations(b.now)) > 0, liveClaims(b) > 0)
		}
		// In the end everything goes.
		for range 10 * limit {
			next := b.s.Deadline()
			if next.IsZero() {
				break
			}
			if next.After(b.now) {
				b.now = next
			}
			b.s.Advance(b.now)
		}
	})
}

func liveClaims(b *bench) int {
	n := 0
	ticks := b.s.toTicks(b.now)
	for _, inst := range b.s.instances {
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
	switch lisp.TypeOf(d.Bytes) {
	case lisp.TypeMapNotify:
		require.NoError(t, lisp.Verify(d.Bytes, key1))
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
		require.Equal(t, lisp.TypeMapRequest, lisp.TypeOf(in.Payload))
	default:
		require.FailNow(t, "unexpected message", "%x", d.Bytes)
	}
}
