package mapserver

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// loaded is a server with n registered EIDs, one xTR each, for the key.
type loaded struct {
	*bench
	key   lisp.Key
	auth  *lisp.Authenticator
	n     int
	nonce lisp.Nonce
}

func newLoaded(b testing.TB, n int, key lisp.Key) *loaded {
	b.Helper()
	l := &loaded{key: key, auth: lisp.NewAuthenticator(key), n: n, nonce: 1}
	l.bench = newBench(b, func(c *Config) {
		c.EventBuffer, c.RatePerSource, c.RateTotal, c.MaxRegistrations = -1, -1, -1, -1
		c.Sites = []Site{{Name: "load", Keys: []lisp.Key{key}, Prefixes: []SitePrefix{
			{Prefix: netip.MustParsePrefix("10.0.0.0/8"), AcceptMoreSpecifics: true},
		}}}
	})
	l.round(func(_ int, msg []byte) {
		l.s.Handle(l.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: msg})
		for _, ok := l.s.Next(); ok; _, ok = l.s.Next() {
		}
	})
	require.Equal(b, n, l.s.Stats().Registrations)
	return l
}

func benchEID(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// message is a Map-Register of EID i; b is reused.
func (l *loaded) message(b []byte, i int) []byte {
	l.nonce++
	m := lisp.MapRegister{
		WantMapNotify: true, ProxyReply: true, Nonce: l.nonce, XTRIDPresent: true, SiteID: 5,
		Auth:    lisp.Authentication{KeyID: l.key.ID, Algorithm: l.key.Algorithm, Data: make([]byte, l.key.DigestLen())},
		Records: []lisp.EIDRecord{loadRecord},
	}
	binary.BigEndian.PutUint32(m.XTRID[12:], uint32(i+1))
	m.Records[0].EID = lisp.AddressFrom(benchEID(i))
	b, err := m.AppendBinary(b[:0])
	if err == nil {
		err = l.auth.Sign(b)
	}
	require.NoError(l.t, err)
	return b
}

var loadRecord = record("10.0.0.0/32", 10, "192.0.2.11")

// round makes a Map-Register of every EID.
func (l *loaded) round(f func(i int, msg []byte)) {
	var b []byte
	for i := range l.n {
		b = l.message(b, i)
		f(i, b)
	}
}

// sizes are those that the figures are for.
var sizes = []struct {
	name string
	n    int
}{{"1k", 1_000}, {"1M", 1_000_000}}

// measured runs f with a metric of processor time, which other programs on the
// machine disturb less than the clock.
func measured(b *testing.B, f func()) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	f()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkRegister verifies Map-Registers that refresh, in the order of their
// EIDs and at random, acknowledges them and applies them in batches.
func BenchmarkRegister(b *testing.B) {
	for _, key := range []lisp.Key{key1, {ID: 1, Algorithm: lisp.AlgorithmHMACSHA1, Secret: []byte("sha-1")}} {
		for _, size := range sizes {
			b.Run(key.Algorithm.String()+"/"+size.name, func(b *testing.B) {
				l := newLoaded(b, size.n, key)
				w := l.s.NewWorker()
				r := rand.New(rand.NewPCG(1, 1))
				const batch = 4096
				var msgs [batch][]byte
				var cpu time.Duration
				b.ReportAllocs()
				b.ResetTimer()
				for done := 0; done < b.N; done += batch {
					b.StopTimer()
					for i := range msgs {
						msgs[i] = l.message(msgs[i], r.IntN(l.n))
					}
					b.StartTimer()
					before := cpuTime()
					for i := range min(batch, b.N-done) {
						w.Step(l.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: msgs[i]})
						if i%64 == 63 {
							if _, apply := w.Flush(); apply != nil {
								apply(l.now)
							}
						}
					}
					if _, apply := w.Flush(); apply != nil {
						apply(l.now)
					}
					cpu += cpuTime() - before
				}
				b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
				st := l.s.Stats()
				require.EqualValues(b, st.Registers, st.Accepted)
				require.EqualValues(b, st.Registers, st.Notifies)
			})
		}
	}
}

// BenchmarkResolve answers encapsulated Map-Requests for random EIDs, in as
// many Workers as there are processors.
func BenchmarkResolve(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			l := newLoaded(b, size.n, key1)
			r := rand.New(rand.NewPCG(1, 1))
			msgs := make([][]byte, min(size.n, 1<<16))
			for i := range msgs {
				msgs[i] = request(b, itr, benchEID(r.IntN(size.n)).String())
			}
			var mu sync.Mutex
			runtime.GC()
			measured(b, func() {
				b.RunParallel(func(pb *testing.PB) {
					mu.Lock()
					w := l.s.NewWorker()
					mu.Unlock()
					for i := 0; pb.Next(); i++ {
						if len(w.Handle(l.now, lisp.Datagram{Local: msAddr, Remote: itr, Bytes: msgs[i%len(msgs)]}).Out) != 1 {
							panic("no answer")
						}
					}
				})
			})
		})
	}
}

// BenchmarkMemory tells what a registered EID takes, one xTR each: after its
// first Map-Register and after more than are remembered for replays.
func BenchmarkMemory(b *testing.B) {
	var before, first, steady runtime.MemStats
	const n = 200_000
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		l := newLoaded(b, n, key1)
		runtime.GC()
		runtime.ReadMemStats(&first)
		for range recentRegisters + 1 {
			l.round(func(_ int, msg []byte) {
				l.s.Handle(l.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: msg})
				for _, ok := l.s.Next(); ok; _, ok = l.s.Next() {
				}
			})
		}
		runtime.GC()
		runtime.ReadMemStats(&steady)
		runtime.KeepAlive(l)
	}
	b.ReportMetric(float64(first.HeapAlloc-before.HeapAlloc)/n, "B/new-EID")
	b.ReportMetric(float64(steady.HeapAlloc-before.HeapAlloc)/n, "B/EID")
}

// BenchmarkLifetime lets a million registrations be refreshed once, and expire
// all, and tells the longest steps of the writer.
func BenchmarkLifetime(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		l := newLoaded(b, n, key1)
		runtime.LockOSThread()
		var refreshed, expired []time.Duration
		steps := func(d time.Duration, all []time.Duration) []time.Duration {
			end := l.now.Add(d)
			for {
				next := l.s.Deadline()
				if next.IsZero() || next.After(end) {
					l.now = end
					return all
				}
				if next.After(l.now) {
					l.now = next
				}
				before := threadTime()
				l.s.Advance(l.now)
				all = append(all, threadTime()-before)
			}
		}
		refreshed = steps(time.Minute, refreshed)
		l.round(func(_ int, msg []byte) {
			before := threadTime()
			l.s.Handle(l.now, lisp.Datagram{Local: msAddr, Remote: etr1, Bytes: msg})
			refreshed = append(refreshed, threadTime()-before)
			for _, ok := l.s.Next(); ok; _, ok = l.s.Next() {
			}
		})
		refreshed = steps(2*time.Minute+30*time.Second, refreshed)
		require.Equal(b, n, l.s.Stats().Registrations)
		expired = steps(time.Hour, expired)
		require.Zero(b, l.s.Stats().Registrations)
		require.Zero(b, l.s.claimCount)
		runtime.UnlockOSThread()
		for name, all := range map[string][]time.Duration{"refresh": refreshed, "expire": expired} {
			longest, sum := time.Duration(0), time.Duration(0)
			for _, d := range all {
				longest, sum = max(longest, d), sum+d
			}
			b.ReportMetric(float64(longest)/1e6, name+"-max-ms")
			b.ReportMetric(float64(sum)/n, name+"-ns/EID")
		}
	}
}
