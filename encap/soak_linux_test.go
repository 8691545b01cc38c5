package encap

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/internal/netlab"
	"github.com/xtrkit/xtrkit/mapcache"
)

// soakRounds is how many rounds TestSoak has; with the variable in the
// environment it goes on for that long.
const (
	soakRounds = 7
	envSoak    = "XTRKIT_SOAK"
)

// resources is what a leak would use up.
type resources struct{ goroutines, files, heap int }

func measure(t *testing.T) resources {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return resources{runtime.NumGoroutine(), len(files), int(m.HeapAlloc)}
}

// Mixed traffic while interfaces and locators come and go, the map-cache changes
// all the time, and somebody reads all counters: nothing is leaked, and at the
// end all works as at the start.
func TestSoak(t *testing.T) {
	until := time.Time{}
	if s := os.Getenv(envSoak); s != "" {
		d, err := time.ParseDuration(s)
		require.NoError(t, err)
		until = time.Now().Add(d)
	}
	m := newMatrix(t, mapcache.FormatLISP, 1500)
	for _, f := range matrixFlows {
		transfer(t, m.hosts[0], m.hosts[1], f.a, f.b, 1<<20)
	}
	m.round(t, 0)
	before := measure(t)
	rounds := 1
	for ; rounds <= soakRounds || time.Now().Before(until); rounds++ {
		m.round(t, rounds)
	}
	for _, f := range matrixFlows {
		transfer(t, m.hosts[1], m.hosts[0], f.b, f.a, 1<<20)
	}
	require.NoError(t, netlab.Eventually(t.Context(), "goroutines to end", func() bool { return measure(t).goroutines <= before.goroutines }))
	after := measure(t)
	t.Logf("%d rounds: %+v, then %+v", rounds, before, after)
	assert.LessOrEqual(t, after.files, before.files)
	assert.Less(t, after.heap, before.heap+4<<20)
	for _, x := range m.xtrs {
		s := x.Stats()
		assert.Zero(t, s.HeldNow)
		assert.LessOrEqual(t, len(s.Locators), 8, "one for each locator that there was")
	}
}

// round is one round of TestSoak.
func (m *matrix) round(t *testing.T, n int) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	// Datagrams by all combinations, whether they arrive or not.
	for _, f := range matrixFlows {
		for i := range m.hosts {
			from, to := f.a, f.b
			if i == 1 {
				from, to = f.b, f.a
			}
			c, err := m.hosts[i].ListenPacket("udp", netip.AddrPortFrom(addr(from), 0).String())
			require.NoError(t, err)
			wg.Go(func() {
				defer c.Close()
				b := make([]byte, 1200)
				dst := netip.AddrPortFrom(addr(to), 9)
				for size := 1; ; size = (size + 97) % len(b) {
					select {
					case <-stop:
						return
					default:
					}
					_, _ = c.(interface {
						WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
					}).WriteToUDPAddrPort(b[:size], dst)
					runtime.Gosched()
				}
			})
		}
	}
	for _, x := range m.xtrs {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = x.Stats()
				x.Usage(func(mapcache.Usage) {})
				_ = x.PendingMisses(nil)
				select {
				case <-x.Discoveries():
				default:
				}
				runtime.Gosched()
			}
		})
	}
	// TCP by the locators that stay.
	for _, f := range matrixFlows[:2] {
		wg.Go(func() { transfer(t, m.hosts[0], m.hosts[1], f.a, f.b, 1<<19) })
	}
	m.churn(t, n)
	m.flap(t)
	if n%4 == 3 {
		close(stop)
		wg.Wait()
		stop = make(chan struct{})
		m.interfaceFlap(t)
	}
	select {
	case <-stop:
	default:
		close(stop)
	}
	wg.Wait()
}

// churn changes the map-cache, with entries that packets do not need.
func (m *matrix) churn(t *testing.T, n int) {
	t.Helper()
	for _, x := range m.xtrs {
		for i := range 300 {
			k := mapcache.Key{Prefix: prefix(fmt.Sprintf("172.16.%d.%d/32", n%200, i%256))}
			mapping := mapPrefix(k.Prefix.String(), fmt.Sprintf("198.18.%d.%d", n%3, i%250+1))
			mapping.Key, mapping.TTL, mapping.Origin = k, mapcache.TTLForever, mapcache.OriginStatic
			require.NoError(t, x.cache.Insert(testTime, mapping))
			x.cache.Publish()
			require.NoError(t, x.Apply(x.cache.Changes()))
			x.cache.Remove(testTime, k)
		}
		x.cache.Publish()
		require.NoError(t, x.Apply(x.cache.Changes()))
	}
}

// locals returns the locators of a host, the IPv6 one up or not.
func (m *matrix) locals(i int, v6 bool) []mapcache.Local {
	n := fmt.Sprint(i + 1)
	index := m.uplink[i].A.Index
	return []mapcache.Local{
		{IfIndex: index, Addr: addr("198.51." + n + ".2"), Priority: 1, Weight: 1, Up: true},
		{IfIndex: index, Addr: addr("2001:db8:" + n + "::2"), Priority: 1, Weight: 1, Up: v6},
	}
}

// flap takes the IPv6 locators away and gives them back.
func (m *matrix) flap(t *testing.T) {
	t.Helper()
	for range 5 {
		for i, x := range m.xtrs {
			for _, up := range []bool{false, true} {
				require.NoError(t, m.hosts[i].Do(func() error { return x.SetLocals(m.locals(i, up)) }))
			}
		}
	}
}

// interfaceFlap sets the uplink of a down, and up again.
func (m *matrix) interfaceFlap(t *testing.T) {
	t.Helper()
	a := m.uplink[0].A
	a.Down()
	require.NoError(t, m.hosts[0].Do(func() error { return m.xtrs[0].SetLocals(nil) }))
	a.Up()
	a.AddAddr("2001:db8:1::2/64")
	m.hosts[0].DefaultVia("198.51.1.1", "2001:db8:1::1")
	require.NoError(t, m.hosts[0].Do(func() error { return m.xtrs[0].SetLocals(m.locals(0, true)) }))
	// The router has to see it, too.
	m.hosts[0].MustRun("ping", "-c", "1", "-W", "60", "-I", "198.51.1.2", "198.51.2.2")
	m.hosts[0].MustRun("ping", "-c", "1", "-W", "60", "-I", "2001:db8:1::2", "2001:db8:2::2")
}
