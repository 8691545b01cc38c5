package mapserver

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// populated is a server with n registered EIDs, and a Map-Register of each.
func populated(b *testing.B, n int, opts ...registerOption) (*bench, [][]byte) {
	b.Helper()
	s := newBench(b, func(c *Config) { c.EventBuffer, c.RatePerSource, c.RateTotal = -1, -1, -1 })
	msgs := make([][]byte, n)
	for i := range msgs {
		msgs[i] = register(b, key1, record(netip.PrefixFrom(benchEID(i), 32).String(), 10, "192.0.2.11"),
			append([]registerOption{withXTR(lisp.XTRID{12: byte(i >> 16), 13: byte(i >> 8), 14: byte(i), 15: 1})}, opts...)...)
		s.s.Handle(s.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: msgs[i]})
		s.drain()
	}
	require.Equal(b, n, s.s.Stats().Registrations)
	return s, msgs
}

func benchEID(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// BenchmarkRegister is a Map-Register that refreshes, verified and acknowledged.
func BenchmarkRegister(b *testing.B) {
	const n = 10_000
	s, msgs := populated(b, n)
	rec := make([]lisp.MapRegister, n)
	for i := range rec {
		require.NoError(b, rec[i].UnmarshalBinary(msgs[i]))
	}
	var fresh [][]byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%n == 0 {
			b.StopTimer()
			fresh = fresh[:0]
			for j := range rec {
				rec[j].Nonce++
				m, err := rec[j].AppendSigned(nil, key1)
				require.NoError(b, err)
				fresh = append(fresh, m)
			}
			b.StartTimer()
		}
		s.s.Handle(s.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: fresh[i%n]})
		for _, ok := s.s.Next(); ok; _, ok = s.s.Next() {
		}
	}
}

// BenchmarkResolve answers Map-Requests for an ETR in parallel workers.
func BenchmarkResolve(b *testing.B) {
	const n = 10_000
	s, _ := populated(b, n, withProxy)
	msgs := make([][]byte, n)
	for i := range msgs {
		msgs[i] = request(b, itr, benchEID(i).String())
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		w := s.s.NewWorker()
		for i := 0; pb.Next(); i++ {
			w.Handle(s.now, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: msgs[i%n]})
		}
	})
}
